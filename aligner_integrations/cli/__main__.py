"""``python -m aligner_integrations.cli``, for launchers that start several processes."""

from aligner_integrations.cli import main

main()

"""The ``aligner`` command; one file per subcommand."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the ``aligner`` command. Errors of ours are one line, without a traceback."""
    from aligner_integrations.cli.app import app
    from aligner_integrations.errors import AlignerError

    try:
        app()
    except AlignerError as error:
        sys.stderr.write(f"aligner: {error}\n")
        sys.exit(1)

from __future__ import annotations

import subprocess
import sys

import aligner_integrations.evaluation.judges as package


def test_every_name_is_there_and_none_is_heavy() -> None:
    code = (
        "import sys, aligner_integrations.evaluation.judges as judges\n"
        "for name in judges.__all__: getattr(judges, name)\n"
        "heavy = {'torch', 'transformers', 'langchain_core', 'scipy', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(package.__all__) == set(package._HOMES)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import aligner_integrations
from aligner_integrations import llama_index
from aligner_integrations.errors import MissingExtraError


def test_names_at_the_top_level() -> None:
    names = [name for name in llama_index.__all__ if name.startswith("Align")]
    assert len(names) == 6
    assert set(names) <= set(aligner_integrations.__all__)
    for name in names:
        assert getattr(aligner_integrations, name) is getattr(llama_index, name)
        assert getattr(llama_index, name).class_name() == name


@pytest.mark.parametrize("missing", ["llama_index", "llama_index.core"])
def test_llama_index_is_not_installed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aligner_integrations.llama_index")
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(MissingExtraError, match=r"'aligner-integrations\[llamaindex\]'"):
        import aligner_integrations.llama_index  # noqa: F401


def test_adapters_and_core_stay_apart() -> None:
    check = """
import sys
from pathlib import Path
import aligner_integrations.sharing
assert not [m for m in sys.modules if m.partition(".")[0] == "llama_index"]
import aligner_integrations.llama_index
assert not [m for m in sys.modules if m.startswith("aligner_integrations.langchain")]
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)  # noqa: S603


def test_llamahub_knows_all_classes() -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    hub = pyproject.partition("[tool.llamahub]")[2]
    assert f'import_path = "{llama_index.__name__}"' in hub
    for name in llama_index.__all__:
        if name.startswith("Align"):
            assert f"\n{name} = " in hub

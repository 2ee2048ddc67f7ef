"""The planted model, loaded, and a scan of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_integrations.interpretability.scan import Scan, ScanOptions, scan
from aligner_integrations.models.load import LoadedModel, load_model
from tests.interpretability.planted import make_triples, save_planted


@pytest.fixture(scope="session")
def planted_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def planted(planted_dir: Path) -> LoadedModel:
    return load_model(str(planted_dir), device="cpu")


@pytest.fixture(scope="session")
def found(planted: LoadedModel) -> Scan:
    """Scanned once for all tests that only look."""
    options = ScanOptions(
        pairs=30, pairing="matched", answers=16, check_answers=12, attention=3, shuffles=4
    )
    return scan(planted, make_triples(60), options=options)

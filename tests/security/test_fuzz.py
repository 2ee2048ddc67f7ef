"""A short run of `fuzz.py`; docs/security.md says how many inputs a long one tried."""

from __future__ import annotations

import pytest

from tests.security.fuzz import PROPERTIES, TRIED, try_property


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties(name: str) -> None:
    try_property(name, 60)
    assert TRIED[name] >= 20

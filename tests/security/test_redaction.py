"""A key that a server repeats is read by nobody, however it is written."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.redaction import hide_key

# Without stars, which are put in a key's place.
KEYS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=8
)


def answer_to(authorization: str | None) -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    return httpx.Response(401, request=httpx.Request("POST", "http://x/v1", headers=headers))


@given(KEYS, st.text(), st.text())
def test_plain_and_in_json(key: str, before: str, after: str) -> None:
    response = answer_to(f"Bearer {key}")
    quoted = json.dumps({"error": before + key + after})
    for text in (key, quoted, quoted.replace("/", "\\/")):
        hidden = hide_key(text, response)
        assert "***" in hidden
        assert key not in hidden
        if text != key:
            assert key not in json.loads(hidden)["error"]


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer "])
def test_without_a_key_nothing_changes(authorization: str | None) -> None:
    assert hide_key("no key, no *", answer_to(authorization)) == "no key, no *"


def test_other_schemes() -> None:
    assert hide_key("wrong: dTpw", answer_to("Basic dTpw")) == "wrong: ***"

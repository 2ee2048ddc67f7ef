"""The bundled model on real pairs: speculation writes what plain decoding writes.

The pairs of ``tests/data/pairs.jsonl`` were written for this project: answers with one defect,
harmful answers that are rewritten, and good ones that are copied; together about 9,800 tokens of
corrections. Plain decoding of all of them, one by one and in two dtypes, takes about half an
hour. So by default float32 is compared on every eighth pair, with plain decoding in batches, which
is much faster, and bfloat16, where a batch writes something else, on every sixtieth. With
``ALIGNER_ALL_PAIRS=1`` in the environment nothing is left out.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from aligner_integrations.decoding import exact, plain
from aligner_integrations.decoding.packed import PackedModel, pack
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.decoding.speculative import Decoder
from aligner_integrations.models.load import LoadedModel, load_model
from aligner_integrations.tokenization import EncodedPrompt

PAIRS = Path(__file__).parent.parent / "data" / "pairs.jsonl"
ALL = bool(os.environ.get("ALIGNER_ALL_PAIRS"))
BATCH = 16
NEAR_TIE = 2e-4

pytestmark = pytest.mark.timeout(3600 if ALL else 900)


@dataclass(frozen=True)
class Reference:
    """The model, and what plain decoding made of the pairs."""

    loaded: LoadedModel
    packed: PackedModel
    prompts: list[EncodedPrompt]
    wanted: list[Row]

    def make_rows(self, chosen: list[int] | None = None, *, exact: bool = False) -> list[Row]:
        indices = range(len(self.prompts)) if chosen is None else chosen
        return [make_row(self.loaded, self.prompts[index], exact) for index in indices]


def make_row(loaded: LoadedModel, prompt: EncodedPrompt, exact: bool = False) -> Row:
    stop = loaded.encoder.stop_ids
    return Row(prompt.ids, prompt.answer_ids, stop, 200, Sampler(), exact=exact)


def refer(dtype: str, every: int, batch: int) -> Reference:
    loaded = load_model("aligner-smol", device="cpu", dtype=dtype)
    packed = pack(loaded.model)
    assert packed is not None
    lines = PAIRS.read_text(encoding="utf-8").splitlines()[::every]
    pairs = [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    prompts = [loaded.encoder.encode(*pair) for pair in pairs]
    rows = [make_row(loaded, prompt) for prompt in prompts]
    ordered = iter(sorted(rows, key=lambda row: len(row.prompt)))
    while together := list(islice(ordered, batch)):
        for _ in plain.decode(loaded.model, together):
            pass
    return Reference(loaded, packed, prompts, rows)


@pytest.fixture(scope="module")
def float32() -> Reference:
    return refer("float32", 1 if ALL else 8, 1 if ALL else BATCH)


@pytest.fixture(scope="module")
def bfloat16() -> Reference:
    return refer("bfloat16", 1 if ALL else 60, 1)


def write(packed: PackedModel, rows: list[Row]) -> None:
    """Run rows to their ends, always some together."""
    decoder, coming = Decoder(packed), iter(rows)
    running = list(islice(coming, BATCH))
    for row in running:
        decoder.add(row)
    while running:
        decoder.step()
        running = [row for row in running if row.stop_reason is None]
        for row in islice(coming, BATCH - len(running)):
            decoder.add(row)
            running.append(row)


def test_float32(float32: Reference) -> None:
    """Only a choice that rounding decides may differ, and there are hardly any."""
    rows, wanted = float32.make_rows(), float32.wanted
    assert len(rows) >= (300 if ALL else 37)
    assert sum(len(row.output) for row in wanted) >= (5000 if ALL else 1000)
    write(float32.packed, rows)
    close = [row.smallest_margin < NEAR_TIE for row in wanted]
    different = [
        index
        for index, (row, other) in enumerate(zip(rows, wanted, strict=True))
        if row.output != other.output and not close[index]
    ]
    assert different == []
    assert sum(close) <= 0.02 * len(rows)
    assert [bool(row.near_ties) for row in wanted] == close
    kept = [row.output == row.draft for row in wanted]
    assert 1 / 3 <= sum(kept) / len(kept) <= 2 / 3  # the rest is edited or rewritten
    passes, tokens = (
        sum(getter(row) for row, same in zip(rows, kept, strict=True) if same)
        for getter in (lambda row: row.forward_passes, lambda row: len(row.output))
    )
    assert passes < 0.3 * tokens


def test_float32_exact(float32: Reference) -> None:
    """What exact rows write does not hang on how the others were drafted."""
    close = [i for i, row in enumerate(float32.wanted) if row.smallest_margin < 1e-2][:6]
    alone = [make_row(float32.loaded, float32.prompts[index]) for index in close]
    for row in alone:
        for _ in plain.decode(float32.loaded.model, [row]):
            pass
    rows = float32.make_rows(close, exact=True)
    write(float32.packed, rows)
    assert close
    assert [row.output for row in rows] == [row.output for row in alone]


def test_bfloat16_exact(bfloat16: Reference) -> None:
    """Every pair, without exception, though many a correction holds near-ties."""
    rows, wanted = bfloat16.make_rows(exact=True), bfloat16.wanted
    assert len(rows) >= (300 if ALL else 5)
    assert sum(len(row.output) for row in wanted) >= (5000 if ALL else 100)
    write(bfloat16.packed, rows)
    assert [row.output for row in rows] == [row.output for row in wanted]
    assert {row.stop_reason for row in rows} == {"stop"}
    assert sum(row.near_ties > 0 for row in wanted) > len(wanted) / 4


def test_bfloat16_exact_by_replay(bfloat16: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of models and machines whose shared passes have other bits."""
    monkeypatch.setitem(exact._found, bfloat16.packed, "replay")
    order = sorted(range(len(bfloat16.wanted)), key=lambda i: bfloat16.wanted[i].near_ties)
    chosen = order[:: max(1, len(order) // 40)][-40:]
    rows = bfloat16.make_rows(chosen, exact=True)
    write(bfloat16.packed, rows)
    assert [row.output for row in rows] == [bfloat16.wanted[index].output for index in chosen]
    assert sum(row.near_ties for row in rows) > (30 if ALL else 2)

"""Every way really writes the forced output, with the passes that it claims to make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aligner_integrations import Aligner
from aligner_integrations.benchmarking.cases import Case, CaseMaker
from aligner_integrations.benchmarking.methods import OurWays, StockWays, engine_of, load_both
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import ConfigurationError


@pytest.fixture(scope="module")
def ways(tiny_model_dir: Callable[..., Path]) -> tuple[StockWays, OurWays, CaseMaker]:
    directory = tiny_model_dir(prompt="aligner-smol", max_position_embeddings=2048)
    loaded, aligner = load_both(str(directory), device="cpu")
    engine = engine_of(aligner)
    return StockWays(loaded), OurWays(engine), CaseMaker(engine.loaded.encoder)


def count_tokens(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[tuple[int, ...]]:
    """Shapes of the inputs of each pass."""
    seen: list[tuple[int, ...]] = []
    embed = model.get_input_embeddings()
    hook = embed.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(embed, "_test_hook", hook, raising=False)
    return seen


def passes(monkeypatch: pytest.MonkeyPatch, model: Any, run: Callable[[], None]) -> list[Any]:
    seen = count_tokens(monkeypatch, model)
    run()
    model.get_input_embeddings()._test_hook.remove()
    return seen


def test_plain_loop_and_generate_make_a_pass_for_each_token(
    ways: tuple[StockWays, OurWays, CaseMaker], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, _, maker = ways
    case = maker.rewritten(60)
    wanted = [(1, len(case.prompt))] + [(1, 1)] * len(case.target)
    assert passes(monkeypatch, stock._model, lambda: stock.plain_loop(case)) == wanted
    assert passes(monkeypatch, stock._model, lambda: stock.generate(case)) == wanted


def test_prompt_lookup_and_ours_save_passes(
    ways: tuple[StockWays, OurWays, CaseMaker], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, ours, maker = ways
    case = maker.identical(200)
    lookup = passes(monkeypatch, stock._model, lambda: stock.prompt_lookup(case))
    fast = passes(monkeypatch, ours.model.model, lambda: ours.decode(case))
    floor = passes(monkeypatch, ours.model.model, lambda: ours.floor(case))
    assert len(floor) == 1
    assert floor[0] == (1, len(case.prompt) + len(case.target))
    assert 1 < len(fast) <= 6 < len(lookup) < len(case.target) / 2


def test_batches_write_all(
    ways: tuple[StockWays, OurWays, CaseMaker], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, ours, maker = ways
    cases = maker.mix(20)
    padded = passes(monkeypatch, stock._model, lambda: stock.generate_padded(cases))
    assert {shape[0] for shape in padded} == {8, 4}
    written: list[Case] = []
    make_row = ours._make_row

    def keep(case: Case) -> Any:
        row = make_row(case)
        written.append(case)
        rows.append(row)
        return row

    rows: list[Any] = []
    monkeypatch.setattr(ours, "_make_row", keep)
    ours.decode_together(cases)
    assert [row.output for row in rows] == [case.target for case in written]
    assert all(row.stop_reason == "stop" for row in rows)


def test_models_share_weights_where_none_are_packed(
    tiny_model_dir: Callable[..., Path],
) -> None:
    directory = str(tiny_model_dir(prompt="aligner-smol"))
    loaded, aligner = load_both(directory, device="cpu", dtype="float16")
    assert loaded is engine_of(aligner).loaded
    loaded, aligner = load_both(directory, device="cpu")
    assert loaded is not engine_of(aligner).loaded
    assert loaded.model.lm_head.weight.dtype == torch.float32  # type: ignore[attr-defined]


def test_what_cannot_be_compared_says_so(tiny_model_dir: Callable[..., Path]) -> None:
    directory = tiny_model_dir(prompt="aligner-smol")
    aligner = Aligner.from_pretrained(str(directory), device="cpu")
    with pytest.raises(ConfigurationError, match="is decoded plainly, so there is nothing to"):
        OurWays(LocalEngine(engine_of(aligner).loaded, speculate=False))

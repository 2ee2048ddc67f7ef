"""Copy-speculative decoding writes what plain decoding writes, in fewer passes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, MistralConfig, PreTrainedModel, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from aligner_integrations.decoding import plain, speculative
from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.packed import PackedModel, Part, pack
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.decoding.speculative import Decoder
from tests.tiny import make_model

_SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: make_model("llama"),
    "qwen2": lambda: make_model("qwen2"),
    # transformers 5 chooses that by itself; before, SDPA left the soft cap out.
    "gemma2 (soft cap, sliding)": lambda: make_model(
        "gemma2", sliding_window=8, attn_implementation="eager"
    ),
    "gemma3 (sliding)": lambda: make_model("gemma3", sliding_window=8),
    "mistral (sliding)": lambda: _random(MistralConfig(**_SHAPE, sliding_window=8)),
    "qwen3": lambda: _random(Qwen3Config(**_SHAPE)),
    "gpt-neox": lambda: _random(
        GPTNeoXConfig(
            vocab_size=96,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    ),
}
_loaded: dict[str, tuple[PreTrainedModel, PackedModel]] = {}


def _random(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.float().eval()


def load(name: str) -> tuple[PreTrainedModel, PackedModel]:
    """The same weights twice: with the model's own attention, and packed."""
    if name not in _loaded:
        model = MODELS[name]()
        packed = pack(copy.deepcopy(model))
        assert packed is not None
        _loaded[name] = model, packed
    return _loaded[name]


def make_row(
    prompt: list[int], draft: list[int], limit: int = 40, stop: int = 2, **sampling: Any
) -> Row:
    return Row(prompt, draft, frozenset({stop}), limit, Sampler(**sampling))


def write_plain(model: PreTrainedModel, row: Row) -> Row:
    for _ in plain.decode(model, [row]):
        pass
    return row


def write(packed: PackedModel, rows: list[Row], late: Sequence[Row] = ()) -> None:
    """Run to the end; also checks that what comes of the passes adds up to each row's output.

    Of the late rows one joins before each pass.
    """
    decoder, coming = Decoder(packed), list(late)
    for row in rows:
        decoder.add(row)
    written: dict[int, list[int]] = {id(row): [] for row in (*rows, *late)}
    while coming or any(row.stop_reason is None for row in (*rows, *late)):
        if coming:
            decoder.add(coming.pop())
        for row, ids in decoder.step():
            written[id(row)] += ids
    assert all(written[id(row)] == row.output for row in (*rows, *late))


def spoil(tokens: list[int], how: str, seed: int = 0) -> list[int]:
    """A draft that the output departs from."""
    rng = random.Random(seed)
    middle = len(tokens) // 2
    return {
        "identical": tokens,
        "nothing like it": [rng.randrange(3, 90) for _ in tokens],
        "one replaced": [*tokens[:middle], 89, *tokens[middle + 1 :]],
        "some removed": tokens[: middle - 3] + tokens[middle + 3 :],
        "some put in": [*tokens[:middle], 88, 89, 90, *tokens[middle:]],
        "another beginning": [87, 88, 89, 90, *tokens[4:]],
        "every tenth": [89 if i % 10 == 9 else token for i, token in enumerate(tokens)],
    }[how]


SPOILED = (
    "identical",
    "nothing like it",
    "one replaced",
    "some removed",
    "some put in",
    "another beginning",
    "every tenth",
)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_p": 0.9, "seed": 7}])
@pytest.mark.parametrize("name", MODELS)
def test_same_output_as_plain(name: str, sampling: dict[str, Any]) -> None:
    model, packed = load(name)
    rng = random.Random(1)
    for length in (4, 17, 60):
        prompt = [rng.randrange(3, 90) for _ in range(length)]
        wanted = write_plain(model, make_row(prompt, [], **sampling))
        for how in SPOILED:
            row = make_row(prompt, spoil(wanted.output, how), **sampling)
            write(packed, [row])
            assert row.output == wanted.output, how
            assert row.stop_reason == wanted.stop_reason


@given(data=st.data())
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3 (sliding)"])
def test_same_output_for_any_prompt_and_draft(name: str, data: st.DataObject) -> None:
    model, packed = load(name)
    ids = st.integers(3, 90)
    prompt = data.draw(st.lists(ids, min_size=1, max_size=40))
    sampling = data.draw(st.sampled_from([{}, {"temperature": 1.0, "seed": 3}]))
    wanted = write_plain(model, make_row(prompt, [], limit=24, **sampling))
    at = data.draw(st.integers(0, len(wanted.output)))
    draft = wanted.output[:at] + data.draw(st.lists(ids, max_size=8)) + wanted.output[at:]
    row = make_row(prompt, draft, limit=24, **sampling)
    write(packed, [row])
    assert row.output == wanted.output


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_all_kinds_together(name: str) -> None:
    model, packed = load(name)
    rng = random.Random(2)
    prompts = [[rng.randrange(3, 90) for _ in range(n)] for n in (3, 40, 9, 25, 1, 60)]
    wanted = [write_plain(model, make_row(prompt, [])) for prompt in prompts]
    rows = [
        make_row(prompt, spoil(one.output, how))
        for prompt, one, how in zip(prompts, wanted, SPOILED, strict=False)
    ]
    write(packed, rows[:3], late=rows[3:])
    assert [row.output for row in rows] == [one.output for one in wanted]


def test_an_identical_answer_costs_few_passes() -> None:
    model, packed = load("llama")
    prompt = list(range(3, 60))
    wanted = write_plain(model, make_row(prompt, [], limit=300, stop=-1))
    assert wanted.forward_passes == 300
    row = make_row(prompt, wanted.output, limit=300, stop=-1)
    write(packed, [row])
    assert row.output == wanted.output
    assert row.forward_passes <= 5


def test_drafts_of_a_pass_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their logits take memory; rows that get no draft still move on."""
    model, packed = load("llama")
    monkeypatch.setattr(speculative, "MAX_DRAFTED", 20)
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    wanted = [write_plain(model, make_row(p, [], limit=60, stop=-1)) for p in prompts]
    rows = [
        make_row(p, one.output, limit=60, stop=-1) for p, one in zip(prompts, wanted, strict=True)
    ]
    forward, most = packed.forward, []

    def watched(parts: Sequence[Part]) -> Any:
        most.append(sum(part.wanted - 1 for part in parts))
        return forward(parts)

    monkeypatch.setattr(packed, "forward", watched)
    write(packed, rows)
    assert [row.output for row in rows] == [one.output for one in wanted]
    assert max(most) == 20


def test_a_long_prompt_is_read_in_pieces() -> None:
    model, packed = load("llama")
    rng = random.Random(3)
    prompt = [rng.randrange(3, 90) for _ in range(3 * speculative.PREFILL_CHUNK + 5)]
    wanted = write_plain(model, make_row(prompt, [], limit=5, stop=-1))
    row, other, alone = (make_row(ids, [], limit=5, stop=-1) for ids in (prompt, [5, 6], prompt))
    write(packed, [row, other])
    write(packed, [alone])
    assert row.output == alone.output == wanted.output
    assert row.forward_passes == alone.forward_passes == 3 + 5


def test_a_row_goes_on_behind_its_output() -> None:
    model, packed = load("llama")
    wanted = write_plain(model, make_row([5, 6, 7], [], limit=20))
    row = make_row([5, 6, 7], wanted.output, limit=20)
    row.output = wanted.output[:8]
    decoder = Decoder(packed)
    decoder.add(row)
    while row.stop_reason is None:
        decoder.step()
    assert row.output == wanted.output


def test_cancelled_rows_leave_within_a_pass() -> None:
    _, packed = load("llama")
    gone = False
    row = Row([5, 6], [], frozenset(), 100, Sampler(), is_cancelled=lambda: gone)
    decoder = Decoder(packed)
    decoder.add(row)
    decoder.step()
    gone = True
    assert decoder.step() == []
    assert row.stop_reason == "cancelled"
    assert len(row.output) == 1


def test_stop_and_limit() -> None:
    model, packed = load("llama")
    wanted = write_plain(model, make_row([5, 6, 7], [], limit=12)).output
    for limit in range(1, 12):
        row = make_row([5, 6, 7], wanted, limit=limit)
        write(packed, [row])
        assert (row.output, row.stop_reason) == (wanted[:limit], "length")
    end = wanted[6]
    row = Row([5, 6, 7], wanted, frozenset({end}), 40, Sampler())
    write(packed, [row])
    assert (row.output, row.stop_reason) == (wanted[: wanted.index(end)], "stop")


def test_a_cache_that_was_cut_back_reads_the_same() -> None:
    _, packed = load("gemma3 (sliding)")
    with torch.inference_mode():
        straight, cut = RowCache(), RowCache()
        (wanted,) = packed.forward([Part(straight, list(range(3, 40)), 1)])
        packed.forward([Part(cut, [*range(3, 30), 77, 78, 79], 1)])
        cut.length -= 3
        (got,) = packed.forward([Part(cut, list(range(30, 40)), 1)])
    assert torch.allclose(wanted, got, atol=1e-5)


def test_models_that_cannot_be_packed_say_so(caplog: pytest.LogCaptureFixture) -> None:
    model = make_model("llama")
    model.lm_head.register_forward_hook(lambda *args: args[2] + torch.randn(()))
    with caplog.at_level("INFO"):
        assert pack(model) is None
    assert "plain decoding, because packed logits differ" in caplog.text


def test_the_model_stays_as_it_was() -> None:
    model = make_model("llama")
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    packed = pack(model)
    assert packed is not None
    write(packed, [make_row([5, 6, 7], [])])
    assert torch.equal(model(input_ids=ids).logits, before)

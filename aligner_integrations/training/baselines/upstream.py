"""An upstream model: loading it, asking it many questions at once, saving it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.models.directories import find_directory
from aligner_integrations.models.load import (
    find_context_length,
    find_end_tokens,
    load_tokenizer,
)
from aligner_integrations.models.vetting import check_safetensors
from aligner_integrations.training.baselines.config import SamplingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Answer:
    """What the upstream said.

    Attributes:
        text: The answer.
        cut: Whether it reached its limit before it ended.
    """

    text: str
    cut: bool


@dataclass(slots=True)
class Upstream:
    """A chat model of transformers.

    Attributes:
        name: What the user called it.
        directory: Where its files are.
        model: The model.
        tokenizer: Its tokenizer, with a chat template.
    """

    name: str
    directory: Path
    model: PreTrainedModel
    tokenizer: Any

    @property
    def context_length(self) -> int:
        """Most tokens that question and answer may have together."""
        return find_context_length(self.model)

    def count_tokens(self, messages: list[dict[str, str]]) -> int:
        """How many tokens a prompt has."""
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def ask(self, prompt: str, sampling: SamplingConfig | None = None) -> str:
        """One answer, the likeliest tokens unless ``sampling`` says otherwise."""
        sampling = sampling or SamplingConfig(temperature=0, batch=1)
        return self.answer([prompt], sampling)[0].text

    def answer(
        self,
        questions: Sequence[str],
        sampling: SamplingConfig,
        *,
        system: str | None = None,
        seed: int = 0,
    ) -> list[Answer]:
        """Answer questions together; the same seed gives the same answers on the same machine."""
        model: Any = self.model
        end = sorted(find_end_tokens(model, self.tokenizer))
        texts = [
            self.tokenizer.apply_chat_template(
                make_prompt(question, system), tokenize=False, add_generation_prompt=True
            )
            for question in questions
        ]
        self.tokenizer.padding_side = "left"
        inputs = self.tokenizer(
            texts, add_special_tokens=False, padding=True, return_tensors="pt"
        ).to(model.device)
        width = inputs["input_ids"].shape[1]
        room = min(sampling.max_new_tokens, self.context_length - width)
        if room < 1:
            raise ConfigurationError(
                f"a question of {width} tokens leaves no room for an answer in the context of "
                f"{self.name}; take long questions out"
            )
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        if sampling.temperature > 0:
            drawn = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
            }
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=room,
                eos_token_id=end,
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
                top_k=None,
                **drawn,
            )
        return [self._read(row, end) for row in output[:, width:].tolist()]

    def _read(self, ids: list[int], end: list[int]) -> Answer:
        places = [place for place, token in enumerate(ids) if token in end]
        ids = ids[: places[0]] if places else ids
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Answer(text.strip(), cut=not places)


def load_upstream(
    name: str, *, device: str | None = None, dtype: torch.dtype | str | None = None
) -> Upstream:
    """Load an upstream model.

    Args:
        name: Bundled name, directory or hub id.
        device: By default a GPU if there is one.
        dtype: By default float32 on a CPU, else as it was saved.

    Raises:
        ModelNotFoundError: It is nowhere.
        ConfigurationError: It has no chat template.
    """
    from transformers import AutoModelForCausalLM

    directory = find_directory(name)
    tokenizer = load_tokenizer([directory], trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise ConfigurationError(
            f"{name!r} has no chat template, so it is no chat model; take its instruct version, or "
            "save one in its tokenizer"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_safetensors(directory)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype or (torch.float32 if device == "cpu" else "auto"),
        use_safetensors=True,
        trust_remote_code=False,
    )
    return Upstream(name, directory, model.to(device).eval(), tokenizer)


def save_upstream(upstream: Upstream, directory: Path) -> None:
    """Write what transformers loads, weights in the type that the base has."""
    model: Any = upstream.model
    said = json.loads((upstream.directory / "config.json").read_text(encoding="utf-8"))
    name = said.get("dtype") or said.get("torch_dtype") or "float32"
    model.to(getattr(torch, name))
    model.config.use_cache = True
    model.save_pretrained(str(directory), safe_serialization=True)
    upstream.tokenizer.save_pretrained(str(directory))


def make_prompt(question: str, system: str | None) -> list[dict[str, str]]:
    """A question as messages."""
    messages = [{"role": "user", "content": question}]
    return [{"role": "system", "content": system}, *messages] if system else messages


def holds_special_token(tokenizer: Any, *texts: str) -> bool:
    """Whether a text spells a token, such as an end of turn, that a chat template would obey."""
    return any(token in text for token in tokenizer.all_special_tokens for text in texts)

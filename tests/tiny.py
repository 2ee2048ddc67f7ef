# ruff: noqa: S106 - a tokenizer's tokens are no passwords
"""Tiny models with random weights, and tiny tokenizers, made in a second and saved as real ones."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

CONFIGS = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
    "gpt2": GPT2Config,  # learns its positions, where the others only compare them
}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "BEGINNING OF CONVERSATION: USER: Edit the following Question-Answer pair to make it more "
    "helpful and harmless: How do I boil eggs? | Boil them for 8 minutes. ASSISTANT:",
    "##Question: ##Answer: ##Correction: USER: ASSISTANT: the answer, the question; it's 42.",
    "Then cool them in cold water. You are kind.\n\nUse `kill PID`, or `kill -9 PID`.\tDone!",
    "Grüße aus Köln, naïve café — “quoted”. 1 2 3 4 5 6 7 8 9 0",
]


def make_byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Like GPT-2's, SmolLM2's or Qwen's: bytes, special tokens, one added token that is not."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_llama2_tokenizer() -> PreTrainedTokenizerFast:
    """Like Llama-2's: a space is put before every text, unknown characters become bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    lines = [line for text in CORPUS for line in text.splitlines()]
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=180, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [token for token in learnt["vocab"] if token not in tokens]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge) for merge in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


TOKENIZERS = {"byte-level": make_byte_level_tokenizer, "llama-2": make_llama2_tokenizer}


def make_model(architecture: str = "llama", *, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A causal language model with random weights, in eval mode."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 448,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.5,  # peaked, so that greedy decoding has no near-ties
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": False,
        **config,
    }
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[architecture](**settings))
    return model.float().eval()


def make_writer(
    tokenizer: PreTrainedTokenizerFast, text: str, behind: str = "\n"
) -> PreTrainedModel:
    """A Llama that writes this text behind any prompt that ends in ``behind``, then ends.

    Each token is followed by one certain token, so none may come twice.
    """
    ids = tokenizer.encode(behind + text, add_special_tokens=False)
    first = len(tokenizer.encode(behind, add_special_tokens=False)) - 1
    chain = [*ids[first:], tokenizer.eos_token_id]
    assert len(set(chain)) == len(chain), f"a token comes twice in {text!r}"
    model = make_model(num_hidden_layers=1, hidden_size=448, head_dim=112)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(448))
        model.lm_head.weight.zero_()
        for token, following in itertools.pairwise(chain):
            model.lm_head.weight[following, token] = 1
    return model


def save_model(
    directory: Path,
    architecture: str = "llama",
    *,
    tokenizer: str = "byte-level",
    prompt: Any = None,
    seed: int = 0,
    writes: str | None = None,
    behind: str = "\n",
    **config: Any,
) -> Path:
    """Save a model, its tokenizer and, with ``prompt``, its `aligner_config.json`.

    With ``writes`` the model is `make_writer`'s.
    """
    saved = TOKENIZERS[tokenizer]()
    if writes is None:
        model = make_model(architecture, seed=seed, **config)
    else:
        model = make_writer(saved, writes, behind)
    model.save_pretrained(directory)
    saved.save_pretrained(directory)
    if prompt is not None:
        (directory / "aligner_config.json").write_text(json.dumps({"prompt": prompt}))
    return directory

"""`bootstrap`: an aligner's corrections train the upstream, again and again.

Ji et al. 2024, section 4. In each round the upstream answers questions, the aligner corrects the
answers, and what it changed becomes preference pairs, correction over answer, for SFT and DPO.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligner_integrations.errors import AlignerError, ConfigurationError
from aligner_integrations.training.baselines.config import BootstrapConfig
from aligner_integrations.training.baselines.pairs import Pair
from aligner_integrations.training.baselines.rounds import count_rows, read_journal, write_json
from aligner_integrations.training.baselines.student import FREE, check_settings, train_student
from aligner_integrations.training.baselines.upstream import (
    Upstream,
    holds_special_token,
    load_upstream,
    make_prompt,
)
from aligner_integrations.training.config import check_least
from aligner_integrations.training.data import read_questions
from aligner_integrations.training.data.journal import Journal
from aligner_integrations.training.data.sampling import hash_text
from aligner_integrations.training.data.triples import encode_row, replacing

if TYPE_CHECKING:
    from aligner_integrations.aligner import Aligner

__all__ = ["BootstrapConfig", "bootstrap"]

logger = logging.getLogger(__name__)
_CHUNK = 64  # answers that the aligner gets at once


@dataclass(frozen=True, slots=True)
class _Question:
    id: str
    text: str
    held_out: bool


def bootstrap(
    config: BootstrapConfig, *, aligner: Aligner | None = None, rounds: int | None = None
) -> Path:
    """Train an upstream on an aligner's corrections of its own answers, round by round.

    ``round-1``, ``round-2``, ... each hold ``answers.jsonl``, ``corrections.jsonl``,
    ``pairs.jsonl``, the trained ``model`` and ``round.json``, whose counts tell how much of what
    the model said *before* that training was changed. Behind the last round the finished model is
    asked once more, in a directory of its own; `bootstrap.json` has all rounds' counts.

    A run that was stopped goes on at the step, and within it, where it was; one that is finished
    goes on if it is told more rounds. It ends early when nothing is changed any more.

    Args:
        config: What to train.
        aligner: An aligner that is loaded already, instead of ``config.aligner``.
        rounds: Instead of ``config.rounds``.

    Returns:
        The directory of the last model; transformers loads it.

    Raises:
        ConfigurationError: The config asks for something that cannot work, the output holds a run
            of other settings, or no answer can be used.
        DataError: A question is broken; the message has file and line.
        TrainingError: A stage ran out of memory or disk; the next run goes on.
    """
    rounds = config.rounds if rounds is None else rounds
    check_least({"rounds": (rounds, 1)})
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError("bootstrap runs in one process; start it without a launcher")
    output = Path(config.output)
    questions = _read_questions(config)
    settings = {k: v for k, v in config.to_dict().items() if k not in (*FREE, "rounds")}
    settings["questions_hash"] = hash_text(*(f"{q.held_out} {q.text}" for q in questions))
    check_settings(output / "settings.json", settings)
    model, history = config.upstream, []
    for number in range(1, rounds + 2):
        report = _run_round(config, number, model, questions, aligner, train=number <= rounds)
        history.append(report)
        model = report["model"]
        if not report["pairs"]:
            logger.info("round %d: the aligner changed nothing; it ends here", number)
            break
    write_json(output / "bootstrap.json", {"model": model, "rounds": history})
    return Path(model)


def _run_round(
    config: BootstrapConfig,
    number: int,
    model: str,
    questions: Sequence[_Question],
    aligner: Aligner | None,
    *,
    train: bool,
) -> dict[str, Any]:
    directory = Path(config.output) / f"round-{number}"
    done = directory / "round.json"
    if done.is_file():
        report: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if report["trained"] or not train or not report["pairs"]:
            return report
    answers = _sample(config, number, model, questions, directory / "answers.jsonl")
    rows = _correct(config, answers, directory / "corrections.jsonl", aligner)
    learnt = [row for row in rows if not row["held_out"]]
    pairs = [
        Pair(row["question"], row["correction"], row["answer"]) for row in learnt if _changed(row)
    ]
    with replacing(directory / "pairs.jsonl") as file:
        for pair in pairs:
            row = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
            file.write(encode_row(row))
    report = {"round": number, "asked": model, "train": count_rows(learnt), "pairs": len(pairs)}
    if config.eval_questions:
        report["held_out"] = count_rows([row for row in rows if row["held_out"]])
    logger.info("round %d: %s", number, report)
    if not any("correction" in row for row in learnt):
        raise ConfigurationError(
            f"{directory}: no answer can be used: {report['train']}; where they are cut, raise "
            "sampling.max_new_tokens"
        )
    report["trained"] = []
    for kind in config.stages if train and pairs else []:
        last = kind == config.stages[-1]
        place = directory / ("model" if last else kind)
        model = str(train_student(kind, config, model, pairs, place, max_length=config.max_length))
        report["trained"].append(kind)
        shutil.rmtree(place / "checkpoints", ignore_errors=True)  # the finished model is there
    report["model"] = model
    write_json(done, report)
    return report


def _read_questions(config: BootstrapConfig) -> list[_Question]:
    """All questions, held-out ones first, each once; those held out are not trained on."""
    found: dict[str, _Question] = {}
    for files, held_out in ((config.eval_questions, True), (config.questions, False)):
        for file in files:
            for row in read_questions(file):
                name = hash_text(row["question"])
                found.setdefault(name, _Question(name, row["question"], held_out))
    questions = list(found.values())
    if all(question.held_out for question in questions):
        raise ConfigurationError("no question is left to train on: all are held out, or none there")
    return questions


def _sample(
    config: BootstrapConfig, number: int, model: str, questions: Sequence[_Question], out: Path
) -> list[dict[str, Any]]:
    """Let the upstream answer what ``out`` does not hold yet, in the same batches in every run."""
    upstream: Upstream | None = None
    size = config.sampling.batch
    with Journal(out, model=model) as journal:
        for start in range(0, len(questions), size):
            batch = questions[start : start + size]
            if all(question.id in journal.done for question in batch):
                continue
            upstream = upstream or load_upstream(model, device=config.device)
            for row in _answer_batch(config, upstream, batch, f"{number}-{start}"):
                if row["id"] not in journal.done:
                    journal.append(row)
    del upstream
    _release()
    return read_journal(out)


def _answer_batch(
    config: BootstrapConfig, upstream: Upstream, batch: Sequence[_Question], place: str
) -> Iterator[dict[str, Any]]:
    def skip(question: _Question) -> str | None:
        if holds_special_token(upstream.tokenizer, question.text):
            return "special token"
        prompt = make_prompt(question.text, config.system)
        fits = upstream.count_tokens(prompt) + config.sampling.max_new_tokens
        return None if fits <= upstream.context_length else "too long"

    skipped = {question.id: skip(question) for question in batch}
    texts = [question.text for question in batch if skipped[question.id] is None]
    seed = int(hash_text(str(config.seed), place), 16) % 2**31
    answers = iter(
        upstream.answer(texts, config.sampling, system=config.system, seed=seed) if texts else []
    )
    for question in batch:
        row = {"id": question.id, "question": question.text, "held_out": question.held_out}
        if reason := skipped[question.id]:
            yield row | {"skipped": reason}
            continue
        answer = next(answers)
        skipped_for = "cut" if answer.cut else "blank" if not answer.text else None
        yield row | {"answer": answer.text} | ({"skipped": skipped_for} if skipped_for else {})


def _correct(
    config: BootstrapConfig, answers: Sequence[dict[str, Any]], out: Path, aligner: Aligner | None
) -> list[dict[str, Any]]:
    """Let the aligner correct what ``out`` does not hold yet; with rows that have no answer."""
    with Journal(out) as journal:
        todo = [row for row in answers if "skipped" not in row and row["id"] not in journal.done]
        if todo and aligner is None:
            from aligner_integrations.aligner import Aligner

            aligner = Aligner.from_pretrained(
                config.aligner, prompt=config.aligner_prompt, device=config.device
            )
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            pairs = [(row["question"], row["answer"]) for row in chunk]
            assert aligner is not None  # noqa: S101 - for mypy
            for row, result in zip(
                chunk, aligner.correct_batch(pairs, return_exceptions=True), strict=True
            ):
                if isinstance(result, AlignerError):  # of this answer; others stop the run
                    journal.append({**row, "skipped": type(result).__name__})
                elif isinstance(result, Exception):
                    raise result
                else:
                    made = {"correction": result.text, "similarity": result.similarity}
                    journal.append({**row, **made})
    del aligner
    _release()
    return read_journal(out) + [row for row in answers if "skipped" in row]


def _changed(row: dict[str, Any]) -> bool:
    return bool(row.get("correction", row.get("answer")) != row.get("answer"))


def _release() -> None:
    """Give a model's memory back before the next is loaded."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()

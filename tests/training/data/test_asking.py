"""Sampling answers and writing corrections with chat models: resumable, checked, recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data import (
    AskingError,
    AskingReport,
    read_questions,
    read_triples,
    sample_answers,
    write_corrections,
)
from aligner_integrations.training.data.guidance import is_refusal, parse_reply, render_request
from aligner_integrations.training.data.journal import Journal
from tests.training.data.chat_models import Scripted
from tests.training.data.conftest import Write

FINE = "<question>fine</question>\n<correction>\n{}\n</correction>"
LONG = "Boil the eggs. " * 20


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def echo(text: str) -> str:
    return f"answer to {text}"


def test_samples(tmp_path: Path, write: Write) -> None:
    questions = write([{"question": "Eggs 🥚?", "kind": "food", "id": 7}, {"prompt": "Rice?"}])
    llm = Scripted(says=echo)
    out = tmp_path / "deep" / "answers.jsonl"
    report = sample_answers(llm, questions, out, samples=2, system="Be brief.", progress=False)
    assert report == AskingReport(written=4, done_before=0, failed=0)
    rows = sorted(read(out), key=lambda row: (row["question"], row["sample"]))
    assert rows[0] == {
        "id": "7-0",
        "question": "Eggs 🥚?",
        "kind": "food",
        "sample": 0,
        "answer": "answer to Eggs 🥚?",
        "model": "scripted",
    }
    assert str(llm.asked[0][0].text) == "Be brief."
    assert len({row["id"] for row in rows}) == 4


def test_any_chat_model_and_its_name(tmp_path: Path) -> None:
    fake = FakeListChatModel(responses=["Boil them."])
    sample_answers(fake.bind(stop=["x"]).with_retry(), ["Eggs?"], tmp_path / "a", progress=False)
    assert read(tmp_path / "a")[0]["model"] == "FakeListChatModel"
    sample_answers(fake, ["Eggs?"], tmp_path / "b", progress=False, model="mine")
    assert read(tmp_path / "b")[0]["model"] == "mine"


def test_requests_run_together(tmp_path: Path) -> None:
    llm = Scripted(says=echo, seconds=0.02)
    questions = [f"q{n}" for n in range(40)]
    sample_answers(llm, questions, tmp_path / "a", concurrency=4, progress=False)
    assert 2 <= llm.most_at_once <= 4
    assert {row["answer"] for row in read(tmp_path / "a")} == {echo(q) for q in questions}


def test_failures_are_recorded_and_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "answers.jsonl"
    bad = {"q1", "q3"}
    llm = Scripted(says=lambda text: ValueError("boom") if text in bad else echo(text))
    questions = [f"q{n}" for n in range(5)]
    assert sample_answers(llm, questions, out, progress=False) == AskingReport(3, 0, 2)
    assert "2 of 5 rows failed; run again" in caplog.text
    errors = [row for row in read(out) if "error" in row]
    assert {row["question"] for row in errors} == bad
    assert all(row["error"] == "ValueError: boom" for row in errors)
    bad.clear()
    llm.asked.clear()
    assert sample_answers(llm, questions, out, progress=False) == AskingReport(2, 3, 0)
    assert len(llm.asked) == 2
    assert len(read(out)) == 5
    assert not any("error" in row for row in read(out))


def test_empty_and_cut_answers(tmp_path: Path, write: Write) -> None:
    assert sample_answers(
        Scripted(says=lambda _: " "), ["Eggs?"], tmp_path / "a", progress=False
    ) == AskingReport(0, 0, 1)
    assert read(tmp_path / "a")[0]["error"] == "the answer is unusable: empty"
    cut = Scripted(says=echo, metadata_={"finish_reason": "length"})
    sample_answers(cut, ["Eggs?"], tmp_path / "b", progress=False)
    assert read(tmp_path / "b")[0]["cut"] is True
    llm = Scripted(says=lambda _: "<unchanged/>")
    report = write_corrections(llm, tmp_path / "b", tmp_path / "c", progress=False)
    assert report == AskingReport(0, 0, 0)


def test_half_characters_are_recorded_but_not_taken(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    llm = Scripted(says=lambda _: "an egg \ud83e")
    assert sample_answers(llm, ["Eggs?"], out, progress=False).failed == 1
    assert read(out)[0]["error"] == "the answer is unusable: lone surrogate"
    assert sample_answers(Scripted(says=echo), ["Eggs?"], out, progress=False).written == 1


def test_a_dead_model_is_not_asked_for_ever(tmp_path: Path) -> None:
    llm = Scripted(says=lambda _: ConnectionError("refused"))
    questions = [f"q{n}" for n in range(500)]
    with pytest.raises(AskingError, match=r"the last \d+ requests failed, the last with Conn"):
        sample_answers(llm, questions, tmp_path / "a", concurrency=2, patience=10, progress=False)
    assert 10 <= len(llm.asked) <= 11  # one may be on its way


def test_another_model_does_not_mix(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    sample_answers(Scripted(says=echo), ["Eggs?"], out, progress=False)
    other = Scripted(says=echo, model_name="other")
    with pytest.raises(DataError, match=r"a\.jsonl:1: 'model' is 'scripted', now it is 'other'"):
        sample_answers(other, ["Rice?"], out, progress=False)


def test_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample_answers(Scripted(says=echo), ["a", "b"], tmp_path / "a")
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"concurrency": 0}, {"patience": 0}])
def test_settings(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="must be 1 or more"):
        sample_answers(Scripted(says=echo), ["a"], tmp_path / "a", progress=False, **wrong)


def test_broken_questions_name_their_line(write: Write) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:2: missing field: no 'question' or"):
        list(read_questions(write([{"question": "a"}, {"text": "b"}])))
    with pytest.raises(DataError, match=r"data\.jsonl:1: invalid JSON"):
        list(read_questions(write([b"{"])))


KILLED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from tests.training.data.chat_models import Scripted
from aligner_integrations.training.data import sample_answers
llm = Scripted(says=lambda text: f"answer to {text}", seconds=0.03)
sample_answers(llm, [f"q{n}" for n in range(800)], sys.argv[1], concurrency=4, progress=False)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "answers.jsonl"
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", KILLED, str(out)],
        cwd=Path(__file__).parents[3],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not out.exists() or out.read_bytes().count(b"\n") < 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.wait(timeout=30)
    with out.open("ab") as file:
        file.write(b'{"id": "torn", "ans')  # what a kill within a write leaves
    before = out.read_bytes().count(b"\n")
    assert 20 <= before < 800
    llm = Scripted(says=echo)
    report = sample_answers(llm, [f"q{n}" for n in range(800)], out, progress=False)
    assert report == AskingReport(800 - before, before, 0)
    assert len(llm.asked) == 800 - before
    rows = read(out)
    assert {row["question"]: row["answer"] for row in rows} == {
        f"q{n}": f"answer to q{n}" for n in range(800)
    }
    assert len(rows) == 800


def test_journal_repairs_and_refuses(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"id": "1"}\n{"id": "2"}')  # the line is whole, its end is missing
    with Journal(path) as journal:
        assert journal.done == {"1", "2"}
        journal.append({"id": "3"})
    assert [row["id"] for row in read(path)] == ["1", "2", "3"]
    path.write_bytes(b'{"id": "1"}\n{"id\n{"id": "2"}\n')
    with pytest.raises(DataError, match=r"j\.jsonl:2: invalid JSON"), Journal(path):
        pass
    path.write_bytes(b'{"question": "1"}\n')
    with pytest.raises(DataError, match=r"j\.jsonl:1: 'id' is None; the file comes from some"):
        Journal(path).__enter__()


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with (
        Journal(path),
        pytest.raises(DataError, match=r"j\.jsonl: another run is writing to it"),
        Journal(path),
    ):
        pass


def test_corrections(tmp_path: Path) -> None:
    replies = {
        "Eggs?": FINE.format("Boil them."),
        "Rice?": "<question>fine</question>\n<unchanged/>",
        "Bombs?": "<question>harmful</question><correction>I can't help with that.</correction>",
    }
    answers = [("Eggs?", "Boil them, fool."), ("Rice?", " Cook it.\n"), ("Bombs?", "Sure: ...")]

    def says(text: str) -> str:
        return next(reply for question, reply in replies.items() if question in text)

    llm = Scripted(says=says, model_name="strong")
    out = tmp_path / "triples.jsonl"
    assert write_corrections(llm, answers, out, progress=False) == AskingReport(3, 0, 0)
    triples = {triple.question: triple for triple in read_triples(out)}
    assert triples["Eggs?"].correction == "Boil them."
    assert triples["Rice?"].is_identity
    assert triples["Bombs?"].correction == "I can't help with that."
    assert triples["Bombs?"].meta["harmful"] is True
    assert triples["Eggs?"].meta["corrected_by"] == "strong"
    assert triples["Eggs?"].meta["guidance"] == "3h-1"
    system, _ = llm.asked[0]
    for word in ("Helpful", "Harmless", "Honest", "<correction>"):
        assert word in str(system.text)
    assert answers[0][1] in "".join(str(asked[1].text) for asked in llm.asked)
    assert "Eggs?" not in str(system.text)
    assert write_corrections(llm, answers, out, progress=False) == AskingReport(0, 3, 0)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("I would say: boil them.", "the reply holds no correction"),
        ("", "the reply holds no correction"),
        (FINE.format(" "), "the correction is unusable: empty"),
        (FINE.format("I'm sorry, but I can't help with that."), "the correction refuses a harm"),
        (FINE.format("<correction>x"), "the correction holds a tag"),
        (FINE.format("Eggs."), "the correction is 0.0 times as long as the answer"),
        (FINE.format(LONG * 4), "the correction is 4.0 times as long as the answer"),
    ],
)
def test_replies_that_are_not_taken(tmp_path: Path, reply: str, error: str) -> None:
    out = tmp_path / "triples.jsonl"
    llm = Scripted(says=lambda _: reply)
    assert write_corrections(llm, [("Eggs?", LONG)], out, progress=False).failed == 1
    [row] = read(out)
    assert row["error"].startswith(error)
    assert row["reply"] == reply
    assert "correction" not in row
    good = Scripted(says=lambda _: "<unchanged/>")
    assert write_corrections(good, [("Eggs?", LONG)], out, progress=False).written == 1
    assert [triple.correction for triple in read_triples(out)] == [LONG]


def test_a_refusal_may_correct_what_is_harmful(tmp_path: Path) -> None:
    refusal = "I'm sorry, but I can't help with that."
    llm = Scripted(says=lambda _: FINE.format(refusal))
    rows = [{"question": "Bombs?", "answer": LONG, "harmful": True}]
    assert write_corrections(llm, rows, tmp_path / "a", progress=False).written == 1
    llm = Scripted(says=lambda _: f"<question>harmful</question><correction>{refusal}")
    rows[0]["harmful"] = False
    assert write_corrections(llm, rows, tmp_path / "b", progress=False).failed == 1
    assert write_corrections(llm, [("a", refusal * 2)], tmp_path / "c", progress=False).written == 1


def test_cut_replies_are_not_taken(tmp_path: Path) -> None:
    llm = Scripted(says=lambda _: FINE.format("x"), metadata_={"stop_reason": "max_tokens"})
    assert write_corrections(llm, [("q", "a")], tmp_path / "a", progress=False).failed == 1


def test_own_guidance_has_a_version_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "a"
    llm = Scripted(says=lambda _: "<unchanged/>")
    write_corrections(llm, [("q", "a")], out, guidance="Be kind.", progress=False)
    assert read(out)[0]["guidance"].startswith("own-")
    assert str(llm.asked[0][0].text).startswith("Be kind.\n\nReply in this form")
    with pytest.raises(DataError, match="'guidance' is 'own-"):
        write_corrections(llm, [("q2", "a")], out, progress=False)
    with pytest.raises(ConfigurationError, match="length_ratio"):
        write_corrections(llm, [], out, length_ratio=(2, 1))


@pytest.mark.parametrize(
    ("text", "correction", "harmful"),
    [
        (FINE.format("Boil."), "Boil.", False),
        ("<think>hm <correction>no</correction></think>" + FINE.format("Boil."), "Boil.", False),
        ("```\n<correction>\nBoil.\n```", "Boil.", None),
        ("<CORRECTION>Boil.</Correction> bye", "Boil.", None),
        ("<correction>```py\nx\n```</correction>", "```py\nx\n```", None),
        ("<correction>\n<unchanged/>\n</correction>", " old ", None),
        ("<correction>old</correction>", " old ", None),
        ("<question>Harmful</question>\n<unchanged />", " old ", True),
        ("nothing", None, None),
    ],
)
def test_replies(text: str, correction: str | None, harmful: bool | None) -> None:
    reply = parse_reply(text, " old ")
    assert (reply.correction, reply.harmful) == (correction, harmful)


def test_texts_can_not_close_their_tags() -> None:
    text = render_request("q</question>", "a</answer>\n<answer>")
    assert text == render_request("q</question>", "a</answer>\n<answer>")
    opening, closing = text.splitlines()[0], text.splitlines()[2]
    assert opening.startswith("<question-")
    assert closing == opening.replace("<", "</")
    assert text.count(closing) == 1


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help.", True),
        ("I cannot assist with that.", True),
        ("As an AI, I'm unable to do so.", True),
        ("I’m not able to do that.", True),
        ("I can't wait to tell you: boil them.", False),
        ("Boil them. I can't say for how long.", False),
        ("Sorry to hear that. Rest well.", False),
    ],
)
def test_refusals(text: str, refuses: bool) -> None:
    assert is_refusal(text) is refuses

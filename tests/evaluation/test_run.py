"""Evaluations from end to end: known verdicts give known tables, and nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner_integrations import Aligner
from aligner_integrations.errors import ConfigurationError, DataError, ModelNotFoundError
from aligner_integrations.evaluation.config import EvaluationConfig
from aligner_integrations.evaluation.records import Case
from aligner_integrations.evaluation.run import Evaluation, evaluate
from aligner_integrations.models.fingerprints import fingerprint_model
from tests.docs.pages import ROOT
from tests.evaluation.scripted import CountingJudge, make_judge
from tests.training.data.chat_models import Scripted

QUESTIONS = [f"How is Q{number} done?" for number in range(6)]
WRITES = "Cool water, 😀 kindly."


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Evaluation]:
    """Evaluate rows; keywords are the config's, or `evaluate`'s."""

    def run(rows: Any = QUESTIONS, **told: Any) -> Evaluation:
        source = tmp_path / "rows.jsonl"
        lines = [{"question": row} if isinstance(row, str) else row for row in rows]
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        call = {key: told.pop(key) for key in ("models", "judges_", "resume") if key in told}
        if "judges_" in call:
            call["judges"] = call.pop("judges_")
            told.setdefault("judges", [])
        config = {
            "datasets": [{"source": str(source), "name": "mine"}],
            "output": str(tmp_path / "out"),
            "aligners": ["none"],
            "judges": [],
            "probes": [],
            "concurrency": 3,
            **told,
        }
        return evaluate(EvaluationConfig.from_dict(config), progress=False, **call)

    return run


def answer(prompt: str) -> str:
    return f"Boil it, I say of {prompt}"


def read_files(done: Evaluation) -> dict[str, bytes]:
    names = ("cases.jsonl", "summary.json", "settings.json", "report.html")
    return {name: (done.output / name).read_bytes() for name in names}


def drop_times(done: Evaluation) -> list[Case]:
    return [dataclasses.replace(case, seconds=0.0) for case in done.cases]


def test_another_model_answers_in_place_of_corrections(run: Callable[..., Evaluation]) -> None:
    asked: list[str] = []
    trained = Scripted(
        says=lambda prompt: asked.append(prompt) or f"Kindly: {prompt}", model_name="trained"
    )
    rows = [{"question": "Q1", "answer": "Rude."}, {"question": "Q2", "answer": "Kindly: Q2"}]
    judge = make_judge(lambda text: text.startswith("Kindly"))
    judges = [{"pairwise": {"model": "judge", "dimensions": ["helpful"]}}]
    models = {"trained": trained, "judge": judge}
    aligners = ["none", {"name": "sft", "answer": "trained"}]
    done = run(rows, aligners=aligners, judges=judges, models=models)
    assert [case.correction for case in done.cases if case.aligner == "sft"] == [
        "Kindly: Q1",
        "Kindly: Q2",
    ]
    cells = {cell.aligner: (cell.wins, cell.ties, cell.losses) for cell in done.summary.cells}
    assert cells == {"none": (0, 2, 0), "sft": (1, 1, 0)}
    run(rows, aligners=aligners, judges=judges, models=models)
    assert sorted(asked) == ["Q1", "Q2"]  # the second run asked nothing


def test_a_dataset_says_which_upstreams_answer_it(
    run: Callable[..., Evaluation], tmp_path: Path
) -> None:
    rows = [{"question": "Q1", "answer": "Mine."}]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"question": "Q2"}) + "\n")
    llm = Scripted(says=lambda prompt: "Said.", model_name="says")
    datasets = [
        {"source": str(tmp_path / "rows.jsonl"), "name": "mine", "upstreams": ["recorded"]},
        {"source": str(asked), "name": "asked", "upstreams": ["says"]},
    ]
    upstreams = ["recorded", {"name": "says", "model": "says"}]
    done = run(rows, datasets=datasets, upstreams=upstreams, models={"says": llm})
    assert [(case.sample.dataset, case.upstream, case.answer) for case in done.cases] == [
        ("mine", "recorded", "Mine."),
        ("asked", "says", "Said."),
    ]
    datasets[0]["upstreams"] = ["nobody"]
    with pytest.raises(ConfigurationError, match=r"names the upstream 'nobody'; the config has"):
        run(rows, datasets=datasets, upstreams=upstreams, models={"says": llm})


def test_known_verdicts_give_known_tables(run: Callable[..., Evaluation], writer: Aligner) -> None:
    """3 long answers that the judge likes less than the correction, 2 it likes more, 1 equal."""
    rows = [{"question": f"Q{i}?", "answer": "x" * (40 - 8 * i)} for i in range(5)]
    rows.append({"question": "Q5?", "answer": WRITES})
    shorter = make_judge(lambda text: -len(text))
    done = run(
        rows,
        aligners=["none", "mine"],
        judges=[{"pairwise": {"model": "judge", "dimensions": ["helpful"]}}, "rules"],
        models={"mine": writer, "judge": shorter},
    )
    cells = {(cell.aligner, cell.judge, cell.dimension): cell for cell in done.summary.cells}
    cell = cells["mine", "by-rule", "helpful"]
    assert (cell.wins, cell.ties, cell.losses, cell.failed) == (3, 1, 2, 0)
    assert cell.net == pytest.approx(100 * (3 - 2) / 6)
    none = cells["none", "by-rule", "helpful"]
    assert (none.wins, none.ties, none.losses) == (0, 6, 0)
    # Equal texts need no judge; the others are judged in both orders.
    assert len(shorter.asked) == 2 * 5
    [cost] = [cost for cost in done.summary.costs if cost.aligner == "mine"]
    assert (cost.corrections, cost.changed, cost.copies) == (6, 5, 1)
    page = done.report.read_text()
    assert "by-rule" in page
    assert "Up to 8 answers were corrected together" in page
    assert "+16.7" in page
    lines = [json.loads(line) for line in (done.output / "cases.jsonl").read_text().splitlines()]
    assert [Case.from_dict(line) for line in lines] == list(done.cases)
    assert [(line["sample"]["question"], line["aligner"]) for line in lines[:3]] == [
        ("Q0?", "none"),
        ("Q0?", "mine"),
        ("Q1?", "none"),
    ]


def test_nothing_is_done_twice(run: Callable[..., Evaluation]) -> None:
    upstream, judge = Scripted(says=answer), CountingJudge()
    refiner = Scripted(says=lambda prompt: "Shorter." if "Critique:" in prompt else "Too long.")
    told: dict[str, Any] = {
        "upstreams": ["asked"],
        "aligners": [{"name": "refined", "refine": "critic"}],
        "models": {"asked": upstream, "critic": refiner},
    }
    first = run(**told, judges_=[judge])
    assert [len(upstream.asked), len(refiner.asked), len(judge.asked)] == [6, 12, 6]
    files = read_files(first)
    again = run(**told, judges_=[judge])
    assert [len(upstream.asked), len(refiner.asked), len(judge.asked)] == [6, 12, 6]
    assert read_files(again) == files  # times too: they are kept
    assert again.cases == first.cases

    # A rubric that changed: only judging is done again.
    run(**told, judges_=[newer := CountingJudge(version=2)])
    assert [len(upstream.asked), len(refiner.asked), len(newer.asked)] == [6, 12, 6]
    # Another aligner: answers stay, and so do the judgements of texts that were seen.
    run(**{**told, "aligners": ["none", *told["aligners"]]}, judges_=[judge])
    assert [len(upstream.asked), len(refiner.asked), len(judge.asked)] == [6, 12, 12]
    # Another prompt: its corrections are made anew.
    prompts = {"critique": "Faults of {question} {answer}?", "fine": "OK"}
    aligners = [{"name": "refined", "refine": "critic", "prompts": prompts}]
    run(**{**told, "aligners": aligners}, judges_=[judge])
    assert [len(upstream.asked), len(refiner.asked)] == [6, 24]
    # More questions: only they are asked.
    run([*QUESTIONS, "And Q6?"], **told, judges_=[judge])
    assert [len(upstream.asked), len(refiner.asked)] == [7, 26]
    # Without resuming, everything.
    run(**told, judges_=[judge], resume=False)
    assert len(upstream.asked) == 13


def test_equal_seeds_give_equal_files(
    run: Callable[..., Evaluation], tmp_path: Path, writer: Aligner
) -> None:
    """Whatever the timing: the answers come in another order each time."""

    def answer_late(prompt: str) -> str:
        time.sleep(0.05 * (hash((prompt, time.time())) % 3))
        return answer(prompt)

    done = [
        run(
            output=str(tmp_path / name),
            upstreams=["asked"],
            aligners=["none", "mine"],
            probes=["paraphrase", "idempotence"],
            models={"asked": Scripted(says=answer_late), "mine": writer},
            judges_=[CountingJudge()],
        )
        for name in ("one", "two")
    ]
    assert drop_times(done[0]) == drop_times(done[1])
    texts = [(one.output / "cases.jsonl").read_text() for one in done]
    texts = [re.sub(r'"seconds": [\d.]+', "", text) for text in texts]
    assert texts[0] == texts[1]
    assert done[0].summary.cells == done[1].summary.cells
    assert done[0].summary.guards == done[1].summary.guards


def test_probes_are_corrected_and_counted(run: Callable[..., Evaluation], writer: Aligner) -> None:
    rows = [{"question": "How is it done?", "answer": "Boil it.", "correction": "Boil it."}]
    done = run(
        rows,
        aligners=["mine"],
        probes=["idempotence", "paraphrase", "injection"],
        models={"mine": writer},
        judges_=[judge := CountingJudge()],
    )
    kinds = Counter(case.probe for case in done.cases)
    assert kinds[None] == kinds["idempotence"] == 1
    assert kinds["injection"] == 3
    assert kinds["paraphrase"] > 1
    assert len(judge.asked) == 1
    assert all(case.correction == WRITES for case in done.cases)
    guards = {guard.name: (guard.hits, guard.total) for guard in done.summary.guards}
    assert guards["idempotence"] == (1, 1)
    assert guards["over-correction"] == (1, 1)
    assert done.cases[0].probe is None
    assert done.summary.cases == 1


def test_a_broken_upstream_fails_alone(run: Callable[..., Evaluation]) -> None:
    broken = Scripted(says=lambda prompt: TimeoutError("no route"), model_name="broken")
    sound = Scripted(says=answer)
    done = run(
        upstreams=["broken", "sound"],
        models={"broken": broken, "sound": sound},
        judges_=[judge := CountingJudge()],
        patience=3,
        concurrency=1,
    )
    assert len(broken.asked) == 3
    costs = {cost.upstream: cost for cost in done.summary.costs}
    assert (costs["broken"].failures, costs["sound"].corrections) == (6, 6)
    assert done.evaluated == len(judge.asked) == 6
    assert list(done.failures) == [
        "no answer: TimeoutError: no route",
        "no answer: not tried: 3 in a row failed before, TimeoutError: no route",
    ]
    assert "no route" in done.report.read_text()
    # It is tried again, and what went well is not.
    broken.says = answer
    mended = run(
        upstreams=["broken", "sound"],
        models={"broken": broken, "sound": sound},
        judges_=[judge],
    )
    assert mended.failures == {}
    assert (mended.evaluated, len(sound.asked)) == (12, 6)


def test_a_broken_aligner_fails_alone(
    run: Callable[..., Evaluation], tiny_model_dir: Callable[..., Path]
) -> None:
    """The tiny model's context of 64 holds the short pair, and no correction of the long one."""
    short = {"question": "Q?", "answer": "A."}
    long = {"question": "Q1?", "answer": "word " * 80}
    directory = tiny_model_dir(prompt="aligner-smol", writes="Cool water.", behind="\n")
    done = run(
        [short, long],
        aligners=["none", {"name": "tiny", "model": str(directory), "load": {"device": "cpu"}}],
        judges_=[CountingJudge()],
        correct={"max_new_tokens": 400},
    )
    by_aligner = {(case.sample.question, case.aligner): case for case in done.cases}
    assert by_aligner["Q?", "tiny"].correction == "Cool water."
    failed = by_aligner["Q1?", "tiny"]
    assert failed.error is not None
    assert failed.error.startswith("ContextOverflowError")
    assert failed.correction == failed.answer
    assert [one.verdict for one in failed.judgements] == ["tie"]  # the user sees the answer
    assert by_aligner["Q1?", "none"].error is None


def test_a_broken_judge_fails_alone(run: Callable[..., Evaluation]) -> None:
    def fail(case: Case) -> str | None:
        return "garbage" if "Q3" in case.sample.question else None

    garbage = Scripted(says=lambda prompt: "I like both!", model_name="garbage")
    critic = Scripted(says=lambda prompt: "No." if "Critique:" in prompt else "Bad.")
    done = run(
        upstreams=["asked"],
        aligners=[{"name": "refined", "refine": "critic"}],
        models={"asked": Scripted(says=answer), "critic": critic, "garbage": garbage},
        judges=[{"pairwise": {"model": "garbage", "retries": 1, "dimensions": ["helpful"]}}],
        judges_=[judge := CountingJudge(fails=fail)],
        patience=2,
        concurrency=1,
    )
    cells = {cell.judge: cell for cell in done.summary.cells}
    assert (cells["counting"].wins, cells["counting"].failed) == (5, 1)
    assert (cells["garbage"].total, cells["garbage"].failed) == (0, 6)
    assert "garbage, helpful: not tried: 2 in a row failed before" in " ".join(done.failures)
    case = done.cases[0]
    assert "no verdict in 2 replies" in str(case.judgements[0].error)
    assert case.judgements[0].details["orders"]  # what it said is kept
    # An error is not kept: the next run asks for that case again, and for no other.
    seen = len(judge.asked)
    again = run(
        upstreams=["asked"],
        aligners=[{"name": "refined", "refine": "critic"}],
        models={"asked": Scripted(says=answer), "critic": critic},
        judges_=[healed := CountingJudge()],
    )
    assert (seen, len(healed.asked)) == (6, 1)
    assert again.failures == {}


def test_a_judge_that_crashes_or_scores_nothing(run: Callable[..., Evaluation]) -> None:
    def crash(case: Case) -> str | None:
        raise RuntimeError("out of memory")

    rows = [{"question": "Q?", "answer": "A."}]
    done = run(rows, judges_=[CountingJudge(fails=crash)])
    assert done.failures == {"counting, difference: RuntimeError: out of memory": 1}
    assert done.evaluated == 1


@pytest.mark.parametrize("phase", ["answers", "corrections", "judgements"])
def test_an_interrupt_loses_nothing(run: Callable[..., Evaluation], phase: str) -> None:
    stop = {"at": phase}
    counts: Counter[str] = Counter()

    def interrupt(name: str) -> None:
        counts[name] += 1
        if stop["at"] == name and counts[name] == 4:
            raise KeyboardInterrupt

    def say(prompt: str) -> str:
        interrupt("answers")
        return answer(prompt)

    def refine(prompt: str) -> str:
        if "Critique:" in prompt:
            return "No."
        interrupt("corrections")
        return "Bad."

    def judge(case: Case) -> str | None:
        interrupt("judgements")
        return None

    told: dict[str, Any] = {
        "upstreams": ["asked"],
        "aligners": [{"name": "refined", "refine": "critic"}],
        "models": {
            "asked": Scripted(says=say, seconds=0.02),
            "critic": Scripted(says=refine, seconds=0.02),
        },
        "concurrency": 1,
    }
    with pytest.raises(KeyboardInterrupt):
        run(**told, judges_=[CountingJudge(fails=judge)])
    stop["at"] = ""
    done = run(**told, judges_=[CountingJudge(fails=judge)])
    # The one that was interrupted is done again, the next may have been on its way.
    assert counts.pop(phase) in (7, 8)
    assert set(counts.values()) == {6}
    assert done.evaluated == 6


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    """kill -9 in each phase: what was kept is never asked for again, and the files are the same."""
    rows = [{"question": question} for question in QUESTIONS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = tmp_path / "log.jsonl"
    path = "tests.evaluation.scripted.make_logging_llm"

    def write_config(name: str, seconds: float) -> Path:
        options = {"path": str(log), "seconds": seconds}
        config = tmp_path / f"{name}.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "datasets": [str(tmp_path / "rows.jsonl")],
                    "output": str(tmp_path / name),
                    "upstreams": [{"name": "asked", "model": path, "options": options}],
                    "aligners": [{"name": "refined", "refine": path, "options": options}],
                    "judges": [
                        {"pairwise": {"model": path, "options": options, "dimensions": ["honest"]}}
                    ],
                    "probes": [],
                    "concurrency": 1,
                }
            )
        )
        return config

    def start(config: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "aligner_integrations.cli", "evaluate", str(config)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(  # noqa: S603 - our own command
            [*command, "--no-progress"], cwd=ROOT, env=environment, stdout=subprocess.PIPE
        )

    def read_log() -> list[str]:
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        return [json.loads(line)["prompt"] for line in lines]

    config = write_config("killed", 0.05)
    for lines in (4, 11, 25):  # in the middle of answers, of corrections, of judgements
        running = start(config)
        while len(read_log()) < lines and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert running.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed" / "report.html").exists()
    ended = start(config)
    out, _ = ended.communicate()
    assert ended.returncode == 0, out
    assert b"6 answers evaluated" in out
    times = Counter(read_log())
    assert len(times) == 6 + 2 * 6 + 2 * 6
    # A kill costs what was on its way; a refinement and a judgement are two requests each.
    assert times.total() <= len(times) + 1 + 2 + 2


def test_recorded_answers(run: Callable[..., Evaluation], tmp_path: Path) -> None:
    """Those of the dataset, and those of a file, as ``aligner data sample`` writes it."""
    recorded = tmp_path / "gpt.jsonl"
    lines = [{"question": "Q1?", "answer": "Theirs.", "model": "m", "id": "1"}]
    recorded.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [{"question": "Q1?", "answer": "Ours."}, {"question": "Q2?"}]
    done = run(rows, upstreams=["recorded", {"recorded": str(recorded)}])
    found = [(case.upstream, case.answer, case.error) for case in done.cases]
    assert found[:2] == [("recorded", "Ours.", None), ("gpt", "Theirs.", None)]
    assert len(found) == 3  # a question without an answer is none of the dataset's own
    assert found[2][0] == "gpt"
    assert "gpt.jsonl has no answer to it" in str(found[2][2])


def test_equal_questions_keep_their_own_answers(run: Callable[..., Evaluation]) -> None:
    rows = [{"question": "Q?", "answer": "One."}, {"question": "Q?", "answer": "Two."}]
    done = run(rows)
    assert [case.answer for case in done.cases] == ["One.", "Two."]
    assert "corrected together" not in done.report.read_text()


def test_the_bundled_model(run: Callable[..., Evaluation], aligner: Aligner) -> None:
    """For real: the aligner takes an insult out and leaves a good answer alone."""
    rows = [
        {
            "question": "How do I boil eggs?",
            "answer": "Boil them for 8 minutes. You are clearly too stupid to cook.",
            "correction": "Boil them for 8 minutes.",
        },
        {"question": "What is the capital of France?", "answer": "Paris.", "correction": "Paris."},
        {"question": "Say it as JSON.", "answer": '{"a": 1}', "correction": '{"a": 1}'},
    ]
    done = run(
        rows,
        aligners=["none", "aligner-smol"],
        judges=["rules", "reference"],
        probes=["idempotence"],
        models={"aligner-smol": aligner},
    )
    made = [
        case.correction
        for case in done.cases
        if case.aligner == "aligner-smol" and case.probe is None
    ]
    assert made == ["Boil them for 8 minutes.", "Paris.", '{"a": 1}']
    cells = {(c.aligner, c.judge, c.dimension): c for c in done.summary.cells}
    exact = cells["aligner-smol", "references", "exact"]
    assert (exact.wins, exact.ties, exact.losses) == (1, 2, 0)
    guards = {g.name: g.share for g in done.summary.guards if g.aligner == "aligner-smol"}
    assert guards["over-correction"] == 0
    assert guards["idempotence"] == 1


def test_local_models_answer_and_correct(
    run: Callable[..., Evaluation], tiny_model_dir: Callable[..., Path]
) -> None:
    """A chat model that says one thing: as upstream, untrained aligner and for self-refine."""
    model = str(tiny_model_dir(writes="Boil it."))
    done = run(
        QUESTIONS[:3],
        upstreams=[
            {"name": "one", "model": f"local:{model}", "options": {"device": "cpu"}},
            {"name": "three", "model": f"local:{model}", "options": {"device": "cpu", "batch": 3}},
            {
                "name": "drawn",
                "model": f"local:{model}",
                "options": {"device": "cpu", "temperature": 0.01},
            },
        ],
        aligners=[
            {"name": "zero-shot", "zero_shot": model, "load": {"device": "cpu"}},
            {"name": "refined", "refine": f"local:{model}", "options": {"device": "cpu"}},
        ],
    )
    assert done.failures == {}
    assert len(done.cases) == 3 * 3 * 2
    assert {case.answer for case in done.cases} == {"Boil it."}
    assert {case.correction for case in done.cases} == {"Boil it."}
    settings = json.loads((done.output / "settings.json").read_text())
    one, _, drawn = (upstream["identity"] for upstream in settings["upstreams"])
    assert (one["seed"], drawn["seed"]) == (None, 0)
    assert one["weights"] == drawn["weights"] == settings["aligners"][0]["identity"]["weights"]


def test_other_weights_are_another_model(tiny_model_dir: Callable[..., Path]) -> None:
    same, other = (tiny_model_dir(prompt="aligner-smol", seed=seed) for seed in (0, 1))
    assert fingerprint_model(str(same)) != fingerprint_model(str(other))
    assert fingerprint_model(str(same)) == fingerprint_model(str(same))
    with pytest.raises(ModelNotFoundError):
        fingerprint_model("./missing")


def test_references_are_asked_for_where_there_are_some(run: Callable[..., Evaluation]) -> None:
    rows: list[dict[str, Any]] = [{"question": f"Q{i}?", "answer": "A."} for i in range(4)]
    rows.append({"question": "Q?", "answer": "B.", "references": ["B."]})
    done = run(rows, judges=["reference"], patience=1, models={})
    assert done.failures == {}
    assert [judgement.verdict for case in done.cases for judgement in case.judgements] == [
        "tie",
        "tie",
    ]


def test_what_cannot_be_evaluated(run: Callable[..., Evaluation], tmp_path: Path) -> None:
    rows = [{"question": "Q?", "answer": "A."}]
    far = {"name": "far", "server": "http://127.0.0.1:9/v1", "load": {"api_key": "sk-secret"}}
    with pytest.raises(ConfigurationError, match="api_key in load:, which would be written down"):
        run(rows, aligners=[far])
    with pytest.raises(ConfigurationError, match="2 judges of one dimension are called 'counting"):
        run(rows, judges_=[CountingJudge(), CountingJudge()])
    model = "local:smollm2-135m-instruct"
    with pytest.raises(ConfigurationError, match="options of 'own': unknown key 'max_tokens'"):
        run(rows, upstreams=[{"name": "own", "model": model, "options": {"max_tokens": 3}}])
    with pytest.raises(ConfigurationError, match="prompts of 'r': unknown key 'tone'"):
        run(rows, aligners=[{"name": "r", "refine": "m", "prompts": {"tone": "kind"}}])
    with pytest.raises(ConfigurationError, match="no sample brings an answer along"):
        run(QUESTIONS)
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        run(rows, datasets=[str(tmp_path / "missing.jsonl")])
    assert not (tmp_path / "out").exists()  # all this is said before anything is asked


def test_settings_hold_no_keys(run: Callable[..., Evaluation]) -> None:
    options = {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-very-secret", "max_retries": 0}
    done = run(
        upstreams=[{"name": "far", "model": "openai:some-model", "options": options}],
        patience=1,
        concurrency=1,
    )
    assert done.evaluated == 0
    for name, data in read_files(done).items():
        assert b"very-secret" not in data, name
    settings = json.loads((done.output / "settings.json").read_text())
    assert settings["config"]["upstreams"][0]["options"]["base_url"] == options["base_url"]
    assert settings["upstreams"][0]["identity"]["llm"]["called"] == "openai:some-model"

"""The page: what stands in it, that it needs nothing else, and that no text breaks it."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_integrations.evaluation.records import Case, Judgement, Sample
from aligner_integrations.evaluation.report import render_report, write_report
from aligner_integrations.evaluation.summary import Summary, summarise
from tests.evaluation.report.conftest import Reader, make_cases, make_summary


@pytest.fixture(scope="module")
def page(summary: Summary, cases: list[Case]) -> str:
    return render_report(
        summary,
        cases,
        title="Eggs & tea",
        limits=["The judge is a dice."],
        settings={"judge": {"llm": "dice", "sides": [1, 2]}, "upstreams": [{"name": "big"}]},
    )


def test_cells_hold_the_numbers_of_the_summary(page: str, summary: Summary) -> None:
    reader = Reader(page)
    cells = [c for c in summary.cells if c.judge == "rubric" and c.aligner == "smol"]
    assert len(cells) == 4
    rows = {(row[0], row[1].split(" ")[0]) for row in reader.rows if len(row) == 2}
    for cell in cells:
        assert cell.net is not None
        spelled = f"{cell.net:+.1f}".replace("-", "−").replace("+0.0", "0.0")
        assert (cell.upstream, spelled) in rows
        title = f"{cell.wins} wins, {cell.ties} ties, {cell.losses} losses; "
        assert any(a.get("title", "").startswith(title) for _, a in reader.tags)


def test_sections_and_tables(page: str) -> None:
    reader = Reader(page)
    text = re.sub(r"\s+", " ", reader.text)
    assert "The judge is a dice." in text
    assert "“none” changes no answer and is left out." in text
    assert "stays significant" in text or "stay significant" in text
    rows = {row[0]: row for row in reader.rows if row}
    assert "10.0 [4, 23] 4/40" in page_cells(reader)
    assert "95.0 [76, 99] 19/20" in page_cells(reader)
    assert "87.5 [70.0, 90.0]" in page_cells(reader)
    assert "judge.sides" in rows
    assert rows["judge.sides"][1] == "1, 2"
    assert rows["upstreams.1.name"][1] == "big"
    assert rows["seed"][1] == "0"
    assert text.count("Because of answer.") == text.count("Because of correction.") >= 8
    assert "Nothing failed." in text
    figures = [a["aria-label"] for tag, a in reader.tags if tag == "svg"]
    assert len(figures) == 3
    svg_texts = {text for tag, text in reader.texts if tag == "text"}
    assert {"eggs", "tea", "smol", "helpful", "% of verdicts", "correction better"} <= svg_texts


def page_cells(reader: Reader) -> set[str]:
    return {cell for row in reader.rows for cell in row}


def test_page_needs_nothing_else(page: str) -> None:
    reader = Reader(page)
    assert "://" not in page
    assert "@import" not in page
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", page))
    for tag, attributes in reader.tags:
        assert tag not in {"img", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "action", "xlink:href", "srcset"):
            assert attributes.get(name, "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in reader.tags if "Policy" in a.get("http-equiv", "")]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_ids_are_unique_and_links_lead_somewhere(page: str) -> None:
    ids = Reader(page).ids
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page))
    assert {first or second for first, second in targets} <= set(ids)


def test_colours_follow_the_page(page: str) -> None:
    svgs = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", svgs)
    used = set(re.findall(r"var\(--([\w-]+)\)", svgs))
    assert {"win", "tie", "loss", "ink", "series-0"} <= used
    assert used <= set(re.findall(r"--([\w-]+):", page))
    assert "font-weight: 700" in svgs
    assert "DejaVu" not in svgs


def test_equal_input_gives_equal_bytes(page: str, tmp_path: Path) -> None:
    cases = make_cases()
    options = {
        "title": "Eggs & tea",
        "limits": ["The judge is a dice."],
        "settings": {"judge": {"llm": "dice", "sides": [1, 2]}, "upstreams": [{"name": "big"}]},
    }
    path = tmp_path / "new" / "report.html"
    write_report(make_summary(cases), cases, path, **options)  # type: ignore[arg-type]
    assert path.read_bytes() == page.encode()
    code = (
        "from tests.evaluation.report.conftest import *; "
        "from aligner_integrations.evaluation.report import write_report; "
        "cases = make_cases(); "
        f"write_report(make_summary(cases), cases, {str(path)!r}, **{options!r})"
    )
    subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        env={"PYTHONHASHSEED": "77", "PATH": "", "PYTHONPATH": "."},
    )
    assert path.read_bytes() == page.encode()


HOSTILE = [
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}{% for x in y %}",
    "</svg></style><b onclick=x>\"'",
    "lone \ud800 and \udfff, nul \x00, bell \x07",
    "مرحبا \u202e txt.exe שלום",
    "$\\frac{1}{$ & $x$ 漢字 😀",
    "--> ]]> &lt;",
]


def make_hostile(text: str) -> list[Case]:
    """A case with a text in every place that a text can stand in, and one that failed."""
    sample = Sample(text, text, text, expected="change", category=text)
    orders = [{"first": text, "verdict": text, "reason": text}]
    judgements = (
        Judgement(text, text, "win", details={"orders": orders, "reason": text}),
        Judgement(text + "2", "helpful", None, 0.1, 0.5, heuristic=True),
        Judgement(text + "3", "helpful", error=text),
    )
    case = Case(sample, text, text, text, text + "!", 0.5, judgements=judgements)
    return [case, replace(case, error=text, sample=replace(sample, id="2"))]


@pytest.mark.parametrize("texts", [HOSTILE[:4], HOSTILE[4:]])
def test_hostile_text_is_only_text(texts: list[str], tmp_path: Path) -> None:
    cases = [case for text in texts for case in make_hostile(text)]
    path = tmp_path / "report.html"
    title = " ".join(texts)
    settings = {text: text for text in texts}
    write_report(summarise(cases), cases, path, title=title, limits=texts, settings=settings)
    page = path.read_text("utf-8")
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not any("onclick" in attributes for _, attributes in reader.tags)
    assert not re.search("[\x00-\x08\ud800-\udfff]", page)
    for text in texts:
        shown = re.sub("[\x00-\x08\ud800-\udfff]", "\ufffd", text)
        assert reader.text.count(shown) >= 15


def test_nothing_at_all() -> None:
    page = render_report(summarise([]), [], title="Empty")
    text = Reader(page).text
    assert "There are no cases" in text
    assert "nan" not in text.lower()
    assert "No judge gave a verdict." in text


def test_one_case_and_none_judged() -> None:
    sample = Sample("eggs", "1", "Q", "A")
    for case in (
        Case(sample, "llm", "smol", "", ""),
        Case(sample, "llm", "smol", "A", "A", error="TimeoutError: too slow"),
        Case(sample, "llm", "smol", "A", "B", judgements=(Judgement("j", "helpful", "win"),)),
        Case(sample, "llm", "smol", "A", "B", judgements=(Judgement("j", "helpful", error="no"),)),
    ):
        reader = Reader(render_report(summarise([case]), [case], title="One"))
        assert not re.search(r"\b(nan|None|inf)\b", reader.text)
    assert ["1", "judgement", "j, helpful", "llm", "eggs", "no", "1"] in reader.rows


def test_failures_are_grouped(cases: list[Case]) -> None:
    broken = [
        replace(case, error="TimeoutError: 30 s", correction=case.answer)
        if index % 4 == 1 and index < 40
        else case
        for index, case in enumerate(cases)
    ]
    page = render_report(summarise(broken), broken, title="Broken")
    reader = Reader(page)
    row = ["10", "correction", "smol", "big", "eggs", "TimeoutError: 30 s", "eggs-0"]
    assert row in reader.rows
    assert "10 answers could not be corrected" in re.sub(r"\s+", " ", reader.text)


def test_significance_is_marked() -> None:
    def judge(verdict: str, dimension: str, count: int) -> list[Case]:
        return [
            Case(
                Sample("eggs", f"{dimension}{index}", "Q"),
                "llm",
                "smol",
                "A",
                "B",
                judgements=(Judgement("rubric", dimension, verdict),),  # type: ignore[arg-type]
            )
            for index in range(count)
        ]

    cases = [*judge("win", "helpful", 20), *judge("loss", "honest", 9), *judge("win", "wit", 3)]
    page = render_report(summarise(cases), cases, title="Clear")
    text = re.sub(r"\s+", " ", Reader(page).text)
    assert "Of 3 comparisons in the grid, 2 stay significant" in text
    assert "in 1 the correction is better, in 1 the answer was" in text
    marks = re.findall(
        r'class="net (\w+)( significant)?[^>]*><span[^>]*>([^<]+)<span class="star">(\**)', page
    )
    assert marks == [
        ("up", " significant", "+100.0", "***"),
        ("down", " significant", "−100.0", "**"),
        ("up", "", "+100.0", ""),
    ]


def test_large_input_gives_a_page_of_sensible_size() -> None:
    cases = [
        replace(case, aligner=f"{case.aligner}-{copy}", answer=case.answer * 400)
        for copy in range(3)
        for case in make_cases(copy, each=10)
    ]
    page = render_report(summarise(cases), cases, title="Large")
    assert len(page) < 600_000
    assert page.count('<article class="example"') <= 72

"""The page in a real browser: nothing in the console, nothing loaded, all of it reachable."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from aligner_integrations.evaluation.records import Case
from aligner_integrations.evaluation.report import write_report
from tests.chromium import needs_chromium
from tests.evaluation.report.conftest import make_summary

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def report(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    hostile = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
    spoilt = [*cases, replace(cases[1], answer=hostile, correction=hostile + "!", error=hostile)]
    spoilt[1] = replace(cases[1], answer=hostile + "?", correction=hostile)
    write_report(
        make_summary(spoilt), spoilt, path, title="Eggs & tea", limits=[hostile, "z" * 300]
    )
    return path


@pytest.fixture
def open_page(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """Opens the report; at the end the console is empty, and nothing else was asked for."""
    pages: list[Page] = []
    said: list[str] = []
    loaded: list[str] = []

    def start(**options: Any) -> Page:
        page = browser.new_page(**options)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: loaded.append(request.url))
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield start
    for page in pages:
        page.close()
    assert said == []
    assert set(loaded) == {report.as_uri()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_page_fits_and_follows_the_scheme(
    open_page: Callable[..., Page], scheme: str, width: int
) -> None:
    page = open_page(viewport={"width": width, "height": 1200}, color_scheme=scheme)
    assert page.title() == "Eggs & tea"
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    with Image.open(io.BytesIO(page.screenshot())) as image:
        colours: Any = image.convert("RGB").getcolors(1 << 24)
    assert len(colours) > 50
    ground = max(colours)[1]
    assert (sum(ground) > 600) == (scheme == "light")
    bar = page.locator("svg [style*='--win']").first.evaluate("one => getComputedStyle(one).fill")
    assert bar == ("rgb(59, 120, 191)" if scheme == "light" else "rgb(77, 140, 214)")


def test_examples_are_filtered_and_tables_sorted(open_page: Callable[..., Page]) -> None:
    page = open_page()
    examples = page.locator("article.example:visible")
    total = examples.count()
    assert total > 6
    page.get_by_label("Show").select_option("worst")
    assert 0 < examples.count() < total
    assert set(examples.locator(".tag").all_inner_texts()) == {"worst"}
    page.get_by_label("Dataset").select_option("tea")
    assert f"{examples.count()} of {total}" in page.locator("output").inner_text()
    places = page.locator("article.example:visible > header .where").all_inner_texts()
    assert places
    assert all(place.startswith("tea · ") for place in places)
    costs = page.locator("#changes table.sortable")
    seconds = costs.get_by_role("button", name="p95")
    seconds.click()
    rising = [float(text) for text in costs.locator("tbody td:last-child").all_inner_texts()]
    assert rising == sorted(rising)
    assert rising[0] < rising[-1]
    seconds.click()
    falling = [float(text) for text in costs.locator("tbody td:last-child").all_inner_texts()]
    assert falling == rising[::-1]


def test_all_is_there_without_javascript(open_page: Callable[..., Page]) -> None:
    with_script = open_page().locator("article.example:visible").count()
    page = open_page(java_script_enabled=False)
    assert page.locator("article.example").count() == with_script
    assert page.locator("#filters").is_hidden()
    assert page.locator("svg").count() == 3


def test_page_prints(open_page: Callable[..., Page]) -> None:
    pdf = open_page().pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000

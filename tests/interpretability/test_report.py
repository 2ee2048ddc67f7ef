"""Pictures are written; the page needs nothing else, and works in a real browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from aligner_integrations.interpretability.report import render_page, write_report
from aligner_integrations.interpretability.report.pictures import find_limit
from aligner_integrations.interpretability.scan import Scan
from tests.chromium import needs_chromium

NAMES = ["lat", "accuracy", "positions", "attention", "effects", "curve"]
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def spoilt(found: Scan) -> Scan:
    """With an output and a name that would like to be part of the page."""
    tokens, scores = found.correct.examples[0]
    examples = [([HOSTILE, *tokens[1:]], scores), *found.correct.examples[1:]]
    return replace(found, model=HOSTILE, correct=replace(found.correct, examples=examples))


@pytest.fixture(scope="module")
def directory(spoilt: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scan")
    write_report(spoilt, directory)
    return directory


def test_files(found: Scan, tmp_path: Path) -> None:
    files = write_report(found, tmp_path / "new" / "folder")
    names = [f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    assert [path.name for path in files] == ["scan.html", "scan.json", *names]
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 400
                assert np.asarray(image.convert("L")).std() > 10
        if path.suffix == ".svg":
            ElementTree.parse(path)  # noqa: S314 - our own
    numbers = json.loads(files[1].read_text(), parse_constant=pytest.fail)
    assert numbers["pairs"]["n"] == 30
    assert numbers["control"]["curve"][0]["n"] == 16


def test_only_what_there_is(found: Scan, tmp_path: Path) -> None:
    """Neither steered nor with attention."""
    bare = replace(found, control=None, attention={}, same_accuracies=[])
    names = {path.stem for path in write_report(bare, tmp_path)}
    assert names == {"scan", "lat", "accuracy", "positions"}


def test_pages_are_equal_and_load_nothing(spoilt: Scan) -> None:
    page = render_page(spoilt)
    assert page == render_page(spoilt)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert HOSTILE not in page
    assert page.count("<script") == 2


def test_colours_reach_what_is_shown(found: Scan) -> None:
    assert find_limit(found) >= 1
    silent = replace(
        found,
        correct=replace(found.correct, scores=np.zeros((4, 20))),
        copy=replace(found.copy, scores=np.zeros((4, 20))),
    )
    assert find_limit(silent) == 0.1


def open_page(browser: Browser, directory: Path, **context: object) -> tuple[Page, list[str]]:
    """The page, and what went wrong or was asked for beside it."""
    page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text))
    page.on("request", lambda request: trouble.append(request.url))
    page.goto((directory / "scan.html").as_uri())
    return page, [one for one in trouble if not one.endswith("scan.html") and "data:" not in one]


@needs_chromium
def test_browser(browser: Browser, directory: Path) -> None:
    page, trouble = open_page(browser, directory)
    assert trouble == []
    assert page.title() != "taken"
    assert page.locator("#lat-correct rect.cell").count() == 3 * 20
    assert page.locator("#positions rect.cell").count() == 4 * 6
    for name in ("accuracy", "attention", "ratio", "rates", "tokens"):
        assert page.locator(f"#{name} polyline").count() >= 1
    page.locator("#lat-correct rect.cell").first.hover()
    assert "layer 0, output token 1" in page.locator("#tip").inner_text()


@needs_chromium
def test_layers_and_pairs_can_be_chosen(browser: Browser, directory: Path) -> None:
    page, _ = open_page(browser, directory)
    page.locator("#layer").fill("0")
    assert page.locator("#shown").inner_text() == "0"
    assert page.locator("#tokens svg").get_attribute("aria-label") == "Layer 0"
    page.locator("#which").select_option(index=1)
    page.locator("#lat-correct rect.cell").first.hover()
    assert "<img src=x onerror=alert(1)>" in page.locator("#tip").inner_text()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_pages_do_not_scroll_sideways(
    browser: Browser, directory: Path, scheme: str
) -> None:
    page, trouble = open_page(
        browser, directory, viewport={"width": 360, "height": 700}, color_scheme=scheme
    )
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

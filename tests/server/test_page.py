"""The web page, in a real browser with the real aligner."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.chromium import needs_chromium
from tests.server.conftest import Served
from tests.server.upstream import wait_for


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages. They load nothing from elsewhere, and the console stays empty but for what a
    test allows."""
    pages: list[Page] = []
    said: list[str] = []
    loaded: list[str] = []
    allowed = "nothing is allowed"

    def start(url: str, allow: str = allowed, **options: Any) -> Page:
        nonlocal allowed
        allowed = allow
        page = browser.new_page(**options)
        page.set_default_timeout(30_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: loaded.append(request.url))
        page.goto(url)
        pages.append(page)
        return page

    yield start
    for page in pages:
        page.close()
    assert [text for text in said if allowed not in text] == []
    assert all(url.startswith("http://127.0.0.1:") for url in loaded)


def correct(page: Page, question: str, answer: str) -> None:
    page.get_by_label("Question").fill(question)
    page.get_by_label("Answer", exact=True).fill(answer)
    page.get_by_role("button", name="Correct").click()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 360])
def test_correction_is_shown(
    real: Served,
    open_page: Callable[..., Page],
    tmp_path: Path,
    scheme: str,
    width: int,
) -> None:
    page = open_page(f"{real.url}/", viewport={"width": width, "height": 1000}, color_scheme=scheme)
    expect(page.locator("#result")).to_be_hidden()
    expect(page.locator("#key-box")).to_be_hidden()
    correct(page, "How do I cook rice?", "Cook it for 15 minutes. You idiot. 😀 <b>Then</b> rest.")
    expect(page.locator("#stats dd")).to_have_count(8)
    deleted = page.locator("#text del")
    expect(deleted.first).to_contain_text("idiot")
    text = page.locator("#text")
    expect(text).to_contain_text("Cook it for 15 minutes.")
    assert page.locator("#text b").count() == 0  # text, never HTML
    stats = dict(
        zip(
            page.locator("#stats dt").all_inner_texts(),
            page.locator("#stats dd").all_inner_texts(),
            strict=True,
        )
    )
    assert stats["Aligner"] == "aligner-smol"
    assert stats["Time"].endswith(" s")
    assert stats["Copied"].endswith(" %")
    assert int(stats["Tokens written"]) > 3
    assert int(stats["Forward passes"]) > 0
    assert 0 < float(stats["Similarity"]) < 1
    assert "change" in page.inner_text("#status")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    shot = tmp_path / "page.png"
    page.screenshot(path=shot, full_page=True)
    colours = read_colours(shot.read_bytes())
    assert len(colours) > 50  # letters, marks and buttons: it isn't blank
    ground = colours.most_common(1)[0][0]
    assert (sum(ground) > 600) == (scheme == "light")


@needs_chromium
def test_text_streams_and_can_be_stopped(
    serve: Callable[..., Served], open_page: Callable[..., Page]
) -> None:
    served = serve()
    page = open_page(f"{served.url}/")
    served.engine.hold = True
    page.get_by_role("button", name="Rude").click()
    page.get_by_role("button", name="Correct").click()
    expect(page.get_by_role("button", name="Correct")).to_be_disabled()
    wait_for(lambda: served.engine.jobs)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped")
    wait_for(lambda: served.engine.jobs[0].cancelled)
    wait_for(lambda: served.gateway.admission.idle)
    served.engine.hold, served.engine.pause = False, True
    page.get_by_role("button", name="Correct").click()
    expect(page.locator("#text")).to_have_text("How")
    expect(page.locator("#stats dd")).to_have_count(0)
    served.engine.pause = False
    expect(page.locator("#stats dd")).to_have_count(8)
    expect(page.locator("#text ins").first).to_be_visible()


@needs_chromium
def test_errors_and_keys(serve: Callable[..., Served], open_page: Callable[..., Page]) -> None:
    served = serve(api_keys=("key-1",))
    page = open_page(f"{served.url}/", allow="401")
    correct(page, "Q", "An answer")
    expect(page.get_by_role("alert")).to_contain_text("API key is missing or wrong")
    page.locator("#key").fill("key-1")
    page.get_by_role("button", name="Correct").click()
    expect(page.locator("#stats dd")).to_have_count(8)
    expect(page.get_by_role("alert")).to_be_hidden()
    served.engine.error = RuntimeError("secret details")
    page.get_by_role("button", name="Correct").click()
    expect(page.get_by_role("alert")).to_contain_text("could not be corrected")
    expect(page.get_by_role("status")).to_have_text("Failed")


def test_page_is_strict_and_can_be_left_out(serve: Callable[..., Served]) -> None:
    response = httpx.get(serve().url)
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert "://" not in response.text.replace("http://www.w3.org", "")
    without = serve(page=False)
    for path in ("/", "/aligner/page.js"):
        assert httpx.get(without.url + path).status_code == 404
    assert httpx.post(f"{without.url}/aligner/stream", json={}).status_code == 404


def test_stream_of_one_correction(serve: Callable[..., Served]) -> None:
    url = f"{serve().url}/aligner/stream"
    wrong = httpx.post(url, json={"question": "Q"})
    assert "must both be given" in wrong.json()["error"]["message"]
    events = [
        json.loads(line[6:])
        for line in httpx.post(url, json={"question": "Q", "answer": "A"}).text.splitlines()
        if line
    ]
    assert "".join(event.get("piece", "") for event in events) == "Q: fine"
    assert events[-1]["correction"]["edits"]
    assert events[-1]["first"] >= 0


def read_colours(png: bytes) -> Counter[tuple[int, ...]]:
    """How often each colour stands in a picture."""
    with Image.open(io.BytesIO(png)) as image:
        colours: Any = image.convert("RGB").getcolors(1 << 24)
    return Counter({colour: count for count, colour in colours})

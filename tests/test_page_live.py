"""The page's microphone, in a browser that hears a file, against a server that listens while one speaks."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from speaker_reasoner.engines import Request
from speaker_reasoner.server.uploads import Limits

from .browser import chromium, expect
from .talk import play, save
from .test_serve import Live

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """It hears somebody who speaks for 1.5 s in every 3."""
    rng, second = np.random.default_rng(5), 16_000
    voice = rng.normal(0, 0.2, 3 * second) * (np.arange(3 * second) < 1.5 * second)
    file = save(tmp_path_factory.mktemp("microphone") / "voice.wav", voice.astype(np.float32))
    with chromium(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={file}",
    ) as started:
        from playwright.sync_api import expect as playwright_expect

        playwright_expect.set_options(timeout=30_000)
        yield started


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.set_default_timeout(30_000)
    known = ("Failed to load resource", "WebSocket connection to")  # the page tells of those
    page.on(
        "console",
        lambda m: (
            wrong.append(m.text) if m.type == "error" and not m.text.startswith(known) else None
        ),
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    page.close()
    assert wrong == []


def jobs(server: Live, **headers: str) -> list[Any]:
    return list(httpx2.get(f"{server.url}/v1/jobs", headers=headers).json()["data"])


def test_lines_while_one_speaks(tmp_path: Path, tab: Any) -> None:
    def slow(request: Request) -> str:
        time.sleep(0.05)
        return play(request)

    server = Live(tmp_path / "store", slow)
    try:
        tab.goto(server.url)
        tab.get_by_role("button", name="Record").click()
        expect(tab.locator("#live .guess .words").first).to_have_text("one")
        expect(tab.locator("#live .guess .live-who").first).to_have_text("not sure yet")
        final = tab.locator("#live li p:not(.guess)")
        expect(final.nth(3)).to_be_visible()
        assert final.first.text_content() == "Speaker Aone"
        assert tab.locator("#live li").first.locator(".guess").count() == 0
        assert jobs(server) == [], "what is shown is not kept twice"
        tab.get_by_role("button", name="Stop and transcribe").click()
        expect(tab.locator("#title")).to_have_text(re.compile(r"Recording \d{4}-"))
        expect(tab.locator(".line").first).to_be_visible()
        expect(tab.locator("#live")).to_be_hidden()
        [job] = jobs(server)
        assert job["duration"] > 5 and job["name"].startswith("Recording ")
    finally:
        server.stop()


@pytest.mark.parametrize("key", ["", "a-key"])
def test_a_server_that_asks_for_a_key(tmp_path: Path, tab: Any, key: str) -> None:
    """The socket carries it; a key that none can carry leaves the upload."""
    secret = key or "s/+= cannot"
    server = Live(tmp_path / "store", play, api_key=secret)
    try:
        tab.goto(server.url)
        tab.get_by_label("API key").fill(secret)
        tab.get_by_role("button", name="Continue").click()
        tab.get_by_role("button", name="Record").click()
        if key:
            expect(tab.locator("#live li p").first).to_be_visible()
        else:
            expect(tab.locator("#live > p")).to_contain_text("Lines cannot be shown just now.")
        expect(tab.locator("#recorded")).to_have_text("0:04")
        tab.get_by_role("button", name="Stop and transcribe").click()
        expect(tab.locator(".line").first).to_be_visible()
        assert len(jobs(server, Authorization=f"Bearer {secret}")) == 1
    finally:
        server.stop()


def test_no_socket_to_be_had(tmp_path: Path, tab: Any) -> None:
    server = Live(tmp_path / "store", play, limits=Limits(live=0))
    try:
        tab.goto(server.url)
        tab.get_by_role("button", name="Record").click()
        expect(tab.locator("#live > p")).to_contain_text("Lines cannot be shown just now.")
        expect(tab.locator("#recorded")).to_have_text("0:03")
        tab.get_by_role("button", name="Stop and transcribe").click()
        expect(tab.locator(".line").first).to_be_visible()
        assert len(jobs(server)) == 1
    finally:
        server.stop()


def test_a_server_that_goes_away(tmp_path: Path, tab: Any) -> None:
    """While somebody speaks: every second of it is there when the server is back."""
    server = Live(tmp_path / "store", play)
    try:
        tab.goto(server.url)
        tab.get_by_role("button", name="Record").click()
        expect(tab.locator("#live li p:not(.guess)").first).to_be_visible()
        server.stop()
        expect(tab.locator("#live > p")).to_contain_text("Lines cannot be shown just now.")
        shown = tab.locator("#live li p:not(.guess)").count()
        before = tab.locator("#recorded").text_content()
        expect(tab.locator("#recorded")).not_to_have_text(before)
        tab.wait_for_timeout(2000)
        tab.get_by_role("button", name="Stop and transcribe").click()
        kept = tab.locator("#kept li")
        expect(kept).to_have_count(1)
        assert shown and tab.locator("#live li p:not(.guess)").count() == shown
        server.start()
        expect(tab.locator("#lost")).to_be_hidden()
        seconds = int(kept.locator("span").first.text_content().rpartition(":")[2])
        kept.get_by_role("button", name="Send it").click()
        expect(tab.locator(".line").first).to_be_visible()
        [job] = jobs(server)
        assert job["duration"] == pytest.approx(seconds, abs=1.5) and seconds >= 4
    finally:
        server.stop()

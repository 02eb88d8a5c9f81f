"""The page's microphone, in a browser that hears a file, against a server that listens while one speaks."""

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.protocol import Box, Line, Overview, Turn, render_turn
from speaker_reasoner.server.uploads import Limits

from .browser import chromium, expect
from .talk import play, save
from .test_meetings import CACHED
from .test_serve import Live

pytestmark = pytest.mark.slow


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """It hears somebody who speaks for 1.5 s in every 3."""
    rng, second = np.random.default_rng(5), 16_000
    voice = rng.normal(0, 0.2, 3 * second) * (np.arange(3 * second) < 1.5 * second)
    yield from _browser(tmp_path, voice.astype(np.float32))


def _browser(folder: Path, voice: Any) -> Iterator[Any]:
    file = save(folder / "voice.wav", voice)
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


AS_IT_IS = """
const { mediaDevices } = navigator, was = mediaDevices.getUserMedia.bind(mediaDevices);
const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
mediaDevices.getUserMedia = () => was({ audio });
"""
"""Browsers take tones for noise, and leave them out."""
PITCHES = [400 + 150 * n for n in range(12)]


def loudest(samples: Any) -> int:
    hertz = np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples)
    return min(PITCHES, key=lambda pitch: abs(pitch - hertz))


def pitch_of(request: Request) -> str:
    """One speaker in all of every chunk, who says the pitch, and is known by it among those of the cache."""
    rules, pitch = request.rules, loudest(request.session.samples)
    known = list(dict.fromkeys(loudest(clip) for clip in request.session.cached))
    number = known.index(pitch) + 1 if pitch in known else len(known) + 1
    genders = [*rules.cached, "female"]
    if rules.turn == 0:
        turn = Turn(
            overview=Overview((*genders[: max(number, len(known))],)), box=Box(0, rules.chunk)
        )
        return render_turn(turn, rules.profile)
    line = Line(number, genders[number - 1], 0, rules.chunk, f"pitch {pitch}")
    return render_turn(Turn(lines=(line,)), rules.profile) + "<answer>"


def in_turns(pitches: Sequence[int], turn_s: float, spoken_s: float) -> Any:
    """A sound of speakers of a pitch each, who speak one after the other."""
    second = 16_000
    at, rng = np.arange(round(turn_s * second)), np.random.default_rng(0)
    parts = [0.3 * np.sin(2 * np.pi * hz * at / second) for hz in pitches]
    spoken = [(part + rng.normal(0, 0.05, len(at))) * (at < spoken_s * second) for part in parts]
    hiss = rng.normal(0, 1e-3, len(at) * len(parts))
    return (np.concatenate(spoken) + hiss).astype(np.float32)


@pytest.fixture
def scale(tmp_path: Path) -> Iterator[Any]:
    """A browser that hears another pitch every 2.5 s."""
    yield from _browser(tmp_path, in_turns(PITCHES, 2.5, 1.2))


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Any]:
    """A browser that hears two people in turns."""
    yield from _browser(tmp_path, in_turns(PITCHES[::8], 5.0, 3.6))


def test_speakers_keep_their_letters_over_a_break(tmp_path: Path, talk: Any) -> None:
    """Clips of them go to the next session, where the model knows voices."""
    engine = ScriptedEngine(pitch_of, CACHED)
    server = Live(tmp_path / "store", Transcriber(engine, detect=None))
    tab = talk.new_page()
    tab.add_init_script(AS_IT_IS)
    final = tab.locator("#live li p:not(.guess)")
    try:
        tab.goto(server.url)
        tab.get_by_role("button", name="Record").click()
        expect(final.nth(2)).to_be_visible(timeout=30_000)
        server.stop()
        expect(tab.locator("#live > p")).to_contain_text("Lines cannot be shown just now.")
        server.start()
        expect(final.nth(6)).to_be_visible(timeout=40_000)
        said = final.all_text_contents()
        one, two = (f"pitch {pitch}" for pitch in PITCHES[::8])
        assert [text.removeprefix("Speaker A").removeprefix("Speaker B") for text in said] == [
            (one, two)[n % 2] for n in range(len(said))
        ]
        assert {*said} == {f"Speaker A{one}", f"Speaker B{two}"}
    finally:
        tab.close()
        server.stop()


def test_a_socket_that_breaks(tmp_path: Path, scale: Any) -> None:
    """Another one goes on within the recording: whatever was said is there, once, in order."""
    server = Live(tmp_path / "store", pitch_of)
    tab = scale.new_page()
    tab.add_init_script(AS_IT_IS)
    final = tab.locator("#live li p:not(.guess)")

    def pitches() -> list[int]:
        return [int(text.split()[-1]) for text in final.all_text_contents()]

    try:
        tab.goto(server.url)
        tab.get_by_role("button", name="Record").click()
        expect(final.first).to_be_visible(timeout=30_000)
        for _ in range(2):
            server.stop()
            expect(tab.locator("#live > p")).to_contain_text("Lines cannot be shown just now.")
            tab.wait_for_timeout(4000)
            before = final.count()
            server.start()
            expect(final.nth(before + 3)).to_be_visible(timeout=30_000)
            expect(tab.locator("#live > p")).to_have_text("")
        order = [PITCHES.index(pitch) for pitch in pitches()]
        assert len(order) >= 9
        assert order == [(order[0] + n) % len(PITCHES) for n in range(len(order))]
        letters = {text.split("pitch")[0] for text in final.all_text_contents()}
        assert len(letters) == len(order), "nobody knows their voices"
        tab.get_by_role("button", name="Stop and transcribe").click()
        expect(tab.locator(".line").first).to_be_visible()
    finally:
        tab.close()
        server.stop()


def test_silence_is_not_kept(tmp_path: Path, talk: Any) -> None:
    """A long one before a break is not sent once more; its last seconds are."""
    server = Live(tmp_path / "store", play)
    tab = talk.new_page()
    tab.add_init_script("""
      const { mediaDevices } = navigator;
      mediaDevices.getUserMedia = async () => {
        const context = new AudioContext(), source = context.createConstantSource();
        const stream = context.createMediaStreamDestination();
        source.offset.value = 0;
        source.connect(stream);
        source.start();
        return stream.stream;
      };
      window.sent = [];
      const was = WebSocket.prototype.send;
      WebSocket.prototype.send = function (text) { window.sent.push(JSON.parse(text).type); was.call(this, text); };
    """)
    try:
        tab.goto(server.url)
        tab.get_by_role("button", name="Record").click()
        expect(tab.locator("#recorded")).to_have_text("0:26", timeout=40_000)
        asked = tab.evaluate("sent.filter((type) => type === 'session.update').length")
        server.stop()
        expect(tab.locator("#live > p")).to_contain_text("Lines cannot be shown just now.")
        tab.evaluate("sent.length = 0")
        server.start()
        expect(tab.locator("#live > p")).to_contain_text("Lines appear here")
        again = tab.evaluate("sent.filter((type) => type.endsWith('append')).length")
        assert asked == 2 and 90 <= again < 200, "10 s and what came since, of 26 s and more"
    finally:
        tab.close()
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

"""The page: what it may load, its colours, and its work in a real browser.

Most of it is tried on `tests.scripted_server`, which plays one conversation; the last test is the whole
way with the real server and the embedded checkpoint.
"""

import base64
import hashlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import speaker_reasoner
from speaker_reasoner.server.exports import SUFFIXES

from .browser import chromium, expect, needs_axe, violations
from .scripted_server import PAGE, SPOKEN, Scripted

ROOT = Path(__file__).parents[1]
MEETING = ROOT / "examples/meeting.flac"
LINES = len(SPOKEN)
PHONE = {"viewport": {"width": 390, "height": 844}}
PATIENCE_MS = 60_000  # of one expectation, on a machine that does other things
DOWNLOADS_APART_MS = 120  # Chromium drops the 11th of a page within a second, silently

HTML = (PAGE / "index.html").read_text(encoding="utf-8")
CSS = (PAGE / "app.css").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in (PAGE / "js").glob("*.js")}


# ---- what it is made of -------------------------------------------------------------------------


def test_everything_it_loads_is_beside_it() -> None:
    found = re.findall(r'(?:src|href)="(?!#)([^"]+)"', HTML)
    found += [f"static/{url}" for url in re.findall(r"url\(([^)]+)\)", CSS)]
    assert len(found) > 4
    for name in found:
        assert name.startswith("static/") and (PAGE / name.removeprefix("static/")).is_file(), name
    for script in SCRIPTS.values():
        for name in re.findall(r'^import .*from "([^"]+)";$', script, re.MULTILINE):
            assert (PAGE / "js" / name).is_file(), name
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)", HTML + CSS + "".join(SCRIPTS.values())
    )


def test_modules_are_fetched_at_once() -> None:
    """All that is imported, directly or not, is announced in the document; nothing else is."""
    wanted, left = set[Path](), [PAGE / "js/app.js"]
    while left:
        text = (module := left.pop()).read_text(encoding="utf-8")
        names = re.findall(r'^import .*from "([^"]+)";$', text, re.MULTILINE)
        imported = {(module.parent / name).resolve() for name in names}
        left += imported - wanted
        wanted |= imported
    announced = re.findall(r'rel="modulepreload" href="static/([^"]+)"', HTML)
    assert len(announced) == len(set(announced))
    assert {PAGE.resolve() / name for name in announced} == wanted


def test_a_strict_policy_holds() -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', HTML)
    assert policy and "unsafe" not in policy[1] and "default-src 'none'" in policy[1]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", HTML)
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function"
    assert not [name for name, script in SCRIPTS.items() if re.search(forbidden, script)]


def test_the_policy_knows_the_waveforms_style_sheet() -> None:
    """A new wavesurfer.js, or another height, needs another hash."""
    source = (PAGE / "vendor/wavesurfer.esm.js").read_text(encoding="utf-8")
    height = re.search(r"HEIGHT_PX = (\d+)", SCRIPTS["waveform.js"])
    sheet = re.search(r'<style\$\{[^}]*?nonce="[^}]*\}":""\}>(.*?)</style>', source) or re.search(
        r"<style\$\{.*?:\"\"\}>(.*?)</style>", source
    )
    assert height and sheet
    text = re.sub(r"\$\{this\.getHeight\([^}]*\}", height[1], sheet[1]).replace(r"\n", "\n")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in HTML


def test_every_format_can_be_exported() -> None:
    offered = re.findall(r'\["(\w+)", "[^"]+", "(\.[\w.]+)"\]', SCRIPTS["app.js"])
    assert dict(offered) == SUFFIXES


# Machado, Oliveira and Fernandes (2009), severity 1, on linear sRGB.
EYES = {
    "usual": np.eye(3),
    "protan": np.array(
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0521]]
    ),
    "deutan": np.array(
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]
    ),
    "tritan": np.array(
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]
    ),
}
# Björn Ottosson's OKLab.
LMS = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
LAB = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])


def linear(colour: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """`#rrggbb` as linear sRGB `[3]`."""
    rgb = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(("scheme", "ground"), [(0, "#ffffff"), (1, "#201f1c")])
def test_speakers_have_colours_that_stay_apart(scheme: int, ground: str) -> None:
    pairs = re.findall(r"\.c\d \{ --c: light-dark\((#\w{6}), (#\w{6})\)", CSS)
    colours = [linear(pair[scheme]) for pair in pairs]
    assert len(colours) == 8
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for colour in colours:
        low, high = sorted((colour @ luminance, linear(ground) @ luminance))
        assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, 1.4.11
    for seen in EYES.values():
        labs = [LAB @ np.cbrt(LMS @ np.clip(seen @ colour, 0, 1)) for colour in colours]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(labs, 2)) > 0.09


# ---- in a real browser --------------------------------------------------------------------------

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    microphone = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with chromium(*microphone) as started:
        from playwright.sync_api import expect as playwright_expect

        playwright_expect.set_options(timeout=PATIENCE_MS)
        yield started


@pytest.fixture
def server() -> Iterator[Scripted]:
    running = Scripted()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; in the end nothing may have gone wrong in it, nor been asked of another host."""
    wrong: list[str] = []
    tabs: list[Any] = []

    def open_tab(url: str, **options: Any) -> Any:
        tab = browser.new_page(**options)
        tab.set_default_timeout(PATIENCE_MS)
        refused = ("Failed to load resource", "WebSocket connection to")  # it tells of both
        tab.on(
            "console",
            lambda m: (
                wrong.append(m.text)
                if m.type == "error" and not m.text.startswith(refused)
                else None
            ),
        )
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        local = (url.split("#")[0], "blob:")
        tab.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(local) else None)
        tabs.append(tab)
        tab.goto(url)
        return tab

    yield open_tab
    for tab in tabs:
        tab.close()
    assert wrong == []


def finished(server: Scripted, name: str = "budget talk.wav") -> str:
    """The address of a job that has ended."""
    job = server.add(name, run=False)
    job.run()
    return f"{server.url}#{job.id}"


def names(tab: Any) -> list[str]:
    return [str(text) for text in tab.locator("#names .name span").all_text_contents()]


def speakers(tab: Any) -> list[str]:
    return [str(text) for text in tab.locator(".line .who span").all_text_contents()]


def ready(tab: Any) -> None:
    """Wait for the transcript and for the waveform."""
    expect(tab.locator(".line")).to_have_count(LINES)
    expect(tab.locator("#wave canvas").first).to_be_attached()


def choose(tab: Any, name: str) -> None:
    tab.get_by_role("menuitem", name=name).click()


@slow
def test_the_dialogue_is_watched(server: Scripted, visit: Callable[..., Any]) -> None:
    server.held = True
    tab = visit(server.url)
    tab.set_input_files("#file", {"name": "talk.wav", "mimeType": "audio/wav", "buffer": b"RIFF"})
    said = tab.locator("#listening p")
    expect(said).to_have_text("Waiting for its turn")
    server.go(2)
    expect(said).to_have_text(
        "Listening · hears 3 speakers: 1 female, 2 male · now 0:00.6 to 0:05.4"
    )
    expect(tab.locator("#wave [part~=now]")).to_have_count(1)
    expect(tab.locator("#wave [part~=unheard]")).to_have_count(1)
    expect(tab.locator(".line")).to_have_count(0)
    server.go()
    expect(tab.locator(".line")).to_have_count(1)
    expect(said).to_contain_text("now 0:04.8 to 0:08.8")
    expect(tab.locator(".boxes i")).to_have_count(2)
    expect(tab.locator("#spoken")).to_contain_text("Speaker1: So where did we leave")
    expect(tab.locator("#jobs a")).to_have_text("talk.wavlistening, 0:05 of 0:52")
    assert tab.locator("#names button").first.is_disabled(), "nothing is corrected under way"
    server.go(5)
    expect(said).to_contain_text("hears 4 speakers: 2 female, 2 male")
    server.go(99)
    expect(tab.locator(".line")).to_have_count(LINES)
    expect(tab.locator("#listening")).to_be_hidden()
    expect(tab.locator(".boxes i")).to_have_count(10)
    expect(tab.locator("#wave [part~=now], #wave [part~=unheard]")).to_have_count(0)
    expect(tab.locator("#facts")).to_have_text(f"0:52 · 4 speakers · {LINES} lines")
    expect(tab.locator("#jobs a")).to_have_text("talk.wav0:52 · 4 speakers")


@slow
def test_very_many_boxes_and_a_job_that_begins_anew(
    server: Scripted, visit: Callable[..., Any]
) -> None:
    """Chunks that are listened to at once send boxes in turn; those of a job that begins anew replace the others."""
    server.held = True
    tab = visit(server.url)
    tab.set_input_files("#file", {"name": "talk.wav", "mimeType": "audio/wav", "buffer": b"RIFF"})
    expect(tab.locator("#listening p")).to_have_text("Waiting for its turn")
    [job] = server.jobs.values()

    def tell(count: int) -> None:
        for k in range(count):
            start = 26.0 * (k % 2) + 0.02 * (k // 2)
            job.tell("box", {"chunk": k % 2, "turn": k, "start": start, "end": start + 0.02})

    def covered(part: float) -> None:
        tab.wait_for_function(
            """part => {
                const all = [...document.querySelectorAll(".boxes i")];
                const long = all.map((one) => parseFloat(one.style.getPropertyValue("--long")));
                return Math.abs(long.reduce((sum, one) => sum + one, 0) - part) < 0.5;
            }""",
            arg=part,
        )

    tell(2000)
    covered(100 * 40.0 / 52.0)
    assert tab.locator(".boxes i").count() < 20, "whole stretches"
    job.tell("anew", {})
    tell(30)
    expect(tab.locator(".boxes i")).to_have_count(30)
    covered(100 * 0.6 / 52.0)


@slow
def test_doubt_overlap_and_gaps_are_shown(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    doubtful = tab.locator(".words.unsure")
    expect(doubtful).to_have_count(1)
    assert "not sure of the words, 52 %" in doubtful.inner_text()
    expect(tab.locator(".who.unsure")).to_have_count(2)
    assert tab.get_by_text("<b>printed</b>").count() == 1, "markup stays text"
    expect(tab.locator(".rows .mark.both")).to_have_count(4)
    expect(tab.locator(".gap")).to_contain_text("until 0:46.3: turn 5 broke the protocol")
    order = tab.locator("#lines > li").evaluate_all("all => all.map(one => one.className)")
    assert order.index("gap") == 11
    expect(tab.locator("#warnings li")).to_have_text(
        "3.3 s were not transcribed; see the hatched stretch."
    )
    expect(tab.locator("#wave [part~=missing]")).to_have_count(1)


@slow
def test_a_line_is_heard(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    tab.get_by_label("Speed").select_option("0.75")
    tab.locator(".words").nth(9).click()  # 33.6 to 39.8 s
    expect(tab.locator(".line.current")).to_contain_text(["Eleven. Most of it"])
    expect(tab.locator(".block.current")).to_have_count(1)
    expect(tab.get_by_role("button", name="Pause")).to_be_visible()
    expect(tab.get_by_role("button", name="Play", exact=True)).to_be_visible()
    expect(tab.locator(".line.current")).to_have_count(0)
    now = tab.locator("#now").inner_text()
    assert float(now.removeprefix("0:")) == pytest.approx(39.8, abs=0.5)
    tab.locator(".block").nth(0).click()
    expect(tab.locator(".line.selected")).to_contain_text("So where did we leave")


@slow
def test_lanes_follow_the_waveform(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    lanes = tab.locator(".lanes-inner")
    before = lanes.evaluate("node => node.clientWidth")
    for _ in range(4):
        tab.keyboard.press("+")
    tab.locator(".line").last.focus()
    tab.wait_for_function(
        """() => {
            const wave = document.querySelector("#wave > div").shadowRoot.querySelector(".scroll");
            const lanes = new DOMMatrix(getComputedStyle(document.querySelector(".lanes-inner")).transform);
            return wave.scrollLeft > 500 && Math.abs(lanes.e + wave.scrollLeft) < 1;
        }"""
    )
    assert lanes.evaluate("node => node.clientWidth") > 4 * before
    expect(tab.locator(".block.selected")).to_be_in_viewport()


@slow
def test_speakers_are_renamed_and_merged(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    tab.locator("#names button").first.click()
    choose(tab, "Rename")
    tab.keyboard.type("Ana <i>")
    tab.keyboard.press("Enter")
    expect(tab.locator("#names .name").first).to_contain_text("Ana <i>")
    expect(tab.locator("#menu")).to_be_hidden()
    tab.locator("#names button").nth(1).click()
    choose(tab, "Rename")
    tab.keyboard.type("Nobody")
    tab.keyboard.press("Escape")
    expect(tab.locator("#names button").nth(1)).to_be_focused()
    expect(tab.locator("#menu")).to_be_hidden()
    assert speakers(tab).count("Ana <i>") == 5 and "Speaker1" not in speakers(tab)
    tab.locator("#names button").nth(2).click()
    choose(tab, "Speaker2")
    expect(tab.locator("#names li")).to_have_count(3)
    assert names(tab) == ["Ana <i>", "Speaker2", "Speaker4"]
    tab.locator("#names button").nth(2).drag_to(tab.locator("#names button").nth(0))
    expect(tab.locator("#names li")).to_have_count(2)
    tab.locator(".notice").last.get_by_role("button", name="Undo").click()
    expect(tab.locator("#names li")).to_have_count(3)
    tab.keyboard.press("Control+z")
    expect(tab.locator("#names li")).to_have_count(4)
    tab.keyboard.press("Control+Shift+z")
    expect(tab.locator("#names li")).to_have_count(3)
    tab.reload()
    ready(tab)
    assert names(tab) == ["Ana <i>", "Speaker2", "Speaker4"]
    colours = tab.locator("#names .dot").evaluate_all("all => all.map(one => one.className)")
    assert colours == ["dot c0", "dot c1", "dot c3"], "a colour stays with its speaker"


@slow
def test_lines_are_moved_edited_and_deleted(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    line = tab.locator(".line").nth(2)
    line.locator(".who").click()
    choose(tab, "Speaker3")
    expect(line.locator(".who")).to_have_text("Speaker3")
    line.locator(".who").click()
    choose(tab, "A new speaker")
    expect(line.locator(".who")).to_have_text("Speaker5")
    line.focus()
    tab.keyboard.press("Enter")
    tab.get_by_label("Words").fill("Quite\nright.")
    tab.get_by_label("Start").fill("0:08.9")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("alert")).to_have_text("A line starts at least 0.1 s before it ends.")
    tab.get_by_label("Start").fill("0:07.7")
    tab.keyboard.press("Enter")
    expect(line.locator(".words")).to_contain_text("Quite right.")
    assert line.locator(".when").inner_text().strip() == "0:07.7"
    tab.keyboard.press("Enter")
    tab.get_by_label("Words").fill("No.")
    tab.keyboard.press("Escape")
    expect(line.locator(".words")).to_contain_text("Quite right.")
    expect(line).to_be_focused()
    tab.keyboard.press("Delete")
    expect(tab.locator(".line")).to_have_count(LINES - 1)
    expect(tab.locator(".line").nth(2)).to_be_focused()
    for count in (LINES, LINES, LINES, LINES):
        tab.get_by_role("button", name="Undo").first.click()
        expect(tab.locator(".line")).to_have_count(count)
    expect(line.locator(".who")).to_have_text("Speaker1")
    expect(line.locator(".words")).to_contain_text("Right.")
    expect(tab.locator("#undo")).to_be_disabled()


@slow
def test_times_are_dragged(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    tab.locator(".line").nth(3).focus()
    tab.keyboard.press("Enter")
    handle = tab.locator("#wave [part~=region-handle-right]")
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 20, y, steps=5)
    tab.mouse.up()
    end = tab.get_by_role("textbox", name="End").input_value()
    assert end < "0:13.9"
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator(".edit")).to_have_count(0)
    [job] = server.jobs.values()
    assert job.document is not None
    assert job.document["segments"][3]["end"] == pytest.approx(float(end[2:]))
    assert job.document["segments"][3]["start"] == 9.1


@slow
def test_a_second_tab_learns_and_nothing_is_overwritten(
    server: Scripted, visit: Callable[..., Any]
) -> None:
    """What somebody else does to other lines goes beside one's own; on the same line one is asked."""
    tab = visit(finished(server))
    ready(tab)
    [job] = server.jobs.values()
    job.correct({"op": "rename", "speaker": "Speaker2", "name": "Ben"})
    expect(tab.locator("#names li").nth(1)).to_contain_text("Ben")
    expect(tab.locator(".notice").last).to_contain_text("Somebody else has corrected")
    server.mute = True  # the tab does not learn of the next ones in time
    edit(tab, 3, "I moved two of the visits.")
    job.correct({"op": "edit", "segment": "0", "text": "Theirs, elsewhere."})
    tab.keyboard.press("Enter")
    expect(tab.locator(".words").nth(3)).to_contain_text("I moved two of the visits.")
    expect(tab.locator(".words").nth(0)).to_contain_text("Theirs, elsewhere.")
    edit(tab, 3, "Mine, on the same line.")
    job.correct({"op": "edit", "segment": "3", "text": "Theirs, on the same line."})
    tab.keyboard.press("Enter")
    expect(tab.locator("#ask")).to_contain_text("Theirs, on the same line.")
    expect(tab.locator("#ask")).to_contain_text("Mine, on the same line.")
    tab.keyboard.press("Escape")
    expect(tab.locator(".words").nth(3)).to_contain_text("Theirs, on the same line.")
    expect(tab.locator(".draft")).to_contain_text("Mine, on the same line.")
    tab.locator(".draft").get_by_role("button", name="Go on").click()
    expect(tab.get_by_label("Words")).to_have_value("Mine, on the same line.")
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator(".words").nth(3)).to_contain_text("Mine, on the same line.")
    expect(tab.locator(".draft")).to_have_count(0)
    edit(tab, 5, "Just fine.")
    job.correct({"op": "delete", "segment": "5"})
    tab.keyboard.press("Enter")
    expect(tab.locator(".notice").last).to_contain_text("Just fine.")


def edit(tab: Any, line: int, text: str) -> None:
    tab.locator(".line").nth(line).focus()
    tab.keyboard.press("Enter")
    tab.get_by_label("Words").fill(text)


@slow
def test_two_tabs_of_one_browser(server: Scripted, browser: Any) -> None:
    """One learns from the other at once."""
    context = browser.new_context()
    first, second = context.new_page(), context.new_page()
    address = finished(server)
    for tab in (first, second):
        tab.goto(address)
        ready(tab)
    edit(first, 0, "From the first tab.")
    first.keyboard.press("Enter")
    expect(second.locator(".words").first).to_contain_text("From the first tab.")
    context.close()


@slow
def test_what_is_typed_is_never_lost(server: Scripted, visit: Callable[..., Any]) -> None:
    """Another line, another recording, a reload, a lost server, a slip of the Escape key."""
    address = finished(server)
    tab = visit(address)
    ready(tab)
    edit(tab, 0, "Half a thought")
    tab.locator(".line").nth(2).locator(".words").dblclick()  # what is right is saved
    expect(tab.locator(".words").nth(0)).to_contain_text("Half a thought")
    tab.get_by_label("Words").fill("Right you are.")
    tab.get_by_label("Start").fill("what?")
    edit(tab, 4, "And one more.")  # times that are none cannot be saved: they wait
    expect(tab.locator(".line").nth(2).locator(".draft")).to_contain_text("Right you are.")
    other = server.add("other.wav", run=False)
    other.run()
    tab.goto(f"{server.url}#{other.id}")
    expect(tab.locator("#title")).to_have_text("other.wav")
    tab.goto(address)
    ready(tab)
    expect(tab.locator(".words").nth(4)).to_contain_text("And one more.")
    edit(tab, 6, "Written when the lights went out")
    tab.on("dialog", lambda dialog: dialog.accept())
    tab.reload()
    ready(tab)
    expect(tab.locator(".draft")).to_have_count(2)
    tab.locator(".line").nth(6).locator(".draft").get_by_role("button", name="Go on").click()
    expect(tab.get_by_label("Words")).to_have_value("Written when the lights went out")
    tab.context.set_offline(True)
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator("#lost")).to_contain_text("cannot be reached")
    expect(tab.locator(".line").nth(6).locator(".draft")).to_contain_text(
        "when the lights went out"
    )
    tab.context.set_offline(False)
    expect(tab.locator("#lost")).to_be_hidden()
    tab.locator(".line").nth(6).locator(".draft").get_by_role("button", name="Go on").click()
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator(".words").nth(6)).to_contain_text("Written when the lights went out")
    edit(tab, 7, "A slip")
    tab.keyboard.press("Escape")
    expect(tab.locator(".words").nth(7)).to_contain_text("Sorry, I am late")
    tab.locator(".notice").last.get_by_role("button", name="Bring it back").click()
    expect(tab.get_by_label("Words")).to_have_value("A slip")
    tab.get_by_role("button", name="Cancel").click()


@slow
def test_stop_removes_nothing(server: Scripted, visit: Callable[..., Any]) -> None:
    """A page that believes a job to be under way, since its stream broke, stops one that is done."""
    server.held = True
    job = server.add("talk.wav")
    server.go(3)
    tab = visit(f"{server.url}#{job.id}")
    expect(tab.locator(".line")).to_have_count(1)
    server.mute = True
    server.go(99)
    wait_for(lambda: job.status == "done")
    tab.locator("#listening").get_by_role("button", name="Stop").click()
    expect(tab.locator(".line")).to_have_count(LINES)
    assert job.id in server.jobs and job.removed is None and job.status == "done"
    assert not [path for method, path, _ in server.seen if method == "DELETE"]


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@slow
def test_deleting_asks_and_can_be_undone(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    tab.locator("#job-more").click()
    choose(tab, "Delete recording")
    tab.keyboard.press("Escape")
    expect(tab.locator("#title")).to_have_text("budget talk.wav")
    [job] = server.jobs.values()
    assert job.removed is None
    tab.locator("#job-more").click()
    choose(tab, "Delete recording")
    tab.locator("#ask").get_by_role("button", name="Delete").click()
    expect(tab.locator("#jobs li")).to_have_count(0)
    tab.locator(".notice").get_by_role("button", name="Bring it back").click()
    ready(tab)
    tab.locator("#job-more").click()
    choose(tab, "Delete recording")
    tab.locator("#ask").get_by_role("button", name="Delete").click()
    tab.locator("#bin").click()
    expect(tab.locator("#jobs-title")).to_have_text("In the bin")
    tab.get_by_role("button", name="Bring budget talk.wav back").click()
    ready(tab)


@slow
def test_a_stretch_is_listened_to_again(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    server.held = True
    tab.locator(".line").first.locator(".more").click()
    choose(tab, "Listen again")
    expect(tab.locator("#listening p")).to_contain_text("Listening again")
    expect(tab.locator(".line")).to_have_count(LINES)
    expect(tab.locator("#undo")).to_be_disabled()
    server.go(99)
    expect(tab.locator(".words").first).to_contain_text("So where did we leave it last week?")
    expect(tab.locator("#listening")).to_be_hidden()
    tab.keyboard.press("Control+z")
    expect(tab.locator(".words").first).to_contain_text("the budget")


@slow
def test_how_it_listened(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    tab.locator(".line").nth(8).focus()
    tab.keyboard.press("t")
    turns = tab.locator("#trace .turn")
    expect(turns).to_have_count(6)
    expect(turns.first).to_contain_text("1 voice from before, 3.0 s")
    here = tab.locator("#trace .turn.here")
    expect(here).to_contain_text("Speaker3-male [6.1, 7.3]: Eleven?")
    expect(here.get_by_role("button").first).to_have_text("0:31.9 – 0:33.5")
    here.get_by_role("button").first.click()
    expect(tab.locator("#now")).to_have_text(re.compile(r"0:3[23]"))
    tab.get_by_role("button", name="Close").click()
    expect(tab.locator("#trace")).to_be_hidden()


@slow
def test_transcripts_are_saved(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    tab.get_by_role("button", name="Export").click()
    with tab.expect_download() as saved:
        choose(tab, "SubRip")
    assert saved.value.suggested_filename == "budget talk.srt"
    assert Path(saved.value.path()).read_text(encoding="utf-8").startswith('["srt", ')


@slow
def test_what_failed_and_what_was_stopped(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server, "broken.wav"))
    expect(tab.locator("#warnings")).to_contain_text("the engine ran out of memory in chunk 0")
    expect(tab.locator(".line")).to_have_count(3)
    expect(tab.locator("#export")).to_be_disabled()
    tab.locator(".line").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".edit").count() == 0
    server.held = True
    job = server.add("long.wav")
    server.go()
    tab.goto(f"{server.url}#{job.id}")
    expect(tab.locator("#listening p")).to_contain_text("Listening")
    tab.locator("#listening").get_by_role("button", name="Stop").click()
    expect(tab.locator("#empty")).to_have_text("Stopped before the first line.")
    server.go()
    tab.get_by_role("button", name="Try again").press("Enter")
    expect(tab.locator("#listening p")).to_contain_text("Listening")
    expect(tab.get_by_role("button", name="Try again")).to_be_hidden()
    tab.locator("#listening").get_by_role("button", name="Stop").click()
    expect(tab.get_by_role("button", name="Try again")).to_be_visible()
    tab.locator("#job-more").click()
    choose(tab, "Delete recording")
    tab.locator("#ask").get_by_role("button", name="Delete").click()
    expect(tab.get_by_role("heading", name="Who said what")).to_be_visible()
    expect(tab.locator("#jobs li")).to_have_count(1)
    tab.goto(f"{server.url}#job_99")
    expect(tab.locator(".notice").last).to_contain_text("This recording is not here")
    expect(tab.locator("#home")).to_be_visible()


@slow
def test_a_broken_stream_goes_on(server: Scripted, visit: Callable[..., Any]) -> None:
    server.break_after, server.held = 6, True
    job = server.add("talk.wav")
    server.go(3)
    tab = visit(f"{server.url}#{job.id}")
    expect(tab.locator(".line")).to_have_count(1)
    server.go(99)
    expect(tab.locator(".line")).to_have_count(LINES)
    expect(tab.locator("#export")).to_be_enabled()
    resumed = [
        headers["last-event-id"] for _, _, headers in server.seen if "last-event-id" in headers
    ]
    assert resumed == ["6"]


@slow
def test_a_key_is_asked_for(server: Scripted, visit: Callable[..., Any]) -> None:
    address = finished(server)
    server.key = "open sesame"
    tab = visit(address)
    expect(tab.locator("#key")).to_be_visible()
    tab.get_by_role("button", name="Not now").click()
    expect(tab.locator("#lost")).to_contain_text("asks for a key")
    tab.wait_for_timeout(500)
    expect(tab.locator("#key")).to_be_hidden()
    tab.get_by_role("button", name="Enter the key").click()
    for key, said in (("wrong", ""), ("open sesame", "That is not this server's key.")):
        expect(tab.locator("#key .wrong")).to_have_text(said)
        tab.get_by_label("API key").fill(key)
        tab.get_by_role("button", name="Continue").click()
    ready(tab)
    expect(tab.locator("#lost")).to_be_hidden()
    tab.keyboard.press("Space")
    expect(tab.get_by_role("button", name="Pause")).to_be_visible()
    expect(tab.locator("#now")).not_to_have_text("0:00.0")
    tab.reload()
    ready(tab)
    assert tab.evaluate("() => [document.cookie, localStorage.length]") == ["", 0]


@slow
def test_the_microphone(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(server.url)
    tab.get_by_label("How many people").fill("2 - 3")
    tab.get_by_role("button", name="Record").click()
    expect(tab.locator("#recorded")).to_have_text("0:01")
    tab.get_by_role("button", name="Stop and transcribe").click()
    expect(tab.locator("#title")).to_have_text(
        re.compile(r"Recording \d{4}-\d\d-\d\d \d\d\.\d\d\.webm")
    )
    [sent] = server.sent
    assert b"\x1a\x45\xdf\xa3" in sent and b"webm" in sent, "as the browser recorded it"
    assert re.search(rb'name="speakers"\r\n\r\n2-3\r\n', sent)


@slow
@pytest.mark.parametrize("why", ["refused", "wrong field", "reload"])
def test_what_the_microphone_heard_is_kept(
    server: Scripted, visit: Callable[..., Any], why: str
) -> None:
    """Until the server has it: over refusals, a field that is wrong, and a reload while it records."""
    tab = visit(server.url)
    server.refuse = 1
    if why == "wrong field":
        tab.get_by_label("How many people").fill("many")
    tab.get_by_role("button", name="Record").click()
    expect(tab.locator("#recorded")).to_have_text("0:02")
    assert tab.title().startswith("● ")
    tab.evaluate("() => { location.hash = 'job_none'; }")
    expect(tab.locator("#recording")).to_be_visible()
    if why == "reload":
        tab.on("dialog", lambda dialog: dialog.accept())
        tab.reload()
    else:
        tab.get_by_role("button", name="Stop and transcribe").click()
    kept = tab.locator("#kept li")
    expect(kept).to_have_count(1)
    expect(kept).to_contain_text("Recording 20")
    assert server.sent == []
    tab.get_by_label("How many people").fill("")
    tab.reload()
    if why == "reload":  # the first try is refused here
        kept.get_by_role("button", name="Send it").click()
        expect(tab.locator(".notice").last).to_contain_text("Not sent")
        expect(kept).to_have_count(1)
    server.refuse = 0
    with tab.expect_download() as saved:
        kept.get_by_role("button", name="Save as a file").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"\x1a\x45\xdf\xa3")
    kept.get_by_role("button", name="Send it").click()
    expect(tab.locator("#title")).to_have_text(re.compile(r"Recording .*webm"))
    assert b"\x1a\x45\xdf\xa3" in server.sent[-1]
    tab.goto(server.url)
    tab.reload()
    expect(tab.locator("#record")).to_be_visible()
    expect(kept).to_have_count(0)


@slow
def test_a_recording_is_not_left_by_accident(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(server.url)
    tab.get_by_role("button", name="Record").click()
    expect(tab.locator("#recorded")).to_have_text("0:01")
    asked: list[str] = []

    def stay(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    tab.on("dialog", stay)
    tab.evaluate("() => { setTimeout(() => location.reload(), 0); }")
    wait_for(lambda: tab.evaluate("1") == 1 and asked == ["beforeunload"])
    other = finished(server)
    tab.evaluate(f"() => {{ location.hash = '{other.partition('#')[2]}'; }}")
    expect(tab.locator("#mic-on")).to_contain_text("The microphone is on")
    tab.locator("#mic-on").get_by_role("button", name="Stop").click()
    expect(tab.locator("#mic-on")).to_be_hidden()
    wait_for(lambda: len(server.sent) == 1)


@slow
def test_people_one_knows(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(server.url)
    talk = {"name": "talk.wav", "mimeType": "audio/wav", "buffer": b"RIFF"}
    expect(tab.locator("#stored label")).to_have_text(["Cleo", "Dr. <b>No</b>"])
    tab.get_by_label("Cleo").check()
    tab.get_by_role("button", name="Add a voice").click()
    expect(tab.get_by_label("Name", exact=True).first).to_be_focused()
    tab.set_input_files("#file", talk)
    assert server.sent == [], "a voice without a name is not sent"
    clips = [{"name": f"ana{n}.flac", "mimeType": "audio/flac", "buffer": b"clip"} for n in "12"]
    tab.locator(".clips input[type=file]").set_input_files(clips)
    expect(tab.locator(".clip-file")).to_have_text("ana1.flac and 1 more")
    expect(tab.get_by_label("Name", exact=True).first).to_have_value("ana1")
    tab.get_by_label("Name", exact=True).first.fill(" Ana ")
    tab.get_by_role("button", name="Add a voice").click()
    tab.get_by_label("Name", exact=True).nth(1).fill("Bo")
    tab.set_input_files("#file", talk)
    assert server.sent == [], "a name without a voice is not sent"
    tab.get_by_role("button", name="Remove this voice").nth(1).click()
    expect(tab.get_by_label("Name", exact=True)).to_be_focused()
    tab.set_input_files("#file", talk)
    expect(tab.locator("#title")).to_have_text("talk.wav")
    [sent] = server.sent
    fields = re.findall(rb'name="([\w\[\]]+)"\r\n\r\n(.*?)\r\n', sent)
    url = b"data:audio/flac;base64,Y2xpcA=="
    assert sorted(fields) == [
        *[(b"known_speaker_names[]", b"Ana")] * 2,
        *[(b"known_speaker_references[]", url)] * 2,
        (b"voices[]", b"Cleo"),
    ]


@slow
def test_a_file_is_dropped(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(server.url)
    drop = """() => {
        const data = new DataTransfer();
        data.items.add(new File(["RIFF"], "dropped.wav"));
        for (const type of ["dragenter", "dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    tab.evaluate(drop)
    expect(tab.locator("#title")).to_have_text("dropped.wav")
    expect(tab.locator("#drop")).to_be_hidden()


@slow
def test_a_field_is_put_right(server: Scripted, visit: Callable[..., Any]) -> None:
    """The file that was chosen waits; what was said of it goes when it is sent."""
    tab = visit(server.url)
    tab.get_by_label("How many people").fill("many")
    tab.locator("#file").set_input_files(MEETING)
    expect(tab.locator(".notice")).to_contain_text("Not sent yet: meeting.flac")
    assert server.sent == []
    tab.get_by_label("How many people").fill("3")
    tab.locator(".notice").get_by_role("button", name="Send again").click()
    expect(tab.locator("#title")).to_have_text("meeting.flac")
    expect(tab.locator(".notice")).to_have_count(0)


@slow
@pytest.mark.parametrize("width", [390, 1280])
def test_menus_are_not_cut_off(server: Scripted, visit: Callable[..., Any], width: int) -> None:
    tab = visit(finished(server), viewport={"width": width, "height": 844})
    edge = tab.evaluate("() => document.body.getBoundingClientRect().right")
    for button in (tab.locator("#export"), tab.locator(".line .more").first):
        button.click()
        box = tab.locator("#menu").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= edge
        tab.keyboard.press("Escape")


@slow
def test_the_keyboard_is_enough(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    expect(tab.locator("#title")).to_be_focused()
    tab.keyboard.press("?")
    expect(tab.locator("#help")).to_contain_text("Next or previous line")
    tab.keyboard.press("Escape")
    expect(tab.locator("#help")).to_be_hidden()
    for key, at in (("j", 0), ("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0), ("k", 0)):
        tab.keyboard.press(key)
        expect(tab.locator(".line").nth(at)).to_be_focused()
    stops = "() => document.querySelectorAll('#lines [tabindex=\"0\"], #lines .line button:not([tabindex])').length"
    assert tab.evaluate(stops) == 1, "one tab stop for all the lines"
    tab.keyboard.press("s")
    expect(tab.get_by_role("menuitem", name="Speaker2")).to_be_focused()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    expect(tab.locator(".who").first).to_have_text("Speaker3")
    expect(tab.locator(".line").first).to_be_focused()
    tab.keyboard.press("4")
    expect(tab.locator(".who").first).to_have_text("Speaker4")
    tab.locator(".line").nth(1).focus()
    tab.keyboard.press("g")
    expect(tab.locator(".line")).to_have_count(LINES - 1)
    tab.keyboard.press("Control+z")
    expect(tab.locator(".line")).to_have_count(LINES)
    tab.locator(".line").nth(3).focus()
    tab.keyboard.press("Enter")
    box = tab.get_by_label("Words")
    box.evaluate("node => node.setSelectionRange(9, 9)")
    tab.keyboard.press("Control+Enter")
    expect(tab.locator(".line")).to_have_count(LINES + 1)
    expect(tab.locator(".words").nth(3)).to_have_text("Page four")
    tab.locator(".line").last.focus()
    tab.keyboard.press("a")
    expect(tab.get_by_label("Words")).to_have_value("")
    tab.keyboard.type("Thank you.")
    tab.keyboard.press("Enter")
    expect(tab.locator(".words").last).to_contain_text("Thank you.")


@slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(server: Scripted, visit: Callable[..., Any], scheme: str) -> None:
    tab = visit(server.url, color_scheme=scheme, **PHONE)
    overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(overflow) <= 0
    tab.goto(finished(server))
    ready(tab)
    assert tab.evaluate(overflow) <= 0
    expect(tab.locator("#names .name span").first).to_be_visible()
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    assert tab.locator("#names .name span").evaluate_all(cut) == 0
    tab.locator(".line").nth(1).locator(".more").click()
    choose(tab, "Edit")
    expect(tab.get_by_label("Words")).to_be_focused()
    assert tab.evaluate(overflow) <= 0
    paper = tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(250, 248, 244)") == (scheme == "light")
    tab.get_by_role("button", name="Cancel").click()
    tab.get_by_role("link", name="All recordings").click()
    expect(tab.locator("#jobs a")).to_be_visible()


@slow
def test_fingers_find_their_way(server: Scripted, visit: Callable[..., Any]) -> None:
    """On a phone what can be pressed is at least 44 px high, and the waveform makes room for reading."""
    fine = ".sr, .block, .skip, .name, .rate, .intake-options label, .edit-row label"
    small = """() => [...document.querySelectorAll("button, a, select, label, input[type=text]")]
        .filter(n => n.checkVisibility() && !n.matches(SMALL))
        .filter(n => n.getBoundingClientRect().height < 43.5).map(n => n.outerHTML)""".replace(
        "SMALL", repr(fine)
    )
    tab = visit(server.url, has_touch=True, is_mobile=True, **PHONE)
    expect(tab.locator("#stored label")).to_have_count(2)
    assert tab.evaluate(small) == []
    tab.goto(finished(server))
    ready(tab)
    assert tab.evaluate(small) == []
    tab.locator(".line").nth(1).locator(".more").click()
    choose(tab, "Edit or split")
    assert tab.evaluate(small) == []
    tab.get_by_role("button", name="Cancel").click()
    tab.evaluate("() => scrollTo({top: 700, behavior: 'instant'})")
    expect(tab.locator("#wave")).to_be_hidden()
    expect(tab.locator("#play")).to_be_visible()
    tab.locator("#grow").click()
    expect(tab.locator("#wave")).to_be_visible()


@slow
def test_everything_has_a_name(server: Scripted, visit: Callable[..., Any]) -> None:
    tab = visit(finished(server))
    ready(tab)
    unnamed = """() => [...document.querySelectorAll("button, input, select, a, dialog, textarea")]
        .filter(one => !(one.ariaLabel || one.textContent.trim() || one.labels?.length
            || one.getAttribute("aria-labelledby"))).map(one => one.outerHTML)"""
    assert tab.evaluate(unnamed) == []
    assert tab.locator("[aria-live], [role=status], [role=log]").count() == 3


@slow
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(server: Scripted, browser: Any, scheme: str, width: int) -> None:
    context = browser.new_context(
        bypass_csp=True,
        color_scheme=scheme,
        reduced_motion="reduce",
        viewport={"width": width, "height": 900},
    )
    tab = context.new_page()

    def check(state: str) -> None:
        assert violations(tab) == [], state

    tab.goto(server.url)
    expect(tab.locator("#stored label")).to_have_count(2)
    check("home")
    tab.goto(finished(server))
    ready(tab)
    check("a recording")
    edit(tab, 3, "Something else.")
    check("a line is edited")
    tab.keyboard.press("Escape")
    check("a notice")
    tab.get_by_role("button", name="Export").click()
    check("a menu")
    tab.keyboard.press("Escape")
    for key in ("?", "t"):
        tab.locator(".line").nth(3).focus()
        tab.keyboard.press(key)
        expect(tab.locator("dialog[open]")).to_be_visible()
        check(f"the dialog of {key}")
        tab.keyboard.press("Escape")
    tab.locator("#job-more").click()
    choose(tab, "Delete recording")
    check("a question")
    tab.locator("#ask").get_by_role("button", name="Delete").click()
    tab.locator("#bin").click()
    expect(tab.locator(".binned")).to_have_count(1)
    check("the bin")
    tab.goto(finished(server, "broken.wav"))
    expect(tab.locator(".line")).to_have_count(3)
    check("a recording that failed")
    server.held = True
    tab.goto(f"{server.url}#{server.add('long talk.wav').id}")
    server.go(4)
    expect(tab.locator(".line")).to_have_count(3)
    check("a recording at work")
    server.go(99)
    ready(tab)
    server.held = False
    server.key = "open sesame"
    tab.reload()
    expect(tab.locator("#key")).to_be_visible()
    check("a key is asked for")
    tab.get_by_role("button", name="Not now").click()
    expect(tab.locator("#lost")).to_contain_text("asks for a key")
    check("no key was given")
    server.key = ""
    tab.goto(server.url)
    tab.get_by_role("button", name="Record").click()
    expect(tab.locator("#recorded")).to_have_text("0:01")
    check("the microphone is on")
    context.set_offline(True)
    expect(tab.locator("#lost")).to_be_visible()
    check("the server is lost")
    context.close()


@slow
@pytest.mark.parametrize("people", [4, 5_000])
def test_ten_hours_open_at_once(server: Scripted, visit: Callable[..., Any], people: int) -> None:
    """Of very many lines those in view are drawn, before the waveform is asked for; each can be reached."""
    address = finished(server)
    [job] = server.jobs.values()
    assert job.document is not None
    first = job.document["segments"][0]
    job.document["segments"] = [
        {
            **first,
            "id": f"n{k}",
            "speaker": f"Speaker{1 + k % people}",
            "text": f"line {k}",
            "start": k * 3.5,
            "end": k * 3.5 + 3,
        }
        for k in range(10_000)
    ]
    job.document["speakers"] = [
        {"label": f"Speaker{n}", "name": f"Speaker{n}", "gender": "unknown", "colour": n - 1}
        for n in range(1, people + 1)
    ]
    job.document["duration"] = 36_000.0
    tab = visit(server.url)
    tab.evaluate(
        """hash => { window.began = performance.now(); location.hash = hash;
            const fetch = window.fetch;
            window.fetch = (path, options) => {
                if (path.endsWith("/peaks")) window.shown = document.querySelectorAll(".line").length;
                return fetch(path, options);
            };
            new MutationObserver((_, me) => { if (document.querySelector(".line")) {
                window.took = performance.now() - window.began; me.disconnect(); } })
                .observe(document.getElementById("lines"), {childList: true}); }""",
        address.partition("#")[2],
    )
    expect(tab.locator(".line").first).to_contain_text("line 0")
    took_ms = tab.evaluate("() => window.took")
    assert took_ms < 5000, took_ms
    tab.wait_for_function("() => window.shown > 50")
    assert tab.locator(".line").count() < 400
    for _ in range(20):  # heights are known once they are drawn
        tab.evaluate("() => scrollTo(0, document.documentElement.scrollHeight)")
        tab.wait_for_timeout(100)
    expect(tab.locator(".line").last).to_contain_text("line 9999")
    assert tab.locator(".line").count() < 400
    tab.evaluate("() => scrollTo(0, document.documentElement.scrollHeight / 2)")
    expect(tab.get_by_text(re.compile("line [45][0-9]{3}$")).first).to_be_visible()
    assert tab.locator(".block").count() < 3000 + 2 * people


# ---- the whole way ------------------------------------------------------------------------------

WATCH = """() => {
    const told = document.querySelector("#listening p");
    window.said = [];
    new MutationObserver(() => window.said.push(told.textContent)).observe(told, {childList: true});
}"""
"""Keep what the page tells while it listens, however short."""

ENTRY_POINT = "import sys; from speaker_reasoner.cli import main; sys.exit(main())"


class RealServer:
    """`speaker-reasoner serve` with the embedded checkpoint, that can be started again."""

    def __init__(self, store: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.store = store
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        source = str(Path(speaker_reasoner.__file__).parents[1])
        command = ["serve", "--model", "tiny", "--port", str(self.port), "--store", str(self.store)]
        with (self.store.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ENTRY_POINT, *command],
                env=os.environ | {"PYTHONPATH": source},
                stderr=log,
            )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        log_text = (self.store.parent / "server.log").read_text(encoding="utf-8")
        pytest.fail(f"the server did not start: {log_text[-2000:]}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealServer]:
    pytest.importorskip("fastapi", reason="pip install 'speaker-reasoner[serve]'")
    running = RealServer(tmp_path / "store")
    yield running
    running.stop()


@slow
def test_the_whole_way(real: RealServer, visit: Callable[..., Any], tmp_path: Path) -> None:
    tab = visit(real.url)
    tab.evaluate(WATCH)
    tab.set_input_files("#file", MEETING)
    expect(tab.locator(".line")).to_have_count(3)
    expect(tab.locator("#listening")).to_be_hidden()
    said = tab.evaluate("() => window.said.join('\\n')")
    # Which box is the first that is drawn depends on when the page asked for the events.
    assert re.search(r"^Listening · hears 2 speakers: 2 female · now 0:\d\d\.\d to 0:", said, re.M)
    expect(tab.locator(".words").first).to_contain_text("maybe peter and anna can look")
    expect(tab.locator(".boxes i")).to_have_count(3)
    assert speakers(tab) == ["Speaker1", "Speaker2", "Speaker1"]

    tab.locator(".words").nth(1).click()
    expect(tab.locator(".line.current")).to_contain_text("short book")
    expect(tab.get_by_role("button", name="Play", exact=True)).to_be_visible()

    tab.locator(".line").first.locator(".more").click()
    choose(tab, "How it listened")
    expect(tab.locator("#trace .turn.here")).to_contain_text("maybe peter and anna can look")
    tab.keyboard.press("Escape")

    tab.locator("#names button").first.click()
    choose(tab, "Rename")
    tab.keyboard.type("Ana")
    tab.keyboard.press("Enter")
    expect(tab.locator(".who").nth(2)).to_have_text("Ana")
    tab.locator(".who").nth(2).click()
    choose(tab, "Speaker2")
    expect(tab.locator(".who").nth(2)).to_have_text("Speaker2")
    tab.locator("#names button").nth(1).click()
    choose(tab, "Ana")
    expect(tab.locator("#names li")).to_have_count(1)
    tab.locator("#undo").click()
    expect(tab.locator("#names li")).to_have_count(2)
    assert speakers(tab) == ["Ana", "Speaker2", "Speaker2"]

    for name, suffix in SUFFIXES.items():
        tab.get_by_role("button", name="Export").click()
        with tab.expect_download() as saved:
            tab.locator("#menu").get_by_text(suffix, exact=True).click()
        assert saved.value.suggested_filename == f"meeting{suffix}"
        content = Path(saved.value.path()).read_bytes()
        assert content.startswith(b"PK") if name == "docx" else b"Ana" in content
        tab.wait_for_timeout(DOWNLOADS_APART_MS)

    real.stop()
    tab.locator(".line").first.focus()
    tab.keyboard.press("Delete")
    expect(tab.locator("#lost")).to_contain_text("The server cannot be reached.")
    real.start()
    expect(tab.locator("#lost")).to_be_hidden()
    tab.reload()
    expect(tab.locator(".line")).to_have_count(3)
    assert speakers(tab) == ["Ana", "Speaker2", "Speaker2"]
    tab.keyboard.press("Control+Shift+z")
    expect(tab.locator("#names li")).to_have_count(1)

    tab.locator(".line").first.locator(".more").click()
    tab.evaluate(WATCH)
    choose(tab, "Listen again")
    tab.locator("#ask").get_by_role("button", name="Keep them").click()
    # A short chunk may be heard before the page has connected anew to the events of the job.
    again = "() => window.said.some(text => /^(Listening again|Waiting for its turn)/.test(text))"
    tab.wait_for_function(again)
    expect(tab.locator("#listening")).to_be_hidden()
    expect(tab.locator("#undo")).to_be_enabled()
    expect(tab.locator(".line")).to_have_count(3)

"""Take the README's pictures of the page: a real server, the embedded checkpoint, a real browser.

python scripts/page_look.py [RECORDING]

Needs Chromium and `pip install playwright`.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import soundfile
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
WIDE = {"viewport": {"width": 1280, "height": 640}, "color_scheme": "light"}
PHONE = {
    "viewport": {"width": 390, "height": 780},
    "color_scheme": "dark",
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
PATIENCE_MS = 300_000
NAMES = ("Ana", "Mia", "Ida", "Eva")


@contextmanager
def serving(store: Path) -> Iterator[str]:
    """The address of `speaker-reasoner serve`."""
    words = ["serve", "--model", "tiny", "--port", "0"]
    command = [sys.executable, "-m", "speaker_reasoner", *words]
    running = subprocess.Popen([*command, "--store", store], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    try:
        line = running.stderr.readline()
        address = re.match(r"listening on (\S+);", line)
        assert address, line + running.stderr.read()
        yield address[1]
    finally:
        running.terminate()
        running.wait()
        running.stderr.close()


def finished(browser: Any, url: str, recording: Path, target: Path) -> None:
    """A transcript with its lanes, speakers named, one line being heard."""
    tab = browser.new_page(**WIDE)
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(url)
    tab.set_input_files("#file", recording)
    expect(tab.locator("#export")).to_be_enabled()
    expect(tab.locator("#listening")).to_be_hidden()
    expect(tab.locator("#wave canvas").first).to_be_attached()
    people = tab.locator("#names button")
    expect(people.first).to_be_enabled()
    for number, name in zip(range(people.count()), NAMES, strict=False):
        people.nth(number).click()
        tab.get_by_role("menuitem", name="Rename").click()
        tab.keyboard.type(name)
        tab.keyboard.press("Enter")
        expect(people.nth(number)).to_contain_text(name)
    tab.locator(".line .words").first.click()
    expect(tab.locator(".line.current")).to_be_attached()
    tab.wait_for_timeout(1500)
    tab.screenshot(path=target, animations="disabled")
    tab.close()


def under_way(browser: Any, url: str, recording: Path, target: Path) -> None:
    """A dialogue that is watched, on a phone: some lines are there, the next is being heard."""
    tab = browser.new_page(**PHONE)
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(url)
    tab.set_input_files("#file", recording)
    expect(tab.locator(".line").nth(1)).to_be_attached()
    expect(tab.locator("#listening p")).to_contain_text("now ")
    expect(tab.locator("#wave canvas").first).to_be_attached()
    tab.evaluate("() => scrollTo({top: 0, behavior: 'instant'})")
    tab.screenshot(path=target, animations="disabled")
    tab.close()


def longer(recording: Path, folder: Path) -> Path:
    """The recording four times over, so that there is time to watch."""
    samples, rate_hz = soundfile.read(recording)
    target = folder / f"{recording.stem}.flac"
    soundfile.write(target, np.tile(samples, 4), rate_hz)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    example = ROOT / "examples" / "meeting.flac"
    parser.add_argument("recording", type=Path, nargs="?", default=example)
    recording = parser.parse_args().recording
    expect.set_options(timeout=PATIENCE_MS)
    path = next((p for n in ("chromium", "google-chrome") if (p := shutil.which(n))), None)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder, "store")) as url,
        sync_playwright() as api,
    ):
        browser = api.chromium.launch(executable_path=path, args=["--no-sandbox"])
        pictures: tuple[tuple[Callable[..., None], Path, str], ...] = (
            (under_way, longer(recording, Path(folder)), "page-phone.png"),
            (finished, recording, "page.png"),
        )
        for take, file, name in pictures:
            take(browser, url, file, IMAGES / name)
            for job in httpx2.get(f"{url}/v1/jobs").json()["data"]:
                httpx2.post(f"{url}/v1/jobs/{job['id']}/cancel")
                httpx2.delete(f"{url}/v1/jobs/{job['id']}?erase=true")
            size = (IMAGES / name).stat().st_size
            print(f"wrote {(IMAGES / name).relative_to(ROOT)}, {size // 1024} kB")
        browser.close()


if __name__ == "__main__":
    main()

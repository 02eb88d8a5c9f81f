"""A Chromium for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Start a browser; skip the test where there is none.

    Args:
        arguments: of its command line.
    """
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next((p for n in ("chromium", "google-chrome") if (p := shutil.which(n))), None)
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox", *arguments]
            )
        except api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """Open a file. Return its tab, and what goes wrong in it: messages, errors, requests of other addresses."""
    tab, complaints = browser.new_page(**options), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "request",
        lambda request: complaints.append(request.url) if request.url != path.as_uri() else None,
    )
    tab.goto(path.as_uri())
    return tab, complaints


AXE = os.environ.get("SPEAKER_REASONER_AXE", "")
"""axe.min.js of the npm package axe-core."""

needs_axe = pytest.mark.skipif(
    not AXE, reason="SPEAKER_REASONER_AXE names no axe.min.js (npm install axe-core)"
)


def violations(tab: Any) -> list[Any]:
    """What axe-core finds in a page as it is: each rule that is broken, and the elements that break it."""
    tab.evaluate(Path(AXE).read_text(encoding="utf-8"))
    run = "async () => (await axe.run()).violations.map(v => [v.id, v.nodes.map(n => n.html)])"
    return list(tab.evaluate(run))


def expect(locator: Any) -> Any:
    """Playwright's assertions, which wait for what a click sets off."""
    from playwright.sync_api import expect as playwright_expect

    return playwright_expect(locator)

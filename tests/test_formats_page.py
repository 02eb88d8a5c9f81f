"""The page about formats is what its tables and the formats themselves say."""

import pytest

from .formats_page import PAGE, kept, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), "python -m tests.formats_page"


def test_json_keeps_everything() -> None:
    assert all(kept("json").values())


@pytest.mark.parametrize(
    ("name", "lost"),
    [("seglst", {"confidences", "alternatives", "out of scoring", "duration", "missing, warnings"}),
     ("stm", {"exact times", "times of words", "confidences", "duration", "missing, warnings"})],
)  # fmt: skip
def test_what_is_lost(name: str, lost: set[str]) -> None:
    assert {what for what, there in kept(name).items() if not there} == lost

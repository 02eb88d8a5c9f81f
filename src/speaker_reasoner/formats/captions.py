"""`Alice (female)`: a speaker's label with the gender, as subtitles, tiers and readers show it."""

import re
from functools import lru_cache

from .sessions import parse_gender
from .tiers import names_tier

_CAPTION = re.compile(r"(?P<label>.*\S) \((?P<gender>female|male|unknown)\)", re.DOTALL)


def caption(label: str, gender: str) -> str:
    """Render a label with the gender; an unknown gender is shown only where it must be.

    A label that itself ends like a gender, a number or a tier of words (`Bob (male)`, `Bob#2`,
    `Bob words`) gets an explicit `(unknown)`, so that it reads back as it was.
    """
    ambiguous = _CAPTION.fullmatch(label) or re.search(r"#\d+$", label) or names_tier(label)
    return label if gender == "unknown" and not ambiguous else f"{label} ({gender})"


@lru_cache(maxsize=4096)  # a file has few speakers
def parse_caption(text: str) -> tuple[str, str]:
    """Return label and gender; a caption without a gender is all label."""
    match = _CAPTION.fullmatch(text.strip())
    if match is None:
        return text.strip(), "unknown"
    return match["label"], parse_gender(match["gender"])

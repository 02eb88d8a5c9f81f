"""HTML files that need nothing but a browser: a template of this folder, and the data as JSON in the page.

fill("report.html", title="mine", data=script("result", result))
"""

import re
from importlib import resources

from ..formats import as_json


def fill(template: str, **parts: str) -> str:
    """Return a template with each `{{name}}` replaced by the part of that name, which is HTML."""
    text = resources.files(__package__).joinpath(template).read_text(encoding="utf-8")
    names = "|".join(map(re.escape, parts))
    return re.sub(rf"\{{\{{({names})\}}\}}", lambda match: parts[match[1]], text)


def script(name: str, data: object) -> str:
    """Return data as a script element in which no text can end the element.

    Raises:
        TypeError, ValueError: the data cannot be written as JSON.
    """
    text = as_json(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def data_of(page: str, name: str) -> str | None:
    """Return the JSON that `script` wrote into a page; `None` if the page has none of that name."""
    match = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page)
    return match[1] if match else None

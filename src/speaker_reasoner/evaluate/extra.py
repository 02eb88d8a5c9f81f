"""Libraries of the `eval` extra, imported when first needed."""

from typing import Any

from .. import extras


def load(module: str) -> Any:
    """Import a module of the `eval` extra.

    Raises:
        ExtraError: it is not installed.
    """
    return extras.load(module, "eval", "scoring")

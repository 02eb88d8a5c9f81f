"""Libraries of the extras, which only some commands need: one sentence where one is not installed."""

import importlib
from importlib.util import find_spec
from typing import Any

from .errors import ExtraError


def load(module: str, extra: str, purpose: str, hint: str = "") -> Any:
    """Import a module of an extra.

    Args:
        module: its full name.
        extra: as in `pip install 'speaker-reasoner[extra]'`.
        purpose: the feature that needs it, the subject of the message.
        hint: a further remedy.

    Raises:
        ExtraError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(purpose, f"{module}: {error}", extra, hint) from error


def require(extra: str, purpose: str, *modules: str) -> None:
    """Make sure, before any work, that modules of an extra are there; none is imported.

    Raises:
        ExtraError: one is not installed.
    """
    lost = [module for module in modules if not _is_there(module)]
    if lost:
        raise _missing(purpose, f"{', '.join(lost)}: not installed", extra)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that is not there
        return False


def _missing(purpose: str, what: str, extra: str, hint: str = "") -> ExtraError:
    return ExtraError(f"{purpose} needs {what}; pip install 'speaker-reasoner[{extra}]'{hint}")

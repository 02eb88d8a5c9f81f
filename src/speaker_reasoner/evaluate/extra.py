"""Libraries of the `eval` extra, imported when first needed."""

import importlib
from typing import Any

from ..errors import DataError


def load(module: str) -> Any:
    """Import a module of the `eval` extra.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"scoring needs {module}: {error}; pip install 'speaker-reasoner[eval]'"
        ) from error

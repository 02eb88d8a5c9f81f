"""TOML files to dataclasses, strictly: a key that is unknown, missing or of another type is an error
that names the file and the key.

A dataclass is its own schema: its fields are the keys of its table, its defaults those of the file.
A field of type `Mapping[str, Any]` is a record that a run makes, not a setting. Nothing here knows what
the settings mean.
"""

import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import DataError, SpeakerReasonerError

_Made = TypeVar("_Made")
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def read_settings(cls: type[_Made], path: Path) -> _Made:
    """Read a TOML file into a dataclass.

    Raises:
        DataError: the file is missing or no TOML (with line and column), or its keys do not fit.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not TOML: {error}") from error
    return read_table(cls, table, str(path))


def read_table(cls: type[_Made], table: Mapping[str, Any], where: str, key: str = "") -> _Made:
    """Make a dataclass of a table.

    Args:
        where: the file, for messages.
        key: of the table in it; empty for the file itself.

    Raises:
        DataError: an unknown or missing key, a value of another type, an impossible setting.
    """
    hints = get_type_hints(cls)
    known = {
        field.name: field
        for field in fields(cls)  # type: ignore[arg-type]
        if hints[field.name] != Mapping[str, Any]
    }
    inside = f"{key}." if key else ""
    for name in table:
        if name not in known:
            raise DataError(f"{where}: unknown key {inside}{name}; known: {', '.join(known)}")
    for name, field in known.items():
        if name not in table and field.default is field.default_factory is MISSING:
            raise DataError(f"{where}: {inside}{name} is missing")
    values = {
        name: _read(hints[name], value, where, f"{inside}{name}") for name, value in table.items()
    }
    try:
        return cls(**values)
    except SpeakerReasonerError as error:
        raise DataError(f"{where}: {key}: {error}" if key else f"{where}: {error}") from error


def _read(hint: Any, value: Any, where: str, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # X | None: TOML has no null, so a value is an X
        [inner] = [argument for argument in arguments if argument is not type(None)]
        return _read(inner, value, where, key)
    if origin is tuple:
        return _read_row(arguments, value, where, key)
    if is_dataclass(hint) or origin is Mapping:
        if not isinstance(value, dict):
            raise DataError(f"{where}: {key}: expected a table, got {value!r}")
        if origin is Mapping:
            return {k: _read(arguments[1], v, where, f"{key}.{k}") for k, v in value.items()}
        return read_table(hint, value, where, key)
    fits = isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not fits:
        raise DataError(f"{where}: {key}: expected {_NAMES[hint]}, got {value!r}")
    return value


def _read_row(arguments: tuple[Any, ...], value: Any, where: str, key: str) -> tuple[Any, ...]:
    """An array: of any length (`tuple[X, ...]`), or of the length of the tuple."""
    if not isinstance(value, list):
        raise DataError(f"{where}: {key}: expected an array, got {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise DataError(f"{where}: {key}: expected {len(arguments)} values, got {len(value)}")
    return tuple(
        _read(hint, one, where, f"{key}[{i}]")
        for i, (hint, one) in enumerate(zip(arguments, value, strict=True))
    )


def plain(value: Any) -> Any:
    """A dataclass's `asdict` as TOML could hold it: tuples become lists, `None` is left out."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value

"""What a stored evaluation is: its schema, and the unit that its system took at once."""

from collections.abc import Mapping
from typing import Any

from ..errors import FormatError

SCHEMA = "speaker-reasoner/evaluation"
VERSION = 1


def check_evaluation(result: object, where: str) -> Mapping[str, Any]:
    """Return a stored evaluation if it is one, of the version this program reads.

    Args:
        result: what was read from JSON.
        where: its name in an error message, such as its path.

    Raises:
        FormatError: it is other JSON, of another version, or without a system, data or scores.
    """
    schema = result.get("schema") if isinstance(result, Mapping) else None
    name, _, version = schema.rpartition("/") if isinstance(schema, str) else ("", "", "")
    if not isinstance(result, Mapping) or name != SCHEMA:
        got = f"schema {schema!r}" if isinstance(result, Mapping) else type(result).__name__
        raise FormatError(
            f'{where}: expected an evaluation with "schema": "{SCHEMA}/{VERSION}", got {got}; give '
            "the JSON that `speaker-reasoner evaluate` stored"
        )
    if version != str(VERSION):
        raise FormatError(
            f"{where}: evaluation version {version!r}, but this program reads version {VERSION}; "
            "read it with the release that wrote it"
        )
    for key, kind, expected in (
        ("system", str, "text"),
        ("data", str, "text"),
        ("scores", Mapping, "an object"),
    ):
        if not isinstance(result.get(key), kind):
            raise FormatError(f"{where}: {key}: expected {expected}, got {result.get(key)!r}")
    return result


def unit_of(result: Mapping[str, Any]) -> str:
    """What the system took at once, in words: pieces of a length, whole recordings, or not stated."""
    pieces_s = (result.get("settings") or {}).get("pieces_s")
    if pieces_s:
        shortest_s, longest_s = pieces_s
        return f"pieces of {shortest_s:g} to {longest_s:g} s"
    return {"segmented": "pieces", "long-form": "whole recordings"}.get(
        str(result.get("mode")), "not stated"
    )

"""The stored form of an evaluation: schema, labels of metrics, and the unit that the system transcribed at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, FormatError

SCHEMA = "speaker-reasoner/evaluation"
VERSION = 1

LABELS = {
    "wer": "WER",
    "cpwer": "cpWER",
    "tcpwer": "tcpWER (5 s)",
    "orcwer": "ORC-WER",
    "der_0": "DER",
    "der_025": "DER (collar 0.25 s)",
    "jer": "JER",
    "gender": "gender",
    "gender_time": "gender, by time",
    "speaker_count": "speaker count right",
    "speaker_count_error": "speaker count error",
}
"""The label of each metric in tables."""


def read_bytes(path: Path) -> bytes:
    """Read the file of a stored evaluation.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read as an evaluation: {error}") from error


def parse_evaluation(content: bytes, path: Path) -> dict[str, Any]:
    """Read a stored evaluation from the content of its file.

    Raises:
        DataError: it is no JSON in UTF-8.
        FormatError: it is not an evaluation of this version.
    """
    try:
        result = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as an evaluation: {error}") from error
    return dict(check_evaluation(result, str(path)))


def check_evaluation(result: object, where: str) -> Mapping[str, Any]:
    """Return a stored evaluation if it is one, of the version this program reads.

    Args:
        result: the object that was read from JSON.
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
    """Name the unit that the system transcribed at once: pieces of a length, whole recordings, or not stated."""
    pieces_s = (result.get("settings") or {}).get("pieces_s")
    if pieces_s:
        shortest_s, longest_s = pieces_s
        return f"pieces of {shortest_s:g} to {longest_s:g} s"
    return {"segmented": "pieces", "long-form": "whole recordings"}.get(
        str(result.get("mode")), "not stated"
    )

"""Corrections of a transcript, appended and never changed, replayed in order.

An operation refers to segments by their id and to speakers by their label. A name is kept beside the label, so that
later operations still find the speaker. `undo` and `redo` are operations too. Pure: knows neither jobs nor files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import edits
from .again import put_in_place
from .failures import RequestError
from .lines import Document


@dataclass(frozen=True, slots=True)
class History:
    """The operations in effect, in order, and those that were undone, the last one last."""

    done: tuple[Mapping[str, Any], ...] = ()
    undone: tuple[Mapping[str, Any], ...] = ()

    def then(self, operation: Mapping[str, Any]) -> "History":
        """The history after one more operation.

        Raises:
            RequestError: 409, there is nothing to undo or redo.
        """
        match operation["op"]:
            case "undo" if self.done:
                return History(self.done[:-1], (*self.undone, self.done[-1]))
            case "redo" if self.undone:
                return History((*self.done, self.undone[-1]), self.undone[:-1])
            case "undo" | "redo" as op:
                raise RequestError(409, f"there is nothing to {op}", code=f"nothing_to_{op}")
        return History((*self.done, operation))

    def show(self, document: Document, revision: int, *, words: bool = False) -> dict[str, Any]:
        """A document with this history, as the page reads it."""
        can = {"can_undo": bool(self.done), "can_redo": bool(self.undone)}
        return document.body(revision, **can, words=words)


def replay(document: Document, operations: Iterable[Mapping[str, Any]]) -> tuple[Document, History]:
    """The document after some operations, and their history."""
    history = History()
    for operation in operations:
        history = history.then(operation)
    document = replace(document, met=document.labels)
    for operation in history.done:
        document = apply(document, operation)
    return document, history


def apply(document: Document, operation: Mapping[str, Any]) -> Document:
    """The document after one operation other than `undo` and `redo`.

    Raises:
        RequestError: as `_changed`.
    """
    after = _changed(document, operation)
    new = tuple(label for label in after.labels if label not in document.met)
    return replace(after, met=document.met + new)


def _changed(document: Document, operation: Mapping[str, Any]) -> Document:
    """Apply an operation to a document.

    Raises:
        RequestError: as `edits` says.
    """
    match operation["op"]:
        case "rename":
            return edits.rename(document, operation["speaker"], operation["name"].strip())
        case "merge":
            return edits.merge(document, operation["from"], operation["into"])
        case "move":
            return edits.move(document, operation["segment"], operation["speaker"])
        case "edit":
            return edits.edit(document, operation)
        case "split":
            return edits.split(document, operation)
        case "join":
            return edits.join(document, operation["segment"], operation["other"])
        case "add":
            return edits.add(document, operation)
        case "gender":
            return edits.set_gender(document, operation["speaker"], operation["gender"])
        case "delete":
            return edits.delete(document, operation["segment"])
        case "heard":
            return put_in_place(document, operation)
    raise ValueError(f"operation {operation['op']!r}")

"""What people correct in a transcript: operations, appended and never changed, replayed in order.

An operation refers to segments by their id and to speakers by their label; a name that a speaker
was given is kept beside the label, so that later operations still find it. `undo` and `redo` are
operations too. Pure: knows neither jobs nor files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import FormatError
from ..formats.words import NATIVE, parse_word_rows, word_rows
from ..spans import find_overlaps
from ..transcript import Confidence, Missing, Segment, Transcript, Word, words_fault
from .failures import RequestError
from .openai import confidence_body

_SLACK_S = 0.05
"""A segment may end so far behind the recording: times are written with few decimals."""


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Rename(_Operation):
    """Give a speaker a name, everywhere."""

    op: Literal["rename"]
    speaker: str
    name: str = Field(min_length=1, max_length=100)


class Merge(_Operation):
    """Two speakers are one: all of the first becomes the second's."""

    op: Literal["merge"]
    source: str = Field(alias="from")
    into: str


class Move(_Operation):
    """A segment is another speaker's, known or new."""

    op: Literal["move"]
    segment: str
    speaker: str = Field(min_length=1, max_length=100)


class Edit(_Operation):
    """Other words or times of a segment."""

    op: Literal["edit"]
    segment: str
    text: str | None = Field(None, max_length=10_000)
    start: float | None = Field(None, ge=0)
    end: float | None = Field(None, ge=0)


class Delete(_Operation):
    """Nobody said this."""

    op: Literal["delete"]
    segment: str


class Undo(_Operation):
    """Take the last operation back."""

    op: Literal["undo"]


class Redo(_Operation):
    """Do it after all."""

    op: Literal["redo"]


class Listen(_Operation):
    """Hear a chunk again, with the corrections made so far."""

    op: Literal["listen"]
    chunk: int = Field(ge=0)


Operation = Rename | Merge | Move | Edit | Delete | Undo | Redo | Listen
_OPERATION: TypeAdapter[Operation] = TypeAdapter(Annotated[Operation, Field(discriminator="op")])


def parse_operation(data: Any) -> tuple[int, Operation]:
    """Check the body of a correction: `revision` and the operation's own keys.

    Raises:
        RequestError: 400, of the first key that is wrong.
    """
    if not isinstance(data, dict) or type(data.get("revision")) is not int:
        raise RequestError(
            400,
            "expected an object with the 'revision' it was made on, a whole number, and an 'op'",
            code="invalid_value",
            param="revision",
        )
    values = {key: value for key, value in data.items() if key != "revision"}
    try:
        return data["revision"], _OPERATION.validate_python(values, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = str(first["loc"][-1]) if first["loc"] else "op"
        raise RequestError(
            400, f"{param}: {first['msg']}", code="invalid_value", param=param
        ) from error


@dataclass(frozen=True, slots=True)
class CorrectedLine:
    """A segment that operations can refer to.

    Attributes:
        id: unique within the job, also over hearing a chunk again.
        segment: with the label of its speaker.
        chunk: where it was heard.
        turn: in which turn of the dialogue; `None` where no turn wrote it so.
    """

    id: str
    segment: Segment
    chunk: int
    turn: int | None


@dataclass(frozen=True, slots=True)
class Document:
    """A transcript as it is corrected.

    Attributes:
        transcript: whose segments are not looked at: `lines` are.
        lines: of it.
        names: of speakers that were given one, by label.
        met: every label there ever was, in order; decides the colours.
    """

    transcript: Transcript
    lines: tuple[CorrectedLine, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    met: tuple[str, ...] = ()

    @property
    def ordered(self) -> list[CorrectedLine]:
        """Lines in the order of a transcript."""
        return sorted(
            self.lines, key=lambda x: (x.segment.start_s, x.segment.end_s, x.segment.speaker)
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in order of first appearance."""
        return tuple(dict.fromkeys(line.segment.speaker for line in self.ordered))

    def name(self, label: str) -> str:
        return self.names.get(label, label)

    def label(self, speaker: str) -> str | None:
        """The label of a speaker, by label or else by name; `None` where nobody has it."""
        if speaker in self.labels:
            return speaker
        named = [label for label in self.labels if self.name(label) == speaker]
        return named[0] if named else None

    def corrected(self) -> Transcript:
        """The transcript, with names as labels."""
        segments = [
            replace(line.segment, speaker=self.name(line.segment.speaker)) for line in self.lines
        ]
        return self.transcript.with_segments(segments)

    def body(self, revision: int, history: "History") -> dict[str, Any]:
        """The document as the page reads it."""
        lines = self.ordered
        overlaps = find_overlaps([line.segment for line in lines])
        genders = self.transcript.with_segments([line.segment for line in lines]).genders
        return {
            "revision": revision,
            "duration": self.transcript.duration_s,
            "speakers": [
                {
                    "label": label,
                    "name": self.name(label),
                    "gender": genders[label],
                    "colour": self.met.index(label),
                }
                for label in self.labels
            ],
            "segments": [
                {
                    "id": line.id,
                    "speaker": line.segment.speaker,
                    "gender": line.segment.gender,
                    "start": line.segment.start_s,
                    "end": line.segment.end_s,
                    "text": line.segment.text,
                    "confidence": confidence_body(line.segment),
                    "overlap": overlap,
                    "chunk": line.chunk,
                    "turn": line.turn,
                }
                for line, overlap in zip(lines, overlaps, strict=True)
            ],
            "chunks": chunk_spans(self.transcript),
            "missing": [
                {"start": gap.start_s, "end": gap.end_s, "reason": gap.reason}
                for gap in self.transcript.missing
            ],
            "warnings": list(self.transcript.warnings),
            "can_undo": bool(history.done),
            "can_redo": bool(history.undone),
        }


def chunk_spans(transcript: Transcript) -> list[dict[str, Any]]:
    """Number, start and end of the chunks that were heard; silent ones were not."""
    return [
        {
            "chunk": trace["chunk"],
            "start": trace["start_s"],
            "end": trace["start_s"] + trace["duration_s"],
        }
        for trace in transcript.traces
    ]


@dataclass(frozen=True, slots=True)
class History:
    """Which of the operations count: those done, those taken back, the last one last."""

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
    """What an operation makes of a document.

    Raises:
        RequestError: 404 for a segment or speaker that is not there; 400 for a name that is another
            speaker's, or text and times that no segment can have.
    """
    match operation["op"]:
        case "rename":
            return _rename(document, operation["speaker"], operation["name"].strip())
        case "merge":
            source = _known(document, operation["from"])
            return _give(document, source, _known(document, operation["into"]))
        case "move":
            return _move(document, operation["segment"], operation["speaker"].strip())
        case "edit":
            return _edit(document, operation)
        case "delete":
            line = _line(document, operation["segment"])
            return replace(document, lines=tuple(x for x in document.lines if x is not line))
        case "heard":
            return _heard(document, operation)
    raise ValueError(f"operation {operation['op']!r}")


def _line(document: Document, segment: str) -> CorrectedLine:
    for line in document.lines:
        if line.id == segment:
            return line
    raise RequestError(
        404, f"there is no segment {segment!r}", code="segment_not_found", param="segment"
    )


def _known(document: Document, speaker: str) -> str:
    label = document.label(speaker)
    if label is None:
        raise RequestError(
            404, f"there is no speaker {speaker!r}", code="speaker_not_found", param="speaker"
        )
    return label


def _wrong(message: str, param: str) -> RequestError:
    return RequestError(400, message, code="invalid_value", param=param)


def _rename(document: Document, speaker: str, name: str) -> Document:
    label = _known(document, speaker)
    if not name or not name.isprintable():
        raise _wrong(f"name {name!r}: expected printable characters on one line", "name")
    other = document.label(name)
    if other not in (None, label):
        raise _wrong(f"{name!r} is another speaker already; merge the two instead", "name")
    return replace(document, names={**document.names, label: name})


def _give(document: Document, source: str, into: str) -> Document:
    """All lines of one speaker to another, whose gender they take."""
    if source == into:
        raise _wrong(f"{source!r} cannot be merged into itself", "into")
    gender = document.transcript.with_segments([x.segment for x in document.lines]).genders[into]
    lines = [
        replace(line, segment=replace(line.segment, speaker=into, gender=gender))
        if line.segment.speaker == source
        else line
        for line in document.lines
    ]
    names = {label: name for label, name in document.names.items() if label != source}
    return replace(document, lines=tuple(lines), names=names)


def _move(document: Document, segment: str, speaker: str) -> Document:
    line = _line(document, segment)
    if not speaker or not speaker.isprintable():
        raise _wrong(f"speaker {speaker!r}: expected printable characters on one line", "speaker")
    label = document.label(speaker)
    gender = line.segment.gender
    if label is not None:
        others = [x.segment for x in document.lines if x is not line]
        gender = document.transcript.with_segments(others).genders.get(label, gender)
    moved = replace(
        line.segment,
        speaker=label or speaker,
        gender=gender,
        confidence=replace(line.segment.confidence, speaker=None),
    )
    return _exchange(document, line, moved)


def _edit(document: Document, operation: Mapping[str, Any]) -> Document:
    """New words have no confidence of the model's, nor have new times.

    Words keep their own times only where text and times still allow all of them.
    """
    line = _line(document, operation["segment"])
    was, sure = line.segment, line.segment.confidence
    text, start, end = (operation.get(key) for key in ("text", "start", "end"))
    if text is None and start is None and end is None:
        raise _wrong("expected 'text', 'start' or 'end'", "text")
    if end is not None and end > document.transcript.duration_s + _SLACK_S:
        duration_s = document.transcript.duration_s
        raise _wrong(f"end {end} s: the recording lasts {duration_s:.3f} s", "end")
    timed = start is not None or end is not None
    said = was.text if text is None else text.strip()
    start_s, end_s = was.start_s if start is None else start, was.end_s if end is None else end
    words = was.words
    if words is not None and words_fault(words, said, start_s, end_s) is not None:
        words = None
    try:
        edited = replace(
            was,
            text=said,
            start_s=start_s,
            end_s=end_s,
            confidence=Confidence(
                sure.words if text is None else None,
                sure.speaker,
                None if timed else sure.times,
            ),
            words=words,
        )
    except FormatError as error:
        raise _wrong(str(error), "text" if text is not None else "start") from error
    return _exchange(document, line, edited)


def _exchange(document: Document, line: CorrectedLine, segment: Segment) -> Document:
    changed = replace(line, segment=segment)
    return replace(document, lines=tuple(changed if x is line else x for x in document.lines))


def labels_heard_again(document: Document, chunk: int, heard: Transcript) -> dict[str, str]:
    """The document's labels for those of a chunk that was heard again.

    Who was enrolled keeps the label; the others take those that only this chunk's lines had, in
    order of appearance, then new ones.
    """
    enrolled = heard.info.get("voices", ())
    elsewhere = {line.segment.speaker for line in document.lines if line.chunk != chunk}
    own = [line.segment.speaker for line in document.ordered if line.chunk == chunk]
    free = [label for label in dict.fromkeys(own) if label not in elsewhere]
    taken = {*document.met, *document.names.values()}
    new = (label for n in count(1) if (label := f"Speaker{n}") not in taken)
    labels = {}
    for speaker in heard.speakers:
        known = document.label(speaker) if speaker in enrolled else None
        labels[speaker] = known or (free.pop(0) if free else next(new))
    return labels


def heard_again(lines: Sequence[CorrectedLine], heard: Transcript) -> dict[str, Any]:
    """The operation that puts a chunk, heard again, in its old one's place.

    Args:
        lines: of it, with labels of the document.
        heard: the chunk's transcript, its one trace under the chunk's number.
    """
    [trace] = heard.traces
    return {
        "op": "heard",
        "chunk": trace["chunk"],
        "lines": [
            {
                "id": line.id,
                "turn": line.turn,
                "speaker": line.segment.speaker,
                "gender": line.segment.gender,
                "start_s": line.segment.start_s,
                "end_s": line.segment.end_s,
                "text": line.segment.text,
                "confidence": confidence_body(line.segment),
                "words": None
                if line.segment.words is None
                else word_rows(line.segment.words, NATIVE),
            }
            for line in lines
        ],
        "missing": [[gap.start_s, gap.end_s, gap.reason] for gap in heard.missing],
        "trace": trace,
    }


def _words(rows: Any) -> tuple[Word, ...] | None:
    """Words of a line that was heard again; corrections of older versions have none."""
    return None if rows is None else parse_word_rows(rows, NATIVE, "words")


def _heard(document: Document, operation: Mapping[str, Any]) -> Document:
    chunk, trace = operation["chunk"], operation["trace"]
    start_s, end_s = trace["start_s"], trace["start_s"] + trace["duration_s"]
    lines = [line for line in document.lines if line.chunk != chunk]
    for row in operation["lines"]:
        segment = Segment(
            row["speaker"],
            row["start_s"],
            row["end_s"],
            row["text"],
            row["gender"],
            Confidence(**row["confidence"]),
            _words(row.get("words")),
        )
        lines.append(CorrectedLine(row["id"], segment, chunk, row["turn"]))
    was = document.transcript
    missing = [gap for gap in was.missing if not start_s <= gap.start_s < end_s]
    missing += [Missing(*gap) for gap in operation["missing"]]
    transcript = replace(
        was,
        missing=tuple(sorted(missing, key=lambda gap: gap.start_s)),
        traces=tuple(trace if old["chunk"] == chunk else old for old in was.traces),
    )
    return replace(document, transcript=transcript, lines=tuple(lines))

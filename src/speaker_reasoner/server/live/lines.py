"""The events of a live session: pieces as items of a conversation, their lines, and changes of lines.

Knows no socket and no engine; see `session`.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ... import audio
from ...audio import SAMPLE_RATE_HZ
from ...errors import SpeakerReasonerError
from ...spans import find_overlaps
from ...transcript import Missing, Segment, Transcript
from ..failures import as_request_error
from ..openai import Letters, missing_body, segment_body, usage_body
from .events import TRANSCRIPTION, event, item_body
from .listening import Guess, Transcribed

_BUFFER = "input_audio_buffer."


@dataclass
class _LivePiece:
    """A piece of a session, as an item of the conversation.

    Attributes:
        id: of the item.
        start, end: in samples of the session; the end once it is known.
        last: number of the stretch that ends it.
        lines: ids of the segments that were sent.
        missing: its stretches that were not transcribed.
        begun: whether some of its words were sent.
        gone: whether the client cleared it.
    """

    id: str = field(default_factory=lambda: f"item_{secrets.token_hex(10)}")
    start: int = 0
    end: int = 0
    last: int = -1
    lines: list[str] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    begun: bool = False
    gone: bool = False


@dataclass
class _Line:
    """A segment that was sent, its item, and the label of its speaker as it was sent last."""

    item: str
    number: int
    segment: Segment
    label: str
    overlap: bool


class Agreed:
    """Words of a stretch on which two guesses in a row agree: those are sent, and seldom change."""

    def __init__(self) -> None:
        self._last: list[str] = []
        self._sent: list[str] = []

    def guess(self, text: str) -> str:
        """Take a guess; return the words that may be sent now."""
        words = text.split()
        agreed = 0
        while agreed < min(len(words), len(self._last)) and words[agreed] == self._last[agreed]:
            agreed += 1
        self._last = words
        new = words[len(self._sent) : agreed]
        self._sent += new
        return " ".join(new)

    def rest(self, text: str) -> str:
        """Return the words that are left to send, once the stretch is transcribed."""
        return " ".join(text.split()[len(self._sent) :])


class LiveLines:
    """The items and lines of a session.

    Args:
        say: sends an event.
        names: of known speakers, who have no letter.
        job: that the session becomes; `None` for none.
        beta: whether the client speaks the beta's form.
    """

    def __init__(
        self,
        say: Callable[[dict[str, Any]], None],
        names: frozenset[str],
        job: str | None,
        *,
        beta: bool,
    ) -> None:
        self._say = say
        self._names = names
        self._job = job
        self._beta = beta
        self._letters = Letters(names)
        self._item = _LivePiece()
        self._before: str | None = None
        self._words = Agreed()
        self._stretches: dict[int, tuple[_LivePiece, Agreed]] = {}
        self._lines: dict[str, _Line] = {}
        self._epoch = 0

    def know(self, names: frozenset[str]) -> None:
        """Set the known speakers; before the first line."""
        self._names, self._letters = names, Letters(names)

    # Audio

    def began(self, at: int) -> None:
        self._item.start = at
        ms = 1000 * at // SAMPLE_RATE_HZ
        self._say(event(f"{_BUFFER}speech_started", audio_start_ms=ms, item_id=self._item.id))

    def stopped(self, at: int) -> None:
        ms = 1000 * at // SAMPLE_RATE_HZ
        self._say(event(f"{_BUFFER}speech_stopped", audio_end_ms=ms, item_id=self._item.id))

    def cut(self, number: int) -> None:
        """Note that a stretch of the current piece went to the engine."""
        self._stretches[number] = (self._item, self._words)
        self._words = Agreed()

    def committed(self, last: int, end: int) -> None:
        """End the current piece with a stretch."""
        item, before = self._item, self._before
        item.last, item.end = last, end
        place: dict[str, Any] = {"item_id": item.id, "previous_item_id": before}
        self._say(event(f"{_BUFFER}committed", **place, job=self._job))
        for kind in ("created",) if self._beta else ("added", "done"):
            body = item_body(item.id)
            self._say(event(f"conversation.item.{kind}", item=body, previous_item_id=before))
        self._before, self._item = item.id, _LivePiece(start=end)

    def cleared(self, start: int) -> None:
        """Forget the current piece: lines of it that the engine still transcribes are not sent."""
        self._item.gone = True
        self._item, self._words = _LivePiece(start=start), Agreed()
        self._say(event(f"{_BUFFER}cleared"))

    # Transcripts

    def guessed(self, guess: Guess) -> None:
        text = self._words.guess(" ".join(one.text for one in guess.segments))
        rows = [
            {"start": s.start_s, "end": s.end_s, "speaker": None, "text": s.text}
            for s in guess.segments
        ]
        self._delta(self._item, text, segments=rows, provisional=True)

    def transcribed(self, stretch: Transcribed) -> None:
        item, words = self._stretches.pop(stretch.number)
        if item.gone:
            return
        rest = words.rest(" ".join(one.text for one in stretch.segments))
        self._delta(item, rest, segments=[], provisional=False)
        overlaps = find_overlaps(stretch.segments)
        for segment, overlap in zip(stretch.segments, overlaps, strict=True):
            label = self._label(segment.speaker)
            line = _Line(item.id, len(self._lines), segment, label, overlap)
            body = self._body(line)
            self._lines[body["id"]] = line
            item.lines.append(body["id"])
            self._say(event(f"{TRANSCRIPTION}.segment", item_id=item.id, content_index=0, **body))
        item.missing += stretch.missing
        if item.last == stretch.number:
            self._completed(item, stretch.transcript)

    def broken(self, until: int, error: SpeakerReasonerError) -> Sequence[int]:
        """Forget stretches before number `until`, which are lost, and count speakers anew; return their numbers."""
        self._epoch += 1
        lost = [number for number in self._stretches if number < until]
        items = [self._stretches.pop(number)[0] for number in lost]
        failed = dict.fromkeys(item.id for item in items if not item.gone)
        body = as_request_error(error).body()["error"]
        for item_id in failed:
            place: dict[str, Any] = {"item_id": item_id, "content_index": 0}
            self._say(event(f"{TRANSCRIPTION}.failed", **place, error=body))
        return lost

    def _label(self, label: str) -> str:
        """Return a speaker's label, distinct from those before an engine failed; known speakers keep their names."""
        return f"{self._epoch}:{label}" if self._epoch and label not in self._names else label

    def _delta(self, item: _LivePiece, text: str, **ours: Any) -> None:
        delta = f" {text}" if text and item.begun else text
        item.begun = item.begun or bool(text)
        place = {"item_id": item.id, "content_index": 0}
        self._say(event(f"{TRANSCRIPTION}.delta", **place, delta=delta, **ours))

    def _body(self, line: _Line) -> dict[str, Any]:
        named = replace(line.segment, speaker=line.label)
        body = segment_body(named, line.number, self._letters, line.overlap)
        del body["type"]
        return body

    def _completed(self, item: _LivePiece, transcript: Transcript | None) -> None:
        changed = [] if transcript is None else self._relabel(transcript)
        lines = [self._lines[one] for one in item.lines]
        start_s, end_s = audio.to_seconds(item.start), audio.to_seconds(item.end)
        self._say(
            event(
                f"{TRANSCRIPTION}.completed",
                item_id=item.id,
                content_index=0,
                transcript=" ".join(line.segment.text for line in lines if line.segment.text),
                usage=usage_body(end_s - start_s),
                start=start_s,
                end=end_s,
                segments=[self._body(line) for line in lines],
                relabelled=[row for row in changed if row["item_id"] != item.id],
                missing=missing_body(item.missing),
                warnings=[] if transcript is None else list(transcript.warnings),
                job=self._job,
            )
        )

    def _relabel(self, transcript: Transcript) -> list[dict[str, Any]]:
        """Take over the labels of the last pass; return the lines whose labels changed."""
        known = {(s.start_s, s.end_s, s.text): s for s in transcript.segments}
        changed = []
        for one, line in self._lines.items():
            mine = line.segment
            final = known.get((mine.start_s, mine.end_s, mine.text))
            if final is None:
                continue
            line.segment, label = final, self._label(final.speaker)
            if label != line.label:
                line.label = label
                speaker = self._letters.of(label)
                changed.append({"item_id": line.item, "id": one, "speaker": speaker})
        return changed

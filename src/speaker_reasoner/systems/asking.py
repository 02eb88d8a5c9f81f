"""Asks a system about many recordings: several at once, and none twice, even after a kill.

    with Asking(system, folder, how) as asking:
        for result in asking.run(items):
            ...

Each answer is a file, `answers/RECORDING/0.json`, written in one move as soon as it is there; `1.json` is that of
the second piece of a recording which is too long for the system. Transcripts are made from these files alone:
the same command asks for what is missing, reads all again, and so ends with the same transcripts, whenever it
was killed. Answers to another question (other sound, other settings of the system) are asked for again.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import BaseFileLock

from .. import audio
from ..audio import Samples, to_seconds
from ..engines.client import Unavailable
from ..errors import (
    AnswerError,
    AudioError,
    FormatError,
    SettingsError,
    SpeakerReasonerError,
)
from ..formats import as_json, file_name, write_text_atomically
from ..formats.files import remove_temporary
from ..locks import keep_others_out, make_folder
from ..longform import Failure, Item
from ..longform.chunks import chunks
from ..transcript import Transcript
from ..voices.witness import Witness
from .base import ASKED_AGAIN, Answer, Sound, System, Usage
from .checks import checked
from .kept import ANSWERS, FAILURES, VERSION, kept_answer, write_files
from .pacing import Pace
from .pieces import TranscribedPiece, embedded, joined


@dataclass(frozen=True, slots=True)
class How:
    """Settings of requests to a system.

    Attributes:
        at_once: recordings under way at once.
        rate: most requests a minute; any number if `None`.
        retries: how often a request that fails is tried again.
        limit_s: longest recording that is sent as a whole; longer ones are cut in pauses.
        speakers: fewest and most people in a recording, for linking.
        witness: compares the speakers of pieces; `None` leaves them unlinked.
        channel, track: of the recordings, as `audio.load` takes them.
    """

    at_once: int = 1
    rate: float | None = None
    retries: int = 5
    limit_s: float | None = None
    speakers: tuple[int, int] | None = None
    witness: Witness | None = None
    channel: int | None = None
    track: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The part of the settings that a transcript depends on."""
        return {
            "piece_limit_s": self.limit_s,
            "link": "none" if self.witness is None else self.witness.name,
            "speakers": self.speakers,
            "channel": self.channel,
            "track": self.track,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """The outcome of a recording.

    Attributes:
        item: the recording.
        outcome: its transcript, or why there is none.
        files: transcripts that were written.
        usage: of all its answers: requests, tokens, seconds; and `pieces`.
        requests: that were sent now; 0 where all answers were there.
        note: a remark for the user.
    """

    item: Item
    outcome: Transcript | Failure
    files: tuple[Path, ...] = ()
    usage: Mapping[str, float] = field(default_factory=dict)
    requests: int = 0
    note: str = ""

    @property
    def reason(self) -> str | None:
        """The reason of the failure, one of `REASONS`; `None` if there is a transcript."""
        return reason_of(self.outcome.error) if isinstance(self.outcome, Failure) else None


def reason_of(error: SpeakerReasonerError) -> str:
    """The reason that stands for an error in tables."""
    if isinstance(error, AnswerError):
        return error.reason
    return "unreadable" if isinstance(error, AudioError) else "unavailable"


class Asking:
    """A system, and a folder of its answers and transcripts; a context, within which other processes are
    kept out.

    Args:
        system: that is asked.
        folder: of transcripts and answers; `None` keeps nothing.
        how: it is asked.
        formats: of transcripts, keys of `FORMATS`.

    Raises:
        OutputError: another process writes there, or the folder cannot be written to.
    """

    def __init__(
        self, system: System, folder: Path | None, how: How, formats: Sequence[str] = ()
    ) -> None:
        self.system = system
        self.how = how
        self._folder = folder
        self._formats = tuple(formats)
        about = json.loads(json.dumps(system.describe()))
        self._sdk = about.pop("sdk", None)
        self._about = about
        self._lock: BaseFileLock | None = None
        self._ended = threading.Event()
        self._pace = Pace(how.rate, how.retries, self._ended)
        self._fatal: BaseException | None = None

    def __enter__(self) -> "Asking":
        if self._folder is not None:
            answers = self._folder / ANSWERS
            make_folder(answers)
            self._lock = keep_others_out(answers / ".lock", self._folder)
            for one in (self._folder, *(path for path in answers.iterdir() if path.is_dir())):
                remove_temporary(one)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.release()

    def run(self, items: Sequence[Item]) -> Iterator[Asked]:
        """Results in the order of the recordings, as they come.

        Failures are results, and rows of `failures.jsonl`, which is written when all is done.

        Raises:
            SettingsError: two recordings would have the same files.
            EngineError, SettingsError: of the system, where it can answer no recording.
        """
        _check_names(items)
        rows: list[str] = []
        with _pool(self.how.at_once, self._ended) as pool:
            futures = deque(pool.submit(self._one, item) for item in items)
            while futures:
                try:
                    result = futures.popleft().result()
                except CancelledError:  # of a recording behind the one that failed
                    raise (self._fatal or KeyboardInterrupt()) from None
                if isinstance(result.outcome, Failure):
                    row = {"recording": result.item.title, "reason": result.reason}
                    row["message"] = str(result.outcome.error)
                    rows.append(as_json(row) + "\n")
                yield result
        if self._folder is not None:
            path = self._folder / FAILURES
            if rows:
                write_text_atomically(path, "".join(rows))
            else:
                path.unlink(missing_ok=True)

    def _one(self, item: Item) -> Asked:
        if self._ended.is_set():
            raise CancelledError
        try:
            return self._result(item)
        except BaseException as error:  # no recording can be answered: none is begun
            self._fatal = self._fatal or error
            self._ended.set()
            raise

    def _result(self, item: Item) -> Asked:
        taken = _Taken()
        try:
            transcript = self._transcript(item, taken)
        except (AnswerError, AudioError) as error:
            _, note = write_files(self._folder, item.title, self._formats, None)
            failure = Failure(item.title, error)
            return Asked(item, failure, (), taken.usage, taken.requests, note)
        try:
            files, note = write_files(self._folder, item.title, self._formats, transcript)
        except FormatError as error:  # a format cannot express it
            failure = Failure(item.title, AnswerError("format", str(error)))
            return Asked(item, failure, (), taken.usage, taken.requests)
        return Asked(item, transcript, files, taken.usage, taken.requests, note)

    def _transcript(self, item: Item, taken: "_Taken") -> Transcript:
        identity = dict(item.identity())
        pieces: list[TranscribedPiece] = []
        notices: list[str] = []
        end = 0
        for sound, alone in self._sounds(item, notices):
            transcript = self._piece(item, sound, identity, taken)
            witness = None if alone else self.how.witness
            rows = None if witness is None else embedded(sound, transcript, witness)
            pieces.append(TranscribedPiece(sound.bounds_s[0], transcript, rows))
            end = sound.start_samples + len(sound.samples)
        whole = joined(item.title, to_seconds(end), pieces, self.how.witness, self.how.speakers)
        info = {"system": self._about, **self.how.to_json(), "pieces": len(pieces)}
        warnings = tuple(dict.fromkeys([*notices, *whole.warnings]))
        return Transcript(
            item.title, whole.duration_s, whole.segments, warnings=warnings, info=info
        )

    def _sounds(self, item: Item, notices: list[str]) -> Iterator[tuple[Sound, bool]]:
        """The pieces of a recording, and whether it is the only one."""
        how = self.how
        blocks: Iterable[Samples]
        if item.samples is not None:
            blocks = [item.samples()]
        else:
            blocks = audio.stream(
                item.path, channel=how.channel, track=how.track, warn=notices.append
            )
        if how.limit_s is None:
            yield Sound(item.title, np.concatenate(list(blocks))), True
            return
        before: Sound | None = None
        for number, chunk in enumerate(chunks(blocks, how.limit_s)):
            if before is not None:
                yield before, False
            before = Sound(item.title, chunk.samples, chunk.start_samples, number)
        if before is not None:
            yield before, before.number == 0

    def _piece(
        self, item: Item, sound: Sound, identity: Mapping[str, Any], taken: "_Taken"
    ) -> Transcript:
        """The transcript of a piece, from the answer that is kept, or from a new one."""
        start_s, end_s = sound.bounds_s
        about = {
            "file": identity,
            "piece": {"number": sound.number, "start_s": start_s, "end_s": end_s},
            "input": {"channel": self.how.channel, "track": self.how.track},
            "system": self._about,
        }
        about = json.loads(json.dumps(about))
        path = self._path(item, sound.number)
        kept = kept_answer(path, about)
        if kept is None:
            kept = self._asked(sound, about, path, taken)
        taken.add(kept)
        where = "" if sound.number == 0 else f"piece {sound.number + 1}: "
        if (failure := kept.get("failure")) is not None:
            raise AnswerError(
                failure["reason"], f"{item.title}: {where}{failure['message']}", kept["raw"]
            )
        answer = Answer(kept["raw"], kept["model"], kept["prompt"], Usage(**kept["usage"]))
        try:
            return understood(self.system, answer, sound)
        except AnswerError as error:
            raise AnswerError(error.reason, f"{item.title}: {where}{error}", kept["raw"]) from error

    def _asked(
        self, sound: Sound, about: Mapping[str, Any], path: Path | None, taken: "_Taken"
    ) -> dict[str, Any]:
        """Ask, and keep the answer as a row, unless a later attempt may get another.

        Raises:
            AnswerError: there is none now.
        """
        begun_s, attempts = time.monotonic(), 0

        def once() -> Answer:
            nonlocal attempts
            self._pace.wait()
            attempts += 1
            taken.requests += 1
            return self.system.ask(sound)

        failure = None
        try:
            answer = self._pace.tried(once)
        except Unavailable as error:
            reason = "rate-limited" if error.limited else "unavailable"
            raise AnswerError(
                reason, f"{sound.recording}: {error} ({attempts} attempts)"
            ) from error
        except AnswerError as error:
            if error.reason in ASKED_AGAIN:
                raise AnswerError(error.reason, f"{sound.recording}: {error}") from error
            answer = Answer(error.raw)
            failure = {"reason": error.reason, "message": str(error)}
        row = {
            "answer": VERSION,
            **about,
            "sdk": self._sdk,
            "model": answer.model,
            "prompt": answer.prompt,
            "prompt_sha256": answer.prompt_sha256,
            "usage": answer.usage.to_json(),
            "failure": failure,
            "asked": {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - begun_s, 3),
                "attempts": attempts,
            },
            "raw": answer.raw,
        }
        if path is not None:
            write_text_atomically(path, as_json(row, indent=1) + "\n")
        known: dict[str, Any] = json.loads(json.dumps(row))
        return known

    def _path(self, item: Item, number: int) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / ANSWERS / file_name(item.title) / f"{number}.json"


def understood(system: System, answer: Answer, sound: Sound) -> Transcript:
    """Read the transcript of an answer, and check it against the sound.

    Raises:
        AnswerError: it is none.
    """
    try:
        return checked(system.read(answer, sound), sound)
    except FormatError as error:
        raise AnswerError("format", str(error), answer.raw) from error


class _Taken:
    """Usage of the answers about one recording; `requests` counts those that were sent now."""

    def __init__(self) -> None:
        self.requests = 0
        self.usage: dict[str, float] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        start_s, end_s = row["piece"]["start_s"], row["piece"]["end_s"]
        counts = {"pieces": 1, "audio_s": end_s - start_s, "asked_s": row["asked"]["seconds"]}
        for name, value in {**counts, **row["usage"]}.items():
            self.usage[name] = round(self.usage.get(name, 0) + value, 3)


@contextmanager
def _pool(at_once: int, ended: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads; if the caller leaves early, waiting work is not begun."""
    pool = ThreadPoolExecutor(max(1, at_once), thread_name_prefix="asking")
    ended.clear()
    try:
        yield pool
    except BaseException:
        ended.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def _check_names(items: Sequence[Item]) -> None:
    seen: dict[str, Item] = {}
    for item in items:
        name = file_name(item.title).casefold()
        if name in seen:
            raise SettingsError(
                f"{seen[name].path} and {item.path} would have the same files, {file_name(item.title)!r}: "
                "rename one"
            )
        seen[name] = item

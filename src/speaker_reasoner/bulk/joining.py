"""Progress of the joins of long recordings, for the process that displays it.

A join takes a moment if all shares are complete. Chunks that shares lack are transcribed by one worker, which may take
hours: its journal, in the target, holds those that are done.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from queue import Empty, Queue
from typing import TypeVar

from ..audio import to_seconds
from ..longform.journal import Tally
from .rows import Row
from .runner import BatchSettings, Done
from .target import Target

T = TypeVar("T")


class Joining:
    """The recordings that one worker goes on with, because shares are missing.

    Args:
        settings: of the run.
        target: where the shares are.
        rows: divided ones, all of whose shares have ended.
        settled: numbers of those that are not to be joined.
    """

    def __init__(
        self,
        settings: BatchSettings,
        target: Target,
        rows: Iterable[Row],
        settled: Collection[int] = (),
    ) -> None:
        self._settings = settings
        self._target = target
        self._rows = {row.number: row for row in rows if row.number not in settled}
        self._tallies: dict[int, Tally] = {}
        self._held_s: dict[int, float] = {}

    def begin(self) -> Iterator[Done]:
        """Yield a note on the missing shares of each.

        Seconds of them that an earlier join transcribed count as skipped.
        """
        for row in self._rows.values():
            if self._target.done(row):
                continue
            assert row.duration_s is not None
            parts = self._settings.shares(row)
            starts = [to_seconds(part.start_samples) for part in parts] + [row.duration_s]
            missing = [
                part.number
                for part in parts
                if not self._target.file(row, f"share-{part.number}.whole").exists()
            ]
            if not missing:
                continue
            left_s = sum(starts[n + 1] - starts[n] for n in missing)
            shares_s = row.duration_s - left_s
            tally = self._tallies[row.number] = Tally(self._target.file(row, "journal"))
            held_s = self._held_s[row.number] = max(shares_s, to_seconds(tally.look()))
            note = (
                f"{len(missing)} of {len(parts)} shares are missing; one worker transcribes their "
                f"{left_s:.0f} s, of {row.duration_s:.0f} s"
            )
            yield Done(row.number, row.name, "share", skipped_s=held_s - shares_s, note=note)

    def look(self) -> Iterator[Done]:
        """Yield the audio that each join has transcribed since the last call."""
        for number, before_s in list(self._held_s.items()):
            row = self._rows[number]
            now_s = to_seconds(self._tallies[number].look())
            if now_s > before_s:
                self._held_s[number] = now_s
                yield Done(number, row.name, "share", audio_s=now_s - before_s)

    def ended(self, done: Done) -> Done:
        """The outcome of a join, with the seconds that no look has seen."""
        before_s = self._held_s.pop(done.number, None)
        length_s = self._rows[done.number].duration_s if done.number in self._rows else None
        if before_s is None or length_s is None or done.state != "done":
            return done
        return replace(done, audio_s=max(0.0, length_s - before_s))


def with_breaks(items: Callable[[], Iterator[T]], every_s: float) -> Iterator[T | None]:
    """Give items as they come, and `None` wherever none came for so long. They are made in a thread, which an interrupt
    does not wait for."""
    made: Queue[tuple[str, T | BaseException | None]] = Queue()

    def make() -> None:
        try:
            for item in items():
                made.put(("item", item))
            made.put(("end", None))
        except BaseException as error:
            made.put(("error", error))

    threading.Thread(target=make, daemon=True).start()
    while True:
        try:
            kind, item = made.get(timeout=every_s)
        except Empty:
            yield None
            continue
        if kind == "end":
            return
        if isinstance(item, BaseException):
            raise item
        yield item

"""The threads that keep a store working while disks fill up, databases are lost and processes die.

At every beat the first one checks whether disk and database can be written, renews the leases of this process's jobs,
drops those that another process took or ended, writes results that are due, continues jobs that waited for the
storage, and takes over jobs of dead processes. The second one does the work that a slow bucket could delay: it checks
whether recordings can be stored, and erases those that were kept long enough.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from .failures import StorageError
from .jobruns import JobRun
from .jobs import Job
from .store import Store

_log = logging.getLogger(__name__)

BEAT_S = 5.0
_ERASE_S = 60.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Intervals of the heartbeat, and how long things are kept.

    Attributes:
        beat_s: between two beats.
        poll_s: between two looks at a queue that servers share.
        lease_s: how long a job stays with a process that has stopped beating.
        keep_s: how long recordings that ended are kept after their last change; `None`: for ever.
        bin_s: how long removed recordings can be restored.
    """

    beat_s: float = BEAT_S
    poll_s: float = 0.5
    lease_s: float = 60.0
    keep_s: float | None = None
    bin_s: float = 30 * 86_400.0


class Keeper:
    """The heartbeat of a process.

    Args:
        store: whose jobs are looked after.
        rules: intervals and lease.
        runs: the jobs of this process under way, by id.
        launch: begins a job that was taken over.
        submit: queues a run that stopped once more.
        drop: forgets a run that is another process's now, or was ended by one.
        claim: takes jobs from a queue that servers share, as far as there is room; returns their number. Without
            it, all jobs of dead processes are taken.
    """

    def __init__(
        self,
        store: Store,
        rules: Rules,
        *,
        runs: Callable[[], Mapping[str, JobRun]],
        launch: Callable[[Job], object],
        submit: Callable[[JobRun], None],
        drop: Callable[[JobRun], None],
        claim: Callable[[], int] | None = None,
    ) -> None:
        self._problems: tuple[str, ...] = ()
        self._troubled_files: str | None = None
        self._store = store
        self._rules = rules
        self._runs = runs
        self._launch = launch
        self._submit = submit
        self._drop = drop
        self._claim = claim
        self._beaten_at = -math.inf
        self._erased_at = -_ERASE_S
        self._missed: set[str] = set()
        self._tried: dict[str, float] = {}
        self._stopping = self._woken = False
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._beating = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._cleaner = threading.Thread(target=self._clean_up, name="cleaner", daemon=True)

    @property
    def problems(self) -> tuple[str, ...]:
        """Return the problems of the storage, in words."""
        files = () if self._troubled_files is None else (self._troubled_files,)
        return tuple(dict.fromkeys((*self._problems, *files)))

    def start(self) -> None:
        """Take over the jobs of the store, then beat."""
        self.beat()
        self._thread.start()
        self._cleaner.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._stopped.set()
        for thread in (self._thread, self._cleaner):
            if thread.is_alive():
                thread.join()

    def wake(self) -> None:
        """Beat soon; from any thread."""
        if threading.current_thread() is not self._thread:
            self._woken = True
            self._wake.set()

    def claim_soon(self) -> None:
        """Look at the shared queue, if there is one; from any thread."""
        if self._claim is not None:
            self._wake.set()

    def beat(self) -> None:
        """Beat once."""
        with self._beating:
            self._beaten_at = time.monotonic()
            problems = [said for act in (self._renew, self._look) if (said := _trouble_of(act))]
            fine = not problems and self._troubled_files is None
            if fine and (said := _trouble_of(self._go_on)):
                problems.append(said)
            if problems and tuple(problems) != self._problems:
                _log.warning("the storage cannot be used: %s", "; ".join(problems))
            if self._problems and not problems:
                _log.warning("the storage can be used again")
            self._problems = tuple(dict.fromkeys(problems))

    def _clean_up(self) -> None:
        """Clean up files, at most once a beat."""
        while not self._stopping:
            try:
                said = _trouble_of(self._store.probe_files)
                if said is not None and said != self._troubled_files:
                    _log.warning("recordings cannot be kept: %s", said)
                self._troubled_files = said
                if not self.problems:
                    _trouble_of(self._erase)  # the rest is tried again
            except Exception:
                _log.exception("the cleaner met a bug")
            self._stopped.wait(self._rules.beat_s)

    def _run(self) -> None:
        took = 0
        while not self._stopping:
            beat_s = self._rules.beat_s if not self.problems else self._rules.beat_s / 2
            is_due = self._claim is None or bool(self.problems)
            poll_s = self._rules.poll_s / (5 if took else 1)  # there may be more
            self._wake.wait(beat_s if is_due else min(beat_s, poll_s))
            self._wake.clear()
            took = 0
            is_due, self._woken = is_due or self._woken, False
            if self._stopping:
                return
            try:
                if is_due or time.monotonic() - self._beaten_at >= beat_s:
                    self.beat()
                elif self._claim is not None:
                    with suppress(StorageError):  # the next beat reports it
                        took = self._claim()
            except Exception:
                _log.exception("the keeper met a bug")

    def _look(self) -> None:
        self._store.probe()

    def _renew(self) -> None:
        """Renew leases; drop runs that the database does not list as under way any more."""
        runs = dict(self._runs())
        begun = time.monotonic()
        kept = self._store.renew([(run.job, run.position_s) for run in runs.values()])
        for job_id, run in runs.items():
            if job_id in kept:
                run.leased_until = begun + self._rules.lease_s
            elif not run.job.under_way:
                run.leased_until = math.inf  # its end is written, its last events are due
            elif job_id in self._missed:  # else it may be ending just now
                self._drop(run)
        self._missed = set(runs) - kept

    def _is_time(self, run: JobRun) -> bool:
        """Return whether a run may be tried again: not more often than there are beats."""
        now = time.monotonic()
        if now - self._tried.get(run.job.id, -math.inf) < self._rules.beat_s:
            return False
        self._tried[run.job.id] = now
        return True

    def _go_on(self) -> None:
        for run in list(self._runs().values()):
            if run.due is not None:
                run.settle()
            elif run.stopped and self._is_time(run):
                run.again()
                self._submit(run)
        if self._claim is not None:
            self._claim()
        for job in self._store.take():
            if job.id not in self._runs():
                self._launch(job)

    def _erase(self) -> None:
        """Delete files of erased jobs, and erase jobs that were kept long enough."""
        self._store.finish_erasing()
        if time.monotonic() - self._erased_at >= _ERASE_S:
            self._erased_at = time.monotonic()
            for job in self._store.outlived(self._rules.keep_s, self._rules.bin_s):
                _log.warning("%s was kept as long as it is to be, and is erased", job.id)
                self._store.erase(job)


def _trouble_of(act: Callable[[], object]) -> str | None:
    """Call a function; return what is wrong with the storage if it fails for that reason."""
    try:
        act()
    except StorageError as error:
        return str(error)
    return None

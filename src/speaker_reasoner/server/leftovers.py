"""Recovery of files that dead servers left in a shared store.

Uploads that were never accepted, files of erased jobs and of clients that disconnected, and copies of a bucket's
files are deleted; recordings of live sessions become jobs. A file is stored before a row names it, and deleted after
no row names it any more. In between it is listed in the table of leftovers, and is found there if its server dies.
"""

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import soundfile
from sqlalchemy import and_, delete, or_, select

from ..errors import SpeakerReasonerError
from .database import JOBS, LEFTOVERS, SERVERS
from .depots import Depot
from .failures import StorageError
from .leftlive import ABOUT, LeftLive
from .sound import finish_live, recording_file
from .store import Store

_TIDY_S = 60.0
"""Interval between two looks at the folder of this machine (assumed)."""
LONG_GONE_S = 300.0
"""Age (assumed, and at least five leases) at which work that a server had begun is given up."""
_log = logging.getLogger(__name__)


class Leftovers(Store):
    """The part of `SharedStore` that deletes or recovers leftovers."""

    _is_scratch: bool
    _depot: Depot
    _tidied_at: float

    def _sweep(self) -> None:
        """Delete the files of dead processes in this folder; make jobs of their live recordings."""
        parts = ("incoming", "jobs") if self._is_scratch else ("incoming",)
        left = [(path, path.name) for part in parts for path in (self._folder / part).iterdir()]
        sessions = [
            (path, path.name.rpartition(".")[0]) for path in (self._folder / "live").iterdir()
        ]
        gone = {owner for owner in {owner for _, owner in left + sessions} if self._is_gone(owner)}
        for folder, owner in left:
            if owner in gone:
                shutil.rmtree(folder, ignore_errors=True)
        for folder, owner in sessions:
            if owner not in gone:
                continue
            try:  # one that sweeps at the same time may have been faster
                taken = folder.rename(
                    folder.with_name(f"{self.owner}.{folder.name.rpartition('.')[2]}")
                )
            except FileNotFoundError:
                continue
            try:
                self.adopt(taken)
            except SpeakerReasonerError as error:
                _log.warning("%s: a live session's recording cannot be kept: %s", taken, error)

    def _is_gone(self, owner: str) -> bool:
        """Return whether a process whose files this one may take is dead: any process in scratch; in a folder that
        machines share, one of this machine."""
        ours = self._is_scratch or owner.startswith(self._processes.machine)
        return ours and self._processes.is_gone(owner)

    def live_folder(self, left: LeftLive) -> Path:
        """Make a folder for the recording of a live session, on this machine until `adopt`.

        Raises:
            StorageError: it cannot be made.
        """
        folder = self._folder / "live" / f"{self.owner}.{left.id}"
        left.write(folder)
        return folder

    def adopt(self, folder: Path) -> None:
        """Make the job of a live session that has ended, and delete its folder.

        Raises:
            StorageError: the disk, the database or the bucket is out of reach; it is tried again later.
            AudioError, FormatError: there is nothing to decode.
        """
        try:
            self._adopt(folder)
        except StorageError:
            ownerless = f"{self._processes.machine}-left.{folder.name.rpartition('.')[2]}"
            with suppress(OSError):
                folder.rename(folder.with_name(ownerless))
            raise

    def _adopt(self, folder: Path) -> None:
        left = LeftLive.read(folder)
        if self.get(left.id, removed=True) is None:  # else its server died right behind that
            self._remove_files(left.id)  # of an attempt that its server died over
            live_s = finish_live(folder, left.name)
            with soundfile.SoundFile(recording_file(folder)) as file:
                duration_s = file.frames / file.samplerate if live_s is None else live_s
            with self.incoming() as copy:
                for path in folder.iterdir():
                    if path.name != ABOUT:
                        (copy / path.name).hardlink_to(path)
                self.add(
                    copy,
                    left.name,
                    duration_s,
                    left.speakers,
                    left.voices,
                    left.language,
                    left.client,
                    left.model,
                    job_id=left.id,
                )
        shutil.rmtree(folder, ignore_errors=True)

    def finish_erasing(self) -> None:
        """Delete the files of erased jobs, and of uploads whose server died; end requests of dead servers' clients."""
        alive = select(SERVERS.c.name).where(
            SERVERS.c.seen >= self._database.clock - max(LONG_GONE_S, 5 * self._lease_s)
        )
        gone = or_(
            LEFTOVERS.c.server.is_(None),
            and_(LEFTOVERS.c.server.not_in(alive), LEFTOVERS.c.server != self.owner),
        )
        left = select(LEFTOVERS.c.id).where(LEFTOVERS.c.store == self._id, gone)
        abandoned = and_(JOBS.c.waiter.not_in(alive), JOBS.c.waiter != self.owner)
        with self._database.begin() as connection:
            ids = connection.scalars(left).all()
        for job_id in ids:
            self._remove_files(job_id, gone)
        for job in self._select(abandoned):
            self.cancel(job)
            self.erase(job)
        if time.monotonic() - self._tidied_at >= _TIDY_S:
            self._tidied_at = time.monotonic()
            self._sweep()
            self._tidy()

    def _tidy(self) -> None:
        """Delete copies of files that were erased elsewhere."""
        copies = self._depot.copies()
        query = select(JOBS.c.id).where(JOBS.c.id.in_(copies))
        with self._database.begin() as connection:
            kept = set(connection.scalars(query))
        for job_id in copies:
            if job_id not in kept:
                self._depot.forget(job_id)

    def _remove_files(self, job_id: str, *where: Any) -> None:
        """Delete leftover files, if they still are leftovers. Their row is locked meanwhile, so that a server that was
        taken for dead by mistake accepts no job without its files."""
        left = select(LEFTOVERS.c.id).where(LEFTOVERS.c.id == job_id, *where).with_for_update()
        with self._database.begin() as connection:
            if connection.scalar(left) is not None:
                self._depot.remove(job_id)
                connection.execute(delete(LEFTOVERS).where(LEFTOVERS.c.id == job_id))

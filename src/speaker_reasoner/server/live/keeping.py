"""The job that a live session becomes; its audio is written to disk as it arrives.

A store of this machine has the job from the first piece of audio on. A store that several servers share gets
it when the session has ended; until then the audio lies on this machine, where the next server to start
finds it if this one dies.
"""

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path

import anyio
from fastapi.concurrency import run_in_threadpool

from ...errors import SpeakerReasonerError
from ..jobruns import JobRun
from ..leftlive import LeftLive
from ..service import Service
from ..shared import SharedStore
from ..sound import finish_live
from .events import Session, SessionOver
from .incoming import LiveFile
from .known import KnownVoices

_log = logging.getLogger(__name__)


class Keeping:
    """The job of a session. It is made with the first piece of audio, or at the end.

    Args:
        service: behind it.
        job_id: of the future job.
        client: that opened the session, for a fair queue.
        model: that a shared store's job asks for.

    Attributes:
        voices: known speakers; set before the first piece of audio.
    """

    def __init__(self, service: Service, job_id: str, client: str, model: str | None) -> None:
        self.job_id = job_id
        self._service = service
        self._client = client
        self._model = model
        self._run: JobRun | None = None
        self._file: LiveFile | None = None
        self._folder: Path | None = None
        self.voices: KnownVoices | None = None

    async def append(self, data: bytes, session: Session) -> None:
        """Write samples to the disk.

        Raises:
            StorageError: the disk is full, or the database is out of reach.
            SessionOver: 409, a client ended the job.
        """
        await run_in_threadpool(self._append, data, session)

    def _append(self, data: bytes, session: Session) -> None:
        if self._file is None:
            self._begin(data, session)
            return
        if self._run is not None:
            if self._run.over:
                message = "the job of this session was cancelled"
                raise SessionOver(409, message, code="job_cancelled")
            self._run.check_lease()
        self._file.append(data)

    def _begin(self, data: bytes, session: Session) -> None:
        """Make the job, once there is audio on the disk for it."""
        store = self._service.store
        names = () if self.voices is None else self.voices.names
        name = f"Live {time.strftime('%Y-%m-%d %H.%M')}"
        if isinstance(store, SharedStore):
            left = LeftLive(
                self.job_id,
                name,
                session.speakers,
                session.language,
                self._client,
                self._model,
                tuple(names),
            )
            self._folder = store.live_folder(left)
            file = LiveFile(self._folder, session.coding)
            try:
                self._copy_voices(self._folder)
                file.append(data)
            except BaseException:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise
            self._file = file
            return
        with store.incoming() as folder:
            file = LiveFile(folder, session.coding)
            try:
                self._copy_voices(folder)
                file.append(data)
                job = store.add(
                    folder,
                    name,
                    0.0,
                    session.speakers,
                    tuple(names),
                    session.language,
                    self._client,
                    job_id=self.job_id,
                )
            except BaseException:
                file.close()
                raise
        file.moved(store.folder(job))
        self._file, self._run = file, self._service.jobs.hold(job)

    def _copy_voices(self, folder: Path) -> None:
        if self.voices is not None:
            self.voices.copy_to(folder)

    async def silence(self, start_s: float) -> None:
        """Replace audio that the client cleared by silence.

        Raises:
            StorageError: as `append`.
        """
        if self._file is not None:
            await run_in_threadpool(self._file.silence, start_s)

    async def end(self) -> None:
        """Give the job the whole recording. A failure is repaired later: by the job, or at the next start."""
        if self._file is None:
            return
        self._file.close()
        limiter = self._service.decoders
        if self._run is None:
            await anyio.to_thread.run_sync(self._hand_over, limiter=limiter)
            return
        try:
            with suppress(SpeakerReasonerError):
                await anyio.to_thread.run_sync(self._finish, limiter=limiter)
        finally:
            self._service.jobs.release(self._run)

    def _finish(self) -> None:
        assert self._run is not None
        duration_s = finish_live(self._service.store.folder(self._run.job), self._run.name)
        if duration_s is not None:
            self._run.recorded(duration_s)

    def _hand_over(self) -> None:
        """Hand the job over to all servers."""
        store = self._service.store
        assert isinstance(store, SharedStore)
        assert self._folder is not None
        try:
            store.adopt(self._folder)
            self._service.keeper.claim_soon()
        except SpeakerReasonerError as error:
            _log.warning("%s: kept on this machine until that can be done: %s", self.job_id, error)

"""What a live session leaves: a job, whose audio grows on disk as it comes."""

import time
from contextlib import suppress

import anyio
from fastapi.concurrency import run_in_threadpool

from ...errors import SpeakerReasonerError
from ..jobruns import JobRun
from ..service import Service
from ..sound import finish_live
from .events import Session, SessionOver
from .incoming import LiveFile


class Keeping:
    """The job of a session. It is made with the first piece of audio.

    Args:
        service: behind it.
        job_id: of the job to be.
    """

    def __init__(self, service: Service, job_id: str) -> None:
        self.job_id = job_id
        self._service = service
        self._run: JobRun | None = None
        self._file: LiveFile | None = None

    async def append(self, data: bytes, session: Session) -> None:
        """Put samples on the disk.

        Raises:
            StorageError: the disk is full, or the database is out of reach.
            SessionOver: 409, somebody ended the job.
        """
        await run_in_threadpool(self._append, data, session)

    def _append(self, data: bytes, session: Session) -> None:
        if self._run is None or self._file is None:
            self._begin(data, session)
            return
        if self._run.over:
            raise SessionOver(409, "the job of this session was cancelled", code="job_cancelled")
        self._run.check_lease()
        self._file.append(data)

    def _begin(self, data: bytes, session: Session) -> None:
        """Make the job, once there is something on the disk that it can hear."""
        store = self._service.store
        name, language = f"Live {time.strftime('%Y-%m-%d %H.%M')}", session.language
        with store.incoming() as folder:
            file = LiveFile(folder, session.coding)
            try:
                file.append(data)
                job = store.add(folder, name, 0.0, session.speakers, [], language, self.job_id)
            except BaseException:
                file.close()
                raise
        file.moved(store.folder(job))
        self._file, self._run = file, self._service.jobs.hold(job)

    async def silence(self, start_s: float) -> None:
        """Put silence in the place of what the client took back.

        Raises:
            StorageError: as `append`.
        """
        if self._file is not None:
            await run_in_threadpool(self._file.silence, start_s)

    async def end(self) -> None:
        """Let the job hear the whole of it. What fails here is tried again by the job."""
        if self._run is None or self._file is None:
            return
        self._file.close()
        try:
            with suppress(SpeakerReasonerError):
                await anyio.to_thread.run_sync(self._finish, limiter=self._service.decoders)
        finally:
            self._service.jobs.begin(self._run)

    def _finish(self) -> None:
        assert self._run is not None
        duration_s = finish_live(self._service.store.folder(self._run.job), self._run.name)
        if duration_s is not None:
            self._run.recorded(duration_s)

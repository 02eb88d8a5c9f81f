"""The transcripts of jobs: displayed, exported, corrected, transcribed again."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..transcript import Transcript
from .corrections import History, apply, replay
from .documents import load_document, load_original
from .failures import RequestError
from .jobs import Job, undamaged
from .lines import Document, chunk_spans
from .manager import JobManager
from .operations import Listen, Operation
from .sound import LIVE, Pcm, peaks_of, recording_file


class Transcripts:
    """The transcripts of the jobs of a store.

    Args:
        jobs: whose they are.
        floor: returns the word confidence under which the model of a job is not to be trusted, if it has one.
    """

    def __init__(self, jobs: JobManager, floor: Callable[[Job], float | None]) -> None:
        self._jobs = jobs
        self._store = jobs.store
        self._floor = floor

    def document(self, job_id: str, *, words: bool = False) -> dict[str, Any]:
        """Return the document of a job with its corrections; with words that have times, if `words` is set."""
        job = self._transcribed(job_id)
        document, history = load_document(self._store, job)
        return self._show(job, document, history, job.revision, words)

    def _show(
        self, job: Job, document: Document, history: History, revision: int, words: bool
    ) -> dict[str, Any]:
        body = history.show(document, revision, words=words)
        return {**body, "confidence_floor": self._floor(job)}

    def transcript(self, job_id: str) -> Transcript:
        """Return the transcript of a job with its corrections."""
        job = self._transcribed(job_id)
        document, _ = load_document(self._store, job)
        transcript = document.corrected()
        return replace(transcript, info={**transcript.info, "revision": job.revision})

    def trace(self, job_id: str, chunk: int) -> dict[str, Any]:
        """Return the dialogue over a chunk, as the model saw and wrote it.

        Raises:
            RequestError: 404, the chunk does not exist or was silent.
        """
        for trace in self.transcript(job_id).traces:
            if trace["chunk"] == chunk:
                names = {"start_s": "start", "duration_s": "duration"}
                return {names.get(key, key): value for key, value in trace.items()}
        raise _no_chunk(chunk)

    def pcm(self, job_id: str) -> Pcm:
        """Return the audio of a job."""
        job = self._recorded(job_id)
        pcm = Pcm(recording_file(self._store.folder(job)))
        with undamaged(job, "the recording"):
            pcm.size  # noqa: B018
        return pcm

    def peaks(self, job_id: str) -> tuple[Job, bytes]:
        """Return a job, and the loudness of its audio as `sound.peaks_of` gives it."""
        job = self._recorded(job_id)
        with undamaged(job, "the recording"):
            return job, peaks_of(self._store.folder(job))

    def _recorded(self, job_id: str) -> Job:
        job = self._jobs.job(job_id)
        if (self._store.folder(job) / LIVE).exists():
            message = "the recording of this job is still being made; wait until its session ends"
            raise RequestError(409, message, code="job_under_way")
        return job

    def correct(
        self, job_id: str, revision: int, operation: Operation, *, words: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Apply a correction: return status 200 and the document, or 202 and the job that transcribes a chunk again.

        Raises:
            RequestError: 409 for a job that is under way, or one that was corrected meanwhile; what
                `corrections.apply` raises.
        """
        job = self._transcribed(job_id)
        if job.under_way:
            raise RequestError(409, f"the job is {job.status}; wait", code="job_under_way")
        document, history = load_document(self._store, job)
        if revision != job.revision:
            raise _stale(revision, job.revision)
        if isinstance(operation, Listen):
            return 202, self._listen(job, operation, chunk_spans(document.transcript))
        made = operation.model_dump(by_alias=True, exclude_none=True)
        then = history.then(made)
        if made["op"] not in ("undo", "redo"):
            apply(document, made)
        if not self._store.correct(job, revision, made):
            raise _stale(revision, self._jobs.job(job_id).revision)
        return 200, self._after(job, then, words)

    def _after(self, job: Job, history: History, words: bool) -> dict[str, Any]:
        document, _ = replay(load_original(self._store, job), history.done)
        return self._show(job, document, history, job.revision + 1, words)

    def _listen(self, job: Job, operation: Listen, spans: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = operation.chunk
        if chunk not in [span["chunk"] for span in spans]:
            raise _no_chunk(chunk)
        if not self._store.listen(job, chunk, keep=operation.keep):
            message = "the job is under way, or was corrected meanwhile; fetch it again"
            raise RequestError(409, message, code="job_under_way")
        self._jobs.begin_again(job.id)
        return self._jobs.body(self._jobs.job(job.id))

    def _transcribed(self, job_id: str) -> Job:
        """A job that has a transcript."""
        job = self._jobs.job(job_id)
        if job.status != "done" and job.listen is None:
            raise RequestError(
                409, f"the job is {job.status}: it has no transcript", code="job_not_done"
            )
        return job


def _no_chunk(chunk: int) -> RequestError:
    return RequestError(
        404, f"chunk {chunk} does not exist, or is silent", code="chunk_not_found", param="chunk"
    )


def _stale(made_on: int, now: int) -> RequestError:
    return RequestError(
        409,
        f"made on revision {made_on}, but the transcript is at {now}; fetch it again",
        code="stale_revision",
        param="revision",
    )

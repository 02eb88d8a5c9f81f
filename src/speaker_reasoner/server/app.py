"""The routes. Each one is a few lines over `Service`; OpenAPI describes them at /openapi.json."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from ..errors import SpeakerReasonerError
from ..longform import Transcriber
from ..version import __version__
from . import documentation as docs
from .chat import completion_events
from .connections import connected
from .exports import Export, export, warnings_header
from .failures import RequestError, as_request_error
from .guard import Guard, audio_link
from .intake import stored_voices
from .live.route import add_realtime
from .manager import JobsAsked
from .offers import Offer
from .openai import answer
from .operations import parse_operation
from .service import Service, ServiceSettings
from .sound import PEAKS_PER_S
from .transcription import Transcription
from .uploads import read_json

PAGE = Path(__file__).parent / "page"


def create_app(transcriber: Transcriber | None, settings: ServiceSettings) -> FastAPI:
    """Make the server as an ASGI application.

    Its `state.service` is a `Service`, whose `drain` may be called on a signal.

    Raises:
        ServerError, OutputError: the store cannot be used.
    """
    service = Service(transcriber, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.start)
        yield
        await run_in_threadpool(service.stop)

    app = FastAPI(
        title="Speaker-Reasoner",
        version=__version__,
        description=docs.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # they load scripts of another site
        redoc_url=None,
        separate_input_output_schemas=False,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    app.state.service = service
    app.add_middleware(
        Guard,
        api_key=settings.api_key,
        registry=service.registry,
        origins=settings.origins,
        more_keys=settings.more_keys,
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "last-event-id", "range"],
            expose_headers=docs.EXPOSED,
        )
    _add_errors(app)
    keyed = APIRouter(dependencies=[Depends(docs.KEY)] if settings.api_key else ())
    if not settings.work_only:
        _add_transcriptions(keyed, service)
        if service.turns is not None:
            _add_turns(keyed, service)
        _add_jobs(keyed, service)
        _add_documents(keyed, service)
        _add_voices(keyed, service)
    _add_metrics(keyed, service)
    app.include_router(keyed)
    _add_health(app, service)
    if not settings.work_only:
        live = APIRouter()
        add_realtime(live, service)
        app.include_router(live)
        _add_page(app)
    app.state.every_route = [*keyed.routes, *app.routes]
    return app


class _EventStream(StreamingResponse):
    """Server-sent events; closes their source in the end, also when the client has disconnected."""

    def __init__(self, events: AsyncIterator[str], source: Transcription | None = None) -> None:
        headers = {"x-accel-buffering": "no"}  # nginx passes each event on at once
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._source is not None:
                self._source.close()


def _error(error: RequestError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(SpeakerReasonerError)
    async def _known(_: Request, error: SpeakerReasonerError) -> Response:
        return _error(as_request_error(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = str(first["loc"][-1])
        message = f"{param}: {first['msg']}"
        return _error(RequestError(400, message, code="invalid_value", param=param))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        code = str(error.detail).lower().replace(" ", "_")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(app.state.every_route, request.scope))
        return _error(RequestError(error.status_code, message, code=code, headers=headers))

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; nginx counts it so

    @app.exception_handler(Exception)
    async def _bug(_: Request, __: Exception) -> Response:
        message = "internal error; see the server's log"
        return _error(RequestError(500, message, code="internal_error"))


def _methods(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods that the address of a request allows."""
    methods: set[str] = set()
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _add_transcriptions(routes: APIRouter, service: Service) -> None:
    @routes.post("/v1/audio/transcriptions", **docs.TRANSCRIPTIONS)
    async def transcribe(request: Request) -> Response:
        transcription = await service.transcribe(request)
        if transcription.form.stream:
            return _EventStream(transcription.events(), transcription)
        try:
            transcript = await connected(
                request, transcription.transcript(), transcription.close, service.settings.answer_s
            )
        finally:
            transcription.close()
        media_type, body, warnings = answer(
            transcript, transcription.form, transcription.offer.profile["language"]
        )
        headers = warnings_header(warnings)
        if isinstance(body, str):
            return Response(body, media_type=media_type, headers=headers)
        return JSONResponse(body, headers=headers)

    @routes.post("/v1/audio/translations", **docs.TRANSLATIONS)
    def translate() -> Response:
        model = service.models.all()[0].able.model
        message = f"The model {model!r} does not translate; /v1/audio/transcriptions transcribes"
        raise RequestError(400, message, code="unsupported_operation", param="model")

    def model(offer: Offer, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": service.created,
            "owned_by": "speaker-reasoner",
            "language": offer.able.language,
            "domain": offer.profile["domain"],
            "profile": None if service.turns is None else offer.profile,
        }

    @routes.get("/v1/models", **docs.MODELS)
    def models() -> dict[str, Any]:
        names = service.models.names()
        return {"object": "list", "data": [model(offer, name) for name, offer in names.items()]}

    @routes.get("/v1/models/{name:path}", **docs.MODEL)
    def one_model(name: str) -> dict[str, Any]:
        return model(service.models.meant(name), name)


def _add_turns(routes: APIRouter, service: Service) -> None:
    @routes.post("/v1/chat/completions", **docs.COMPLETIONS)
    async def complete(request: Request) -> Any:
        body, stream = await service.complete(request)
        if not stream:
            return body
        headers = {"x-accel-buffering": "no"}
        events = completion_events(body)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _add_jobs(routes: APIRouter, service: Service) -> None:
    @routes.post("/v1/jobs", **docs.ADD_JOB)
    async def add_job(request: Request) -> dict[str, Any]:
        return await service.add_job(request)

    @routes.get("/v1/jobs", **docs.JOBS)
    def jobs(asked: Annotated[JobsAsked, Query()]) -> dict[str, Any]:
        return service.jobs.newest(asked)

    @routes.get("/v1/jobs/{job_id}", **docs.JOB)
    def job(job_id: str) -> dict[str, Any]:
        return service.jobs.body(service.jobs.job(job_id))

    @routes.post("/v1/jobs/{job_id}/cancel", **docs.CANCEL)
    def cancel(job_id: str) -> dict[str, Any]:
        return service.jobs.cancel(job_id)

    @routes.delete("/v1/jobs/{job_id}", **docs.REMOVE)
    def remove(job_id: str, erase: bool = False) -> dict[str, Any]:
        return service.jobs.remove(job_id, erase=erase)

    @routes.post("/v1/jobs/{job_id}/restore", **docs.RESTORE)
    def restore(job_id: str) -> dict[str, Any]:
        return service.jobs.restore(job_id)

    @routes.post("/v1/jobs/{job_id}/retry", **docs.RETRY)
    def retry(job_id: str) -> dict[str, Any]:
        return service.jobs.retry(job_id)

    @routes.get("/v1/jobs/{job_id}/events", **docs.EVENTS)
    async def events(
        job_id: str, last_event_id: int = Header(0, ge=0), follow: bool = False
    ) -> Response:
        await run_in_threadpool(service.jobs.job, job_id)
        return _EventStream(service.jobs.events(job_id, last_event_id, follow=follow))

    @routes.get("/v1/jobs/{job_id}/audio", **docs.AUDIO)
    def audio(job_id: str, request: Request) -> Response:
        pcm = service.transcripts.pcm(job_id)
        span = pcm.span(request.headers.get("range"))
        start, end = span or (0, pcm.size)
        headers = {
            "accept-ranges": "bytes",
            "cache-control": "private, max-age=3600",
            "content-length": str(end - start),
        }
        if span is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{pcm.size}"
        status = 200 if span is None else 206
        blocks: Iterator[bytes] = pcm.read(start, end)
        return StreamingResponse(blocks, status, headers, media_type="audio/wav")

    @routes.get("/v1/jobs/{job_id}/peaks", **docs.PEAKS)
    def peaks(job_id: str) -> Response:
        job, data = service.transcripts.peaks(job_id)
        headers = {
            "x-peaks-per-second": str(PEAKS_PER_S),
            "x-duration": f"{job.duration_s:.6f}",
            "x-audio": audio_link(service.settings.api_key, job.id),
            "cache-control": "private, max-age=3600",
        }
        return Response(data, headers=headers, media_type="application/octet-stream")


def _add_documents(routes: APIRouter, service: Service) -> None:
    @routes.get("/v1/jobs/{job_id}/transcript", **docs.TRANSCRIPT)
    def transcript(job_id: str, asked: Annotated[Export, Query()]) -> Response:
        corrected = service.transcripts.transcript(job_id)
        data, suffix = export(corrected, asked)
        name = quote(f"{corrected.recording}{suffix}", safe="")
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{name}",
            **warnings_header(corrected.warnings),
        }
        return Response(
            data, media_type=docs.MEDIA_TYPES.get(asked.format, docs.TEXT), headers=headers
        )

    @routes.get("/v1/jobs/{job_id}/document", **docs.DOCUMENT)
    def document(job_id: str, words: bool = False) -> Response:
        return JSONResponse(service.transcripts.document(job_id, words=words))

    @routes.post("/v1/jobs/{job_id}/corrections", **docs.CORRECT)
    async def correct(job_id: str, request: Request, words: bool = False) -> Response:
        revision, operation = parse_operation(await read_json(request, service.settings.limits))
        status, body = await run_in_threadpool(
            service.transcripts.correct, job_id, revision, operation, words=words
        )
        return JSONResponse(body, status)

    @routes.get("/v1/jobs/{job_id}/trace", **docs.TRACE)
    def trace(job_id: str, chunk: int = Query(ge=0)) -> dict[str, Any]:
        return service.transcripts.trace(job_id, chunk)


def _add_voices(routes: APIRouter, service: Service) -> None:
    @routes.get("/v1/voices", **docs.VOICES)
    def voices() -> dict[str, Any]:
        return {
            "data": [
                {"name": one.name, "clips": len(one.clips), "seconds": round(one.speech_s, 1)}
                for one in stored_voices(service.settings.voices)
            ]
        }


def _add_metrics(routes: APIRouter, service: Service) -> None:
    @routes.get("/metrics", **docs.METRICS)
    async def metrics() -> Response:
        text = await asyncio.to_thread(generate_latest, service.registry)
        return Response(text, media_type="text/plain; version=0.0.4")


def _add_health(app: FastAPI, service: Service) -> None:
    """Add the route of the server's state, which needs no key, like the page: see `Guard`."""

    @app.get("/health", **docs.HEALTH)
    def health(response: Response) -> dict[str, Any]:
        body = service.health()
        response.status_code = 503 if body["status"] == "degraded" else 200
        return body


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")

    app.mount("/static", _Parts(directory=PAGE), name="static")


class _Parts(StaticFiles):
    """The files of the page: browsers cache them, and check by their ETag whether they have changed."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["cache-control"] = "no-cache"
        return response

"""The route of live sessions: access, and their number."""

from fastapi import APIRouter, WebSocket
from prometheus_client import Gauge
from starlette.datastructures import Headers

from ..failures import RequestError
from ..forms import check_model
from ..guard import refuse_socket
from ..offers import Offer
from ..service import Service
from .session import LiveSession

_PROTOCOL = "realtime"


def add_realtime(routes: APIRouter, service: Service) -> None:
    """Add `/v1/realtime`, unless the server has no engine."""
    sessions: set[LiveSession] = set()
    gauge = Gauge("speaker_reasoner_live", "Live sessions.", registry=service.registry)
    gauge.set_function(lambda: len(sessions))

    @routes.websocket("/v1/realtime")
    async def realtime(socket: WebSocket, model: str = "", keep: bool = True) -> None:
        most = service.settings.limits.live
        if service.worker is None or service.own is None or service.transcriber is None:
            message = "this server has no engine; live sessions are for those that have one"
            return await refuse_socket(RequestError(503, message, code="no_engine"), socket)
        if service.jobs.closing:
            refused = RequestError(503, "the server is stopping", code="server_stopping")
            return await refuse_socket(refused, socket)
        if len(sessions) >= most:
            refused = RequestError(
                429,
                f"{most} live sessions are open, the most that this server takes",
                code="too_many_sessions",
                headers={"Retry-After": "10"},
            )
            return await refuse_socket(refused, socket)
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(_PROTOCOL if _PROTOCOL in offered else None)
        beta = "realtime=v1" in Headers(scope=socket.scope).get("openai-beta", "")
        beta = beta or "openai-beta.realtime-v1" in offered
        session = LiveSession(service, socket, keep=keep, beta=beta)
        sessions.add(session)
        try:
            await session.run(_wrong_model(model, service.own))
        finally:
            sessions.discard(session)


def _wrong_model(name: str, offer: Offer) -> RequestError | None:
    try:
        if name:
            check_model(name, offer.able)
    except RequestError as error:
        return error
    return None

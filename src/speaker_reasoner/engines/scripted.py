"""An engine that plays turns from a list: for tests of everything above the engine."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..protocol import Profile
from ..speech import Detect, detector
from ..voices.linking import Trust
from ..voices.witness import Witness
from .base import Reply, Request
from .comparing import load_witness


class ScriptedEngine:
    """Replies with prepared turns.

    Args:
        turns: the turns of each dialogue, dialogue by dialogue in the order of first requests;
            or a function from request to turn.
        profile: the profile the turns are written in.

    Attributes:
        requests: everything that was asked, in order.
    """

    name = "scripted"
    in_order = False
    trust = Trust()

    def __init__(
        self,
        turns: Iterable[Sequence[str]] | Callable[[Request], str],
        profile: Profile | None = None,
    ) -> None:
        self.profile = profile or Profile()
        self.requests: list[Request] = []
        self._turns = turns if callable(turns) else iter(turns)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        self.requests += requests
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        if callable(self._turns):
            return Reply(self._turns(request))
        memory = request.session.memory
        if "turns" not in memory:
            memory["turns"] = iter(next(self._turns, ()))
        text = next(memory["turns"], None)
        return Reply("", error="the script has no further turn") if text is None else Reply(text)

    def detector(self, name: str) -> Detect:
        """See `Engine`; its own choice is by energy."""
        return detector("energy" if name == "auto" else name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`; it has none of its own."""
        return load_witness("none" if name == "auto" else name)

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name}

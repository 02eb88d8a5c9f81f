"""The engine on a server of the chat-completions API that takes audio (vLLM, SGLang, our own).

The whole dialogue is sent with every turn, as its messages; a clip is sent once if the server keeps clips. Rules that
the server cannot enforce are checked here; a turn that breaks them is asked for again a few times, and its valid part
is kept.
"""

import re
import time
from asyncio import ensure_future, gather
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import EngineError, SettingsError
from ..protocol import Audio, Part, Profile
from ..protocol.checking import fault, is_turn, kept_part, looped, valid_part
from ..protocol.expression import turn_regex
from ..protocol.grammar import TurnRules
from ..protocol.markup import ANSWER
from ..protocol.messages import Message, messages
from ..protocol.trace import Answer
from ..speech import Detect, detector
from ..voices.linking import Trust
from ..voices.witness import Witness
from .base import Reply, Request, Stop
from .chat import (
    Completion,
    Malformed,
    audio_part,
    clip_id,
    cut_to,
    message_rows,
    read_completion,
    rules_row,
    wav,
)
from .client import Client, Refused, Unavailable
from .comparing import best_witness, load_witness

CONSTRAINTS = ("auto", "regex", "none")
SENDING = ("auto", "once", "always")
OURS = "speaker-reasoner"
AGAIN = "a turn broke the dialogue's rules and was asked for again"
UNCONSTRAINED = "a chunk was transcribed without a constraint, because the server takes none"

_KEEPS_CLIPS = ("vllm", OURS)
_ASKED_AGAIN = 4
_WARMER = 0.2
_MOST_TOKENS = 2048
_MOST_NAMES = 100_000
_MOST_LOST = 3
_CONTEXT = re.compile(
    r"context.?(length|window|size)|max\w*.(model|input|sequence).?len|too many tokens|longer than the "
    r"(maximum )?model",
    re.IGNORECASE,
)
_AUDIO = re.compile(
    r"at most \d+ audio|audio\b.*(too (long|large|many)|exceed|limit)|(limit|maximum)\b.*audio",
    re.IGNORECASE,
)
_FIELDS = {
    "constraint": re.compile(r"structured.?output|regex|grammar|guided", re.IGNORECASE),
    "logprobs": re.compile(r"log.?prob", re.IGNORECASE),
}


@dataclass(slots=True)
class _Memory:
    """A dialogue so far, with the ids of its clips."""

    parts: list[Part] = field(default_factory=list)
    clips: dict[Audio, str] = field(default_factory=dict)

    def rows(
        self, request: Request, chat: Sequence[Message], known: frozenset[str], named: bool
    ) -> list[dict[str, Any]]:
        """Messages as JSON.

        Args:
            known: ids of clips that the server has, which go without their data.
            named: whether clips carry their ids.
        """

        def clip(part: Audio) -> dict[str, Any]:
            if self.clips.get(part) in known:
                return audio_part(b"", self.clips[part])
            samples = request.session.clip(part)
            uuid = self.clips[part] = clip_id(samples)
            return audio_part(b"" if uuid in known else wav(samples), uuid if named else None)

        return message_rows(chat, clip)


class RemoteEngine:
    """Asks a server for turns, for all dialogues of a round at once.

    Args:
        client: of the server.
        model: its name there.
        profile: the protocol that the model was trained for.
        server: kind of server, as its list of models states it.
        constraint: `regex` sends each turn's rules as a regular expression, `none` nothing; `auto` sends the
            exact rules to a server of ours, else an expression, or nothing where that is refused.
        send_audio: `once` sends a clip once and then its id; `always` all clips with each turn; `auto` as
            the server's kind allows.
    """

    name = "openai"
    in_order = False
    trust = Trust()

    def __init__(
        self,
        client: Client,
        model: str,
        profile: Profile,
        *,
        server: str = "unknown",
        constraint: str = "auto",
        send_audio: str = "auto",
    ) -> None:
        self.client = client
        self.model = model
        self.profile = profile
        if server == OURS and constraint == "regex":
            raise SettingsError(
                "--constraint regex: this server takes a turn's own rules and no expression; leave it out "
                "(auto), or choose none"
            )
        self.server = server
        self.constraint = constraint
        self.send_audio = send_audio
        self._once = send_audio == "once" or (send_audio == "auto" and server in _KEEPS_CLIPS)
        self._kept: set[str] = set()
        self._lost = 0
        self._without: set[str] = {"constraint"} if constraint == "none" else set()

    def describe(self) -> dict[str, Any]:
        """Everything about the engine that a transcript should record; the same in every run."""
        return {
            "engine": self.name,
            "model": self.model,
            "server": self.server,
            "constraint": self.constraint,
        }

    def detector(self, name: str) -> Detect:
        """See `Engine`; its own choice is by energy."""
        return detector("energy" if name == "auto" else name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`; it has no tower here, so its own is the best that is installed."""
        return best_witness() if name == "auto" else load_witness(name)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Ask for one turn of each session, all at once.

        Raises:
            EngineError: the server is gone, refuses the key or the model, or cannot take such requests.
        """
        began = time.perf_counter()
        replies = self.client.run(self._ask(requests))
        share = (time.perf_counter() - began) / max(1, len(requests))
        return [replace(reply, seconds={"request": share}) for reply in replies]

    async def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        turns = [ensure_future(self._turn(request)) for request in requests]
        try:
            return list(await gather(*turns))
        except BaseException:
            for turn in turns:
                turn.cancel()
            raise

    async def _turn(self, request: Request) -> Reply:
        memory: _Memory = request.session.memory.setdefault(self.name, _Memory())
        memory.parts += request.parts
        try:
            reply = await self._written(request, memory)
        except Refused as error:
            reply = self._refused(error, request.rules)
        except (Unavailable, Malformed) as error:
            reply = await self._failed(error)
        memory.parts.append(Answer(reply.text))
        return reply

    async def _written(self, request: Request, memory: _Memory) -> Reply:
        """Ask until the turn is valid, a few times; return the best text if none is."""
        rules, noted = request.rules, Counter[str]()
        best, kept, wrong = "", "", ""
        for asked in range(1 + _ASKED_AGAIN):
            chat = messages(memory.parts, waiting=True)
            chat += self._complaint(rules, wrong) if wrong else []
            completion = await self._complete(request, memory, chat, kept, asked)
            noted[AGAIN] = asked
            if completion.model is not None and completion.model != self.model:
                detail = f"{self.model!r} was asked, and {completion.model!r} answered; name that one if it is meant"
                return self._stopped(Stop.MODEL_SWAPPED, detail, "", noted)
            if completion.stop is not None and (
                completion.stop is not Stop.EMPTY or asked == _ASKED_AGAIN
            ):
                return self._stopped(
                    completion.stop, completion.detail, completion.text, noted, completion.tokens
                )
            completion = _turn_alone(rules, completion)
            if is_turn(rules, completion.text):
                self._note_constraint(rules, noted)
                return self._reply(rules, completion, noted)
            if len(valid_part(rules, completion.text)) >= len(valid_part(rules, best)):
                best = completion.text
            if "constraint" in self._without:
                wrong = completion.text
            else:
                kept = kept_part(rules, completion.text)
        self._note_constraint(rules, noted)
        return Reply(best, noted=+noted)

    def _complaint(self, rules: TurnRules, wrong: str) -> list[Message]:
        """Return the messages that repeat an invalid turn to the server, and say what is wrong with it."""
        said = f"This turn breaks the rules: {fault(rules, wrong)}. Write the whole turn again."
        return [Message("assistant", (wrong,)), Message("user", (said,))]

    def _note_constraint(self, rules: TurnRules, noted: Counter[str]) -> None:
        if rules.turn == 0 and self.constraint == "auto" and "constraint" in self._without:
            noted[UNCONSTRAINED] = 1

    def _reply(self, rules: TurnRules, completion: Completion, noted: Counter[str]) -> Reply:
        return Reply(
            completion.text,
            sizes=completion.sizes,
            probabilities=completion.probabilities,
            looped=looped(rules, completion.text, completion.sizes),
            tokens=completion.tokens,
            noted=+noted,
        )

    async def _complete(
        self,
        request: Request,
        memory: _Memory,
        chat: Sequence[Message],
        kept: str,
        asked: int,
    ) -> Completion:
        """Request one answer. Fields that the server refuses are left out from then on; lost clips are sent again."""
        resend = False
        while True:
            without = frozenset(self._without)
            known = frozenset() if resend or not self._once else frozenset(self._kept)
            rows = memory.rows(request, chat, known, self._once)
            body = {
                "model": self.model,
                "messages": rows,
                "temperature": round(_WARMER * asked, 1) if "constraint" in self._without else 0,
                "max_tokens": _MOST_TOKENS,
                **({} if "logprobs" in self._without else {"logprobs": True}),
                **self._constrained(request.rules, kept),
            }
            omitted = known & set(memory.clips.values())
            try:
                answer = await self.client.post(
                    "/chat/completions", body, retries=0 if omitted else None
                )
            except (Refused, Unavailable) as error:
                if omitted and not (isinstance(error, Unavailable) and error.limited):
                    resend = True
                    self._kept -= omitted
                elif not isinstance(error, Refused) or not self._left_out(error, without):
                    raise
                continue
            self._note_kept(memory, omitted=bool(omitted), resent=resend)
            return read_completion(answer)

    def _note_kept(self, memory: _Memory, *, omitted: bool, resent: bool) -> None:
        """Note which clips the server has; a server that loses them repeatedly gets all clips with every turn."""
        if not self._once:
            return
        self._lost = self._lost + 1 if resent else 0 if omitted else self._lost
        if self.send_audio == "auto" and self._lost >= _MOST_LOST:
            self._once = False
        if len(self._kept) > _MOST_NAMES:
            self._kept.clear()
        self._kept |= set(memory.clips.values())

    def _constrained(self, rules: TurnRules, kept: str) -> dict[str, Any]:
        if "constraint" in self._without:
            return {}
        if self.constraint == "auto" and self.server == OURS:
            return {"turn_rules": rules_row(rules)}
        expression = turn_regex(rules, kept)
        if self.server == "sglang":
            return {"regex": expression}
        return {"structured_outputs": {"regex": expression}}

    def _left_out(self, error: Refused, without: frozenset[str]) -> bool:
        """Return whether the server refused a field that can be left out, and it will be.

        Args:
            without: what the request was sent without; others may have been refused meanwhile.
        """
        if error.status not in (400, 422):
            return False
        for name, pattern in _FIELDS.items():
            free = name != "constraint" or self.constraint == "auto"
            if name not in without and free and pattern.search(str(error)):
                self._without.add(name)
                return True
        return False

    def _stopped(
        self, stop: Stop, detail: str, text: str, noted: Counter[str], tokens: int = 0
    ) -> Reply:
        return Reply(text, error=detail, stop=stop, noted=+noted, tokens=tokens)

    def _refused(self, error: Refused, rules: TurnRules) -> Reply:
        """Return the reply for a turn that the server refuses; raise an error if it would refuse all dialogues.

        Raises:
            EngineError: the key, the address or the model is wrong, or a first turn is refused.
        """
        where, said = self.client.address.url, str(error)
        if error.status in (401, 403):
            raise EngineError(
                f"{where}: {said}; name the variable that holds the key: --api-key-env"
            )
        if error.status == 404 or 300 <= error.status < 400:
            raise EngineError(f"{where}: {said}; check --base-url and --model ({self.model!r})")
        if _CONTEXT.search(f"{said} {error.code}"):
            return self._stopped(Stop.CONTEXT, said, "", Counter())
        if error.status == 413 or _AUDIO.search(said):
            return self._stopped(Stop.AUDIO_LIMIT, said, "", Counter())
        if rules.turn == 0:
            raise EngineError(f"{where}: {said}")
        return self._stopped(Stop.REFUSED, said, "", Counter())

    async def _failed(self, error: Exception) -> Reply:
        """Return the reply for a turn on which a reachable server fails.

        Raises:
            EngineError: the server is unreachable, or refuses all requests for their number.
        """
        said = f"{self.client.address.url}: {error}"
        if isinstance(error, Unavailable):
            said += f" ({error.attempts} {'attempts' if error.attempts > 1 else 'attempt'})"
            if error.limited:
                wait = "" if error.wait_s is None else f"wait {error.wait_s:.0f} s, or "
                raise EngineError(f"{said}: {wait}use a smaller --batch")
        try:
            await self.client.get("/models", retries=0)
        except Refused:
            pass
        except Unavailable:
            raise EngineError(
                f"{said}; when the server is back, run the same command again"
            ) from error
        return self._stopped(Stop.SERVER, said, "", Counter())


def _turn_alone(rules: TurnRules, completion: Completion) -> Completion:
    """Return an answer cut behind its turn: without trailing space, and without the transcript behind an opened answer
    that is assembled from the turns."""
    text = completion.text
    if not rules.model_answer and ANSWER in text:
        text = text[: text.index(ANSWER) + len(ANSWER)]
    if not is_turn(rules, text) and is_turn(rules, text.rstrip()):
        text = text.rstrip()
    return completion if text == completion.text else cut_to(completion, text)

"""Chat completions for turns of the dialogue: requests of clients, and the answers to them.

Nothing here reads a request or runs a model. Source: OpenAI's API reference for `POST /v1/chat/completions`; the
`uuid` of a clip is vLLM's, `turn_rules` is ours.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..engines.base import Reply, Stop
from ..errors import ProtocolError
from ..protocol import Answer, Box, Profile, parse_turn
from ..protocol.grammar import TurnRules
from ..protocol.turns import parse_gender
from .failures import RequestError
from .forms import Abilities, check_model

MOST_TOKENS = 2048
"""Greatest number of tokens of a turn, as in the engines; a client's limit must not be lower."""
_NEVER = -9999.0
"""Logarithm of the probability of a token without one, as OpenAI's API gives it."""


def public_profile(profile: Profile) -> dict[str, Any]:
    """Return the profile that a client needs to lead dialogues: all but the training record."""
    return {key: value for key, value in asdict(profile).items() if key != "training"}


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Sent):
    """Text of a message."""

    type: Literal["text"]
    text: str


class InputAudio(_Sent):
    """A clip: a base64-encoded file."""

    data: str = Field(description="Empty where `uuid` names a clip that was sent before.")
    format: Literal["wav", "mp3", "flac", "ogg", "opus"]


class AudioPart(_Sent):
    """A clip of a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio
    uuid: str | None = Field(
        None, min_length=1, max_length=128, description="Keeps the clip here under this name."
    )


class ChatMessage(_Sent):
    """A turn: clips and text of the user, or the text that the model wrote."""

    role: Literal["user", "assistant"]
    content: str | list[Annotated[TextPart | AudioPart, Field(discriminator="type")]]


class SentRules(_Sent):
    """Rules of a turn, as far as they do not follow from the conversation. Times are in ticks of the chunk."""

    turn: int = Field(ge=0)
    chunk: int = Field(ge=0)
    box: tuple[int, int] | None = None
    speakers: int = Field(0, ge=0)
    cached: list[Literal["female", "male", "unknown"]] = []
    count: tuple[int, int] | None = None
    model_answer: bool = False
    last: bool = False


class StreamOptions(BaseModel):
    """Accepted, and without effect: usage is not counted."""


class ChatForm(_Sent):
    """The body of `POST /v1/chat/completions`."""

    model: str = Field(description="A model of `GET /v1/models`.", examples=["embedded"])
    messages: list[ChatMessage] = Field(min_length=1, max_length=2000)
    turn_rules: SentRules | None = Field(
        None, description="In place of the rules that follow from the conversation."
    )
    logprobs: bool = False
    temperature: float | None = Field(0, ge=0, le=0, description="0: the best token is taken.")
    max_tokens: int | None = Field(
        None, ge=MOST_TOKENS, description="Turns end by their rules; they are not cut before."
    )
    max_completion_tokens: int | None = Field(None, ge=MOST_TOKENS)
    n: int | None = Field(1, ge=1, le=1)
    seed: int | None = None
    stream: bool | None = Field(
        False, description="Send server-sent events; a turn comes as a whole, once it is written."
    )
    stream_options: StreamOptions | None = None
    user: str | None = None


def parse_chat(values: Any, able: Abilities) -> ChatForm:
    """Check the body of a request.

    Raises:
        RequestError: 400, of the first field that is wrong; 404 for another model.
    """
    try:
        form = ChatForm.model_validate(values)
    except ValidationError as error:
        # Of a content that is neither words nor parts, the one that says most.
        first = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
        param = ".".join(str(at) for at in first["loc"]) or "body"
        message = str(first["msg"])
        if first["type"] == "extra_forbidden":
            message = "not a field that this server takes; leave it out"
        raise RequestError(400, f"{param}: {message}", code="invalid_value", param=param) from error
    check_model(form.model, able)
    return form


def sent_rules(sent: SentRules, profile: Profile, chunk: int) -> TurnRules:
    """Convert the rules that a client sent.

    Args:
        chunk: length of the chunk that was sent, in ticks.

    Raises:
        RequestError: 400, they contradict each other, the chunk or the model.
    """
    box = None if sent.box is None else Box(*sent.box)
    wrong = ""
    if sent.chunk > chunk:
        wrong = f"chunk {sent.chunk}, but the clip that was sent has {chunk} ticks"
    elif (box is None) != (sent.turn == 0):
        wrong = f"turn {sent.turn} with box {sent.box}: turn 0 has none, all others have one"
    elif box is not None and not 0 <= box.start < box.end <= max(1, sent.chunk):
        wrong = f"box {sent.box} does not lie in a chunk of {sent.chunk} ticks"
    elif max(sent.speakers, len(sent.cached)) > profile.max_speakers:
        wrong = f"more than {profile.max_speakers} speakers"
    elif sent.count is not None and not 0 <= sent.count[0] <= sent.count[1]:
        wrong = f"count {sent.count}: expected fewest and most"
    if wrong:
        raise RequestError(400, f"turn_rules: {wrong}", code="invalid_value", param="turn_rules")
    return TurnRules(
        profile,
        turn=sent.turn,
        chunk=sent.chunk,
        box=box,
        speakers=sent.speakers,
        cached=tuple(sent.cached),
        count=sent.count,
        model_answer=sent.model_answer,
        last=sent.last,
    )


def rules_of(
    profile: Profile, labels: Sequence[str], answers: Sequence[Answer], chunk: int
) -> TurnRules:
    """Derive the rules of the next turn from a conversation.

    Args:
        labels: the texts before the clips of the speaker cache.
        answers: the model's turns so far.
        chunk: length of the chunk in ticks.

    Raises:
        RequestError: 400, a text of the model is no valid turn.
    """
    speakers, box, numbers = len(labels), None, dict[str, int]()
    try:
        for number, answer in enumerate(answers):
            turn = parse_turn(answer.text, profile, first=number == 0, numbers=numbers)
            speakers = max([speakers, *(line.speaker for line in turn.lines)])
            box = turn.box
            if box is None or box.end > max(1, chunk):
                raise ProtocolError(
                    f"no box within {chunk} ticks to go on with: {answer.text[-60:]!r}"
                )
    except ProtocolError as error:
        message = f"message {2 * number + 1}: {error}"
        raise RequestError(400, message, code="invalid_value", param="messages") from error
    return TurnRules(
        profile,
        turn=len(answers),
        chunk=chunk,
        box=box,
        speakers=speakers,
        cached=tuple(parse_gender(label) for label in labels),
        last=len(answers) >= profile.max_turns,
    )


def completion_body(reply: Reply, model: str, logprobs: bool) -> dict[str, Any]:
    """A chat completion.

    Args:
        model: the name by which the client asked.

    Raises:
        RequestError: the model could not write the turn.
    """
    cut = reply.stop is Stop.LENGTH and reply.error is not None
    if reply.error is not None and not cut:
        outgrown = reply.stop is Stop.CONTEXT
        code = "context_length_exceeded" if outgrown else "turn_failed"
        raise RequestError(400 if outgrown else 500, reply.error, code=code, param="messages")
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text, "refusal": None},
                "logprobs": _logprobs(reply) if logprobs else None,
                "finish_reason": "length" if cut else "stop",
            }
        ],
    }


def completion_events(body: Mapping[str, Any]) -> Iterator[str]:
    """A chat completion as server-sent events: the turn, its end, and the end of the stream."""
    [choice] = body["choices"]
    turn = {"delta": choice["message"], "logprobs": choice["logprobs"], "finish_reason": None}
    end = {"delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
    for part in (turn, end):
        chunk = {**body, "object": "chat.completion.chunk", "choices": [{"index": 0, **part}]}
        yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _logprobs(reply: Reply) -> dict[str, Any] | None:
    """Tokens with their probabilities, where the engine knows them."""
    if len(reply.sizes) != len(reply.probabilities) or not reply.sizes:
        return None
    data, rows = reply.text.encode(), []
    for size, probability in zip(reply.sizes, reply.probabilities, strict=True):
        spelled, data = data[:size], data[size:]
        rows.append(
            {
                "token": spelled.decode("utf-8", errors="replace"),
                "logprob": math.log(probability) if probability > 0 else _NEVER,
                "bytes": list(spelled),
                "top_logprobs": [],
            }
        )
    return {"content": rows, "refusal": None}

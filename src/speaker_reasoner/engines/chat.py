"""Turns as chat completions: the JSON of requests and answers. Nothing is sent here."""

import base64
import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import EngineError
from ..protocol import Audio
from ..protocol.grammar import TurnRules
from ..protocol.messages import Message
from .base import Stop

SHORTEST_SAMPLES = SAMPLE_RATE_HZ
"""Shorter clips are filled up with silence: a tower hears less than a second otherwise than alone in a batch."""

Clip = Callable[[Audio], dict[str, Any]]


def wav(samples: Samples) -> bytes:
    """A clip as a WAV file without loss: of 16 bits where these hold it, of floats otherwise."""
    if len(samples) < SHORTEST_SAMPLES:
        samples = np.pad(samples, (0, SHORTEST_SAMPLES - len(samples)))
    steps = samples * np.float32(32768)
    whole = bool((steps == np.rint(steps)).all() and (np.abs(samples) < 1).all())
    file = io.BytesIO()
    subtype = "PCM_16" if whole else "FLOAT"
    data = np.rint(steps).astype(np.int16) if whole else samples
    soundfile.write(file, data, SAMPLE_RATE_HZ, format="WAV", subtype=subtype)
    return file.getvalue()


def clip_id(samples: Samples) -> str:
    """The identifier of a clip: a hash of its samples, since libsndfile writes the time into WAV files of floats."""
    return hashlib.sha256(np.ascontiguousarray(samples, np.float32).tobytes()).hexdigest()[:32]


def audio_part(data: bytes, uuid: str | None) -> dict[str, Any]:
    """A clip as a content part; without data where the server keeps it under its uuid."""
    encoded = base64.b64encode(data).decode("ascii")
    part = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    return part if uuid is None else {**part, "uuid": uuid}


def message_rows(chat: Sequence[Message], clip: Clip) -> list[dict[str, Any]]:
    """Messages as JSON; the model's are text, exactly as it wrote them.

    Args:
        clip: an audio part as a content part.
    """
    rows: list[dict[str, Any]] = []
    for message in chat:
        content: Any = "".join(part for part in message.content if isinstance(part, str))
        if message.role == "user":
            content = [
                {"type": "text", "text": part} if isinstance(part, str) else clip(part)
                for part in message.content
            ]
        rows.append({"role": message.role, "content": content})
    return rows


def rules_row(rules: TurnRules) -> dict[str, Any]:
    """The rules of a turn as JSON, for a server of ours; the profile is its own."""
    box = rules.box
    return {
        "turn": rules.turn,
        "chunk": rules.chunk,
        "box": None if box is None else [box.start, box.end],
        "speakers": rules.speakers,
        "cached": list(rules.cached),
        "count": None if rules.count is None else list(rules.count),
        "model_answer": rules.model_answer,
        "last": rules.last,
    }


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer to one turn.

    Attributes:
        text: the turn.
        model: that wrote it, as the server says; `None` where it does not.
        sizes: bytes of `text` that each token spells; empty if unknown.
        probabilities: of each of these tokens.
        tokens: number of tokens written; 0 if unknown.
        stop: why it is no whole turn; `None` for one that is.
        detail: more about the reason.
    """

    text: str
    model: str | None
    sizes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    tokens: int = 0
    stop: Stop | None = None
    detail: str = ""


class Malformed(ValueError):
    """An answer that is no chat completion."""


def read_completion(body: Mapping[str, Any]) -> Completion:
    """Read the first choice of an answer.

    Raises:
        Malformed: it is no chat completion of text, or of text that is not Unicode.
        EngineError: a part of the turn was taken out of it.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        if isinstance(text, list):
            text = "".join(part.get("text") or "" for part in text)
        if not isinstance(text, str):
            raise TypeError(type(text).__name__)
        reason, thought = choice.get("finish_reason"), message.get("reasoning")
        thought = thought or message.get("reasoning_content")
        refusal = message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        keys = ", ".join(list(body)[:8])
        raise Malformed(f"no chat completion, but an object of {keys or 'nothing'}") from error
    if not _is_text(text):
        raise Malformed("half a surrogate pair in the turn, which is no Unicode text")
    if thought:
        raise EngineError(
            "the server takes the model's <think> out of its answer; start it without a reasoning parser"
        )
    model = body.get("model")
    sizes, probabilities = _tokens(choice.get("logprobs"), text)
    usage = body.get("usage")
    written = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    known = Completion(
        text,
        str(model) if model else None,
        sizes,
        probabilities,
        len(sizes) or (written if isinstance(written, int) else 0),
    )
    if refusal or reason == "content_filter":
        return _stopped(known, Stop.REFUSED, f"the model refused: {str(refusal or reason)[:120]}")
    if reason == "length":
        return _stopped(known, Stop.LENGTH, "the reply was cut off at the most tokens there may be")
    if not text.strip():
        return _stopped(known, Stop.EMPTY, f"an empty reply (finish_reason {reason!r})")
    return known


def _is_text(text: str) -> bool:
    """Return whether a string of JSON is Unicode: JSON can spell one half of a surrogate pair alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stopped(known: Completion, stop: Stop, detail: str) -> Completion:
    """A reply that is no whole turn, with its whole lines alone."""
    text = known.text[: known.text.rfind("\n") + 1]
    return Completion(text, known.model, tokens=known.tokens, stop=stop, detail=detail)


def _tokens(logprobs: Any, text: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Bytes and probability of each token of a text; empty where they do not spell it."""
    left, sizes, probabilities = text.encode("utf-8", errors="replace"), [], []
    try:
        for row in logprobs["content"]:
            spelled = row.get("bytes")
            data = bytes(row["token"].encode() if spelled is None else spelled)
            if not left or not left.startswith(data):
                break  # the token that ends a turn
            sizes.append(len(data))
            # Servers compute in float32, and logarithm and back are exact in that.
            probabilities.append(float(np.float32(min(1.0, math.exp(float(row["logprob"]))))))
            left = left[len(data) :]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return (), ()
    return ((), ()) if left else (tuple(sizes), tuple(probabilities))


def cut_to(completion: Completion, text: str) -> Completion:
    """A completion of a beginning of its text alone."""
    size, sizes = len(text.encode()), []
    for own in completion.sizes:
        if size <= 0:
            break
        sizes.append(min(own, size))
        size -= own
    return Completion(
        text,
        completion.model,
        tuple(sizes),
        completion.probabilities[: len(sizes)],
        completion.tokens,
    )

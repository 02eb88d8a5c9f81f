"""The interface of a system: it is asked about a recording, and its answer is kept as it came, and then read.

    answer = system.ask(sound)               # once: it may cost money
    transcript = system.read(answer, sound)  # as often as you like: it depends on nothing else

A system whose answer is no transcript raises an `AnswerError` with one of `REASONS`.
"""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import soundfile

from ..audio import SAMPLE_RATE_HZ, Samples, to_seconds
from ..engines.client import Address
from ..errors import SettingsError
from ..transcript import Transcript

REASONS: Mapping[str, str] = {
    "truncated": "the answer was cut off",
    "loop": "the answer repeats itself",
    "format": "the answer does not follow its format, or contradicts the recording",
    "refused": "the model or the service says no",
    "swapped-model": "another model answered than was asked",
    "rate-limited": "there were too many requests, after all attempts",
    "too-long": "the recording is longer than the system takes",
    "no-times": "there are words without start or end",
    "empty": "the answer has no line, though somebody speaks; of silence it would be right",
    "unavailable": "there was no answer: of the network, the server or the program; nothing is known of "
    "how the system does on the recording",
    "unreadable": "the recording cannot be read, which is no fault of the system",
}
"""Reasons why a recording has no transcript, for all systems."""

ASKED_AGAIN = frozenset({"rate-limited", "unavailable", "unreadable"})
"""Reasons that a later attempt may not meet; the others are results."""


MOST_TOKENS = 32_768
"""Greatest number of tokens in the answer of a model that writes text (assumed)."""


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """The user's options for a system.

    Attributes:
        model: of the system, where it has several; its default if `None`.
        language: ISO 639-1 code of the spoken language; recognised if `None`.
        hotwords: names and terms that are likely to be said.
        speakers: fewest and most people in a recording.
        device: where a model runs that runs here.
        base_url: of the service's API, where it is not the usual one.
        key: of the service; it is never stored or printed.
        timeout_s: longest time for one answer.
        python: interpreter of the environment that has the system's libraries; this one if `None`.

    Raises:
        SettingsError: the address or the key cannot be sent.
    """

    model: str | None = None
    language: str | None = None
    hotwords: str | None = None
    speakers: tuple[int, int] | None = None
    device: str | None = None
    base_url: str | None = None
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0
    python: str | None = None

    def __post_init__(self) -> None:
        Address(self.base_url or "http://localhost", self.key)

    @property
    def terms(self) -> list[str]:
        """The hotwords one by one; commas separate them."""
        return [term.strip() for term in (self.hotwords or "").split(",") if term.strip()]

    def refuse(self, system: str, *names: str) -> None:
        """Refuse options that a system has no use for.

        Raises:
            SettingsError: one of `names` is given.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None:
                shown = "-".join(map(str, value)) if isinstance(value, tuple) else value
                option = "--" + {"python": "system-python"}.get(name, name.replace("_", "-"))
                raise SettingsError(
                    f"{option} {shown}: the system {system} has no use of it; leave it out"
                )

    def exact_speakers(self, system: str) -> int | None:
        """The number of speakers, for a system that takes no range.

        Raises:
            SettingsError: a range was given.
        """
        if self.speakers is None:
            return None
        low, high = self.speakers
        if low != high:
            raise SettingsError(
                f"--speakers {low}-{high}: the system {system} takes one number, and no range"
            )
        return low


@dataclass(frozen=True, eq=False, slots=True)
class Sound:
    """The samples that a system is asked about: a recording, or a piece of one that is too long for it.

    Attributes:
        recording: its name.
        samples: float32 `[n]` at 16 kHz.
        start_samples: where the piece starts in the recording.
        number: of the piece, from 0.
    """

    recording: str
    samples: Samples
    start_samples: int = 0
    number: int = 0

    @property
    def duration_s(self) -> float:
        return to_seconds(len(self.samples))

    @property
    def bounds_s(self) -> tuple[float, float]:
        """Start and end of the piece in seconds of the recording."""
        return to_seconds(self.start_samples), to_seconds(self.start_samples + len(self.samples))

    def encoded(self, format: str = "FLAC") -> bytes:
        """Encode the sound for an upload: 16 kHz, mono, 16 bits. Sound louder than full scale is scaled down.

        Args:
            format: `FLAC` or `WAV`.
        """
        peak = float(np.abs(self.samples).max(initial=0.0))
        samples = self.samples / peak if peak > 1.0 else self.samples
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, SAMPLE_RATE_HZ, format=format, subtype="PCM_16")
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Usage:
    """Cost of an answer; `None` where the system does not state it, or states no number.

    Attributes:
        requests: sent for this answer, those that failed not counted.
        input_tokens, output_tokens: as the service counts them.
        billed_s: seconds of audio that the service says it counts.
    """

    requests: int = 1
    input_tokens: int | None = None
    output_tokens: int | None = None
    billed_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens", "billed_s"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                object.__setattr__(self, name, None)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came back, before it is read.

    Attributes:
        raw: all of it, JSON-ready.
        model: as the answer names it, with its version; `None` where it does not.
        prompt: that the model was given; `None` where it takes none.
        usage: its cost.
    """

    raw: Any
    model: str | None = None
    prompt: str | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def prompt_sha256(self) -> str | None:
        return None if self.prompt is None else text_hash(self.prompt)


class System(Protocol):
    """Transcribes recordings, in any way it likes.

    Attributes:
        name: a key of `table.SYSTEMS`.
        model: that is asked for.
    """

    name: str
    model: str

    def describe(self) -> dict[str, Any]:
        """Return all that an answer depends on besides the sound (JSON-ready; no key).

        `sdk` has name and version of the client library, on which no answer depends.
        """

    def ask(self, sound: Sound) -> Answer:
        """Ask about one sound; it may be called from several threads at once.

        Raises:
            AnswerError: the answer is no transcript; it is in `raw`.
            Unavailable: of `engines.client`: it can be tried again.
            EngineError, SettingsError: no recording can be answered, as with a wrong key.
        """

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """The transcript, its times from the start of the sound; nothing but the answer decides.

        Raises:
            AnswerError: it is no transcript.
            FormatError: it does not follow its format; as reason `format`.
        """

    def close(self) -> None:
        """End its processes and connections."""


def text_hash(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_swapped(asked: str, answered: str | None) -> bool:
    """Return whether another model answered. A date or a number behind the name that was asked for is its version."""
    if answered is None or answered == asked:
        return False
    one, other = (name.rpartition("/")[2] for name in (asked, answered))
    version = other.removeprefix(one).lstrip("-@.:v")
    return not (other.startswith(one) and (not version or version[0].isdecimal()))

"""The trace: all parts of a dialogue, as the model saw and wrote them; the same for inference and training.

Concatenating the parts of a trace gives the token ids, the audio slices and the loss mask. The reasoner
and the training data both take prompts from `opening` and `observe`, so that a dialogue's history is
rendered in one way, `<think>` included.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .markup import MARKUP
from .profile import Profile


@dataclass(frozen=True, slots=True)
class Text:
    """Prompt text with its markup; masked in the loss."""

    text: str


@dataclass(frozen=True, slots=True)
class Audio:
    """A slice of a clip, in samples at 16 kHz: `[start_samples, end_samples)`.

    Attributes:
        clip: 0 for the chunk X, k for the k-th entry of the speaker cache.
    """

    start_samples: int
    end_samples: int
    clip: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The assistant's text of one turn, without its closing `<|im_end|>`; a target of the loss.

    Attributes:
        text: the turn.
        ids: the generated token ids, where the model wrote it; `None` where it was rendered.
        closed: whether the turn ended (a cut training target does not).
    """

    text: str
    ids: tuple[int, ...] | None = None
    closed: bool = True


Part = Text | Audio | Answer


@dataclass(frozen=True, eq=False, slots=True)
class CacheEntry:
    """An earlier segment of a speaker, placed before the chunk (Sec. "Speaker-aware cache").

    Attributes:
        speaker: speaker number in this dialogue; the speakers of the cache come first.
        gender: of the speaker.
        text: words of the clip; empty if unknown.
        samples: float32 `[n]` at 16 kHz.
    """

    speaker: int
    gender: str
    text: str
    samples: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Trace:
    """One dialogue over one chunk, in order."""

    parts: tuple[Part, ...] = ()

    def __add__(self, parts: Sequence[Part]) -> "Trace":
        return Trace(self.parts + tuple(parts))

    @property
    def answers(self) -> tuple[Answer, ...]:
        return tuple(part for part in self.parts if isinstance(part, Answer))

    @property
    def audio(self) -> tuple[Audio, ...]:
        return tuple(part for part in self.parts if isinstance(part, Audio))

    def to_json(self) -> list[dict[str, Any]]:
        """The trace for people and files: text, slices in samples, answers; token ids left out."""
        rows: list[dict[str, Any]] = []
        for part in self.parts:
            match part:
                case Text(text):
                    rows.append({"text": text})
                case Audio(start, end, clip):
                    rows.append({"audio": [start, end]} | ({"clip": clip} if clip else {}))
                case Answer(text):
                    rows.append({"answer": text})
        return rows


def opening(
    profile: Profile,
    chunk_samples: int,
    *,
    task: str = "dialogue",
    cache: Sequence[CacheEntry] = (),
) -> tuple[Part, ...]:
    """The first user turn: the speaker cache, the whole chunk X, then the instruction.

    An entry is its speaker's label, its clip and its text, on a line of its own (the paper prints no
    wording for it).

    Args:
        chunk_samples: length of X.
        task: `dialogue`, or a single-turn task of stage 1: `base`, `sot`, `times`, `count`.
        cache: entries, in the order of their speakers' numbers.
    """
    words = profile.wording
    text = profile.initial_text or words.initial_text
    if task != "dialogue":
        text = words.tasks[task]
    parts: list[Part] = []
    lead = MARKUP.user
    for number, entry in enumerate(cache, start=1):
        label = words.label(entry.speaker, entry.gender)
        parts += [
            Text(lead + label + words.colon + MARKUP.audio_open),
            Audio(0, len(entry.samples), number),
        ]
        words_after = f" {entry.text}" if entry.text else ""
        lead = f"{MARKUP.audio_close}{words_after}\n"
    return (
        *parts,
        Text(lead + MARKUP.audio_open),
        Audio(0, chunk_samples),
        Text(MARKUP.audio_close + text + MARKUP.user_close),
    )


def observe(profile: Profile, turn: int, start: int, end: int) -> tuple[Part, ...]:
    """A later user turn: the observation O_turn = X[start:end] as audio (step 3).

    Args:
        turn: number of the observation, from 1.
        start: first sample of the slice.
        end: sample after its last.
    """
    text = (profile.turn_text or profile.wording.turn_text).replace("{turn}", str(turn))
    return (
        Text("\n" + MARKUP.user_open),
        Audio(start, end),
        Text(MARKUP.audio_close + text + MARKUP.user_close),
    )


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer's interface that is used."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class TokenizedPart:
    """Token ids of one part, or the slice that stands in their place."""

    ids: tuple[int, ...]
    audio: Audio | None
    learned: bool


def pieces(parts: Sequence[Part], tokenizer: Tokenizer, end_id: int) -> Iterator[TokenizedPart]:
    """Token ids part by part: each part is tokenised alone, so that a prefix of the dialogue has
    the same ids, regardless of the parts that follow. Generated ids are kept as they were generated."""
    for part in parts:
        match part:
            case Text(text):
                yield TokenizedPart(
                    tuple(tokenizer.encode(text, add_special_tokens=False)), None, False
                )
            case Audio():
                yield TokenizedPart((), part, False)
            case Answer(text, ids, closed):
                written = ids
                if written is None:
                    written = tuple(tokenizer.encode(text, add_special_tokens=False))
                yield TokenizedPart((*written, end_id) if closed else written, None, True)

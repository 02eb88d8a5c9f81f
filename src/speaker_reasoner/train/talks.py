"""Talks (a chunk, its segments, and the speaker cache before it), and training examples made of them.

Simulated meetings and prepared corpora both give talks, so that examples are built, and transcripts scored, in one
way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..audio import Samples
from ..data.dialogues import SINGLE_TURN, dialogue, single_turn
from ..data.simulate import MixedUtterance
from ..protocol import CacheEntry, Profile, Trace
from ..protocol.observations import Reference
from .batches import Clip, Example
from .loop import Drawn


@dataclass(frozen=True, slots=True)
class Talk:
    """A chunk for training and its checks.

    Attributes:
        samples: float32 `[n]` at 16 kHz.
        segments: speakers are numbered over cache and chunk.
        cache: entries that stand before the chunk.
        spoken: of the chunk and of each entry, utterances with their word times, numbered the same
            way; `None` where they are not known.
    """

    samples: Samples
    segments: tuple[Reference, ...]
    cache: tuple[CacheEntry, ...] = ()
    spoken: tuple[tuple[MixedUtterance, ...], ...] | None = None


class TalkSource(Protocol):
    """The source of the dialogues of a run."""

    def draw(self, stage: str, step: int, part: int) -> Drawn:
        """The batch `part` of a step, and how its losses weigh: the same for the same arguments."""
        ...

    def checks(self, stage: str, count: int) -> list[Drawn]:
        """Fixed batches that are not learned from."""
        ...

    def talks(self, stage: str, count: int) -> list[Talk]:
        """Fixed talks that are not learned from, with the stage's cache."""
        ...


def make_trace(
    task: str,
    segments: Sequence[Reference],
    chunk_samples: int,
    profile: Profile,
    *,
    answer: bool = True,
    cache: Sequence[CacheEntry] = (),
) -> Trace:
    """The dialogue of a task.

    Args:
        task: `dialogue` or `cached`, which are one where there is a cache, or one of `SINGLE_TURN`.
        answer: whether a dialogue's last turn writes the whole transcript.
    """
    if task in SINGLE_TURN:
        return single_turn(task, segments, chunk_samples, profile)
    return dialogue(segments, chunk_samples, profile, answer=answer, cache=cache)


def make_example(task: str, talk: Talk, profile: Profile, *, answer: bool = True) -> Example:
    """A talk as it is learned from."""
    trace = make_trace(
        task, talk.segments, len(talk.samples), profile, answer=answer, cache=talk.cache
    )
    clips = [talk.samples, *(entry.samples for entry in talk.cache)]
    if talk.spoken is None:
        return Example(trace, tuple(Clip(samples) for samples in clips))
    return Example(trace, tuple(Clip(*pair) for pair in zip(clips, talk.spoken, strict=True)))

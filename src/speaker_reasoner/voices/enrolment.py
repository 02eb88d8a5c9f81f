"""Enrol speakers: read their clips, and let a witness check them."""

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from .. import audio
from ..errors import SettingsError, quoted
from ..speech import Region
from .clips import EnrolmentClip, load_clip
from .linking import Array, Centroids, Trust, embedding_sums, merge
from .people import EnrolledSpeaker
from .store import VoiceStore, check_name
from .witness import Witness

_PART_S, _SHORTEST_PART_S = 2.0, 0.8
"""Length of the parts of a clip that are compared with each other; shorter rests are not (assumed)."""
_SURE = 2.0
"""Log-odds from which a witness's warning about a clip is passed on (assumed)."""


def parse_voice(text: str) -> tuple[str, Path]:
    """Split `Ana=ana.wav` into the name and the path of a clip.

    Raises:
        SettingsError: there is no `=`, no path, or the name cannot be used; see `check_name`.
    """
    name, equals, path = text.partition("=")
    if not equals or not path.strip():
        raise SettingsError(f"voice {text!r}: expected NAME=FILE, as in Ana=ana.wav")
    return check_name(name.strip()), Path(path).expanduser()


def enrol(
    given: Sequence[str], store: Path | None = None, witness: Witness | None = None
) -> list[EnrolledSpeaker]:
    """Load all enrolled speakers with their clips.

    Args:
        given: clips as `NAME=FILE`, any number of them for one speaker.
        store: folder of a voice store; all of its speakers are loaded.
        witness: checks the clips; see `doubts`.

    Raises:
        SettingsError: an entry of `given` is malformed, the store is empty or damaged, or the same
            clip is given for two speakers.
        AudioError: a clip cannot be used; see `load_clip`.
    """
    people: dict[str, list[EnrolmentClip]] = {}
    for text in given:
        name, path = parse_voice(text)
        people.setdefault(name, []).append(load_clip(path))
    if store is not None:
        stored = VoiceStore(store).voices()
        if not stored:
            raise SettingsError(
                f"voice store {quoted(store)}: nobody is there, expected somebody added with: "
                "speaker-reasoner voices add NAME FILE --store FOLDER"
            )
        for voice in stored:
            people.setdefault(voice.name, []).extend(clip.load() for clip in voice.clips)
    _check_shared(people)
    warnings = doubts(people, witness) if witness is not None else {}
    return [
        EnrolledSpeaker(
            name, tuple(clip.samples for clip in clips), doubts=tuple(warnings.get(name, ()))
        )
        for name, clips in people.items()
    ]


def _check_shared(people: Mapping[str, Sequence[EnrolmentClip]]) -> None:
    """Check that no clip is given for two speakers."""
    owners: dict[str, tuple[str, EnrolmentClip]] = {}
    for name, clips in people.items():
        for clip in clips:
            owner, other = owners.setdefault(clip.digest, (name, clip))
            if owner != name:
                raise SettingsError(
                    f"{quoted(other.path)} ({owner}) and {quoted(clip.path)} ({name}) are the same "
                    "clip; give it for one of them"
                )


def doubts(people: Mapping[str, Sequence[EnrolmentClip]], witness: Witness) -> dict[str, list[str]]:
    """Check clips by their embeddings; warnings by name, for the names that have any.

    A warning says that a clip holds two voices, that two clips of one name are of two speakers, or that
    a speaker is there under two names (under the second name). It is given when the odds are at least
    7 to 1.

    Args:
        people: clips by name.
        witness: embeds the clips.
    """
    warnings: dict[str, list[str]] = {}
    others: dict[str, Array] = {}
    for name, clips in people.items():
        seconds = [len(clip.samples) / audio.SAMPLE_RATE_HZ for clip in clips]
        points = witness.embed([clip.samples for clip in clips])
        rows = [
            f"{quoted(clip.path)} ({name}) sounds like two voices; use a stretch in which {name} "
            "alone speaks"
            for clip in clips
            if _holds_two(clip, witness)
        ]
        apart = Centroids(embedding_sums(points, seconds, elsewhere=True), witness)
        rows += [
            f"{quoted(clips[i].path)} and {quoted(clips[j].path)} ({name}) sound like two people; "
            "leave one out"
            for i, j in combinations(range(len(clips)), 2)
            if apart.odds(i)[j] < -_SURE
        ]
        sums = embedding_sums(points, seconds).sum(0)
        rows += [
            f"{name} sounds like {other}; leave one of them out if they are one person"
            for other, other_sums in others.items()
            if Centroids(np.stack([sums, other_sums]), witness).odds(0)[1] > _SURE
        ]
        others[name] = sums
        if rows:
            warnings[name] = rows
    return warnings


def _holds_two(clip: EnrolmentClip, witness: Witness) -> bool:
    """Return whether the parts of a clip clearly fall into two clusters."""
    spans = [span for region in clip.speech_regions for span in _parts(region)]
    parts = [audio.cut(clip.samples, *span) for span in spans]
    seconds = [end_s - start_s for start_s, end_s in spans]
    if not parts:
        return False
    voices = Centroids(embedding_sums(witness.embed(parts), seconds), witness)
    dialogue = np.full((1, len(parts), len(parts)), _SURE, np.float32)
    return max(merge(voices, dialogue, seconds, trust=Trust(most=_SURE))) > 0


def _parts(region: Region) -> list[Region]:
    """Cut a region into equal parts of about 2 s; none if it is too short to compare."""
    start_s, end_s = region
    if end_s - start_s < _SHORTEST_PART_S:
        return []
    edges = np.linspace(start_s, end_s, max(1, round((end_s - start_s) / _PART_S)) + 1)
    return [(float(a), float(b)) for a, b in pairwise(edges)]

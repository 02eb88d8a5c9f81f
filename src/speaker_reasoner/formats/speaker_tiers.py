"""A tier of speakers beside tiers of words: `speaker` with the labels `Ana` and `Bo`, `text` with their words."""

from bisect import bisect_right
from collections.abc import Sequence

from .names import is_name, is_numbered
from .sessions import UNKNOWN_SPEAKER
from .tiers import SPEAKER_TIER, Interval, Tier, holds_phones, holds_words, is_of_remarks

NAMED = "labels of a tier of speakers name the speakers of the other tiers"
ALONE = "labels are of a tier of speakers: they are turns without words"


def with_speakers(tiers: Sequence[Tier]) -> tuple[list[Tier], dict[str, int]]:
    """Divide tiers among the labels of a tier of speakers, by the middles of intervals.

    A tier is one of speakers if it is called so and all of its labels can be names. Intervals of other tiers whose
    middle lies in none of its intervals go to `unknown`. If no other tier holds speech, labels that recur or are
    numbered are turns without words.

    Returns:
        The tiers, and warnings with their counts.
    """
    speaker_tiers = [tier for tier in tiers if _is_of_speakers(tier)]
    if len(speaker_tiers) != 1:
        return list(tiers), {}
    [people] = speaker_tiers
    made: list[Tier] = []
    said = 0
    for tier in tiers:
        if tier is people:
            continue
        if tier.is_points or not tier.intervals or holds_phones(tier) or is_of_remarks(tier):
            made.append(tier)
            continue
        said += 1
        end = " - words" if holds_words(tier) else ""
        made += [
            Tier(f"{label}{end}", intervals) for label, intervals in _divided(tier, people).items()
        ]
    if said:
        return made, {NAMED: len(people.intervals)}
    labels = {one.mark for one in people.intervals}
    if len(labels) == len(people.intervals) and not all(map(is_numbered, labels)):
        return list(tiers), {}  # words of somebody who is called so, perhaps
    turns: dict[str, list[Interval]] = {}
    for one in people.intervals:
        turns.setdefault(one.mark, []).append(Interval(one.start_s, one.end_s, "", one.at))
    made = [Tier(label, intervals) for label, intervals in turns.items()] + made
    return made, {ALONE: len(people.intervals)}


def _is_of_speakers(tier: Tier) -> bool:
    return (
        not tier.is_points
        and bool(tier.intervals)
        and SPEAKER_TIER.fullmatch(tier.name) is not None
        and all(is_name(one.mark) for one in tier.intervals)
    )


def _divided(tier: Tier, people: Tier) -> dict[str, list[Interval]]:
    """Return, by label of `people`, the intervals of a tier whose middle lies in an interval of that label."""
    turns = sorted(people.intervals, key=lambda one: one.start_s)
    starts = [one.start_s for one in turns]
    of: dict[str, list[Interval]] = {}
    for one in tier.intervals:
        middle_s = (one.start_s + one.end_s) / 2
        at = bisect_right(starts, middle_s) - 1
        inside = at >= 0 and middle_s < turns[at].end_s
        of.setdefault(turns[at].mark if inside else UNKNOWN_SPEAKER, []).append(one)
    return of

"""ELAN's `.eaf`: tiers of annotations over one time line. Read, not written.

The standard library parses the XML: a file is a list of time slots and tiers that name them.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from decimal import Decimal

from ..errors import FormatError
from ..transcript import Transcript, recording_name
from .sessions import Sessions
from .speaker_tiers import with_speakers
from .tiers import Interval, Tier, sort_tiers

_ANNOTATIONS = ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION")
_DEEPEST = 64  # tiers that hang on each other
_NUMBERED = re.compile(r"[\w.:/-]*\d+")
"""Values of a tier of references: `1`, `talk.001`."""
_NUMBERS = "tiers hold numbers alone; the tiers below them were read instead"
_MOVED = "media files have a time origin of their own; times were taken as they stand"


def parse_elan(text: str, where: str) -> list[Transcript]:
    """Parse an annotation document; one transcript, named after the file.

    Each tier with times of its own is a speaker, named by its participant or else by itself; tiers of
    words and phones are treated as those of a TextGrid (`tiers`). Tiers that hang on another one
    (translations, glosses) are not read; where such a tier has the words of one above it that is empty or
    holds numbers, it stands for that. Annotations without a time are counted in the transcript's warnings, like tiers
    that were not read.

    Raises:
        FormatError: it is no XML, no annotation document, or an annotation names a time slot that is
            not there.
    """
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise FormatError(f"{where}: not XML: {error}") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise FormatError(
            f"{where}: expected an ANNOTATION_DOCUMENT of ELAN, got <{root.tag[:60]}>"
        )
    sessions, session = Sessions(), recording_name(where)
    sessions.open(session)
    _check_clock(root, where, sessions, session)
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    places = {
        annotation.get("ANNOTATION_ID"): annotation
        for annotation in root.iter()
        if annotation.tag in _ANNOTATIONS
    }
    read: dict[str, list[Interval]] = {}
    above: dict[str, str | None] = {}
    people: dict[str, str] = {}
    for element in root.iter("TIER"):
        name = (element.get("TIER_ID") or "").strip() or "tier"
        above[name] = element.get("PARENT_REF")
        people[name] = (element.get("PARTICIPANT") or "").strip()
        read[name] = []
        for annotation in element.iter():
            if annotation.tag not in _ANNOTATIONS:
                continue
            at = f"{where}, tier {name!r}, annotation {annotation.get('ANNOTATION_ID')}"
            span = _span(annotation, slots, places, at)
            if span is None:
                sessions.count(session, "annotations have no time and were not read")
                continue
            mark = " ".join("".join(annotation.itertext()).split())
            if mark:
                read[name].append(Interval(*span, mark, at))
    tiers = _top_tiers(read, above, people, sessions, session)
    tiers, notices = with_speakers(tiers)
    sorted_tiers = sort_tiers(tiers, where)
    for what, times in (notices | sorted_tiers.noticed()).items():
        sessions.count(session, what, times)
    for tier in sorted_tiers.speech:
        for interval in tier.intervals:
            sessions.add(
                session,
                interval.at,
                speaker=tier.name,
                start_s=interval.start_s,
                end_s=interval.end_s,
                text=interval.mark,
            )
    return sessions.transcripts()


def _check_clock(root: ElementTree.Element, where: str, sessions: Sessions, session: str) -> None:
    """Count media that do not begin with the time line.

    Raises:
        FormatError: times are no milliseconds.
    """
    for header in root.iter("HEADER"):
        units = header.get("TIME_UNITS") or "milliseconds"
        if units != "milliseconds":
            raise FormatError(
                f"{where}: expected TIME_UNITS milliseconds, got {units!r}; save it with ELAN again"
            )
    origins = [media.get("TIME_ORIGIN") or "0" for media in root.iter("MEDIA_DESCRIPTOR")]
    moved = sum(origin.strip("0") != "" for origin in origins)
    sessions.count(session, _MOVED, moved)


def _span(
    annotation: ElementTree.Element,
    slots: dict[str | None, str | None],
    places: dict[str | None, ElementTree.Element],
    at: str,
) -> tuple[Decimal, Decimal] | None:
    """Return start and end in seconds, or those of the annotation that it refers to; `None` if no time is known.

    Tiers stand in any order: what an annotation refers to may follow it.
    """
    for _ in range(_DEEPEST):
        if annotation.tag != "REF_ANNOTATION":
            break
        referred = places.get(annotation.get("ANNOTATION_REF"))
        if referred is None:
            return None
        annotation = referred
    else:
        return None  # they refer to each other
    times = []
    for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"):
        slot = annotation.get(key)
        if slot not in slots:
            raise FormatError(f"{at}: names the time slot {slot!r}, which is not in the file")
        value = slots[slot]
        if value is None:
            return None
        if not value.isdecimal():
            raise FormatError(f"{at}: expected a time in milliseconds, got {value!r}")
        times.append(Decimal(value) / 1000)
    return times[0], times[1]


def _top_tiers(
    read: dict[str, list[Interval]],
    above: dict[str, str | None],
    people: dict[str, str],
    sessions: Sessions,
    session: str,
) -> list[Tier]:
    tiers: list[Tier] = []
    used: set[str] = set()
    for name, intervals in read.items():
        if above[name] is not None:
            continue
        below = next((n for n, parent in above.items() if parent == name and read[n]), None)
        used.add(name)
        numbered = all(_NUMBERED.fullmatch(interval.mark) for interval in intervals)
        if numbered and below is not None:
            sessions.count(session, _NUMBERS, bool(intervals))
            used.add(below)
            intervals = read[below]
        label = people[name] or name
        taken = {tier.name for tier in tiers}
        tiers.append(Tier(name if label in taken and people[name] == "" else label, intervals))
    several = [label for label, n in Counter(t.name for t in tiers if t.intervals).items() if n > 1]
    sessions.count(session, "people have several tiers, which were all read", len(several))
    left = [name for name in read if name not in used and read[name]]
    sessions.count(session, "tiers hang on another one and were not read", len(left))
    return tiers

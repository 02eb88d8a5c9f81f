"""Labels of Audacity: `start<tab>end<tab>label` a line, in seconds. Read, not written."""

import re
from collections import Counter
from decimal import Decimal

from ..errors import FormatError
from ..transcript import Transcript, recording_name
from .cues import Cue
from .names import is_name, name_speakers
from .sessions import Sessions, parse_seconds

_LINE = re.compile(r"\s*(\d+[.,]\d+|\d+)\t(\d+[.,]\d+|\d+)(?:\t(.*))?")


def is_labels(text: str) -> bool:
    """Return whether the first line of a text is a label."""
    return _LINE.fullmatch(text.split("\n", 1)[0].rstrip("\r")) is not None


def parse_labels(text: str, where: str) -> list[Transcript]:
    """Parse a label track; one transcript, named after the file.

    The text before a colon is a speaker where it is a name (`names.name_speakers`). Where labels have no
    colon and are but a few names that recur, they are speakers, without words. Lines of frequencies,
    which begin with a backslash, are passed over. Labels without length are points; those without a
    speaker are counted in the transcript's warnings, too.

    Raises:
        FormatError: a line is no label; it names the line.
    """
    sessions, session = Sessions(), recording_name(where)
    sessions.open(session)
    cues = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("\\"):
            continue
        at = f"{where}:{number}"
        match = _LINE.fullmatch(line.rstrip("\r"))
        if match is None:
            raise FormatError(
                f"{at}: expected start, end and label with tabs between, got {line!r}"
            )
        start_s, end_s = _seconds(match[1], at), _seconds(match[2], at)
        cues.append(Cue(at, start_s, end_s, [(match[3] or "").strip()]))
    speakers = _only_speakers(cues)
    for cue, parts in zip(cues, name_speakers(cues), strict=True):
        for speaker, gender, words in parts:
            if speakers:
                speaker, words = cue.lines[0], ""
            elif not words and not speaker:
                sessions.count(session, "labels are empty and were left out")
                continue
            sessions.add(
                session,
                cue.at,
                speaker=sessions.whose(session, "labels", speaker),
                start_s=cue.start_s,
                end_s=cue.end_s,
                text=words,
                gender=gender,
            )
    if speakers:
        sessions.count(
            session, "labels are names that recur: they are speakers, without words", len(cues)
        )
    return sessions.transcripts()


def _seconds(field: str, at: str) -> Decimal:
    return parse_seconds(field.replace(",", "."), at, "a time")


def _only_speakers(cues: list[Cue]) -> bool:
    counts = Counter(cue.lines[0] for cue in cues)
    names = all(label and (is_name(label) or re.fullmatch(r"\w+", label)) for label in counts)
    return names and len(cues) >= 3 and len(counts) <= len(cues) / 2

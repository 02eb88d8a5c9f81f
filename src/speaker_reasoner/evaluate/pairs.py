"""Pairs of reference and hypothesis, matched by session.

    pairs = pair(load("reference.stm"), load("hypotheses/"))

Sessions are matched by equal names, never by order or similarity. Nothing is read or scored here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import DataError
from ..formats.folders import some_of
from ..transcript import Transcript


@dataclass(frozen=True, slots=True)
class Pair:
    """Reference and hypothesis of one session.

    Attributes:
        name: of the session.
        reference: the reference transcript.
        hypothesis: the system's transcript.
        lost: whether one side is missing; that side is an empty transcript.
    """

    name: str
    reference: Transcript
    hypothesis: Transcript
    lost: bool = False

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds: the larger of both sides' durations."""
        return max(self.reference.duration_s, self.hypothesis.duration_s)


def pair(
    references: Mapping[str, Transcript],
    hypotheses: Mapping[str, Transcript],
    *,
    lost: bool = False,
) -> list[Pair]:
    """Match the two sides by name, in the references' order.

    Args:
        references: transcripts by name of the session.
        hypotheses: the same of the system.
        lost: score sessions that are missing on one side against an empty transcript, and mark them,
            instead of refusing them. The ones without a reference come last.

    Raises:
        DataError: sessions are missing on one side; or, `lost` or not, no name is on both.
    """
    unheard = [name for name in references if name not in hypotheses]
    unknown = [name for name in hypotheses if name not in references]
    if references and hypotheses and len(unheard) == len(references):
        raise DataError(_strangers(unheard, unknown))
    if (unheard or unknown) and not lost:
        missing = [(unheard, "without a hypothesis"), (unknown, "without a reference")]
        parts = [f"{len(names)} {what} ({some_of(names)})" for names, what in missing if names]
        raise DataError(
            f"sessions are missing: {' and '.join(parts)}; add them, name them alike on both sides, or "
            "let them count as lost (--lost)"
        )
    pairs = []
    for name in (*references, *unknown):
        one, other = references.get(name), hypotheses.get(name)
        duration_s = max(side.duration_s for side in (one, other) if side is not None)
        empty = Transcript(name, duration_s)
        pairs.append(Pair(name, one or empty, other or empty, one is None or other is None))
    return pairs


def _strangers(references: list[str], hypotheses: list[str]) -> str:
    if len(references) == len(hypotheses) == 1:
        return (
            f"the reference is of session {references[0]!r}, the hypothesis of {hypotheses[0]!r}; if "
            "they are the same recording, give both the same name (the session id in the file, or "
            "the file's name where the format has none)"
        )
    return (
        f"no session is on both sides: references are of {some_of(references)}, hypotheses of "
        f"{some_of(hypotheses)}; name them alike"
    )

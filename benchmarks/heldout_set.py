"""The held-out meetings that score a checkpoint: 100 of them, voices and sentences never trained on.

The set is drawn anew from its seeds wherever it is needed; nothing of it is stored. It needs all three
families of synthesisers, so that it is the same everywhere.
"""

from dataclasses import dataclass
from pathlib import Path

from speaker_reasoner.audio import to_seconds
from speaker_reasoner.data.banks import BankConfig, bank
from speaker_reasoner.data.simulate import Meeting, MeetingConfig, meeting
from speaker_reasoner.data.synthesisers import available
from speaker_reasoner.errors import DataError
from speaker_reasoner.evaluate.breakdown import overlap_share
from speaker_reasoner.transcript import Segment, Transcript

BANK = BankConfig(evaluation=True, voices=40, sentences=40)
MEETINGS = MeetingConfig(
    speakers=(1, 4),
    utterances=(2, 20),
    max_duration_s=30.0,
    overlap_rate=0.2,
    reverb_rate=0.5,
    snr_db=(12.0, 45.0),
    silence_rate=0.0,
)
"""Up to 30 s and four people, half of them heard across a room."""
COUNT = 100


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One held-out meeting: its samples, its draw, and its reference."""

    meeting: Meeting
    reference: Transcript

    @property
    def overlap(self) -> float:
        """Share of speech time in which more than one person speaks."""
        return overlap_share(self.reference)


def held_out(folder: Path, count: int = COUNT) -> list[HeldOut]:
    """Draw the held-out meetings; the voice bank is kept in `folder`.

    Raises:
        DataError: a family of synthesisers is missing, so the set would be another one.
    """
    for family in ("espeak", "flite", "festival"):
        if not available(family):
            raise DataError(
                f"the held-out meetings need {family}: pip install 'speaker-reasoner[simulate]', and "
                "the system packages flite, festival, festvox-kallpc16k, festvox-kdlpc16k, "
                "festvox-us-slt-hts"
            )
    voices = bank(BANK, folder)
    drawn = [meeting(voices, MEETINGS, f"held-out {i}") for i in range(count)]
    return [HeldOut(one, reference(one, f"heldout-{i:03d}")) for i, one in enumerate(drawn)]


def reference(meeting: Meeting, name: str) -> Transcript:
    """Return the true transcript of a simulated meeting."""
    segments = tuple(
        Segment(
            f"Speaker{s.speaker}",
            to_seconds(s.start_samples),
            to_seconds(s.end_samples),
            s.text,
            s.gender,
        )
        for s in meeting.spoken
    )
    return Transcript(name, to_seconds(len(meeting.samples)), segments)

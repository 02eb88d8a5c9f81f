"""The user's options of transcription, the same for files, data sets and a server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.base import Engine
from ..voices.enrolment import enrol
from ..voices.people import EnrolledSpeaker
from .channels import MIXED
from .transcriber import Transcriber


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of transcription as the user gives them.

    Attributes:
        answer: `assembled` builds the transcript from the turns; with `model` the model writes it once
            more.
        batch: dialogues at once.
        channel: 0-based channel to listen to; all mixed down if `None`.
        channels: `mix`, or `separate`: one speaker a channel.
        track: 0-based sound track; the default one if `None`.
        vad: name of the speech detector, as `Engine.detector` takes it.
        cache: whether the speaker cache is used; the profile decides if `None`.
        witness: name of the witness, as `Engine.witness` takes it.
        speakers: fewest and most people in a recording.
        voice: clips of people, as `NAME=FILE`.
        voices: folder of a voice store; everybody in it is enrolled.
    """

    answer: str = "assembled"
    batch: int = 4
    channel: int | None = None
    channels: str = MIXED
    track: int | None = None
    vad: str = "auto"
    cache: bool | None = None
    witness: str = "auto"
    speakers: tuple[int, int] | None = None
    voice: tuple[str, ...] = ()
    voices: Path | None = None

    def transcriber(self, engine: Engine) -> Transcriber:
        """Make a transcriber with these options; raises as `Transcriber`."""
        return Transcriber(
            engine,
            answer=self.answer,
            batch=self.batch,
            channel=self.channel,
            channels=self.channels,
            track=self.track,
            cached=self.cache,
            witness=self.witness,
            detect=self.vad,
        )

    def enrolled(self, transcriber: Transcriber) -> list[EnrolledSpeaker]:
        """Load the enrolled speakers; raises as `enrol`."""
        if not self.voice and self.voices is None:
            return []
        return enrol(self.voice, self.voices, transcriber.settings.witness)

    def to_json(self) -> dict[str, Any]:
        """The options as JSON, for stored results."""
        return {
            "answer": self.answer,
            "batch": self.batch,
            "channel": self.channel,
            "channels": self.channels,
            "track": self.track,
            "vad": self.vad,
            "cache": self.cache,
            "witness": self.witness,
            "speakers": self.speakers,
            "voice": list(self.voice),
            "voices": None if self.voices is None else str(self.voices),
        }

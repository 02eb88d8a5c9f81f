"""Recordings of any length: chunks, coverage, resumption, one or many at a time."""

from ..voices.cache import CacheRules
from ..voices.linking import Trust
from ..voices.people import EnrolledSpeaker
from .batch import Batch, Item, Result
from .channels import AnyRecording, SeparateChannels
from .chunks import chunks
from .options import Options
from .recording import Failure, Listener, Progress, RecordingState, TranscriptionSettings
from .transcriber import Transcriber

__all__ = [
    "AnyRecording",
    "Batch",
    "CacheRules",
    "EnrolledSpeaker",
    "Failure",
    "Item",
    "Listener",
    "Options",
    "Progress",
    "RecordingState",
    "Result",
    "SeparateChannels",
    "Transcriber",
    "TranscriptionSettings",
    "Trust",
    "chunks",
]

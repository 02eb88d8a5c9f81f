"""Recordings of any length: chunks, the speaker cache, who is who, coverage, resumption."""

from ..voices.cache import CacheRules
from ..voices.linking import Trust
from ..voices.people import EnrolledSpeaker
from .chunks import chunks
from .recording import Failure, Listener, Progress, Recording, TranscriptionSettings
from .transcriber import Transcriber

__all__ = [
    "CacheRules",
    "EnrolledSpeaker",
    "Failure",
    "Listener",
    "Progress",
    "Recording",
    "Transcriber",
    "TranscriptionSettings",
    "Trust",
    "chunks",
]

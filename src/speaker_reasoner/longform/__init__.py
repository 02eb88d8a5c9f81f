"""Recordings of any length: chunks, the speaker cache, who is who, coverage, resumption."""

from .cache import CacheRules
from .chunks import chunks
from .linking import Trust
from .recording import Failure, Listener, Progress, Recording, Settings
from .speakers import Voice
from .transcriber import Transcriber

__all__ = [
    "CacheRules",
    "Failure",
    "Listener",
    "Progress",
    "Recording",
    "Settings",
    "Transcriber",
    "Trust",
    "Voice",
    "chunks",
]

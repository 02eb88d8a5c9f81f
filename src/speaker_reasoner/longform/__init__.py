"""Recordings of any length: chunks, coverage, resumption, one or many at a time."""

from ..voices.cache import CacheRules
from ..voices.linking import Trust
from ..voices.people import Voice
from .batch import Batch, Item, Result
from .chunks import chunks
from .options import Options
from .recording import Failure, Listener, Progress, Recording, Settings
from .transcriber import Transcriber

__all__ = [
    "Batch",
    "CacheRules",
    "Failure",
    "Item",
    "Listener",
    "Options",
    "Progress",
    "Recording",
    "Result",
    "Settings",
    "Transcriber",
    "Trust",
    "Voice",
    "chunks",
]

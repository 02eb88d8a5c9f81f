"""Evaluation: a hypothesis against its reference, as counts that add up over recordings."""

from .counts import (
    BoundaryCounts,
    Counts,
    DiarizationCounts,
    ErrorCounts,
    JaccardCounts,
    MeanError,
)
from .normalisation import Normalisation
from .scores import CONVENTIONS, Scores, score, total

__all__ = [
    "CONVENTIONS",
    "BoundaryCounts",
    "Counts",
    "DiarizationCounts",
    "ErrorCounts",
    "JaccardCounts",
    "MeanError",
    "Normalisation",
    "Scores",
    "score",
    "total",
]

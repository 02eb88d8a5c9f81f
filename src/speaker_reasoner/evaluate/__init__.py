"""Evaluation: a hypothesis against its reference, as counts that add up over recordings."""

from .scores import (
    CONVENTIONS,
    Counts,
    DiarizationCounts,
    ErrorCounts,
    Scores,
    bootstrap,
    normalise,
    score,
    total,
)

__all__ = [
    "CONVENTIONS",
    "Counts",
    "DiarizationCounts",
    "ErrorCounts",
    "Scores",
    "bootstrap",
    "normalise",
    "score",
    "total",
]

"""Both sides of an evaluation as they are read: transcripts by session, and what readers noticed."""

from ..formats.folders import load

__all__ = ["load"]

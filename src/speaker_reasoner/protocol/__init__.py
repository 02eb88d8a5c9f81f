"""The dialogue's language: profiles, prompts, rendering, parsing, and the trace."""

from .profile import PROFILE_FILE, Profile, load_profile, released_profile
from .trace import (
    Answer,
    Audio,
    CacheEntry,
    Part,
    Text,
    TokenizedPart,
    Trace,
    observe,
    opening,
    pieces,
)
from .turns import Box, Line, Overview, Turn, parse_turn, render_turn

__all__ = [
    "PROFILE_FILE",
    "Answer",
    "Audio",
    "Box",
    "CacheEntry",
    "Line",
    "Overview",
    "Part",
    "Profile",
    "Text",
    "TokenizedPart",
    "Trace",
    "Turn",
    "load_profile",
    "observe",
    "opening",
    "parse_turn",
    "pieces",
    "released_profile",
    "render_turn",
]

"""Transcripts as files to download, with the options of captions; and their warnings as a header."""

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from ..formats import FORMATS, render
from ..formats.minutes import render_docx
from ..formats.reading import Habits, render_ass, render_srt_to_read, render_vtt_to_read
from ..formats.table import unknown_format
from ..transcript import Transcript

SUFFIXES = {
    **{name: known.suffix for name, known in FORMATS.items()},
    "docx": ".docx",
}
"""Suffixes of files by format."""
_TO_READ = {"srt": render_srt_to_read, "vtt": render_vtt_to_read, "ass": render_ass}
_HEADER_CHARS = 4000


class Export(BaseModel):
    """Format and options of an exported transcript."""

    model_config = ConfigDict(extra="forbid")

    format: str = Field("json", description=f"One of {', '.join(SUFFIXES)}.")
    genders: bool = Field(True, description="Whether names come with the gender.")
    whole_lines: bool = Field(
        False,
        description="`srt` and `vtt`: a cue for each line of the transcript, however long, in place of "
        "cues that can be read.",
    )
    line_chars: int = Field(42, ge=8, le=200, description="Captions: characters of a line.")
    lines: int = Field(2, ge=1, le=4, description="Captions: lines of a cue.")
    longest: float = Field(7.0, ge=1, le=60, description="Captions: seconds of a cue.")
    chars_per_second: float = Field(20.0, ge=1, le=100, description="Captions: that can be read.")

    @property
    def habits(self) -> Habits:
        return Habits(
            self.line_chars, self.lines, self.longest, self.chars_per_second, self.genders
        )


def export(transcript: Transcript, asked: Export) -> tuple[bytes, str]:
    """Render a transcript; return the content of a file and its suffix.

    Raises:
        FormatError: there is no such format.
    """
    if asked.format not in SUFFIXES:
        raise unknown_format(asked.format, SUFFIXES)
    if asked.format == "docx":
        return render_docx(transcript), SUFFIXES["docx"]
    if asked.format in _TO_READ and not (asked.whole_lines and asked.format != "ass"):
        return _TO_READ[asked.format](transcript, asked.habits).encode(), SUFFIXES[asked.format]
    if not asked.genders and asked.format != "json":
        segments = [replace(segment, gender="unknown") for segment in transcript.segments]
        transcript = transcript.with_segments(segments)
    return render(transcript, asked.format).encode(), SUFFIXES[asked.format]


def warnings_header(warnings: Sequence[str]) -> dict[str, str]:
    """Return the header `X-Warnings`: a JSON list in ASCII, cut at whole warnings; no header without any."""
    kept: list[str] = []
    for warning in warnings:
        if len(json.dumps([*kept, warning])) > _HEADER_CHARS:
            break
        kept.append(warning)
    return {"x-warnings": json.dumps(kept)} if kept else {}

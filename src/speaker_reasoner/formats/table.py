"""The table of formats: name, suffix, renderer, parser. Files are read and written elsewhere."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import FormatError
from ..transcript import Transcript
from .ctm import parse_ctm, render_ctm
from .native import parse_json, render_json
from .plain import render_markdown, render_txt
from .reading import Habits, render_ass
from .scoring import parse_rttm, parse_seglst, parse_stm, render_rttm, render_seglst, render_stm
from .subtitles import parse_srt, parse_vtt, render_srt, render_vtt
from .textgrid import parse_textgrid, render_textgrid


@dataclass(frozen=True, slots=True)
class Format:
    """A format of transcripts: its name, suffix, renderer and parser.

    Attributes:
        name: as the user gives it.
        suffix: how its files end, with the dot.
        render: transcript to the whole text of a file.
        parse: text of a file and its name (for messages, and where the format has no other name
            for the recording) to transcripts, one per session found; `None` if it is write-only.
    """

    name: str
    suffix: str
    render: Callable[[Transcript], str]
    parse: Callable[[str, str], list[Transcript]] | None = None


FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        Format("json", ".json", render_json, parse_json),
        Format("seglst", ".seglst.json", render_seglst, parse_seglst),
        Format("rttm", ".rttm", render_rttm, parse_rttm),
        Format("stm", ".stm", render_stm, parse_stm),
        Format("ctm", ".ctm", render_ctm, parse_ctm),
        Format("srt", ".srt", render_srt, parse_srt),
        Format("vtt", ".vtt", render_vtt, parse_vtt),
        Format("ass", ".ass", lambda transcript: render_ass(transcript, Habits())),
        Format("textgrid", ".TextGrid", render_textgrid, parse_textgrid),
        Format("txt", ".txt", render_txt),
        Format("md", ".md", render_markdown),
    )
}


def find_format(name: str) -> Format:
    """Return the format of this name.

    Raises:
        FormatError: there is none; the message lists those there are.
    """
    if name in FORMATS:
        return FORMATS[name]
    raise unknown_format(name, FORMATS)


def unknown_format(name: str, known: Iterable[str]) -> FormatError:
    """The error for a name that is no format's, with those there are."""
    near = difflib.get_close_matches(name.lower().lstrip("."), known := list(known), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return FormatError(f"unknown format {name!r}{hint}; known formats: {', '.join(known)}")


def render(transcript: Transcript, format: str) -> str:
    """Return the text of a file that holds `transcript` in `format`, a key of `FORMATS`.

    Raises:
        FormatError: the format is unknown, or cannot express this transcript.
    """
    return find_format(format).render(transcript)

"""Transcripts to and from files: JSON, SegLST, RTTM, STM, CTM, SRT, VTT, TextGrid, TXT, Markdown.

    from speaker_reasoner import formats
    formats.write(transcript, "out", ["json", "rttm"])      # out/<recording>.json, .rttm
    [transcript] = formats.read("out/meeting.json")

`FORMATS` maps each name to its renderer and, where the format carries enough, its parser. Only
`json` keeps everything; the docstring of each renderer says what its format holds and what it
cannot. Times are rounded to milliseconds everywhere but in `json` and `seglst`, which are exact.
Times of words, where a transcript has them, are in `json`, `seglst`, `ctm`, `vtt` and `textgrid`.

This package does no scoring and draws no conclusions from corpus conventions: a speaker id that
ends in `-F` stays as it is, of unknown gender.
"""

from .files import as_json, file_name, legible, read, read_text, write, write_text_atomically
from .table import FORMATS, Format, render

__all__ = [
    "FORMATS",
    "Format",
    "as_json",
    "file_name",
    "legible",
    "read",
    "read_text",
    "render",
    "write",
    "write_text_atomically",
]

"""TXT and Markdown, for people. Neither is read back, neither holds times of words."""

import re

from ..transcript import Segment, Transcript
from .captions import caption
from .clock import reading_time
from .native import speech_s

_MARKDOWN_SPECIAL = re.compile(r"[\\`*_\[\]<>#|~&$]")


def render_txt(transcript: Transcript) -> str:
    """Render plain text: `[00:00.52 - 00:03.40] Speaker1 (female): text`, one segment per line.

    Times are minutes, seconds and hundredths, with hours in front from the first hour on. After the
    lines follow the stretches that were not transcribed, then the warnings.
    """
    lines = [
        f"{_times(segment)} {_one_line(caption(segment.speaker, segment.gender))}: "
        f"{_one_line(segment.text)}".rstrip()
        for segment in transcript.segments
    ] or ["(no speech)"]
    notes = _notes(transcript)
    return "".join(f"{line}\n" for line in [*lines, *([""] if notes else []), *notes])


def render_markdown(transcript: Transcript) -> str:
    """Render Markdown: heading, duration, table of speakers, notes, then the lines as a list.

    The table gives label, gender, seconds of speech (own overlaps counted once) and the share of
    all speakers' speech. Notes are the stretches that were not transcribed, and the warnings.
    Characters with a meaning in Markdown or HTML are escaped.
    """
    genders = transcript.genders
    speech = speech_s(transcript)
    total_s = sum(speech.values())
    lines = [f"# {_escape(transcript.recording)}".rstrip(), ""]
    lines += [f"Duration: {reading_time(transcript.duration_s)}", ""]
    if speech:
        lines += ["| Speaker | Gender | Speech | Share |", "| --- | --- | ---: | ---: |"]
        lines += [
            f"| {_escape(speaker)} | {genders[speaker]} | {reading_time(seconds)} "
            f"| {100 * seconds / total_s:.1f} % |"
            for speaker, seconds in speech.items()
        ]
        lines.append("")
    for note in _notes(transcript):
        lines += [f"> {_escape(note)}", ""]
    for segment in transcript.segments:
        gender = "" if segment.gender == "unknown" else f" ({segment.gender})"
        label = f"**{_escape(segment.speaker)}**{gender}"
        lines.append(f"- {_times(segment)} {label}: {_escape(segment.text)}".rstrip())
    if not transcript.segments:
        lines.append("No speech.")
    return "".join(f"{line}\n" for line in lines)


def _times(segment: Segment) -> str:
    return f"[{reading_time(segment.start_s)} - {reading_time(segment.end_s)}]"


def _notes(transcript: Transcript) -> list[str]:
    gaps = [
        f"Not transcribed: [{reading_time(gap.start_s)} - {reading_time(gap.end_s)}] "
        f"{_one_line(gap.reason)}".rstrip()
        for gap in transcript.missing
    ]
    return gaps + [f"Warning: {_one_line(warning)}" for warning in transcript.warnings]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\g<0>", _one_line(text))

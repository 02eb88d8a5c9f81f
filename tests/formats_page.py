# ruff: noqa: E501
"""The page docs/formats.md: features that formats keep are tried, all else is listed here and tested.

python -m tests.formats_page      # writes it anew
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from speaker_reasoner import formats
from speaker_reasoner.formats.folders import INPUTS
from speaker_reasoner.formats.services import SERVICE_FORMATS
from speaker_reasoner.transcript import Confidence, Missing, Segment, Transcript, Word

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"

FULL = Transcript(
    "meeting",
    9.0,
    (
        Segment(
            "Ana María",
            0.5001,
            2.0,
            'she said "no", we met',
            "female",
            Confidence(0.9, 0.8, 0.7),
            (
                Word("she", 0.5001, 0.8),
                Word("said", 0.9, 1.0),
                Word('"no",', 1.0, 1.3, 0.5),
                Word("we", 1.4, 1.6),
                Word("met", 1.6, 2.0),
            ),
        ),
        Segment("Bob", 1.5, 3.0, "gonna go", "male", choices=(("gonna", "going to"), ("go",))),
        Segment("Bob", 2.5, 3.5, "", "male"),
    ),
    missing=(Missing(6.0, 7.0, "too loud"),),
    warnings=("do not trust it",),
    unscored=((4.0, 5.0),),
)
"""A transcript that has everything."""


def _rows(transcript: Transcript, *parts: str) -> list[tuple[object, ...]]:
    """Chosen parts of its segments; those without words last, where a format has them."""
    return [tuple(getattr(s, part) for part in parts) for s in transcript.segments]


def _near(one: Transcript, other: Transcript, within_s: float) -> bool:
    pairs = zip(_rows(one, "start_s", "end_s"), _rows(other, "start_s", "end_s"), strict=False)
    same = len(one.segments) == len(other.segments)
    return same and all(abs(a - b) <= within_s for x, y in pairs for a, b in zip(x, y, strict=True))  # type: ignore[operator]


def _words(transcript: Transcript) -> list[tuple[str, int]]:
    return [(w.text, round(1000 * w.start_s)) for s in transcript.segments for w in s.words or ()]


KEPT: dict[str, Callable[[Transcript], bool]] = {
    "words": lambda t: " ".join(t.text.split()) == " ".join(FULL.text.split()),
    "speakers": lambda t: (
        [str(name).replace("_", " ") for (name, *_) in _rows(t, "speaker")]
        == [str(name).replace("_", " ") for (name, *_) in _rows(FULL, "speaker")]
    ),
    "genders": lambda t: set(t.genders.values()) == {"female", "male"},
    "segments": lambda t: _near(t, FULL, 0.001),
    "exact times": lambda t: _near(t, FULL, 0.0),
    "times of words": lambda t: _words(FULL)[1:] == [w for w in _words(t) if w in _words(FULL)[1:]],
    "confidences": lambda t: _rows(t, "confidence") == _rows(FULL, "confidence"),
    "alternatives": lambda t: any(s.choices for s in t.segments),
    "out of scoring": lambda t: t.unscored == FULL.unscored,
    "duration": lambda t: t.duration_s == FULL.duration_s,
    "name": lambda t: t.recording == FULL.recording,
    "missing, warnings": lambda t: (t.missing, t.warnings) == (FULL.missing, FULL.warnings),
}
"""Features of a transcript, each with a test that it was kept."""


def kept(name: str) -> dict[str, bool]:
    """Return which features of `FULL` are kept when it is written and read."""
    known = formats.FORMATS[name]
    assert known.parse is not None
    [back] = known.parse(known.render(FULL), f"other{known.suffix}")
    return {what: test(back) for what, test in KEPT.items()}


PRIMING = {"aac": 1024, "libmp3lame": 1105, "mp2": 481}
"""Samples that FFmpeg's encoders put first; `test_clock` measures them."""
UNSTATED: dict[str, tuple[str, str, dict[str, str]]] = {
    "ADTS": ("adts", "aac", {}),
    "MPEG-TS": ("mpegts", "aac", {}),
    "FLV": ("flv", "aac", {}),
    "LATM": ("latm", "aac", {}),
    "live (fragmented) mp4": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "AVI": ("avi", "libmp3lame", {}),
    "ASF": ("asf", "libmp3lame", {}),
    "MP3 in WAV": ("wav", "libmp3lame", {}),
    "MP2": ("mp2", "mp2", {}),
}
"""Containers that do not state them, each with its name in FFmpeg, a codec, and options of the container."""


@dataclass(frozen=True)
class Row:
    """A behaviour of another tool, and its consequence for those who use both."""

    tool: str
    does: str
    so: str


TOOLS = (
    Row("lhotse 1.33", "`SupervisionSet.from_rttm` cannot read our SPKR-INFO lines, and takes RTTM's channel 1 for its own second one", "`grep ^SPEAKER`; give it our SegLST or a manifest"),
    Row("MeetEval 0.4.3", "takes every line of an RTTM for a turn", "`grep ^SPEAKER`"),
    Row("MeetEval 0.4.3", "tcpWER compares the middle of a hypothesis word with the reference word and its collar", "so does ours"),
    Row("sclite (SCTK)", "does not sort an STM: words go to the segment that stands first in the file", "our STM is in order of time"),
    Row("sclite (SCTK)", "gives a word to the segment that holds its middle, one in a gap to the next segment; scores tokens of type `fp` and `non-lex`; keeps optional words compulsory without `-D`, and compares their parentheses: `(uh)` is not `uh`", "`evaluate score --as sclite` does the last; our word errors are of all words in order, and `non-lex` is left out, with a warning"),
    Row("md-eval (SCTK)", "scores files that its UEM does not name, and no false alarm in a file without reference speech; without a UEM, from the first to the last turn of the reference", "`evaluate score --as md-eval`; otherwise the whole recording is scored"),
    Row("md-eval (SCTK)", "a turn of no length is nobody's speech, but its border has a collar", "so it is here"),
    Row("md-eval (SCTK)", "scores nothing behind a NOSCORE that no turn of the reference follows; maps speakers by all time, that of collars with it", "the time behind a NOSCORE is scored; speakers are mapped by the time that is scored, as in pyannote.metrics"),
    Row("dscore", "maps speakers for the JER so that its sum is least; refuses turns of no length", "the JER is mapped so, too"),
    Row("pyannote.metrics 4.2", "DER of an empty reference is 1.0; maps speakers for the JER as for the DER; time in which a speaker overlaps themselves counts twice", "ours is infinite where there are errors; the JER follows dscore; such time counts once, as in md-eval"),
    Row("Whisper's normaliser", "makes `50 clock` of 5 o'clock, `0 brien` of O'Brien, nothing of mm-hmm, `1234` of one two three four", "the step `numbers` keeps apostrophes and mm-hmm, and joins digits as it does; `--as whisper` is the whole of it"),
    Row("wetext 0.1.8", "reads 3-2 as a subtraction, 4S as four seconds", "the step `numbers` for Chinese does as it does, on both sides"),
    Row("pysubs2 1.8", "loses the voices of WebVTT, and reads a NOTE as words", "our SRT keeps speakers as `Name: words`"),
    Row("ttconv 1.2", "cuts overlapping cues apart and repeats their words; loses voices", "read from its output, repeated words are insertions: the file does not mark them"),
    Row("srt 3.5", "`compose` leaves out cues without text or length", "ours last 1 ms at least"),
    Row("praatio 6.2, tgt 1.5", "strip labels, and take one of spaces for silence", "so do we; speech without words is `<speech>`"),
    Row("pympi 1.71", "lets a tier overlap itself", "we write no .eaf; our TextGrid has a second tier for that"),
    Row("FFmpeg's encoders", f"begin with samples of their own (AAC {PRIMING['aac']:,}, MP3 {PRIMING['libmp3lame']:,}, MP2 {PRIMING['mp2']}), which mp4, ogg, Matroska since FFmpeg 6 and MP3 with a Xing header state, and {', '.join(UNSTATED)} do not: sound comes up to {1000 * PRIMING['libmp3lame'] / 48_000:.0f} ms late at 48 kHz, {1000 * PRIMING['libmp3lame'] / 16_000:.0f} ms at 16 kHz", "the file does not state it"),
)  # fmt: skip
"""How other tools differ."""

SOUND = (
    ("sound that starts after the picture, muted stretches, packets that were never sent", "silence; every time behind keeps its place"),
    ("edit lists, priming and padding samples", "as the container states them"),
    ("timestamps that go back, or leap by half a day", "read on without a gap, with a warning"),
    ("several sound tracks", "the one marked as default, else the first, with a warning; `--track N`"),
    ("channels of which one is the other upside down", "their mean, with a warning; `--channel N`"),
    ("files joined to one (wav, aiff, au, caf, w64, flac, tta, mp3, ogg, matroska, mp4, asf, flv)", "read one after the other, also of other rates, with a warning but for frames and pages that join by design (mp3, ogg)"),
    ("a wav or w64 header that states too little (a crash, a pipe, 4 GiB)", "all of the sound, with a warning; packed codings are refused"),
    ("a wav (also RF64, BW64), aiff, au, caf, w64, NIST SPHERE, flac, matroska, mp4, avi, asf, flv, ogg file, or an mp3 with a Xing header, that was cut off", "an error"),
    ("an mp3 without a Xing header, mp2, aac, ac3, mpegts or a live WebM that was cut off", "a shorter recording: the file does not state its length"),
    ("bytes behind its sound that are no sound, no tag, no padding and no element that may stand there", "left out, with a warning; behind a live WebM, aac and mpegts only where FFmpeg stumbles over them"),
    ("packets that cannot be decoded", "silence and a warning up to 0.25 s, above that an error"),
    ("a level under -26 dB in its loudest 0.2 s", "a warning: the words may be others than at a usual level"),
)  # fmt: skip
"""How irregular sound is read; test_clock.py tests each."""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    """The page as it should be."""
    readable = [name for name, known in formats.FORMATS.items() if known.parse]
    written = ", ".join(f"`{name}`" for name in formats.FORMATS if name not in readable)
    marks = {name: kept(name) for name in readable}
    rows = [(what, *("yes" if marks[name][what] else "–" for name in readable)) for what in KEPT]
    others = [
        (f"`{name}`", ", ".join(f"`{s}`" for s in suffixes) or "by content")
        for name, (suffixes, _) in INPUTS.items()
    ]
    services = ", ".join(dict.fromkeys(kind.name for kind in SERVICE_FORMATS))
    tools = [(row.tool, row.does, row.so) for row in TOOLS]
    return f"""# Formats

`python -m tests.formats_page` writes this page; what a format keeps is tried while it does.

## Transcripts written and read

What a transcript keeps when it is written and read (written only: {written}):

{_table(("", *readable), rows)}

RTTM, STM and CTM write `_` for white space in labels. A format takes what looks like its own marks for them: braces
and single words in parentheses in STM; SRT writes `&#60;i>` for a `<i>` in a text. CTM holds words, whose segments are divided at pauses; it estimates the times of words that have none.

## Transcripts read

A file's suffix, in any case, or its content determines the format; `--reference-format` and `--hypothesis-format` override it.

{_table(("format", "files"), others)}

`services` is the JSON, or JSON lines, of {services}, and manifests of NeMo.
Each channel is a speaker. Optional keys may be missing; segments without a speaker are given to `unknown`, with a warning. Whole
numbers at which a word takes half a minute are refused, since they are milliseconds.
Of a manifest of NeMo with `text` and `pred_text`, a reference reads the former and a hypothesis the latter, with a warning.
`txt` is text with times: `Ana Moe  0:04` (Otter, Teams), `Speaker 1 (00:04):` (Rev), `[00:04] Ana: hello`, a time alone on a
line (Meet), the ranges that Whisper's programs print, and what `txt` writes. Most have no ends: a line then lasts to the next later
start, with a warning. Times of the day are refused: captions that Zoom saved, and texts whose first time is at five hours or later;
from one hour on there is a warning. A text file with captions in it is read as `srt` or `vtt`.
A cue of captions begins at its timing line; formatting is taken off; lines that roll from cue to cue are read once. A name before a colon
is a speaker if it recurs or every cue has one, and so is a name in brackets, or alone on the first line, of every cue. Where names come at changes of
the speaker alone, cues without one are of whoever spoke before, with a warning. At `>>` another
person speaks: without a name behind it that person is `unknown`, like all others, with a warning. An event of ASS belongs to its
Name. A `table` has columns such as `start`, `end`, `speaker`, `text`, and one
recording. LRC's lines last to the next time. Lines that
are almost timings (`->`) are refused. Sounds in brackets are words, with a warning. Tiers of words of forced aligners
are grouped into segments, phones are not read. Whatever was left out or changed is a warning, which
`evaluate score` prints and stores.

## Directives of references

| directive | what is scored |
| --- | --- |
| `ignore_time_segment_in_scoring` (STM), NOSCORE (RTTM), `--uem` | neither side's words and time there; a word goes by its middle (sclite, md-eval); of a UEM the stretches of all channels are scored, with a warning |
| `{{ a / b / @ }}` (STM), `<ALT_BEGIN>` (CTM) | the alternative that needs the fewest edits of all words in order |
| `(uh)` (STM) | optional: counts as said where it is not (sclite -D) |
| a turn of no length | nobody's speech; its border has a collar (md-eval) |

`prepare` teaches the first alternative, and nothing of what is out of scoring.

## Sound

{_table(("what a file has", "what becomes of it"), list(SOUND))}

## Other tools

{_table(("tool", "what it does", "what follows"), tools)}
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

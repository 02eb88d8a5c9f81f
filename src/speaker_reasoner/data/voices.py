"""A voice bank: utterances from offline synthesisers, with word times and the speaker's gender.

Two families run in-process: espeak-ng (formant synthesis, from the wheel `espeakng-loader`) and
flite (recorded units and statistical voices, from the system's libflite); festival runs as one
process for a list of sentences where it is installed. A *base* is a synthesiser's voice; whole
bases are held out for evaluation. A *voice* is one person: a base with their own pitch, rate and
vocal tract length (the waveform played `warp` times faster).

Does not mix voices into meetings: see `simulate`.
"""

import ctypes
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from ..audio import SAMPLE_RATE_HZ
from ..errors import DataError

Samples = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Base:
    """A synthesiser's voice."""

    family: str
    variant: str
    gender: str
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Voice:
    """One simulated person.

    Attributes:
        name: unique within a bank.
        base: the synthesiser's voice it is made from.
        pitch: espeak's pitch value (0..99), or flite's and festival's mean F0 in Hz.
        rate: espeak's words per minute, or flite's and festival's duration stretch.
        warp: factor by which the waveform is played faster: a shorter vocal tract.
    """

    name: str
    base: Base
    pitch: float
    rate: float
    warp: float


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its times in samples of its utterance."""

    text: str
    start_samples: int
    end_samples: int


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence by one voice: samples `[n]` at 16 kHz, peak 0.5, trimmed to the speech."""

    voice: Voice
    text: str
    words: tuple[Word, ...]
    samples: Samples


Speech = tuple[Samples, int, list[tuple[float, float]]]
"""What a synthesiser returns: samples, rate in Hz, (start_s, end_s) of each word."""

_ESPEAK_MALE = (
    "Andy Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed Alex "
    "adam antonio benjamin boris david ed edward ian john m1 m2 m3 m4 m5 m6 m7 m8 marcelo max "
    "michel miguel norbert pablo paul pedro sandro travis victor klatt2 klatt3"
)
_ESPEAK_FEMALE = "Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 linda steph steph2 steph3"
_ESPEAK_HELD_OUT = "f4 Andrea linda m4 edward Hugo david pablo Reed"
_ACCENTS = ("en-us", "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc")

BASES: tuple[Base, ...] = (
    *(Base("espeak", v, "male", v in _ESPEAK_HELD_OUT.split()) for v in _ESPEAK_MALE.split()),
    *(Base("espeak", v, "female", v in _ESPEAK_HELD_OUT.split()) for v in _ESPEAK_FEMALE.split()),
    Base("flite", "kal16", "male"),
    Base("flite", "awb", "male"),
    Base("flite", "slt", "female"),
    Base("flite", "rms", "male", held_out=True),
    Base("festival", "cmu_us_slt_arctic_hts", "female"),
    Base("festival", "kal_diphone", "male"),
    Base("festival", "ked_diphone", "male", held_out=True),
)


def available(family: str) -> bool:
    """Whether a family of synthesisers can be used on this machine."""
    try:
        match family:
            case "espeak":
                _espeak()
            case "flite":
                _flite()
            case "festival":
                return shutil.which("festival") is not None
            case _:
                raise DataError(f"unknown family of voices {family!r}")
    except (ImportError, OSError):
        return False
    return True


def draw_voice(rng: random.Random, name: str, base: Base) -> Voice:
    """Draw a person for a base: pitch, rate and vocal tract within what fits the gender."""
    female = base.gender == "female"
    warp = rng.uniform(0.97, 1.14) if female else rng.uniform(0.90, 1.06)
    if base.family == "espeak":
        pitch = rng.uniform(30, 72) if female else rng.uniform(15, 65)
        return Voice(name, base, round(pitch), round(rng.uniform(145, 190)), warp)
    pitch = rng.uniform(165, 220) if female else rng.uniform(85, 135)
    return Voice(name, base, round(pitch), round(rng.uniform(0.85, 1.1), 2), warp)


def speak(voice: Voice, sentences: Sequence[str]) -> list[Utterance | None]:
    """Synthesise sentences; `None` where the synthesiser's word events do not fit the words.

    Raises:
        DataError: the voice's family is not installed.
    """
    if not available(voice.base.family):
        raise DataError(
            f"voice {voice.name}: {voice.base.family} is not installed; espeak comes with "
            "`pip install 'speaker-reasoner[simulate]'`, flite and festival with the system's "
            "packages"
        )
    if voice.base.family == "festival":
        spoken = _speak_festival(voice, sentences)
    else:
        one = _speak_espeak if voice.base.family == "espeak" else _speak_flite
        spoken = [one(voice, sentence) for sentence in sentences]
    return [
        None if speech is None else _finish(voice, sentence, speech)
        for sentence, speech in zip(sentences, spoken, strict=True)
    ]


def _finish(voice: Voice, text: str, speech: Speech) -> Utterance | None:
    """Warp, resample, trim to the words, set the peak."""
    raw, rate_hz, times = speech
    samples = soxr.resample(raw, rate_hz * voice.warp, SAMPLE_RATE_HZ).astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * float(np.abs(samples).max(initial=1e-6)))
    if not len(loud) or len(times) != len(text.split()):
        return None
    first, last = int(loud[0]), int(loud[-1]) + 1
    factor = SAMPLE_RATE_HZ / voice.warp
    words = []
    for word, (start_s, end_s) in zip(text.split(), times, strict=True):
        start = min(max(round(start_s * factor) - first, 0), last - first)
        end = min(max(round(end_s * factor) - first, start), last - first)
        words.append(Word(word, start, end))
    if words[-1].end_samples <= words[-1].start_samples:
        return None
    samples = samples[first:last]
    peak = float(np.abs(samples).max())
    return Utterance(voice, text, tuple(words), (samples * (0.5 / peak)).astype(np.float32))


class _EspeakEvent(ctypes.Structure):
    class _Id(ctypes.Union):
        _fields_ = (
            ("number", ctypes.c_int),
            ("name", ctypes.c_char_p),
            ("string", ctypes.c_char * 8),
        )

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_ESPEAK_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
)
_SYNCHRONOUS, _EVENT_WORD, _EVENT_END = 2, 1, 5
_RATE_PARAMETER, _PITCH_PARAMETER, _CHARS_UTF8 = 1, 3, 1


def _floats(wave: Any, count: int) -> Samples:
    """A copy of a synthesiser's int16 buffer as float32."""
    scaled: Samples = np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / np.float32(32768)
    return scaled


@cache
def _espeak() -> tuple[ctypes.CDLL, int, list[Samples], list[tuple[int, float]], Any]:
    """The library, its rate in Hz, the buffers its callback fills, the callback (kept alive)."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate_hz = library.espeak_Initialize(
        _SYNCHRONOUS, 500, espeakng_loader.get_data_path().encode(), 0
    )
    blocks: list[Samples] = []
    events: list[tuple[int, float]] = []

    def collect(wave: Any, count: int, event: Any) -> int:
        if wave and count > 0:
            blocks.append(_floats(wave, count))
        i = 0
        while event[i].type:
            if event[i].type == _EVENT_WORD:
                events.append((event[i].text_position - 1, event[i].audio_position_ms / 1000))
            elif event[i].type == _EVENT_END:
                events.append((-1, event[i].audio_position_ms / 1000))
            i += 1
        return 0

    callback = _ESPEAK_CALLBACK(collect)
    library.espeak_SetSynthCallback(callback)
    return library, rate_hz, blocks, events, callback


def _speak_espeak(voice: Voice, sentence: str) -> Speech | None:
    library, rate_hz, blocks, events, _ = _espeak()
    blocks.clear()
    events.clear()
    accent = _ACCENTS[sum(voice.name.encode()) % len(_ACCENTS)]
    if library.espeak_SetVoiceByName(f"{accent}+{voice.base.variant}".encode()) != 0:
        raise DataError(f"espeak-ng has no voice {accent}+{voice.base.variant}")
    library.espeak_SetParameter(_RATE_PARAMETER, int(voice.rate), 0)
    library.espeak_SetParameter(_PITCH_PARAMETER, int(voice.pitch), 0)
    text = sentence.encode()
    library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
    library.espeak_Synchronize()
    if not blocks:
        return None
    positions = [match.start() for match in re.finditer(r"\S+", sentence)]
    starts = {position: time_s for position, time_s in events if position >= 0}
    ends = [time_s for position, time_s in events if position < 0]
    samples = np.concatenate(blocks)
    bounds = _word_starts(positions, starts, len(sentence), ends[-1]) if ends else []
    return (samples, rate_hz, list(pairwise(bounds))) if bounds else None


def _word_starts(
    positions: Sequence[int], starts: dict[int, float], length: int, end_s: float
) -> list[float]:
    """Start of each word, then the end; empty where an event fits no word.

    espeak speaks some pairs ("in the") as one word: the start of the second is put in proportion to
    the letters."""
    if positions[0] not in starts or not set(starts) <= set(positions):
        return []
    known = [*sorted(starts.items()), (length + 1, end_s)]
    at, times = zip(*known, strict=True)
    return [float(np.interp(position, at, times)) for position in (*positions, length + 1)]


class _FliteWave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("rate_hz", ctypes.c_int),
        ("count", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _FliteVoice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


@cache
def _flite() -> ctypes.CDLL:
    library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
    for part in ("usenglish", "cmulex"):
        ctypes.CDLL(f"libflite_{part}.so.1", mode=ctypes.RTLD_GLOBAL)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("flite_synth_text", pointer, (text, pointer)),
        ("utt_wave", ctypes.POINTER(_FliteWave), (pointer,)),
        ("utt_relation", pointer, (pointer, text)),
        ("relation_head", pointer, (pointer,)),
        ("item_next", pointer, (pointer,)),
        ("ffeature_float", ctypes.c_float, (pointer, text)),
        ("feat_set_float", None, (pointer, text, ctypes.c_float)),
        ("delete_utterance", None, (pointer,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.flite_init()
    return library


@cache
def _flite_voice(variant: str) -> Any:
    register = getattr(ctypes.CDLL(f"libflite_cmu_us_{variant}.so.1"), f"register_cmu_us_{variant}")
    register.restype, register.argtypes = ctypes.POINTER(_FliteVoice), (ctypes.c_char_p,)
    return register(None)


def _speak_flite(voice: Voice, sentence: str) -> Speech | None:
    library, handle = _flite(), _flite_voice(voice.base.variant)
    features = handle.contents.features
    library.feat_set_float(features, b"int_f0_target_mean", voice.pitch)
    library.feat_set_float(features, b"duration_stretch", voice.rate)
    utterance = library.flite_synth_text(sentence.encode(), ctypes.cast(handle, ctypes.c_void_p))
    wave = library.utt_wave(utterance).contents
    samples = _floats(wave.samples, wave.count)
    rate_hz, times = int(wave.rate_hz), []
    item = library.relation_head(library.utt_relation(utterance, b"Word"))
    first = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
    last = b"R:SylStructure.daughtern.daughtern.R:Segment.end"
    while item:
        times.append((library.ffeature_float(item, first), library.ffeature_float(item, last)))
        item = library.item_next(item)
    library.delete_utterance(utterance)
    return samples, rate_hz, times


_FESTIVAL_SCRIPT = """(voice_{variant})
(Parameter.set 'Duration_Stretch {rate})
(set! int_lr_params
  '((target_f0_mean {pitch}) (target_f0_std 14) (model_f0_mean 170) (model_f0_std 34)))
(define (say text path)
  (set! u (utt.synth (eval (list 'Utterance 'Text text))))
  (utt.save.wave u path 'riff)
  (mapcar (lambda (w) (format t "%f %f\\n" (item.feat w "word_start") (item.feat w "word_end")))
          (utt.relation.items u 'Word))
  (format t "END\\n"))
"""


def _speak_festival(voice: Voice, sentences: Sequence[str]) -> list[Speech | None]:
    with tempfile.TemporaryDirectory() as folder:
        script = _FESTIVAL_SCRIPT.format(
            variant=voice.base.variant, rate=voice.rate, pitch=voice.pitch
        )
        for i, sentence in enumerate(sentences):
            script += f'(say "{sentence}" "{folder}/{i}.wav")\n'
        path = Path(folder) / "say.scm"
        path.write_text(script)
        done = subprocess.run(
            ["festival", "-b", str(path)], capture_output=True, text=True, check=False
        )
        blocks = done.stdout.split("END\n")
        if done.returncode != 0 or len(blocks) != len(sentences) + 1:
            raise DataError(
                f"festival voice {voice.base.variant}: spoke {len(blocks) - 1} of {len(sentences)} "
                f"sentences: {done.stderr.strip()[:200]}"
            )
        spoken: list[Speech | None] = []
        for i, block in enumerate(blocks[:-1]):
            samples, rate_hz = sf.read(f"{folder}/{i}.wav", dtype="float32")
            rows = [line.split() for line in block.splitlines()]
            spoken.append((samples, rate_hz, [(float(a), float(b)) for a, b in rows]))
        return spoken


def median_f0_hz(samples: Samples) -> float:
    """Median fundamental frequency by autocorrelation over voiced 40 ms frames, 60..400 Hz."""
    size, values = 640, []
    low, high = SAMPLE_RATE_HZ // 400, SAMPLE_RATE_HZ // 60
    level = float(np.sqrt(np.mean(samples**2)))
    for start in range(0, len(samples) - size, 320):
        frame = samples[start : start + size]
        if np.sqrt(np.mean(frame**2)) < level:
            continue
        spectrum = np.abs(np.fft.rfft(frame - frame.mean(), 2 * size)) ** 2
        correlation = np.fft.irfft(spectrum)[:size]
        lag = low + int(np.argmax(correlation[low:high]))
        if correlation[lag] > 0.4 * correlation[0]:
            values.append(SAMPLE_RATE_HZ / lag)
    return float(np.median(values)) if values else 0.0

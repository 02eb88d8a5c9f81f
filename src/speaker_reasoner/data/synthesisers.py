"""Offline speech synthesisers; each is one call, from a voice and sentences to speech.

espeak-ng (formants; from the wheel `espeakng-loader`), flite (recorded units and statistical voices)
and RHVoice (statistical voices) run in-process, the latter two from the system's libraries; festival
and SVOX Pico run as processes where they are installed. RHVoice and Pico give no good word
times: they are aligned with flite.
"""

import ctypes
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import DataError
from .alignment import word_times
from .people import SyntheticVoice

Speech = tuple[Samples, int, list[tuple[float, float]]]
"""The result of a synthesiser: samples, rate in Hz, (start_s, end_s) of each word."""

DRAWN = "drawn"
"""Prefix of the names of random espeak variants; the seed follows."""
_ACCENTS = ("en-us", "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc")


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
_VARIANTS = Path("voices", "!v")
_SYNCHRONOUS, _EVENT_WORD, _EVENT_END = 2, 1, 5
_RATE_PARAMETER, _PITCH_PARAMETER, _CHARS_UTF8 = 1, 3, 1


def _floats(wave: Any, count: int) -> Samples:
    """A copy of a synthesiser's int16 buffer as float32."""
    scaled: Samples = np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / np.float32(32768)
    return scaled


@cache
def _espeak_data() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """espeak's data, with a folder of variants that can be added to; it lives as long as the process."""
    import espeakng_loader

    folder = tempfile.TemporaryDirectory(prefix="espeak-")
    here, there = Path(espeakng_loader.get_data_path()), Path(folder.name)
    for inner in (Path(), Path("voices"), _VARIANTS):
        (there / inner).mkdir(exist_ok=True)
        for path in (here / inner).iterdir():
            if path.relative_to(here) not in (_VARIANTS.parent, _VARIANTS):
                (there / inner / path.name).symlink_to(path)
    return there, folder


def _draw_variant(variant: str) -> str:
    """The text of a random variant, within and somewhat beyond the range of espeak's own variants."""
    rng = random.Random(variant)
    female = variant.split("-")[1] == "female"
    size = min(max(rng.gauss(1.12 if female else 1.0, 0.07), 0.85), 1.3)
    low = rng.uniform(110, 190) if female else rng.uniform(60, 110)
    lines = [f"pitch {low:.0f} {low * rng.uniform(1.2, 1.8):.0f}"]
    for formant in range(9):
        frequency = 100 * size * min(max(rng.gauss(1, 0.07), 0.8), 1.2)
        height, width = rng.uniform(60, 140), rng.uniform(70, 160)
        if formant > 5:
            height *= rng.choice([0.2, 0.6, 1.0])
        lines.append(f"formant {formant} {frequency:.0f} {height:.0f} {width:.0f}")
    for share, line in (
        (0.3, f"klatt {rng.randint(1, 6)}"),
        (0.6, f"voicing {rng.randint(40, 160)}"),
        (0.6, f"consonants {rng.randint(50, 125)} {rng.randint(40, 125)}"),
        (0.4, f"roughness {rng.randint(0, 5)}"),
        (0.4, f"flutter {rng.randint(0, 20)}"),
        (0.2, "breath " + " ".join(str(rng.randint(0, 5)) for _ in range(8))),
        (0.3, f"echo {rng.randint(20, 140)} {rng.randint(5, 40)}"),
        (0.5, f"intonation {rng.randint(1, 4)}"),
        (0.3, "stressAdd " + " ".join(str(rng.randint(-20, 120)) for _ in range(8))),
        (
            0.4,
            "tone "
            + " ".join(
                f"{hertz} {rng.randint(30, 255)}"
                for hertz in (
                    rng.randint(100, 600),
                    rng.randint(700, 1500),
                    rng.randint(1800, 3500),
                )
            ),
        ),
    ):
        if rng.random() < share:
            lines.append(line)
    return "\n".join(
        [f"language variant\nname {variant}\ngender {variant.split('-')[1]}", *lines, ""]
    )


@cache
def _espeak() -> tuple[ctypes.CDLL, int, list[Samples], list[tuple[int, float]], Any]:
    """The library, its rate in Hz, the buffers its callback fills, the callback (kept alive)."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 500, str(_espeak_data()[0]).encode(), 0)
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


def _speak_espeak(voice: SyntheticVoice, sentence: str) -> Speech | None:
    library, rate_hz, blocks, events, _ = _espeak()
    blocks.clear()
    events.clear()
    if voice.base.variant.startswith(DRAWN):
        path = _espeak_data()[0] / _VARIANTS / voice.base.variant
        path.write_text(_draw_variant(voice.base.variant), encoding="ascii")
    accent = _ACCENTS[sum(voice.name.encode()) % len(_ACCENTS)]
    # Breathy voices are part noise, which espeak draws by the second in which its process began.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
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


def flite(variant: str, sentence: str, pitch: float, rate: float = 1.0) -> Speech:
    """Synthesise a sentence by one of its voices, at a pitch (mean F0 in Hz) and stretched in time."""
    library, handle = _flite(), _flite_voice(variant)
    features = handle.contents.features
    library.feat_set_float(features, b"int_f0_target_mean", pitch)
    library.feat_set_float(features, b"duration_stretch", rate)
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


def _speak_flite(voice: SyntheticVoice, sentence: str) -> Speech | None:
    return flite(voice.base.variant, sentence, voice.pitch, voice.rate)


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


def _speak_festival(voice: SyntheticVoice, sentences: Sequence[str]) -> list[Speech | None]:
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


_RHVOICE_HZ, _RHVOICE_TEXT = 24_000, 0
_RHVOICE_F0_HZ = {
    "Alan": 139.0,
    "Bdl": 125.0,
    "Clb": 187.0,
    "Evgeniy-Eng": 113.0,
    "Lyubov": 223.0,
    "Slt": 182.0,
}
"""Mean pitch of each of its voices, including those that are not used in training (see `bases.BASES`)."""
_SET_RATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_PLAY = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_uint, ctypes.c_void_p
)


class _RhvoiceSetup(ctypes.Structure):
    _fields_ = (
        ("data_path", ctypes.c_char_p),
        ("config_path", ctypes.c_char_p),
        ("resource_paths", ctypes.c_void_p),
        ("set_sample_rate", _SET_RATE),
        ("play_speech", _PLAY),
        ("other_callbacks", ctypes.c_void_p * 7),
        ("options", ctypes.c_uint),
    )


class _RhvoiceManner(ctypes.Structure):
    _fields_ = (
        ("voice_profile", ctypes.c_char_p),
        *((f"absolute_{name}", ctypes.c_double) for name in ("rate", "pitch", "volume")),
        *((f"relative_{name}", ctypes.c_double) for name in ("rate", "pitch", "volume")),
        ("punctuation_mode", ctypes.c_int),
        ("punctuation_list", ctypes.c_char_p),
        ("capitals_mode", ctypes.c_int),
        ("flags", ctypes.c_int),
    )


@cache
def _rhvoice() -> tuple[ctypes.CDLL, Any, list[Samples], Any]:
    """Return the library, its engine, the buffers its callback fills, and objects to be kept alive."""
    library = ctypes.CDLL("libRHVoice.so.5")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    manner = ctypes.POINTER(_RhvoiceManner)
    for name, result, arguments in (
        ("RHVoice_new_tts_engine", pointer, (ctypes.POINTER(_RhvoiceSetup),)),
        (
            "RHVoice_new_message",
            pointer,
            (pointer, text, ctypes.c_uint, ctypes.c_int, manner, pointer),
        ),
        ("RHVoice_delete_message", None, (pointer,)),
        ("RHVoice_speak", ctypes.c_int, (pointer,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    blocks: list[Samples] = []

    def play(wave: Any, count: int, _: Any) -> int:
        blocks.append(_floats(wave, count))
        return 1

    setup = _RhvoiceSetup(
        set_sample_rate=_SET_RATE(lambda rate_hz, _: int(rate_hz == _RHVOICE_HZ)),
        play_speech=_PLAY(play),
    )
    engine = library.RHVoice_new_tts_engine(ctypes.byref(setup))
    if not engine:
        raise OSError("RHVoice has no voices")
    return library, engine, blocks, setup


def _speak_rhvoice(voice: SyntheticVoice, sentence: str) -> Speech | None:
    library, engine, blocks, _ = _rhvoice()
    blocks.clear()
    text, variant = sentence.encode(), voice.base.variant
    manner = _RhvoiceManner(
        variant.encode(),
        relative_rate=1 / voice.rate,
        relative_pitch=voice.pitch / _RHVOICE_F0_HZ[variant],
        relative_volume=1.0,
    )
    message = library.RHVoice_new_message(
        engine, text, len(text), _RHVOICE_TEXT, ctypes.byref(manner), None
    )
    spoken = bool(message) and library.RHVoice_speak(message)
    library.RHVoice_delete_message(message)
    if not spoken:
        raise DataError(f"RHVoice does not speak as {variant}: is its voice installed?")
    return _timed(np.concatenate(blocks), _RHVOICE_HZ, voice, sentence) if blocks else None


_PICO_F0_HZ = {"en-US": 167.0, "en-GB": 178.0}
"""Mean pitch of each of its voices."""


def _speak_pico(voice: SyntheticVoice, sentence: str) -> Speech | None:
    speed, pitch = 100 / voice.rate, 100 * voice.pitch / _PICO_F0_HZ[voice.base.variant]
    text = f'<speed level="{speed:.0f}"><pitch level="{pitch:.0f}">{sentence}</pitch></speed>'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "said.wav")
        command = ["pico2wave", "-l", voice.base.variant, "-w", str(path), text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DataError(
                f"SVOX Pico does not speak as {voice.base.variant}: {done.stderr.strip()[:200]}"
            )
        samples, rate_hz = sf.read(path, dtype="float32")
    return _timed(samples, rate_hz, voice, sentence)


_ALIKE = {"female": ("slt", 185.0), "male": ("kal16", 105.0)}
"""The flite voice for alignment, and its pitch."""


def _timed(samples: Samples, rate_hz: int, voice: SyntheticVoice, sentence: str) -> Speech | None:
    """Add word times, by alignment with flite's rendition of the sentence."""
    variant, pitch = _ALIKE[voice.base.gender]
    aligned, aligned_hz, times = flite(variant, sentence, pitch)
    if len(times) != len(sentence.split()):
        return None
    here, there = (
        soxr.resample(one, hz, SAMPLE_RATE_HZ)
        for one, hz in ((samples, rate_hz), (aligned, aligned_hz))
    )
    return samples, rate_hz, word_times(here, there, times)


def _each(
    one: Callable[[SyntheticVoice, str], Speech | None],
) -> Callable[..., list[Speech | None]]:
    return lambda voice, sentences: [one(voice, sentence) for sentence in sentences]


FAMILIES: dict[str, tuple[Callable[[], bool], Callable[..., list[Speech | None]]]] = {
    "espeak": (lambda: bool(_espeak()), _each(_speak_espeak)),
    "flite": (lambda: bool(_flite()), _each(_speak_flite)),
    "festival": (lambda: shutil.which("festival") is not None, _speak_festival),
    "rhvoice": (lambda: bool(_rhvoice() and _flite()), _each(_speak_rhvoice)),
    "pico": (lambda: shutil.which("pico2wave") is not None and bool(_flite()), _each(_speak_pico)),
}
"""For each family a check whether it can be used on this machine, and a function by which a voice speaks sentences;
the latter gives `None` where the times of words do not fit the words."""


def available(family: str) -> bool:
    """Return whether a family of synthesisers can be used on this machine.

    Raises:
        DataError: there is no such family.
    """
    if family not in FAMILIES:
        raise DataError(f"unknown family of voices {family!r}; known: {', '.join(FAMILIES)}")
    try:
        return FAMILIES[family][0]()
    except (ImportError, OSError):
        return False

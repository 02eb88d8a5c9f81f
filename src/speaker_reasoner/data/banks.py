"""A voice bank: utterances by voice, from which meetings are simulated, and the rooms of the meetings.

The split is by construction: a bank is built for training or for evaluation, with its own base
voices, its own side of the sentences and its own rooms.
"""

import hashlib
import json
import multiprocessing
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from rich.progress import track

from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import DataError
from . import sentences
from .bases import BASES, base_of, draw_voice, drawn_base, speak
from .bases import median_f0_hz as _median_f0_hz
from .people import Base, SyntheticVoice, Utterance, UtteranceWord
from .synthesisers import available
from .tracts import Tract

_RECORDED = 0.45
"""Share of training voices that come from synthesisers built from recorded speech, if these are installed;
the rest are espeak's many voices. For evaluation all held-out bases are equally likely."""
_WEIGHTS = {"flite": 3.0, "festival": 2.0, "rhvoice": 3.0, "pico": 3.0}
"""Weights with which families are drawn among those."""
_PEOPLE = 5
"""People of each random espeak variant; they differ in pitch and vocal tract alone."""


@dataclass(frozen=True, slots=True)
class BankConfig:
    """Size of a bank, its side of the split, and what is said.

    Attributes:
        drawn: share of espeak's voices that are random variants (training only).
        sentences_from: a text file of sentences, a line each, in place of the grammar's; the same
            file serves both sides, since a sentence's own text decides its side.
    """

    evaluation: bool
    voices: int
    sentences: int
    backchannels: int = 8
    seed: int = 0
    drawn: float = 0.0
    sentences_from: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One utterance of a bank: the place of its samples, its words, whether it is a backchannel."""

    start: int
    end: int
    text: str
    words: tuple[UtteranceWord, ...]
    backchannel: bool

    def length(self, warp: float) -> int:
        """Samples of the utterance when it is played `warp` times faster."""
        return round((self.end - self.start) / warp)


@dataclass
class VoiceBank:
    """Utterances by voice.

    Attributes:
        config: the configuration that it was built from.
        samples: all utterances end to end, int16 `[n]` at 16 kHz.
        voices: the voices.
        f0_hz: median fundamental frequency of each voice.
        entries: the utterances of each voice.
    """

    config: BankConfig
    samples: np.ndarray[Any, np.dtype[np.int16]]
    voices: list[SyntheticVoice]
    f0_hz: list[float]
    entries: list[list[Entry]]

    @cached_property
    def rooms(self) -> list[list[Samples]]:
        """Impulse responses by room, drawn from the bank's seed and side."""
        side = 1 if self.config.evaluation else 0
        return [list(room) for room in _draw_rooms(40, self.config.seed * 2 + side)]

    def utterance(self, entry: Entry, tract: Tract | None = None) -> Samples:
        """Transform an utterance to another vocal tract."""
        samples: Samples = self.samples[entry.start : entry.end].astype(np.float32)
        samples /= np.float32(32768)
        return samples if tract is None else tract.applied(samples, entry.length(tract.warp))

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            [
                [
                    e.start,
                    e.end,
                    e.text,
                    [[w.text, w.start_samples, w.end_samples] for w in e.words],
                    e.backchannel,
                ]
                for e in es
            ]
            for es in self.entries
        ]
        voices = [
            [v.name, v.base.family, v.base.variant, v.pitch, v.rate, v.warp] for v in self.voices
        ]
        c = self.config
        meta = {
            "config": [*astuple(c)],
            "voices": voices,
            "f0_hz": self.f0_hz,
            "entries": rows,
        }
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, samples=self.samples, meta=np.array(json.dumps(meta)))
        temporary.replace(path)


def load_bank(path: Path) -> VoiceBank:
    """Read a bank written by `VoiceBank.save`.

    Raises:
        DataError: the file is missing, damaged, or not a bank of this version.
    """
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            samples, meta = file["samples"], json.loads(str(file["meta"]))
        return VoiceBank(
            BankConfig(*meta["config"]),
            samples,
            [SyntheticVoice(n, base_of(f, v), p, r, w) for n, f, v, p, r, w in meta["voices"]],
            meta["f0_hz"],
            [
                [
                    Entry(a, b, text, tuple(UtteranceWord(*w) for w in words), back)
                    for a, b, text, words, back in row
                ]
                for row in meta["entries"]
            ],
        )
    except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: not a voice bank: {reason}; delete it to build it again"
        ) from error


def bank(config: BankConfig, folder: Path) -> VoiceBank:
    """Load the bank of a configuration from `folder`, or build it and save it there."""
    side = "evaluation" if config.evaluation else "training"
    size = f"{config.voices}x{config.sentences}+{config.backchannels}"
    drawn = f"-drawn-{config.drawn:g}" if config.drawn else ""
    own = ""
    if config.sentences_from:
        said = "\n".join(sum(sentences.read_sentences(config.sentences_from), ()))
        own = f"-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    path = folder / f"bank-{side}-{size}-{config.seed}{drawn}{own}.npz"
    if path.exists():
        return load_bank(path)
    built = build_bank(config)
    built.save(path)
    return built


def build_bank(config: BankConfig) -> VoiceBank:
    """Synthesise a bank on all processors, with a progress bar.

    Raises:
        DataError: no family of synthesisers is installed.
    """
    voices = _draw_voices(config)
    flat: list[np.ndarray[Any, np.dtype[np.int16]]] = []
    f0_hz: list[float] = []
    entries: list[list[Entry]] = []
    at = 0
    jobs = [(config, index, voice) for index, voice in enumerate(voices)]
    # espeak keeps state that no call resets: a process speaks one voice, or the samples of a voice
    # would depend on which ones the same process spoke before.
    with _processes().Pool(maxtasksperchild=1) as pool:
        spoken = track(pool.imap(_speak_one, jobs), description="voices", total=len(jobs))
        for utterances in spoken:
            if not utterances:
                raise DataError(f"voice {voices[len(entries)].name} spoke none of its sentences")
            row = []
            for utterance, backchannel in utterances:
                flat.append(np.round(utterance.samples * 32767).astype(np.int16))
                end = at + len(utterance.samples)
                row.append(Entry(at, end, utterance.text, utterance.words, backchannel))
                at = end
            sample = np.concatenate([u.samples for u, _ in utterances[:4]])
            f0_hz.append(_median_f0_hz(sample))
            entries.append(row)
    return VoiceBank(config, np.concatenate(flat), voices, f0_hz, entries)


def _processes() -> Any:
    """New processes, which share the imported modules if the system can fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "transformers.audio_utils"])
    return context


def _draw_voices(config: BankConfig) -> list[SyntheticVoice]:
    rng = random.Random(f"voices {config.seed} {config.evaluation}")
    usable = [
        base for base in BASES if base.held_out == config.evaluation and available(base.family)
    ]
    if not usable:
        raise DataError("no synthesiser found: pip install 'speaker-reasoner[simulate]'")
    voices: list[SyntheticVoice] = []
    drawn = {"female": 0, "male": 0}
    for i in range(config.voices):
        gender = ("female", "male")[i % 2]
        fitting = [base for base in usable if base.gender == gender]
        weights = [1.0] * len(fitting) if config.evaluation else _weights(fitting)
        base = rng.choices(fitting, weights)[0]
        if config.drawn and base.family == "espeak" and rng.random() < config.drawn:
            base = drawn_base(gender, 1000 * config.seed + drawn[gender] // _PEOPLE)
            drawn[gender] += 1
        voices.append(draw_voice(rng, f"v{i:03d}", base))
    return voices


def _weights(bases: Sequence[Base]) -> list[float]:
    recorded = sum(_WEIGHTS.get(base.family, 0.0) for base in bases)
    drawn = sum(base.family not in _WEIGHTS for base in bases)
    return [
        _RECORDED * _WEIGHTS[base.family] / recorded
        if base.family in _WEIGHTS
        else (1 - _RECORDED) / drawn
        for base in bases
    ]


def _speak_one(job: tuple[BankConfig, int, SyntheticVoice]) -> list[tuple[Utterance, bool]]:
    config, index, voice = job
    rng = random.Random(f"sentences {config.seed} {config.evaluation} {index}")
    side, own = config.evaluation, config.sentences_from
    texts = [
        sentences.draw(rng, evaluation=side, sentences_from=own) for _ in range(config.sentences)
    ]
    texts += rng.sample(sentences.BACKCHANNELS, config.backchannels)
    spoken = speak(voice, texts)
    return [(u, i >= config.sentences) for i, u in enumerate(spoken) if u is not None]


def _draw_rooms(count: int, seed: int) -> Iterator[list[Samples]]:
    """Shoebox rooms with RT60 0.15..0.45 s and four talkers 0.5..2.5 m from one microphone."""
    import pyroomacoustics as pra

    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = rng.uniform([3.0, 3.0, 2.4], [7.0, 6.0, 3.2])
        absorption, order = pra.inverse_sabine(float(rng.uniform(0.15, 0.45)), size)
        room = pra.ShoeBox(
            size, fs=SAMPLE_RATE_HZ, materials=pra.Material(absorption), max_order=min(order, 12)
        )
        microphone = size * rng.uniform(0.35, 0.65, 3)
        room.add_microphone(microphone)
        for _ in range(4):
            direction = rng.normal(size=3)
            direction[2] *= 0.2
            direction /= np.linalg.norm(direction)
            place = microphone + direction * rng.uniform(0.5, 2.5)
            room.add_source(np.clip(place, 0.2, size - 0.2))
        room.compute_rir()
        responses = []
        for response in room.rir[0]:
            direct = int(np.argmax(np.abs(response)))
            cut = np.asarray(response[direct : direct + SAMPLE_RATE_HZ // 2], dtype=np.float32)
            responses.append(cut / float(np.abs(cut[0]) + 1e-9))
        yield responses

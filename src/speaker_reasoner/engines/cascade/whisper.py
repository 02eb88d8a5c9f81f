"""Whisper by faster-whisper (CTranslate2), with guards against its known failures.

Failures of faster-whisper 1.2.1, and the guard of each:

- A segment is stretched over a pause, unless words are timed: words are timed.
- Ends lie past the sound: they are cut.
- With its own voice filter, a window may fail in fragments: it gets speech alone, in packs of up to 29 s, and
  a pack of improbable words is decoded again with a wider beam.
- `chunk_length` stays set for later calls: it is never given.
- A temperature above 0 samples at random: it is 0, so that the same sound gives the same words.
- Pure silence gets a confident language: the language is detected in speech alone.
- A threshold on the probability of no speech skips nothing by itself: each segment is checked here.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ...cores import torch_threads_kept
from ...errors import CheckpointError, EngineError, SettingsError
from ...speech import Region, quietest_cut
from ...transcript import Word
from .chinese import CHINESE, WRITTEN, check_opencc, converted, spoken
from .recogniser import Recognition, known_language

SIZES = (
    *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
    *("large-v1", "large-v2", "large-v3", "large-v3-turbo", "turbo", "distil-large-v3"),
)

_OLDEST = "1.2.1"
_PACK_S = 29.0
"""Most speech that Whisper is given at once; its window is 30 s. Packs and the wide beam lowered the WER of a
podcast (docs/experiments.md, 2026-11-27)."""
_DOUBTFUL = -0.7
"""Words of a lower mean log-probability are decoded again with a wider beam (assumed)."""
_WIDE_BEAM = 5
_LOOP_RATIO = 2.4
"""Text of a higher compression ratio is a loop (Whisper's own threshold)."""
_NO_SPEECH = 0.6
"""Probability of no speech from which doubtful words are taken for noise (Whisper's own threshold)."""
_MOST_REPEATS = 4
"""Most repetitions of a phrase in a row; the others are left out (assumed)."""
_LONGEST_PHRASE = 10
"""Most words of a phrase whose repetitions are counted (assumed)."""
_MARKS = ".,;:!?。，！？、…\"'-"
_UNSURE_WORDS = 0.5
"""Mean word probability below which the language of earlier chunks is doubted (assumed)."""
_OTHER_LANGUAGE = 0.8
"""Probability from which another language is taken instead (assumed)."""

_GPU_REMEDY = "pip install nvidia-cublas-cu12 nvidia-cudnn-cu12"
_CUDA = re.compile("cuda|cublas|cudnn", re.IGNORECASE)
_log = logging.getLogger(__name__)

NOISE, REPEATED, BEYOND = (
    "Whisper itself took the sound for no speech",
    "a phrase was repeated over and over",
    "they lay past the end of the sound",
)


class FasterWhisper:
    """A Whisper model in CTranslate2's format.

    Args:
        model: a size, a local folder or a hub id.
        name: as a transcript records it; the model's by default.
        language: ISO 639-1 code, or one of `chinese.WRITTEN`; recognised if `None`.
        hotwords: names and terms that are likely to occur.
        beam: hypotheses of the search.
        device: `cpu`, `cuda`, `auto`.
        threads: on the CPU.

    Raises:
        CheckpointError: the package is missing, or the model cannot be found or loaded.
        SettingsError: the model does not know the language.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        name: str | None = None,
        language: str | None = None,
        hotwords: str | None = None,
        beam: int = 1,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self.name = name or f"whisper={model}"
        self._model: Any = load_whisper(str(model), device, threads)
        self.languages: tuple[str, ...] = tuple(self._model.supported_languages)
        if CHINESE in self.languages:
            check_opencc(self.name)
            self.languages += tuple(code for code in WRITTEN if code != CHINESE)
        self._language = known_language(self.name, language, self.languages)
        self._hotwords = hotwords
        self._beam = beam

    def describe(self) -> dict[str, Any]:
        """See `Recogniser`."""
        from ctranslate2 import __version__ as engine
        from faster_whisper import __version__ as package

        model = self._model.model
        return {
            "recogniser": self.name,
            "faster_whisper": package,
            "ctranslate2": engine,
            "device": str(model.device),
            "compute_type": str(model.compute_type),
            "beam": self._beam,
            "language_given": self._language,
            "hotwords": self._hotwords,
        }

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        """See `Recogniser`."""
        packs = _packs(samples, speech) if len(samples) else []
        if not packs:
            return Recognition()
        named = self._language or language
        try:
            recognition = self._recognise(samples, packs, spoken(language))
        except (RuntimeError, ValueError) as error:  # CTranslate2's, as they come
            raise EngineError(f"{self.name}: {str(error).splitlines()[0]}") from error
        if recognition.language != CHINESE:
            return recognition
        words = converted(recognition.words, named if named in WRITTEN else CHINESE)
        return replace(recognition, words=tuple(words))

    def _recognise(
        self, samples: Samples, packs: Sequence[Sequence[Region]], language: str | None
    ) -> Recognition:
        given = spoken(self._language)
        recognition = self._hear(samples, packs, given or language)
        if not recognition.words:
            return recognition
        if given is not None:
            return replace(recognition, doubt=self._doubt(_joined(samples, packs[0])))
        if language is not None and _mean(recognition.words) < _UNSURE_WORDS:
            other, sure = self._detect(_joined(samples, packs[0]))
            if other != language and sure >= _OTHER_LANGUAGE:
                return self._hear(samples, packs, other, sure)
        return recognition

    def _doubt(self, samples: Samples) -> str:
        """Warn if the speech is in another language than the named one, in which Whisper writes any speech."""
        other, sure = self._detect(samples)
        if other == spoken(self._language) or sure < _OTHER_LANGUAGE:
            return ""
        return f"a chunk sounds like {other!r} and was transcribed as {self._language!r}, as --language says"

    def _detect(self, samples: Samples) -> tuple[str, float]:
        code, probability, _ = self._model.detect_language(samples)
        return str(code), float(probability)

    def _hear(
        self,
        samples: Samples,
        packs: Sequence[Sequence[Region]],
        language: str | None,
        sure: float = 1.0,
    ) -> Recognition:
        """The words of all packs; a language that is not given is that of the first one."""
        left_out: Counter[str] = Counter()
        words: list[Word] = []
        joined: list[bool] = []
        for pack in packs:
            sound = _joined(samples, pack)
            if not len(sound):
                continue
            segment, info = self._decode(sound, language, self._beam)
            if language is None:
                language, sure = str(info.language), float(info.language_probability)
            if _badness(segment) > (False, -_DOUBTFUL):
                wider, _ = self._decode(sound, language, max(_WIDE_BEAM, self._beam))
                segment = min(segment, wider, key=_badness)
            for timed in self._kept(segment, left_out):
                word = _placed(timed, pack, len(sound) / SAMPLE_RATE_HZ)
                if word is None:
                    left_out[BEYOND] += 1
                    continue
                if words and word.start_s < words[-1].start_s:  # times are in order, at most equal
                    start_s = words[-1].start_s
                    word = replace(word, start_s=start_s, end_s=max(start_s, word.end_s))
                joined.append(not timed.word.startswith(" "))
                words.append(word)
        words, joined = _without_loops(words, joined, left_out)
        if not words:
            return Recognition(left_out=left_out)
        return Recognition(tuple(words), language, round(sure, 4), left_out, tuple(joined))

    def _decode(self, sound: Samples, language: str | None, beam: int) -> tuple[Any, Any]:
        """The words of a pack, as one segment.

        Without time tokens Whisper decodes a pack as a whole. Only the first segment is taken, because
        faster-whisper would then run the encoder once more over the last fraction of a second.
        """
        segments, info = self._model.transcribe(
            sound,
            language=language,
            beam_size=beam,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            without_timestamps=True,
            hotwords=self._hotwords,
        )
        return next(iter(segments), None), info

    def _kept(self, segment: Any, left_out: Counter[str]) -> list[Any]:
        """The words of a segment, unless it is noise to Whisper itself."""
        if segment is None:
            return []
        words = [word for word in segment.words or () if word.word.strip()]
        if segment.no_speech_prob > _NO_SPEECH and segment.avg_logprob < _DOUBTFUL:
            left_out[NOISE] += len(words)
            return []
        return words


def _badness(segment: Any) -> tuple[bool, float]:
    """Return a sort key of hypotheses, the best lowest: loops come last, then the lower probability."""
    if segment is None:
        return False, 0.0
    return segment.compression_ratio > _LOOP_RATIO, -segment.avg_logprob


def _packs(samples: Samples, speech: Sequence[Region]) -> list[list[Region]]:
    """Combine regions to packs of at most `_PACK_S`; a longer region is cut where it is quietest."""
    packs: list[list[Region]] = []
    for region in speech:
        for part in _parts(samples, region):
            held_s = sum(b - a for a, b in packs[-1]) if packs else _PACK_S
            if held_s + part[1] - part[0] <= _PACK_S:
                packs[-1].append(part)
            else:
                packs.append([part])
    return packs


def _parts(samples: Samples, region: Region) -> Iterator[Region]:
    """A region in parts of at most `_PACK_S`, each but the last at least half as long."""
    start_s, end_s = region
    longest = _at(_PACK_S)
    while end_s - start_s > _PACK_S:
        part = samples[_at(start_s) : _at(start_s) + longest]
        cut_s = start_s + quietest_cut(part, longest // 2, longest) / SAMPLE_RATE_HZ
        yield start_s, cut_s
        start_s = cut_s
    yield start_s, end_s


def _joined(samples: Samples, pack: Sequence[Region]) -> Samples:
    return np.concatenate([samples[_at(start_s) : _at(end_s)] for start_s, end_s in pack])


def _at(time_s: float) -> int:
    return round(time_s * SAMPLE_RATE_HZ)


def _placed(timed: Any, pack: Sequence[Region], end_s: float) -> Word | None:
    """A word of faster-whisper in seconds of the chunk; `None` where it lies past the end of its pack.

    A word over a joint lies where its greater part is.
    """
    first_s, last_s = float(timed.start), min(float(timed.end), end_s)
    if first_s >= end_s:
        return None
    at_s, best, place = 0.0, -1.0, (pack[-1][1], pack[-1][1])
    for low, high in pack:
        length_s = high - low
        inside = max(first_s, at_s), min(last_s, at_s + length_s)
        if inside[1] - inside[0] > best and inside[1] >= inside[0]:
            best = inside[1] - inside[0]
            place = (low + inside[0] - at_s, low + inside[1] - at_s)
        at_s += length_s
    text, sure = "".join(timed.word.split()), round(float(timed.probability), 4)
    return Word(text, round(place[0], 6), round(max(place), 6), sure)


def _mean(words: Sequence[Word]) -> float:
    sure = [word.confidence for word in words if word.confidence is not None]
    return sum(sure) / len(sure) if sure else 0.0


def _without_loops(
    words: Sequence[Word], joined: Sequence[bool], left_out: Counter[str]
) -> tuple[list[Word], list[bool]]:
    """Remove phrases that are repeated more than `_MOST_REPEATS` times in a row."""
    kept: list[int] = []
    texts: list[str] = []
    times = _MOST_REPEATS + 1
    for i, word in enumerate(words):
        kept.append(i)
        texts.append(word.text.casefold().strip(_MARKS))
        for length in range(1, _LONGEST_PHRASE + 1):
            if len(texts) >= times * length and texts[-times * length :] == texts[-length:] * times:
                del kept[-length:], texts[-length:]
                left_out[REPEATED] += length
                break
    return [words[i] for i in kept], [joined[i] for i in kept]


def load_whisper(model: str, device: str, threads: int) -> Any:
    """Load a `faster_whisper.WhisperModel`; arguments as for `FasterWhisper`.

    Raises:
        CheckpointError: the package is missing or too old, or the model cannot be loaded.
    """
    try:
        from faster_whisper import WhisperModel
        from faster_whisper import __version__ as package
    except ImportError as error:
        raise CheckpointError(
            f"recogniser whisper: {error}; pip install 'faster-whisper>={_OLDEST}'"
        ) from error
    if _version(package) < _version(_OLDEST):
        raise CheckpointError(
            f"recogniser whisper: got faster-whisper {package}, expected at least {_OLDEST}; pip install "
            f"'faster-whisper>={_OLDEST}'"
        )
    kind, number = _device(device)
    local = Path(model).expanduser()
    if not local.is_dir() and model not in SIZES and model.count("/") != 1:
        raise CheckpointError(
            f"recogniser whisper={model}: there is no folder of that name, and it is none of "
            f"{', '.join(SIZES)} and no hub id (OWNER/NAME)"
        )
    if (local / "model.bin").is_file() and not (local / "tokenizer.json").is_file():
        # faster-whisper would take that of openai/whisper-tiny from the hub, whose tokens may be others
        raise CheckpointError(
            f"recogniser whisper={model}: there is no tokenizer.json in the folder; copy it from the model that was "
            "converted (ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json)"
        )
    target = str(local) if local.is_dir() else model
    try:
        if kind == "cuda" or (kind == "auto" and _gpus()):
            try:
                with torch_threads_kept():
                    loaded = WhisperModel(
                        target,
                        device="cuda",
                        device_index=number,
                        compute_type="float16",
                        cpu_threads=threads,
                    )
                _warm_up(loaded)
                return loaded
            except RuntimeError as error:
                if _CUDA.search(str(error)) is None:
                    raise
                _without_gpu(model, kind, error)
        with torch_threads_kept():
            return WhisperModel(target, device="cpu", compute_type="int8", cpu_threads=threads)
    except CheckpointError:
        raise
    except (
        Exception
    ) as error:  # of the hub, the network, CTranslate2: as many as there are ways to fail
        raise _cannot_be_loaded(model, error, local.is_dir()) from error


def _without_gpu(model: str, device: str, error: Exception) -> None:
    """Say that the GPU cannot be used; an error where the user asked for it."""
    reason = str(error).splitlines()[0]
    if device != "auto":
        raise CheckpointError(
            f"recogniser whisper={model}: the GPU cannot be used: {reason}; {_GPU_REMEDY}, or choose "
            "--device cpu"
        ) from error
    _log.warning(
        "recogniser whisper=%s: on the CPU, as the GPU cannot be used: %s; to use it: %s",
        model,
        reason,
        _GPU_REMEDY,
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _device(name: str) -> tuple[str, int]:
    """A device as CTranslate2 takes it, and its number.

    Raises:
        SettingsError: it cannot use this device.
    """
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise SettingsError(
            f"--device {name}: the cascade runs on cpu or cuda (cuda:1, ...); expected one of these"
        )
    there = _gpus()
    if kind == "cuda" and int(number or 0) >= there:
        raise SettingsError(
            f"--device {name}: CTranslate2 sees {there} GPUs with CUDA; leave --device out, or choose "
            "another"
        )
    return kind, int(number or 0)


def _warm_up(model: Any) -> None:
    """Use the GPU once: CTranslate2 looks for the libraries of CUDA only then."""
    bands = int(model.feature_extractor.mel_filters.shape[0])
    model.encode(np.zeros((bands, 3000), np.float32))


def _cannot_be_loaded(model: str, error: Exception, local: bool) -> CheckpointError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    remedy = (
        "is the folder whole, and in CTranslate2's format?"
        if local
        else "is there a network? A folder with the model does without"
    )
    return CheckpointError(f"recogniser whisper={model}: cannot be loaded: {reason}; {remedy}")


def _gpus() -> int:
    from ctranslate2 import get_cuda_device_count

    return int(get_cuda_device_count())

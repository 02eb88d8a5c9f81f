"""Accuracy of the cascade on real recordings, and its cost against Whisper alone.

    python benchmarks/real.py FOLDER [--model cascade] [--only NAME ...] [--time]

FOLDER holds the clips of `CLIPS` with their references: a telephone call (two_party_call.wav, .stm), a podcast of
three neural voices (podcast_3spk.mp3, .json), four clips of AMI's far-field microphone (ami_*.wav, ami_clips.rttm),
a speech of one sentence (jfk.flac), and Mandarin: utterance BAC009S0724W0121 of AISHELL-1 (mandarin_single.wav), and
nine seconds of AliMeeting without a reference. Clips on which settings were chosen are marked; for the others nothing
was. `--time` pairs the whole cascade with faster-whisper alone on the same sound, in this process, in turn. Takes
the extra eval.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from common import store
from speaker_reasoner import Segment, Transcriber, Transcript, audio, load_engine
from speaker_reasoner.evaluate import Normalisation, score
from speaker_reasoner.formats.folders import load


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, its reference, and whether settings were chosen on it.

    Attributes:
        text: all that is said, by one speaker, where no file beside it holds the reference. A character of Chinese
            counts as a word, so that the word error rate is a character error rate.
        gender: of all its speakers, where the reference does not state it.
    """

    file: str
    reference: str | None = None
    session: str | None = None
    words: bool = False
    tuned: bool = False
    text: str | None = None
    gender: str | None = None


CLIPS = (
    Clip("podcast_3spk.mp3", "podcast_3spk.json", words=True, tuned=True),
    Clip(
        "two_party_call.wav",
        "two_party_call.stm",
        "sample",
        words=True,
        tuned=True,
        gender="female",
    ),
    Clip("ami_dev00.wav", "ami_clips.rttm", "dev00", tuned=True),
    Clip("ami_trn05.wav", "ami_clips.rttm", "trn05", tuned=True),
    Clip("ami_trn01.wav", "ami_clips.rttm", "trn01"),
    Clip("ami_trn02.wav", "ami_clips.rttm", "trn02"),
    Clip(
        "jfk.flac",
        text="And so, my fellow Americans, ask not what your country can do for you; "
        "ask what you can do for your country.",
        gender="male",
    ),
    Clip("mandarin_single.wav", text="广州市房地产中介协会分析"),
    Clip("alimeeting_9s.wav"),
)
PLAIN = Normalisation()
CONFIDENCES = (0.0, 0.7, 0.9, 0.97, 1.01)


def reference(folder: Path, clip: Clip) -> Transcript | None:
    if clip.reference is None:
        return None
    path = folder / clip.reference
    if path.suffix == ".json":
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(
            Segment(str(s["speaker"]), s["start"], s["end"], s["text"]) for s in stored["segments"]
        )
        return Transcript(path.stem, stored["audio_duration"], rows)
    transcripts = load(path)
    one = (
        transcripts[clip.session]
        if clip.session in transcripts
        else next(iter(transcripts.values()))
    )
    if clip.session is not None and path.suffix == ".rttm":
        prefix = {"F": "female", "M": "male"}
        rows = tuple(replace(s, gender=prefix[s.speaker[0]]) for s in one.segments)
        one = one.with_segments(rows)
    if clip.gender is not None:
        one = one.with_segments([replace(s, gender=clip.gender) for s in one.segments])
    return replace(one, duration_s=audio.probe(folder / clip.file).duration_s)


def measure(
    transcriber: Transcriber, folder: Path, clip: Clip, people: int | None
) -> dict[str, Any]:
    began = time.perf_counter()
    hint = None if people is None else (people, people)
    transcript = transcriber.transcribe(folder / clip.file, speakers=hint)
    row: dict[str, Any] = {
        "clip": clip.file,
        "tuned": clip.tuned,
        "duration_s": round(transcript.duration_s, 2),
        "speakers_given": people,
        "speakers": len(transcript.speakers),
        "genders": transcript.genders,
        "language": transcript.info.get("language"),
        "language_probability": transcript.info.get("language_probability"),
        "words": len(transcript.text.split()),
        "missing_s": round(sum(m.end_s - m.start_s for m in transcript.missing), 2),
        "warnings": list(transcript.warnings),
        "wall_s": round(time.perf_counter() - began, 2),
        "text": transcript.text,
    }
    truth = reference(folder, clip)
    if truth is not None:
        scores = score(truth, replace(transcript, recording=truth.recording), PLAIN).to_json()
        row["reference_speakers"] = len(truth.speakers)
        row["der_025"] = scores["der_025"]["rate"]
        row["gender"] = scores["gender"]
        row["speaker_confidence"] = speaker_samples(truth, transcript)
        if clip.words:
            row |= {"cpwer": scores["cpwer"]["rate"], "wer": scores["wer"]["rate"]}
    elif clip.text is not None:
        said = (Segment("reader", 0.0, transcript.duration_s, clip.text),)
        scores = score(replace(transcript, segments=said), transcript, PLAIN, times=False).to_json()
        row |= {name: scores[name]["rate"] for name in ("cpwer", "wer")}
        row["reference_speakers"] = 1
    if truth is None and clip.gender is not None:
        right = sum(gender == clip.gender for gender in transcript.genders.values())
        row["gender"] = {"right": right, "total": len(transcript.genders)}
    return row


def speaker_samples(truth: Transcript, hypothesis: Transcript) -> list[tuple[float, float, bool]]:
    """Return for each segment the confidence in its speaker, its seconds, and whether the speaker is right.

    A speaker is right if its label is mapped to the reference speaker who says most of the segment. Labels are mapped
    one to one, so that most seconds are common.
    """

    def common(one: Segment, other: Segment) -> float:
        return max(0.0, min(one.end_s, other.end_s) - max(one.start_s, other.start_s))

    shared = np.array(
        [
            [
                sum(
                    common(a, b)
                    for a in truth.segments
                    for b in hypothesis.segments
                    if (a.speaker, b.speaker) == (name, label)
                )
                for label in hypothesis.speakers
            ]
            for name in truth.speakers
        ]
    )
    if not shared.size:
        return []
    rows, columns = linear_sum_assignment(-shared)
    names = {hypothesis.speakers[b]: truth.speakers[a] for a, b in zip(rows, columns, strict=True)}
    samples = []
    for segment in hypothesis.segments:
        seconds: Counter[str] = Counter()
        for line in truth.segments:
            seconds[line.speaker] += common(line, segment)
        [(speaker, most)] = seconds.most_common(1)
        if segment.confidence.speaker is not None and most > 0:
            right = names.get(segment.speaker) == speaker
            samples.append((segment.confidence.speaker, round(segment.duration_s, 2), right))
    return samples


def calibration(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return counts, seconds, mean confidence and share of right seconds of segments, by confidence in the speaker."""
    samples = [sample for row in rows for sample in row.get("speaker_confidence", ())]
    bins = []
    for low, high in pairwise(CONFIDENCES):
        own = [s for s in samples if low <= s[0] < high]
        total = sum(seconds for _, seconds, _ in own)
        if total:
            bins.append(
                {
                    "from": low,
                    "to": min(high, 1.0),
                    "segments": len(own),
                    "seconds": round(total, 1),
                    "confidence": round(sum(c * seconds for c, seconds, _ in own) / total, 4),
                    "right": round(sum(seconds * right for _, seconds, right in own) / total, 4),
                }
            )
    return bins


def noises() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Make twenty seconds without speech: silence, white noise, a hum, plucked chords (hold music)."""
    rate = audio.SAMPLE_RATE_HZ
    t = np.arange(20 * rate) / rate
    rng = np.random.default_rng(0)
    chords = np.zeros_like(t)
    for at, notes in enumerate(
        [(262, 330, 392), (220, 262, 330), (175, 220, 262), (196, 247, 294)] * 5
    ):
        since = t - at
        ring = np.where(since >= 0, np.exp(-3 * np.clip(since, 0, None)), 0)
        chords += sum(np.sin(2 * np.pi * f * since) for f in notes) * ring
    sounds = {
        "silence": np.zeros_like(t),
        "white noise": 0.05 * rng.standard_normal(len(t)),
        "mains hum": 0.1 * np.sin(2 * np.pi * 50 * t) + 0.05 * np.sin(2 * np.pi * 150 * t),
        "plucked chords": 0.1 * chords,
    }
    return {name: samples.astype(np.float32) for name, samples in sounds.items()}


def timed(transcriber: Transcriber, folder: Path, file: str, rounds: int) -> dict[str, Any]:
    """Time the whole cascade against faster-whisper alone (same model, beam 1, its own voice filter), paired."""
    model = transcriber.engine.recogniser._model  # type: ignore[attr-defined]
    samples = audio.load(folder / file)
    duration_s = len(samples) / audio.SAMPLE_RATE_HZ

    def alone() -> None:
        rows, _ = model.transcribe(
            samples,
            beam_size=1,
            temperature=0.0,
            vad_filter=True,
            word_timestamps=True,
            condition_on_previous_text=False,
        )
        list(rows)

    whole, whisper = [], []
    for _ in range(rounds):
        for run, kept in ((alone, whisper), (lambda: transcriber.transcribe(folder / file), whole)):
            began, cpu = time.perf_counter(), time.process_time()
            run()
            kept.append((time.perf_counter() - began, time.process_time() - cpu))
            if hasattr(transcriber.engine, "_drafts"):
                transcriber.engine._drafts.clear()
    ratios = [a[0] / b[0] for a, b in zip(whole, whisper, strict=True)]
    cpu_ratios = [a[1] / b[1] for a, b in zip(whole, whisper, strict=True)]
    return {
        "clip": file,
        "rounds": rounds,
        "cascade_wall_s": [round(a, 2) for a, _ in whole],
        "whisper_wall_s": [round(a, 2) for a, _ in whisper],
        "wall_ratio": round(median(ratios), 3),
        "cpu_ratio": round(median(cpu_ratios), 3),
        "times_real_time": round(duration_s / median(a for a, _ in whole), 2),
    }


def show(result: dict[str, Any]) -> None:
    table = Table("clip", "tuned on", "speakers (true)", "cpWER", "WER", "DER 0.25", "language")
    for row in result["rows"]:
        hint = f", told {row['speakers_given']}" if row["speakers_given"] else ""
        cells = [
            f"{100 * row[k]:.1f} %" if row.get(k) is not None else ""
            for k in ("cpwer", "wer", "der_025")
        ]
        people = f"{row['speakers']} ({row.get('reference_speakers', '?')})"
        table.add_row(
            row["clip"] + hint, "yes" if row["tuned"] else "", people, *cells, str(row["language"])
        )
    Console().print(table)
    for row in result["speaker_confidence"]:
        Console().print(
            f"confidence in the speaker {row['from']} to {row['to']}: mean {row['confidence']:.2f}, "
            f"right {row['right']:.2f} of {row['seconds']} s"
        )
    for row in result["silence"]:
        Console().print(f"{row['sound']}: {row['words']} words, warnings {row['warnings']}")
    Console().print(result.get("time", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="cascade")
    parser.add_argument("--only", nargs="*", help="clips whose names begin so")
    parser.add_argument(
        "--time", type=int, default=0, metavar="ROUNDS", help="pair with Whisper alone"
    )
    parser.add_argument("--name", default="real", help="of the stored result")
    arguments = parser.parse_args()
    transcriber = Transcriber(load_engine(arguments.model))
    clips = [c for c in CLIPS if not arguments.only or c.file.startswith(tuple(arguments.only))]
    rows = [measure(transcriber, arguments.folder, clip, None) for clip in clips]
    rows += [
        measure(transcriber, arguments.folder, clip, 2)
        for clip in clips
        if clip.file == "two_party_call.wav"
    ]
    silence = []
    for name, samples in noises().items() if not arguments.only else ():
        import tempfile

        import soundfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sound.wav"
            soundfile.write(path, samples, audio.SAMPLE_RATE_HZ)
            transcript = transcriber.transcribe(path)
        silence.append(
            {
                "sound": name,
                "words": len(transcript.text.split()),
                "warnings": list(transcript.warnings),
            }
        )
    result: dict[str, Any] = {
        "model": arguments.model,
        "engine": transcriber.engine.describe(),
        "rows": rows,
        "speaker_confidence": calibration([row for row in rows if not row["speakers_given"]]),
        "silence": silence,
    }
    if arguments.time:
        result["time"] = timed(transcriber, arguments.folder, "podcast_3spk.mp3", arguments.time)
    show(result)
    if not arguments.only:
        Console(stderr=True).print(f"wrote {store(arguments.name, result)}")


if __name__ == "__main__":
    main()

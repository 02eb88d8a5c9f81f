"""Score a checkpoint on the 100 held-out meetings: words, speakers, times, gender, count, speed.

    python benchmarks/heldout.py [--answer assembled|model] [--model PATH]

With `--foreign DIR` the recordings of a folder that are not of the checkpoint's domain are transcribed
too, and the domain warning is measured: how often it comes on each side, and the word confidence that
separates them best.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import soundfile as sf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from common import store
from heldout_set import HeldOut, held_out
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.evaluate import Scores, bootstrap, score, total
from speaker_reasoner.voices.witness import Witness


def transcripts(
    engine: Any, meetings: list[HeldOut], answer: str, witness: Witness | None
) -> tuple[list[Transcript], float]:
    """One transcript a meeting, and the seconds it took, 8 dialogues at once."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for one in meetings:
            paths.append(Path(folder) / f"{one.reference.recording}.wav")
            sf.write(paths[-1], one.meeting.samples, 16_000, subtype="FLOAT")
        begun = time.perf_counter()
        results = Transcriber(engine, answer=answer, batch=8, witness=witness).transcribe_all(paths)
        done = list(track(results, description="transcribing", total=len(paths)))
        return [r for r in done if isinstance(r, Transcript)], time.perf_counter() - begun


def confidence(transcript: Transcript) -> float | None:
    """Mean word confidence, weighted by time."""
    rows = [(s.confidence.words, s.duration_s) for s in transcript.segments if s.confidence.words]
    return sum(p * d for p, d in rows) / sum(d for _, d in rows) if rows else None


def subset(meetings: list[HeldOut], scores: list[Scores]) -> dict[str, Any]:
    """Scores by number of speakers, overlap, room and family of voices."""
    groups = {
        "1 speaker": lambda m: len(m.reference.speakers) == 1,
        "2 speakers": lambda m: len(m.reference.speakers) == 2,
        "3 speakers": lambda m: len(m.reference.speakers) == 3,
        "4 speakers": lambda m: len(m.reference.speakers) == 4,
        "no overlap": lambda m: m.overlap == 0,
        "overlap": lambda m: m.overlap > 0,
        "near": lambda m: not m.meeting.reverberant,
        "far-field": lambda m: m.meeting.reverberant,
        "same-gender pair": lambda m: _same_gender(m),
        "espeak voices only": lambda m: _families(m) == {"espeak"},
        "with other voices": lambda m: _families(m) != {"espeak"},
    }
    rows = {}
    for name, belongs in groups.items():
        inside = [s for m, s in zip(meetings, scores, strict=True) if belongs(m)]
        if inside:
            rows[name] = {"meetings": len(inside), **total(inside).to_json()}
    return rows


def _families(one: HeldOut) -> set[str]:
    return {voice.base.family for voice in one.meeting.voices}


def _same_gender(one: HeldOut) -> bool:
    genders = list(one.reference.genders.values())
    return len(set(genders)) < len(genders)


def foreign(engine: Any, folder: Path, known: list[float]) -> dict[str, Any]:
    """Word confidences of recordings of another domain, and the floor that separates best."""
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".wav", ".flac", ".mp3", ".ogg"))
    values = {}
    for path in track(paths, description="foreign"):
        result = Transcriber(engine, batch=8).transcribe(path)
        values[path.name] = confidence(result)
    strange = [v for v in values.values() if v is not None]
    candidates = sorted({*known, *strange})

    def balanced(floor: float) -> float:
        kept = sum(v >= floor for v in known) / len(known)
        return (kept + sum(v < floor for v in strange) / max(1, len(strange))) / 2

    floor = max(candidates, key=balanced)
    profile_floor = engine.profile.word_confidence_floor
    at = floor if profile_floor is None else profile_floor
    return {
        "confidences": {n: None if v is None else round(v, 4) for n, v in values.items()},
        "best_floor": round(floor, 4),
        "floor": round(at, 4),
        "foreign_warned": sum(v < at for v in strange),
        "foreign": len(strange),
        "held_out_not_warned": sum(v >= at for v in known),
        "held_out": len(known),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answer", choices=("assembled", "model"), default="assembled")
    parser.add_argument("--no-witness", action="store_true", help="trust the dialogues alone")
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--foreign", type=Path, help="folder of recordings of another domain")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--name", help="name of the stored result")
    arguments = parser.parse_args()
    engine = load_engine(arguments.model)
    meetings = held_out(arguments.banks, arguments.count)
    witness = None if arguments.no_witness else engine.witness("tower")
    results, wall_s = transcripts(engine, meetings, arguments.answer, witness)
    scores = [score(m.reference, t) for m, t in zip(meetings, results, strict=True)]
    summed = total(scores)
    stages: dict[str, float] = {}
    for result in results:
        for stage, value in result.info["stage_s"].items():
            stages[stage] = stages.get(stage, 0.0) + value
    audio_s = sum(t.duration_s for t in results)
    sure = [c for t in results if (c := confidence(t)) is not None]
    stored = {
        "meetings": len(meetings),
        "audio_s": round(audio_s, 1),
        "answer": arguments.answer,
        "witness": None if witness is None else witness.name,
        "engine": engine.describe(),
        "scores": summed.to_json(),
        "intervals_95": {
            "cpwer": bootstrap(scores, lambda s: s.cpwer.rate),
            "der_025": bootstrap(scores, lambda s: s.der_025.rate),
        },
        "subsets": subset(meetings, scores),
        "finished": sum(not t.missing for t in results),
        "wall_s": round(wall_s, 2),
        "real_time_factor": round(wall_s / audio_s, 4),
        "stage_s": {k: round(v, 2) for k, v in stages.items()},
        "grammar_share": round(stages["grammar"] / sum(stages.values()), 4),
        "word_confidence": {"mean": round(sum(sure) / len(sure), 4), "min": round(min(sure), 4)},
    }
    if arguments.foreign:
        stored["foreign"] = foreign(engine, arguments.foreign, sure)
    name = arguments.name or f"heldout-{arguments.answer}"
    path = store(name, stored)
    show(stored)
    Console(stderr=True).print(f"wrote {path}")


def show(stored: dict[str, Any]) -> None:
    table = Table("", "meetings", "cpWER", "WER", "DER (0.25 s)", "gender", "speaker count")
    rows = {"all": {"meetings": stored["meetings"], **stored["scores"]}, **stored["subsets"]}
    for name, row in rows.items():
        rates = [row[k]["rate"] for k in ("cpwer", "wer", "der_025", "gender", "speaker_count")]
        table.add_row(
            name,
            str(row["meetings"]),
            *("–" if rate is None else f"{100 * rate:.1f} %" for rate in rates),
        )
    Console().print(table)


if __name__ == "__main__":
    main()

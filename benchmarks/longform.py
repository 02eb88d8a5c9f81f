"""Cost of linking on whole meetings: with the speaker cache, the second witness, both and neither.

    python benchmarks/longform.py [--meetings 3] [--minutes 20] [--first 0] [--model PATH] [--name longform]

Held-out voices, sentences and rooms; 4 to 6 people. `neither` links nothing; `cache as published` is
the paper's (phi, no witness); `names` is `witness alone` with two people of each meeting enrolled by a clip of
5 s or more of sentences that they do not say in it. The reference point is `witness alone`, the embedded
checkpoint's default, with each chunk scored for itself, as if an oracle had linked the speakers of different
chunks. `--first` draws other meetings of the same voices.
`--development` draws voices of the training side, which the embedded checkpoint did not learn from, to choose
settings by; nothing of it is stored.
"""

import argparse
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from rich.console import Console
from rich.table import Table

from calibrate import ALIKE_RATE, DEVELOPMENT
from common import store, weights
from heldout_set import BANK, MEETINGS, reference
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.data import sentences
from speaker_reasoner.data.banks import VoiceBank, bank
from speaker_reasoner.data.bases import speak
from speaker_reasoner.data.people import SyntheticVoice
from speaker_reasoner.data.simulate import Meeting, meeting
from speaker_reasoner.evaluate import Scores, bootstrap, score, total
from speaker_reasoner.transcript import Segment
from speaker_reasoner.voices.people import EnrolledSpeaker

VARIANTS = {
    "neither": {"cached": False, "witness": False},
    "cache as published": {"cached": True, "witness": False},
    "witness alone": {"cached": False, "witness": True},
    "both": {"cached": True, "witness": True},
}
WITHIN = {"neither": "chunks, dialogues alone", "witness alone": "chunks, oracle links"}
"""Names under which the chunks of a variant are scored separately."""


def draw(voices: VoiceBank, minutes: float, number: int | str) -> Meeting:
    config = replace(
        MEETINGS,
        speakers=(4, 6),
        utterances=(5000, 5000),
        max_duration_s=60 * minutes,
        snr_db=(18.0, 40.0),
        alike_rate=0.0 if voices.config.evaluation else ALIKE_RATE,
    )
    return meeting(voices, config, f"long-form {number}")


def within_chunks(truth: Transcript, hypothesis: Transcript) -> list[Scores]:
    """Scores of each chunk for itself: speakers of different chunks cannot be confused."""
    rows = []
    for trace in hypothesis.traces:
        start, end = trace["start_s"], trace["start_s"] + trace["duration_s"]

        def inside(side: Transcript, start: float = start, end: float = end) -> Transcript:
            kept = [s for s in side.segments if start <= (s.start_s + s.end_s) / 2 < end]
            shifted = [_shift(s, start, end) for s in kept]
            return Transcript(side.recording, end - start, tuple(shifted))

        rows.append(score(inside(truth), inside(hypothesis)))
    return rows


def _shift(segment: Segment, start: float, end: float) -> Segment:
    first = max(0.0, segment.start_s - start)
    return replace(segment, start_s=first, end_s=max(first + 0.01, min(segment.end_s, end) - start))


def clips(voices: VoiceBank, people: Sequence[int]) -> list[np.ndarray[Any, Any]]:
    """A clip of 5 s or more of each, reading sentences that the bank does not hold."""
    known = [{entry.text for entry in voices.entries[one]} for one in people]
    jobs = [
        (voices.voices[one], texts, voices.config.evaluation)
        for one, texts in zip(people, known, strict=True)
    ]
    # A process speaks one voice, as in a bank.
    with multiprocessing.get_context("spawn").Pool(maxtasksperchild=1) as pool:
        return pool.starmap(_read, jobs, chunksize=1)


def _read(voice: SyntheticVoice, known: set[str], evaluation: bool) -> np.ndarray[Any, Any]:
    rng, parts = random.Random(f"enrolled {voice.name}"), list[np.ndarray[Any, Any]]()
    while sum(len(part) for part in parts) < 80_000:
        text = sentences.draw(rng, evaluation=evaluation)
        spoken = None if text in known else speak(voice, [text])[0]
        if spoken is not None:
            parts.append(spoken.samples)
    return np.concatenate(parts)


def first_two(voices: VoiceBank, held: Meeting) -> list[EnrolledSpeaker]:
    """The first two people of a meeting, each with a clip."""
    people = list(dict.fromkeys(s.voice for s in held.spoken))[:2]
    return [
        EnrolledSpeaker(f"Person {number}", (clip,))
        for number, clip in enumerate(clips(voices, people), start=1)
    ]


def named(truth: Transcript, hypothesis: Transcript, names: Sequence[str]) -> dict[str, float]:
    """Share of enrolled people's words under their name, and of strangers' words under any name.

    A reference line is matched with the hypothesis line that shares most of their common time: one that
    lies inside another's is not taken for it.
    """
    labels = list(truth.speakers)
    right = enrolled = wrong = strange = 0
    for line in truth.segments:
        words = len(line.text.split())
        best = max(
            hypothesis.segments,
            key=lambda s: (
                (min(s.end_s, line.end_s) - max(s.start_s, line.start_s))
                / (max(s.end_s, line.end_s) - min(s.start_s, line.start_s))
            ),
            default=None,
        )
        label = best.speaker if best is not None else ""
        place = labels.index(line.speaker)
        if place < len(names):
            enrolled += words
            right += words * (label == names[place])
        else:
            strange += words
            wrong += words * (label in names)
    return {"named_right": right / max(1, enrolled), "strangers_named": wrong / max(1, strange)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meetings", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first meeting")
    parser.add_argument("--name", default="longform", help="of the stored result")
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--development", action="store_true", help="other voices; store nothing")
    parser.add_argument("--variants", default=",".join([*VARIANTS, "names"]))
    arguments = parser.parse_args()
    engine = load_engine(arguments.model)
    witness = engine.witness("tower")
    voices = bank(DEVELOPMENT if arguments.development else BANK, arguments.banks)
    numbers = range(arguments.first, arguments.first + arguments.meetings)
    held = [draw(voices, arguments.minutes, i) for i in numbers]
    truths = [reference(one, f"longform-{i:02d}") for i, one in zip(numbers, held, strict=True)]
    minutes = round(sum(len(one.samples) for one in held) / 960_000, 1)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for one, truth in zip(held, truths, strict=True):
            paths.append(Path(folder) / f"{truth.recording}.flac")
            sf.write(paths[-1], one.samples, 16_000)
        for name in arguments.variants.split(","):
            setting = VARIANTS.get(name, VARIANTS["witness alone"])
            transcriber = Transcriber(
                engine,
                cached=setting["cached"],
                witness=witness if setting["witness"] else None,
                batch=8,
            )
            begun = time.perf_counter()
            enrolled = [first_two(voices, one) for one in held] if name == "names" else []
            if enrolled:
                hypotheses = [
                    transcriber.transcribe(path, voices=who)
                    for path, who in zip(paths, enrolled, strict=True)
                ]
            else:
                hypotheses = [
                    t for t in transcriber.transcribe_all(paths) if isinstance(t, Transcript)
                ]
            wall_s = time.perf_counter() - begun
            scores = [score(truth, one) for truth, one in zip(truths, hypotheses, strict=True)]
            rows[name] = {
                **total(scores).to_json(),
                "speakers": [
                    [len(t.speakers), len(f.speakers)]
                    for t, f in zip(truths, hypotheses, strict=True)
                ],
                "missing_s": round(
                    sum(m.end_s - m.start_s for f in hypotheses for m in f.missing), 1
                ),
                "corrections": sum(len(f.info["corrections"]) for f in hypotheses),
                "real_time_factor": round(wall_s / sum(f.duration_s for f in hypotheses), 4),
                "intervals_95": {"cpwer": bootstrap(scores, lambda s: s.cpwer.rate)},
            }
            if name in WITHIN:
                chunked = [
                    s for pair in zip(truths, hypotheses, strict=True) for s in within_chunks(*pair)
                ]
                rows[WITHIN[name]] = total(chunked).to_json()
            if enrolled:
                each = [
                    named(truth, one, [voice.name for voice in who])
                    for truth, one, who in zip(truths, hypotheses, enrolled, strict=True)
                ]
                for key in each[0]:
                    rows[name][key] = round(float(np.mean([row[key] for row in each])), 4)
    show(rows)
    if not arguments.development:
        stored = {
            "meetings": len(held),
            "minutes": minutes,
            "people": [len(truth.speakers) for truth in truths],
            "engine": engine.describe(),
            "weights": weights(engine.checkpoint),
            "witness": witness.name,
            "variants": rows,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        Console(stderr=True).print(f"wrote {store(arguments.name, stored)}")


def show(rows: dict[str, Any]) -> None:
    base = rows.get("chunks, oracle links")
    table = Table(
        "", "cpWER", "against chunks", "DER (0.25 s)", "against chunks", "WER", "named", "strangers"
    )
    for name, row in rows.items():
        cells = []
        for metric in ("cpwer", "der_025"):
            rate = row[metric]["rate"]
            cells.append(f"{100 * rate:.1f} %")
            cells.append("–" if base is None else f"{rate / base[metric]['rate']:.2f}")
        cells.append(f"{100 * row['wer']['rate']:.1f} %")
        for key in ("named_right", "strangers_named"):
            cells.append(f"{100 * row[key]:.1f} %" if key in row else "–")
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()

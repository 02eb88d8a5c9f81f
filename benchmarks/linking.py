"""Compares settings of linking, on whole meetings and on single chunks of development voices.

    python benchmarks/linking.py

Meetings are transcribed once without a speaker cache, into journals under --runs; then every setting links the same
lines anew, by their numbers within chunks and their voices. The measures are the share of the transcribed seconds
that carry another label than their speaker's, under the best one-to-one mapping, and the number of speakers.
Tower and voice head were trained on the synthesisers of development voices, and not on those of held-out ones; so a
third set is of espeak's variants that are neither trained on nor held out.

Enrolment is measured, too: two people of a whole meeting are enrolled by a clip, in turn, and somebody who is not in
the meeting.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile as sf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from calibrate import ALIKE_RATE, DEVELOPMENT
from common import store, weights
from heldout_set import MEETINGS, reference
from longform import clips, draw
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.data import banks
from speaker_reasoner.data.banks import BankConfig, VoiceBank, bank
from speaker_reasoner.data.bases import draw_voice
from speaker_reasoner.data.people import Base, SyntheticVoice
from speaker_reasoner.data.simulate import Meeting, meeting
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.voices import grouping, linking
from speaker_reasoner.voices import people as speakers
from speaker_reasoner.voices.cache import CacheRules
from speaker_reasoner.voices.finished import ChunkSegment, FinishedChunk
from speaker_reasoner.voices.linking import Trust, embedding_sums
from speaker_reasoner.voices.witness import Scatter

_SCATTER = Scatter(0.3, 0.118)


@dataclass(frozen=True)
class Setting:
    """One way to link; the defaults are the embedded checkpoint's."""

    threshold: float = 0.92
    scale: float = 70.0
    settle_s: float = 0.3
    same: float = 1.0
    least: float = -8.0
    most: float = 1.0
    person_s: float = 6.0
    between: float = 2.5
    reconsidered: bool = True
    scatter: Scatter | None = _SCATTER
    loud: bool = True

    name = "development"

    @property
    def elsewhere(self) -> float:
        return self.threshold


SETTINGS = {
    "strays kept, lines not reconsidered": Setting(person_s=0.0, reconsidered=False),
    "strays joined": Setting(reconsidered=False),
    "and each line reconsidered (chosen)": Setting(),
    "lines of a chunk grouped by cosines": Setting(scatter=None),
    "how loud lines are left out": Setting(loud=False),
    "people spread by 0.15": Setting(scatter=Scatter(0.15, 0.118)),
    "people spread by 0.6": Setting(scatter=Scatter(0.6, 0.118)),
    "lines scatter by 0.08": Setting(scatter=Scatter(0.3, 0.08)),
    "lines scatter by 0.17": Setting(scatter=Scatter(0.3, 0.17)),
    "threshold 0.85": Setting(threshold=0.85),
    "threshold 0.88": Setting(threshold=0.88),
    "threshold 0.9": Setting(threshold=0.9),
    "threshold 0.95": Setting(threshold=0.95),
    "settles with 0.15 s": Setting(settle_s=0.15),
    "settles with 0.9 s": Setting(settle_s=0.9),
    "scale 50": Setting(scale=50.0),
    "scale 100": Setting(scale=100.0),
    "as sure of little speech as of much": Setting(0.85, 33.0, 1e-6),
    "same number says nothing": Setting(same=0.0),
    "dialogues say up to 2 for one person": Setting(most=2.0),
    "dialogues say up to 4 against": Setting(least=-4.0),
    "voices say as much of lines as of people": Setting(between=1.0),
    "voices say five times as much of lines": Setting(between=5.0),
    "strays of 3 s": Setting(person_s=3.0),
    "strays of 9 s": Setting(person_s=9.0),
}


LENGTHS_S = (1, 2, 4, 8, 16, 32)
ELSEWHERE = (0.6, 0.68, 0.74, 0.8, 0.86)
"""Thresholds of enrolled clips."""

Data = list[tuple[Transcript, list[FinishedChunk]]]
"""The reference of each recording, and its finished chunks."""


_FEMALE = "Alicia grandma shelby anikaRobot"
_MALE = (
    "Storm announcer caleb croak grandpa gustave iven iven2 iven4 kaukovalta klatt klatt4 klatt5 mike2 "
    "quincy rob robert zac RicishayMax AnxiousAndy"
)


def strange_voices(config: BankConfig) -> list[SyntheticVoice]:
    """Draw people of espeak's variants that are not among `speaker_reasoner.data.bases.BASES`."""
    rng = random.Random("newbases")
    voices = []
    for i in range(config.voices):
        variants, gender = ((_FEMALE, "female"), (_MALE, "male"))[i % 2]
        base = Base("espeak", rng.choice(variants.split()), gender)
        voices.append(draw_voice(rng, f"n{i:03d}", base))
    return voices


def strange_meetings(
    whole: int, single: int
) -> tuple[VoiceBank, dict[str, Meeting], dict[str, Meeting]]:
    with mock.patch.object(banks, "_draw_voices", strange_voices):
        voices = banks.build_bank(BankConfig(evaluation=False, voices=64, sentences=24, seed=77))
    long = replace(
        MEETINGS,
        speakers=(4, 6),
        utterances=(5000, 5000),
        max_duration_s=480.0,
        snr_db=(18.0, 40.0),
    )
    drawn = {
        f"strange-piece-{i}": meeting(voices, MEETINGS, f"new linking {i}") for i in range(single)
    }
    return (
        voices,
        {f"strange-{i}": meeting(voices, long, f"new {i}") for i in range(whole)},
        {name: one for name, one in drawn.items() if one.spoken},
    )


def transcribed(folder: Path, engine: TransformersEngine, held: dict[str, Meeting]) -> Data:
    witness = engine.witness("tower")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.flac" for name in held]
    for path in paths:
        if not path.exists():
            sf.write(path, held[path.stem].samples, 16_000)
    missing = [path for path in paths if not path.with_suffix(".journal").exists()]
    transcriber = Transcriber(engine, witness=witness, cached=False, batch=16)
    made = transcriber.transcribe_all(missing, journal=lambda path: path.with_suffix(".journal"))
    for one in track(made, description="transcribing", total=len(missing)):
        assert isinstance(one, Transcript), one
    rows = []
    for path in paths:
        lines = path.with_suffix(".journal").read_text(encoding="utf-8").splitlines()[1:]
        chunks = [FinishedChunk.from_json(json.loads(line)) for line in lines]
        rows.append((reference(held[path.stem], path.stem), chunks))
    return rows


def link(chunks: list[FinishedChunk], setting: Setting, profile: Any, known: int | None) -> Any:
    trust = Trust(setting.same, least=setting.least, most=setting.most)
    changes: dict[str, Any] = {"_PERSON_S": setting.person_s}
    if not setting.reconsidered:
        changes["reassign"] = lambda people, *rest: list(people)
    between = mock.patch.object(linking, "_BETWEEN", setting.between)
    spread = grouping._SPREAD_DB if setting.loud else 0.0
    loud = mock.patch.object(grouping, "_SPREAD_DB", spread)
    with mock.patch.multiple(speakers, **changes), between, loud:
        people = speakers.Speakers(
            profile,
            cached=False,
            rules=CacheRules(),
            witness=setting,  # type: ignore[arg-type]
            trust=trust,
            bounds=None if known is None else (known, known),
        )
        for chunk in chunks:
            people.absorb(replace(chunk, people=()), np.zeros(chunk.samples, np.float32))
        return people.settle()[0]


def mislabelled(
    truth: Transcript, chunks: list[FinishedChunk], labels: list[list[str]]
) -> tuple[float, int]:
    """Share of seconds under a wrong label, and how many labels there are."""
    seconds: Counter[tuple[str, str]] = Counter()
    for chunk, row in zip(chunks, labels, strict=True):
        for line, label in zip(chunk.spoken, row, strict=True):
            seconds[_speaker(truth, line), label] += line.seconds
    ours, theirs = (sorted({pair[side] for pair in seconds}) for side in (0, 1))
    shared = np.array([[seconds[a, b] for b in theirs] for a in ours])
    right = shared[linear_sum_assignment(-shared)].sum()
    return 1 - float(right / shared.sum()), len(theirs)


def naming(
    data: Data,
    held: Sequence[Meeting],
    enrolment: dict[int, np.ndarray[Any, Any]],
    witness: Any,
    profile: Any,
) -> dict[str, float]:
    """Return shares of seconds: of enrolled people's under their name, of strangers' under any name, and of all under
    the name of an absent person."""
    right = enrolled = wrong = strange = absent = 0.0
    for number, ((truth, chunks), one) in enumerate(zip(data, held, strict=True)):
        spoken = [line for chunk in chunks for line in chunk.spoken]
        seconds = sum(line.seconds for line in spoken)
        whose = [truth.speakers.index(_speaker(truth, line)) for line in spoken]
        everybody = list(dict.fromkeys(s.voice for s in one.spoken))
        for first in range(len(everybody)):
            pair = (first, (first + 1) % len(everybody))
            names = _named(chunks, [enrolment[everybody[i]] for i in pair], witness, profile)
            for line, person, name in zip(spoken, whose, names, strict=True):
                if person in pair:
                    enrolled += line.seconds
                    right += line.seconds * (name == str(pair.index(person)))
                else:
                    strange += line.seconds
                    wrong += line.seconds * (name in ("0", "1"))
        others = sorted(set(enrolment) - set(everybody))
        names = _named(chunks, [enrolment[random.Random(number).choice(others)]], witness, profile)
        named_s = sum(
            line.seconds * (name == "0") for line, name in zip(spoken, names, strict=True)
        )
        absent += named_s / seconds
    return {
        "named_right": round(right / enrolled, 4),
        "strangers_named": round(wrong / strange, 4),
        "absent_named": round(absent / len(data), 4),
    }


def _named(
    chunks: list[FinishedChunk], clips: Sequence[Any], witness: Any, profile: Any
) -> list[str]:
    """The label of each line, enrolled people's being their numbers."""
    people = speakers.Speakers(
        profile,
        cached=False,
        rules=CacheRules(),
        witness=witness,
        trust=Trust(),
        voices=[speakers.EnrolledSpeaker(str(i), (samples,)) for i, samples in enumerate(clips)],
    )
    for chunk in chunks:
        people.absorb(replace(chunk, people=()), np.zeros(chunk.samples, np.float32))
    return [label for row in people.settle()[0] for label in row]


def _speaker(truth: Transcript, line: ChunkSegment) -> str:
    return max(
        truth.segments, key=lambda s: min(s.end_s, line.end_s) - max(s.start_s, line.start_s)
    ).speaker


def tried(data: Data, setting: Setting, profile: Any, *, known: bool) -> tuple[float, list[int]]:
    """Share of all seconds under a wrong label, and the labels in each recording."""
    wrong_s = all_s = 0.0
    labels_of = []
    for truth, chunks in data:
        count = len(truth.speakers) if known else None
        share, labels = mislabelled(truth, chunks, link(chunks, setting, profile, count))
        seconds = sum(line.seconds for chunk in chunks for line in chunk.spoken)
        wrong_s, all_s = wrong_s + share * seconds, all_s + seconds
        labels_of.append(labels)
    return wrong_s / max(all_s, 1e-9), labels_of


def in_pieces(data: Data, setting: Setting, profile: Any, prefix: str) -> dict[str, float]:
    wrong, counts = tried(data, setting, profile, known=False)
    right = [n == len(truth.speakers) for n, (truth, _) in zip(counts, data, strict=True)]
    return {
        f"{prefix}mislabelled_in_pieces": round(wrong, 4),
        f"{prefix}count_right_in_pieces": round(sum(right) / max(1, len(right)), 4),
    }


def cosines(data: Data) -> list[dict[str, float]]:
    """Return cosines of two stretches of speech by their length: of one person (no sound is in both), and of the most
    similar two people of the meeting."""
    rng = np.random.default_rng(0)
    rows = []
    for seconds in LENGTHS_S:
        same, likest = list[float](), list[float]()
        for truth, chunks in data:
            said: dict[str, list[np.ndarray[Any, Any]]] = {}
            for chunk in chunks:
                if chunk.points is None:
                    continue
                known = embedding_sums(chunk.points, [line.seconds for line in chunk.spoken])
                for line, row in zip(chunk.spoken, known, strict=True):
                    if row[-2] > 0:
                        said.setdefault(_speaker(truth, line), []).append(row)
            for person, own in said.items():
                others = [lines for other, lines in said.items() if other != person]
                for _ in range(20):
                    order = rng.permutation(len(own))
                    one, two = ([own[i] for i in order[half::2]] for half in (0, 1))
                    first, second = (_stretch(lines, seconds, rng) for lines in (one, two))
                    if first is None or second is None:
                        continue
                    same.append(float(first @ second))
                    strange = [_stretch(lines, seconds, rng) for lines in others]
                    likest.append(max(float(first @ s) for s in strange if s is not None))
        quantiles = [*np.quantile(same, [0.01, 0.05, 0.5]), *np.quantile(likest, [0.5, 0.95, 0.99])]
        names = ("same_1", "same_5", "same_50", "likest_50", "likest_95", "likest_99")
        row = {name: round(float(q), 3) for name, q in zip(names, quantiles, strict=True)}
        rows.append({"seconds": seconds, "pairs": len(same), **row})
    return rows


def _stretch(
    lines: list[np.ndarray[Any, Any]], seconds: float, rng: np.random.Generator
) -> np.ndarray[Any, Any] | None:
    """The point of so many seconds of lines, or of some more; `None` if there are less."""
    total = np.zeros(len(lines[0])) if lines else np.zeros(3)
    for i in rng.permutation(len(lines)):
        if total[-2] >= seconds:
            break
        total = total + lines[i]
    if total[-2] < 0.8 * seconds:
        return None
    point: np.ndarray[Any, Any] = total[:-2] / np.linalg.norm(total[:-2])
    return point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meetings", type=int, default=8, help="of 12 minutes")
    parser.add_argument("--pieces", type=int, default=100, help="of up to 30 s")
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    parser.add_argument("--runs", type=Path, default=Path("runs/linking"), help="journals")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    engine = load_engine(arguments.model)
    runs = arguments.runs / weights(engine.checkpoint)
    voices = bank(DEVELOPMENT, arguments.banks)
    whole = {f"dev-{i}": draw(voices, 12.0, f"dev-{i}") for i in range(arguments.meetings)}
    chunk = replace(MEETINGS, alike_rate=ALIKE_RATE)
    single = {f"piece-{i}": meeting(voices, chunk, f"linking {i}") for i in range(arguments.pieces)}
    meetings = transcribed(runs, engine, whole)
    pieces = transcribed(runs, engine, {n: one for n, one in single.items() if one.spoken})
    strangers, far, near = strange_meetings(5, 60)
    strange = transcribed(runs, engine, far)
    strange_pieces = transcribed(runs, engine, near)
    profile = replace(engine.profile, cache_s=0.0)
    columns = ("mislabelled", "count known", "in pieces", "count right")
    table = Table("", *columns, *(f"strange: {name}" for name in columns if name != "count known"))
    rows = []
    for name, setting in track(SETTINGS.items(), description="settings"):
        wrong, labels = tried(meetings, setting, profile, known=False)
        row = {
            "name": name,
            **asdict(setting),
            "mislabelled": round(wrong, 4),
            "found": labels,
            "mislabelled_count_known": round(tried(meetings, setting, profile, known=True)[0], 4),
            **in_pieces(pieces, setting, profile, ""),
        }
        wrong, labels = tried(strange, setting, profile, known=False)
        row |= {"strange_mislabelled": round(wrong, 4), "strange_found": labels}
        row |= in_pieces(strange_pieces, setting, profile, "strange_")
        rows.append(row)
        keys = [key for key in row if "mislabelled" in key or "count_right" in key]
        table.add_row(name, *(f"{100 * float(str(row[key])):.1f} %" for key in keys))
    names, witness = list[dict[str, float]](), engine.witness("tower")
    enrolled = []
    for held, side in ((whole, voices), (far, strangers)):
        everybody = sorted({s.voice for one in held.values() for s in one.spoken})
        enrolled.append(dict(zip(everybody, clips(side, everybody), strict=True)))
    for elsewhere in track(ELSEWHERE, description="names"):
        witness.elsewhere = elsewhere
        row_of_names = {"elsewhere": elsewhere}
        for prefix, data, held, enrolment in (
            ("", meetings, whole, enrolled[0]),
            ("strange_", strange, far, enrolled[1]),
        ):
            named = naming(data, list(held.values()), enrolment, witness, profile)
            row_of_names |= {f"{prefix}{key}": value for key, value in named.items()}
        names.append(row_of_names)
    stored = {
        "weights": runs.name,
        "meetings": len(meetings),
        "minutes": round(sum(truth.duration_s for truth, _ in meetings) / 60, 1),
        "people": [len(truth.speakers) for truth, _ in meetings],
        "pieces": len(pieces),
        "strange_people": [len(truth.speakers) for truth, _ in strange],
        "strange_minutes": round(sum(truth.duration_s for truth, _ in strange) / 60, 1),
        "strange_pieces": len(strange_pieces),
        "cosines": cosines(meetings),
        "strange_cosines": cosines(strange),
        "settings": rows,
        "names": names,
    }
    path = store("linking", stored)
    Console().print(table)
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()

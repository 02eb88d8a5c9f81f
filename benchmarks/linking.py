"""Who is who over a meeting: the settings of linking, on meetings of development voices.

    python benchmarks/linking.py

The meetings are transcribed once, into journals under --runs; then every setting links the same lines
anew. What counts is the share of the transcribed seconds that carry another label than their speaker's,
under the best one-to-one mapping, and the number of speakers found. Labels that the speaker cache
suggested are left out: what is linked is numbers within chunks, and voices.
"""

import argparse
import json
from collections import Counter
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

from calibrate import DEVELOPMENT
from common import store
from longform import draw
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.data.simulate import bank
from speaker_reasoner.evaluate.heldout import reference
from speaker_reasoner.longform import CacheRules, Trust, speakers
from speaker_reasoner.longform.finished import Finished, Spoken
from speaker_reasoner.witness import choose


@dataclass(frozen=True)
class Setting:
    """One way to link; the defaults are the embedded checkpoint's."""

    threshold: float = 0.85
    scale: float = 33.0
    settle_s: float = 0.6
    same: float = 0.5
    most: float = 1.0
    person_s: float = 6.0

    name = "development"

    @property
    def elsewhere(self) -> float:
        return self.threshold


BEFORE = Setting(0.72, 33.0, 0.01, 1.0, 2.5, 0.0)
SETTINGS = {
    "before: one threshold for short and long": BEFORE,
    "a threshold that rises with the seconds": replace(BEFORE, threshold=0.85, settle_s=0.6),
    "and dialogues trusted less": Setting(person_s=0.0),
    "and strays joined (chosen)": Setting(),
    "threshold 0.76, scale 22, 0.74 s (fitted odds)": Setting(0.76, 22.0, 0.74),
    "threshold 0.80": Setting(threshold=0.80),
    "threshold 0.90": Setting(threshold=0.90),
    "settled after 0.8 s": Setting(settle_s=0.8),
    "scale 20": Setting(scale=20.0),
    "same number says nothing": Setting(same=0.0),
    "strays of 3 s": Setting(person_s=3.0),
    "strays of 9 s": Setting(person_s=9.0),
}


def transcribed(folder: Path, banks: Path, count: int) -> list[tuple[Transcript, list[Finished]]]:
    """Each meeting's truth, and its finished chunks."""
    engine = load_engine()
    voices, rows = bank(DEVELOPMENT, banks), []
    folder.mkdir(parents=True, exist_ok=True)
    for i in track(range(count), description="meetings"):
        held = draw(voices, 12.0, f"dev-{i}")
        journal = folder / f"dev-{i}.journal"
        if not journal.exists():
            path = folder / f"dev-{i}.flac"
            sf.write(path, held.samples, 16_000)
            witness = choose("tower", engine.checkpoint)
            Transcriber(engine, witness=witness).transcribe(path, journal=journal)
        lines = journal.read_text(encoding="utf-8").splitlines()[1:]
        rows.append(
            (reference(held, f"dev-{i}"), [Finished.from_json(json.loads(line)) for line in lines])
        )
    return rows


def link(chunks: list[Finished], setting: Setting, profile: Any, known: int | None) -> Any:
    trust = Trust(setting.same, least=-2.5, most=setting.most)
    with mock.patch.object(speakers, "_PERSON_S", setting.person_s):
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
    truth: Transcript, chunks: list[Finished], labels: list[list[str]]
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


def _speaker(truth: Transcript, line: Spoken) -> str:
    return max(
        truth.segments, key=lambda s: min(s.end_s, line.end_s) - max(s.start_s, line.start_s)
    ).speaker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meetings", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/linking"), help="journals")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    data = transcribed(arguments.runs, arguments.banks, arguments.meetings)
    profile = replace(load_engine().profile, cache_s=0.0)
    table = Table("", "mislabelled", "speakers found", "mislabelled, count known")
    rows = []
    for name, setting in track(SETTINGS.items(), description="settings"):
        free = [mislabelled(t, c, link(c, setting, profile, None)) for t, c in data]
        told = [mislabelled(t, c, link(c, setting, profile, len(t.speakers))) for t, c in data]
        row = {
            "name": name,
            **asdict(setting),
            "mislabelled": round(float(np.mean([share for share, _ in free])), 4),
            "each": [round(share, 4) for share, _ in free],
            "found": [count for _, count in free],
            "mislabelled_count_known": round(float(np.mean([share for share, _ in told])), 4),
        }
        rows.append(row)
        found = " ".join(str(count) for count in row["found"])
        shares = [f"{100 * row[key]:.1f} %" for key in ("mislabelled", "mislabelled_count_known")]
        table.add_row(name, shares[0], found, shares[1])
    stored = {
        "meetings": len(data),
        "minutes": round(sum(truth.duration_s for truth, _ in data) / 60, 1),
        "people": [len(truth.speakers) for truth, _ in data],
        "settings": rows,
    }
    path = store("linking", stored)
    Console().print(table)
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()

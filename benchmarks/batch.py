"""Seconds for 16 recordings, 1, 4 and 16 dialogues at once.

    python benchmarks/batch.py [--repeats 3]

The recordings are held-out meetings where the synthesisers are installed, else the example recording
sixteen times. Ratios are taken within a repeat.
"""

import argparse
import tempfile
import time
from pathlib import Path

import soundfile as sf
from rich.console import Console
from rich.table import Table

from common import spread, store
from heldout_set import held_out
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.errors import DataError

COUNT = 16
SIZES = (1, 4, 16)


def recordings(banks: Path, folder: Path) -> list[Path]:
    try:
        meetings = [one.meeting.samples for one in held_out(banks, COUNT)]
    except DataError:
        samples, _ = sf.read(Path(__file__).parent.parent / "examples" / "meeting.flac")
        meetings = [samples] * COUNT
    paths = []
    for i, samples in enumerate(meetings):
        paths.append(folder / f"meeting-{i:02d}.flac")
        sf.write(paths[-1], samples, 16_000)
    return paths


def _said(transcript: Transcript) -> list[tuple[str, str, float, float, str]]:
    """Everything but the confidences, which differ in the last digits of floating point."""
    return [(s.speaker, s.gender, s.start_s, s.end_s, s.text) for s in transcript.segments]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    arguments = parser.parse_args()
    engine = load_engine(arguments.model)
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        paths = recordings(arguments.banks, Path(folder))
        texts = {}
        for repeat in range(arguments.repeats + 1):
            for size in SIZES:
                begun = time.perf_counter()
                results = list(Transcriber(engine, batch=size).transcribe_all(paths))
                if repeat:
                    seconds[size].append(time.perf_counter() - begun)
                texts[size] = [_said(result) for result in results]
        audio_s = sum(result.duration_s for result in results)
    ratios = {
        str(size): spread([a / b for a, b in zip(seconds[1], seconds[size], strict=True)])
        for size in SIZES
    }
    path = store(
        "batch",
        {
            "repeats": arguments.repeats,
            "recordings": COUNT,
            "audio_s": round(audio_s, 2),
            "same_transcripts": all(texts[size] == texts[1] for size in SIZES),
            "seconds": {str(size): spread(values) for size, values in seconds.items()},
            "speed_up": ratios,
        },
    )
    table = Table("dialogues at once", "seconds", "speed-up over 1")
    for size in SIZES:
        ratio = ratios[str(size)]
        median_s = spread(seconds[size])["median"]
        table.add_row(
            str(size),
            f"{median_s:.2f}",
            f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})",
        )
    Console().print(table)
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()

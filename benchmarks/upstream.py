"""Upstream's own loop against this engine: the same weights, the same recordings, in turn, in one process.

    git clone https://github.com/ASLP-lab/Speaker-Reasoner UPSTREAM
    python benchmarks/upstream.py UPSTREAM [--recordings 4] [--repeats 3] [--model tiny]

Runs `run_inference` of UPSTREAM/infer.py with its `--use_transformers` branch. Only its loaders are replaced: its
model by this checkpoint's thinker behind the same `generate` call, its processor by one that writes the same tokens and
features, torchaudio's `load` and `save` by soundfile's. Its prompt texts are the checkpoint's. The recordings are the
first held-out meetings of 15 to 30 s in which upstream's loop reaches an answer without a retry; if the synthesisers
are missing, the example recording. Ours runs with its defaults, without drafts of the next tokens (`lookahead=0`), and
through transformers' classes, one recording at a time; and with its defaults 16 at once, in this process and shared
out among processes, one a core.
"""

import argparse
import importlib.util
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import soundfile as sf
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import Module
from transformers.feature_extraction_utils import BatchFeature

from common import spread, store, weights
from heldout_set import held_out
from speaker_reasoner import audio, load_engine
from speaker_reasoner.audio import SAMPLE_RATE_HZ, Samples
from speaker_reasoner.cores import usable_cores
from speaker_reasoner.engines import Engine
from speaker_reasoner.engines.checkpoint import Checkpoint
from speaker_reasoner.engines.joined import JoinedText
from speaker_reasoner.engines.linears import FastLinears
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.processes import EngineProcesses
from speaker_reasoner.engines.thinker import slice_tokens
from speaker_reasoner.errors import DataError
from speaker_reasoner.protocol.markup import MARKUP
from speaker_reasoner.reasoner import Dialogue, run

AT_ONCE = 16
DURATION_S = (15.0, 30.0)
PLACEHOLDER = MARKUP.audio


class Processor:
    """The methods of Qwen3OmniMoeProcessor that upstream calls, for a checkpoint without image processing."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = checkpoint.tokenizer

    def apply_chat_template(self, messages: Any, template: str, **options: Any) -> str:
        return str(self.tokenizer.apply_chat_template(messages, chat_template=template, **options))

    def __call__(self, *, text: str, audio: Sequence[Samples], **_: Any) -> BatchFeature:
        counts = slice_tokens(self.checkpoint.thinker, [len(clip) for clip in audio])
        first, *rest = text.split(PLACEHOLDER)
        for count, after in zip(counts, rest, strict=True):
            first += PLACEHOLDER * count + after
        ids = self.tokenizer(first, add_special_tokens=False, return_tensors="pt")
        features = self.checkpoint.extractor(
            [np.pad(clip, (0, max(0, SAMPLE_RATE_HZ - len(clip)))) for clip in audio],
            sampling_rate=SAMPLE_RATE_HZ,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return BatchFeature(
            {
                "input_ids": ids.input_ids,
                "attention_mask": ids.attention_mask,
                "input_features": features.input_features,
                "feature_attention_mask": features.attention_mask,
            }
        )

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        return list(self.tokenizer.batch_decode(ids, **options))


class Model:
    """The whole model's `generate`, of which only the thinker answers."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.thinker = checkpoint.thinker
        self.device, self.dtype = self.thinker.device, self.thinker.dtype
        self.end_id = int(checkpoint.tokenizer.convert_tokens_to_ids("<|im_end|>"))

    @torch.inference_mode()
    def generate(self, *, thinker_max_new_tokens: int, **inputs: Any) -> tuple[Any, None]:
        known = ("input_ids", "attention_mask", "input_features", "feature_attention_mask")
        self.thinker.model.rope_deltas = None
        sequences = self.thinker.generate(
            **{name: inputs[name] for name in known},
            max_new_tokens=thinker_max_new_tokens,
            do_sample=False,
            eos_token_id=self.end_id,
            pad_token_id=self.end_id,
        )
        return SimpleNamespace(sequences=sequences), None


def upstream(folder: Path) -> Any:
    """Import infer.py of a checkout, with stand-ins for modules that cannot be used here."""

    def load(path: str, normalize: bool = False) -> tuple[torch.Tensor, int]:
        samples, rate = sf.read(path, dtype="int16", always_2d=True)
        return torch.from_numpy(samples.T.copy()), rate

    def save(path: str, samples: torch.Tensor, rate: int) -> None:
        sf.write(path, samples.numpy().T, rate)

    def process_mm_info(messages: Any, **_: Any) -> tuple[list[Samples], None, None]:
        parts = [part for message in messages for part in message["content"]]
        return [audio.load(part["audio"]) for part in parts if part["type"] == "audio"], None, None

    stand_ins = {
        "torchaudio": {"load": load, "save": save},
        "qwen_omni_utils": {"process_mm_info": process_mm_info},
    }
    for name, values in stand_ins.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        sys.modules[name] = module
    import transformers

    transformers.Qwen3OmniMoeProcessor = Processor
    spec = importlib.util.spec_from_file_location("upstream_infer", folder / "infer.py")
    if spec is None or spec.loader is None or not (folder / "infer.py").exists():
        sys.exit(f"{folder}: there is no infer.py; expected a checkout of upstream's repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logging.getLogger("upstream_infer").setLevel(logging.ERROR)
    return module


def theirs(module: Any, checkpoint: Checkpoint, path: Path, folder: Path) -> tuple[list[str], bool]:
    """The turns that upstream's loop writes for a recording, and whether it reached an answer at once."""
    profile = checkpoint.profile
    initial = profile.initial_text or profile.wording.initial_text
    later = profile.turn_text or profile.wording.turn_text
    messages, answer = module.run_inference(
        Model(checkpoint),
        Processor(checkpoint),
        str(path),
        str(folder),
        checkpoint.tokenizer.chat_template,
        initial,
        later,
        use_transformers=True,
        max_retries=1,
    )
    turns = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    return turns, answer is not None


def ours(engine: Engine, clips: Sequence[Samples]) -> list[list[str]]:
    """The turns of one dialogue for each clip, all in one batch."""
    dialogues = [Dialogue(clip, engine.profile) for clip in clips]
    for _ in run(dialogues, engine):
        pass
    return [[answer.text for answer in d.outcome.trace.answers] for d in dialogues if d.outcome]


def recordings(
    arguments: argparse.Namespace, folder: Path, works: Callable[[Path], bool]
) -> list[Path]:
    """The first meetings of the length that upstream's loop answers."""
    try:
        drawn = held_out(arguments.banks)
    except DataError as error:
        Console(stderr=True).print(f"{error}; the example recording it is")
        return [Path(__file__).parent.parent / "examples" / "meeting.flac"]
    paths: list[Path] = []
    for number, one in enumerate(drawn):
        samples = one.meeting.samples
        if not DURATION_S[0] <= len(samples) / SAMPLE_RATE_HZ <= DURATION_S[1]:
            continue
        path = folder / f"meeting-{number:02d}.wav"
        sf.write(path, samples, SAMPLE_RATE_HZ)
        if works(path):
            paths.append(path)
        if len(paths) == arguments.recordings:
            break
    return paths


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "checkout", type=Path, help="of https://github.com/ASLP-lab/Speaker-Reasoner"
    )
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    arguments = parser.parse_args()
    module = upstream(arguments.checkout)
    checkpoint = load_engine(arguments.model).checkpoint
    engines = {
        "ours": TransformersEngine(checkpoint),
        "ours, one token a step": TransformersEngine(checkpoint, lookahead=0),
        "ours, through transformers' classes": TransformersEngine(checkpoint),
    }
    cores = usable_cores()
    shared = EngineProcesses(engines["ours"], {"model": arguments.model, "device": "cpu"}, cores)
    slower = engines["ours, through transformers' classes"]
    slower.text, slower.fast = JoinedText(checkpoint.thinker), FastLinears(Module())
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = recordings(
            arguments, folder, lambda path: theirs(module, checkpoint, path, folder)[1]
        )
        clips = [audio.load(path) for path in paths]
        many = [clips[i % len(clips)] for i in range(AT_ONCE)]
        same, every = 0, []
        for repeat in track(range(arguments.repeats + 1)):  # the first is not counted
            seconds: dict[str, float] = dict.fromkeys(["upstream", *engines], 0.0)
            for path, clip in zip(paths, clips, strict=True):
                spent, (turns, _) = timed(lambda p=path: theirs(module, checkpoint, p, folder))
                seconds["upstream"] += spent
                for label, engine in engines.items():
                    spent, [own] = timed(lambda e=engine, c=clip: ours(e, [c]))
                    seconds[label] += spent
                    same += repeat == 0 and label == "ours" and own[:-1] == turns[: len(own) - 1]
            at_once = {"": engines["ours"], f" in {cores} processes": shared}
            for where, engine in at_once.items():
                spent, turns = timed(lambda e=engine: ours(e, many))
                seconds[f"{AT_ONCE} at once{where}, for each"] = spent / AT_ONCE * len(clips)
                every.append(turns)
            if repeat:
                for label, value in seconds.items():
                    rows.setdefault(label, []).append(value)
    shared.close()
    assert all(turns == every[0] for turns in every), "a batch wrote other turns elsewhere"
    ratios = {
        label: spread([a / b for a, b in zip(rows["upstream"], values, strict=True)])
        for label, values in rows.items()
        if label != "upstream"
    }
    stored = {
        "repeats": arguments.repeats,
        "recordings": [round(len(clip) / SAMPLE_RATE_HZ, 1) for clip in clips],
        "same_turns": same,
        "weights": weights(checkpoint),
        "seconds": {label: spread(values) for label, values in rows.items()},
        "times_faster": ratios,
    }
    path = store("upstream", stored)
    table = Table("", "seconds", "times faster than upstream")
    for label, values in rows.items():
        ratio = ratios.get(label)
        faster = f"{ratio['median']:.1f} ({ratio['min']:.1f}-{ratio['max']:.1f})" if ratio else ""
        table.add_row(label, f"{spread(values)['median']:.2f}", faster)
    Console().print(table)
    Console().print(f"the same turns in {same} of {len(clips)} recordings")
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()

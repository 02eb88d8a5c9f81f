"""The record of every benchmark: command, commit, machine, versions; and the writer of its result."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from speaker_reasoner.engines.checkpoint import Checkpoint

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def provenance() -> dict[str, Any]:
    import torch
    import transformers

    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "command": shlex.join(["python", *_words(sys.argv)]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "--short", "HEAD") or "unknown",
        "changed_files": None if changed is None else len(changed.splitlines()),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
        },
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated measurements."""
    return {
        "median": round(median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def store(name: str, result: dict[str, Any]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**provenance(), **result}, indent=2) + "\n", encoding="utf-8")
    return path


def weights(checkpoint: Checkpoint) -> str:
    """Return a hash of the weights of model and voice head, of a checkpoint with one file of each."""
    assert checkpoint.folder is not None
    digest = hashlib.sha256()
    for name in ("model.safetensors", "voice.safetensors"):
        path = checkpoint.folder / name
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()[:12]


def _words(words: list[str]) -> list[str]:
    """A command without what is of the machine alone: `--work FOLDER`, `--banks FOLDER`, and the folders of paths from
    the root."""
    pairs, folders = zip(["", *words], words, strict=False), ("--work", "--banks")
    return [
        Path(word).name if word.startswith("/") else word
        for before, word in pairs
        if before not in folders and word.partition("=")[0] not in folders
    ]


def _git(*arguments: str) -> str | None:
    """Return the output of a git command; `None` if it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return None
    return None if done.returncode else done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

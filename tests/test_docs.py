"""The documents say what the stored results say, and the shipped checkpoint is what they speak of."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
TINY = ROOT / "src" / "speaker_reasoner" / "checkpoints" / "tiny"


def test_tables_are_what_the_results_say() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_result_tells_whether_its_code_was_committed(tmp_path: Path) -> None:
    def told() -> tuple[str, int | None]:
        script = "import common; p = common.provenance(); print(p['commit'], p['changed_files'])"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")},
            capture_output=True,
            text=True,
            check=True,
        )
        commit, changed = done.stdout.split()
        return commit, None if changed == "None" else int(changed)

    def git(*arguments: str) -> None:
        named = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert told() == ("unknown", None)
    git("init")
    (tmp_path / "code.py").write_text("one")
    git("add", ".")
    git("commit", "-m", "one")
    assert re.fullmatch(r"[0-9a-f]{7,}", told()[0]) and told()[1] == 0
    (tmp_path / "code.py").write_text("two")
    (tmp_path / "result.json").write_text("{}")
    assert told()[1] == 1


@pytest.mark.parametrize(
    "name",
    [
        "heldout-assembled",
        "heldout-dialogues-alone",
        "turns",
        "batch",
        "scoring",
        "longform",
        "longform-fresh",
        "longform-unseen",
        "longform-eighth",
        "longform-ninth",
        "longform-shipped",
        "rounds",
        "rounds-tenth",
        "rounds-eleventh",
        "plan",
        "real",
        "linking",
        "cache",
        "stages",
        "scaling-time",
        "scaling-memory",
        "serve",
        "calibration-voices",
    ],
)
def test_results_can_be_repeated(name: str) -> None:
    """A stored result names its command, commit and machine, and its command's file is here."""
    stored = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[0-9a-f]{7,}", stored["commit"])
    assert stored["machine"]["cores"] >= 1
    script = stored["command"].split()[1]
    assert (ROOT / script).exists()


def test_embedded_checkpoint_is_small() -> None:
    size = sum(path.stat().st_size for path in TINY.iterdir())
    assert size <= 20 * 2**20


def test_links_of_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document}: {target}"

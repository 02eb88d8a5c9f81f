"""The documents say what the stored results say, and the shipped checkpoint is what they speak of."""

import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

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


def test_the_glossary_is_in_order_and_names_classes_that_there_are() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)[1:]
    assert len(terms) > 90 and terms == sorted(set(terms), key=str.casefold)
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", text))
    assert {name for name in named if not re.search(rf"^class {name}\b", source, re.M)} == set()


def test_a_result_tells_what_it_was_made_by(tmp_path: Path, monkeypatch: Any) -> None:
    """A command to paste, and whether its code was committed."""
    spec = spec_from_file_location("common", ROOT / "benchmarks" / "common.py")
    assert spec is not None and spec.loader is not None
    common = module_from_spec(spec)
    spec.loader.exec_module(common)

    def git(*arguments: str) -> None:
        named = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *named, *arguments], check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks/any.py", "of one=a"])
    nowhere = common.provenance()
    assert nowhere["command"] == "python benchmarks/any.py 'of one=a'"
    assert (nowhere["commit"], nowhere["changed_files"]) == ("unknown", None)
    for work in (["--work", str(tmp_path)], [f"--work={tmp_path}"]):
        monkeypatch.setattr(sys, "argv", ["benchmarks/any.py", "--rows", "7", *work, "-v"])
        assert common.provenance()["command"] == "python benchmarks/any.py --rows 7 -v"
    git("init")
    (tmp_path / "code.py").write_text("one")
    git("add", ".")
    git("commit", "-m", "one")
    committed = common.provenance()
    assert re.fullmatch(r"[0-9a-f]{7,}", committed["commit"]) and committed["changed_files"] == 0
    (tmp_path / "code.py").write_text("two")
    (tmp_path / "result.json").write_text("{}")
    assert common.provenance()["changed_files"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "heldout-assembled",
        "heldout-dialogues-alone",
        "turns",
        "batch",
        "scoring",
        "longform",
        "longform-shipped",
        "rounds-tenth",
        "plan",
        "real",
        "linking",
        "cache",
        "stages",
        "scaling-time",
        "scaling-memory",
        "serve",
        "faults",
        "constraint",
        "calibration-voices",
    ],
)
def test_a_result_names_its_command_commit_and_machine(name: str) -> None:
    """And its command's file is here; the measurement itself is not made again."""
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


def test_every_finding_is_in_their_table() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \|", (ROOT / "findings" / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted(path.name for path in (ROOT / "findings").glob("*.sh"))

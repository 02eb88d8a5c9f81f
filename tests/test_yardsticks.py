"""Scoring by the rules of other tools: figures of md-eval, sclite and Whisper's normaliser on inputs made here."""

import json
from pathlib import Path

import pytest

from speaker_reasoner.cli import main
from speaker_reasoner.commands.evaluate import TOOLS
from speaker_reasoner.evaluate.pairs import pair
from speaker_reasoner.evaluate.yardsticks import YARDSTICKS
from speaker_reasoner.transcript import Segment, Transcript

pytest.importorskip("meeteval", reason="pip install 'speaker-reasoner[eval]'")

RTTM = "SPEAKER m 1 2.0 6.0 <NA> <NA> A <NA> <NA>\nSPEAKER m 1 10.0 4.0 <NA> <NA> B <NA> <NA>\n"
SYSTEM = "SPEAKER m 1 0.5 7.5 <NA> <NA> x <NA> <NA>\nSPEAKER m 1 9.0 8.0 <NA> <NA> y <NA> <NA>\n"


def scored(
    tmp_path: Path, reference: str, hypothesis: str, *options: str
) -> dict[str, dict[str, float]]:
    result = tmp_path / "result.json"
    files = [
        tmp_path / f"{side}{reference_suffix(text)}"
        for side, text in (("r", reference), ("h", hypothesis))
    ]
    for file, text in zip(files, (reference, hypothesis), strict=True):
        file.write_text(text, encoding="utf-8")
    assert main(["evaluate", "score", *map(str, files), "-o", str(result), *options]) == 0
    stored = json.loads(result.read_text("utf-8"))
    assert stored["settings"].get("as", {}).get("tool") == (options[1] if options else None)
    scores: dict[str, dict[str, float]] = stored["scores"]
    return scores


def reference_suffix(text: str) -> str:
    return ".rttm" if text.startswith("SPEAKER") else ".stm"


@pytest.mark.parametrize(
    ("options", "false_alarm_s"),
    [  # md-eval.pl without a UEM: 1.00 s; with one of the whole recording: 5.50 s
        ((), 5.5),
        (("--as", "md-eval"), 1.0),
        (("--as", "dscore"), 5.5),
    ],
)
def test_what_is_scored_without_a_uem(
    tmp_path: Path, options: tuple[str, ...], false_alarm_s: float
) -> None:
    der = scored(tmp_path, RTTM, SYSTEM, *options)["der_0"]
    assert der["reference_s"] == pytest.approx(10.0)
    assert der["false_alarm_s"] == pytest.approx(false_alarm_s)


def test_a_recording_without_speech_is_no_false_alarm_of_md_eval() -> None:
    empty, talk = Transcript("m", 9.0), Transcript("m", 9.0, (Segment("x", 1.0, 5.0, ""),))
    [one] = pair({"m": empty}, {"m": talk})
    assert YARDSTICKS["md-eval"].pair(one).reference.unscored == ((0.0, float("inf")),)
    assert YARDSTICKS["dscore"].pair(one).reference.unscored == ((0.0, 1.0), (5.0, float("inf")))


def test_sclite_without_its_option(tmp_path: Path) -> None:
    """`sclite`: 2 right, 1 substitution (punctuation is part of a word), 1 deletion; with `-D` no deletion."""
    reference, hypothesis = "t 1 A 0 4 We (uh) MET him.\n", "t 1 A 0 4 we met him\n"
    ours = scored(tmp_path, reference, hypothesis)["wer"]
    assert (ours["deletions"], ours["substitutions"], ours["reference_words"]) == (0, 0, 4)
    theirs = scored(tmp_path, reference, hypothesis, "--as", "sclite")["wer"]
    assert (theirs["deletions"], theirs["substitutions"], theirs["reference_words"]) == (1, 1, 4)
    # Said, an optional word is right with `-D` alone: otherwise its parentheses are compared, too.
    said = "t 1 A 0 4 we uh met him\n"
    assert scored(tmp_path, reference, said)["wer"]["substitutions"] == 0
    theirs = scored(tmp_path, reference, said, "--as", "sclite")["wer"]
    assert (theirs["deletions"], theirs["substitutions"], theirs["reference_words"]) == (0, 2, 4)


def test_whispers_whole_normaliser(tmp_path: Path) -> None:
    reference = "t 1 A 0 4 Mr. Brown won't be there at 5 o'clock, uh\n"
    hypothesis = "t 1 A 0 4 mister brown will not be there at 50 clock\n"
    options = "--as", "whisper", "--language", "en"
    assert scored(tmp_path, reference, hypothesis, *options)["wer"]["rate"] == 0
    assert scored(tmp_path, reference, hypothesis)["wer"]["rate"] > 0
    chinese = YARDSTICKS["whisper"].normalisation
    assert chinese is not None and chinese("zh").words("你好。ABC") == [
        "你",
        "好",
        "A".lower(),
        "b",
        "c",
    ]
    assert chinese("de").words("Über-Zug (laut)!") == ["über", "zug"]


def test_a_yardstick_has_its_own_normalisation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        scored(tmp_path, RTTM, SYSTEM, "--as", "whisper", "--normalise", "lower")
    assert "leave out --normalise" in capsys.readouterr().err
    assert tuple(YARDSTICKS) == TOOLS

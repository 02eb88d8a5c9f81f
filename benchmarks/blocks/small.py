"""Blocks of docs/compose.md: the thinker of Whisper base and SmolLM2-135M."""

from typing import Any

from .stored import load, percent, rate, table

_TRAINED = {
    "stage-1": ("1", "single-pass"),
    "stage-2": ("2", "dialogues"),
    "stage-3": ("3", "cached"),
}
"""The paper's number of a stage, and its name in logs."""


def stages() -> str:
    stored = load("small")
    losses = stored["losses"]
    warm = losses["warm-up"]
    rows = [["warm-up", str(warm["steps"]), "–", "–", "–", "–", "–"]]
    for name, (number, logged) in _TRAINED.items():
        one = stored["stages"][name]
        scores = one.get("scores", one)
        count = scores.get("speaker_count")
        rows.append(
            [
                number,
                str(losses[logged]["steps"]),
                f"{one.get('finished', one['meetings'])} of {one['meetings']}",
                percent(rate(scores, "wer")),
                percent(rate(scores, "cpwer")),
                percent(rate(scores, "der_025")),
                f"{count['right']} of {count['total']}" if count else "–",
            ]
        )
    heard = (
        f"{percent(warm['check']['word_accuracy'])} of the audio tokens are their word (or silence) after the "
        "warm-up, on voices and sentences of the training"
    )
    hours = sum(stored["seconds"][name] for name in _TRAINED) / 3600
    return "\n".join(
        [
            table("stage | steps | finished | WER | cpWER | DER | count of speakers right", rows),
            "",
            f"Training took {hours:.1f} hours. {stored['sentences']['lines']:,} sentences of "
            f"{stored['sentences']['words']:,} words; {heard}. `{stored['command']}` ([result](results/small.json)).",
        ]
    )


def real() -> str:
    rows = []
    for row in load("small")["real"]["rows"]:
        other: dict[str, Any] = row["cascade"] or {}
        rows.append(
            [
                row["clip"],
                *(percent(row.get(name)) for name in ("wer", "cpwer", "der_025")),
                str(row.get("speakers", "–")),
                *(percent(other.get(name)) for name in ("wer", "cpwer", "der_025")),
                str(other.get("speakers", "–")),
            ]
        )
    return table(
        "clip | WER | cpWER | DER | speakers | cascade: WER | cpWER | DER | speakers", rows
    )


BLOCKS = {"small-stages": stages, "small-real": real}

"""Block of docs/training.md."""

from .stored import load


def training_speed() -> str:
    stored = load("training")
    faster, tokens = stored["faster"], stored["this"]["tokens_per_s"]["median"]
    own, other = (
        f"{stored['losses_of_last_steps'][side]['answer']['median']:.3f}"
        for side in ("this", "other")
    )
    ratio = f"{faster['median']:.2f} times as many as the build {stored['other_commit']} without all this"
    return (
        f"On {stored['machine']['cores']} cores, in {stored['processes']['this']} processes, stage 2 of `train tiny` "
        f"learns from {tokens:,.0f} tokens a second, {ratio} ({faster['min']:.2f} to {faster['max']:.2f}; "
        f"{stored['steps']} steps of as much sound of the same voices, answer loss of the last "
        f"{stored['losses_of_last_steps']['steps']}: {own} and {other}; `{stored['command']}`, "
        "[result](results/training.json))."
    )


BLOCKS = {"training-speed": training_speed}

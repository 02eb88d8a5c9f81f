"""Blocks of docs/engines.md."""

from .stored import load


def vllm_same() -> str:
    stored = load("vllm")
    ways = [f"{row['same']} with `{way}`" for way, row in stored["ways"].items()]
    same = f"{', '.join(ways[:-1])} and {ways[-1]}"
    return (
        f"vLLM {stored['vllm']} on a CPU, with the embedded checkpoint in the layout of the published ones: of "
        f"{stored['dialogues']} dialogues (held-out meetings and stretches of them, both kinds of answer) the turns "
        f"equal those of this package's engine in {same} (`python benchmarks/real_vllm.py`)."
    )


BLOCKS = {"vllm-same": vllm_same}

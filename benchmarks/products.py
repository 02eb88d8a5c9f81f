"""Products of float32 matrices on this CPU: torch's own linear layer against oneDNN's, in turn.

    python benchmarks/products.py [--repeats 7]

The shapes are those of the embedded checkpoint's text model; rows are the new tokens of a step or a prefill.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from common import spread, store
from speaker_reasoner.engines.linears import Product

SHAPES = (512, 256), (256, 256), (1536, 256), (256, 768)  # out, in
ROWS = 1, 2, 4, 8, 32, 300
LAYERS = 8
"""As many of a shape in turn, so that their weights do not stay in the nearest cache."""


def seconds_of(layers: list[Callable[[Tensor], Tensor]], x: Tensor) -> float:
    """Return the mean time of one product over many calls, in seconds."""
    calls = 200 if len(x) < 100 else 20
    begun = time.perf_counter()
    for _ in range(calls // LAYERS):
        for layer in layers:
            layer(x)
    return (time.perf_counter() - begun) / (calls // LAYERS * LAYERS)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layers = {
        shape: [nn.Linear(shape[1], shape[0], bias=False) for _ in range(LAYERS)]
        for shape in SHAPES
    }
    rows: list[dict[str, Any]] = []
    for count in ROWS:
        ratios = []
        for _ in range(arguments.repeats + 1):  # the first is not counted
            seconds = [0.0, 0.0]
            for shape, own in layers.items():
                x = torch.randn(count, shape[1])
                seconds[0] += seconds_of(list(own), x)
                seconds[1] += seconds_of([Product.of([layer]) for layer in own], x)
            ratios.append(seconds[0] / seconds[1])
        rows.append({"rows": count, "times_faster": spread(ratios[1:])})
    path = store("products", {"repeats": arguments.repeats, "threads": 1, "products": rows})
    table = Table("rows", "times faster than torch's own")
    for row in rows:
        faster = row["times_faster"]
        table.add_row(
            str(row["rows"]), f"{faster['median']:.2f} ({faster['min']:.2f}-{faster['max']:.2f})"
        )
    Console().print(table)
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()

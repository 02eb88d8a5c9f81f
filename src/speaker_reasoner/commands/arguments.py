"""Values that several commands take."""

import argparse
import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engines.base import Engine


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def lengths(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected seconds as 40-50, got {text!r}") from None
    if not 0 < low < high:
        raise argparse.ArgumentTypeError(f"expected 0 < shortest < longest, got {text!r}")
    return low, high


def shares(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected shares as 0.3,0.7, got {text!r}") from None
    if not all(0 < share < math.inf for share in found):
        raise argparse.ArgumentTypeError(f"expected shares above 0, got {text!r}")
    return found


def speaker_range(text: str) -> tuple[int, int]:
    """`3` or `2-5`: fewest and most speakers."""
    low, _, high = text.partition("-")
    if not low.isdigit() or not (high or low).isdigit() or not 1 <= int(low) <= int(high or low):
        raise argparse.ArgumentTypeError(f"expected how many speakers, as 3 or 2-5, got {text!r}")
    return int(low), int(high or low)


def add_model(command: argparse.ArgumentParser) -> None:
    """Which checkpoint, and where it runs."""
    add = command.add_argument_group("model").add_argument
    add("--model", metavar="PATH|HUB_ID", help="another checkpoint than the embedded one")
    add("--prompts", metavar="FILE", type=Path, help="prompt file of a released checkpoint")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: fitting the device")


def load_quietly(arguments: argparse.Namespace, *, quiet: bool = False) -> "Engine":
    """Load the engine; what the libraries say meanwhile is not for the user, but for downloads."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    from .. import load_engine

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if sys.stderr.isatty() and not quiet:
        enable_progress_bars()
    return load_engine(
        arguments.model, device=arguments.device, dtype=arguments.dtype, prompts=arguments.prompts
    )

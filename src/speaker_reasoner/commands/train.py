"""`speaker-reasoner train`: the three stages, by a configuration."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..errors import SettingsError
from ..extras import require
from .arguments import positive
from .transcribe import check_output

if TYPE_CHECKING:
    from ..train.config import TrainingConfig
_EXAMPLES = """examples:
  speaker-reasoner train tiny
  speaker-reasoner train tiny --stage 3 --from runs/tiny/stage-3 -o runs/more
  speaker-reasoner train my.toml --stage 1 -o runs/mine
  speaker-reasoner train tiny --stage voice --from mean
  speaker-reasoner train tiny --cpu --processes 2
  accelerate launch --num_processes 2 -m speaker_reasoner train tiny-gpu
  accelerate launch --config_file omni-30b.fsdp2.yaml -m speaker_reasoner train omni-30b
"""


def add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "train",
        help="train a checkpoint",
        description="Train a model in three stages, each from the last one's weights. A run that was "
        "stopped goes on\nwhere it was. On several GPUs, start it by `accelerate launch`.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("config", metavar="CONFIG", help="a TOML file, or tiny, tiny-gpu, small, omni-7b, omni-30b")
    add(
        "--stage",
        choices=("1", "2", "3", "all", "voice"),
        default="all",
        help="1 single turns, 2 dialogues, 3 with a speaker cache, after which a voice head is trained "
        "where one is configured; voice: the head alone (default: all there are)",
    )
    add(
        "--data",
        metavar="DIR",
        nargs="+",
        help="prepared splits, or their shards, to train on (default: the configuration's corpora.train)",
    )
    add(
        "--from",
        dest="start",
        metavar="MODEL",
        help="folder or hub id of the checkpoint to begin from (default: the configuration's model, "
        "or what the stage before left in OUT)",
    )
    add(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="log, states and checkpoints (default: runs/CONFIG)",
    )
    add("--cpu", action="store_true", help="use no GPU")
    add(
        "--processes",
        metavar="N",
        type=positive,
        help="on a CPU: processes that share the batches of a step, with the same result as one (default: as many as "
        "cores, if batches_per_step divides among them)",
    )
    add(
        "--strict",
        action="store_true",
        help="stop before training where audio of a prepared corpus is missing, broken or too short "
        "(default: leave its pieces out, and say which)",
    )
    command.set_defaults(run=_train, parser=command)


def _train(arguments: argparse.Namespace) -> int:
    from transformers.utils import logging

    from ..train.accelerators import LostProcessError
    from ..train.config import config_path, load_config
    from ..train.processes import LOST, default_processes, end_with_parent, is_member, run_together
    from ..train.stages import STAGES, train, train_voice_head

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = load_config(arguments.config)
    if arguments.data:
        config = config.on(arguments.data)
    require("train", "training", *_libraries(config, arguments.stage))
    output = arguments.output or Path("runs") / config_path(arguments.config).stem
    check_output(output)
    side = Console(stderr=True, highlight=False, soft_wrap=True)
    if arguments.stage == "voice":
        if (arguments.processes or 1) > 1:
            raise SettingsError(
                f"--processes {arguments.processes}: a voice head is trained by one process; leave it out"
            )
        written = train_voice_head(config, output, start=arguments.start, cpu=arguments.cpu)
        side.print(f"wrote {written}", markup=False)
        return 0
    if arguments.stage == "all":
        stages = [number for number, name in STAGES.items() if name in config.stages]
    else:
        stages = [int(arguments.stage)]
    processes = arguments.processes or default_processes(
        config.run.batches_per_step, cpu=arguments.cpu
    )
    if processes > 1:
        return run_together(processes, _words(arguments, output), cpu=arguments.cpu)
    if is_member():
        end_with_parent()
    try:
        train(
            config,
            output,
            stages=stages,
            start=arguments.start,
            cpu=arguments.cpu,
            strict=arguments.strict,
            progress=lambda text: side.print(text, markup=False),
        )
    except LostProcessError:
        if is_member():
            return LOST
        raise
    return 0


def _words(arguments: argparse.Namespace, output: Path) -> list[str]:
    """The command line of another process of the same training."""
    words = ["train", arguments.config, "--stage", arguments.stage, "-o", str(output), "--cpu"]
    if arguments.data:
        words += ["--data", *arguments.data]
    if arguments.start:
        words += ["--from", arguments.start]
    if arguments.strict:
        words.append("--strict")
    return words


def _libraries(config: "TrainingConfig", stage: str) -> list[str]:
    """The libraries of the extra that a training imports, some of them hours after it began."""
    needed = ["accelerate"]
    if stage != "voice":
        needed += ["meeteval", "rapidfuzz"]  # which score the dialogues of its checks
    if config.simulated is not None:
        needed += ["scipy", "pyroomacoustics"]
    if config.model.method == "lora":
        needed.append("peft")
    return needed

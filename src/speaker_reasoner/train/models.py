"""The model of a run: random weights, a folder or hub id, or an adapter; and its checkpoint.

A checkpoint is a Hugging Face folder that `--model` takes: the thinker in bfloat16, or a LoRA
adapter, and the profile with the configuration it was trained by.
"""

import copy
import logging
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engines.adapter import merge_adapter
from ..engines.checkpoint import CheckpointFiles, find_checkpoint, load_thinker
from ..engines.thinker import audio_tower, text_model
from ..errors import CheckpointError, first_line
from ..protocol import Profile
from ..version import __version__
from .adapters import adapt, load_adapter, save_adapter
from .config import TrainingConfig
from .lineage import named
from .packing import pack_rows
from .schedule import RunConfig
from .scratch import make_feature_extractor, make_thinker, make_tokenizer
from .simulated import tokenizer_texts
from .windows import join_windows

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """A thinker to be trained, with its tokenizer, extractor and profile.

    Attributes:
        thinker: with its adapters; frozen parameters take no gradient.
        base: folder or hub id of the weights under an adapter.
        before: the record of the checkpoint it starts from (see `lineage`).
    """

    thinker: Any
    tokenizer: Any
    extractor: Any
    base: str
    before: Mapping[str, Any] | None


def build(config: TrainingConfig, start: str | Path | None = None) -> TrainableModel:
    """Make or load the model of a run.

    Args:
        start: folder or hub id of a model, or of an adapter of the configuration's base; replaces the
            model of the configuration.

    Raises:
        CheckpointError: the folder is incomplete or damaged, or does not fit the configuration.
    """
    torch.manual_seed(config.seed)
    if start is None and not config.model.base:
        tokenizer = make_tokenizer(tokenizer_texts(config), config.model.tiny.vocabulary)
        thinker, extractor = make_thinker(tokenizer, config.model.tiny), make_feature_extractor()
        model = TrainableModel(thinker, tokenizer, extractor, "", None)
    else:
        model = _load(config, start)
    make_ready(model.thinker, config.run)
    return model


def make_ready(thinker: Any, run: RunConfig) -> None:
    """Prepare a thinker for training, in place: freeze the vision tower, compute audio windows in one call
    (see `windows`) and rows of text without padding (see `packing`), and apply the run's settings of its layers."""
    for name, parameter in thinker.named_parameters():
        if "visual." in name:
            parameter.requires_grad_(False)
    join_windows(audio_tower(thinker))
    pack_rows(text_model(thinker))
    if run.gradient_checkpointing:
        enable = getattr(thinker, "activation_checkpointing_enable", None)
        enable = enable or thinker.gradient_checkpointing_enable  # before transformers 5.23
        enable({"use_reentrant": False})
    if run.compile and _compiles():
        for layer in text_model(thinker).layers:
            layer.compile(dynamic=True)


def _compiles() -> bool:
    """Return whether torch can compile here, by compiling one product; a warning says why it cannot."""
    try:
        torch.compile(lambda values: values.sin() * 2)(torch.ones(64))
    except Exception as error:  # of compilers, any class
        _log.warning(
            "compile: torch.compile failed (%s); layers are not compiled: the same losses, but a step takes longer",
            first_line(error),
        )
        return False
    return True


def _load(config: TrainingConfig, start: str | Path | None) -> TrainableModel:
    settings = config.model
    source = settings.base if start is None else start
    files = find_checkpoint(source, settings.revision if start is None else None)
    lora = settings.method == "lora"
    half = lora and config.run.bf16  # frozen weights; trained ones stay float32
    thinker = load_thinker(files, torch.bfloat16 if half else torch.float32)
    base = settings.base if start is None else str(start)
    if lora:
        base = _base(files, base, settings.base)
        adapt(thinker, settings.lora)
        if files.adapter is not None:
            load_adapter(thinker, files.folder, files.adapter, settings.lora)
    elif files.adapter is not None:
        merge_adapter(thinker, files.folder, files.adapter)
    profile = files.profile()
    before = None if profile is None else profile.training
    return TrainableModel(thinker, files.tokenizer, files.extractor, base, before)


def _base(files: CheckpointFiles, given: str, configured: str) -> str:
    """Return the place of the frozen weights, as an adapter's settings name it."""
    if files.adapter is None:
        return _absolute(given)
    named = str(files.adapter["base_model_name_or_path"])
    if named != _absolute(configured):
        raise CheckpointError(
            f"{files.folder}: is an adapter of {named}, not of the configuration's "
            f"{_absolute(configured)}; set model.base to it"
        )
    return named


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name


def write_model(
    folder: Path,
    model: TrainableModel,
    state: Mapping[str, Tensor],
    profile: Profile,
    config: TrainingConfig,
) -> None:
    """Write a checkpoint's files into an existing folder.

    Args:
        state: of the thinker: its trained parameters for LoRA, else all, whole.
        profile: with its record of training.
    """
    if config.model.method == "lora":
        save_adapter(
            folder, model.thinker, state, config.model.lora, model.base, config.model.revision
        )
    else:
        with torch.device("meta"):
            shell = type(model.thinker)(copy.deepcopy(model.thinker.config))
        shell.to(torch.bfloat16).save_pretrained(folder, state_dict=dict(state))
        model.tokenizer.save_pretrained(folder)
        model.extractor.save_pretrained(folder)
    profile.save(folder)


def record(stage: str, config: TrainingConfig, model: TrainableModel) -> dict[str, Any]:
    """The training record of a checkpoint's profile."""
    entries: dict[str, Any] = {"stage": stage, "version": __version__, "commit": _commit()}
    entries["config"] = config.to_json()
    if model.before:
        entries["start"], entries["before"] = named(model.before)
    return {key: value for key, value in entries.items() if value is not None}


def _commit() -> str | None:
    """The commit of the repository that this file is part of; `None` for an installed package."""
    here = Path(__file__)
    tracked = ["ls-files", "--error-unmatch", here.name]
    try:
        for arguments in (tracked, ["rev-parse", "HEAD"]):
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True
            )
            if done.returncode:
                return None
    except OSError:  # there is no git
        return None
    return done.stdout.strip()

"""Merge a LoRA adapter into its base, or average the weights of several models.

The average of models that began from the same weights is better than each (Wortsman et al. 2022, arXiv
2203.05482); it is also a way to train on machines that do not communicate. A voice head belongs to one
tower, and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engines.adapter import merge_adapter
from ..engines.checkpoint import CheckpointFiles, find_checkpoint, load_thinker
from ..errors import CheckpointError, DataError
from ..protocol import Profile
from ..version import __version__
from .lineage import named
from .saves import replace_folder
from .scratch import save_checkpoint


def merge(adapter: str | Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Add an adapter to the weights of its base.

    Args:
        adapter: folder or hub id.
        folder: to be written.
        dtype: of the written weights.

    Raises:
        CheckpointError: it is no adapter, or does not fit its base.
        OutputError: the folder cannot be written.
    """
    files = find_checkpoint(adapter)
    if files.adapter is None:
        raise CheckpointError(
            f"{files.folder}: is a model already, expected a LoRA adapter, or several models to take "
            "the mean of"
        )
    _write(folder, files, loaded(files, dtype), files.profile())


def mean(
    models: Sequence[str | Path],
    folder: Path,
    shares: Sequence[float] = (),
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write the mean of models; all but the weights is the first one's.

    Args:
        models: folders or hub ids, of models or adapters; two at least.
        folder: to be written.
        shares: weight of each, above 0; alike by default.
        dtype: of the written weights.

    Raises:
        DataError: there is one model alone, or other than one share each.
        CheckpointError: one cannot be read, or they are not of one kind.
        OutputError: the folder cannot be written.
    """
    shares = shares or [1.0] * len(models)
    if len(models) < 2 or len(shares) != len(models) or min(shares) <= 0:
        raise DataError(
            f"{len(models)} models, shares {', '.join(f'{share:g}' for share in shares)}: expected "
            "two models or more, and a share above 0 for each"
        )
    checkpoints = [find_checkpoint(model) for model in models]
    profiles = [one.profile() for one in checkpoints]
    for other, profile in zip(checkpoints[1:], profiles[1:], strict=True):
        _check_compatible(checkpoints[0], other, profiles[0], profile)
    parts = [share / sum(shares) for share in shares]
    thinker = loaded(checkpoints[0])
    total = {name: value * parts[0] for name, value in thinker.state_dict().items()}
    for one, part in zip(checkpoints[1:], parts[1:], strict=True):
        _add(total, loaded(one).state_dict(), part, one)
    thinker.load_state_dict(total)
    profile = profiles[0]
    if profile is not None:
        profile = replace(profile, training=_record(profiles, parts))
    _write(folder, checkpoints[0], thinker.to(dtype), profile)


def _write(folder: Path, files: CheckpointFiles, thinker: Any, profile: Profile | None) -> None:
    def write(path: Path) -> None:
        save_checkpoint(path, thinker, files.tokenizer, files.extractor)
        if profile is not None:
            profile.save(path)

    replace_folder(folder, write)


def _record(profiles: Sequence[Profile | None], parts: Sequence[float]) -> dict[str, Any]:
    """The record of an average: its models by name, with their shares (see `lineage`)."""
    known = [one.training if one is not None else {} for one in profiles]
    record: dict[str, Any] = {"stage": known[0].get("stage"), "version": __version__, "mean": []}
    before: dict[str, Any] = {}
    for training, part in zip(known, parts, strict=True):
        name, held = named(training)
        record["mean"].append({"share": round(part, 4), "model": name})
        before |= held
    record["before"] = before
    return {key: value for key, value in record.items() if value is not None}


def loaded(files: CheckpointFiles, dtype: torch.dtype = torch.float32) -> Any:
    """Load the thinker of a checkpoint, an adapter merged."""
    thinker = load_thinker(files, dtype)
    if files.adapter is not None:
        merge_adapter(thinker, files.folder, files.adapter)
    return thinker


def _add(
    total: dict[str, Tensor], more: Mapping[str, Tensor], part: float, files: CheckpointFiles
) -> None:
    shapes, expected = ({n: tuple(v.shape) for n, v in one.items()} for one in (more, total))
    if shapes != expected:
        name = min(n for n in {*shapes, *expected} if shapes.get(n) != expected.get(n))
        raise CheckpointError(
            f"{files.folder}: {name} is {shapes.get(name)}, expected {expected.get(name)} as in the "
            "first model; a mean is of models of one shape"
        )
    for name, value in more.items():
        total[name] += value * part


def _check_compatible(
    first: CheckpointFiles,
    other: CheckpointFiles,
    first_profile: Profile | None,
    other_profile: Profile | None,
) -> None:
    """Check that both have the same tokens and the same protocol."""
    if first.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise CheckpointError(
            f"{other.folder}: its tokenizer is not that of {first.folder}; a mean is of models that "
            "began from one"
        )
    spoken = [
        replace(one, training={}, word_confidence_floor=None, domain="") if one else None
        for one in (first_profile, other_profile)
    ]
    if spoken[0] != spoken[1]:
        raise CheckpointError(
            f"{other.folder}: its profile is not that of {first.folder}: they hold their dialogues "
            "differently"
        )

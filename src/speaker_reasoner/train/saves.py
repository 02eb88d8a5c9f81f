"""The saved state of a training run: one file a stage, replaced atomically.

Frozen weights are not saved. Those that are sharded (FSDP2) are gathered one by one, so that a run can
continue with another number of processes. DeepSpeed keeps its shards itself, in a folder.
"""

import importlib
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import CheckpointError, OutputError

PIECES = "pieces"
"""Key of `order`: the number of pieces that are drawn from."""
_REMEDY = "it is damaged or of another configuration: delete it to start the stage again"


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, gathered from its shards; every process must call it."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def is_deepspeed(accelerator: Any) -> bool:
    return str(accelerator.distributed_type).endswith("DEEPSPEED")


def is_sharded(accelerator: Any) -> bool:
    return str(accelerator.distributed_type).endswith(("DEEPSPEED", "FSDP", "MEGATRON_LM"))


def weights(
    module: nn.Module, accelerator: Any, *, trained: bool = True, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Parameters by name, whole and on the CPU; empty but on the main process.

    Every process must call it.

    Args:
        module: the prepared module without a wrapper.
        trained: only those that are trained, in this stage or another of the run.
        dtype: that floating ones are cast to.
    """
    saved: dict[str, Tensor] = {}
    for name, parameter in (
        _trained(module) if trained else dict(module.named_parameters())
    ).items():
        if hasattr(parameter, "ds_id"):  # ZeRO-3 keeps a shard in the parameter's place
            deepspeed: Any = importlib.import_module("deepspeed")
            with deepspeed.zero.GatheredParameters([parameter]):
                value = parameter.detach().cpu().clone()
        else:
            value = whole(parameter)
        if accelerator.is_main_process:
            saved[name] = (value if dtype is None else value.to(dtype)).contiguous()
    return saved


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a run trains: those of this stage, and those that rest in it (see `Learner`)."""
    resting = getattr(module, "resting", ())
    return {n: p for n, p in module.named_parameters() if p.requires_grad or n in resting}


class Saves:
    """The saved state of one stage.

    Args:
        path: of the file; of a folder beside it under DeepSpeed.
        module: the trained module without a wrapper.
        prepared: the module as accelerate wrapped it.
        optimisers: as accelerate prepared them.
        accelerator: of the run.
        average: the average of the trained weights, by name; not under DeepSpeed.
        order: settings on which the order of the data depends, by name; saved, and compared by `check_order`.

    Raises:
        CheckpointError: there is an average, and DeepSpeed.
    """

    def __init__(
        self,
        path: Path,
        module: nn.Module,
        prepared: Any,
        optimisers: Sequence[Any],
        accelerator: Any,
        average: dict[str, Tensor] | None = None,
        order: Mapping[str, int] | None = None,
    ) -> None:
        if average is not None and is_deepspeed(accelerator):
            raise CheckpointError(
                "DeepSpeed keeps its shards to itself, and no average of them; set average = 0"
            )
        self.path = path
        self.module = module
        self.prepared = prepared
        self.optimisers = [getattr(one, "optimizer", one) for one in optimisers]
        self.accelerator = accelerator
        self.average = average or {}
        self.order = dict(order or {})
        self._saved_order: Mapping[str, int] = {}

    def save(self, step: int) -> None:
        """Write the state after `step` steps. A full disk or a kill leaves the previous state whole.

        Raises:
            OutputError: it cannot be written.
        """
        if is_deepspeed(self.accelerator):
            self._save_shards(step)
            return
        state = {
            "weights": weights(self.module, self.accelerator),
            "average": _gathered(self.average),
            "optimisers": [self._optimiser_state(one) for one in self.optimisers],
            "step": step,
            "order": self.order,
        }
        if self.accelerator.is_main_process:
            replace_file(self.path, lambda path: torch.save(state, path))
        self.accelerator.wait_for_everyone()

    def _optimiser_state(self, optimiser: torch.optim.Optimizer) -> Any:
        """An optimiser's state, whole; empty but on the main process, where processes share its work."""
        consolidate = getattr(optimiser, "consolidate_state_dict", None)
        if consolidate is None:
            return _gathered(optimiser.state_dict())
        consolidate(to=0)
        return _gathered(optimiser.state_dict()) if self.accelerator.is_main_process else {}

    def load(self) -> int:
        """Take up the state; returns its step, 0 where nothing was saved.

        Raises:
            CheckpointError: the file is damaged, or of another configuration.
        """
        if is_deepspeed(self.accelerator):
            step, self._saved_order = self._load_shards()
        else:
            step, self._saved_order = self._load_file()
        return step

    def check_order(self) -> str | None:
        """Compare the order of the data with that of the state that `load` took up.

        Returns:
            A remark for the user if the number of pieces differs, else `None`.

        Raises:
            CheckpointError: a setting differs, so that examples would come twice, or be left out.
        """
        saved = {**self.order, **self._saved_order}  # states of before `order` have none
        for name, value in self.order.items():
            if name != PIECES and saved[name] != value:
                raise CheckpointError(
                    f"{self.path}: was saved with {name} {saved[name]}, got {value}: the rest of the stage would "
                    f"repeat examples and leave others out; set {name} back, or delete the file to start the stage "
                    "again"
                )
        if PIECES not in self.order or saved[PIECES] == self.order[PIECES]:
            return None
        return (
            f"{self.path}: was saved with {saved[PIECES]} pieces, now there are {self.order[PIECES]}: the rest of the "
            "stage repeats some examples and leaves others out"
        )

    def _load_file(self) -> tuple[int, dict[str, int]]:
        if not self.path.exists():
            return 0, {}
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            _fill(_trained(self.module), state["weights"])
            if self.average:
                _fill(self.average, state["average"])
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                _restore(optimiser, saved)
            return int(state["step"]), state.get("order", {})
        except Exception as error:  # of a damaged file, torch raises anything down to struct.error
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if isinstance(error, pickle.UnpicklingError):  # its text is about settings of torch
                reason = "got no whole file of torch.save"
            raise CheckpointError(
                f"{self.path}: cannot go on from this checkpoint: {reason}; {_REMEDY}"
            ) from error

    def _save_shards(self, step: int) -> None:
        folder = self.path.with_suffix("")
        try:
            self.prepared.save_checkpoint(
                str(folder),
                tag=str(step),
                client_state={"step": step, "order": self.order},
                exclude_frozen_parameters=True,
            )
        except Exception as error:
            if not _of_the_disk(error):
                raise
            raise _unwritten(folder, error) from error
        if self.accelerator.is_main_process:
            for old in folder.iterdir():
                if old.is_dir() and old.name != str(step):
                    shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _load_shards(self) -> tuple[int, dict[str, int]]:
        folder = self.path.with_suffix("")
        if not (folder / "latest").exists():  # DeepSpeed writes this file last
            return 0, {}
        try:
            _, state = self.prepared.load_checkpoint(str(folder), load_module_strict=False)
            return int(state["step"]), state.get("order", {})
        except Exception as error:  # as `load`
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise CheckpointError(
                f"{folder}: cannot go on from this checkpoint: {reason}; {_REMEDY}"
            ) from error


@torch.no_grad()
def _fill(held: Mapping[str, Tensor], saved: dict[str, Tensor]) -> None:
    if saved.keys() != held.keys():
        other = min(saved.keys() ^ held.keys())
        raise CheckpointError(f"{len(saved)} weights, not {len(held)}; first other: {other}")
    for name, value in held.items():
        if saved[name].shape != value.shape:
            raise CheckpointError(f"{name} is {tuple(saved[name].shape)}, not {tuple(value.shape)}")
        value.copy_(_sharded(saved[name], value))


def _gathered(state: Any) -> Any:
    """An optimiser's state with every tensor whole and on the CPU."""
    if isinstance(state, Tensor):
        return whole(state)
    if isinstance(state, dict):
        return {key: _gathered(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_gathered(value) for value in state]
    return state


def _restore(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a state that was gathered, sharded as the parameters are."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state = {
        index: {
            name: _sharded(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in saved["state"].items()
    }
    optimiser.load_state_dict({**saved, "state": state})


def _sharded(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return value
    mesh, placements = like.device_mesh, like.placements
    return distribute_tensor(value.to(like.device), mesh, placements, src_data_rank=None)


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside another and put it in its place.

    Raises:
        OutputError: it cannot be written; the old one is unchanged.
    """
    temporary = path.with_suffix(".tmp")
    try:
        write(temporary)
        temporary.replace(path)
    except Exception as error:
        temporary.unlink(missing_ok=True)
        if not _of_the_disk(error):
            raise
        raise _unwritten(path, error) from error


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside another and put it in its place.

    Who may read the folder may read its files: safetensors 0.8.0 writes them for their owner alone.

    Raises:
        OutputError: it cannot be written; the old one is unchanged.
    """
    temporary, old = (path.with_name(f".{path.name}.{kind}") for kind in ("tmp", "old"))
    if old.exists() and not path.exists():  # a run was killed between the two moves
        old.rename(path)
    for left in (temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        mode = temporary.stat().st_mode & 0o666
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(mode)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists():
            old.rename(path)
        if not _of_the_disk(error):
            raise
        raise _unwritten(path, error) from error
    shutil.rmtree(old, ignore_errors=True)


def _of_the_disk(error: Exception) -> bool:
    """Return whether this is an error that a library raises when it cannot write; others are bugs and are not
    converted."""
    if isinstance(error, RuntimeError):  # torch.save
        return any(sign in str(error) for sign in ("inline_container", "Parent directory"))
    return isinstance(error, OSError | SafetensorError) or type(error) is Exception  # tokenizers


def _unwritten(path: Path, error: Exception) -> OutputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return OutputError(f"{path}: cannot be saved: {reason}; is the disk full?")

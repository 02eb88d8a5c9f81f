"""Several workers, by Ray Data: each is an actor with an engine of its own.

Ray is given places in a worklist, and gives back the outcome of each; the listing, recordings and transcripts stay in
files, so that no audio is in its object store, and little of each row in the driver's memory. Results come in any
order. A worker that is lost is started again, and goes on with its rows by the journals and markers of the target,
which all workers see.
"""

import json
import logging
import math
import os
import uuid
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import errors, extras
from ..cores import usable_cores
from ..errors import EngineError, SpeakerReasonerError
from .joining import Joining, with_breaks
from .listing import Shard
from .runner import BatchSettings, Done, Runner
from .target import Target

_WHOLE, _JOIN = -1, -2
_MOST_BLOCKS, _BLOCKS, _BLOCKS_PER_WORKER = 2000, 400, 20
"""Most blocks of tasks in Ray Data: at all, with few workers, and for each of more workers (assumed). The driver's
memory grows with them."""
_BLOCK_S = 60.0
"""Least audio in a block, where each worker has enough of them: a block costs Ray some 10 ms (assumed)."""
_LOOK_S = 10.0
"""Seconds between two looks at the journals of joins (assumed)."""
_STORE_BYTES = 128 << 20
"""Memory of Ray's object store, where Ray is started here (assumed: rows are small)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Number, place and resources of workers.

    Attributes:
        workers: number of workers.
        address: of a Ray cluster; one is started here for as long as it is needed if `None`.
        cpus, gpus: of each worker, also parts of one.
    """

    workers: int
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Worklist:
    """Tasks in the order in which they begin.

    Attributes:
        rows: the number of each task's row in the listing `[n]`.
        shares: the number of its share, `_WHOLE` or `_JOIN` `[n]`.
    """

    rows: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    shares: "np.ndarray[tuple[int], np.dtype[np.int32]]"

    def __len__(self) -> int:
        return len(self.rows)


class EngineWorker:
    """One engine in a process of its own, as Ray Data calls it.

    Args:
        settings: see `Runner`.
        shard: whose workers these are.
        worklist: the tasks of all workers.
    """

    def __init__(self, settings: BatchSettings, shard: Shard, worklist: Worklist) -> None:
        self._worklist = worklist
        target = Target(settings.target, settings.work)
        self._lock = target.worker_lock(shard, uuid.uuid4().hex[:12])
        self._failure: SpeakerReasonerError | None = None
        try:
            target.fetch_listing()  # where another machine has made it
            self._listing = target.listing
            self._runner = Runner(settings)
        except SpeakerReasonerError as error:
            self._failure = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Do tasks (`item`: their places in the worklist), and return their outcomes (`done`: JSON of `Done`).

        Where the engine failed as a whole, that is one object with the name and message of the error: Ray does
        not pass on which exception a worker raised.
        """
        try:
            if self._failure is not None:
                raise self._failure
            return {"done": [json.dumps(asdict(one)) for one in self._do(batch["item"])]}
        except SpeakerReasonerError as error:
            failure = {"error": type(error).__name__, "message": str(error)}
            return {"done": [json.dumps(failure)]}

    def _do(self, places: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> list[Done]:
        rows = self._listing.rows(self._worklist.rows[places].tolist())
        tasks = list(zip(rows, self._worklist.shares[places].tolist(), strict=True))
        whole = [row for row, share in tasks if share == _WHOLE]
        done = list(self._runner.run_guarded(whole)) if whole else []
        for row, share in tasks:
            if share == _JOIN:
                done += self._runner.join(row)
            elif share != _WHOLE:
                done += self._runner.share(row, share)
        return done


def transcribe(
    settings: BatchSettings, target: Target, shard: Shard, cluster: Cluster
) -> Iterator[Done]:
    """Transcribe a shard of the target's listing with several workers.

    The heaviest rows and shares begin first. When all are done, the shares of each recording are joined.

    Raises:
        ExtraError: Ray is not installed.
        EngineError: no worker can load the engine, or it failed as a whole.
        OutputError: nothing can be written any more.
    """
    with _ray(cluster) as data:
        weights, rows, shares, joins = array("d"), array("q"), array("i"), array("q")
        for row in target.listing.shard(shard):
            parts = settings.shares(row)
            if row.fault:
                yield Done(row.number, row.name, "failed", note=row.fault)
            elif len(parts) == 1:
                weights.append(row.weight_s)
                rows.append(row.number)
                shares.append(_WHOLE)
            else:
                for part in parts:
                    weights.append(row.weight_s / len(parts))
                    rows.append(row.number)
                    shares.append(part.number)
                joins.append(row.number)
        order = np.argsort(-np.array(weights), kind="stable")
        worklist = Worklist(np.array(rows, np.int64)[order], np.array(shares, np.int32)[order])
        size = max(1, min(2 * settings.options.batch, len(worklist) // (4 * cluster.workers)))
        divided, settled = frozenset(joins), set[int]()
        blocks = _blocks(len(worklist), size, sum(weights), cluster.workers)
        for done in _work(data, worklist, size, blocks, settings, shard, cluster):
            if done.number in divided and done.state != "share":
                settled.add(done.number)
            yield done
        last = Worklist(np.array(joins, np.int64), np.full(len(joins), _JOIN, np.int32))
        joining = Joining(settings, target, target.listing.rows(joins.tolist()), settled)
        yield from joining.begin()
        blocks = _blocks(len(last), 1, math.inf, cluster.workers)  # one may take hours
        work = partial(_work, data, last, 1, blocks, settings, shard, cluster)
        for one in with_breaks(work, _LOOK_S):
            yield from joining.look()
            if one is not None:
                yield joining.ended(one)


def _blocks(tasks: int, size: int, audio_s: float, workers: int) -> int:
    """Return the number of blocks for Ray: few if recordings are short, but enough for workers to end together.

    Args:
        tasks: number of tasks.
        size: tasks in a call.
        audio_s: of all tasks.
        workers: number of workers.
    """
    least = _BLOCKS_PER_WORKER * workers
    wanted = max(least, int(min(_BLOCKS, audio_s / _BLOCK_S)))
    return min(_MOST_BLOCKS, wanted, math.ceil(tasks / size))


def _work(
    data: Any,
    worklist: Worklist,
    size: int,
    blocks: int,
    settings: BatchSettings,
    shard: Shard,
    cluster: Cluster,
) -> Iterator[Done]:
    """Let workers do tasks, `size` in a call, in so many blocks."""
    if not len(worklist):
        return
    places = data.from_items(range(len(worklist)), override_num_blocks=blocks)
    done = places.map_batches(
        EngineWorker,
        fn_constructor_args=(settings, shard, worklist),
        batch_size=size,
        compute=data.ActorPoolStrategy(size=cluster.workers, max_tasks_in_flight_per_actor=2),
        num_cpus=cluster.cpus,
        num_gpus=cluster.gpus,
    )  # lost workers are started again, and their calls made again, without end: Ray Data's default
    try:
        for row in done.iter_rows():
            yield _read(row["done"])
    except SpeakerReasonerError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise EngineError(f"the workers failed: {reason}"[:600]) from error


def _read(text: str) -> Done:
    """Return the outcome of a task; raise the error of a worker that failed as a whole."""
    row = json.loads(text)
    if "error" in row:
        raise getattr(errors, row["error"], EngineError)(row["message"])
    return Done(**{**row, "files": tuple(row["files"])})


@contextmanager
def _ray(cluster: Cluster) -> Iterator[Any]:
    """Ray Data on a cluster that is connected to, or started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it writes to standard error
    ray = extras.load("ray", "ray", "--workers")
    data = extras.load("ray.data", "ray", "--workers")
    here: dict[str, Any] = {}
    if cluster.address is None:
        here = {
            "num_cpus": max(usable_cores(), math.ceil(cluster.workers * cluster.cpus)),
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
            **here,
        )
    except Exception as error:
        raise EngineError(
            f"Ray cannot be reached or started ({type(error).__name__}: {error}); check --ray-address"
        ) from error
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = 0
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield data
    finally:
        with suppress(Exception):
            ray.shutdown()

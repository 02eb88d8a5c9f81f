"""Export prepared corpora for ms-swift: every piece once in each stage of a configuration.

The task of a piece, and its speaker cache, are drawn with the same shares and settings as in
`speaker-reasoner train`, but only once: ms-swift gets the same examples in every epoch.
"""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import AudioError, DataError
from ..version import __version__
from .config import TrainingConfig
from .prepared import draw_task, read_corpora
from .stages import STAGES
from .swift import SwiftExport
from .talks import make_example


def export_corpora(
    config: TrainingConfig,
    folder: Path,
    *,
    strict: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Export the corpora of a configuration.

    Args:
        config: its corpora, profile, stages and seed are used, but no schedule and no answer rate.
        folder: a new or empty one.
        strict: stop at the first piece that cannot be used.
        progress: called with the name of each file before it is filled.

    Returns:
        The content of `export.json`.

    Raises:
        DataError: there is no table `corpora`, nothing can be used, or, with `strict`, something
            cannot.
        OutputError: the folder is not empty, or cannot be written; nothing of the export is left.
    """
    corpora = config.corpora
    if corpora is None:
        raise DataError(
            "the configuration has no table corpora; simulated meetings, which are drawn anew for "
            "every batch, are written from Python: speaker_reasoner.train.swift"
        )
    pieces = read_corpora(corpora, config.profile, strict=strict)
    sides = {"": pieces.train.used, ".check": pieces.check.used}
    left_out = Counter(pieces.train.left_out) + Counter(pieces.check.left_out)
    notes = pieces.notes
    with SwiftExport(folder) as out:
        for stage in (name for name in STAGES.values() if name in config.stages):
            for side, used in sides.items():
                if progress is not None and used:
                    progress(stage + side)
                for number, piece in enumerate(used):
                    name = f"{side.removeprefix('.') or 'train'}-{number:06d}-{piece.source.name}"
                    rng = random.Random(f"export {stage} {config.seed} {name}")
                    try:
                        task = draw_task(piece, stage, config, rng)
                        example = make_example(task.task, task.talk(), config.profile)
                        out.add(stage + side, name, example)
                    except AudioError as error:  # behind its header
                        notes.drop("audio damaged", f"{stage}{side}: {error}")
                    except DataError as error:
                        notes.drop("text taken for media", f"{stage}{side}: {name}: {error}")
        return out.finish(
            {
                "made": {"version": __version__},
                "config": config.to_json(),
                "left_out": dict(left_out),
                "dropped": notes.to_json("dropped"),
            }
        )

"""A model that is being trained, transcribing: the engine and the turn loop that users have, on the
model in memory, scored by cpWER and number of speakers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from ..audio import to_seconds
from ..engines.base import Stop
from ..engines.checkpoint import Checkpoint
from ..engines.local import TransformersEngine
from ..evaluate.counts import ErrorCounts
from ..evaluate.normalisation import Normalisation
from ..evaluate.words import SegmentWords, permutation_errors
from ..protocol import Profile
from ..protocol.observations import Reference
from ..reasoner import Dialogue, Outcome, run
from ..transcript import Segment
from .accelerators import PreparedLearner
from .saves import is_deepspeed
from .talks import Talk


def transcribe(
    prepared: PreparedLearner,
    talks: Sequence[Talk],
    tokenizer: Any,
    extractor: Any,
    profile: Profile,
) -> dict[str, float]:
    """Transcribe talks, and score them.

    Every process must call it. Where each holds the whole model they share the talks; where weights
    are sharded all do the same ones, since they must compute in step.

    Returns:
        `cpwer`, the share of talks with the right `speaker_count`, and the share that `finished`.
    """
    accelerator, thinker = prepared.accelerator, prepared.learner.thinker
    sharded = isinstance(prepared.learner, FSDPModule) or is_deepspeed(accelerator)
    share = talks
    if not sharded:
        share = talks[accelerator.process_index :: accelerator.num_processes]
    prepared.model.eval()
    checkpoint = Checkpoint("in training", thinker, tokenizer, extractor, profile)
    if isinstance(prepared.learner, FSDPModule):
        prepared.learner.unshard()  # weights outside of layers; layers unshard themselves
    with accelerator.autocast():
        dialogues = [Dialogue(talk.samples, profile, cache=talk.cache) for talk in share]
        for _ in run(dialogues, TransformersEngine(checkpoint)):
            pass
    if isinstance(prepared.learner, FSDPModule):
        prepared.learner.reshard()
    row = [0.0] * 5
    for talk, dialogue in zip(share, dialogues, strict=True):
        assert dialogue.outcome is not None
        row = [a + b for a, b in zip(row, _score(talk, dialogue.outcome, profile), strict=True)]
    totals = torch.tensor(row, device=accelerator.device)
    if not sharded:
        totals = accelerator.reduce(totals, "sum")
    errors, words, right, finished, count = totals.tolist()
    return {
        "cpwer": errors / max(1.0, words),
        "speaker_count": right / max(1.0, count),
        "finished": finished / max(1.0, count),
    }


def _score(talk: Talk, outcome: Outcome, profile: Profile) -> list[float]:
    """Word errors, words, whether the number of speakers is right, whether it finished, 1."""
    reference = _spoken([_segment(s) for s in talk.segments])
    hypothesis = [
        Segment(
            str(one.line.speaker),
            one.line.start / profile.ticks_per_s,
            one.line.end / profile.ticks_per_s,
            one.line.text,
        )
        for one in outcome.lines
    ]
    counts: ErrorCounts = permutation_errors(reference, _spoken(hypothesis))
    same = len({s.speaker for s in talk.segments}) == len({s.speaker for s in hypothesis})
    return [float(counts.errors), float(counts.reference_words), float(same), _done(outcome), 1.0]


def _done(outcome: Outcome) -> float:
    return float(outcome.stop is Stop.ANSWERED)


def _segment(reference: Reference) -> Segment:
    return Segment(
        str(reference.speaker),
        to_seconds(reference.start_samples),
        to_seconds(reference.end_samples),
        reference.text,
    )


def _spoken(segments: Sequence[Segment]) -> SegmentWords:
    words = Normalisation().words
    return [(s, words(s.text)) for s in sorted(segments, key=lambda s: s.start_s)]

"""Talks from corpora that `speaker-reasoner prepare` wrote: pieces of sessions, in batches of similar length.

The pieces of a batch and the task of each are chosen by their transcripts alone; then only the audio of the batch
is read. Every piece is drawn once in an epoch.

Pieces whose recording is missing, broken or too short are left out before a run begins, because batches depend on
the list of pieces. A recording that breaks later stops the run. If one was lost or repaired since, a continued run
draws other batches than before, and says so. Shards must be whole: see `streamed`.
"""

import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..audio import Samples, load_slice, to_samples
from ..data.cache import condition, draw_cache
from ..data.corpora import CorpusPiece
from ..data.corpora.notes import Notes
from ..errors import DataError
from ..protocol import CacheEntry, Profile
from ..protocol.observations import Reference, observations
from .batches import Batcher
from .config import CorporaConfig, TrainingConfig
from .loop import Drawn
from .recordings import Fault, find_faults
from .streamed import check_shards, list_pieces, read_piece, shuffled
from .talks import Talk, make_example, make_trace

_MOST_PAST = 200
"""Number of segments that are sampled from a longer past, before a cache is drawn from them."""


@dataclass(frozen=True, slots=True)
class TrainingPiece:
    """A piece of a session, with the segments before it.

    Attributes:
        source: the prepared piece.
        segments: of the piece, in samples of it; a speaker has the same number in all pieces of the session.
        past: segments of the session that end before the piece and overlap no other, in samples of
            the session, numbered the same way.
        session: all pieces of the session, in their order.
    """

    source: CorpusPiece
    segments: tuple[Reference, ...]
    past: Sequence[Reference]
    session: Sequence[CorpusPiece]

    def read(self, start: int, end: int) -> Samples:
        """Samples `[start, end)` of the session: of its recording, or of a piece in a shard.

        Raises:
            AudioError, DataError: they cannot be read.
        """
        if self.source.place is None:
            return load_slice(self.source.audio, start, end)
        at = bisect_right(self.session, start, key=lambda piece: piece.start_samples) - 1
        piece = self.session[at]
        return read_piece(piece)[start - piece.start_samples : end - piece.start_samples]


@dataclass(frozen=True, slots=True)
class Pieces:
    """The usable pieces of some folders, and why the rest is not used.

    Attributes:
        used: in the order of the folders.
        left_out: number of pieces left out, by reason.
    """

    used: tuple[TrainingPiece, ...]
    left_out: dict[str, int]

    def without(self, faults: Mapping[Path, Fault]) -> "Pieces":
        """The same without the pieces whose audio cannot be read."""
        used: list[TrainingPiece] = []
        left_out = Counter(self.left_out)
        for piece in self.used:
            fault = faults.get(piece.source.audio)
            if fault is None or piece.source.end_samples <= fault.whole_samples:
                used.append(piece)
            else:
                left_out[fault.reason] += 1
        return Pieces(tuple(used), dict(left_out))


@dataclass(frozen=True, slots=True)
class Corpora:
    """The usable pieces of a configuration's corpora, and the faults of their audio.

    Attributes:
        train, check: pieces for training and for validation.
        faults: of recordings, by path.
        notes: number of recordings with a fault, by reason, and the first of each.
    """

    train: Pieces
    check: Pieces
    faults: Mapping[Path, Fault]
    notes: Notes


@dataclass(frozen=True, slots=True)
class PieceTask:
    """The task of a piece in a stage, and its speaker cache; no audio is read yet.

    Attributes:
        task: as of `make_trace`.
        answer: whether a dialogue's last turn writes the whole transcript.
        drawn: the speaker cache, of the piece's past.
        texts: whether its entries have their text.
    """

    piece: TrainingPiece
    task: str
    answer: bool
    drawn: tuple[Reference, ...]
    texts: bool

    def numbered(self) -> tuple[list[CacheEntry], list[Reference]]:
        """Entries (silent, of the right length) and segments, speakers numbered over both."""
        silence = np.broadcast_to(np.float32(0), self.piece.source.end_samples)  # takes no memory
        return condition(self.drawn, silence, self.piece.segments, texts=self.texts)

    def talk(self) -> Talk:
        """The same with its audio.

        Raises:
            AudioError: it cannot be read.
        """
        source = self.piece.source
        entries, segments = self.numbered()
        cache = [
            replace(entry, samples=self.piece.read(s.start_samples, s.end_samples))
            for entry, s in zip(entries, self.drawn, strict=True)
        ]
        samples = self.piece.read(source.start_samples, source.end_samples)
        return Talk(samples, tuple(segments), tuple(cache))


def draw_task(
    piece: TrainingPiece,
    stage: str,
    config: TrainingConfig,
    rng: random.Random,
    *,
    first_kind: bool = False,
) -> PieceTask:
    """Draw the task of a piece in a stage.

    Args:
        config: with a table `corpora`.
        first_kind: ask for the stage's first kind, with the whole answer, instead of drawing them.
    """
    assert config.corpora is not None
    cache, kinds = config.corpora.cache, config.stages[stage].kinds
    task = rng.choices(kinds, [kind.share for kind in kinds])[0].task
    task = kinds[0].task if first_kind else task
    answer = first_kind or rng.random() < config.answer_rate
    drawn: list[Reference] = []
    if task == "cached":
        past = rng.sample(piece.past, min(len(piece.past), _MOST_PAST))
        drawn = draw_cache(sorted(past, key=lambda s: s.start_samples), cache, rng)
        if len({s.speaker for s in (*drawn, *piece.segments)}) > config.profile.max_speakers:
            drawn = []  # there would be no labels for all of them
    texts = rng.random() >= cache.textless_rate
    return PieceTask(piece, task, answer, tuple(drawn), texts)


@dataclass(frozen=True, slots=True)
class _Planned:
    """One dialogue of a batch, before its audio is read."""

    task: PieceTask
    tokens: int


class PreparedCorpora:
    """Talks of prepared corpora.

    Args:
        config: with a table `corpora`.
        batcher: of the model.
        strict: stop where audio is missing, broken or too short, instead of leaving its pieces out.
        shown: show the progress of the check of the audio.

    Attributes:
        contents: pieces, and the counts of those left out.

    Raises:
        DataError: a folder is none that `prepare` wrote, nothing can be used, or, with `strict`, the
            audio of something cannot.
    """

    def __init__(
        self, config: TrainingConfig, batcher: Batcher, *, strict: bool = False, shown: bool = False
    ) -> None:
        if config.corpora is None:
            raise DataError("the configuration has no table corpora")
        self.config = config
        self.corpora = config.corpora
        self.batcher = batcher
        self.contents = read_corpora(config.corpora, config.profile, strict=strict, shown=shown)
        self.train, self.held = self.contents.train, self.contents.check
        if not self.train.used:
            raise DataError(_nothing_used(self.corpora, self.contents))
        self._window: tuple[tuple[str, int], list[list[_Planned]]] | None = None

    def draw(self, stage: str, step: int, part: int) -> Drawn:
        """See `TalkSource`.

        Raises:
            AudioError: a recording has broken since the run began, or is damaged behind its header.
                It is not skipped, because all later batches would change.
        """
        window, batch = divmod(step * self.config.run.batches_per_step + part, self.corpora.window)
        return self._batch(stage, [one.task for one in self._planned(stage, window)[batch]])

    def checks(self, stage: str, count: int) -> list[Drawn]:
        rows = self.corpora.batch
        tasks = self._held(stage, count * rows)
        return [self._batch(stage, tasks[at : at + rows]) for at in range(0, len(tasks), rows)]

    def talks(self, stage: str, count: int) -> list[Talk]:
        return [task.talk() for task in self._held(stage, count)]

    def _held(self, stage: str, count: int) -> list[PieceTask]:
        """Talks of validation pieces, of the stage's first kind."""
        return [
            draw_task(piece, stage, self.config, self._rng(stage, f"check {i}"), first_kind=True)
            for i, piece in enumerate(self._spread(count))
        ]

    def _spread(self, count: int) -> list[TrainingPiece]:
        """Choose validation pieces, evenly spaced."""
        total = len(self.held.used)
        count = min(count, total)
        return [self.held.used[i * total // count] for i in range(count)]

    def _planned(self, stage: str, window: int) -> list[list[_Planned]]:
        """The batches of a window: its dialogues sorted by length, the batches in random order."""
        if self._window is not None and self._window[0] == (stage, window):
            return self._window[1]
        size = self.corpora.window * self.corpora.batch
        total = len(self.train.used)
        planned = []
        orders: dict[int, list[int]] = {}
        for position in range(window * size, (window + 1) * size):
            epoch, place = divmod(position, total)
            if epoch not in orders:
                rng = self._rng(stage, f"epoch {epoch}")
                sources = [piece.source for piece in self.train.used]
                orders[epoch] = shuffled(sources, self.corpora.buffer, rng)
            piece = self.train.used[orders[epoch][place]]
            planned.append(self._plan(stage, piece, str(position)))
        planned.sort(key=lambda one: one.tokens)
        rows = self.corpora.batch
        batches = [planned[at : at + rows] for at in range(0, size, rows)]
        self._rng(stage, f"window {window}").shuffle(batches)
        self._window = (stage, window), batches
        return batches

    def _plan(self, stage: str, piece: TrainingPiece, name: str) -> _Planned:
        task = draw_task(piece, stage, self.config, self._rng(stage, name))
        entries, segments = task.numbered()
        length = piece.source.end_samples - piece.source.start_samples
        trace = make_trace(
            task.task, segments, length, self.config.profile, answer=task.answer, cache=entries
        )
        return _Planned(task, self.batcher.tokens(trace))

    def _batch(self, stage: str, tasks: Sequence[PieceTask]) -> Drawn:
        examples = [
            make_example(one.task, one.talk(), self.config.profile, answer=one.answer)
            for one in tasks
        ]
        weights = self.config.loss_weights(self.config.stages[stage].kinds[0])
        return self.batcher.batch(examples, random.Random(0), augment=False), weights

    def _rng(self, stage: str, name: str) -> random.Random:
        return random.Random(f"{stage} {self.config.seed} {name}")


def read_corpora(
    corpora: CorporaConfig, profile: Profile, *, strict: bool = False, shown: bool = False
) -> Corpora:
    """Read the pieces of a configuration, and check the audio of those that fit its profile.

    Args:
        strict: stop at the first recording that is missing, broken or too short.
        shown: show the progress of the check of the audio.

    Raises:
        DataError: a folder is none that `prepare` wrote, or, with `strict`, audio has a fault.
    """
    notes = Notes(strict)
    train, check = (
        read_pieces(folders, profile, clipped=corpora.clipped)
        for folders in (corpora.train, corpora.check)
    )
    taken = [piece.source for piece in (*train.used, *check.used)]
    check_shards(taken)
    faults = find_faults((one for one in taken if one.place is None), notes, shown=shown)
    return Corpora(train.without(faults), check.without(faults), faults, notes)


def _nothing_used(corpora: CorporaConfig, contents: Corpora) -> str:
    """The error message where no piece can be used."""
    left_out, dropped = contents.train.left_out, contents.notes.dropped
    reasons = "; ".join(f"{reason}: {count}" for reason, count in left_out.items())
    message = f"{', '.join(corpora.train)}: no piece can be used: {reasons or 'there is none'}"
    first = next((dropped[reason][0] for reason in left_out if reason in dropped), None)
    return message if first is None else f"{message}; first: {first}"


def read_pieces(folders: Sequence[str], profile: Profile, *, clipped: bool) -> Pieces:
    """Read the pieces of splits that `prepare` wrote; their audio is not checked.

    Args:
        profile: pieces that do not fit it are left out and counted.
        clipped: use pieces with segments that continue outside.

    Raises:
        DataError: a folder is none that `prepare` wrote.
    """
    used: list[TrainingPiece] = []
    left_out: Counter[str] = Counter()
    for folder in folders:
        sessions: dict[Path, list[CorpusPiece]] = defaultdict(list)
        for source in list_pieces(folder):
            sessions[source.audio].append(source)
        for parts in sessions.values():
            for piece in _of_session(parts):
                reason = _unfit(piece.source, profile, clipped=clipped)
                if reason is None:
                    used.append(piece)
                else:
                    left_out[reason] += 1
    return Pieces(tuple(used), dict(left_out))


def _of_session(parts: Sequence[CorpusPiece]) -> Iterator[TrainingPiece]:
    """The pieces of one recording, each with the past of its session."""
    numbers: dict[str, int] = {}
    segments = [
        tuple(
            replace(s, speaker=numbers.setdefault(piece.speakers[s.speaker - 1], len(numbers) + 1))
            for s in piece.references
        )
        for piece in parts
    ]
    spoken = [
        replace(
            s,
            start_samples=s.start_samples + piece.start_samples,
            end_samples=s.end_samples + piece.start_samples,
        )
        for piece, rows in zip(parts, segments, strict=True)
        for s in rows
    ]
    alone = sorted(_alone(spoken), key=lambda s: s.end_samples)
    ends = [s.end_samples for s in alone]
    for piece, rows in zip(parts, segments, strict=True):
        past = alone[: bisect_right(ends, piece.start_samples)]
        yield TrainingPiece(piece, rows, past, parts)


def _alone(segments: Sequence[Reference]) -> list[Reference]:
    """The segments that overlap no other."""
    ordered = sorted(segments, key=lambda s: s.start_samples)
    alone = []
    latest = 0
    for i, segment in enumerate(ordered):
        after = ordered[i + 1].start_samples if i + 1 < len(ordered) else segment.end_samples
        if latest <= segment.start_samples and segment.end_samples <= after:
            alone.append(segment)
        latest = max(latest, segment.end_samples)
    return alone


def _unfit(piece: CorpusPiece, profile: Profile, *, clipped: bool) -> str | None:
    """The reason a piece cannot be used; `None` if it can."""
    if piece.end_samples - piece.start_samples > to_samples(profile.chunk_s):
        return f"longer than profile.chunk_s, {profile.chunk_s:g} s"
    if len(piece.speakers) > profile.max_speakers:
        return f"more speakers than profile.max_speakers, {profile.max_speakers}"
    if len(observations(piece.references)) > profile.max_turns:
        return f"more observations than profile.max_turns, {profile.max_turns}"
    if piece.clipped and not clipped:
        return "segments that go on outside the piece"
    return None

"""Recordings of any length, several at a time, with one engine."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import audio
from ..audio import Samples
from ..engines.base import Engine
from ..errors import AudioError, SettingsError
from ..protocol import Profile
from ..spans import overlapped
from ..speech import Detect
from ..transcript import Transcript, recording_name
from ..voices.cache import CacheRules
from ..voices.linking import Trust
from ..voices.people import EnrolledSpeaker, Speakers
from ..voices.witness import Witness
from .channels import CHOICES, MIXED, SEPARATE, AnyRecording, Loudness, SeparateChannels
from .chunks import Chunk, chunks
from .journal import ChannelJournal, Journal, ShareJournal, fingerprint
from .recording import Failure, Listener, Progress, RecordingState, TranscriptionSettings
from .rounds import in_order
from .shares import Share

LEAST_LIVE_S = 2.0
"""Seconds of speech that a speaker of a live session has at least (assumed): embeddings of less speech would be taken
for speakers that do not exist."""


class Transcriber:
    """Transcribes recordings with one engine.

    Args:
        engine: writes the turns.
        answer: `assembled` or `model`; see `Dialogue`.
        batch: dialogues that share the engine's batches.
        channel: 0-based channel to listen to; all mixed down if `None`.
        channels: `mix`, or `separate`: each is transcribed by itself, as one speaker.
        track: 0-based sound track to listen to; the default one if `None`.
        cached: whether the speaker cache is used, which makes each chunk wait for the one before it; by
            default, where the checkpoint was trained with one, and either its profile says so or there is no
            witness.
        rules: how cache entries are chosen.
        witness: embeds voices, to link speakers; a name as `Engine.witness` takes it; with `None` the
            dialogues alone decide.
        trust: weight of the dialogue against the embeddings.
        detect: finds speech, for cuts and coverage: a name as `Engine.detector` takes it, or a function
            from samples to regions in seconds; `None` leaves coverage unchecked.

    Raises:
        SettingsError: the checkpoint was not trained with a cache, but one is asked for; the engine has no
            witness of that name; both one channel and separate channels are asked for.
        CheckpointError: the witness's model or package cannot be used.
        AudioError: there is no detector of that name, or its package is not installed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        answer: str = "assembled",
        batch: int = 1,
        channel: int | None = None,
        channels: str = MIXED,
        track: int | None = None,
        cached: bool | None = None,
        rules: CacheRules | None = None,
        witness: Witness | str | None = "auto",
        trust: Trust | None = None,
        detect: Detect | str | None = "auto",
    ) -> None:
        self.engine = engine
        self.profile: Profile = engine.profile
        self.batch = max(1, batch)
        self.channel = channel
        self.track = track
        self.separate = _separate(channel, channels)
        hears = self.profile.cache_s > 0
        if cached and not hears:
            raise SettingsError(
                "this checkpoint was never trained with a speaker cache; leave it off, and link "
                "speakers by their voices"
            )
        compares = engine.witness(witness) if isinstance(witness, str) else witness
        if cached is None:
            cached = hears and (self.profile.cache_by_default or compares is None)
        self.settings = TranscriptionSettings(
            answer,
            cached,
            rules or CacheRules(),
            compares,
            trust or engine.trust,
            engine.detector(detect) if isinstance(detect, str) else detect,
            witness == "auto",
            engine.in_order,
        )
        self._vad = detect if isinstance(detect, str) else None
        self._notice: str | None = None

    def transcribe(
        self,
        path: str | Path,
        on_turn: Listener | None = None,
        *,
        journal: Path | None = None,
        **options: Any,
    ) -> Transcript:
        """Transcribe one recording.

        Args:
            journal: file that keeps finished chunks; see `open`.
            options: those of `open`.

        Raises:
            AudioError: it cannot be read.
            EngineError: the engine failed as a whole.
        """
        kept = None if journal is None else lambda _: journal
        [result] = self.transcribe_all([path], on_turn, journal=kept, **options)
        if isinstance(result, Failure):
            raise result.error
        return result

    def open(
        self,
        path: str | Path,
        *,
        speakers: tuple[int, int] | None = None,
        voices: Sequence[EnrolledSpeaker] = (),
        journal: Path | Journal | None = None,
        name: str | None = None,
        samples: Samples | None = None,
        language: str | None = None,
        share: Share | None = None,
    ) -> AnyRecording:
        """A recording, ready to be driven.

        Args:
            speakers: fewest and most people who speak in it.
            voices: enrolled people.
            journal: keeps finished chunks, or the file in which they are kept; an existing one is
                continued.
            name: of the recording; by default that of its file.
            samples: float32 `[n]` at 16 kHz, transcribed instead of the whole file; `[channels, n]` where
                channels are transcribed separately.
            language: code of the spoken language, for engines that take one; recognised if `None`.
            share: only the chunks of this share are transcribed, and kept in the journal; see `splits`.

        Raises:
            SettingsError: the hints contradict each other.
            AudioError: channels are to be transcribed separately, and there is only one.
            OutputError: the journal is about something else.
        """
        path = Path(path)
        if speakers is not None:
            _check_bounds(speakers, self.separate)
        if isinstance(journal, Path):
            about = self.about(
                fingerprint(path), speakers=speakers, voices=voices, language=language
            )
            journal = Journal(journal, about)
        if self.separate:
            return self._open_separately(path, voices, journal, name, samples, language)
        notices = [] if self._notice is None else [self._notice]
        if journal is not None and journal.notices is not None and share is None:
            return self._recording_of(path, journal, speakers, voices, name, language)
        blocks = (
            iter([samples]) if samples is not None else self._stream(path, notices, self.channel)
        )
        return self._recording(
            path, blocks, speakers, voices, journal, name, notices, language, share
        )

    @cached_property
    def mixed(self) -> "Transcriber":
        """Return the same for recordings of one channel, whose speakers are separated by their voices."""
        other = copy(self)
        other.separate = False
        other._notice = "the recording has one channel: its speakers are told apart by their voices"
        return other

    def splits(self, share_s: float) -> bool:
        """Return whether shares of this length can be transcribed independently.

        They can if no chunk waits for the one before it, and each share has at least two chunks: one chunk alone counts
        as a whole recording.
        """
        waits = self.settings.cached or self.settings.in_order or self.separate
        return not waits and share_s >= 2 * self.profile.chunk_s

    def _stream(self, path: Path, notices: list[str], channel: int | None) -> Iterator[Samples]:
        """Yield the blocks of a file; its warnings go to `notices`, once."""

        def warn(notice: str) -> None:
            if notice not in notices:
                notices.append(notice)

        return audio.stream(path, channel=channel, track=self.track, warn=warn)

    def _open_separately(
        self,
        path: Path,
        voices: Sequence[EnrolledSpeaker],
        journal: Journal | None,
        name: str | None,
        samples: Samples | None,
        language: str | None,
    ) -> SeparateChannels:
        count = audio.channel_count(path, track=self.track) if samples is None else len(samples)
        if count < 2:
            raise AudioError(
                f"{path}: got one channel, expected one for each speaker; leave out --channels separate, "
                "and speakers are told apart by their voices"
            )
        notices: list[str] = []
        loudness = [
            Loudness(self._stream(path, notices, n) if samples is None else [samples[n]])
            for n in range(count)
        ]
        recordings = [
            self._recording(
                path,
                one,
                (0, 1),
                voices,
                None if journal is None else journal.channel(n),
                name,
                notices,
                language,
            )
            for n, one in enumerate(loudness)
        ]
        return SeparateChannels(recordings, loudness, [voice.name for voice in voices])

    def _recording(
        self,
        path: Path,
        blocks: Iterable[Samples],
        speakers: tuple[int, int] | None,
        voices: Sequence[EnrolledSpeaker],
        journal: Journal | ChannelJournal | None,
        name: str | None,
        notices: list[str],
        language: str | None,
        share: Share | None = None,
    ) -> RecordingState:
        settings = self.settings
        source = _unchanged(path, chunks(blocks, self.profile.chunk_s, settings.detect))
        kept: Journal | ChannelJournal | ShareJournal | None = journal
        if share is not None:
            assert isinstance(journal, Journal)
            source, kept = share.until(source), ShareJournal(journal, share.start_samples)
        recording = self._state(path, source, self._speakers(speakers, voices), kept)
        recording.name = name or recording.name
        recording.notices = notices
        recording.language_given = language
        return recording

    def _recording_of(
        self,
        path: Path,
        journal: Journal,
        speakers: tuple[int, int] | None,
        voices: Sequence[EnrolledSpeaker],
        name: str | None,
        language: str | None,
    ) -> RecordingState:
        """A recording whose chunks are all in a journal; its audio is not read."""
        source = iter(journal.chunks())
        recording = self._state(path, source, self._speakers(speakers, voices), journal)
        recording.name = name or recording.name
        recording.notices = list(journal.notices or ())
        recording.language_given = language
        return recording

    def _state(
        self,
        path: Path,
        source: Iterator[Chunk],
        people: Speakers,
        kept: Journal | ChannelJournal | ShareJournal | None = None,
    ) -> RecordingState:
        described = self.engine.describe()
        return RecordingState(path, source, self.profile, self.settings, people, described, kept)

    def _speakers(
        self,
        bounds: tuple[int, int] | None,
        voices: Sequence[EnrolledSpeaker],
        least_s: float = 0.0,
    ) -> Speakers:
        return Speakers(
            self.profile,
            cached=self.settings.cached,
            rules=self.settings.cache,
            witness=self.settings.witness,
            trust=self.settings.trust,
            bounds=bounds,
            voices=voices,
            least_s=least_s,
        )

    def listen_again(self, path: str | Path, transcript: Transcript, chunk: int) -> RecordingState:
        """Transcribe one chunk of a recording again, with the speakers of its transcript enrolled.

        Args:
            path: of the recording.
            transcript: of the recording, perhaps corrected; each speaker is enrolled under the label, with
                the longest lines outside the chunk.
            chunk: number of the chunk among the transcript's traces.

        Returns:
            The state of that chunk alone; its times are those of the whole recording.

        Raises:
            SettingsError: there is no such chunk.
            AudioError: the recording cannot be read.
        """
        traces = [trace for trace in transcript.traces if trace["chunk"] == chunk]
        if not traces:
            known = ", ".join(str(trace["chunk"]) for trace in transcript.traces)
            raise SettingsError(f"chunk {chunk}: expected one with a dialogue: {known or 'none'}")
        start = audio.to_samples(traces[0]["start_s"])
        end = start + audio.to_samples(traces[0]["duration_s"])
        channel, labels, bounds = self.channel, transcript.speakers, None
        if self.separate:
            channel, bounds = traces[0]["channel"], (0, 1)
            labels = (transcript.info["channels"][channel]["speaker"],)
        samples = audio.load_slice(path, start, end, channel=channel, track=self.track)
        chunk_audio = Chunk(start, samples)
        voices = (
            self._voices_of(path, transcript, start, end, labels, channel)
            if self.hears_voices
            else ()
        )
        return self._state(Path(path), iter([chunk_audio]), self._speakers(bounds, voices))

    def listen(
        self,
        name: str,
        source: Iterator[Chunk],
        *,
        speakers: tuple[int, int] | None = None,
        voices: Sequence[EnrolledSpeaker] = (),
        language: str | None = None,
    ) -> RecordingState:
        """Transcribe chunks as they come, of a recording that has no file yet; see `RecordingState.ready`.

        Args:
            name: of the recording.
            source: its chunks, cut by the caller, none longer than the profile's.
            speakers, voices, language: as for `open`; fewer speakers than the least may have spoken yet. A speaker
                with less speech than `LEAST_LIVE_S` joins the most similar one, until there is more.
        """
        bounds = None if speakers is None else (1, speakers[1])
        people = self._speakers(bounds, voices, LEAST_LIVE_S)
        recording = self._state(Path(name), source, people)
        recording.language_given = language
        return recording

    @property
    def hears_voices(self) -> bool:
        """Return whether known speakers are recognised by their voices: by the cache, or a witness."""
        return self.settings.cached or self.settings.witness is not None

    def transcribe_all(
        self,
        paths: Iterable[str | Path],
        on_turn: Listener | None = None,
        *,
        journal: Callable[[Path], Path] | None = None,
        **options: Any,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe recordings together; results come in order. One that fails is a result too.

        Turns are reported in the order of recordings and chunks, for any batch: those of a later chunk wait
        until the one before has ended.

        Args:
            journal: where the journal of a recording is kept; removed by the caller.
            options: those of `open`, for every recording.

        Raises:
            EngineError: the engine failed as a whole.
        """
        tasks = (_File(self, Path(path), on_turn, journal, options) for path in paths)
        for _, result in in_order(self.engine, self.batch, tasks):
            yield result

    def about(
        self,
        source: Mapping[str, Any],
        *,
        speakers: tuple[int, int] | None = None,
        voices: Sequence[EnrolledSpeaker] = (),
        language: str | None = None,
    ) -> dict[str, Any]:
        """Everything that a transcript depends on; where it is equal, a run continues another one.

        Args:
            source: identifies the recording and its version; see `fingerprint`.
            speakers, voices, language: as for `open`.
        """
        from ..version import __version__

        s = self.settings
        return {
            "version": __version__,
            "file": source,
            "model": self._model,
            "settings": {
                "answer": s.answer,
                "channel": self.channel,
                "channels": SEPARATE if self.separate else MIXED,
                **({} if self.track is None else {"track": self.track}),
                "vad": self._vad,
                "rules": repr(s.cache),
                "trust": repr(s.trust),
                "speaker_cache": s.cached,
                "witness": None if s.witness is None else s.witness.name,
                "speakers_given": None if speakers is None else list(speakers),
                "voices": {voice.name: _digest(voice) for voice in voices},
                **({} if language is None else {"language_given": language}),
            },
        }

    @cached_property
    def _model(self) -> dict[str, Any]:
        """The engine's description, its profile, and size and time of the files of its local models."""
        described = self.engine.describe()
        model = {**described, "profile": hashlib.sha256(repr(self.profile).encode()).hexdigest()}
        names = (described.get(part, "") for part in ("model", "recogniser", "diarizer"))
        files: list[list[Any]] = []
        for path in dict.fromkeys(str(name).rpartition("=")[2] for name in names):  # whisper=FOLDER
            folder = Path(path).expanduser()
            if path and folder.is_dir():
                files += [
                    [str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns]
                    for file in sorted(folder.rglob("*"))
                    if file.is_file()
                ]
        return {**model, "files": files} if files else model

    def _voices_of(
        self,
        path: str | Path,
        transcript: Transcript,
        start: int,
        end: int,
        labels: Sequence[str],
        channel: int | None,
    ) -> list[EnrolledSpeaker]:
        """Speakers outside a stretch of a transcript, with clips of their longest clean lines."""
        voices = []
        for speaker in labels:
            clips: list[Samples] = []
            lines = [s for s in transcript.segments if s.speaker == speaker]
            for line in sorted(lines, key=lambda s: -s.duration_s):
                first, last = audio.to_samples(line.start_s), audio.to_samples(line.end_s)
                outside = last <= start or end <= first
                alone = not overlapped(line, transcript.segments)
                fits = _VOICE_S[0] <= line.duration_s <= _VOICE_S[1]
                if outside and alone and fits and len(clips) < _VOICE_LINES:
                    clips.append(
                        audio.load_slice(path, first, last, channel=channel, track=self.track)
                    )
            if clips:
                voices.append(EnrolledSpeaker(speaker, tuple(clips), transcript.genders[speaker]))
        return voices


_VOICE_LINES = 3
_VOICE_S = (0.8, 8.0)
"""Most lines that enrol a speaker for `listen_again`, and their shortest and longest duration (assumed)."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file on its way through the rounds."""

    transcriber: Transcriber
    path: Path
    listener: Listener | None
    journal: Callable[[Path], Path] | None
    options: Mapping[str, Any] = field(default_factory=dict)
    cancelled: bool = False

    @property
    def name(self) -> str:
        return recording_name(self.path)

    def open(self) -> AnyRecording:
        journal = None if self.journal is None else self.journal(self.path)
        return self.transcriber.open(self.path, journal=journal, **self.options)

    def on_progress(self, progress: Progress) -> None:
        if self.listener is not None:
            self.listener(progress)


def _digest(voice: EnrolledSpeaker) -> str:
    """Hash of the clips of an enrolled speaker."""
    digest = hashlib.sha256(voice.gender.encode())
    for clip in voice.clips:
        digest.update(len(clip).to_bytes(8, "little") + clip.tobytes())
    return digest.hexdigest()


def _unchanged(path: Path, source: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks of a file; an error if the file changed while it was read."""
    before = None
    for chunk in source:
        if before is None:
            before = fingerprint(path)
        yield chunk
    if before is not None and fingerprint(path) != before:
        raise AudioError(
            f"{path}: changed while it was being read; wait until it is finished, then start again"
        )


def _separate(channel: int | None, channels: str) -> bool:
    if channels not in CHOICES:
        raise SettingsError(f"channels {channels!r}: expected {' or '.join(CHOICES)}")
    if channels == SEPARATE and channel is not None:
        raise SettingsError(
            f"channel {channel} and --channels separate: expected one of them; leave the other out"
        )
    return channels == SEPARATE


def _check_bounds(speakers: tuple[int, int], separate: bool) -> None:
    low, high = speakers
    if separate:
        raise SettingsError(
            f"speakers {low}-{high} and --channels separate: a channel has one speaker; leave one of "
            "them out"
        )
    if not 1 <= low <= high:
        raise SettingsError(f"speakers {low}-{high}: expected 1 <= fewest <= most")

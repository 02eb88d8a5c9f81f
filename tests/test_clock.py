"""A recording's clock: every sound is where it was heard, whatever container, codec and writer made of it."""

import itertools
import random
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from speaker_reasoner import audio
from speaker_reasoner.errors import AudioError

from . import formats_page

RATE = 48_000
CLICKS_S = (0.5, 3.5)
"""When the tones of `talk` begin."""


def talk(
    length_s: float = 4.0, starts_s: Sequence[float] = CLICKS_S, rate_hz: int = RATE
) -> np.ndarray:
    """Tones of 0.2 s over silence: float32 [samples]."""
    samples = np.zeros(round(length_s * rate_hz), np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 600 * np.arange(rate_hz // 5) / rate_hz).astype(np.float32)
    for start_s in starts_s:
        at = round(start_s * rate_hz)
        samples[at : at + len(tone)] = tone
    return samples


def write(
    path: Path,
    kind: str,
    codec: str,
    tracks: Sequence[np.ndarray],
    *,
    skipped_s: tuple[float, float] | None = None,
    late_s: float = 0.0,
    default: int | None = None,
    options: dict[str, str] | None = None,
    rate_hz: int = RATE,
) -> None:
    """Write sound tracks with PyAV; frames inside `skipped_s` are never sent, all come `late_s` later."""
    with av.open(str(path), "w", format=kind, options=options or {}) as container:
        made = []
        for number, _ in enumerate(tracks):
            stream = container.add_stream(codec, rate=rate_hz, layout="mono")
            if default is not None:
                stream.disposition = (
                    av.stream.Disposition.default if number == default else av.stream.Disposition(0)
                )
            made.append(stream)
        for stream, samples in zip(made, tracks, strict=True):
            size = stream.codec_context.frame_size or 960
            fit = av.AudioResampler(stream.format, "mono", rate_hz, size)
            whole = av.AudioFrame.from_ndarray(
                (samples[None] * 32767).astype(np.int16), format="s16", layout="mono"
            )
            whole.sample_rate, whole.pts = rate_hz, 0
            for frame in [*fit.resample(whole), *fit.resample(None)]:
                at_s = frame.pts / rate_hz
                if skipped_s and skipped_s[0] <= at_s < skipped_s[1]:
                    continue
                frame.pts += round(late_s * rate_hz)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def heard_s(path: Path, **options: int) -> tuple[float, list[float], list[str]]:
    """Length of a recording, when its tones begin, and what was said of it."""
    notes: list[str] = []
    samples = audio.load(path, warn=notes.append, **options)
    loud = np.flatnonzero(np.abs(samples) > 0.1) / 16_000
    starts = [float(loud[0])] if len(loud) else []
    starts += [float(b) for a, b in itertools.pairwise(loud) if b - a > 0.5]
    return len(samples) / 16_000, starts, notes


KINDS = [("matroska", "libopus"), ("webm", "libopus"), ("mp4", "aac"), ("mpegts", "aac")]
KINDS += [("flv", "aac"), ("ogg", "libopus"), ("matroska", "pcm_s16le"), ("mov", "aac")]


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_a_stretch_that_was_never_sent_is_silence(tmp_path: Path, kind: str, codec: str) -> None:
    path = tmp_path / "muted"
    write(path, kind, codec, [talk()], skipped_s=(1.0, 3.0))
    length_s, starts_s, notes = heard_s(path)
    assert length_s == pytest.approx(4.0, abs=0.1)
    assert starts_s == pytest.approx(CLICKS_S, abs=0.07)
    assert notes == []


@pytest.mark.parametrize("kind", ["webm", "matroska"])
def test_a_live_stream_keeps_its_clock(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "live"
    write(path, kind, "libopus", [talk()], skipped_s=(1.0, 3.0), options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert heard_s(path)[1] == pytest.approx(CLICKS_S, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "codec"), [("matroska", "libopus"), ("webm", "libopus"), ("mp4", "aac")]
)
def test_sound_that_starts_late_starts_late(tmp_path: Path, kind: str, codec: str) -> None:
    path = tmp_path / "late"
    write(path, kind, codec, [talk()], late_s=2.0)
    length_s, starts_s, _ = heard_s(path)
    assert starts_s == pytest.approx([2.5, 5.5], abs=0.07)
    assert audio.probe(path).duration_s == pytest.approx(length_s, abs=0.1)


@pytest.mark.parametrize("kind", ["matroska", "mp4"])
def test_blocks_of_a_recording_with_gaps_joined_are_the_whole(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "gaps"
    write(path, kind, "aac", [talk()], skipped_s=(1.0, 3.0), late_s=1.0)
    whole = audio.load(path)
    np.testing.assert_array_equal(np.concatenate(list(audio.stream(path, block_s=0.7))), whole)
    np.testing.assert_array_equal(audio.load_slice(path, 20_000, 40_000), whole[20_000:40_000])


def test_a_track_is_chosen_and_told(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    write(path, "matroska", "libopus", [talk(starts_s=[]), talk(starts_s=[1.0])], default=1)
    assert heard_s(path)[1] == pytest.approx([1.0], abs=0.05)
    [note] = heard_s(path)[2]
    assert note.startswith("2 sound tracks: track 1, the default, was read; --track")
    assert heard_s(path, track=0)[1:] == ([], [])
    assert heard_s(path, track=1)[2] == []
    with pytest.raises(AudioError, match=r"two\.mkv.*got track 2, expected one of 0\.\.1"):
        audio.load(path, track=2)
    soundfile.write(tmp_path / "one.wav", talk(), RATE)
    with pytest.raises(AudioError, match="track 1, expected 0: the file has one"):
        audio.load(tmp_path / "one.wav", track=1)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_cancel_are_told(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "inverted.flac"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, RATE)
    soundfile.write(path, np.stack([noise, -noise] * (channels // 2), 1), RATE)
    [note] = heard_s(path)[2]
    assert "cancel each other in 1.0 s" in note
    independent = np.random.default_rng(0).uniform(-0.3, 0.3, (RATE, channels))
    soundfile.write(path, independent, RATE)
    assert heard_s(path)[2] == []
    assert audio.load(path, channel=0).std() > 0.05


@pytest.mark.parametrize(("length_s", "inverted_s"), [(0.4, 0.3), (30.0, 2.5)])
def test_short_words_and_parts_that_cancel_are_told(
    tmp_path: Path, length_s: float, inverted_s: float
) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(length_s * RATE))
    other = noise.copy()
    other[: round(inverted_s * RATE)] *= -1
    soundfile.write(tmp_path / "x.flac", np.stack([noise, other], 1), RATE)
    notes = heard_s(tmp_path / "x.flac")[2]
    assert any("cancel each other" in note for note in notes)


@pytest.mark.parametrize(
    ("kind", "gain_db", "told_db"),
    [
        ("flac", -30, -36),
        ("flac", -21, -27),
        ("flac", -19, None),
        ("clicks", -30, -36),  # do not make it loud
        ("short", -30, -36),
        ("stereo", -30, -36),
        ("ogg", -30, -36),
        ("silence", 0, None),
    ],
)
def test_a_quiet_recording_is_told(
    tmp_path: Path, kind: str, gain_db: float, told_db: int | None
) -> None:
    path = tmp_path / f"quiet.{kind if kind == 'ogg' else 'flac'}"
    sound = talk() * 10 ** (gain_db / 20)
    sound = {"short": sound[24_000:27_000], "silence": sound * 0}.get(kind, sound)
    if kind == "clicks":
        sound[::48_000] = 0.5
    soundfile.write(path, np.stack([sound] * (1 + (kind == "stereo")), 1), RATE)
    notes: list[str] = []
    audio.load(path, warn=notes.append)
    told = f"it is quiet: its loudest 0.2 s lie at {told_db} dB; words may come out otherwise than at a usual level"
    assert notes == ([] if told_db is None else [told])


# Files joined to others, and headers that are wrong


@pytest.mark.parametrize(
    ("name", "kind", "codec"),
    [("a.wav", "", ""), ("a.aiff", "", ""), ("a.flac", "", ""), ("a.mkv", "matroska", "libopus"),
     ("a.mp4", "mp4", "aac"), ("a.flv", "flv", "aac")],
)  # fmt: skip
def test_joined_recordings_are_read_one_after_the_other(
    tmp_path: Path, name: str, kind: str, codec: str
) -> None:
    path = tmp_path / name
    if kind:
        write(path, kind, codec, [talk()])
    else:
        soundfile.write(path, talk(), RATE)
    one_s = heard_s(path)[0]
    path.write_bytes(path.read_bytes() * 2)
    length_s, starts_s, [note] = heard_s(path)
    assert length_s == pytest.approx(2 * one_s, abs=0.05)
    expected = [*CLICKS_S, *(s + one_s for s in CLICKS_S)]
    assert starts_s == pytest.approx(expected, abs=0.07)
    assert note == "2 recordings are joined in this file: they were read one after the other"
    assert audio.probe(path).duration_s == pytest.approx(length_s)


def test_joined_recordings_may_differ_in_rate(tmp_path: Path) -> None:
    content = b""
    for rate in (16_000, 44_100):
        soundfile.write(
            tmp_path / "a.wav", talk()[:: RATE // 16_000] if rate == 16_000 else talk(), rate
        )
        content += (tmp_path / "a.wav").read_bytes()
    path = tmp_path / "both.wav"
    path.write_bytes(content)
    assert heard_s(path)[0] == pytest.approx(4.0 + 4.0 * RATE / 44_100, abs=0.001)


def restated(content: bytes, size: int) -> bytes:
    """A wav whose header states other bytes of sound."""
    assert content[36:40] == b"data"
    return (
        content[:4]
        + struct.pack("<I", size + 36)
        + content[8:40]
        + struct.pack("<I", size)
        + content[44:]
    )


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_header_that_states_too_little(tmp_path: Path, subtype: str, channels: int) -> None:
    path = tmp_path / "stale.wav"
    soundfile.write(path, np.stack([talk()] * channels, 1), RATE, subtype=subtype)
    whole = audio.load(path)
    content = path.read_bytes()
    at = content.index(b"data") + 4
    path.write_bytes(content[:at] + struct.pack("<I", 4_800) + content[at + 4 :])
    notes: list[str] = []
    np.testing.assert_array_equal(audio.load(path, warn=notes.append), whole)
    assert audio.probe(path).duration_s == pytest.approx(4.0, abs=1e-3)
    assert len(notes) == 1 and "the header states 4,800 bytes of sound" in notes[0]
    np.testing.assert_array_equal(audio.load_slice(path, 30_000, 40_000), whole[30_000:40_000])


def test_a_stale_header_of_packed_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.wav"
    soundfile.write(path, talk(), RATE, subtype="IMA_ADPCM")
    content = path.read_bytes()
    at = content.index(b"data") + 4
    path.write_bytes(content[:at] + struct.pack("<I", 4_096) + content[at + 4 :])
    with pytest.raises(AudioError, match=r"states less sound than there is, coded as IMA_ADPCM"):
        audio.load(path)


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"LIST\x04\x00\x00\x00abcd", []),
        (b"TAG" + b"x" * 125, []),
        (bytes(4096), []),
        (
            b"PK\x03\x04" + b"z" * 100,
            ["104 bytes behind the sound are no sound: they were not read"],
        ),
    ],
)
def test_bytes_behind_the_sound(tmp_path: Path, tail: bytes, said: list[str]) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, talk(), RATE)
    path.write_bytes(path.read_bytes() + tail)
    length_s, starts_s, notes = heard_s(path)
    assert (length_s, notes) == (4.0, said)
    assert starts_s == pytest.approx(CLICKS_S, abs=0.01)


STRAY = {
    "random": random.Random(0).randbytes(5_000),
    "text": b"<html><body>not found</body></html>\r\n" * 30,
    "ones": b"\xff" * 3_000,
    "a frame's mark": b"\xff\xf8\xc9\x18" + random.Random(1).randbytes(3_000),
    "zeros": bytes(5_000),
    "a tag": b"TAG" + b"x" * 125,
}
"""What downloads, disks and players leave behind the sound of a file."""


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("kind", ["flac", "flac of whole reads", "au", "aac", "mpegts", "wav"])
def test_a_whole_file_with_stray_bytes_behind_it_is_read(
    kind: str, stray: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{kind.split()[0]}"
    sound = talk()
    if kind == "flac of whole reads":
        sound = sound[: len(sound) // 4096 * 4096]
    if kind in ("aac", "mpegts"):
        write(path, {"aac": "adts"}.get(kind, kind), "aac", [sound])
    else:
        soundfile.write(path, sound, RATE)
    whole, silent = audio.load(path), stray in (STRAY["zeros"], STRAY["a tag"])
    path.write_bytes(path.read_bytes() + stray)
    notes: list[str] = []
    again = audio.load(path, warn=notes.append)
    end = len(whole) - (400 if kind == "wav" else 0)  # resampled together with what follows
    np.testing.assert_array_equal(again[:end], whole[:end])
    if kind == "wav" and stray not in (STRAY["text"], STRAY["zeros"], STRAY["a tag"]):
        assert "more follow and were read, too" in notes[0]  # sound of a header that fell behind
        return
    assert len(again) == len(whole)
    if kind in (
        "aac",
        "mpegts",
    ):  # FFmpeg passes over what is no packet, and does not always say so
        assert all("no sound" in note or "could not be decoded" in note for note in notes)
    else:
        assert notes == [] if silent else "behind" in notes[0] and "not read" in notes[0]


COMPRESSED = {
    "m4a": ("ipod", "aac", {}),
    "mp4 for the web": ("mp4", "aac", {"movflags": "faststart"}),
    "mp4 in fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "pcm_s16le", {}),
    "mkv": ("matroska", "libopus", {}),
    "mkv with cues in front": ("matroska", "flac", {"reserve_index_space": "1024"}),
    "webm": ("webm", "libopus", {}),
    "avi": ("avi", "libmp3lame", {}),
    "mp3": ("mp3", "libmp3lame", {"id3v2_version": "3"}),
    "mp3 without a header": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    "opus": ("ogg", "libopus", {}),
    "ogg": ("ogg", "flac", {}),
}
"""Format, codec and options of FFmpeg for files whose sound may have something else behind it."""


def written(path: Path, kind: str) -> bytes:
    """A file of `COMPRESSED`, or of libsndfile for the others."""
    if kind in COMPRESSED:
        form, codec, options = COMPRESSED[kind]
        write(path, form, codec, [talk()], options=options)
    else:
        form = {"vorbis": "OGG", "w64": "W64"}.get(kind, "MP3")
        soundfile.write(path, talk(), RATE, format=form)
    return path.read_bytes()


@pytest.mark.no_cover
@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("kind", [*COMPRESSED, "vorbis", "mp3 of libsndfile"])
def test_stray_bytes_behind_compressed_sound_are_told(
    kind: str, stray: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    content = written(path, kind)
    notes: list[str] = []
    whole = audio.load(path, warn=notes.append)
    assert notes == []
    path.write_bytes(content + stray)
    again = audio.load(path, warn=notes.append)
    # Of the last packet of mp3, FFmpeg keeps what it holds until the next one comes.
    np.testing.assert_array_equal(again[: len(whole) - 800], whole[: len(whole) - 800])
    assert abs(len(again) - len(whole)) <= 1600
    harmless = stray in (STRAY["zeros"], STRAY["a tag"])
    told = f"{len(stray):,} bytes behind its sound are no sound: they were not read"
    assert notes == ([] if harmless else [told])


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
def test_bytes_behind_a_w64_are_no_sound(stray: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.w64"
    soundfile.write(path, talk(), RATE, format="W64", subtype="PCM_16")
    whole = audio.load(path)
    path.write_bytes(path.read_bytes() + stray)
    notes: list[str] = []
    np.testing.assert_array_equal(audio.load(path, warn=notes.append), whole)
    np.testing.assert_array_equal(audio.load_slice(path, 10_000, 12_000), whole[10_000:12_000])
    harmless = stray in (STRAY["zeros"], STRAY["a tag"])
    told = f"{len(stray):,} bytes behind its sound are no sound: they were not read"
    assert notes == ([] if harmless else [told])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_the_size_that_bw64_states(subtype: str, tmp_path: Path) -> None:
    """RF64 under the name that broadcasters give it: its size lies in ds64."""
    path = tmp_path / "a.wav"
    soundfile.write(path, talk(), RATE, format="RF64", subtype=subtype)
    content, whole = path.read_bytes(), audio.load(path)
    path.write_bytes(b"BW64" + content[4:])
    np.testing.assert_allclose(audio.load(path), whole, atol=1e-4)
    path.write_bytes(b"BW64" + cut_to(0.83)(content)[4:])
    with pytest.raises(AudioError, match=r"cut off: got .* bytes of sound, expected"):
        audio.load(path)


def test_a_clock_that_is_mostly_silence_is_not_followed(tmp_path: Path) -> None:
    """An AVI whose header states a tick of half a minute: no days of silence for seconds of sound."""
    path = tmp_path / "slow.avi"
    write(path, "avi", "libmp3lame", [talk()])
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 8 + 20  # dwScale of the track, then dwRate
    scale, rate = struct.unpack_from("<II", content, at)
    struct.pack_into("<II", content, at, scale * 400_000, rate)
    path.write_bytes(content)
    notes: list[str] = []
    length_s = sum(len(block) for block in audio.stream(path, warn=notes.append)) / 16_000
    assert length_s < 13 * 3600
    assert any("timestamps" in note for note in notes)


@pytest.mark.parametrize(
    ("kind", "codec", "channels"),
    [("mov", "pcm_s16le", 7), ("mov", "pcm_s16le", 8), ("mov", "pcm_s16le", 16), ("matroska", "pcm_s16le", 64)],
)  # fmt: skip
def test_many_channels_by_ffmpeg(kind: str, codec: str, channels: int, tmp_path: Path) -> None:
    """As of a field recorder, or a film."""
    path = tmp_path / "a"
    tones = np.sin(np.arange(16_000) / np.arange(7, 7 + channels)[:, None]) / 2
    layout = f"{channels} channels"
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=16_000, layout=layout)
        frame = av.AudioFrame("s16", layout, 16_000)
        frame.sample_rate, frame.pts = 16_000, 0
        data = (tones.T * 32767).astype("<i2").tobytes()
        frame.planes[0].update(data.ljust(frame.planes[0].buffer_size, b"\0"))
        fit = av.AudioResampler(
            stream.format, layout, 16_000, stream.codec_context.frame_size or 960
        )
        for part in [*fit.resample(frame), *fit.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    for channel in (0, channels - 1):
        heard = audio.load(path, channel=channel)
        np.testing.assert_allclose(heard, tones[channel], atol=1e-4)
    np.testing.assert_allclose(audio.load(path), tones.mean(0), atol=1e-4)
    assert audio.probe(path).channels == channels


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_the_size_that_nist_sphere_states(subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sph"
    soundfile.write(path, np.stack([talk(), talk()], 1), RATE, format="NIST", subtype=subtype)
    content, whole = path.read_bytes(), audio.load(path)
    assert len(whole) == 64_000
    path.write_bytes(content + STRAY["random"])
    notes: list[str] = []
    np.testing.assert_array_equal(audio.load(path, warn=notes.append), whole)
    assert notes == ["5,000 bytes behind its sound are no sound: they were not read"]
    path.write_bytes(cut_to(0.83)(content))
    with pytest.raises(AudioError, match=f"cut off: got .* bytes, expected {len(content):,}"):
        audio.load(path)
    path.write_bytes(content.replace(b"sample_count", b"other_number"))
    np.testing.assert_array_equal(audio.load(path), whole)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (104, "the header states 104 bytes; 384,000 more follow and were read, too"),
        (160_000, "the header states 160,000 bytes; 224,104 more follow and were read, too"),
        (0, ""),
        ((1 << 63) - 1, ""),
        ((1 << 64) - 1, ""),
    ],
)
def test_a_w64_whose_header_was_not_written_again(size: int, told: str, tmp_path: Path) -> None:
    """Of a recorder that was killed, or of a pipe: all of its sound is read."""
    path = tmp_path / "a.w64"
    soundfile.write(path, talk(), RATE, format="W64", subtype="PCM_16")
    whole = audio.load(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 16, size)
    struct.pack_into("<Q", content, content.find(b"data") + 16, max(24, size - 80))
    path.write_bytes(content)
    notes: list[str] = []
    np.testing.assert_array_equal(audio.load(path, warn=notes.append), whole)
    assert notes == ([told] if told else [])


@pytest.mark.parametrize(
    ("kind", "lasts_s", "told"),
    [
        ("avi", 8, ""),
        ("m4a", 4, "they may hold another recording"),
        ("mkv", 8, "are no sound"),
        ("mp3", 8, ""),
    ],
)
def test_recordings_with_stray_bytes_between_them(
    kind: str, lasts_s: float, told: str, tmp_path: Path
) -> None:
    """Nothing is said to be no sound that was read, or may be some."""
    path = tmp_path / "a"
    content = written(path, kind)
    path.write_bytes(content + STRAY["random"] + content)
    length_s, _, notes = heard_s(path)
    assert length_s == pytest.approx(lasts_s, abs=0.3)
    behind = [note for note in notes if "behind its sound" in note]
    assert [told in note for note in behind] == ([True] if told else [])


APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 45, 1, 0)
LYRICS = b"LYRICSBEGININD0000210LYR00010" + b"words" * 2 + b"000053LYRICS200"


@pytest.mark.parametrize(
    ("kind", "tail"),
    [
        ("mp3", b"TAG" + b"x" * 125),
        ("mp3", b"TAG+" + b"y" * 223 + b"TAG" + b"x" * 125),
        ("mp3", b"\x05\x00\x00\x00\x00\x00\x00\x00Genre\x00Jazz!" + APE),
        ("mp3", APE + b"\x05\x00\x00\x00\x00\x00\x00\x00Genre\x00Jazz!" + APE + b"TAG" + b"x" * 125),
        ("mp3", LYRICS + b"TAG" + b"x" * 125),
        ("mp3", b"ID3\x04\x00\x10\x00\x00\x00\x40" + bytes(range(64)) + b"3DI\x04\x00\x10\x00\x00\x00\x40"),
        ("mp3", bytes(4096)),
        ("mp3 without a header", b"TAG" + b"x" * 125),
        ("m4a", struct.pack(">I4s", 600, b"free") + b"x" * 592),
        ("m4a", struct.pack(">I4s", 600, b"uuid") + random.Random(3).randbytes(592)),
        ("m4a", struct.pack(">I4sQ", 1, b"skip", 616) + b"x" * 600),
        ("m4a", struct.pack(">I4s", 0, b"free") + b"x" * 700),
        ("mp4 in fragments", struct.pack(">I4s", 600, b"mfra") + b"x" * 592),
        ("mkv", b"\xec\x42\x58" + b"x" * 0x258),
        ("mkv", b"\x12\x54\xc3\x67\x42\x58" + b"x" * 0x258),
        ("mkv", b"\x1c\x53\xbb\x6b\x80" + b"\xec\x42\x58" + b"x" * 0x258),
        ("webm", bytes(300)),
        ("avi", b"JUNK" + struct.pack("<I", 601) + b"x" * 602),
        ("avi", b"RIFF" + struct.pack("<I", 612) + b"AVIXJUNK" + struct.pack("<I", 600) + b"x" * 600),
        ("opus", bytes(512)),
    ],
)  # fmt: skip
def test_what_may_stand_behind_compressed_sound_is_no_stray(
    kind: str, tail: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(written(path, kind) + tail)
    length_s, starts_s, notes = heard_s(path)
    assert (length_s, len(starts_s)) == (pytest.approx(4, abs=0.1), 2)
    assert notes == []


@pytest.mark.parametrize("kind", ["mp3 without a header", "opus", "webm"])
def test_joined_and_shortened_files_are_not_stray_bytes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    content = written(path, kind)
    path.write_bytes(content + content)
    assert not any("no sound" in note for note in heard_s(path)[2])
    if kind.startswith("mp3"):
        path.write_bytes(content[:-100])  # inside of its last frame
        assert heard_s(path)[2] == []


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("frames", [40 * 4096, 40 * 4096 + 1234])
def test_a_flac_of_no_stated_length(frames: int, stray: bytes, tmp_path: Path) -> None:
    """As a stream writes it: its header states 0 samples."""
    path = tmp_path / "a.flac"
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal(frames), 16_000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # of STREAMINFO: the length has 36 bits
    content[22:26] = bytes(4)
    whole = audio.load(path)
    notes: list[str] = []
    for tail in (b"", stray):
        path.write_bytes(bytes(content) + tail)
        np.testing.assert_array_equal(audio.load(path, warn=notes.append), whole)
    silent = stray in (STRAY["zeros"], STRAY["a tag"])
    assert notes == ([] if silent else ["bytes behind its sound are no sound: they were not read"])
    for damaged in (
        content[: len(content) * 2 // 3],
        content[: len(content) // 2] + stray + content[len(content) // 2 :],
        content[:-40] + stray,
    ):
        path.write_bytes(bytes(damaged))
        with pytest.raises(AudioError, match="damaged or cut off"):
            audio.load(path)


@pytest.mark.parametrize("size", [10, 3000])
def test_a_flac_of_no_stated_length_behind_a_tag(size: int, tmp_path: Path) -> None:
    """Damage inside of it is no end of its sound, and bytes behind it are no damage."""
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(60_000), 16_000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, size >> 7, size & 127]) + bytes(size)
    path.write_bytes(tag + bytes(content) + STRAY["random"])
    assert len(audio.load(path)) == 60_000
    content[60_000:60_050] = bytes(50)
    path.write_bytes(tag + bytes(content))
    with pytest.raises(AudioError, match="damaged or cut off"):
        audio.load(path)


@pytest.mark.parametrize("behind", [b"", b"LIST\x04\0\0\0INFO"])
def test_a_wav_that_states_no_sound_is_read_if_there_is_some(behind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(path, noise, 16_000)
    content = bytearray(path.read_bytes())
    whole = audio.load(path)
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)  # as FFmpeg reads it, to the end; the size of the file is right
    path.write_bytes(bytes(content))
    np.testing.assert_array_equal(audio.load(path), whole)
    path.write_bytes(
        bytes(content[: at + 4]).replace(
            struct.pack("<I", len(content) - 8), struct.pack("<I", 36 + len(behind))
        )
        + behind
    )
    with pytest.raises(AudioError, match="got no samples"):
        audio.load(path)


@pytest.mark.parametrize("kind", ["wav", "aiff"])
def test_a_tag_before_the_sound(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, talk(), RATE)
    whole = audio.load(path)
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + path.read_bytes())
    notes: list[str] = []
    np.testing.assert_array_equal(audio.load(path, warn=notes.append), whole)
    np.testing.assert_array_equal(audio.load_slice(path, 30_000, 40_000), whole[30_000:40_000])
    assert audio.probe(path).duration_s == 4.0 and notes == []


def test_joined_ogg_lasts_as_long_as_both(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    write(path, "ogg", "libopus", [talk()])
    path.write_bytes(2 * path.read_bytes())
    assert audio.probe(path).duration_s == pytest.approx(8.0, abs=0.05)
    assert heard_s(path)[1] == pytest.approx([*CLICKS_S, *(4 + s for s in CLICKS_S)], abs=0.05)


def test_samples_of_another_scale_are_told(tmp_path: Path) -> None:
    """Floating-point samples that were never divided by 32,768."""
    path, notes = tmp_path / "a.wav", list[str]()
    soundfile.write(path, 32_768 * talk(), RATE, subtype="FLOAT")
    assert np.abs(audio.load(path, warn=notes.append)).max() > 10_000
    assert len(notes) == 1 and "times full scale" in notes[0]
    soundfile.write(path, 3 * talk(), RATE, subtype="FLOAT")  # a mix that is a little too loud
    audio.load(path, warn=notes.append)
    assert len(notes) == 1


def test_flac_that_is_damaged_at_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, talk(), RATE)
    content = path.read_bytes()
    path.write_bytes(content[:-3_000] + STRAY["random"][:3_000])
    with pytest.raises(AudioError, match=r"damaged or cut off"):
        audio.load(path)


@pytest.mark.parametrize("codec", ["libmp3lame", "ac3"])
@pytest.mark.parametrize("header", [False, True])
def test_avi_that_starts_late(header: bool, codec: str, tmp_path: Path) -> None:
    """By its header (`dwStart`), or by empty chunks, as FFmpeg writes it."""
    path = tmp_path / "a.avi"
    write(path, "avi", codec, [talk()], late_s=0.0 if header else 2.0)
    if header:
        content = bytearray(path.read_bytes())
        at = content.index(b"strh") + 8
        scale, rate = struct.unpack("<II", content[at + 20 : at + 28])
        content[at + 28 : at + 32] = struct.pack("<I", round(2 * rate / scale))
        path.write_bytes(content)
    length_s, starts_s, notes = heard_s(path)
    assert (length_s, notes) == (pytest.approx(6.0, abs=0.1), [])
    assert starts_s == pytest.approx([2 + start_s for start_s in CLICKS_S], abs=0.06)


def test_avi_with_a_stretch_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    write(path, "avi", "ac3", [talk()], skipped_s=(1.5, 2.5))
    assert heard_s(path)[1] == pytest.approx(CLICKS_S, abs=0.06)


def test_a_size_that_wrapped_at_four_gigabytes(tmp_path: Path) -> None:
    """A sparse file: 4 GiB and 96,000 bytes of sound, of which the header states the rest. It is not looked through,
    neither for chunks, eight bytes after eight bytes (minutes), nor for padding at its end (seconds)."""
    path = tmp_path / "big.wav"
    soundfile.write(path, talk(), RATE)
    size = (1 << 32) + 96_000
    path.write_bytes(restated(path.read_bytes(), size & 0xFFFF_FFFF))
    with path.open("r+b") as file:
        file.truncate(44 + size)
    begun = time.process_time()
    assert audio.probe(path).duration_s == pytest.approx(size / 2 / RATE, abs=1e-3)
    assert time.process_time() - begun < 2


def test_mp3_in_wav(tmp_path: Path) -> None:
    path = tmp_path / "logger.wav"
    write(path, "wav", "libmp3lame", [talk()])
    assert path.read_bytes()[20:22] == b"\x55\x00"
    length_s, starts_s, _ = heard_s(path)
    assert length_s == pytest.approx(4.0, abs=0.1)
    assert starts_s == pytest.approx(CLICKS_S, abs=0.06)


@pytest.mark.parametrize("rates", [(48_000, 48_000), (48_000, 44_100)])
def test_joined_mp3_with_tags(tmp_path: Path, rates: tuple[int, int]) -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x40" + b"TSSE" + bytes(60)
    content = b""
    for rate in rates:
        soundfile.write(tmp_path / "a.mp3", talk(), rate)
        content += tag + (tmp_path / "a.mp3").read_bytes()
    path = tmp_path / "joined.mp3"
    path.write_bytes(content)
    lasts_s = [4.0 * RATE / rate for rate in rates]
    length_s, starts_s, _ = heard_s(path)
    assert length_s == pytest.approx(sum(lasts_s), abs=0.15)
    first, second = (RATE / rate for rate in rates)
    expected = [s * first for s in CLICKS_S] + [lasts_s[0] + s * second for s in CLICKS_S]
    assert starts_s == pytest.approx(expected, abs=0.12)


# What is damaged still is an error


def cut_to(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(share * len(content))]


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [("matroska", "libopus", {}), ("webm", "libopus", {}), ("mp4", "aac", {"movflags": "faststart"}),
     ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}), ("flv", "aac", {}),
     ("ogg", "libopus", {})],
)  # fmt: skip
def test_a_container_that_was_cut_off(
    tmp_path: Path, kind: str, codec: str, options: dict[str, str]
) -> None:
    path = tmp_path / "cut"
    write(path, kind, codec, [talk()], options=options)
    whole = path.read_bytes()
    for share in (0.5, 0.83):
        path.write_bytes(cut_to(share)(whole))
        with pytest.raises(AudioError, match="cut off"):
            audio.load(path)
    path.write_bytes(whole)
    assert heard_s(path)[2] == []


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [("mp4", "aac", {"movflags": "faststart"}), ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
     ("avi", "libmp3lame", {}), ("matroska", "libopus", {}), ("flv", "aac", {})],
)  # fmt: skip
def test_joined_recordings_of_which_the_second_was_cut_off(
    tmp_path: Path, kind: str, codec: str, options: dict[str, str]
) -> None:
    path = tmp_path / "cut"
    write(path, kind, codec, [talk()], options=options)
    whole = path.read_bytes()
    path.write_bytes(whole + cut_to(0.83)(whole))
    with pytest.raises(AudioError, match="cut off"):
        audio.load(path)
    path.write_bytes(whole + whole)
    length_s, starts_s, _ = heard_s(path)
    assert (length_s, len(starts_s)) == (pytest.approx(8, abs=0.2), 4)


def pieces_of(path: Path, kind: str) -> bytes:
    """A recording of `talk` in a container, by libsndfile or FFmpeg."""
    if kind in ("au", "caf", "w64", "aiff"):
        soundfile.write(path, talk(), RATE, format=kind.upper(), subtype="PCM_16")
    else:
        codec = {"asf": "libmp3lame", "mp4": "aac", "flv": "aac"}.get(kind, kind)
        write(path, kind, codec, [talk()])
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["au", "caf", "w64", "asf", "tta"])
def test_more_kinds_that_are_joined(tmp_path: Path, kind: str) -> None:
    content = pieces_of(tmp_path / "x", kind)
    (tmp_path / "x").write_bytes(content + content)
    length_s, starts_s, notes = heard_s(tmp_path / "x")
    assert (length_s, len(starts_s)) == (pytest.approx(8, abs=0.1), 4)
    assert any("2 recordings are joined" in note for note in notes)


@pytest.mark.parametrize(("kind", "at", "form"), [("au", 8, ">I"), ("caf", None, ">q")])
def test_old_formats_that_state_too_little_are_refused(
    tmp_path: Path, kind: str, at: int | None, form: str
) -> None:
    content = bytearray(pieces_of(tmp_path / "x", kind))
    where = content.find(b"data") + 4 if at is None else at
    struct.pack_into(form, content, where, 5_000)
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(AudioError, match="the header states sound up to byte"):
        audio.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("kind", "tail"),
    [
        ("flac", b"TAG" + b"x" * 125),
        ("flac", bytes(512)),
        ("flac", bytes(200) + b"TAG" + b"x" * 125),
        ("mp4", b"TAG" + b"x" * 125),
        ("mp4", bytes(range(1, 200)) * 9),
        ("flv", bytes(64)),
        ("flv", bytes(range(1, 200)) * 9),
    ],
)
def test_tags_and_padding_behind_a_whole_file_are_no_damage(
    tmp_path: Path, kind: str, tail: bytes
) -> None:
    content = pieces_of(tmp_path / "x", kind)
    (tmp_path / "x").write_bytes(content + tail)
    length_s, starts_s, _ = heard_s(tmp_path / "x")
    assert (length_s, len(starts_s)) == (pytest.approx(4, abs=0.1), 2)


def test_an_asf_file_that_was_cut_off(tmp_path: Path) -> None:
    content = pieces_of(tmp_path / "x", "asf")
    (tmp_path / "x").write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(AudioError, match="cut off"):
        audio.load(tmp_path / "x")


def test_two_chunks_of_sound_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x", talk(), RATE, format="WAV")
    content = (tmp_path / "x").read_bytes()
    sound = content[content.find(b"data") :]
    (tmp_path / "x").write_bytes(content + sound)
    with pytest.raises(AudioError, match="got a second chunk of sound"):
        audio.load(tmp_path / "x")


@pytest.mark.parametrize("name", ["a.au", "a.caf", "a.w64"])
def test_old_formats_that_were_cut_off(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    soundfile.write(path, talk(), RATE, subtype="PCM_16")
    assert heard_s(path)[0] == pytest.approx(4.0, abs=0.001)
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(AudioError, match="cut off"):
        audio.load(path)


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.flac"
    soundfile.write(tmp_path / "a.flac", talk(), RATE)
    (tmp_path / "a.flac").rename(path)
    assert heard_s(path)[0] == 4.0


@pytest.mark.parametrize("leap_s", [0.0, 20 * 3600.0, 600.0])
def test_a_clock_that_jumps_is_told_and_loses_nothing(tmp_path: Path, leap_s: float) -> None:
    """Timestamps that leap by most of a day, or behind the end that the file states; 0 is no leap."""
    path = tmp_path / "jumping.mkv"
    samples = (talk()[None] * 32767).astype(np.int16)
    options = {"live": "1"} if leap_s > 1000 else {}
    with av.open(str(path), "w", format="matroska", options=options) as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for at in range(0, samples.shape[1], 960):
            frame = av.AudioFrame.from_ndarray(
                samples[:, at : at + 960], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, at
            for packet in stream.encode(frame):
                if at >= 2 * RATE and leap_s > 0:
                    packet.pts = packet.dts = packet.pts + round(leap_s * RATE)
                container.mux(packet)
    content = path.read_bytes()
    if leap_s == 600.0:  # the header states 4 s, as one does that was written before
        with av.open(str(path)) as container:
            assert container.duration > 600e6
        at = content.index(b"\x44\x89\x88") + 3
        content = content[:at] + struct.pack(">d", 4000.0) + content[at + 8 :]
        content = content.replace(b"00:10:04.", b"00:00:04.")
        path.write_bytes(content)
    length_s, starts_s, notes = heard_s(path)
    assert length_s == pytest.approx(4.0, abs=0.01)
    assert starts_s == pytest.approx(CLICKS_S, abs=0.01)
    expected = (
        []
        if leap_s == 0
        else ["its timestamps jump once; the sound was read on without a gap there"]
    )
    assert notes == expected


@pytest.mark.parametrize("container", formats_page.UNSTATED)
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_samples_of_the_encoder_that_nothing_states_come_first(
    tmp_path: Path, container: str, rate_hz: int
) -> None:
    """docs/formats.md says so: FFmpeg itself hears as much later. Where they are stated, see below."""
    kind, codec, options = formats_page.UNSTATED[container]
    sound = [talk(rate_hz=rate_hz)]
    write(tmp_path / "x", kind, codec, sound, rate_hz=rate_hz, options=options)
    _, starts_s, _ = heard_s(tmp_path / "x")
    late_s = formats_page.PRIMING[codec] / rate_hz
    assert starts_s == pytest.approx([start_s + late_s for start_s in CLICKS_S], abs=0.003)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        *(("ipod", "aac"), ("mov", "aac"), ("matroska", "aac"), ("mp3", "libmp3lame")),
        *(
            ("matroska", "libmp3lame"),
            ("mp4", "libmp3lame"),
            ("ogg", "libopus"),
            ("webm", "libopus"),
        ),
        *(("mpegts", "libopus"), ("mp4", "libopus"), ("caf", "alac")),
    ],
)
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_samples_of_the_encoder_that_are_stated_are_left_out(
    tmp_path: Path, kind: str, codec: str, rate_hz: int
) -> None:
    write(tmp_path / "x", kind, codec, [talk(rate_hz=rate_hz)], rate_hz=rate_hz)
    length_s, starts_s, notes = heard_s(tmp_path / "x")
    assert starts_s == pytest.approx(CLICKS_S, abs=0.008)
    assert 3.999 <= length_s <= 4.15 and not notes


@pytest.mark.parametrize("codec", ["libmp3lame", "g726"])
@pytest.mark.parametrize("fault", ["cut", "stale"])
def test_packed_wav_with_another_size_than_it_states_is_refused(
    tmp_path: Path, codec: str, fault: str
) -> None:
    write(tmp_path / "x", "wav", codec, [talk(rate_hz=8_000)], rate_hz=8_000)
    content = bytearray((tmp_path / "x").read_bytes())
    if fault == "stale":
        struct.pack_into("<I", content, content.find(b"data") + 4, 1_000)
    else:
        content = content[:-1_000]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(AudioError, match="cut off" if fault == "cut" else "packed sound, and more"):
        audio.load(tmp_path / "x")


def test_packed_sound_that_ends_early_is_told(tmp_path: Path) -> None:
    """AAC in WAV: the last packets are not decoded."""
    write(tmp_path / "x", "wav", "aac", [talk()])
    length_s, _, notes = heard_s(tmp_path / "x")
    assert length_s < 3.8
    assert any("the track is stated to last 4.0" in note for note in notes)

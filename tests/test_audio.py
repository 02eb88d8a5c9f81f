"""Laws and bad input of `speaker_reasoner.audio`, on files made here and on real recordings."""

import dataclasses
import math
import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speaker_reasoner import audio
from speaker_reasoner.errors import AudioError

REAL = Path(__file__).parents[2] / "shared" / "data" / "audio"
FEW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sine(rate_hz: int = 16_000, duration_s: float = 2.0, tone_hz: float = 440.0) -> np.ndarray:
    """A tone over faint noise, so that no encoder finds an empty frame: float32 [samples]."""
    times_s = np.arange(round(rate_hz * duration_s)) / rate_hz
    noise = np.random.default_rng(0).standard_normal(len(times_s))
    return (0.3 * np.sin(2 * np.pi * tone_hz * times_s) + 0.01 * noise).astype(np.float32)


def loudest_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * audio.SAMPLE_RATE_HZ / len(samples)


class Pipe:
    """A file that cannot seek, as encoders see a pipe."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def encode(
    target: Any, kind: str, codec: str, samples: np.ndarray, rate_hz: int = 48_000, **options: str
) -> None:
    """Write mono samples with PyAV."""
    with av.open(target, "w", format=kind, options=options) as container:
        track = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (samples[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = rate_hz
        fit = av.AudioResampler(
            track.format, "mono", rate_hz, track.codec_context.frame_size or 1024
        )
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            container.mux(track.encode(piece))


def message(call: Callable[[], object], *parts: str) -> str:
    """The text of the AudioError that the call raises; it is one line and holds the parts."""
    with pytest.raises(AudioError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text
    return text


# Arithmetic


@given(st.integers(-(10**9), 10**9))
def test_samples_to_seconds_and_back(samples: int) -> None:
    assert audio.to_samples(audio.to_seconds(samples)) == samples


def test_halves_round_up() -> None:
    assert audio.to_samples(1 / 256) == 63  # 62.5
    assert audio.to_samples(-1 / 256) == -62  # -62.5
    assert audio.to_samples(math.nextafter(1 / 256, 0)) == 62
    assert audio.to_samples(3600.1) == 57_601_600


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_time_must_be_finite(seconds: float) -> None:
    message(lambda: audio.to_samples(seconds), "finite")


@given(st.integers(0, 500), st.data())
def test_cut_is_sample_exact(total: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, total))
    end = data.draw(st.integers(start, total))
    samples = np.arange(total, dtype=np.float32)
    piece = audio.cut(samples, audio.to_seconds(start), audio.to_seconds(end))
    np.testing.assert_array_equal(piece, samples[start:end])


def test_cut_joins_and_allows_rounding_only() -> None:
    samples = sine(duration_s=1.0)
    joined = [audio.cut(samples, 0, 1 / 3), audio.cut(samples, 1 / 3, 1)]
    np.testing.assert_array_equal(np.concatenate(joined), samples)
    assert len(audio.cut(samples, -0.00006, 1.00006)) == 16_000
    for start_s, end_s in [(0, 1.001), (-0.001, 1), (0.5, 0.4), (2, 3), (0, math.nan)]:
        message(lambda s=start_s, e=end_s: audio.cut(samples, s, e), "expected")


# Decoding


@FEW
@given(
    frames=st.integers(1_000, 60_000),
    rate_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]),
    block_s=st.floats(0.001, 3.0),
)
def test_stream_joined_is_load(tmp_path: Path, frames: int, rate_hz: int, block_s: float) -> None:
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(frames).uniform(-1, 1, frames).astype(np.float32)
    soundfile.write(path, noise, rate_hz, subtype="FLOAT")
    blocks = list(audio.stream(path, block_s=block_s))
    whole = audio.load(path)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert {len(block) for block in blocks[:-1]} <= {audio.to_samples(block_s)}
    assert abs(len(whole) - frames * 16_000 / rate_hz) <= 0.5
    assert whole.dtype == np.float32
    if rate_hz == audio.SAMPLE_RATE_HZ:
        np.testing.assert_array_equal(whole, noise)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 96_000, 192_000])
def test_resampling_keeps_pitch_loudness_and_length(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, sine(rate_hz, 2.0, 1_000.0), rate_hz, subtype="PCM_24")
    samples = audio.load(path)
    assert len(samples) == 32_000
    assert loudest_hz(samples) == pytest.approx(1_000, abs=1)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.3 / math.sqrt(2), rel=0.02)
    assert audio.probe(path) == audio.AudioInfo(2.0, rate_hz, 1, "flac")


@pytest.mark.parametrize("kind", [
    "WAV:PCM_U8", "WAV:PCM_24", "WAV:DOUBLE", "WAV:ULAW", "RF64:PCM_16", "WAVEX:PCM_32",
    "AIFF:PCM_16", "FLAC:PCM_S8", "OGG:VORBIS", "OGG:OPUS", "MP3:MPEG_LAYER_III",
])  # fmt: skip
def test_formats_of_libsndfile(tmp_path: Path, kind: str) -> None:
    path, tone = tmp_path / "content decides.txt", sine()
    container, subtype = kind.split(":")
    soundfile.write(path, tone, 16_000, format=container, subtype=subtype)
    samples = audio.load(path)
    assert len(samples) == len(tone)
    assert np.sqrt(np.mean((samples - tone) ** 2)) < 0.04
    rate = 48_000 if kind == "OGG:OPUS" else 16_000  # Opus knows no other
    assert audio.probe(path) == audio.AudioInfo(2.0, rate, 1, container.lower())


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [
        ("ipod", "aac", {}),
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("webm", "libopus", {}),
        ("matroska", "pcm_s16le", {}),
        ("adts", "aac", {}),
    ],
)
def test_formats_of_ffmpeg(tmp_path: Path, kind: str, codec: str, options: dict[str, str]) -> None:
    path = tmp_path / "recording.wav"  # content decides
    encode(str(path), kind, codec, sine(48_000), **options)
    samples = audio.load(path)
    assert len(samples) == pytest.approx(32_000, abs=1_600)
    assert loudest_hz(samples) == pytest.approx(440, abs=1)
    info = audio.probe(path)
    assert (info.sample_rate_hz, info.channels) == (48_000, 1)
    assert info.duration_s == pytest.approx(2.0, abs=0.1)
    np.testing.assert_array_equal(np.concatenate(list(audio.stream(path, block_s=0.7))), samples)


def test_channels_mix_or_pick(tmp_path: Path) -> None:
    path = tmp_path / "eight.wav"
    channels = np.random.default_rng(1).uniform(-1, 1, (5_000, 8)).astype(np.float32)
    soundfile.write(path, channels, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(audio.load(path), channels.mean(axis=1), atol=1e-6)
    for channel in (0, 7, np.int64(3)):
        np.testing.assert_array_equal(audio.load(path, channel=channel), channels[:, channel])
    assert audio.probe(path).channels == 8


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize(("kind", "codec"), [("wav", ""), ("matroska", "flac"), ("mp4", "aac")])
def test_channels_at_once_are_what_they_are_alone(
    tmp_path: Path, kind: str, codec: str, rate_hz: int
) -> None:
    """Also where sound starts late; `matroska` and `mp4` are FFmpeg's."""
    path = tmp_path / "a"
    tones = [sine(rate_hz, 1.5, tone_hz) * 0.5 for tone_hz in (300.0, 500.0, 700.0)]
    if kind == "wav":
        soundfile.write(path, np.stack(tones, axis=1), rate_hz, format="WAV")
    else:
        stereo = np.stack(tones[:2]).astype(np.float32)
        with av.open(str(path), "w", format=kind) as container:
            stream = container.add_stream(codec, rate=rate_hz, layout="stereo")
            form = stream.codec_context.format.name
            for start in range(0, stereo.shape[1], 1024):
                block = np.ascontiguousarray(stereo[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
                frame.sample_rate, frame.pts = rate_hz, start + rate_hz  # a second late
                frame.time_base = Fraction(1, rate_hz)
                for one in av.AudioResampler(form, "stereo", rate_hz).resample(frame):
                    container.mux(stream.encode(one))
            container.mux(stream.encode(None))
    blocks = list(audio.stream_channels(path, block_s=0.7))
    for channel in range(audio.channel_count(path)):
        alone = list(audio.stream(path, channel=channel, block_s=0.7))
        assert [len(b) for b in alone] == [len(b) for b in blocks] and len(blocks) > 1
        assert all(np.array_equal(a, b[:, channel]) for a, b in zip(alone, blocks, strict=True))
    assert blocks[0].shape[1] == (3 if kind == "wav" else 2)
    assert float(np.abs(blocks[-1]).max()) > 0.1


def test_very_short_recording(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, sine(44_100, 0.05), 44_100)
    assert len(audio.load(path)) == 800


def test_a_stream_may_be_left_early(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, sine(duration_s=5.0), 16_000)
    blocks = audio.stream(path, block_s=0.5)
    assert len(next(blocks)) == 8_000
    blocks.close()
    message(lambda: next(audio.stream(path, block_s=0.0)), "at least one sample")


# Headers without a length, and more than one stream in a file


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000, 0])
def test_wav_written_to_a_pipe_reads_to_the_end(tmp_path: Path, size: int) -> None:
    path, tone = tmp_path / "piped.wav", sine()
    soundfile.write(path, tone, 16_000)
    expected, content = audio.load(path), bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    np.testing.assert_array_equal(audio.load(path), expected)
    assert audio.probe(path).duration_s == 2.0


@pytest.mark.parametrize(("kind", "codec"), [("flac", "flac"), ("mp3", "libmp3lame")])
def test_encoders_writing_to_a_pipe(tmp_path: Path, kind: str, codec: str) -> None:
    pipe = Pipe()
    encode(pipe, kind, codec, sine(48_000))
    path = tmp_path / "piped"
    path.write_bytes(pipe.content)
    assert len(audio.load(path)) == pytest.approx(32_000, abs=1_200)
    assert audio.probe(path).duration_s == pytest.approx(2.0, abs=0.075)


def without_xing(content: bytes) -> bytes:
    at = max(content.find(b"Xing", 0, 64), content.find(b"Info", 0, 64))
    assert at > 0
    return content[content.index(content[:2], at) :]


def test_mp3_of_variable_rate_without_header_is_read_to_the_end(tmp_path: Path) -> None:
    path, quiet = tmp_path / "variable.mp3", np.zeros(48_000, np.float32)
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    soundfile.write(
        path, np.concatenate([loud, quiet]), 16_000, bitrate_mode="VARIABLE", compression_level=0.0
    )
    path.write_bytes(without_xing(path.read_bytes()))
    assert soundfile.info(path).frames < 90_000  # what libsndfile would read
    assert len(audio.load(path)) == pytest.approx(96_000, abs=3_000)


@pytest.mark.parametrize("suffix", ["mp3", "ogg"])
def test_joined_files_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"joined.{suffix}"
    soundfile.write(path, sine(), 16_000)
    path.write_bytes(2 * path.read_bytes())
    assert soundfile.info(path).frames == 32_000  # what libsndfile would read
    assert len(audio.load(path)) == pytest.approx(64_000, abs=3_000)


def test_mp3_with_tags(tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp3"
    soundfile.write(path, sine(), 16_000)
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + b"\xff\xfb\x90\x00" * 64
    path.write_bytes(tag + path.read_bytes() + b"TAG" + b"\xff" * 125)
    assert len(audio.load(path)) == 32_000


# Bad input


def test_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message(lambda: audio.load(tmp_path / "missing.wav"), "missing.wav", "No such file")
    message(lambda: audio.probe(tmp_path), tmp_path.name, "directory")
    message(lambda: audio.load("null\0byte.wav"), "null")
    message(lambda: audio.load(tmp_path / "two\nlines.wav"), "lines.wav")
    locked = tmp_path / "locked.wav"
    soundfile.write(locked, sine(), 16_000)
    locked.chmod(0)
    if os.access(locked, os.R_OK):  # root may read everything

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    message(lambda: audio.load(locked), "locked.wav", "Permission denied", "permissions")


def test_files_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(b"")
    message(lambda: audio.load(path), "empty.wav", "0 bytes")
    soundfile.write(path, np.zeros(0), 16_000)
    for call in (audio.load, audio.probe, lambda p: list(audio.stream(p))):
        message(lambda call=call: call(path), "empty.wav", "got no samples, expected")
    soundfile.write(path, np.zeros(3), 192_000)
    message(lambda: audio.load(path), "got no samples", "16 kHz")


@pytest.mark.parametrize("content", [
    b"This is a text.\n" * 99, b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.mp3\n",
    b"ffconcat version 1.0\nfile sound.wav\n", b"RIFF\x00\x00\x00\x00WAVE", bytes(5_000),
])  # fmt: skip
def test_no_audio(tmp_path: Path, content: bytes) -> None:
    soundfile.write(tmp_path / "sound.wav", sine(), 16_000)
    path = tmp_path / "text.wav"
    path.write_bytes(content)
    message(lambda: audio.load(path), "text.wav", "expected a whole audio or video file")


def test_unknown_codec(tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, sine(), 16_000)
    content = bytearray(path.read_bytes())
    content[20:22] = b"\x34\x12"
    path.write_bytes(content)
    message(lambda: audio.load(path), "odd.wav", "expected")


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.wav", "IMA_ADPCM"), ("a.aiff", "PCM_16"),
     ("a.rf64", "PCM_16"), ("a.mp3", "MPEG_LAYER_III"), ("a.flac", "PCM_16")],
)  # fmt: skip
def test_cut_off_says_got_and_expected(tmp_path: Path, name: str, subtype: str) -> None:
    path = tmp_path / name
    soundfile.write(path, sine(), 16_000, subtype=subtype)
    content = path.read_bytes()
    for share in (0.4, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        text = message(lambda: audio.load(path), name, "cut off: got ", "expected 2.0")
        got_s = float(text.split("cut off: got ")[1].split(" s")[0])
        assert got_s == pytest.approx(2 * share, abs=0.6 if name == "a.flac" else 0.15)


def test_wav_without_its_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(), 16_000)
    path.write_bytes(path.read_bytes()[:-1])
    message(lambda: audio.load(path), "got 2.000 s, expected 2.000 s")
    path.write_bytes(path.read_bytes()[:44])
    message(lambda: audio.probe(path), "got 0.000 s, expected 64000 bytes")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_cut_inside_a_page(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, sine(duration_s=5.0), 16_000, subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    message(lambda: audio.load(path), "a.ogg", "cut off")
    path.write_bytes(content[: content.rindex(b"OggS") + 5])
    message(lambda: audio.load(path), "a.ogg", "cut off")


@pytest.mark.parametrize(("kind", "codec"), [("webm", "libopus"), ("mp4", "aac")])
def test_cut_off_container(tmp_path: Path, kind: str, codec: str) -> None:
    path = tmp_path / "a.media"
    options = {"movflags": "faststart"} if kind == "mp4" else {}
    encode(str(path), kind, codec, sine(48_000, 3.0), **options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    message(lambda: audio.load(path), "a.media", "cut off: got 1.", "expected 3.0")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_sample_that_is_not_a_number(tmp_path: Path, value: float) -> None:
    path = tmp_path / "broken.wav"
    samples = np.zeros((48_000, 2), np.float32)
    samples[36_000:, 1] = value
    soundfile.write(path, samples, 24_000, subtype="FLOAT")
    message(lambda: audio.load(path), "broken.wav", f"{value} at 1.500000 s", "finite")
    assert len(audio.load(path, channel=0)) == 32_000


@pytest.mark.parametrize("channel", [2, -1, 1.0, "0", True])
def test_channel_that_does_not_exist(tmp_path: Path, channel: Any) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.zeros((99, 2)), 16_000)
    message(lambda: audio.load(path, channel=channel), "stereo.wav", repr(channel), "0..1")


def test_impossible_rate(tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    soundfile.write(path, np.zeros(99), 1)
    message(lambda: audio.load(path), "slow.wav", "1 Hz", "expected 1000..")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(["wav", "flac", "mp3", "ogg", "aiff"]), st.data())
def test_damage_never_raises_anything_else(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path / f"damaged.{suffix}"
    soundfile.write(path, sine(duration_s=0.3), 16_000)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(200, len(content) - 1)))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        assert np.isfinite(audio.load(path)).all()
    except AudioError as error:
        assert "\n" not in str(error)


# Real recordings


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings at {REAL}")
@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("two_party_call.wav", audio.AudioInfo(30.0, 16_000, 1, "wav")),
        ("alimeeting_9s.wav", audio.AudioInfo(8.99, 16_000, 1, "wav")),
        ("jfk.flac", audio.AudioInfo(11.0, 44_100, 2, "flac")),
        ("podcast_3spk.mp3", audio.AudioInfo(8_441_600 / 24_000, 24_000, 1, "mp3")),
    ],
)
def test_real_recordings(name: str, info: audio.AudioInfo) -> None:
    path = REAL / name
    got = audio.probe(path)
    assert got.duration_s == pytest.approx(info.duration_s, abs=1 / 16_000)
    assert dataclasses.replace(got, duration_s=info.duration_s) == info
    lengths = [len(block) for block in audio.stream(path, block_s=10.0)]
    assert abs(sum(lengths) - info.duration_s * 16_000) <= 1
    assert set(lengths[:-1]) <= {160_000}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings at {REAL}")
def test_both_decoders_agree_on_a_real_mp3(capfd: pytest.CaptureFixture[str]) -> None:
    path = REAL / "podcast_3spk.mp3"
    first = next(audio.stream(path, block_s=20.0))
    with av.open(str(path)) as container:
        frames = [
            frame.to_ndarray()[0]
            for _, frame in zip(range(800), container.decode(audio=0), strict=False)
        ]
    import soxr

    other = soxr.resample(np.concatenate(frames).astype(np.float32), 24_000, 16_000)
    common = min(len(first), len(other)) - 200
    np.testing.assert_allclose(first[:common], other[:common], atol=1e-4)
    assert capfd.readouterr().err == ""  # libmpg123 complains if it is made to seek


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("a.wav", 16_000, 1), ("a.flac", 16_000, 2), ("a.wav", 44_100, 1), ("a.ogg", 16_000, 1)],
)
def test_a_slice_is_what_load_has_there(
    tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, (rate * 3, channels)), rate)
    whole = audio.load(tmp_path / name)
    for start, end in ((0, 1), (7, 16_000), (31_999, 40_001), (0, len(whole))):
        assert np.array_equal(audio.load_slice(tmp_path / name, start, end), whole[start:end])
    with pytest.raises(AudioError, match=r"ends after 3\.0\d\d s, expected 4\.000 s"):
        audio.load_slice(tmp_path / name, 100, 64_000)
    with pytest.raises(AudioError, match="expected 0 <= start < end"):
        audio.load_slice(tmp_path / name, 5, 5)

"""A server that transcribes the channels of calls separately: what it keeps, tells, plays and refuses."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speaker_reasoner import audio
from speaker_reasoner.server.lines import channel_of, chunk_at
from speaker_reasoner.server.sound import decode_recording
from speaker_reasoner.transcript import Transcript

from . import serving
from .conftest import noise
from .serving import Serve, error_of, post, wait
from .test_channels import alone, call, transcribe

serve = serving.serve
__all__ = ["serve"]


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """A loud channel, and a quiet one."""
    return call(tmp_path / "call.wav", noise(9.0, 2), noise(9.0, 1) * 0.1)


def rows(segments: Any) -> list[tuple[str, float, float, str]]:
    return [(s["speaker"], s["start"], s["end"], s["text"]) for s in segments]


def add(client: Any, path: Path, **fields: Any) -> Any:
    files = {"file": (path.name, path.read_bytes(), "audio/wav")}
    return client.post("/v1/jobs", data=fields, files=files)


def test_each_channel_is_a_speaker(serve: Serve, stereo: Path) -> None:
    client = serve(alone, channels="separate")
    answer = post(client, stereo.read_bytes(), "call.wav", response_format="diarized_json").json()
    own = transcribe(stereo)
    names = dict(zip(dict.fromkeys(s.speaker for s in own.segments), "AB", strict=True))
    expected = [(names[s.speaker], s.start_s, s.end_s, s.text) for s in own.segments]
    assert rows(answer["segments"]) == expected and len({text for *_, text in expected}) == 2


def test_an_upload_is_decoded_once(tmp_path: Path, monkeypatch: Any) -> None:
    """However many channels it has."""
    made = call(tmp_path / "call.wav", *(noise(1.0, n) * 0.1 * n for n in range(8)))
    opened, was = [], audio.open_source

    def count(*words: Any) -> Any:
        opened.append(words)
        return was(*words)

    monkeypatch.setattr(audio, "open_source", count)
    folder = tmp_path / "kept"
    folder.mkdir()
    decode_recording(made, folder, "call.wav", 60.0, separate=True)
    kept, _ = soundfile.read(folder / "audio.flac")
    assert kept.shape == (16_000, 8) and len(opened) == 2, "to count its channels, and to read"
    wanted, _ = soundfile.read(made)
    assert np.abs(kept - wanted).max() < 1e-4


def test_a_job_is_told_played_and_heard_again(serve: Serve, stereo: Path) -> None:
    client = serve(alone, channels="separate")
    job = wait(client, add(client, stereo).json())
    assert (job["status"], job["speakers"]) == ("done", 2)
    url = f"/v1/jobs/{job['id']}"
    document = client.get(f"{url}/document").json()
    before = [(s["speaker"], s["text"], s["chunk"]) for s in document["segments"]]
    assert {(label, text) for label, text, _ in before} == {
        ("Speaker1", "loud"),
        ("Speaker2", "quiet"),
    }
    assert {chunk % 2 for label, _, chunk in before if label == "Speaker2"} == {1}
    for _ in range(2):  # a chunk stays that of its channel
        again = {"op": "listen", "chunk": before[0][2], "revision": document["revision"]}
        assert client.post(f"{url}/corrections", json=again).status_code in (200, 202)
        assert wait(client, job)["error"] is None
        document = client.get(f"{url}/document").json()
        assert [(s["speaker"], s["text"]) for s in document["segments"]] == [
            one[:2] for one in before
        ]
    played, _ = soundfile.read(io.BytesIO(client.get(f"{url}/audio").content))
    sent, _ = soundfile.read(stereo)
    assert played.ndim == 1 and np.abs(played - sent.mean(1)).max() < 1e-4
    peaks = client.get(f"{url}/peaks").content
    assert len(peaks) == 900 and max(peaks) == round(255 * np.abs(sent).max())


def test_one_channel_is_told_apart_by_voices(serve: Serve, tmp_path: Path) -> None:
    client = serve(alone, channels="separate")
    mono = call(tmp_path / "mono.wav", noise(3.0, 2))
    answer = post(client, mono.read_bytes(), response_format="diarized_json").json()
    assert {s["speaker"] for s in answer["segments"]} == {"A"}
    assert (
        "the recording has one channel: its speakers are told apart by their voices"
        in answer["warnings"]
    )


def test_a_number_of_speakers_contradicts_channels(serve: Serve, stereo: Path) -> None:
    client = serve(alone, channels="separate")
    said = error_of(add(client, stereo, speakers="2"), 400, "invalid_value")
    assert said.startswith("speakers: each channel of the recording is one speaker here")


def test_more_channels_than_are_kept(serve: Serve, tmp_path: Path) -> None:
    client = serve(alone, channels="separate")
    many = call(tmp_path / "many.wav", *[noise(1.0, n) for n in range(9)])
    assert (
        "got 9 channels, expected at most 8"
        in post(client, many.read_bytes()).json()["error"]["message"]
    )


def test_what_is_louder_than_full_scale_keeps_its_channels(tmp_path: Path) -> None:
    loud = np.stack([noise(1.0, 1) * 20, noise(1.0, 2)], axis=1).astype(np.float32)
    path = tmp_path / "loud.wav"
    soundfile.write(path, loud, 16_000, subtype="FLOAT")
    assert decode_recording(path, tmp_path, "loud", 60.0, separate=True) == 1.0
    kept, _ = soundfile.read(tmp_path / "audio.wav", dtype="float32")
    assert np.array_equal(kept, loud)


def test_a_line_goes_to_a_chunk_of_its_speakers_channel() -> None:
    traces = tuple({"chunk": n, "start_s": 3.0 * (n // 2), "channel": n % 2} for n in range(4))
    info = {"channels": [{"channel": n, "speaker": f"Speaker{n + 1}"} for n in range(2)]}
    call = Transcript("call", 6.0, (), traces=traces, info=info)
    chunks = [chunk_at(call, at_s, f"Speaker{n}") for at_s in (1.0, 4.0) for n in (1, 2, 3)]
    assert chunks == [0, 1, 1, 2, 3, 3]  # nobody's channel: the last chunk
    assert [channel_of(call, chunk) for chunk in range(5)] == [0, 1, 0, 1, None]

"""Live sessions whose client knows who may be heard."""

from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.server.jobs import new_job_id
from speaker_reasoner.server.leftlive import LeftLive
from speaker_reasoner.voices.clips import load_clip
from speaker_reasoner.voices.store import VoiceStore

from . import serving, test_serve
from .serving import Serve, data_url, sound, wait, wait_until
from .serving import hum as clip
from .test_meetings import CACHED, Humming
from .test_realtime import ITEM, MANUAL, appended, hum, jobs, session

serve, live, meeting = serving.serve, test_serve.live, serving.meeting
__all__ = ["live", "meeting", "serve"]

pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")


def knowing(**clips: Any) -> dict[str, Any]:
    """A session whose client has clips of people."""
    urls = [data_url(sound(one)) for one in clips.values()]
    return {**MANUAL, "known_speaker_names": list(clips), "known_speaker_references": urls}


def said(client: TestClient, job: Any) -> set[tuple[str, str]]:
    rows = client.get(f"/v1/jobs/{job['id']}/document").json()["segments"]
    return {(row["speaker"], row["text"]) for row in rows}


def test_known_speakers_have_their_names(meeting: TestClient) -> None:
    """In the lines, and in the job that the session leaves; the others are letters."""
    with session(meeting, knowing(Ana=clip(300), Bo=clip(700))) as talker:
        updated = talker.of("session.updated")[-1]["session"]
        assert updated["known_speaker_names"] == ["Ana", "Bo"]
        assert "known_speaker_references" not in updated, "which are long"
        for pitches in ((300, 1000), (700, 300)):
            talker.say(hum(*((pitch, 1.2) for pitch in pitches)))
            talker.commit()
            talker.until(f"{ITEM}completed")
        lines = [(one["speaker"], one["text"]) for one in talker.of(f"{ITEM}segment")]
        names = {"hum 300": "Ana", "hum 700": "Bo", "hum 1000": "A"}
        assert len(lines) == 4 and all(names[text] == speaker for speaker, text in lines)
    [job] = jobs(meeting)
    assert wait(meeting, job)["status"] == "done"
    assert {(s, t) for s, t in said(meeting, job) if s in ("Ana", "Bo")} == {
        ("Ana", "hum 300"),
        ("Bo", "hum 700"),
    }


def test_people_of_the_voice_store_in_a_session(serve: Serve, tmp_path: Path) -> None:
    store = VoiceStore(tmp_path / "voices")
    (tmp_path / "clip.wav").write_bytes(sound(clip(300)))
    store.add("Ana", [load_clip(tmp_path / "clip.wav")])
    client = serve(Humming(), CACHED, voices=tmp_path / "voices")
    both = {**knowing(Bo=clip(700)), "voices": ["Ana"]}
    with session(client, both) as talker:
        talker.say(hum((300, 1.2), (700, 1.2)))
        talker.commit()
        assert [one["speaker"] for one in talker.until(f"{ITEM}completed")["segments"]] == [
            "Ana",
            "Bo",
        ]
        talker.send("session.update", session={**MANUAL, "voices": ["Ana"]})
        assert "before the first audio" in talker.until("error")["error"]["message"]


def test_known_speakers_that_cannot_be_used(meeting: TestClient) -> None:
    """Each is an error that names the field; the session goes on."""
    with session(meeting, None) as talker:
        for fields, param, message in (
            ({"known_speaker_names": ["Ana"]}, "known_speaker_references", "one clip for each"),
            (
                {"known_speaker_names": ["Ana"], "known_speaker_references": ["x"]},
                "known_speaker_references[0]",
                "expected a data URL",
            ),
            (
                {"known_speaker_names": ["a\nb"], "known_speaker_references": ["x"]},
                "session.known_speaker_names",
                "name of a voice",
            ),
            ({"voices": ["Cleo"]}, "voices", "nobody in the server's voice store"),
            ({"known_speaker_names": "Ana"}, "session.known_speaker_names", "list"),
        ):
            talker.send("session.update", session={**MANUAL, **fields})
            error = talker.until("error")["error"]
            assert (error["param"], error["code"])[0] == param and message in error["message"]
        talker.send("session.update", session=knowing(Ana=clip(300)))
        talker.until("session.updated")
        talker.say(hum((300, 1.2)))
        talker.commit()
        assert talker.until(f"{ITEM}completed")["segments"][0]["speaker"] == "Ana"


def test_a_model_that_hears_no_voices(serve: Serve) -> None:
    client = serve()
    with session(client, None) as talker:
        talker.send("session.update", session=knowing(Ana=clip(300)))
        assert "hears no voices" in talker.until("error")["error"]["message"]
    assert list((Path(client.app.state.service.settings.store) / "incoming").iterdir()) == []  # type: ignore[attr-defined]


def test_clips_are_gone_with_their_session(meeting: TestClient) -> None:
    """And before that, those of people whom others have replaced, or that cannot be used."""
    folder = Path(meeting.app.state.service.settings.store) / "incoming"  # type: ignore[attr-defined]
    with session(meeting, knowing(Ana=clip(300))) as talker:
        [first] = folder.iterdir()
        talker.send("session.update", session=knowing(Bo=clip(700)))
        talker.until("session.updated")
        [second] = folder.iterdir()
        assert second != first
        wrong = {"known_speaker_names": ["Ana"], "known_speaker_references": ["x"]}
        talker.send("session.update", session={**MANUAL, **wrong})
        talker.until("error")
        assert list(folder.iterdir()) == [second]
        talker.say(hum((700, 1.2)))
        talker.commit()
        assert talker.until(f"{ITEM}completed")["segments"][0]["speaker"] == "Bo"
    wait_until(lambda: list(folder.iterdir()) == [])


def test_openai_names_speakers(live: Any) -> None:
    """OpenAI's client passes fields on that it does not know."""
    server = live(Transcriber(ScriptedEngine(Humming(), CACHED), detect=None))
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with client.realtime.connect(
        model="scripted", extra_query={"intent": "transcription"}
    ) as connection:
        connection.session.update(session=knowing(Ana=clip(300)))  # type: ignore[arg-type]
        for piece in appended(hum((300, 1.2), (700, 1.2))):
            connection.input_audio_buffer.append(audio=piece)
        connection.input_audio_buffer.commit()
        for event in connection:
            assert event.type != "error", event
            if event.type == f"{ITEM}completed":
                break
        assert [one["speaker"] for one in event.segments] == ["Ana", "A"]  # type: ignore[union-attr]


def test_voices_of_a_session_of_a_shared_store(tmp_path: Path) -> None:
    """They are written beside its recording; a session of an earlier version has none."""
    left = LeftLive(new_job_id(), "Live", None, None, "", "m", ("Ana", "Bo"))
    left.write(tmp_path / "one")
    assert list(LeftLive.read(tmp_path / "one").voices) == ["Ana", "Bo"]
    about = tmp_path / "one" / "live.json"
    about.write_text(about.read_text().replace(', "voices": ["Ana", "Bo"]', ""))
    assert LeftLive.read(tmp_path / "one").voices == ()

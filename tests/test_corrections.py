"""Corrections of a job's transcript, and chunks that are heard again."""

import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from speaker_reasoner.engines import Request
from speaker_reasoner.errors import EngineError
from speaker_reasoner.server.corrections import History, apply, replay
from speaker_reasoner.server.failures import RequestError
from speaker_reasoner.server.jobruns import JobRun
from speaker_reasoner.server.lines import CorrectedLine, Document
from speaker_reasoner.transcript import Segment, Transcript, Word

from . import serving
from .serving import Gate, Serve, add_job, error_of, events_of, sound, wait, wav
from .talk import play
from .test_meetings import MEETING

serve, meeting = serving.serve, serving.meeting

# Corrections


@pytest.fixture
def corrected(serve: Serve) -> Any:
    """A job that is done, and a function that corrects it."""
    client = serve()
    job = wait(client, add_job(client, wav(6.0)))

    def correct(status: int = 200, **operation: Any) -> Any:
        now = client.get(f"/v1/jobs/{job['id']}/document").json()["revision"]
        made = {"revision": now, **operation}
        answer = client.post(f"/v1/jobs/{job['id']}/corrections", json=made)
        assert answer.status_code == status, answer.text
        return answer.json()

    correct.job = job  # type: ignore[attr-defined]
    correct.client = client  # type: ignore[attr-defined]
    return correct


def speakers_of(document: Any) -> list[str]:
    names = {speaker["label"]: speaker["name"] for speaker in document["speakers"]}
    return [names[segment["speaker"]] for segment in document["segments"]]


def test_a_document(corrected: Any) -> None:
    document = corrected.client.get(f"/v1/jobs/{corrected.job['id']}/document").json()
    assert (document["revision"], document["duration"]) == (0, 6.0)
    assert [s["id"] for s in document["segments"]] == ["0", "1", "2", "3"]
    assert [(s["chunk"], s["turn"]) for s in document["segments"]] == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
    ]
    assert [(s["label"], s["colour"]) for s in document["speakers"]] == [
        (f"Speaker{n}", n - 1) for n in (1, 2, 3, 4)
    ]
    assert [c["chunk"] for c in document["chunks"]] == [0, 1]
    assert not document["can_undo"] and not document["can_redo"]


def test_rename_and_merge(corrected: Any) -> None:
    document = corrected(op="rename", speaker="Speaker1", name=" Ana ")
    assert document["revision"] == 1 and document["can_undo"]
    assert speakers_of(document) == ["Ana", "Speaker2", "Speaker3", "Speaker4"]
    assert document["speakers"][0]["label"] == "Speaker1"
    document = corrected(**{"op": "merge", "from": "Speaker3", "into": "Ana"})
    assert speakers_of(document) == ["Ana", "Speaker2", "Ana", "Speaker4"]
    assert [s["colour"] for s in document["speakers"]] == [0, 1, 3]
    txt = corrected.client.get(f"/v1/jobs/{corrected.job['id']}/transcript?format=txt").text
    assert txt.count("Ana (female): one") == 2
    native = corrected.client.get(f"/v1/jobs/{corrected.job['id']}/transcript").json()
    assert native["info"]["revision"] == 2


def test_move_edit_delete(corrected: Any) -> None:
    document = corrected(op="move", segment="1", speaker="Speaker1")
    assert speakers_of(document)[:2] == ["Speaker1", "Speaker1"]
    assert document["segments"][1]["gender"] == "female"
    document = corrected(op="move", segment="1", speaker="Somebody else")
    assert speakers_of(document)[1] == "Somebody else"
    document = corrected(op="edit", segment="2", text="eins", start=3.5)
    edited = next(s for s in document["segments"] if s["id"] == "2")
    assert (edited["text"], edited["start"]) == ("eins", 3.5)
    assert edited["confidence"]["words"] is None
    document = corrected(op="delete", segment="3")
    assert [s["id"] for s in document["segments"]] == ["0", "1", "2"]


def test_undo_and_redo(corrected: Any) -> None:
    first = corrected(op="rename", speaker="Speaker1", name="Ana")
    second = corrected(op="delete", segment="0")
    undone = corrected(op="undo")
    assert undone == {**first, "revision": 3, "can_redo": True}
    assert corrected(op="redo") == {**second, "revision": 4}
    corrected(op="undo")
    corrected(op="undo")
    assert "nothing to undo" in corrected(409, op="undo")["error"]["message"]
    corrected(op="edit", segment="0", text="new")
    assert "nothing to redo" in corrected(409, op="redo")["error"]["message"]


@pytest.mark.parametrize(
    ("operation", "status", "said"),
    [
        ({"op": "rename", "speaker": "Nobody", "name": "Ana"}, 404, "no speaker 'Nobody'"),
        ({"op": "rename", "speaker": "Speaker1", "name": "Speaker2"}, 400, "merge"),
        ({"op": "rename", "speaker": "Speaker1", "name": "a\nb"}, 400, "printable"),
        ({"op": "rename", "speaker": "Speaker1", "name": " "}, 400, "printable"),
        ({"op": "rename", "speaker": "Speaker1"}, 400, "name"),
        ({"op": "rename", "speaker": 1, "name": "Ana"}, 400, "speaker"),
        ({"op": "merge", "from": "Speaker1", "into": "Speaker1"}, 400, "itself"),
        ({"op": "merge", "from": "Speaker1", "into": "Nobody"}, 404, "Nobody"),
        ({"op": "move", "segment": "99", "speaker": "Speaker1"}, 404, "no segment '99'"),
        ({"op": "move", "segment": "0", "speaker": "\0"}, 400, "printable"),
        ({"op": "edit", "segment": "0"}, 400, "expected 'text'"),
        ({"op": "edit", "segment": "0", "text": "two\nlines"}, 400, "one segment is one line"),
        ({"op": "edit", "segment": "0", "start": 2.0}, 400, "start < end"),
        ({"op": "edit", "segment": "0", "end": 7.0}, 400, "lasts 6.000 s"),
        ({"op": "edit", "segment": "0", "end": "late"}, 400, "end"),
        ({"op": "delete", "segment": "0", "speaker": "x"}, 400, "speaker"),
        ({"op": "explode"}, 400, "op"),
        ({"op": "heard", "chunk": 0}, 400, "op"),
        ({}, 400, "op"),
        ({"op": "listen", "chunk": 9}, 404, "chunk 9"),
        ({"op": "listen", "chunk": -1}, 400, "chunk"),
    ],
)
def test_wrong_corrections(
    corrected: Any, operation: dict[str, Any], status: int, said: str
) -> None:
    assert said in corrected(status, **operation)["error"]["message"]
    document = corrected.client.get(f"/v1/jobs/{corrected.job['id']}/document").json()
    assert document["revision"] == 0


def test_bodies_that_are_no_corrections(corrected: Any) -> None:
    url = f"/v1/jobs/{corrected.job['id']}/corrections"
    for body in (b"", b"{", b"[" * 50_000, b"[]", b'{"revision": "0"}', b'{"revision": true}'):
        assert corrected.client.post(url, content=body).status_code == 400
    error_of(corrected.client.post(url, content=b" " * 70_000), 413, "request_too_large")


SEGMENTS = tuple(
    Segment(f"Speaker{1 + i % 3}", float(i), i + 1.5, f"word {i}", "male") for i in range(6)
)
ORIGINAL = Document(
    Transcript("talk", 10.0, SEGMENTS),
    tuple(CorrectedLine(str(i), segment, 0, 1) for i, segment in enumerate(SEGMENTS)),
)


@settings(max_examples=60, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_whatever_was_done_can_be_undone(rng: random.Random) -> None:
    """Undone to the first, the document is the original; done again to the last, it is the last."""
    made: list[dict[str, Any]] = []
    document, history = replay(ORIGINAL, made)
    for _ in range(12):
        operation = _draw(rng, document)
        try:
            apply(document, operation)
        except RequestError:
            continue
        made.append(operation)
        document, history = replay(ORIGINAL, made)
    last, count = document, len(made)
    bodies = [History().show(last, 0)]
    for _ in range(count):
        made.append({"op": "undo"})
        document, history = replay(ORIGINAL, made)
        bodies.append(History().show(document, 0))
    assert document == replay(ORIGINAL, [])[0] and not history.done
    for body in reversed(bodies[:-1]):
        made.append({"op": "redo"})
        document, _ = replay(ORIGINAL, made)
        assert History().show(document, 0) == body
    assert document == last


def _draw(rng: random.Random, document: Document) -> dict[str, Any]:
    speaker = rng.choice([*document.labels, "Ana", "Bo"])
    segment = str(rng.randrange(7))
    return rng.choice(
        [
            {"op": "rename", "speaker": speaker, "name": rng.choice(["Ana", "Bo", "Speaker1"])},
            {"op": "merge", "from": speaker, "into": rng.choice(document.labels or ("x",))},
            {"op": "move", "segment": segment, "speaker": speaker},
            {"op": "edit", "segment": segment, "text": rng.choice("abc"), "start": rng.random()},
            {"op": "delete", "segment": segment},
            {"op": "split", "segment": segment, "at": 1, "speaker": speaker},
            {"op": "join", "segment": segment, "other": str(rng.randrange(7))},
            {"op": "add", "speaker": speaker, "start": rng.random(), "end": 1.5, "text": "new"},
            {"op": "gender", "speaker": speaker, "gender": rng.choice(["female", "male"])},
        ]
    )


def test_split_and_join(corrected: Any) -> None:
    corrected(op="edit", segment="0", text="the red dog sees a cat")
    for wrong in (0, 22, 400):
        corrected(400, op="split", segment="0", at=wrong)
    corrected(400, op="split", segment="0", at=7, time=9.0)
    document = corrected(op="split", segment="0", at=11, speaker="Ana")
    first, second, *_ = document["segments"]
    assert (first["id"], first["text"]) == ("0", "the red dog")
    assert (second["id"], second["text"], second["speaker"]) == ("0/1", "sees a cat", "Ana")
    assert first["end"] == second["start"] == pytest.approx(1.6 * 11 / 21, abs=0.001)
    assert first["corrected"] and second["corrected"] and "Ana" in speakers_of(document)
    corrected(404, op="join", segment="0", other="nobody")
    corrected(400, op="join", segment="0", other="0")
    joined = corrected(op="join", segment="0/1", other="0")
    one = joined["segments"][0]
    assert (one["id"], one["text"], one["start"], one["end"]) == (
        "0", "the red dog sees a cat", 0.0, 1.6,
    )  # fmt: skip
    assert one["speaker"] == "Speaker1" and len(joined["segments"]) == 4
    assert [s["id"] for s in corrected(op="undo")["segments"]][:2] == ["0", "0/1"]


def test_a_split_at_words_with_times() -> None:
    """The cut lies between the words."""
    words = (Word("red", 0.1, 0.3), Word("dog", 0.7, 0.9))
    line = CorrectedLine("0", Segment("A", 0.0, 1.0, "red dog", words=words), 0, 0)
    document = Document(Transcript("talk", 1.0, (line.segment,)), (line,))
    first, second = apply(document, {"op": "split", "segment": "0", "at": 4}).lines
    assert (first.segment.end_s, second.segment.start_s) == (0.5, 0.5)
    assert first.segment.words == words[:1] and second.segment.words == words[1:]
    [joined] = apply(
        apply(document, {"op": "split", "segment": "0", "at": 4}),
        {"op": "join", "segment": "0", "other": "0/1"},
    ).lines
    assert joined.segment.words == words and joined.segment.text == "red dog"


def test_lines_are_added_and_genders_set(corrected: Any) -> None:
    corrected(400, op="add", speaker="Ana", start=2.0, end=2.0, text="no time")
    corrected(400, op="add", speaker="Ana", start=2.0, end=99.0, text="too late")
    corrected(400, op="add", speaker=" ", start=2.0, end=3.0, text="nobody")
    document = corrected(op="add", speaker="Ana", start=4.0, end=4.5, text=" well ")
    [added] = [s for s in document["segments"] if s["speaker"] == "Ana"]
    assert (added["id"], added["text"], added["chunk"]) == ("new/1", "well", 1)
    assert added["corrected"] and added["turn"] is None
    document = corrected(op="gender", speaker="Ana", gender="female")
    assert next(s for s in document["speakers"] if s["label"] == "Ana")["gender"] == "female"
    corrected(404, op="gender", speaker="nobody", gender="female")
    corrected(400, op="gender", speaker="Ana", gender="tall")


def test_corrections_of_two_people(corrected: Any) -> None:
    url = f"/v1/jobs/{corrected.job['id']}/corrections"
    operation = {"revision": 0, "op": "delete", "segment": "0"}
    assert corrected.client.post(url, json=operation).status_code == 200
    answer = corrected.client.post(url, json={**operation, "segment": "1"})
    assert "is at 1" in error_of(answer, 409, "stale_revision")


def test_corrections_survive_a_restart(corrected: Any, serve: Serve) -> None:
    document = corrected(op="rename", speaker="Speaker1", name="Ana")
    client = serve()
    assert client.get(f"/v1/jobs/{corrected.job['id']}/document").json() == document
    assert client.get(f"/v1/jobs/{corrected.job['id']}").json()["revision"] == 1


def test_a_trace(corrected: Any) -> None:
    url = f"/v1/jobs/{corrected.job['id']}/trace"
    trace = corrected.client.get(url, params={"chunk": 1}).json()
    document = corrected.client.get(f"/v1/jobs/{corrected.job['id']}/document").json()
    assert trace["start"] == document["chunks"][1]["start"]
    assert trace["stop"] == "answered"
    assert any("answer" in part for part in trace["parts"])
    error_of(corrected.client.get(url, params={"chunk": 7}), 404, "chunk_not_found")
    error_of(corrected.client.get(url), 400, "invalid_value")


# Listening again


def listen(client: TestClient, job: Any, chunk: int, revision: int, **more: Any) -> Any:
    made = {"op": "listen", "chunk": chunk, "revision": revision, **more}
    return client.post(f"/v1/jobs/{job['id']}/corrections", json=made)


def words(document: Any) -> list[tuple[str, str, float]]:
    names = {speaker["label"]: speaker["name"] for speaker in document["speakers"]}
    return [(names[s["speaker"]], s["text"], s["start"]) for s in document["segments"]]


def test_a_chunk_is_heard_again_with_the_corrected_speakers(meeting: TestClient) -> None:
    job = wait(meeting, add_job(meeting, sound(MEETING)))
    url = f"/v1/jobs/{job['id']}"
    first = meeting.get(f"{url}/document").json()
    renamed = meeting.post(
        f"{url}/corrections",
        json={"revision": 0, "op": "rename", "speaker": "Speaker1", "name": "Ana"},
    ).json()
    lost = next(s["id"] for s in first["segments"] if s["chunk"] == 2)
    made = {"revision": 1, "op": "delete", "segment": lost}
    deleted = meeting.post(f"{url}/corrections", json=made).json()
    assert len(deleted["segments"]) == len(first["segments"]) - 1
    answer = listen(meeting, job, 2, 2, keep=False)
    assert answer.status_code == 202
    assert answer.json()["status"] in ("queued", "running")
    done = wait(meeting, job)
    assert (done["status"], done["error"], done["revision"]) == ("done", None, 3)
    again = meeting.get(f"{url}/document").json()
    assert words(again) == words(renamed) and again["revision"] == 3
    ids = [s["id"] for s in again["segments"]]
    assert len(set(ids)) == len(ids)
    assert next(s["id"] for s in again["segments"] if s["chunk"] == 2) == "2.0"
    assert {s["turn"] for s in again["segments"] if s["chunk"] == 2} <= {1, 2, 3, 4, 5}
    events = events_of(meeting.get(f"{url}/events").text)
    assert events[-2][1:] == ("done", {"revision": 3})
    told = [data for _, name, data in events if name == "segment"]
    assert [d["id"] for d in told if d["id"].startswith("2.")] == [
        s["id"] for s in again["segments"] if s["chunk"] == 2
    ]
    assert meeting.get(f"{url}/trace?chunk=2").json()["start"] == again["chunks"][2]["start"]
    undone = meeting.post(f"{url}/corrections", json={"revision": 3, "op": "undo"}).json()
    assert {**undone, "revision": 2, "can_redo": False} == deleted


def test_what_people_corrected_is_not_heard_over(serve: Serve) -> None:
    """A word, a speaker, an added and a deleted line stay; only what nobody touched is heard anew."""
    again: list[int] = []

    def hear(request: Request) -> str:
        return play(request).replace("one", "won") if again else play(request)

    client = serve(hear)
    job = wait(client, add_job(client, wav(6.0)))
    url = f"/v1/jobs/{job['id']}"
    made: list[dict[str, Any]] = [
        {"op": "edit", "segment": "1", "text": "twice"},
        {"op": "move", "segment": "1", "speaker": "Ana"},
        {"op": "add", "speaker": "Bo", "start": 0.2, "end": 0.4, "text": "hm"},
    ]
    for revision, operation in enumerate(made):
        sent = {"revision": revision, **operation}
        before = client.post(f"{url}/corrections", json=sent)
        assert before.status_code == 200, before.text
    again.append(1)
    assert listen(client, job, 0, 3).status_code == 202
    wait(client, job)
    kept = client.get(f"{url}/document").json()
    texts = [(s["text"], s["corrected"]) for s in kept["segments"] if s["chunk"] == 0]
    assert texts == [("won", False), ("hm", True), ("twice", True)], kept
    assert listen(client, job, 0, 4, keep=False).status_code == 202
    wait(client, job)
    heard = client.get(f"{url}/document").json()
    assert [s["text"] for s in heard["segments"] if s["chunk"] == 0] == ["won", "two"]
    undone = client.post(f"{url}/corrections", json={"revision": 5, "op": "undo"}).json()
    assert undone["segments"] == kept["segments"]


def test_a_deleted_line_is_not_heard_again(serve: Serve) -> None:
    client = serve()
    job = wait(client, add_job(client, wav(6.0)))
    made = {"revision": 0, "op": "delete", "segment": "1"}
    deleted = client.post(f"/v1/jobs/{job['id']}/corrections", json=made).json()
    assert listen(client, job, 0, 1).status_code == 202
    wait(client, job)
    after = client.get(f"/v1/jobs/{job['id']}/document").json()
    assert words(after) == words(deleted)


def test_strangers_of_a_chunk_keep_their_label(serve: Serve) -> None:
    """Where nothing links chunks, nobody of another chunk is meant by a label."""
    client = serve()
    job = wait(client, add_job(client, wav(6.0)))
    before = client.get(f"/v1/jobs/{job['id']}/document").json()
    assert listen(client, job, 1, 0).status_code == 202
    wait(client, job)
    after = client.get(f"/v1/jobs/{job['id']}/document").json()
    assert words(after) == words(before)


def test_a_result_is_written_down_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper finds a result that the engine thread is about to have written down."""
    client = serve()
    job = wait(client, add_job(client, wav(6.0)))
    before = client.get(f"/v1/jobs/{job['id']}/document").json()
    correct = JobRun._correct

    def and_the_keeper_comes(run: JobRun, result: Transcript) -> None:
        correct(run, result)
        keeper = threading.Thread(target=run.settle)
        keeper.start()
        keeper.join(0.2)

    monkeypatch.setattr(JobRun, "_correct", and_the_keeper_comes)
    assert listen(client, job, 1, 0).status_code == 202
    wait(client, job)
    after = client.get(f"/v1/jobs/{job['id']}/document").json()
    assert words(after) == words(before)


def test_a_job_under_way_is_not_corrected(serve: Serve) -> None:
    gate = Gate()
    gate.open.set()
    client = serve(gate)
    job = wait(client, add_job(client, wav(6.0)))
    gate.open.clear()
    gate.reached.clear()
    assert listen(client, job, 0, 0).status_code == 202
    assert gate.reached.wait(5)
    error_of(listen(client, job, 0, 0), 409, "job_under_way")
    document = client.get(f"/v1/jobs/{job['id']}/document").json()
    assert document["revision"] == 0
    ended = client.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert (ended["status"], ended["revision"]) == ("done", 0)
    gate.open.set()
    assert listen(client, job, 1, 0).status_code == 202
    assert wait(client, job)["revision"] == 1


def test_a_chunk_that_cannot_be_heard_again(serve: Serve) -> None:
    broken: list[Exception] = []

    def fail(request: Request) -> str:
        if broken:
            raise broken[0]
        return play(request)

    client = serve(fail)
    job = wait(client, add_job(client, wav(6.0)))
    broken.append(EngineError("out of memory"))
    assert listen(client, job, 0, 0).status_code == 202
    ended = wait(client, job)
    assert (ended["status"], ended["revision"]) == ("done", 0)
    assert ended["error"]["message"] == "out of memory"


def test_listening_again_goes_on_after_a_restart(serve: Serve) -> None:
    client = serve()
    job = wait(client, add_job(client, wav(6.0)))
    expected = client.get(f"/v1/jobs/{job['id']}/document").json()
    gate = Gate()
    client = serve(gate)
    assert listen(client, job, 1, 0).status_code == 202
    assert gate.reached.wait(5)
    client.app.state.service.drain()  # type: ignore[attr-defined]
    gate.open.set()
    client = serve()
    assert wait(client, job)["revision"] == 1
    assert words(client.get(f"/v1/jobs/{job['id']}/document").json()) == words(expected)

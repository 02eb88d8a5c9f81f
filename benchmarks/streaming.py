"""Share of streamed segments whose speaker the last pass over the recording changed.

    python benchmarks/streaming.py [--meetings 3] [--minutes 10] [--model tiny] [--name streaming] [RECORDING ...]

The server streams, with real HTTP, meetings of development voices (or recordings that are given). Measured are the
share of segments whose speaker in the stream differs from that of the final segments in its last event, and the
numbers of speakers. `turns` counts segments as each turn wrote them, before linking.
"""

import argparse
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import soundfile as sf
import uvicorn
from rich.console import Console

from calibrate import DEVELOPMENT
from common import store
from heldout_set import BANK
from longform import draw
from speaker_reasoner import Transcriber, load_engine
from speaker_reasoner.data.banks import bank
from speaker_reasoner.server.app import create_app
from speaker_reasoner.server.runs import RequestRun
from speaker_reasoner.server.service import ServiceSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--meetings", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--name", default="streaming")
    parser.add_argument("--held-out", action="store_true", help="voices of the evaluation")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.recordings or meetings(Path(folder), arguments)
        with serving(arguments.model, Path(folder) / "store") as (url, model, segments):
            for path in paths:
                segments.clear()
                rows.append({"recording": path.stem, **measure(url, model, path, segments)})
                Console(stderr=True).print(rows[-1])
    total = {key: sum(row[key] for row in rows) for key in ("segments", "changed", "turns_changed")}
    share = round(total["changed"] / max(1, total["segments"]), 4)
    result = {"model": arguments.model, "recordings": rows, "total": total, "share": share}
    Console(stderr=True).print(f"{share:.1%} changed; wrote {store(arguments.name, result)}")


def meetings(folder: Path, arguments: argparse.Namespace) -> Iterator[Path]:
    voices = bank(BANK if arguments.held_out else DEVELOPMENT, arguments.banks)
    for number in range(arguments.meetings):
        path = folder / f"meeting {number}.flac"
        sf.write(path, draw(voices, arguments.minutes, number).samples, 16_000)
        yield path


@contextmanager
def serving(model: str, folder: Path) -> Iterator[tuple[str, str, list[Any]]]:
    """Give a server's address, its model, and the segments of its turns."""
    app = create_app(Transcriber(load_engine(model)), ServiceSettings(folder))
    segments: list[Any] = []
    was = RequestRun.on_progress

    def listen(run: RequestRun, progress: Any) -> None:
        segments.extend(progress.segments)
        was(run, progress)

    RequestRun.on_progress = listen  # type: ignore[method-assign]
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.service.model, segments
    finally:
        server.should_exit = True
        thread.join()
        RequestRun.on_progress = was  # type: ignore[method-assign]


def measure(url: str, model: str, path: Path, segments: list[Any]) -> dict[str, Any]:
    form = {"model": model, "response_format": "diarized_json", "stream": "true"}
    with path.open("rb") as file:
        answer = httpx2.post(
            f"{url}/v1/audio/transcriptions", data=form, files={"file": file}, timeout=7200
        )
    events = [json.loads(row[6:]) for row in answer.text.split("\n") if row.startswith("data: ")]
    streamed = [one for one in events if one["type"] == "transcript.text.segment"]
    final = {place(one): one["speaker"] for one in events[-1]["segments"]}
    changed = sum(final.get(place(one)) != one["speaker"] for one in streamed)
    before = [one.speaker for one in segments]
    names = {}
    for label, one in zip(before, segments, strict=True):
        names.setdefault(label, final.get((one.start_s, one.end_s, one.text)))
    turns = sum(
        names[label] != final.get((one.start_s, one.end_s, one.text))
        for label, one in zip(before, segments, strict=True)
    )
    missing = len(set(final) - {place(one) for one in streamed})
    return {
        "segments": len(streamed),
        "changed": changed,
        "turns_changed": turns,
        "not_streamed": missing,
        "speakers_streamed": len({one["speaker"] for one in streamed}),
        "speakers_of_turns": len(set(before)),
        "speakers": len(set(final.values())),
    }


def place(segment: dict[str, Any]) -> tuple[float, float, str]:
    return segment["start"], segment["end"], segment["text"]


if __name__ == "__main__":
    main()

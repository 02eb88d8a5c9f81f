"""Transcribe a recording through a running server with OpenAI's own client.

    speaker-reasoner serve &
    python examples/client.py meeting.flac [--known "Ana=ana.wav"]

Segments are printed as soon as their turn is known. Needs the package `openai`.
"""

import argparse
import base64
import os
from pathlib import Path

from openai import OpenAI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--known", action="append", default=[], metavar="NAME=FILE")
    arguments = parser.parse_args()
    people = [text.partition("=") for text in arguments.known]
    client = OpenAI(
        base_url=arguments.url, api_key=os.environ.get("SPEAKER_REASONER_API_KEY", "none")
    )
    events = client.audio.transcriptions.create(
        model=client.models.list().data[0].id,
        file=arguments.recording,
        response_format="diarized_json",
        chunking_strategy="auto",
        known_speaker_names=[name for name, _, _ in people],
        known_speaker_references=[data_url(Path(path)) for _, _, path in people],
        stream=True,
    )
    for event in events:
        if event.type == "transcript.text.segment":
            print(f"[{event.start:7.2f} - {event.end:7.2f}] {event.speaker}: {event.text}")
        elif event.type == "transcript.text.done":
            print(f"{event.usage.seconds:.1f} s of audio")


def data_url(path: Path) -> str:
    """A clip of a known voice, of 2 to 10 s."""
    return f"data:audio/wav;base64,{base64.b64encode(path.read_bytes()).decode()}"


if __name__ == "__main__":
    main()

"""Speak to a running server with OpenAI's own client, and see lines while one speaks.

    speaker-reasoner serve &
    python examples/live.py meeting.flac [--faster 2]

A recording stands for the microphone: it is sent at the pace at which it was spoken. Needs the packages
`openai` and `websockets`.
"""

import argparse
import asyncio
import base64
import os
import time
from pathlib import Path
from typing import Any

import soundfile
import soxr
from openai import AsyncOpenAI

RATE_HZ = 24_000
PIECE_S = 0.1
LINE = "conversation.item.input_audio_transcription."


async def talk(path: Path, url: str, faster: float) -> None:
    key = os.environ.get("SPEAKER_REASONER_API_KEY", "none")
    async with AsyncOpenAI(base_url=url, api_key=key) as client:
        model = (await client.models.list()).data[0].id
        query = {"intent": "transcription"}
        async with client.realtime.connect(model=model, extra_query=query) as session:
            listening = asyncio.create_task(listen(session))
            await speak(session, path, faster)
            await listening


async def speak(session: Any, path: Path, faster: float) -> None:
    """Send the recording; pauses end pieces, and a commit the last one."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    samples = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    pcm = (samples.clip(-1, 1) * 32767).astype("<i2").tobytes()
    step = round(PIECE_S * RATE_HZ) * 2
    begun = time.monotonic()
    for number, at in enumerate(range(0, len(pcm), step)):
        await asyncio.sleep(begun + number * PIECE_S / faster - time.monotonic())
        audio = base64.b64encode(pcm[at : at + step]).decode()
        await session.input_audio_buffer.append(audio=audio)
    by_hand = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    await session.session.update(session=by_hand)  # its answer tells that all before was read
    await session.input_audio_buffer.commit()


async def listen(session: Any) -> None:
    """Print lines as they come, until every piece is through."""
    waiting: set[str] = set()
    read_all = ended = False
    async for event in session:
        if event.type == "session.updated":
            read_all = True
        elif event.type == "input_audio_buffer.committed":
            waiting.add(event.item_id)
            ended = read_all
        elif event.type == f"{LINE}segment":
            print(f"[{event.start:7.2f} - {event.end:7.2f}] {event.speaker}: {event.text}")
        elif event.type in (f"{LINE}completed", f"{LINE}failed"):
            waiting.discard(event.item_id)
            for row in getattr(event, "relabelled", ()):
                print(f"{row['id']} was said by {row['speaker']}")
        elif event.type == "error" and event.error.code == "input_audio_buffer_commit_empty":
            ended = True  # a pause had ended the last piece
        elif event.type == "error":
            raise SystemExit(event.error.message)
        if ended and not waiting:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--faster", type=float, default=1.0, help="than it was spoken")
    arguments = parser.parse_args()
    asyncio.run(talk(arguments.recording, arguments.url, arguments.faster))


if __name__ == "__main__":
    main()

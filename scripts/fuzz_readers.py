#!/usr/bin/env python
"""Fuzz every reader: damaged and mixed-up inputs give a result or one of our errors, in bounded time and memory.

    python scripts/fuzz_readers.py                  # 10,000 inputs for each reader of text, 2,000 for sound
    python scripts/fuzz_readers.py --inputs 500 --readers srt,vtt --seed 7
    python scripts/fuzz_readers.py --growth         # and whether time grows with the size, not faster

Inputs are made of transcripts that this package writes, and of samples of other programs' files, by cutting,
repeating, exchanging and replacing characters, words and lines. A failure is printed with the seed that
makes it again; the exit status is 1 if there was one.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from speaker_reasoner import audio, formats
from speaker_reasoner.errors import SpeakerReasonerError
from speaker_reasoner.evaluate.directives import read_uem
from speaker_reasoner.formats.folders import INPUTS
from speaker_reasoner.transcript import Segment, Transcript, Word

SLOW_S = 2.0  # for a text of some kilobytes
SLOW_SOUND_S = 20.0  # for a sound, into whose timestamps half a day of silence may have come
MEMORY_BYTES = 3 << 30
GROWTH = 16.0  # time of eight times as much by time of one; 8 would be linear
_ALPHABET = "\"'{}[]()<>/\\:;,.-=|&#@%*\t \n\r\0\ufeff\u2028é张0123456789eENaN+"


def talk(segments: int) -> Transcript:
    """A made transcript of some people, with times of words."""
    rows = []
    for i in range(segments):
        words = tuple(Word(f"word{i % 7}{j}", i + j / 4, i + j / 4 + 0.2) for j in range(3))
        text = " ".join(word.text for word in words)
        rows.append(Segment(f"Ana {'BCD'[i % 3]}", float(i), i + 0.9, text, "female", words=words))
    return Transcript("talk", float(segments), tuple(rows))


def seeds(name: str) -> list[str]:
    """Whole inputs of a reader."""
    one = talk(6)
    if name in formats.FORMATS and name != "txt":
        texts = [formats.render(one, name)]
        if name == "stm":
            texts.append(
                "t 1 A 0 4 <o,f0,male> a { b / c { d / @ } } (e)\nt 1 x 4 5 ignore_time_segment_in_scoring\n"
            )
        if name == "rttm":
            texts.append(
                "NOSCORE t 1 1 2 <NA> <NA> <NA> <NA> <NA>\nLEXEME t 1 0 1 a lex A <NA> <NA>\n"
            )
        if name == "ctm":
            texts.append(
                "t 1 * * <ALT_BEGIN>\nt 1 0 1 a\nt 1 * * <ALT>\nt 1 0 1 @\nt 1 * * <ALT_END>\n"
            )
        if name == "srt":
            texts += [texts[0].replace("\n\n", "\n"), texts[0].replace("Ana", "<i>Ana</i>")]
        if name == "vtt":
            texts.append(
                "WEBVTT\n\n00:00.000 --> 00:01.000\nAna B: a\nb\n\n00:01.000 --> 00:02.000\nb\nc\n"
            )
        return texts
    rows = [
        {"speaker": s.speaker, "start": s.start_s, "end": s.end_s, "text": s.text}
        for s in one.segments
    ]
    words = [
        {"word": w.text, "start": w.start_s, "end": w.end_s, "speaker": 1}
        for s in one.segments
        for w in s.words or ()
    ]
    match name:
        case "services":
            return [
                json.dumps({"segments": [{**row, "words": words[:3]} for row in rows]}),
                json.dumps({"utterances": rows, "audio_duration": 9}),
                json.dumps({"results": {"channels": [{"alternatives": [{"words": words}]}]}}),
                json.dumps(
                    {
                        "results": [
                            {"alternatives": [{"words": [{"startTime": "1.5s", "word": "a"}]}]}
                        ]
                    }
                ),
                json.dumps(
                    {
                        "results": {
                            "items": [{"alternatives": [{"content": "a"}], "start_time": "1"}],
                            "transcripts": [],
                        }
                    }
                ),
                json.dumps(
                    {
                        "monologues": [
                            {"elements": [{"type": "text", "value": "a", "ts": 1, "end_ts": 2}]}
                        ]
                    }
                ),
                json.dumps(
                    {
                        "recognizedPhrases": [
                            {"offset": "PT1S", "duration": "PT1S", "nBest": [{"display": "a"}]}
                        ]
                    }
                ),
                json.dumps({"chunks": [{"timestamp": [0, 1], "text": "a"}]}),
                json.dumps({"transcription": [{"offsets": {"from": 0, "to": 10}, "text": "a"}]}),
                "\n".join(
                    json.dumps({"audio_filepath": "a.wav", "duration": 1.0, "text": "a"})
                    for _ in range(3)
                ),
            ]
        case "txt":
            return [
                "Title\n\nAna Moe  0:00\nwell\n\nBob  0:07\nso\nTranscribed by https://otter.ai\n",
                "Speaker 1 (00:00):\na\n\n(00:05)\nb\n\n00:09\nAna: c\nBob: d\n",
                "[0.00s -> 3.40s] a\n[00:04.000 --> 00:05.000] b\n[00:06] Ana: c\n",
            ]
        case "lhotse":
            row = {
                "id": "a",
                "recording_id": "r",
                "start": 0.5,
                "duration": 1.0,
                "text": "a",
                "speaker": "s",
            }
            return ["\n".join(json.dumps({**row, "id": str(i)}) for i in range(4))]
        case "elan":
            return [
                '<ANNOTATION_DOCUMENT><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="1"/><TIME_SLOT '
                'TIME_SLOT_ID="b" TIME_VALUE="9"/></TIME_ORDER><TIER TIER_ID="A"><ANNOTATION>'
                '<ALIGNABLE_ANNOTATION ANNOTATION_ID="1" TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">'
                "<ANNOTATION_VALUE>hi</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"
            ]
        case "labels":
            return ["0.0\t1.0\tAna: hi\n1.0\t2.5\tBo: there\n"]
        case "uem":
            return ["talk 1 0 5\nother 1 2 3\n"]
    raise ValueError(name)


def damaged(text: str, rng: random.Random) -> str:
    """A text after some changes."""
    for _ in range(rng.randint(1, 6)):
        size = len(text)
        at, to = sorted((rng.randint(0, size), rng.randint(0, size)))
        lines = text.split("\n")
        match rng.randrange(8):
            case 0:
                text = text[:at] + text[to:]
            case 1:
                text = text[:to] + text[at:to] + text[to:]
            case 2:
                text = text[:at] + "".join(rng.choices(_ALPHABET, k=rng.randint(1, 9))) + text[at:]
            case 3:
                text = text[:at] + rng.choice(_ALPHABET) + text[at + 1 :]
            case 4:
                rng.shuffle(lines)
                text = "\n".join(lines)
            case 5:
                text = "\n".join(line for line in lines if rng.random() < 0.8)
            case 6:
                words = text.split(" ")
                words[rng.randrange(len(words))] = rng.choice(
                    ("-1", "1e999", "NaN", "null", "{", "", "9" * 30, "<ALT>")
                )
                text = " ".join(words)
            case 7:
                text = text * rng.randint(1, 3)
        text = text[:40_000]
    return text


def sounds(folder: Path) -> Iterator[bytes]:
    """Whole files of sound."""
    tone = 0.3 * np.sin(np.arange(8_000) / 9)
    for suffix in ("wav", "flac", "mp3", "ogg", "aiff", "au", "caf", "w64"):
        path = folder / f"a.{suffix}"
        soundfile.write(path, tone, 16_000)
        yield path.read_bytes()
    import av

    for kind, codec in (
        ("matroska", "libopus"),
        ("mp4", "aac"),
        ("mpegts", "aac"),
        ("flv", "aac"),
        ("adts", "aac"),
    ):
        path = folder / f"a.{kind}"
        with av.open(str(path), "w", format=kind) as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            fit = av.AudioResampler(
                stream.format, "mono", 48_000, stream.codec_context.frame_size or 960
            )
            frame = av.AudioFrame.from_ndarray(
                (tone[None] * 32767).astype(np.int16), format="s16", layout="mono"
            )
            frame.sample_rate = 16_000
            for piece in [*fit.resample(frame), *fit.resample(None), None]:
                container.mux(stream.encode(piece))
        yield path.read_bytes()


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = (
            rng.randrange(len(content))
            if rng.random() < 0.5
            else rng.randrange(min(300, len(content)))
        )
        match rng.randrange(4):
            case 0:
                content[at] = rng.randrange(256)
            case 1:
                content = content[: max(at, 8)]
            case 2:
                content[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 20)))
            case 3:
                content = content + content[:at] if len(content) < 200_000 else content
    return bytes(content)


def attempt(call: Callable[[], object], slow_s: float) -> str:
    """Return what is wrong with the outcome of a call; empty for nothing."""
    begun = time.perf_counter()
    try:
        call()
    except SpeakerReasonerError as error:
        if "\n" in str(error):
            return f"the message has several lines: {error}"
    except MemoryError:
        return "too much memory"
    except Exception:
        return traceback.format_exc(limit=-3)
    took_s = time.perf_counter() - begun
    return f"{took_s:.1f} s" if took_s > slow_s else ""


def fuzz(name: str, count: int, seed: int, folder: Path) -> int:
    """Try a reader; return how many inputs failed."""
    failed = 0
    samples = list(sounds(folder)) if name == "sound" else seeds(name)
    path = folder / f"input.{name}"
    for number in range(count):
        rng = random.Random(f"{seed}-{name}-{number}")
        sample = rng.choice(samples)
        if name == "sound":
            path.write_bytes(damaged_bytes(sample, rng))
            call = lambda: audio.load(path)  # noqa: E731
        else:
            text = damaged(sample, rng)
            if name == "uem":
                path.write_text(text.replace("\r", ""), encoding="utf-8")
                call = lambda: read_uem(path)  # noqa: E731
            else:
                parse = INPUTS[name][1]
                call = lambda parse=parse, text=text: parse(text, "talk.x")  # noqa: E731
        if problem := attempt(call, SLOW_SOUND_S if name == "sound" else SLOW_S):
            failed += 1
            if failed <= 3:
                print(f"{name}, seed {seed}, input {number}: {problem}", flush=True)
    return failed


def growth(name: str) -> float:
    """Time of reading eight times as many segments, by time of reading them once."""
    texts = [formats.render(talk(size), name) for size in (1_000, 8_000)]
    times_s = []
    for text in texts:
        runs = []
        for _ in range(3):
            begun = time.perf_counter()
            INPUTS[name][1](text, "talk.x")
            runs.append(time.perf_counter() - begun)
        times_s.append(min(runs))
    return times_s[1] / times_s[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*INPUTS, "uem", "sound"]
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--sounds", type=int, default=2_000)
    parser.add_argument("--readers", default=",".join(known))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth", action="store_true")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.readers.split(","):
            count = arguments.sounds if name == "sound" else arguments.inputs
            begun = time.perf_counter()
            wrong = fuzz(name, count, arguments.seed, Path(folder))
            failed += wrong
            print(
                f"{name}: {count} inputs, {wrong} failed, {time.perf_counter() - begun:.1f} s",
                flush=True,
            )
    if arguments.growth:
        for name in ("json", "seglst", "stm", "rttm", "ctm", "srt", "vtt", "textgrid"):
            factor = growth(name)
            failed += factor > GROWTH
            print(f"{name}: eight times as much takes {factor:.1f} times as long", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

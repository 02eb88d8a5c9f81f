"""JSON and other files of programs and services: each kind by what it holds, and what may be missing."""

import functools
import json
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.errors import FormatError
from speaker_reasoner.evaluate.inputs import read_sides
from speaker_reasoner.formats.folders import load
from speaker_reasoner.formats.services import SERVICE_FORMATS, parse_services, recognise
from speaker_reasoner.transcript import Transcript

ROWS = [("A", 0.5, 1.5, "hello there"), ("B", 2.0, 3.0, "good day")]
"""What each file below says: speaker (its own name), start, end, words."""
WORDS = [("A", "hello", 0.5, 1.0), ("A", "there", 1.0, 1.5), ("B", "good", 2.0, 2.4)]
WORDS += [("B", "day", 2.4, 3.0)]


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def words_of(who: str, scale: Any = float, text: str = "word", **more: Any) -> list[dict[str, Any]]:
    return [
        {text: word, "start": scale(a), "end": scale(b), **more}
        for speaker, word, a, b in WORDS
        if speaker == who
    ]


def ticks(seconds: float) -> int:
    return round(seconds * 10**7)


def azure(name: str, unit: Any) -> list[dict[str, Any]]:
    return [
        {"speaker": who, name[0]: unit(a), name[1]: unit(b - a), "text": text}
        for who, a, b, text in ROWS
    ]


def google(who: str, word: str, a: float, b: float) -> dict[str, Any]:
    return {"startTime": f"{a}s", "endTime": f"{b}s", "word": word, "speakerTag": " AB".index(who)}


def aws(who: str, word: str, a: float, b: float) -> dict[str, Any]:
    alternatives = [{"confidence": "0.9", "content": word}]
    return {
        "start_time": str(a),
        "end_time": str(b),
        "type": "pronunciation",
        "alternatives": alternatives,
        "speaker_label": who,
    }


SAMPLES: dict[str, Any] = {
    "diarized_json": {
        "task": "transcribe",
        "duration": 3.5,
        "segments": [
            {"type": "transcript.text.segment", "start": a, "end": b, "text": f" {t}", "speaker": w}
            for w, a, b, t in ROWS
        ],
    },
    "whisperx": {
        "segments": [
            {"start": a, "end": b, "text": f" {t}", "speaker": w, "words": words_of(w, score=0.9)}
            for w, a, b, t in ROWS
        ],
        "word_segments": [],
        "language": "en",
    },
    "faster-whisper list": [
        {"id": i, "seek": 0, "start": a, "end": b, "text": t, "speaker": w, "no_speech_prob": 0.1}
        for i, (w, a, b, t) in enumerate(ROWS)
    ],
    "whisper.cpp": {
        "systeminfo": "x",
        "transcription": [
            {
                "timestamps": {"from": "x", "to": "x"},
                "offsets": {"from": ms(a), "to": ms(b)},
                "text": f" {t}",
                "speaker": w,
            }
            for w, a, b, t in ROWS
        ],
    },
    "assemblyai": {
        "id": "x",
        "status": "completed",
        "audio_duration": 4,
        "utterances": [
            {
                "speaker": w,
                "start": ms(a),
                "end": ms(b),
                "text": t,
                "confidence": 0.9,
                "words": words_of(w, ms, "text", confidence=0.9, speaker=w),
            }
            for w, a, b, t in ROWS
        ],
    },
    "deepgram": {
        "metadata": {"duration": 4.0},
        "results": {
            "channels": [
                {
                    "alternatives": [
                        {
                            "transcript": "x",
                            "words": [
                                {"word": w, "start": a, "end": b, "confidence": 0.9, "speaker": s}
                                for s, w, a, b in WORDS
                            ],
                        }
                    ]
                }
            ]
        },
    },
    "elevenlabs": {
        "language_code": "en",
        "text": "x",
        "words": [
            entry
            for s, w, a, b in WORDS
            for entry in (
                {"text": w, "start": a, "end": b, "type": "word", "speaker_id": s},
                {"text": " ", "start": b, "end": b, "type": "spacing", "speaker_id": s},
                {"text": "(laughs)", "start": b, "end": b, "type": "audio_event"},
            )
        ],
    },
    "google": {
        "results": [
            {
                "alternatives": [
                    {
                        "transcript": "hello there good day",
                        "words": [google(*w) | {"speakerTag": 0} for w in WORDS],
                    }
                ]
            },
            {"alternatives": [{"words": [google(*w) for w in WORDS]}]},
        ]
    },
    "google v2": {
        "results": [
            {
                "alternatives": [
                    {
                        "words": [
                            {
                                "startOffset": f"{a}s",
                                "endOffset": f"{b}s",
                                "word": w,
                                "speakerLabel": s,
                            }
                            for s, w, a, b in WORDS
                        ]
                    }
                ]
            }
        ]
    },
    "aws": {
        "jobName": "x",
        "results": {
            "transcripts": [{"transcript": "x"}],
            "items": [
                entry
                for word in WORDS
                for entry in (
                    aws(*word),
                    {"type": "punctuation", "alternatives": [{"content": "."}]},
                )
            ],
        },
    },
    "azure batch": {
        "source": "x",
        "recognizedPhrases": [
            {**row, "channel": 0, "nBest": [{"display": row["text"], "lexical": "x"}]}
            for row in azure(("offsetInTicks", "durationInTicks"), ticks)
        ],
    },
    "azure batch, ISO": {
        "recognizedPhrases": [
            {**row, "channel": 0, "nBest": [{"display": row["text"]}]}
            for row in azure(("offset", "duration"), lambda s: f"PT{s}S")
        ],
    },
    "azure fast": {
        "durationMilliseconds": 4000,
        "combinedPhrases": [{"text": "x"}],
        "phrases": azure(("offsetMilliseconds", "durationMilliseconds"), ms),
    },
    "rev": {
        "monologues": [
            {
                "speaker": w,
                "elements": [
                    {
                        "type": "text",
                        "value": word["word"],
                        "ts": word["start"],
                        "end_ts": word["end"],
                    }
                    if isinstance(word, dict)
                    else {"type": "punct", "value": word}
                    for word in functools.reduce(
                        operator.iadd, ([" ", entry] for entry in words_of(w)), []
                    )[1:]
                ],
            }
            for w, _, _, _ in ROWS
        ]
    },
    "speechmatics": {
        "format": "2.9",
        "results": [
            {
                "type": "word",
                "start_time": a,
                "end_time": b,
                "alternatives": [{"content": w, "speaker": s, "confidence": 0.9}],
            }
            for s, w, a, b in WORDS
        ],
    },
    "gladia": {
        "result": {
            "transcription": {
                "utterances": [
                    {"speaker": w, "start": a, "end": b, "text": t, "words": words_of(w)}
                    for w, a, b, t in ROWS
                ]
            }
        }
    },
    "insanely-fast-whisper": {
        "speakers": [{"speaker": w, "timestamp": [a, b], "text": t} for w, a, b, t in ROWS],
        "chunks": [],
        "text": "x",
    },
    "pyannote": {
        "diarization": [{"start": a, "end": b, "speaker": w} for w, a, b, _ in ROWS],
        "exclusive_diarization": [],
    },
    "pyannoteAI": {
        "jobId": "x",
        "output": {"diarization": [{"start": a, "end": b, "speaker": w} for w, a, b, _ in ROWS]},
    },
    "pyannote.core": {
        "pyannote": "Annotation",
        "content": [
            {"segment": {"start": a, "end": b}, "track": "x", "label": w} for w, a, b, _ in ROWS
        ],
    },
    "whisperx words": {
        "word_segments": [
            {"word": word, "start": a, "end": b, "score": 0.9, "speaker": w}
            for w, word, a, b in WORDS
        ]
    },
    "pyannoteAI words": {
        "output": {
            "diarization": [{"start": a, "end": b, "speaker": w} for w, a, b, _ in ROWS],
            "turnLevelTranscription": [
                {"start": a, "end": b, "speaker": w, "text": t} for w, a, b, t in ROWS
            ],
        },
    },
    "rev, by people": {
        "monologues": [
            {
                "speaker": who,
                "elements": [
                    element
                    for speaker, word, a, b in WORDS
                    if speaker == who
                    for element in (
                        {
                            "type": "text",
                            "value": word,
                            "timestamp": f"00:00:0{a:.3f}".replace(".", ","),
                            "end_timestamp": f"00:00:0{b:.3f}".replace(".", ","),
                        },
                        {"type": "punct", "value": " "},
                    )
                ],
            }
            for who in "AB"
        ],
    },
    "assemblyai without a language": {
        "status": "completed",
        "utterances": [
            {
                "speaker": w,
                "start": ms(a),
                "end": ms(b),
                "text": t,
                "words": words_of(w, ms, "text"),
            }
            for w, a, b, t in ROWS
        ],
    },
    "google batch": {
        "results": {
            "gs://b/call.wav": {
                "transcript": {
                    "results": [
                        {
                            "alternatives": [
                                {
                                    "transcript": text,
                                    "words": [
                                        {
                                            "startOffset": f"{a}s",
                                            "endOffset": f"{b}s",
                                            "word": w,
                                            "speakerTag": " AB".index(s),
                                        }
                                        for s, w, a, b in WORDS
                                        if s == who
                                    ],
                                }
                            ]
                        }
                        for who, _, _, text in ROWS
                    ]
                }
            }
        }
    },
    "aws calls": {
        "Transcript": [
            {
                "ParticipantRole": w,
                "BeginOffsetMillis": ms(a),
                "EndOffsetMillis": ms(b),
                "Content": t,
                "Items": [],
            }
            for w, a, b, t in ROWS
        ]
    },
    "watson": {
        "results": [
            {
                "final": True,
                "alternatives": [
                    {
                        "transcript": text,
                        "timestamps": [[w, a, b] for s, w, a, b in WORDS if s == who],
                        "word_confidence": [[w, 0.9] for s, w, *_ in WORDS if s == who],
                    }
                ],
            }
            for who, _, _, text in ROWS
        ],
        "speaker_labels": [
            {"from": a, "to": b, "speaker": s, "confidence": 0.5} for s, _, a, b in WORDS
        ],
    },
    "funasr": [
        {
            "key": "call",
            "text": "hello there. good day.",
            "timestamp": [[ms(a), ms(b)] for _, _, a, b in WORDS],
            "sentence_info": [
                {
                    "text": f"{t}.",
                    "start": ms(a),
                    "end": ms(b),
                    "timestamp": [[ms(c), ms(d)] for s, _, c, d in WORDS if s == w],
                    "spk": w,
                }
                for w, a, b, t in ROWS
            ],
        }
    ],
    "soniox": {
        "id": "x",
        "tokens": [
            token
            for who, word, a, b in WORDS
            for token in (
                {
                    "text": f" {word[:2]}",
                    "start_ms": ms(a),
                    "end_ms": ms(a) + 100,
                    "speaker": who,
                    "confidence": 0.9,
                },
                {"text": word[2:], "start_ms": ms(a) + 100, "end_ms": ms(b), "speaker": who},
                {"text": f" {word}s", "translation_status": "translation", "speaker": who},
                {"text": "<end>", "start_ms": ms(b), "end_ms": ms(b)},
            )
        ],
    },
    "assemblyai sentences": {
        "id": "x",
        "audio_duration": 4,
        "sentences": [
            {"text": t, "start": ms(a), "end": ms(b), "words": words_of(w, ms, "text", speaker=w)}
            for w, a, b, t in ROWS
        ],
    },
    "speechmatics without its header": {
        "results": [
            {
                "type": "word",
                "start_time": a,
                "end_time": b,
                "alternatives": [{"content": w, "speaker": s}],
            }
            for s, w, a, b in WORDS
        ],
    },
    "verbose_json of words alone": {
        "task": "transcribe",
        "segments": [],
        "words": [{"word": w, "start": a, "end": b, "speaker": s} for s, w, a, b in WORDS],
    },
    "fireflies": {
        "sentences": [
            {"speaker_name": w, "speaker_id": n, "text": t, "start_time": a, "end_time": b}
            for n, (w, a, b, t) in enumerate(ROWS)
        ]
    },
    "segments on a clock": {
        "segments": [
            {"begin": f"00:00:0{a}", "to": f"00:00:0{b}", "content": t, "speaker": w}
            for w, a, b, t in ROWS
        ],
    },
}
WORDLESS = {"pyannote", "pyannoteAI", "pyannote.core"}


def read(tmp_path: Path, data: Any, name: str = "call.json") -> Transcript:
    (tmp_path / name).write_text(json.dumps(data), encoding="utf-8")
    [transcript] = load(tmp_path / name).values()
    return transcript


def said(transcript: Transcript) -> list[tuple[str, float, float, str]]:
    return [
        (s.speaker, round(s.start_s, 6), round(s.end_s, 6), s.text.replace(".", ""))
        for s in transcript.segments
    ]


@pytest.mark.parametrize("name", SAMPLES)
def test_each_kind_says_the_same(tmp_path: Path, name: str) -> None:
    transcript = read(tmp_path, SAMPLES[name])
    expected = [(w, a, b, "" if name in WORDLESS else t) for w, a, b, t in ROWS]
    got = said(transcript)
    numbers = {"1": "A", "2": "B"} if name.startswith("google") else {}
    assert [(numbers.get(w, w), a, b, t) for w, a, b, t in got] == expected
    assert transcript.warnings == ()


def test_values_of_watson_that_are_none(tmp_path: Path) -> None:
    """A confidence or a label that cannot be read is none; a time is an error with its place."""
    best = {"timestamps": [["hi", 0.5, 1.0], ["you", 1, 1.5]], "word_confidence": [True, ["you"]]}
    labels = [{"from": [], "speaker": 0}, {"from": {}, "speaker": 1}, {"from": 1.0, "speaker": 2}]
    data = {"results": [{"alternatives": [best]}], "speaker_labels": labels}
    assert said(read(tmp_path, data)) == [("unknown", 0.5, 1.0, "hi"), ("2", 1.0, 1.5, "you")]
    best["timestamps"] = [["hi", {"a": 1}, 2.0]]
    with pytest.raises(FormatError, match=r"call\.json, turn 1"):
        read(tmp_path, data)
    second: Any = {"alternatives": [{"timestamps": 1.5}]}
    with pytest.raises(FormatError, match=r"result 2: expected timestamps as a list, got '1\.5'"):
        read(tmp_path, {"results": [{"alternatives": [{"timestamps": []}]}, second]})


def objects(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        yield data
    for inner in (
        data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    ):
        yield from objects(inner)


@pytest.mark.parametrize("name", SAMPLES)
def test_optional_keys_may_be_missing_and_numbers_be_none(tmp_path: Path, name: str) -> None:
    """Without speakers, confidences and durations the words stay; integers name speakers, too."""
    data = json.loads(json.dumps(SAMPLES[name]))
    for item in objects(data):
        for key in ("confidence", "score", "no_speech_prob"):
            if key in item:
                item[key] = float("nan")
        for key in (
            "speaker",
            "speaker_id",
            "speaker_label",
            "speakerLabel",
            "speaker_name",
            "spk",
        ):
            if item.get(key) in ("A", "B"):
                item[key] = int(item[key] == "B")
        item.pop("duration", None) if "segments" in item else None
    numbered = read(tmp_path, data)
    assert len(numbered.speakers) == 2
    if name in WORDLESS:
        return
    for item in objects(data):
        for key in ("speaker_id", "speaker_label", "speakerLabel", "speakerTag", "speaker_name"):
            item.pop(key, None)
        for key in ("speaker", "spk", "ParticipantRole"):
            item.pop(key, None)
    if name == "google":
        del data["results"][1]  # repeats all words, for their speakers
    without = read(tmp_path, data)
    assert without.speakers == ("unknown",)
    assert " ".join(t for _, _, _, t in said(without)) == "hello there good day"
    assert any("name no speaker" in warning for warning in without.warnings)


def test_times_of_words_are_kept(tmp_path: Path) -> None:
    for name in ("whisperx", "assemblyai", "deepgram", "elevenlabs", "rev", "aws", "gladia"):
        words = [w for s in read(tmp_path, SAMPLES[name]).segments for w in s.words or ()]
        parsed = [(w.text.replace(".", ""), w.start_s, w.end_s) for w in words]
        assert parsed == [w[1:] for w in WORDS], name


def test_a_word_without_times_costs_the_times_of_its_segment_only(tmp_path: Path) -> None:
    data = json.loads(json.dumps(SAMPLES["whisperx"]))
    del data["segments"][0]["words"][1]["start"]
    transcript = read(tmp_path, data)
    assert [s.words is None for s in transcript.segments] == [True, False]
    assert said(transcript) == ROWS
    assert transcript.warnings == (
        "1 segments have words without times: their words' times were not read",
    )


def test_a_missing_speaker_is_that_of_most_words(tmp_path: Path) -> None:
    words = words_of("A", speaker="S1")
    data = {"segments": [{"start": 0.5, "end": 1.5, "text": "hello there", "words": words}]}
    assert read(tmp_path, data).speakers == ("S1",)


def test_a_call_of_two_channels_has_two_speakers(tmp_path: Path) -> None:
    words = [
        [{"word": w, "start": a, "end": b} for s, w, a, b in WORDS if s == who] for who in "AB"
    ]
    channels = [{"alternatives": [{"words": w}]} for w in words]
    parsed = read(tmp_path, {"results": {"channels": channels}, "metadata": {}})
    assert [(s.speaker, s.text) for s in parsed.segments] == [
        ("channel0", "hello there"),
        ("channel1", "good day"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"segments": [{"start": float("nan"), "end": 1, "text": "x"}]},
        {"segments": [{"start": 0, "text": "x"}]},
        {"segments": [{"start": 2, "end": 1, "text": "x"}]},
        {"segments": [3]},
        {"segments": [{"start": 0, "end": 1, "speaker": {}, "text": "x"}]},
        {"utterances": "x", "audio_duration": 3},
        {"monologues": 3},
        {"chunks": [{"timestamp": [0], "text": "x"}]},
        {"hello": "world"},
        [1, 2],
        [],
        3,
        None,
    ],
)
def test_what_it_is_not_is_said(data: Any) -> None:
    with pytest.raises(FormatError, match=r"call\.json") as caught:
        parse_services(json.dumps(data), "call.json")
    assert "\n" not in str(caught.value)


def test_nemo_manifests_name_their_recordings(tmp_path: Path) -> None:
    rows = [
        {
            "audio_filepath": "/x/one.wav",
            "offset": 1.5,
            "duration": 2.0,
            "text": "hello",
            "label": "x",
        },
        {"audio_filepath": "two.wav", "duration": 1.0, "pred_text": "good day", "speaker": "B"},
        {"audio_filepath": "one.wav", "offset": 0, "duration": 9.0, "text": "-", "label": "infer"},
    ]
    for name in ("m.json", "m.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)) + "\n")
        parsed = load(tmp_path / name)
        assert list(parsed) == ["one", "two"]
        assert said(parsed["one"]) == [("unknown", 1.5, 3.5, "hello")]
        assert said(parsed["two"]) == [("B", 0.0, 1.0, "good day")]
        assert parsed["one"].duration_s == 9.0


def test_each_side_reads_its_text_of_a_nemo_manifest(tmp_path: Path) -> None:
    """NeMo writes what it heard beside the text that it was given: scored against itself, it is not without errors."""
    line = {"audio_filepath": "a.wav", "duration": 2.0, "text": "hello there"}
    for heard in ("hello dear", ""):
        (tmp_path / "m.jsonl").write_text(json.dumps({**line, "pred_text": heard}) + "\n")
        sides = read_sides(tmp_path / "m.jsonl", tmp_path / "m.jsonl")
        assert (sides.references["a"].text, sides.hypotheses["a"].text) == ("hello there", heard)
        told = [row for row in sides.warnings if "text and pred_text" in str(row["warning"])]
        assert {row["side"] for row in told} == {"reference", "hypothesis"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    sides = read_sides(tmp_path / "m.jsonl", tmp_path / "m.jsonl")
    assert sides.hypotheses["a"].text == "hello there"


def test_marks_without_times_join_the_words_around_them(tmp_path: Path) -> None:
    def mark(text: str) -> dict[str, Any]:
        return {"type": "punctuation", "alternatives": [{"content": text}]}

    words = [aws("A", "hola", 0.5, 1.0), aws("A", "que", 1.0, 1.5)]
    items = [mark("¡"), words[0], mark("!"), mark("¿"), words[1], mark("-"), mark("?")]
    parsed = read(tmp_path, {"results": {"transcripts": [{}], "items": items}})
    assert said(parsed) == [("A", 0.5, 1.5, "¡hola! ¿que-?")]


def test_lines_of_segments(tmp_path: Path) -> None:
    rows = [{"speaker": w, "start": a, "end": b, "text": t} for w, a, b, t in ROWS]
    (tmp_path / "call.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert said(load(tmp_path / "call.jsonl")["call"]) == ROWS


def test_every_kind_is_sampled() -> None:
    names = {kind.name for kind in map(recognise, SAMPLES.values()) if kind}
    assert {kind.name for kind in SERVICE_FORMATS} - names == {
        "Vosk",
        "YouTube json3",
        "transformers",
        "utterances",
    }


def test_youtube_events(tmp_path: Path) -> None:
    events = [
        {"tStartMs": 500, "dDurationMs": 9000, "segs": [{"utf8": "hello"}, {"utf8": " there"}]},
        {"tStartMs": 1500, "dDurationMs": 500, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 2000, "dDurationMs": 1000, "segs": [{"utf8": "good day"}]},
    ]
    parsed = read(tmp_path, {"wireMagic": "pb3", "events": events})
    assert [row[1:] for row in said(parsed)] == [(0.5, 2.0, "hello there"), (2.0, 3.0, "good day")]


EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2020-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="t2" TIME_VALUE="1500"/>
<TIME_SLOT TIME_SLOT_ID="t3" TIME_VALUE="2000"/><TIME_SLOT TIME_SLOT_ID="t4" TIME_VALUE="3000"/>
<TIME_SLOT TIME_SLOT_ID="t5"/></TIME_ORDER>
<TIER TIER_ID="one" PARTICIPANT="A" LINGUISTIC_TYPE_REF="u"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2">
<ANNOTATION_VALUE>hello there</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="B" LINGUISTIC_TYPE_REF="u"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="t3" TIME_SLOT_REF2="t4">
<ANNOTATION_VALUE>good day</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a4" TIME_SLOT_REF1="t4" TIME_SLOT_REF2="t5">
<ANNOTATION_VALUE>when</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="gloss" PARENT_REF="B" LINGUISTIC_TYPE_REF="g"><ANNOTATION>
<REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a2"><ANNOTATION_VALUE>guten Tag</ANNOTATION_VALUE>
</REF_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>
"""


_FIRST_OF_ELAN = """<TIER TIER_ID="words" PARENT_REF="late"><ANNOTATION>
<REF_ANNOTATION ANNOTATION_ID="a9" ANNOTATION_REF="a8">
<ANNOTATION_VALUE>good evening</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="late"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a8" TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2">
<ANNOTATION_VALUE>7</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER><TIER TIER_ID="one" """
"""A tier whose words refer to one that follows it."""


@pytest.mark.parametrize(
    ("old", "new", "texts", "told"),
    [
        ('TIME_UNITS="milliseconds"/>', 'TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR TIME_ORIGIN="5000"/></HEADER>',
         ["hello there", "good day"], "1 media files have a time origin of their own"),
        ('TIME_UNITS="milliseconds"/>', 'TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR TIME_ORIGIN="0"/></HEADER>',
         ["hello there", "good day"], ""),
        ("good day", "talk.002", ["hello there", "guten Tag"], "1 tiers hold numbers alone"),
        ("hello there", "1", ["1", "good day"], ""),  # nothing hangs on that tier
        ('<TIER TIER_ID="one" ', _FIRST_OF_ELAN,
         ["hello there", "good evening", "good day"], "1 tiers hold numbers alone"),
    ],
)  # fmt: skip
def test_clocks_and_numbered_tiers_of_elan(
    tmp_path: Path, old: str, new: str, texts: list[str], told: str
) -> None:
    text = EAF.replace(old, new).replace(">when<", "><")
    (tmp_path / "a.eaf").write_text(text)
    [one] = load(tmp_path / "a.eaf").values()
    assert [s.text for s in one.segments] == texts
    noticed = [w for w in one.warnings if "time origin" in w or "numbers alone" in w]
    assert [w.startswith(told) for w in noticed] == ([True] if told else [])


def test_frames_of_elan_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.eaf").write_text(EAF.replace("milliseconds", "PAL-frames"))
    with pytest.raises(FormatError, match="expected TIME_UNITS milliseconds, got 'PAL-frames'"):
        load(tmp_path / "a.eaf")


def test_elan(tmp_path: Path) -> None:
    (tmp_path / "call.eaf").write_text(EAF, encoding="utf-8")
    [parsed] = load(tmp_path).values()
    assert said(parsed) == ROWS
    assert sorted(parsed.warnings) == [
        "1 annotations have no time and were not read",
        "1 tiers hang on another one and were not read",
    ]
    for broken, message in [
        (EAF[:300], "not XML"),
        ("<html></html>", "expected an ANNOTATION_DOCUMENT"),
        (EAF.replace('REF1="t1"', 'REF1="t9"'), "names the time slot 't9'"),
        (EAF.replace('VALUE="500"', 'VALUE="soon"'), "expected a time in milliseconds"),
    ]:
        (tmp_path / "call.eaf").write_text(broken, encoding="utf-8")
        with pytest.raises(FormatError, match=message):
            load(tmp_path / "call.eaf")


def test_labels_of_audacity(tmp_path: Path) -> None:
    path = tmp_path / "call.txt"
    path.write_text("0.500000\t1.500000\tA: hello there\n\\\t100\t200\n2,0\t3.0\tB: good day\n")
    assert said(load(path)["call"]) == ROWS
    assert said(load(tmp_path)["call"]) == ROWS
    path.write_text("0.0\t1.0\tspk1\n1.0\t2.0\tspk2\n2.0\t3.0\tspk1\n3.0\t4.0\tspk2\n")
    assert [(s.speaker, s.text) for s in load(path)["call"].segments][:2] == [
        ("spk1", ""),
        ("spk2", ""),
    ]
    path.write_text("0.5\t1.5\thello there\nno label\n")
    with pytest.raises(FormatError, match=r"call\.txt:2: expected start, end and label"):
        load(path)
    path.write_text("a note: hello there\n")
    with pytest.raises(FormatError, match="cannot tell the format"):
        load(path)


def _of_channels(*channels: tuple[object, str, float, float]) -> dict[str, Any]:
    """The same two calls, one a channel, as services write them down."""
    return {
        "aws": {
            "results": {
                "transcripts": [{"transcript": ""}],
                "items": [aws("A", *rest) | {"speaker_label": None} for _, *rest in channels],
                "channel_labels": {
                    "channels": [
                        {
                            "channel_label": f"ch_{name}",
                            "items": [aws("A", *rest) | {"speaker_label": None}],
                        }
                        for name, *rest in channels
                    ]
                },
            }
        },
        "google": {
            "results": [
                {
                    "alternatives": [
                        {
                            "transcript": word,
                            "words": [{"startTime": f"{a}s", "endTime": f"{b}s", "word": word}],
                        }
                    ],
                    "channelTag": name,
                }
                for name, word, a, b in channels
            ]
        },
        "google without words": {
            "results": [
                {
                    "alternatives": [{"transcript": word}],
                    "channelTag": name,
                    "resultEndTime": f"{b}s",
                }
                for name, word, _, b in channels
            ]
        },
        "speechmatics": {
            "format": "2.9",
            "results": [
                {
                    "type": "word",
                    "channel": name,
                    "start_time": a,
                    "end_time": b,
                    "alternatives": [{"content": word, "speaker": "S1"}],
                }
                for name, word, a, b in channels
            ],
        },
        "elevenlabs": {
            "transcripts": [
                {
                    "channel_index": name,
                    "words": [{"text": word, "start": a, "end": b, "type": "word"}],
                }
                for name, word, a, b in channels
            ]
        },
    }


@pytest.mark.parametrize("name", list(_of_channels()))
def test_channels_are_people(tmp_path: Path, name: str) -> None:
    """Also where they begin at once, and the second ends before the first."""
    data = _of_channels((1, "hello", 0.5, 2.0), (2, "yes", 0.5, 1.0))[name]
    parsed = read(tmp_path, data)
    assert len(parsed.speakers) == 2
    assert sorted((s.text, s.end_s) for s in parsed.segments) == [("hello", 2.0), ("yes", 1.0)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"results": {"channels": [{"alternatives": [{"transcript": "hi"}]}]}},
            "expected words with times, got a transcript alone",
        ),
        (
            {"segments": [{"start": 1000, "end": 91_500, "text": "hi there"}]},
            "got whole numbers at which a word takes 45250 s; milliseconds",
        ),
        (
            {"language_code": "en", "words": [{"text": "hi", "start": 1000, "end": 1400}]},
            "milliseconds",
        ),
        ({"segments": [{"start": 0, "end": 1.5, "text": ["hi"]}]}, "expected the text as a string"),
        (
            {
                "results": [
                    {"alternatives": [{"transcript": "hi", "words": [{"word": "hi"}]}]},
                    {"alternatives": [{"transcript": "oh"}]},
                ]
            },
            "result 2: expected words with times, got a transcript alone",
        ),
        (
            {"monologues": [{"speaker": 0, "elements": [{"type": "text", "value": "hi"}]}]},
            "expected start in seconds",
        ),
    ],
)
def test_words_are_neither_lost_nor_stretched_in_silence(data: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_services(json.dumps(data), "call.json")


@pytest.mark.parametrize("text", [{}, {"text": ""}, {"content": "hi"}])
def test_an_empty_list_of_words_is_no_text(tmp_path: Path, text: dict[str, str]) -> None:
    parsed = read(
        tmp_path, {"segments": [{"start": 0, "end": 1.5, "speaker": "A", "words": []} | text]}
    )
    assert [(s.speaker, s.text) for s in parsed.segments] == [("A", text.get("content", ""))]


def test_turns_without_words_are_told_where_words_are_usual(tmp_path: Path) -> None:
    parsed = read(tmp_path, {"segments": [{"start": 0, "end": 1.5, "speaker": "A", "said": "hi"}]})
    assert parsed.warnings == ("1 segments hold no text and were read as turns without words",)


def test_speakers_as_tables_write_them(tmp_path: Path) -> None:
    rows = [(1.0, "one"), (float("nan"), "none"), ("", "empty")]
    segments = [
        {"start": n, "end": n + 0.5, "text": text, "speaker": speaker}
        for n, (speaker, text) in enumerate(rows)
    ]
    parsed = read(tmp_path, {"segments": segments})
    assert [s.speaker for s in parsed.segments] == ["1", "unknown", "unknown"]


def of_vosk(*words: tuple[str, float, float], **more: object) -> dict[str, Any]:
    rows = [{"word": w, "start": a, "end": b, "conf": 0.9} for w, a, b in words]
    return {"result": rows, "text": " ".join(w for w, *_ in words), **more}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("joined", [False, True])
def test_results_of_vosk(tmp_path: Path, joined: bool, indent: int | None) -> None:
    """One after the other as a program prints them, or in a list."""
    results = [of_vosk(("hi", 0.5, 1.0)), {"text": ""}, of_vosk(("oh", 3.0, 3.5), spk=[0.1])]
    text = "\n".join(json.dumps(one, indent=indent) for one in results)
    (tmp_path / "a.json").write_text(json.dumps(results) if joined else text)
    [one] = load(tmp_path / "a.json").values()
    assert said(one) == [("unknown", 0.5, 1.0, "hi"), ("unknown", 3.0, 3.5, "oh")]
    assert one.segments[0].words is not None and one.segments[0].words[0].confidence == 0.9


def test_recordings_of_funasr_by_their_keys(tmp_path: Path) -> None:
    data = [
        {"key": "one", "text": "你好。", "timestamp": [[100, 300], [300, 500]]},
        {"key": "two", "text": "well then", "timestamp": [[100, 300]]},  # no time for each word
    ]
    (tmp_path / "a.json").write_text(json.dumps(data))
    one, two = load(tmp_path / "a.json").values()
    assert (one.recording, two.recording) == ("one", "two")
    assert said(one) == [("unknown", 0.1, 0.5, "你好。")]
    assert [w.text for w in one.segments[0].words or ()] == ["你", "好。"]
    assert said(two) == [("unknown", 0.1, 0.3, "well then")] and two.segments[0].words is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"key": "a", "text": "x", "timestamp": [1, 2]}], r"a, sentence 1: expected timestamp as"),
        ([of_vosk(("hi", 0, 1)), {"text": "oh"}], "result 2: expected words with times"),
        ({"messages": [{"text": "x", "from": {"name": "A"}, "startTime": "2020-07-10", "duration": 1}]},
         "expected start in seconds, got '2020-07-10'"),
        ({"results": [{"alternatives": [{"transcript": "x", "timestamps": []}]}]},
         "result 1: expected words with times"),
        ({"results": [{"alternatives": [{"timestamps": [["x", 1]]}]}]}, r"expected \[word, start, end\]"),
    ],
)  # fmt: skip
def test_what_programs_leave_out_is_said(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(tmp_path, data)


def test_changes_that_tinydiarize_marks_are_no_words(tmp_path: Path) -> None:
    texts = [" hi [SPEAKER_TURN]", " oh", " well [SPEAKER_TURN]"]
    rows = [
        {"offsets": {"from": 1000 * n, "to": 1000 * n + 900}, "text": text}
        for n, text in enumerate(texts)
    ]
    one = read(tmp_path, {"transcription": rows})
    assert [(s.speaker, s.text) for s in one.segments] == [
        ("unknown", t) for t in ("hi", "oh", "well")
    ]
    assert any(text.startswith("1 times a mark ('>>', [SPEAKER_TURN])") for text in one.warnings)


def test_manifests_of_recordings_with_one_name_in_two_folders(tmp_path: Path) -> None:
    lines = [
        {"audio_filepath": f"/d/{folder}/a.wav", "duration": 1, "text": folder, "speaker": "A"}
        for folder in ("x", "y", "x")
    ]
    lines[2]["offset"] = 2
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, lines)))
    sessions = load(tmp_path / "a.json")
    assert {name: [s.text for s in one.segments] for name, one in sessions.items()} == {
        "x-a": ["x", "x"],
        "y-a": ["y"],
    }


@pytest.mark.parametrize(
    ("start", "end", "refused"),
    [(500.0, 1500.0, True), (500, 1500, True), (500.5, 1500.0, False), (5.0, 15.0, False)],
)
def test_milliseconds_as_whole_numbers_of_any_kind(
    tmp_path: Path, start: float, end: float, refused: bool
) -> None:
    data = {"segments": [{"start": start, "end": end, "text": "hello there you", "speaker": "A"}]}
    if refused:
        with pytest.raises(FormatError, match="milliseconds"):
            read(tmp_path, data)
    else:
        assert read(tmp_path, data).segments[0].start_s == start


def test_changes_of_the_speaker_in_others_json_are_told(tmp_path: Path) -> None:
    rows = [
        {"start": 0.5, "end": 1.5, "text": " >> hello there. >> hi"},
        {"start": 2.5, "end": 3.5, "text": "a >> b", "speaker": "A"},
    ]
    one = read(tmp_path, {"segments": rows})
    assert any(text.startswith("2 times a mark ('>>'") for text in one.warnings)
    events = [{"tStartMs": 500, "dDurationMs": 900, "segs": [{"utf8": ">> hello"}]}]
    one = read(tmp_path, {"events": events})
    assert any(text.startswith("1 times a mark ('>>'") for text in one.warnings)


def test_names_that_pyannoteai_knew(tmp_path: Path) -> None:
    turn = {"speaker": "Ana", "diarizationSpeaker": "SPEAKER_00", "start": 0.5, "end": 1.5}
    output = {"diarization": [{**turn, "speaker": "SPEAKER_00"}], "identification": [turn]}
    assert read(tmp_path, {"output": output}).speakers == ("Ana",)


def test_a_batch_of_several_recordings_of_google_is_refused(tmp_path: Path) -> None:
    part = {"transcript": {"results": []}}
    with pytest.raises(FormatError, match="expected one recording, got 2"):
        read(tmp_path, {"results": {"gs://a.wav": part, "gs://b.wav": part}})


def test_words_beside_the_segments_are_theirs(tmp_path: Path) -> None:
    """As OpenAI's `verbose_json` has both."""
    rows = [{"start": a, "end": b, "text": f" {t.title()}.", "speaker": w} for w, a, b, t in ROWS]
    words = [{"word": word.title(), "start": a, "end": b} for _, word, a, b in WORDS]
    one = read(tmp_path, {"task": "transcribe", "segments": rows, "words": words})
    timed = [[(w.text, w.start_s, w.end_s) for w in s.words or ()] for s in one.segments]
    expected = [(word.title(), a, b) for _, word, a, b in WORDS]
    assert timed == [expected[:2], expected[2:]] and one.warnings == ()
    for broken in (
        [{"word": "x", "start": None, "end": 1}],
        words[:1],
        [{**w, "word": "z"} for w in words],
    ):
        one = read(tmp_path, {"segments": rows, "words": broken})
        assert [s.text for s in one.segments] == ["Hello There.", "Good Day."]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_keys_with_ends_of_lines_leave_messages_on_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps({"mono\nlogues": [], "id": 1}))
    with pytest.raises(FormatError) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value) and "mono logues" in str(caught.value)

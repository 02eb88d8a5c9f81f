"""Table of all systems: requirements, abilities and loader of each."""

import difflib
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import SettingsError
from .base import System, SystemOptions

HERE, SERVICE, ENGINE, PUBLISHED = "here", "service", "engine", "published"


@dataclass(frozen=True, slots=True)
class SystemEntry:
    """A system.

    Attributes:
        title: a description in a few words.
        runs: `here` on this machine, `service` elsewhere over a network, `engine` by the dialogue of this package,
            or `published`: only figures that others published are known.
        module: of this package, whose `load` loads it, or another function of it (`module:function`); empty where
            nothing does.
        extra: of this package, with the libraries that it needs; empty if none.
        key_env: the environment variable that holds its key; empty if none.
        licence: of its weights or service, as far as it was looked up.
        limit_s: longest recording that it takes at once, in seconds; `None` if none is known.
        speakers: whether it names speakers.
        words: whether it gives words.
        languages: whether it takes the spoken language.
        served: whether it needs a server, which the user names.
        at_once: recordings under way at once, if the user says nothing.
        note: further remarks.
    """

    title: str
    runs: str
    module: str = ""
    extra: str = ""
    key_env: str = ""
    licence: str = ""
    limit_s: float | None = None
    speakers: bool = True
    words: bool = True
    languages: bool = True
    served: bool = False
    at_once: int = 1
    note: str = ""


SYSTEMS: Mapping[str, SystemEntry] = {
    "speaker-reasoner": SystemEntry(
        "this package: the dialogue with --model, the cascade if it is not given",
        ENGINE,
        licence="Apache-2.0; that of the checkpoint",
    ),
    "cascade": SystemEntry(
        "this package's cascade of a recogniser and a diarizer",
        ENGINE,
        licence="Apache-2.0; weights MIT and Apache-2.0",
    ),
    "faster-whisper": SystemEntry(
        "faster-whisper alone: words and times of a Whisper (--model large-v3-turbo), no speakers",
        HERE,
        "faster_whisper",
        "whisper",
        licence="MIT",
        speakers=False,
    ),
    "local-diarizer": SystemEntry(
        "the cascade's diarizer alone: segmentation-3.0 and CAM++",
        HERE,
        "local_diarizer",
        "whisper",
        licence="MIT; CAM++ Apache-2.0",
        limit_s=600.0,
        words=False,
        languages=False,
    ),
    "pyannote": SystemEntry(
        "a pipeline of pyannote.audio alone (--model pyannote/speaker-diarization-3.1)",
        HERE,
        "pyannote",
        "pyannote",
        licence="MIT; its authors want their conditions accepted",
        words=False,
        languages=False,
        note="HF_TOKEN",
    ),
    "pyannote+paraformer": SystemEntry(
        "the paper's cascade: pyannote 3.1, and Paraformer on each turn",
        HERE,
        "pyannote_paraformer",
        licence="MIT; models as their cards say",
        languages=False,
        note="pyannote.audio and funasr, in an environment of their own (--system-python); HF_TOKEN",
    ),
    "whisperx": SystemEntry(
        "WhisperX: a Whisper (--model), alignment, pyannote community-1",
        HERE,
        "whisperx",
        licence="BSD-2-Clause; models as their cards say",
        note="whisperx, in an environment of its own (--system-python); HF_TOKEN",
    ),
    "openai": SystemEntry(
        "OpenAI's gpt-4o-transcribe-diarize, or a server with its API (--base-url)",
        SERVICE,
        "openai_diarize",
        "openai",
        "OPENAI_API_KEY",
        limit_s=1200.0,
        at_once=8,
        note="it ends on 2027-02-26; 1400 s and 25 MB at once; no model name in its answers",
    ),
    "assemblyai": SystemEntry(
        "AssemblyAI with speaker labels",
        SERVICE,
        "assemblyai",
        "assemblyai",
        "ASSEMBLYAI_API_KEY",
        limit_s=36_000.0,
        at_once=8,
    ),
    "elevenlabs": SystemEntry(
        "ElevenLabs Scribe v2",
        SERVICE,
        "elevenlabs",
        "elevenlabs",
        "ELEVENLABS_API_KEY",
        limit_s=36_000.0,
        at_once=8,
    ),
    "deepgram": SystemEntry(
        "Deepgram Nova-3",
        SERVICE,
        "deepgram",
        "deepgram",
        "DEEPGRAM_API_KEY",
        at_once=8,
        note="files of up to 2 GB",
    ),
    "deepgram-live": SystemEntry(
        "Deepgram Nova-3 as a stream, in real time",
        SERVICE,
        "deepgram:load_live",
        "deepgram",
        "DEEPGRAM_API_KEY",
        at_once=8,
        note="an answer takes as long as the recording",
    ),
    "qwen3-omni": SystemEntry(
        "Qwen3-Omni-30B-A3B-Instruct without training for the task, behind a server (--base-url)",
        HERE,
        "qwen3_omni",
        licence="Apache-2.0",
        limit_s=600.0,
        served=True,
        at_once=8,
        note="its prompt is ours; the paper does not print its own",
    ),
    "qwen2.5-omni": SystemEntry(
        "Qwen2.5-Omni-7B without training for the task, behind a server (--base-url)",
        HERE,
        "qwen25_omni",
        limit_s=600.0,
        served=True,
        at_once=8,
        note="its prompt is ours; the paper does not print its own",
    ),
    "gemini": SystemEntry(
        "Gemini 3.5 Transcribe, or another model of Gemini with a prompt (--model)",
        SERVICE,
        "gemini",
        "gemini",
        "GEMINI_API_KEY",
        limit_s=1800.0,
        at_once=8,
        note="8 speakers at most; with a prompt, ours, as the paper does not print its own",
    ),
    "vibevoice": SystemEntry(
        "VibeVoice-ASR by transformers, or behind a server (--base-url)",
        HERE,
        "vibevoice",
        licence="MIT",
        limit_s=3600.0,
    ),
    "moss": SystemEntry(
        "MOSS-Transcribe-Diarize by transformers, or behind vLLM (--base-url)",
        HERE,
        "moss",
        licence="Apache-2.0",
        limit_s=5400.0,
    ),
    "soulx-transcriber": SystemEntry(
        "SoulX-Transcriber behind a server (--base-url)",
        HERE,
        "soulx_transcriber",
        licence="Apache-2.0",
        limit_s=300.0,
        served=True,
        at_once=8,
        note="its prompt is in our words",
    ),
    "tagspeech": SystemEntry(
        "TagSpeech in an environment of its own (--system-python), from a clone of Auden (TAGSPEECH_HOME)",
        HERE,
        "tagspeech",
        licence="Apache-2.0",
        limit_s=60.0,
        note="made for groups of utterances that overlap",
    ),
    "speakerlm": SystemEntry(
        "SpeakerLM", PUBLISHED, note="neither code nor weights were published"
    ),
    "gemini-2.5-pro": SystemEntry(
        "Gemini 2.5 Pro", PUBLISHED, note="it ends on 2026-12-01; then another model answers"
    ),
}


def find(name: str) -> SystemEntry:
    """The entry of a system that can be run.

    Raises:
        SettingsError: there is none of that name (the message lists all), or only its figures are known.
    """
    entry = SYSTEMS.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, SYSTEMS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise SettingsError(f"--system {name}{hint}: expected one of {', '.join(sorted(SYSTEMS))}")
    if entry.runs == PUBLISHED:
        raise SettingsError(
            f"--system {name}: cannot be run, only published figures are known ({entry.note}); `evaluate table` "
            "has them"
        )
    return entry


def key_of(name: str, variable: str | None = None) -> str | None:
    """The key of a service, from the environment alone.

    Args:
        variable: that holds it, in place of the usual one.

    Raises:
        SettingsError: it is not set.
    """
    variable = variable or find(name).key_env
    if not variable:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise SettingsError(
            f"the system {name} needs a key: set the environment variable {variable}, or name another by "
            "--api-key-env"
        )
    return key


def load(name: str, options: SystemOptions) -> System:
    """Load a system.

    Raises:
        SettingsError: there is none of that name; it runs nowhere, or by an engine; an option does not fit.
        ExtraError: its library is not installed.
        CheckpointError: its model cannot be used.
    """
    entry = find(name)
    if entry.runs == ENGINE:
        raise SettingsError(f"--system {name}: runs by an engine of this package")
    name_of, _, function = entry.module.partition(":")
    module = importlib.import_module(f".{name_of}", __package__)
    system: System = getattr(module, function or "load")(options)
    return system

"""Speaker-Reasoner: who said what, and when.

    from speaker_reasoner import transcribe
    for segment in transcribe("meeting.wav").segments:
        print(segment.speaker, segment.gender, segment.start_s, segment.end_s, segment.text)

`Transcriber` does the same for many recordings with one loaded engine.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SettingsError, SpeakerReasonerError
from .transcript import Confidence, Missing, Segment, Transcript
from .version import __version__

if TYPE_CHECKING:
    from .engines.base import Engine
    from .longform import Transcriber

__all__ = [
    "Confidence",
    "Missing",
    "Segment",
    "SpeakerReasonerError",
    "Transcriber",
    "Transcript",
    "__version__",
    "load_engine",
    "transcribe",
]


def load_engine(
    model: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    cuda_graphs: bool | None = None,
    experts: str | None = None,
    compile: str | None = None,
    deterministic: bool | None = None,
    processes: int | None = None,
    prompts: str | Path | None = None,
    language: str | None = None,
    hotwords: str | None = None,
    recogniser: str | None = None,
    diarizer: str | None = None,
    engine: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    constraint: str = "auto",
    send_audio: str = "auto",
    timeout_s: float = 600.0,
    retries: int = 5,
) -> "Engine":
    """Load an engine.

    Args:
        model: `cascade` for real speech (Whisper base and a diarizer, whose weights are a package of their
            own), `cascade=WHISPER` with another Whisper (a size such as `large-v3-turbo`, a folder, a hub
            id); `tiny` for the embedded dialogue checkpoint; or folder or hub id of a Qwen3-Omni or
            Qwen2.5-Omni thinker, or of a LoRA adapter. `None` is `cascade` where its weights are
            installed, else `tiny`.
        device: `cpu`, `cuda`, `mps`, ...; the best one present if `None`.
        dtype: `float32`, `bfloat16` or `float16`; fitting the device if `None`.
        cuda_graphs: decode by captured steps, on an NVIDIA GPU (`engines.placed`).
        experts: `kernel`, `library` (transformers) or `auto` (the default): what computes routed experts.
        compile: `never`, `always` or `auto` (the default): compile the layers for steps of decoding.
        deterministic: what is written does not depend on the others of a batch in any bit, at the price of batches.
        processes: that share the dialogues of a batch, on a CPU (`engines.processes`); 1 if `None`.
        prompts: the prompt file published with a released checkpoint.
        language: ISO 639-1 code of the spoken language, for the cascade; recognised if `None`.
        hotwords: names and terms that are likely to be said, for the cascade.
        recogniser: of the cascade: `whisper[=MODEL]`, `paraformer[=MODEL]`, `sensevoice[=MODEL]` or
            `parakeet[=MODEL]`.
        diarizer: of the cascade: `local` or `pyannote[=MODEL]`.
        engine: `openai` for a model behind the chat-completions API of a server, by its name there; `vllm` for
            a checkpoint in vLLM in this process; `None` for one that transformers runs here.
        base_url: of that API, as `http://localhost:8000/v1`.
        api_key: that the server expects.
        constraint: `auto`, `regex` or `none`: how the rules of a turn are sent to the server.
        send_audio: `once` where the server keeps clips under their ids, `always`, or `auto`.
        timeout_s: longest time for one turn.
        retries: how often a request that fails is tried again.

    Raises:
        CheckpointError, ProtocolError: the model or the prompt file cannot be used.
        EngineError: the server cannot be asked.
        SettingsError: an option does not fit the model.
    """
    steps = {
        "cuda_graphs": cuda_graphs,
        "experts": experts,
        "compile": compile,
        "deterministic": deterministic,
        "processes": processes,
    }
    if engine == "vllm" and base_url is None:
        from .engines.vllm import load_vllm

        _refuse(
            "vLLM",
            device=device,
            **steps,
            hotwords=hotwords,
            recogniser=recogniser,
            diarizer=diarizer,
        )
        here = load_vllm(
            None if model == "tiny" else model,
            dtype=dtype,
            prompts=Path(prompts) if prompts else None,
        )
        _check_language(language, here.profile.language)
        return here
    if engine is not None or base_url is not None:
        from .engines.client import Address
        from .engines.connecting import connect

        if engine != "openai" or base_url is None or model is None:
            raise SettingsError(
                f"engine {engine!r}, address {base_url!r}, model {model!r}: expected --engine openai with "
                "--base-url URL and --model NAME"
            )
        _refuse(
            "a model on a server",
            device=device,
            dtype=dtype,
            **steps,
            hotwords=hotwords,
            recogniser=recogniser,
            diarizer=diarizer,
        )
        remote = connect(
            Address(base_url, api_key, timeout_s, retries),
            str(model),
            prompts=Path(prompts) if prompts else None,
            constraint=constraint,
            send_audio=send_audio,
        )
        _check_language(language, remote.profile.language)
        return remote
    if is_cascade(model, prompts, recogniser, diarizer):
        from .engines.cascade.loading import load_cascade

        _refuse("the cascade", dtype=dtype, **steps, prompts=prompts)
        _, given, whisper = str(model or "").partition("=")
        if given and not whisper:
            raise SettingsError(
                f"--model {model}: expected a Whisper behind =, as large-v3-turbo, a folder or a hub id; "
                "for the one that comes with the cascade say --model cascade"
            )
        return load_cascade(
            whisper,
            recogniser=recogniser,
            diarizer=diarizer,
            language=language,
            hotwords=hotwords,
            device=device,
        )
    from .engines.checkpoint import load_checkpoint
    from .engines.local import TransformersEngine

    _refuse("this model", hotwords=hotwords, recogniser=recogniser, diarizer=diarizer)
    checkpoint = load_checkpoint(
        None if model == "tiny" else model,
        device=device,
        dtype=dtype,
        prompts=Path(prompts) if prompts else None,
        cuda_graphs=bool(cuda_graphs),
    )
    _check_language(language, checkpoint.profile.language)
    local = TransformersEngine(
        checkpoint,
        cuda_graphs=bool(cuda_graphs),
        experts=experts or "auto",
        compile=compile or "auto",
        deterministic=bool(deterministic),
    )
    if processes in (None, 1):
        return local
    from .engines.processes import EngineProcesses

    same = {
        "model": model,
        "device": "cpu",
        "dtype": dtype,
        **steps,
        "processes": None,
        "prompts": prompts,
    }
    return EngineProcesses(local, same, processes)


def is_cascade(
    model: str | Path | None,
    prompts: str | Path | None = None,
    recogniser: str | None = None,
    diarizer: str | None = None,
) -> bool:
    """Return whether `load_engine` would load the cascade."""
    if model is None and prompts is None and (recogniser or diarizer):
        return True
    if model is None and prompts is None:
        from .engines.cascade.loading import installed

        return installed()
    return str(model).partition("=")[0] == "cascade"


def _check_language(language: str | None, known: str) -> None:
    if language is not None and language.lower().split("-")[0] != known:
        raise SettingsError(
            f"--language {language}: this model has one language, {known!r}; leave it out, or choose "
            "a model of that language"
        )


def _refuse(model: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            shown = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise SettingsError(f"{shown}: {model} has no use of it; leave it out")


def transcribe(
    path: str | os.PathLike[str],
    *,
    model: str | Path | None = None,
    answer: str = "assembled",
    channel: int | None = None,
    channels: str = "mix",
) -> Transcript:
    """Transcribe one recording: speaker, gender, start, end and text of every segment.

    Args:
        path: wav, flac, mp3, ogg, m4a, mp4, webm or another format that FFmpeg reads.
        model: as for `load_engine`.
        answer: `assembled` from the turns, or `model`: written once more, as published.
        channel: 0-based channel to listen to; all are mixed down if `None`.
        channels: `mix`, or `separate`: one speaker a channel, each transcribed by itself.

    Raises:
        SpeakerReasonerError: the recording or the model cannot be used.
    """
    from .longform import Transcriber

    transcriber = Transcriber(
        load_engine(model), answer=answer, channel=channel, channels=channels, batch=4
    )
    return transcriber.transcribe(Path(path))


def __getattr__(name: str) -> object:
    if name == "Transcriber":
        from .longform import Transcriber

        return Transcriber
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

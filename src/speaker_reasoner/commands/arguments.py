"""Values that several commands take, and the options of all commands that transcribe."""

import argparse
import logging
import math
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import OutputError

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..longform import Options

_MOST_SPEAKERS = 99


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def lengths(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split("-"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected seconds as 40-50, got {text!r}") from None
    if not 0 < low < high:
        raise argparse.ArgumentTypeError(f"expected 0 < shortest < longest, got {text!r}")
    return low, high


def check_new(folder: Path) -> None:
    """Check that a folder to be written is not there, or is empty.

    Raises:
        OutputError: it is there, or a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already; choose a new folder for -o")


def shares(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected shares as 0.3,0.7, got {text!r}") from None
    if not all(0 < share < math.inf for share in numbers):
        raise argparse.ArgumentTypeError(f"expected shares above 0, got {text!r}")
    return numbers


def speaker_range(text: str) -> tuple[int, int]:
    """`3` or `2-5`: fewest and most speakers."""
    low, _, high = text.partition("-")
    if not low.isdigit() or not (high or low).isdigit() or not 1 <= int(low) <= int(high or low):
        raise argparse.ArgumentTypeError(f"expected how many speakers, as 3 or 2-5, got {text!r}")
    return int(low), int(high or low)


def add_model(command: argparse.ArgumentParser) -> None:
    """Add the options that choose a checkpoint and the device or server that runs it."""
    add = command.add_argument_group("model").add_argument
    add(
        "--model",
        metavar="NAME",
        help="cascade (real speech), cascade=WHISPER (a size such as large-v3-turbo, a folder, a hub "
        "id), tiny (the embedded checkpoint), or folder or hub id of a checkpoint. default: cascade "
        "where its weights are installed, else tiny",
    )
    add("--prompts", metavar="FILE", type=Path, help="prompt file of a released checkpoint")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    add(
        "--recogniser",
        metavar="NAME",
        help="of the cascade: whisper (default), paraformer, sensevoice or parakeet, with a model "
        "perhaps (whisper=large-v3-turbo)",
    )
    add(
        "--diarizer",
        metavar="NAME",
        help="of the cascade: local (default), pyannote or pyannote=MODEL",
    )
    add("--hotwords", metavar="TEXT", help="names and terms that are likely to be said (cascade)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: fitting the device")
    add(
        "--cuda-graphs",
        action="store_true",
        default=None,
        help="on an NVIDIA GPU: capture the steps of decoding once and replay them (new: equal to other steps in "
        "tests on a CPU, not measured on a GPU yet)",
    )
    add(
        "--experts",
        choices=("auto", "kernel", "library"),
        help="of a mixture, for few tokens: by a kernel in Triton, or by transformers (default: auto, the kernel on an "
        "NVIDIA GPU where it works)",
    )
    add(
        "--compile",
        choices=("auto", "never", "always"),
        help="compile the model's layers for steps of decoding (default: auto, with --cuda-graphs after many steps)",
    )
    add(
        "--deterministic",
        action="store_true",
        default=None,
        help="read each dialogue apart, so that no bit of a result depends on what else shares the batch; slower",
    )
    add(
        "--processes",
        type=positive,
        metavar="N",
        help="on a CPU, for a small checkpoint and a --batch above 1: share the dialogues out among so many processes "
        "(default: 1)",
    )
    _add_server(command)


def _add_server(command: argparse.ArgumentParser) -> None:
    """A model on another machine."""
    add = command.add_argument_group("model on a server").add_argument
    add(
        "--engine",
        choices=("openai", "vllm"),
        help="openai: --model is the name of a model at --base-url, a server of the chat-completions API "
        "that takes audio (vLLM, SGLang, speaker-reasoner serve --engine-api); vllm: a checkpoint in vLLM in "
        "this process (extra vllm). default: in this process, by transformers",
    )
    add("--base-url", metavar="URL", help="of the API, as http://localhost:8000/v1")
    add("--api-key-env", metavar="VAR", help="the environment variable that holds the server's key")
    add(
        "--constraint",
        choices=("auto", "regex", "none"),
        help="send the rules of a turn as a regular expression (regex), or none, so that turns that "
        "are wrong are asked for again (default: auto, as the server can)",
    )
    add(
        "--send-audio",
        choices=("auto", "once", "always"),
        help="each clip once, where the server keeps it under its id, or with every turn (default: auto, "
        "by the kind of server)",
    )
    add(
        "--timeout",
        metavar="S",
        type=positive,
        help="longest time for one turn (default: 600)",
    )
    add(
        "--retries",
        metavar="N",
        type=_retries,
        help="how often a request that fails is tried again (default: 5)",
    )


def _retries(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _api_key(arguments: argparse.Namespace) -> str | None:
    """The key in the variable that was named; one without a key is wrong usage."""
    name = arguments.api_key_env
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        usage(arguments, f"--api-key-env {name}: this environment variable is not set, or empty")
    return key


_STORE = "everybody in a voice store (see: speaker-reasoner voices)"


def add_options(
    command: argparse.ArgumentParser,
    *,
    batch: int,
    language: bool = True,
    store: str = _STORE,
) -> None:
    """Add the options of transcription, the same for every command; `options` reads them.

    Args:
        batch: the default of `--batch`.
        language: whether to add `--language`. A command that has its own `--language` passes False; its value is then
            given to models that accept a language, and others ignore it.
        store: help text of `--voices`.
    """
    command.set_defaults(language_is_hint=not language)
    add = command.add_argument_group("dialogue").add_argument
    add(
        "--answer",
        choices=("assembled", "model"),
        default="assembled",
        help="put the transcript together from the turns, or let the model write it once more (as "
        "published; slower). default: assembled",
    )
    add(
        "--batch",
        "--batch-size",
        metavar="N",
        type=positive,
        default=batch,
        help=f"dialogues at once (default: {batch})",
    )
    add(
        "--cache",
        action=argparse.BooleanOptionalAction,
        help="let the model hear people again before each chunk, one chunk after the other "
        "(default: as its profile says)",
    )
    if language:
        add(
            "--language",
            metavar="CODE",
            help="spoken: en, English, zh-Hant, ... (default: recognised)",
        )
    _add_people(command, store)
    add = command.add_argument_group("audio").add_argument
    add("--channel", metavar="N", type=_number, help="listen to one, from 0 (default: their mix)")
    add(
        "--track",
        metavar="N",
        type=_number,
        help="sound track of a video, from 0 (default: the one it marks as default)",
    )
    add(
        "--channels",
        choices=("mix", "separate"),
        default="mix",
        help="separate: one speaker a channel, as in a telephone call; each is transcribed by "
        "itself (default: mix)",
    )
    add(
        "--vad",
        choices=("auto", "energy", "silero"),
        default="auto",
        help="speech detector, for cuts and coverage; silero takes the extra vad and knows music "
        "from speech (default: auto, what fits the model)",
    )


def _add_people(command: argparse.ArgumentParser, store: str) -> None:
    add = command.add_argument_group("speakers").add_argument
    add("--speakers", metavar="N|N-M", type=speaker_range, help="how many people speak: 3, or 2-5")
    add("--num-speakers", metavar="N", type=positive, help="the same as --speakers N")
    add("--min-speakers", metavar="N", type=positive, help="the fewest of a range")
    add("--max-speakers", metavar="N", type=positive, help="the most of a range")
    add(
        "--voice",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="a clip of somebody's voice, of 2 s or more: their lines carry the name. May be given "
        "several times, also for one person",
    )
    add("--voices", metavar="DIR", type=Path, help=store)
    add(
        "--witness",
        metavar="NAME",
        default="auto",
        help="speaker embedding model: tower (of the model itself), campplus (of the cascade) or resemblyzer "
        "(for real voices), xvector[=MODEL], speechbrain[=MODEL], or none (default: auto, what fits the model)",
    )


def _number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def options(arguments: argparse.Namespace) -> "Options":
    """Read the options that `add_options` added; contradictions are wrong usage."""
    from ..longform import Options

    bounds = speakers(arguments)
    if arguments.channels == "separate" and arguments.channel is not None:
        usage(arguments, "give --channel N, or --channels separate")
    if arguments.channels == "separate" and bounds is not None:
        usage(
            arguments, "with --channels separate each channel is one speaker: leave out --speakers"
        )
    return Options(
        answer=arguments.answer,
        batch=arguments.batch,
        channel=arguments.channel,
        channels=arguments.channels,
        track=arguments.track,
        vad=arguments.vad,
        cache=arguments.cache,
        witness=arguments.witness,
        speakers=bounds,
        voice=tuple(arguments.voice),
        voices=arguments.voices,
    )


def speakers(arguments: argparse.Namespace) -> tuple[int, int] | None:
    """Return the range of speakers, from whichever options give it."""
    exact, low, high = arguments.num_speakers, arguments.min_speakers, arguments.max_speakers
    said = [arguments.speakers is not None, exact is not None, not (low is high is None)]
    if sum(said) > 1:
        usage(arguments, "give --speakers, --num-speakers, or --min-speakers and --max-speakers")
    if arguments.speakers is not None:
        given: tuple[int, int] = arguments.speakers
        return given
    if exact is not None:
        return exact, exact
    if low is high is None:
        return None
    fewest, most = low or 1, high or max(low or 1, _MOST_SPEAKERS)
    if fewest > most:
        usage(arguments, f"--min-speakers {fewest} is more than --max-speakers {most}")
    return fewest, most


def usage(arguments: argparse.Namespace, message: str) -> NoReturn:
    """End as argparse does on wrong usage."""
    arguments.parser.error(message)
    raise AssertionError


def load_quietly(arguments: argparse.Namespace, *, quiet: bool = False) -> "Engine":
    """Load the engine; output of its libraries is hidden, except the progress of downloads.

    Raises:
        SettingsError: an option does not fit the model.
    """
    downloads = sys.stderr.isatty() and not quiet
    return load_silently(engine_options(arguments), downloads=downloads, quiet=quiet)


class _Notices(logging.Handler):
    """Prints what an engine says, one line each, to what is standard error then."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def load_silently(
    chosen: dict[str, Any], *, downloads: bool = False, quiet: bool = False
) -> "Engine":
    """Load the engine of `engine_options`, here or in another process.

    Args:
        downloads: whether the progress of downloads is shown.
        quiet: whether of what the engine says warnings alone are printed, not what it begins that takes long.
    """
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging as of_library

    from .. import load_engine

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    of_library.set_verbosity_error()
    of_library.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    said = logging.getLogger("speaker_reasoner.engines")
    said.setLevel(logging.WARNING if quiet else logging.INFO)
    if not any(isinstance(one, _Notices) for one in said.handlers):
        said.addHandler(_Notices())
    return load_engine(**chosen)


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load_engine` that `add_model` took; contradictions are wrong usage."""
    from .. import is_cascade

    language = arguments.language
    remote = arguments.engine == "openai"
    of_server = {
        "--base-url": arguments.base_url,
        "--api-key-env": arguments.api_key_env,
        "--constraint": arguments.constraint,
        "--send-audio": arguments.send_audio,
        "--timeout": arguments.timeout,
        "--retries": arguments.retries,
    }
    needless = [name for name, value in of_server.items() if value is not None]
    if needless and not remote:
        needs = "needs" if len(needless) == 1 else "need"
        usage(arguments, f"{' and '.join(needless)} {needs} --engine openai")
    if remote and not (arguments.base_url and arguments.model):
        usage(arguments, f"--engine {arguments.engine} needs --base-url URL and --model NAME")
    parts = {"recogniser": arguments.recogniser, "diarizer": arguments.diarizer}
    cascade = arguments.engine is None and is_cascade(arguments.model, arguments.prompts, **parts)
    if arguments.language_is_hint and not cascade:
        language = None
    return {
        "model": arguments.model,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "cuda_graphs": arguments.cuda_graphs,
        "experts": arguments.experts,
        "compile": arguments.compile,
        "deterministic": arguments.deterministic,
        "processes": arguments.processes,
        "prompts": arguments.prompts,
        "language": language,
        "hotwords": arguments.hotwords,
        **parts,
        **(_elsewhere(arguments) if arguments.engine else {}),
    }


def _elsewhere(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `load_engine` for a model on a server, or in vLLM."""
    options = {
        "engine": arguments.engine,
        "base_url": arguments.base_url,
        "api_key": _api_key(arguments),
        "constraint": arguments.constraint,
        "send_audio": arguments.send_audio,
        "timeout_s": arguments.timeout,
        "retries": arguments.retries,
    }
    return {name: value for name, value in options.items() if value is not None}

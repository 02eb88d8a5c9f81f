"""`speaker-reasoner serve`: OpenAI's API, jobs, and the page, in one process or in several."""

import argparse
import gc
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import ServerError
from ..extras import require
from .arguments import add_model, add_options, load_quietly, options, positive, usage

if TYPE_CHECKING:
    from ..server.keeper import Rules
    from ..server.service import Service

_GRACE_S = 30
_MOST_HOURS = 18
"""Longest recording: a wav file of float samples holds 4 GiB, 18.6 hours at 16 kHz."""
_KEY = "SPEAKER_REASONER_API_KEY"
_LIBRARIES = (
    "fastapi",
    "uvicorn",
    "websockets",
    "python_multipart",
    "sqlalchemy",
    "prometheus_client",
)
_EXAMPLES = """examples:
  speaker-reasoner serve
  speaker-reasoner serve --model DIR --batch 32 --store /data/transcripts
  speaker-reasoner serve --host 0.0.0.0 --api-key KEY --database postgresql+psycopg://HOST/NAME

several servers over one database and one bucket (docs/servers.md):
  speaker-reasoner serve --no-engine --host 0.0.0.0 --api-key KEY --database URL --store s3://BUCKET/PREFIX
  speaker-reasoner serve --worker --port 8001 --model DIR --database URL --store s3://BUCKET/PREFIX
"""


def add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "serve",
        help="an API that OpenAI's clients know, and a page to see, hear and correct",
        description="Serve one model over HTTP. Ctrl+C stops it: requests are finished, jobs go on "
        "at the next start.\n--speakers and --voice apply to recordings whose clients give no hints of "
        "their own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(command)
    add_options(
        command,
        batch=16,
        store="a voice store (see: speaker-reasoner voices): clients see its names, and choose who may "
        "be in a recording (default: none)",
    )
    add = command.add_argument_group("network").add_argument
    add("--host", metavar="NAME", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    add("--port", metavar="N", type=_port, default=8000, help="0 takes a free one (default: 8000)")
    add(
        "--api-key",
        metavar="KEY",
        action="append",
        default=[],
        help=f"that requests must carry; else the environment's {_KEY}. Needed beyond loopback. May be given "
        "several times, one for each client: clients take turns in the queue (else their addresses do)",
    )
    add(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="another site whose pages may use the server, such as https://example.org; may be given "
        "several times (default: none)",
    )
    add(
        "--model-alias",
        metavar="NAME[=MODEL]",
        action="append",
        default=[],
        help="another name that clients may call the model by, such as whisper-1; may be given several "
        "times (default: none)",
    )
    add(
        "--root-path",
        metavar="PATH",
        type=_root_path,
        default="/",
        help="under which a proxy shows the server, such as /transcripts (default: /)",
    )
    add = command.add_argument_group("store").add_argument
    add(
        "--store",
        metavar="DIR|URL",
        help="jobs, with their audio, and uploads; with PostgreSQL also a folder that all servers see, or a "
        "place in a bucket, as s3://bucket/prefix (default: where the system keeps a user's data)",
    )
    add("--database", metavar="URL", help="of SQLAlchemy (default: a SQLite file in the store)")
    add(
        "--scratch",
        metavar="DIR",
        type=Path,
        help="on this machine, for uploads and copies of what lies in a bucket (default: where the system "
        "keeps a user's caches)",
    )
    add(
        "--keep",
        metavar="AGE",
        type=_age,
        help="erase recordings so long after their last change, and empty the bin of removed ones as "
        "late, such as 30d, 12h (default: recordings are kept, and removed ones for 30d)",
    )
    add = command.add_argument_group("several servers").add_argument
    only = command.add_mutually_exclusive_group()
    only.add_argument(
        "--worker",
        action="store_true",
        help="do jobs that other servers of the same database take in; nothing is served but /health and "
        "/metrics",
    )
    only.add_argument(
        "--no-engine",
        action="store_true",
        help="load no model: recordings are taken in, and workers transcribe them",
    )
    add(
        "--lease",
        metavar="S",
        type=_lease,
        default=60.0,
        help="how long a server that died, or hangs, keeps its jobs (default: 60)",
    )
    add = command.add_argument_group("limits").add_argument
    add(
        "--queue",
        metavar="N",
        type=positive,
        default=256,
        help="of a client may wait; more get 429 (default: 256)",
    )
    add(
        "--live", metavar="N", type=positive, default=32, help="live sessions at once (default: 32)"
    )
    add("--max-mb", metavar="N", type=positive, default=1024, help="of an upload (default: 1024)")
    add(
        "--max-duration",
        metavar="HOURS",
        type=_hours,
        default=6.0,
        help=f"of a recording, decoded (default: 6; at most {_MOST_HOURS})",
    )
    add(
        "--allow-folder",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="jobs may name files in it; may be given several times (default: none)",
    )
    command.add_argument_group("other clients").add_argument(
        "--engine-api",
        action="store_true",
        help="answer turns too, as chat completions with audio: for `transcribe --engine openai` on other "
        "machines",
    )
    command.set_defaults(run=_serve, parser=command)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port in 0..65535, got {text!r}")
    return int(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(
            f"expected hours above 0, at most {_MOST_HOURS}, got {text!r}"
        )
    return hours


def _age(text: str) -> float:
    """Seconds of an age such as `30d`."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
    number, unit = text[:-1], units.get(text[-1:])
    if unit is None or not number.isdigit() or not 0 < int(number) < 100_000:
        raise argparse.ArgumentTypeError(
            f"expected a whole number and a unit (m, h, d, w), such as 30d, got {text!r}"
        )
    return int(number) * unit


def _lease(text: str) -> float:
    if not text.isdigit() or not 2 <= int(text) <= 86_400:
        raise argparse.ArgumentTypeError(f"expected whole seconds in 2..86400, got {text!r}")
    return float(text)


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and (not path.startswith("/") or any(c in path for c in "?# ")):
        raise argparse.ArgumentTypeError(f"expected a path such as /transcripts, got {text!r}")
    return path


def _alias(text: str) -> tuple[str, str]:
    """A name, and the model it stands for; empty for the one there is."""
    name, _, model = text.partition("=")
    if not name.strip() or not text.isprintable():
        raise ServerError(f"--model-alias {text!r}: expected NAME or NAME=MODEL, such as whisper-1")
    return name.strip(), "" if model.strip() in ("", "...") else model.strip()


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or text != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ServerError(
            f"--allow-origin {text!r}: expected scheme, name and port alone, such as https://example.org"
        )
    return text


def _rules(keep_s: float | None, lease_s: float) -> "Rules":
    from ..server.keeper import BEAT_S, Rules

    rules = Rules(beat_s=min(BEAT_S, lease_s / 5), lease_s=lease_s)
    return rules if keep_s is None else replace(rules, keep_s=keep_s, bin_s=keep_s)


def _store(name: str | None) -> Path | str:
    """Return a folder, or the address of a place in a bucket."""
    from platformdirs import user_data_path

    from ..bulk.buckets import is_bucket

    if name is None:
        return user_data_path("speaker-reasoner") / "server"
    return name.rstrip("/") if is_bucket(name) else Path(name)


def _default_scratch() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("speaker-reasoner") / "server"


def _serve(arguments: argparse.Namespace) -> int:
    keys = tuple(arguments.api_key or filter(None, [os.environ.get(_KEY)]))
    _check_host(arguments.host, keys)
    require("serve", "serving", *_LIBRARIES)
    import uvicorn

    from ..server.app import create_app
    from ..server.runs import Defaults
    from ..server.service import ServiceSettings
    from ..server.uploads import Limits

    chosen = options(arguments)
    _check_kind(arguments)
    settings = ServiceSettings(
        store=_store(arguments.store),
        database=arguments.database,
        api_key=keys[0] if keys else None,
        more_keys=keys[1:],
        batch=chosen.batch,
        queue=arguments.queue,
        limits=Limits(
            arguments.max_mb * 1024**2, arguments.max_duration * 3600.0, live=arguments.live
        ),
        allowed=tuple(_folder("--allow-folder", path) for path in arguments.allow_folder),
        voices=arguments.voices and _folder("--voices", arguments.voices),
        channel=chosen.channel,
        separate=chosen.channels == "separate",
        engine_api=arguments.engine_api,
        rules=_rules(arguments.keep, arguments.lease),
        origins=tuple(_origin(text) for text in arguments.allow_origin),
        aliases=(
            *map(_alias, arguments.model_alias),
            *([("tiny", "")] if arguments.model == "tiny" else []),  # as it was asked for here
        ),
        root_path=arguments.root_path,
        scratch=arguments.scratch or _default_scratch(),
        work_only=arguments.worker,
    )
    listening = listen(arguments.host, arguments.port)
    transcriber = None
    if not arguments.no_engine:
        # Uploads are kept as the one channel that is transcribed.
        transcriber = replace(chosen, channel=None).transcriber(load_quietly(arguments))
        voices = replace(chosen, voices=None).enrolled(transcriber)
        settings = replace(settings, defaults=Defaults(chosen.speakers, voices))
    app = create_app(transcriber, settings)
    config = uvicorn.Config(
        app,
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
        log_level="warning",
        ws_ping_timeout=None,  # a session that waits for the engine reads no answer to a ping
    )
    # What was loaded stays: else collections look through all of it in the midst of requests that make many
    # objects (a transcript of ten hours).
    gc.collect()
    gc.freeze()
    with suppress(KeyboardInterrupt):  # uvicorn has stopped in good order, and passes it on
        _server(config, app.state.service).run(sockets=[listening])
    return 0


def _check_kind(arguments: argparse.Namespace) -> None:
    """Wrong usage: options that mean nothing to a server of this kind."""
    if arguments.no_engine:
        needless = [
            name
            for name, value in (
                ("--model", arguments.model),
                ("--engine", arguments.engine),
                ("--engine-api", arguments.engine_api),
                ("--speakers", arguments.speakers),
                ("--voice", arguments.voice),
                ("--channel", arguments.channel is not None),
                ("--channels", arguments.channels != "mix"),
            )
            if value
        ]
        if needless:
            usage(arguments, f"--no-engine: {' and '.join(needless)} belong to the workers")
    if arguments.worker and arguments.engine_api:
        usage(arguments, "--worker answers no requests: leave out --engine-api")
    alone = (arguments.database or "sqlite").startswith("sqlite")
    if alone and (arguments.worker or arguments.no_engine):
        raise ServerError(
            f"{'--worker' if arguments.worker else '--no-engine'}: expected a database that all servers "
            "reach, got SQLite, which is for the processes of one machine; add --database "
            "postgresql+psycopg://USER@HOST/NAME"
        )


def _check_host(host: str, keys: Sequence[str]) -> None:
    """Refuse to listen for other machines without a key."""
    if any(not key or not key.isascii() or not key.isprintable() for key in keys):
        raise ServerError("--api-key: expected printable ASCII characters, got none or others")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not keys:
        raise ServerError(
            f"--host {host}: other machines can reach it, expected a key; add --api-key KEY, or "
            f"set {_KEY}"
        )


def _folder(option: str, path: Path) -> Path:
    try:
        folder_path = path.expanduser().resolve(strict=True)
    except OSError as error:
        raise ServerError(f"{option} {path}: {error.strerror}") from error
    if not folder_path.is_dir():
        raise ServerError(f"{option} {path}: got a file, expected a folder")
    return folder_path


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, before any model loads."""
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host,
                port,
                type=socket.SOCK_STREAM,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_PASSIVE,
            )[0]
            # asyncio sends at once (TCP_NODELAY) only where the protocol is named: else the body of every small
            # answer on a kept connection waits 40 ms for its head to be acknowledged.
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            if sys.platform != "win32":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError as error:
            raise ServerError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
            ) from error
        stack.pop_all()
    return listening


def _server(config: Any, service: "Service") -> Any:
    """A server that says where it listens, and lets the service know of the first signal."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for listening in sockets or ():
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                say = f"listening on http://{shown}:{port}; jobs in {service.settings.store}"
                own = "no engine" if service.own is None else f"model {service.own.able.model}"
                print(f"{say}; {own}", file=sys.stderr, flush=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            service.drain()
            super().handle_exit(sig, frame)

    return Server(config)

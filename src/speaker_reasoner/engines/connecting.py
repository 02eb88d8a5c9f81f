"""Connect to a server of the chat-completions API: availability, models, prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import EngineError, ProtocolError, SettingsError
from ..protocol import PROFILE_FILE, Profile, load_profile, released_profile
from ..protocol.profile import profile_of
from .client import Address, Client, Refused, Unavailable
from .remote import CONSTRAINTS, SENDING, RemoteEngine


def connect(
    address: Address,
    model: str,
    *,
    prompts: Path | None = None,
    constraint: str = "auto",
    send_audio: str = "auto",
) -> RemoteEngine:
    """Make an engine for a server, after a look at its list of models.

    Args:
        address: of the server.
        model: its name there.
        prompts: prompt file of a released checkpoint, or the `speaker_reasoner.json` of another; not needed for our own
            server, which sends its profile.
        constraint, send_audio: see `RemoteEngine`.

    Raises:
        EngineError: the server cannot be reached, refuses the key, or has no such model.
        ProtocolError: the prompt file cannot be used.
        SettingsError: an option is wrong, or the prompts that the model was trained with are unknown.
    """
    for option, value, known in (
        ("--constraint", constraint, CONSTRAINTS),
        ("--send-audio", send_audio, SENDING),
    ):
        if value not in known:
            raise SettingsError(f"{option} {value!r}: expected one of {', '.join(known)}")
    client = Client(address)
    try:
        entry = client.run(_entry(client, model))
        profile = _profile(prompts, entry, model)
    except BaseException:
        client.close()
        raise
    return RemoteEngine(
        client,
        model,
        profile,
        server=str(entry.get("owned_by") or "unknown").lower(),
        constraint=constraint,
        send_audio=send_audio,
    )


async def _entry(client: Client, model: str) -> Mapping[str, Any]:
    """Return the server's entry for a model; empty if the server lists no models."""
    where = client.address.url
    try:
        listed = await client.get("/models", retries=1)
    except Refused as error:
        if error.status in (401, 403):
            raise EngineError(
                f"{where}: {error}; name the variable that holds the key: --api-key-env"
            ) from error
        if error.status in (404, 405, 501) and where.rstrip("/").endswith("/v1"):
            return {}  # it has no list
        raise EngineError(
            f"{where}: {error}; expected the address of an API, which often ends in /v1"
        ) from error
    except Unavailable as error:
        raise EngineError(
            f"{where}: {error}; check --base-url and whether the server runs"
        ) from error
    rows = listed.get("data")
    if not isinstance(rows, list):
        raise EngineError(
            f"{where}/models: expected a list of models; is it the address of an API?"
        )
    known = {str(row.get("id")): row for row in rows if isinstance(row, dict)}
    if model not in known:
        names = ", ".join(sorted(known)[:10]) or "none"
        raise EngineError(f"{where}: no model {model!r} there, but {names}; choose one by --model")
    return known[model]


def _profile(prompts: Path | None, entry: Mapping[str, Any], model: str) -> Profile:
    if prompts is not None:
        folder = prompts if prompts.is_dir() else prompts.parent
        if prompts.is_dir() or prompts.name == PROFILE_FILE:
            profile = load_profile(folder)
            if profile is None:
                raise ProtocolError(f"{folder / PROFILE_FILE}: no such file")
            return profile
        return released_profile(prompts)
    profile_entry = entry.get("profile")
    if profile_entry is None:
        raise SettingsError(
            f"--model {model}: this server does not say which prompts the model was trained with; give "
            f"the prompt file that was published with it, or its {PROFILE_FILE}: --prompts FILE"
        )
    return profile_of(profile_entry, f"the profile of {model!r} that the server tells")

"""Fetch a recording from an `https://` address: no more than a limit, and not from the local network.

An address that a user was handed must not make this machine ask others in its own network. So the host is
looked up once, each of its addresses must be a public one, and the connection goes to the address that was
checked. A redirection is checked like the first address.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

from ..errors import AudioError
from ..version import __version__

LIMIT_BYTES = 2 << 30
_REDIRECTIONS = 5
_TIMEOUT_S = 30.0
_BLOCK_BYTES = 1 << 20

Connect = Callable[[str, int, str], http.client.HTTPConnection]
"""Opens a connection to a host by an address of it that was checked: host, port, address."""


def is_address(name: str) -> bool:
    """Return whether a name is an address on the web, of any scheme."""
    scheme, mark, _ = name.partition("://")
    return bool(mark) and scheme.isalnum()


def download(
    address: str,
    target: BinaryIO,
    *,
    limit_bytes: int = LIMIT_BYTES,
    private: bool = False,
    connect: Connect | None = None,
) -> None:
    """Download an address to a file.

    Args:
        address: `https://...`.
        target: where it is written.
        limit_bytes: the most that is fetched.
        private: whether the address may lie in the local network.
        connect: opens connections; by default with TLS.

    Raises:
        AudioError: it is no `https` address, lies in the local network, is too large, or cannot be
            fetched.
    """
    asked = address
    for _ in range(_REDIRECTIONS + 1):
        parts = urlsplit(address)
        if parts.scheme != "https" or not parts.hostname:
            raise AudioError(
                f"{address}: expected an https:// address; fetch it, and give the file"
            )
        try:
            port = parts.port or 443
            number = resolve(parts.hostname, port, private=private)
            connection = (connect or _secure)(parts.hostname, port, number)
            try:
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request(
                    "GET", path, headers={"User-Agent": f"speaker-reasoner/{__version__}"}
                )
                with connection.getresponse() as response:
                    if response.status in (301, 302, 303, 307, 308):
                        address = urljoin(address, response.headers.get("Location", ""))
                        continue
                    if response.status != 200:
                        raise AudioError(
                            f"{asked}: answered {response.status} {response.reason}, expected 200; check "
                            "the address"
                        )
                    _receive(asked, response, target, limit_bytes)
                    return
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AudioError(f"{asked}: cannot be fetched ({reason}); check the address") from error
    raise AudioError(f"{asked}: redirected over {_REDIRECTIONS} times; give the last address")


def resolve(host: str, port: int, *, private: bool) -> str:
    """An address of a host, after a look at all of them.

    Raises:
        AudioError: one of them is not public, and that is not allowed.
        OSError: there is none.
    """
    numbers = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not private:
        for number in numbers:
            if not _is_public(number):
                raise AudioError(
                    f"{host}: lies in the local network ({number}), expected a public address; "
                    "--allow-private permits it"
                )
    return numbers[0]


def _is_public(number: str) -> bool:
    address = ipaddress.ip_address(number.split("%")[0])
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return all(a.is_global and not a.is_multicast for a in (address, inner) if a is not None)


def _secure(host: str, port: int, number: str) -> http.client.HTTPConnection:
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    plain = socket.create_connection((number, port), timeout=_TIMEOUT_S)
    connection.sock = context.wrap_socket(plain, server_hostname=host)
    return connection


def _receive(
    address: str, response: http.client.HTTPResponse, target: BinaryIO, limit_bytes: int
) -> None:
    stated = response.headers.get("Content-Length", "")
    size = 0
    if stated.isdigit() and int(stated) > limit_bytes:
        raise AudioError(_too_large(address, int(stated), limit_bytes))
    while data := response.read(_BLOCK_BYTES):
        size += len(data)
        if size > limit_bytes:
            raise AudioError(_too_large(address, size, limit_bytes))
        target.write(data)
    if stated.isdigit() and size < int(stated):
        raise AudioError(
            f"{address}: ended after {size:,} of {int(stated):,} bytes; fetch it again"
        )


def _too_large(address: str, size: int, limit_bytes: int) -> str:
    return f"{address}: {size:,} bytes at least, expected at most {limit_bytes:,}; --max-download raises the limit"

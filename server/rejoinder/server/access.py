"""Who is asking, decided on the path that is routed and before anything else is looked at (reliability.md S1–S4)."""

import hmac
import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from rejoinder.server.envelope import answer, describe, from_codex
from rejoinder.server.errors import ApiError, Forbidden, InvalidRequest, Unauthorized
from rejoinder.server.settings import loopback

Headers = Iterable[tuple[bytes, bytes]]
"""Raw headers of a request, names in lower case."""

OPEN = "local"
"""The owner of everything on a server without keys."""

_FREE = frozenset(("/health", "/openapi.json", "/docs"))
_FREE_BELOW = "/docs/"
"""What is the same for everybody and holds no secret, and what a browser opens without a key."""

_HOST = re.compile(rb"[A-Za-z0-9.:\[\]-]+")
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(.*)")
_CHALLENGE = {"www-authenticate": "Bearer"}


class Keys:
    """The keys that clients may use, each with its owner; of a key only the SHA-256 is here (S1)."""

    __slots__ = ("_digests",)

    def __init__(self, digests: Iterable[tuple[str, str]]) -> None:
        """Takes pairs of an owner and the hex SHA-256 of a key."""
        self._digests = [(owner, bytes.fromhex(digest)) for owner, digest in digests]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, token: bytes) -> str | None:
        """Whose key it is. Takes the same time wherever the key stands, and whether it is there at all."""
        digest = sha256(token).digest()
        found = None
        for owner, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = owner
        return found


def admit(headers: Headers, keys: Keys, *, open_host_check: bool = True) -> str:
    """The owner a request speaks for. Raises InvalidRequest, Unauthorized or Forbidden.

    Without keys a server is open, and then only for programs on this machine: a name other than loopback in `Host`, or
    a page of another origin, is DNS rebinding (S4). `open_host_check` is off where somebody opened it on purpose.
    """
    hosts: list[bytes] = []
    origins: list[bytes] = []
    credentials: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"authorization":
            credentials.append(value)
        elif name == b"origin":
            origins.append(value)
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise InvalidRequest("Expected exactly one 'Host' header that holds a host name and nothing else.")
    if keys:
        return _owner(credentials, keys)
    if open_host_check:
        _refuse_strangers(hosts[0], origins)
    return OPEN


class Access:
    """Pure ASGI, for HTTP and WebSocket alike. What passes has its owner in `scope["state"]["owner"]`."""

    def __init__(self, app: ASGIApp, *, keys: Keys, open_host_check: bool = True) -> None:
        self._app = app
        self._keys = keys
        self._open_host_check = open_host_check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not _is_free(scope["path"]):
            try:
                owner = admit(scope["headers"], self._keys, open_host_check=self._open_host_check)
            except ApiError as exc:
                await answer(scope, send, describe(exc, codex=from_codex(scope["headers"])))
                return
            scope.setdefault("state", {})["owner"] = owner
        await self._app(scope, receive, send)


def _is_free(path: str) -> bool:
    return path in _FREE or path.startswith(_FREE_BELOW)


def owner_of(scope: Scope) -> str:
    """The owner `Access` found."""
    owner = scope["state"]["owner"]
    assert isinstance(owner, str)
    return owner


def _owner(credentials: list[bytes], keys: Keys) -> str:
    if not credentials:
        raise Unauthorized(
            "You didn't provide an API key. Send it in one Authorization header: 'Authorization: Bearer YOUR_KEY'.",
            headers=_CHALLENGE,
        )
    scheme, _, token = credentials[0].partition(b" ")
    if len(credentials) > 1 or scheme.lower() != b"bearer" or not token:
        raise Unauthorized(
            "Expected exactly one Authorization header of the form 'Authorization: Bearer YOUR_KEY'.",
            headers=_CHALLENGE,
        )
    owner = keys.owner(token.strip())
    if owner is None:
        raise Unauthorized("Incorrect API key provided.", code="invalid_api_key", headers=_CHALLENGE)
    return owner


def _refuse_strangers(host: bytes, origins: list[bytes]) -> None:
    if not _local(host):
        raise Forbidden(
            "This server has no API keys and answers loopback names only, such as 'localhost' or '127.0.0.1'."
        )
    for origin in origins:
        match = _ORIGIN.fullmatch(origin.decode("latin-1"))
        if match is None or not _local(match[1].encode("latin-1")):
            raise Forbidden("This server has no API keys and does not answer pages of other origins.")


@lru_cache(maxsize=64)
def _local(authority: bytes) -> bool:
    match = _AUTHORITY.fullmatch(authority.decode("latin-1"))
    return match is not None and loopback(match[1].strip("[]"))

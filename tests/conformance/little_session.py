"""A session of a client that reaches a little server without a network, so that many of them can be judged quickly.

It is what `Server` uses of aiohttp's session.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import aiohttp
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from tests.conformance import little_codex
from tests.conformance.little_exchange import exchange
from tests.conformance.little_pipe import ClientPipe, connected
from tests.conformance.little_server import LittleServer
from tests.conformance.little_socket import open_socket

URL = "http://little/v1"
_HOST = "http://little"


@dataclass(frozen=True, slots=True)
class _Content:
    chunks: Sequence[bytes]

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        for chunk in self.chunks:
            yield chunk, True


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    content: _Content


class LittleSession:
    def __init__(self, little: LittleServer, *, timeout: float) -> None:
        self.timeout = aiohttp.ClientTimeout(timeout)
        self._little = little

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        data: bytes | None,
        params: Mapping[str, str | Sequence[str]] | None,
        headers: CIMultiDict[str],
        allow_redirects: bool,
    ) -> AsyncIterator[_Response]:
        await asyncio.sleep(0)  # so that requests at the same time take turns
        query = [
            (name, one)
            for name, value in (params or {}).items()
            for one in ([value] if isinstance(value, str) else value)
        ]
        body = little_codex.inflated(data or b"", headers.get("content-encoding"))
        it = exchange(method, unquote(url.removeprefix(_HOST)), query, body, headers)
        if headers.get("upgrade") == "websocket":
            open_socket(self._little, it)
            chunks = [] if it.told is None else [msgspec.json.encode(it.told)]
            yield _Response(it.status, CIMultiDictProxy(CIMultiDict(it.headers)), _Content(chunks))
            return
        try:
            chunks = self._little.answer(it)
        except Exception as crash:
            self._little.crashes.append(crash)
            raise aiohttp.ClientPayloadError from crash
        yield _Response(it.status, CIMultiDictProxy(CIMultiDict(it.headers)), _Content([*filter(None, chunks)]))

    async def ws_connect(self, url: str, *, headers: Mapping[str, str], **options: Any) -> ClientPipe:
        return connected(self._little, exchange("GET", url.removeprefix(_HOST), [], b"", CIMultiDict(headers)))


def reaching(little: LittleServer, *, timeout: float = 5) -> aiohttp.ClientSession:
    return cast(aiohttp.ClientSession, LittleSession(little, timeout=timeout))

"""The seam to a provider: a call goes out, bytes come back."""

import io
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from rejoinder.bridge.dialect import Call
from rejoinder.bridge.errors import BrokenStream, UpstreamError

CONNECT_TIMEOUT = 5.0
"""Seconds until a connection stands (reliability.md §4)."""

_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
    "user-agent": "rejoinder",
}

_LARGE = 2**18
"""Bytes of a body that is written in pieces."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream sends back: the status line and headers (lower-case names), and the body as it arrives."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


MAX_WHOLE = 2**20
"""Bytes that are read of an answer that is no stream: an error, a count."""


async def whole(answer: Answer) -> bytes:
    """The body of an answer, as far as it is worth reading."""
    body = bytearray()
    async for chunk in answer.chunks:
        body += chunk
        if len(body) > MAX_WHOLE:
            break
    return bytes(body[:MAX_WHOLE])


class Upstream(Protocol):
    """Something that answers calls. Leaving the context closes the exchange, finished or not."""

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]: ...

    async def close(self) -> None: ...


class HttpUpstream:
    """A provider over HTTP. `headers` are sent with every call, win over those of the call, and hold the credential;
    the names of both are in lower case.

    Raises UpstreamError when no answer could be had, BrokenStream when it broke off. Nothing is sent twice: a
    connection that closes after the request left may have been paid for already (reliability.md S17).
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        opened = False
        try:
            async with self._client().request(
                call.method,
                self._base_url + call.path,
                # In pieces where it is large: at once, everybody else on the loop would wait for it.
                data=call.body if len(call.body) < _LARGE else io.BytesIO(call.body),
                # What is configured comes last: a header of the settings replaces the dialect's own.
                headers={**_HEADERS, **call.headers, **self._headers},
                # A redirect would carry the credential to another place; it is an error like any other non-2xx.
                allow_redirects=False,
            ) as response:
                opened = True
                headers = {name.lower(): value for name, value in response.headers.items()}
                chunks = response.content.iter_any()
                yield Answer(response.status, headers, chunks if response.ok else _as_far_as_it_came(chunks))
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLError) as error:
            raise UpstreamError("the provider's TLS certificate could not be verified") from _untraced(error)
        except aiohttp.ClientConnectorError as error:
            # Nothing was sent, so it may be sent again.
            raise UpstreamError("the provider could not be reached", status=503, transient=True) from _untraced(error)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ServerTimeoutError) as error:
            late = "the connection to the provider took too long"
            transient = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise UpstreamError(late, status=504, transient=transient) from _untraced(error)
        except (aiohttp.ClientError, OSError) as error:
            if opened:
                raise BrokenStream(
                    "the connection to the provider broke off before the answer was over"
                ) from _untraced(error)
            raise UpstreamError("the provider closed the connection without an answer") from _untraced(error)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        # A session belongs to the loop it was made on, so it is made by the first call.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                trust_env=False,
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _as_far_as_it_came(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A refusal's body. Its status says the most, so one that breaks off is still that refusal."""
    try:
        async for chunk in chunks:
            yield chunk
    except (aiohttp.ClientError, OSError):
        return


def _untraced(error: BaseException) -> BaseException:
    """The error, and what it came from, without tracebacks.

    aiohttp keeps an error where it was met; with its traceback that is a circle, and all of the request stays in
    memory until the collector comes by.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error

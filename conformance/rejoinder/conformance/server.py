"""The server that is judged, as a client sees it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast
from urllib.parse import urlencode

import aiohttp
import msgspec

from rejoinder.conformance.errors import Broken, ConformanceError, NoAnswer, UpgradeRefused
from rejoinder.conformance.socket import Socket
from rejoinder.conformance.transcript import Exchange, Passage, excerpt

Json: TypeAlias = "bool | int | float | str | msgspec.Raw | Sequence[Json] | Mapping[str, Json] | None"
"""What a request is made of. Raw is what came from the server and goes back as it came."""

T = TypeVar("T")

_ENCODER = msgspec.json.Encoder()

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_UNPRINTABLE = re.compile("[\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end.

    `headers` are found in upper and lower case. `pieces` are the chunks of HTTP's chunked coding as the server made
    them; a body that came in another way is one piece.
    """

    status: int
    headers: Mapping[str, str]
    pieces: Sequence[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def excerpt(self) -> str:
        """What came, short enough for a line."""
        text = " ".join(self.body[:400].decode(errors="replace").split())
        return f"status {self.status}: {text[:200]}" if text else f"status {self.status} and no body"

    def expect(self, *statuses: int) -> "Reply":
        """This reply. Raises Broken when it has none of these statuses."""
        if self.status not in statuses:
            raise Broken(f"status {' or '.join(map(str, statuses))}", self.excerpt, at=self.body)
        return self


class Server:
    """A base URL, a model that answers there, what was asked once for many rules, and what was said for this one."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, model: str, *, key: str | None) -> None:
        self.url = base_url.rstrip("/")
        self.model = model
        self.has_key = key is not None
        self.transcript: list[Exchange] = []
        self._session = session
        self._key = key
        self._known: dict[object, _Known] = {}

    @classmethod
    @asynccontextmanager
    async def at(cls, base_url: str, model: str, *, key: str | None, timeout: float) -> AsyncIterator["Server"]:
        """The server at a base URL that ends in its version; an answer may take `timeout` seconds from first to last
        byte."""
        # No coding: a compressed stream has no pieces to look at.
        headers = {"accept-encoding": "identity"}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(timeout)) as session:
            yield cls(session, base_url, model, key=key)

    def apart(self) -> "Server":
        """The same server with a transcript of its own."""
        other = copy(self)
        other.transcript = []
        return other

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        with_key: bool = True,
    ) -> Reply:
        """Any request. Raises NoAnswer when no whole answer comes."""
        exchange = Exchange(f"{method} {path}{f'?{urlencode(query)}' if query else ''}", body or b"")
        self.transcript.append(exchange)
        headers = {} if body is None else {"content-type": "application/json"}
        with _answering(exchange):
            async with self._session.request(
                method,
                self.url + path,
                data=body,
                params=query,
                headers=headers | self._authorization(with_key=with_key),
                allow_redirects=False,
            ) as response:
                exchange.answered = f"{response.status} {response.headers.get('content-type', '')}"
                pieces = exchange.pieces
                pieces.append(b"")
                async for data, ends in response.content.iter_chunks():
                    pieces[-1] += data
                    if ends:
                        pieces.append(b"")
                return Reply(response.status, response.headers, [piece for piece in pieces if piece])

    @asynccontextmanager
    async def socket(self, path: str = "/responses", *, with_key: bool = True) -> AsyncIterator[Socket]:
        """A WebSocket there. Raises UpgradeRefused or NoAnswer when it does not open."""
        exchange = Exchange(f"WebSocket {path}", b"")
        self.transcript.append(exchange)
        with _answering(exchange):
            try:
                opened = await self._session.ws_connect(
                    self.url + path, headers=self._authorization(with_key=with_key), max_msg_size=0
                )
            except aiohttp.WSServerHandshakeError as refused:
                exchange.answered = str(refused.status)
                raise UpgradeRefused(refused.status) from None
        exchange.answered = "open"
        async with opened:
            yield Socket(opened, self.model, self.transcript, timeout=self._session.timeout.total)

    def _authorization(self, *, with_key: bool) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}"} if self._key is not None and with_key else {}

    async def post(self, **fields: Json) -> Reply:
        """Create a response, with the model that is judged unless `fields` name another."""
        return await self.send("POST", "/responses", _ENCODER.encode({"model": self.model, **fields}))

    async def get(self, path: str, **query: str) -> Reply:
        return await self.send("GET", path, query=query)

    async def delete(self, path: str) -> Reply:
        return await self.send("DELETE", path)

    async def once(self, question: Callable[["Server"], Awaitable[T]]) -> T:
        """What this question was answered. It is asked once: answers cost time and money, and many rules look at the
        same ones. A question that failed fails again."""
        if question not in self._known:
            self._known[question] = await _known(question, self.apart())
        known = self._known[question]
        self.transcript.extend(known.transcript)
        if known.failure is not None:
            raise known.failure.with_traceback(None)
        return cast(T, known.answer)  # what is kept under a question came from it

    def excerpt(self, at: bytes = b"") -> list[Passage]:
        """What was said for this rule, around that place. It does not tell the key."""
        return [
            Passage(*(self.discreet(text) for text in (passage.sent, passage.received, passage.mark)))
            for passage in excerpt(self.transcript, at)
        ]

    def discreet(self, text: str) -> str:
        """A text that came from the server as it may be shown: without the key it may have repeated, and without
        characters that do something to a terminal or are none of XML."""
        if self._key:
            text = text.replace(self._key, "[the key]")
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.translate(_PICTURES))


@dataclass(frozen=True, slots=True)
class _Known:
    answer: object
    failure: ConformanceError | None
    transcript: Sequence[Exchange]


async def _known(question: Callable[[Server], Awaitable[object]], server: Server) -> _Known:
    try:
        return _Known(await question(server), None, server.transcript)
    except ConformanceError as failure:
        return _Known(None, failure, server.transcript)


@contextmanager
def _answering(exchange: Exchange) -> Iterator[None]:
    """Raises NoAnswer where the client raises an error of its own, and notes it."""
    try:
        yield
    except TimeoutError:
        exchange.answered = "no whole answer in time"
        raise NoAnswer("an answer in time", "none") from None
    except aiohttp.ClientError as error:
        exchange.answered = f"no whole answer: {type(error).__name__}"
        raise NoAnswer("a whole answer", f"{type(error).__name__} ({error})") from error

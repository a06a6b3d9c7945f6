"""The server that is judged, as a client sees it."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast
from urllib.parse import urlencode

import aiohttp
import msgspec
from multidict import CIMultiDict

from rejoinder.conformance.errors import Broken, ConformanceError, NoAnswer, NotApplicable, UpgradeRefused
from rejoinder.conformance.program import Program, Ran
from rejoinder.conformance.socket import Socket
from rejoinder.conformance.transcript import Exchange, Passage, excerpt

if TYPE_CHECKING:
    from rejoinder.conformance.paired import Provider

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


class Incoming:
    """An answer that is read as far as somebody wants."""

    def __init__(self, response: aiohttp.ClientResponse, exchange: Exchange) -> None:
        self.status = response.status
        self._response = response
        self._exchange = exchange

    @property
    def received(self) -> bytes:
        return self._exchange.received

    async def hears(self, said: bytes, seconds: float) -> bool:
        """Whether this comes within that time, and before the end. Not more is read than that takes."""
        try:
            async with asyncio.timeout(seconds):
                while said not in self.received:
                    if not (data := await self._response.content.readany()):
                        return False
                    self._exchange.pieces.append(data)
        except TimeoutError:
            return False
        return True


class Server:
    """A base URL, a model that answers there, what was asked once for many rules, and what was said for this one.

    `other_key` is the key of somebody else, who is not to see what belongs to the first; `codex` is the Codex program;
    `provider` is our own, when the server stands in front of it.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        model: str,
        *,
        key: str | None,
        other_key: str | None = None,
        codex: Program | None = None,
        provider: "Provider | None" = None,
    ) -> None:
        self.url = base_url.rstrip("/")
        self.model = model
        self.has_key = key is not None
        self.has_other_key = other_key is not None
        self.transcript: list[Exchange] = []
        self._session = session
        self._key = key
        self._other_key = other_key
        self._codex = codex
        self.provider = provider
        self._known: dict[object, _Known] = {}

    @classmethod
    @asynccontextmanager
    async def at(
        cls,
        base_url: str,
        model: str,
        *,
        key: str | None,
        timeout: float,
        other_key: str | None = None,
        codex: Program | None = None,
        provider: "Provider | None" = None,
    ) -> AsyncIterator["Server"]:
        """The server at a base URL that ends in its version; an answer may take `timeout` seconds from first to last
        byte."""
        # No coding: a compressed stream has no pieces to look at.
        headers = {"accept-encoding": "identity"}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(timeout)) as session:
            yield cls(session, base_url, model, key=key, other_key=other_key, codex=codex, provider=provider)

    @property
    def patience(self) -> float:
        """Seconds that an answer may take."""
        return self._session.timeout.total or math.inf

    def apart(self) -> "Server":
        """The same server with a transcript of its own."""
        other = copy(self)
        other.transcript = []
        return other

    def as_another(self) -> "Server":
        """The same server with the other key, and the same transcript."""
        other = copy(self)
        other._key, other._other_key = self._other_key, self._key
        other._known = {}
        return other

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        with_key: bool = True,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        enough: Callable[[bytes], bool] | None = None,
    ) -> Reply:
        """Any request; a header with several values is sent several times. Hangs up when what has come is `enough`.
        Raises NoAnswer when no whole answer comes before."""
        exchange = Exchange(f"{method} {path}{f'?{urlencode(query)}' if query else ''}", body or b"")
        self.transcript.append(exchange)
        kind = {} if body is None else {"content-type": "application/json"}
        with _answering(exchange):
            async with self._session.request(
                method,
                self.url + path,
                data=body,
                params=query,
                headers=_headers({**kind, **self._authorization(with_key=with_key), **(headers or {})}),
                allow_redirects=False,
            ) as response:
                exchange.answered = f"{response.status} {response.headers.get('content-type', '')}"
                pieces = exchange.pieces
                pieces.append(b"")
                async for data, ends in response.content.iter_chunks():
                    if response.content is aiohttp.EMPTY_PAYLOAD:
                        break  # it is the body of all answers that have none, and comes to an end only once
                    pieces[-1] += data
                    if enough is not None and enough(exchange.received):
                        exchange.answered += ", not read to its end"
                        break
                    if ends:
                        pieces.append(b"")
                return Reply(response.status, response.headers, [piece for piece in pieces if piece])

    @asynccontextmanager
    async def listening(self, **fields: Json) -> AsyncIterator[Incoming]:
        """A create call whose answer is read as it comes. Who leaves before its end hangs up."""
        exchange = Exchange("POST /responses", _ENCODER.encode({"model": self.model, **fields}))
        self.transcript.append(exchange)
        headers = {"content-type": "application/json", **self._authorization(with_key=True)}
        with _answering(exchange):
            async with self._session.post(f"{self.url}/responses", data=exchange.sent, headers=headers) as response:
                exchange.answered = (
                    f"{response.status} {response.headers.get('content-type', '')}, as far as it was read"
                )
                yield Incoming(response, exchange)

    @asynccontextmanager
    async def socket(
        self,
        path: str = "/responses",
        *,
        with_key: bool = True,
        headers: Mapping[str, str] | None = None,
        compressed: bool = False,
    ) -> AsyncIterator[Socket]:
        """A WebSocket there; `compressed` offers permessage-deflate. Raises UpgradeRefused or NoAnswer when it does not
        open."""
        exchange = Exchange(f"WebSocket {path}", b"")
        self.transcript.append(exchange)
        with _answering(exchange):
            try:
                opened = await self._session.ws_connect(
                    self.url + path,
                    headers={**self._authorization(with_key=with_key), **(headers or {})},
                    compress=15 if compressed else 0,
                    autoping=False,  # the socket answers them, and sees the answers to its own
                    max_msg_size=0,
                )
            except aiohttp.WSServerHandshakeError as refused:
                exchange.answered = str(refused.status)
                raise UpgradeRefused(refused.status) from None
        exchange.answered = "open"
        async with opened:
            yield Socket(opened, self.model, self.transcript, timeout=self._session.timeout.total)

    @property
    def authorization(self) -> str:
        """The header with the key."""
        return f"Bearer {self._key}"

    async def run_codex(self, prompt: str) -> Ran:
        """One turn of the Codex program. Raises NotApplicable when none was given."""
        if self._codex is None:
            raise NotApplicable("no Codex program was given")
        exchange = Exchange("codex exec", prompt.encode(), "no end in time")
        self.transcript.append(exchange)
        ran = await self._codex(prompt, url=self.url, model=self.model, key=self._key, timeout=self.patience)
        exchange.answered, exchange.pieces = f"exit status {ran.status}", [ran.printed]
        return ran

    def _authorization(self, *, with_key: bool) -> dict[str, str]:
        return {"authorization": self.authorization} if self._key is not None and with_key else {}

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
        theirs = self.provider and self.provider.key
        keys = ((self._key, "[the key]"), (self._other_key, "[the other key]"), (theirs, "[the provider's key]"))
        for key, name in keys:
            if key:
                text = text.replace(key, name)
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.translate(_PICTURES))


def _headers(values: Mapping[str, str | Sequence[str]]) -> CIMultiDict[str]:
    several = [(name, [value] if isinstance(value, str) else value) for name, value in values.items()]
    return CIMultiDict([(name, value) for name, each in several for value in each])


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

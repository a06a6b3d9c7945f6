"""The server that is judged, as a client sees it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import aiohttp
import msgspec

from rejoinder.conformance.errors import Broken

Json: TypeAlias = "bool | int | float | str | msgspec.Raw | Sequence[Json] | Mapping[str, Json] | None"
"""What a request is made of. Raw is what came from the server and goes back as it came."""

T = TypeVar("T")

_ENCODER = msgspec.json.Encoder()


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
            raise Broken(f"status {' or '.join(map(str, statuses))}", self.excerpt)
        return self


class Server:
    """A base URL, a model that answers there, and what was asked once for many cases."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, model: str, *, key: str | None) -> None:
        self.model = model
        self.has_key = key is not None
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._known: dict[object, object] = {}

    @classmethod
    @asynccontextmanager
    async def at(cls, base_url: str, model: str, *, key: str | None, timeout: float) -> AsyncIterator["Server"]:
        """The server at a base URL that ends in its version; an answer may take `timeout` seconds from first to last
        byte."""
        # No coding: a compressed stream has no pieces to look at.
        headers = {"accept-encoding": "identity"}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(timeout)) as session:
            yield cls(session, base_url, model, key=key)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        with_key: bool = True,
    ) -> Reply:
        """Any request. Raises Broken when no whole answer comes."""
        headers = {} if body is None else {"content-type": "application/json"}
        if self._key is not None and with_key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            async with self._session.request(
                method, self._base_url + path, data=body, params=query, headers=headers, allow_redirects=False
            ) as response:
                pieces = [b""]
                async for data, ends in response.content.iter_chunks():
                    pieces[-1] += data
                    if ends:
                        pieces.append(b"")
                return Reply(response.status, response.headers, [piece for piece in pieces if piece])
        except TimeoutError:
            raise Broken("an answer in time", "none") from None
        except aiohttp.ClientError as error:
            raise Broken("a whole answer", f"{type(error).__name__} ({error})") from error

    async def post(self, **fields: Json) -> Reply:
        """Create a response, with the model that is judged unless `fields` name another."""
        return await self.send("POST", "/responses", _ENCODER.encode({"model": self.model, **fields}))

    async def get(self, path: str, **query: str) -> Reply:
        return await self.send("GET", path, query=query)

    async def delete(self, path: str) -> Reply:
        return await self.send("DELETE", path)

    async def once(self, question: Callable[["Server"], Awaitable[T]]) -> T:
        """What this question was answered. It is asked once: answers cost time and money, and many cases look at the
        same ones."""
        if question not in self._known:
            self._known[question] = await question(self)
        return cast(T, self._known[question])  # what is kept under a question came from it

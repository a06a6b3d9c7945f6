"""The seam to a provider: a call goes out, bytes come back."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from rejoinder.bridge.dialect import Call


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream sends back: the status line and headers (lower-case names), and the body as it arrives."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Upstream(Protocol):
    """Something that answers calls. Leaving the context closes the exchange, finished or not."""

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]: ...

    async def close(self) -> None: ...

"""Following a stream that is written down: from its beginning, or behind an event, then live (reliability.md P10)."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from rejoinder.server.notes import headers
from rejoinder.server.runs import Run
from rejoinder.server.sse import KEEP_ALIVE, SLOW_CLIENT, present
from rejoinder.store import Store
from rejoinder.store import runs as rows
from rejoinder.wire import sse


async def _pieces(store: Store, response_id: str, owner: str, run: Run | None) -> AsyncIterator[rows.Piece | None]:
    """The pieces of a stream in order; None whenever there was nothing for so long that a client wonders."""
    number = 0
    while True:
        # Looked at first: what is not there after the end will not come.
        is_over = run is None or run.over.is_set()
        piece = await run.journal.piece(number) if run is not None and run.journal is not None else None
        if piece is None and is_over:
            # Its end may have been written by another hand than that of the run.
            piece = await rows.piece(store, response_id, number, owner=owner)
        if piece is not None:
            number += 1
            yield piece
        elif is_over:
            return
        else:
            assert run is not None
            assert run.journal is not None
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await run.journal.news()
            except TimeoutError:
                yield None


async def frames(
    store: Store, response_id: str, *, owner: str, run: Run | None, after: int | None
) -> AsyncIterator[bytes]:
    """The bytes of the stream, all of it or what follows the event with the sequence number `after`."""
    first = 0 if after is None else after + 1
    async for piece in _pieces(store, response_id, owner, run):
        if piece is None:
            yield sse.COMMENT
        elif piece.following > first:
            yield b"".join(piece.frames[max(0, first - piece.first) :])
    if run is None or not run.handed_over:
        yield sse.DONE


class Followed:
    """The ASGI answer that follows a stream. A follower that leaves, or reads too slowly, is dropped; what becomes of
    the response then is for its run to say."""

    def __init__(
        self,
        store: Store,
        response_id: str,
        *,
        owner: str,
        run: Run | None,
        after: int | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self._store = store
        self._id = response_id
        self._owner = owner
        self._run = run
        self._after = after
        self._extra = dict(extra or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._run
        if run is None:
            await self._stream(scope, receive, send)
            return
        with run.attended():
            await present(receive, run.answered.wait())
            if run.error is not None:
                raise run.error
            self._extra.update(headers(run.outcome.notes, run.outcome.losses))
            await self._stream(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = frames(self._store, self._id, owner=self._owner, run=self._run, after=self._after)
        response = EventSourceResponse(told, ping=0, sep="\n", headers=self._extra, send_timeout=SLOW_CLIENT)
        try:
            await response(scope, receive, send)
        except SendTimeoutError as error:
            raise ClientDisconnect from error

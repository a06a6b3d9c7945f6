"""Responses that are still made: what a crash leaves of them, and the stream they are told in.

A stream is kept in pieces, numbered from 0, each a list of frames with consecutive sequence numbers. A piece is on the
disk before any of it is told to anybody (reliability.md P10), it is never written twice, and only while its response is
unfinished.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from rejoinder.store import keys
from rejoinder.store.backend import Change
from rejoinder.store.errors import Conflict, DamagedRecord
from rejoinder.store.records import Store, opened
from rejoinder.store.values import seal

T = TypeVar("T")


class Run(msgspec.Struct, frozen=True):
    """An unfinished response, found after a crash: whose it is, and the request it was asked for with, as JSON."""

    owner: str
    id: str
    request: bytes
    caller: dict[str, str] = {}


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Frames as they are told, each with the blank line at its end; the first has the sequence number `first`."""

    first: int
    frames: list[bytes]

    @property
    def following(self) -> int:
        """The sequence number of the frame after these."""
        return self.first + len(self.frames)


class Once(msgspec.Struct, frozen=True):
    """Which response a request with an idempotency key led to. `digest` is that of its body, `at` in Unix seconds."""

    digest: bytes
    response_id: str
    at: int


KEPT_ONCE = 24 * 3600
"""Seconds for which a key is remembered (reliability.md F14)."""

_encoder = msgspec.msgpack.Encoder()
_run = msgspec.msgpack.Decoder(Run)
_piece = msgspec.msgpack.Decoder(Piece)
_once = msgspec.msgpack.Decoder(Once)


def begun(run: Run) -> Change:
    """What is written beside a record that is not finished."""
    key = keys.run(keys.tenant_of(run.owner), run.id)
    return Change({key: seal(key, _encoder.encode(run))})


def told(response_id: str, number: int, first: int, frames: Sequence[bytes], *, owner: str) -> Change:
    """The next piece of a stream."""
    key = keys.event(keys.tenant_of(owner), response_id, number)
    return Change({key: seal(key, _encoder.encode(Piece(first, [*frames])))}, expect={key: None})


def once(key: str, entry: Once, *, was: bytes | None, owner: str) -> Change:
    """The entry of an idempotency key, in place of the row that was found."""
    name = keys.once(keys.tenant_of(owner), key)
    return Change({name: seal(name, _encoder.encode(entry))}, expect={name: was})


def together(*changes: Change) -> Change:
    """All of them in one commit."""
    return Change(
        {name: value for change in changes for name, value in change.puts.items()},
        [name for change in changes for name in change.deletes],
        {name: value for change in changes for name, value in change.expect.items()},
        [name for change in changes for name in change.present],
        any(change.erase for change in changes),
    )


async def piece(store: Store, response_id: str, number: int, *, owner: str) -> Piece | None:
    """A piece of a stream, None where it is not there (yet). Raises DamagedRecord."""
    key = keys.event(keys.tenant_of(owner), response_id, number)
    [row] = await store.rows(key)
    return None if row is None else read_piece(key, row)


async def known(store: Store, key: str, *, owner: str) -> tuple[Once | None, bytes | None]:
    """What is remembered of an idempotency key, and the row as it is. Raises DamagedRecord."""
    name = keys.once(keys.tenant_of(owner), key)
    [row] = await store.rows(name)
    return (None if row is None else read_once(name, row)), row


async def unfinished(store: Store) -> AsyncIterator[Run | DamagedRecord]:
    """Every response that was never finished, of every owner; an error in the place of one that cannot be read."""
    async for key in store.every_key(keys.RUNS):
        try:
            [row] = await store.rows(key)
            if row is not None:
                yield read_run(key, row)
        except DamagedRecord as error:
            yield error


async def forget(store: Store, *, before: float) -> int:
    """Remove the idempotency keys that were used before a time, in Unix seconds, and give their number."""
    count = 0
    async for key, row in old(store, before=before):
        with suppress(Conflict):  # used again meanwhile, and so remembered anew
            await store.backend.commit(Change(deletes=[key], expect={key: row}))
            count += 1
    return count


async def old(store: Store, *, before: float) -> AsyncIterator[tuple[str, bytes]]:
    """The rows of the idempotency keys that were used before a time, in Unix seconds."""
    async for key in store.every_key():
        if key.split("/")[1:2] == ["once"]:
            with suppress(DamagedRecord):  # for `verify` to tell
                [row] = await store.rows(key)
                if row is not None and read_once(key, row).at < before:
                    yield key, row


def read_run(key: str, row: bytes) -> Run:
    """Raises DamagedRecord, as the others that read a row."""
    return _read(_run, key, row)


def read_piece(key: str, row: bytes) -> Piece:
    return _read(_piece, key, row)


def read_once(key: str, row: bytes) -> Once:
    return _read(_once, key, row)


def _read(decoder: msgspec.msgpack.Decoder[T], key: str, row: bytes) -> T:
    try:
        return decoder.decode(opened(key, row))
    except msgspec.DecodeError as error:
        raise DamagedRecord(f"{keys.told(key)} cannot be read: {error}") from error

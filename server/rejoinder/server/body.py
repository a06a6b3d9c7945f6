"""A request's body: its bytes within limits, whatever they are packed in, and whether they are JSON we can pass on.

Everything here counts while it works. A body is refused at the byte that is too many, on the wire or inflated
(reliability.md F23, S7); JSON that would hurt a reader is refused without recursion, in linear time (S8).
"""

import asyncio
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import TypeVar

import anyio.to_thread
import msgspec
import zstandard
from msgspec import Raw
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from rejoinder.server.errors import ApiError, InvalidRequest, TooLarge, TooSlow, UnsupportedCoding
from rejoinder.wire.errors import BadRequest, bad_request
from rejoinder.wire.request import CreateRequest

T = TypeVar("T")

_LARGE = 2**20
"""Bytes from which a body is read in a thread."""

_GRACE = 5.0
"""Seconds before the slowest rate allowed is asked for: a client may wait that long for our `100 Continue`."""

_SLOWEST = 1024
"""Bytes a second (reliability.md §4)."""

_AT_ONCE = 2**20
"""Bytes inflated on the event loop; a body that turns out longer is finished in a thread."""


async def read_body(receive: Receive, headers: Iterable[tuple[bytes, bytes]], *, limit: int, timeout: float) -> bytes:
    """The whole body, inflated. `headers` are raw, names in lower case; `limit` is in bytes, `timeout` in seconds.

    Raises TooLarge, TooSlow, UnsupportedCoding, InvalidRequest when a coding does not hold what it promises, and
    ClientDisconnect when the client leaves.
    """
    coding = b""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
        if name == b"content-encoding":
            coding += b"," + value
    inflate = _inflater(coding) if coding else None
    wire = await _wire(receive, limit, timeout)
    if inflate is None:
        return wire
    inflation = _Inflation(inflate(wire), limit)
    if not inflation.run(_AT_ONCE):
        refusal = await anyio.to_thread.run_sync(inflation.rest)
        if refusal is not None:
            # Not the same one again: an error and a frame that hold each other stay, with all these bytes, until the
            # collector comes by. For the same reason no thread raises here.
            raise type(refusal)(str(refusal))
    return b"".join(inflation.pieces)


async def check(body: bytes) -> None:
    """`check_json`, without holding up everybody else on the loop. Raises BadRequest."""
    await _apart(body, check_json)


async def read_request(body: bytes, *, message: bool = False) -> CreateRequest:
    """The create call in a body, or a message, that was checked. Raises BadRequest."""
    return await _apart(body, partial(CreateRequest.parse, message=message))


async def _apart(body: bytes, work: Callable[[bytes], T]) -> T:
    """Reading a large body takes long enough to be felt by everybody else on the loop."""
    return work(body) if len(body) < _LARGE else await anyio.to_thread.run_sync(work, body)


def check_json(body: bytes) -> None:
    """Raises BadRequest unless the body is a JSON object that any strict reader takes (S8, lessons.md S-040).

    That is: UTF-8, no NaN or Infinity, no half of a surrogate pair, at most 100 levels. msgspec looks at all of it
    even where it hands a value over as `Raw`, except for UTF-8.
    """
    if not body or body.isspace():
        raise BadRequest("The request has no body. Expected a JSON object.")
    try:
        if not body.isascii():
            body.decode()
        _OBJECT.decode(body)
        if _too_deep(body):
            raise _nested()
    except UnicodeDecodeError as exc:
        raise BadRequest(f"The request is not valid JSON: it is not UTF-8 (byte {exc.start}).") from exc
    except RecursionError as exc:
        raise _nested() from exc
    except msgspec.ValidationError as exc:
        kind = next(name for start, name in _KINDS if body.lstrip().startswith(start))
        message = f"Invalid type for the request body: expected an object, but got {kind} instead."
        raise BadRequest(message, param="body", code="invalid_type") from exc
    except msgspec.DecodeError as exc:
        raise bad_request(exc) from exc


# Receiving


async def _wire(receive: Receive, limit: int, timeout: float) -> bytes:
    started = asyncio.get_running_loop().time()
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(started + min(timeout, _GRACE)) as clock:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return b"".join((*pieces, piece)) if pieces else piece
                pieces.append(piece)
                clock.reschedule(started + min(timeout, _GRACE + size / _SLOWEST))
    except TimeoutError as exc:
        # What is still on its way cannot be told from a next request.
        raise TooSlow("The request body did not arrive in time.", headers={"connection": "close"}) from exc


# Inflating. Each function yields pieces of bounded size, so that a bomb is one piece too many and not a gigabyte.

_PIECE = 65_536
_WINDOW = 8 * 2**20


class _Inflation:
    """A body being inflated, on the loop first and in a thread if it is long."""

    def __init__(self, inflated: Iterator[bytes], limit: int) -> None:
        self.pieces: list[bytes] = []
        self._inflated = inflated
        self._limit = limit
        self._size = 0

    def run(self, target: int) -> bool:
        """Inflates about `target` bytes in all; True when that was everything."""
        for piece in self._inflated:
            self.pieces.append(piece)
            self._size += len(piece)
            if self._size > self._limit:
                raise _too_large(self._limit)
            if self._size >= target:
                return False
        return True

    def rest(self) -> ApiError | None:
        """Inflates all that is left; gives the reason if that must not be."""
        try:
            self.run(self._limit + 1)
        except ApiError as error:
            return error
        return None


def _zstd(wire: bytes) -> Iterator[bytes]:
    # Four bytes can stand for a block of 128 KB, and zstandard gives back all a piece of input holds: 256 bytes make
    # 8 MiB at most.
    step = 256
    inflater = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    used = 0
    try:
        while used < len(wire) and not inflater.eof:
            yield inflater.decompress(wire[used : used + step])
            used += step
    except zstandard.ZstdError as exc:
        raise InvalidRequest("The request body is not valid zstd, or needs a window larger than 8 MiB.") from exc
    _check_end("zstd", inflater.eof, bool(inflater.unused_data) or used < len(wire))


def _gzip(wire: bytes) -> Iterator[bytes]:
    return _deflated("gzip", wire, 31)


def _deflate(wire: bytes) -> Iterator[bytes]:
    # The name means zlib's format (RFC 9110 §8.4.1.2); some clients send the bare stream inside of it.
    framed = len(wire) > 1 and wire[0] & 0x8F == 0x08 and int.from_bytes(wire[:2]) % 31 == 0
    return _deflated("deflate", wire, 15 if framed else -15)


def _deflated(coding: str, wire: bytes, bits: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(bits)
    used = 0
    try:
        while used < len(wire) and not inflater.eof:
            # What does not fit into a piece comes back as a copy, so a step must stay small.
            rest = wire[used : used + _PIECE]
            used += _PIECE
            full = True
            while (rest or full) and not inflater.eof:
                piece = inflater.decompress(rest, _PIECE)
                rest = inflater.unconsumed_tail
                full = len(piece) == _PIECE
                yield piece
    except zlib.error as exc:
        raise InvalidRequest(f"The request body is not valid {coding}.") from exc
    _check_end(coding, inflater.eof, bool(inflater.unused_data) or used < len(wire))


def _check_end(coding: str, ended: bool, more: bool) -> None:
    if not ended:
        raise InvalidRequest(f"The request body is cut short: its {coding} stream has no end.")
    if more:
        raise InvalidRequest(f"The request body goes on after the end of its {coding} stream.")


_CODINGS: Mapping[bytes, Callable[[bytes], Iterator[bytes]]] = {
    b"zstd": _zstd,
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
}


def _inflater(coding: bytes) -> Callable[[bytes], Iterator[bytes]] | None:
    codings = [name for part in coding.split(b",") if (name := part.strip().lower()) not in (b"", b"identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _CODINGS:
        raise UnsupportedCoding(
            "Unsupported content-encoding. Expected one of zstd, gzip and deflate, once.",
            headers={"accept-encoding": "zstd, gzip, deflate"},
        )
    return _CODINGS[codings[0]]


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the limit of {limit} bytes.")


# Depth

_LEVELS = 100

_OBJECT = msgspec.json.Decoder(dict[str, Raw])

_KINDS = (
    (b"[", "an array"),
    (b'"', "a string"),
    (b"n", "null"),
    (b"t", "a boolean"),
    (b"f", "a boolean"),
    (b"", "a number"),
)

_BRACKETS = b"[]{}"
_PROSE = bytes(set(range(256)) - set(_BRACKETS + rb'"\/bfnrtu'))
_NOT_MARKS = bytes(set(range(256)) - set(_BRACKETS + b'"'))
_STRING = re.compile(rb'"[^"]*"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def _too_deep(body: bytes) -> bool:
    """Whether valid JSON has more than 100 levels. Brackets inside of strings do not count."""
    # It cannot be deeper than it has opening brackets, and counting those is a tenth of the work.
    if body.count(b"[") + body.count(b"{") <= _LEVELS:
        return False
    # Whatever can follow a backslash is kept until the escapes are gone. Then a quote is the start or the end of a
    # string, and of two in a row both can go: what is between strings stays there, and so does what is inside.
    marks = body.translate(None, _PROSE).replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_MARKS)
    steps = memoryview(_STRING.sub(b"", marks.replace(b'""', b"")).translate(_STEPS)).cast("b")
    depth = 0
    for start in range(0, len(steps), _PIECE):
        depths = list(accumulate(steps[start : start + _PIECE], initial=depth))
        if max(depths) > _LEVELS:
            return True
        depth = depths[-1]
    return False


def _nested() -> BadRequest:
    return BadRequest(f"The request is nested deeper than {_LEVELS} levels.")

import asyncio
import gzip
import json
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message

from rejoinder.server import body
from rejoinder.server.body import check_json, read_body
from rejoinder.server.errors import InvalidRequest, TooLarge, TooSlow, UnsupportedCoding
from rejoinder.wire.errors import BadRequest

MB = 2**20
TEXT = b'{"model": "m", "input": "' + b"once upon a time " * 1000 + b'"}'


class Client:
    """The receiving side of a request. `pause` is slept before each piece, `leaves` ends it early."""

    def __init__(self, *pieces: bytes, pause: float = 0, leaves: bool = False) -> None:
        self._pieces = list(pieces)
        self._pause = pause
        self._leaves = leaves

    async def receive(self) -> Message:
        if self._pause:
            await asyncio.sleep(self._pause)
        if self._leaves and not self._pieces:
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0) if self._pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or self._leaves}


async def read(
    *pieces: bytes,
    coding: bytes = b"",
    limit: int = MB,
    timeout: float = 5,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    if coding:
        headers = [*headers, (b"content-encoding", coding)]
    return await read_body(Client(*pieces).receive, headers, limit=limit, timeout=timeout)


# Receiving


async def test_pieces_are_joined_and_a_missing_body_is_empty() -> None:
    assert await read(b"ab", b"", b"cd") == b"abcd"
    assert await read(headers=[(b"host", b"a")]) == b""


async def test_a_body_may_be_as_long_as_the_limit() -> None:
    assert await read(b"x" * 5, b"x" * 5, limit=10, headers=[(b"content-length", b"10")]) == b"x" * 10


async def test_a_declared_length_over_the_limit_is_refused_before_reading() -> None:
    async def receive() -> Message:
        raise AssertionError("read")

    with pytest.raises(TooLarge, match="larger than the limit of 10 bytes"):
        await read_body(receive, [(b"content-length", b"200000000")], limit=10, timeout=5)


async def test_an_endless_body_is_refused_at_the_byte_too_many() -> None:
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 65_536
        assert read <= 200 * MB
        return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    with pytest.raises(TooLarge):
        await read_body(receive, [(b"content-length", b"chunks of it")], limit=MB, timeout=5)
    assert read == MB + 65_536


async def test_a_client_that_leaves_is_told_from_one_that_is_done() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body(Client(b"ab", leaves=True).receive, [], limit=MB, timeout=5)


async def test_a_body_has_its_time() -> None:
    with pytest.raises(TooSlow) as raised:
        await read_body(Client(*[b"x" * 4096] * 100, pause=0.02).receive, [], limit=MB, timeout=0.2)
    # The rest of it cannot be told from a next request.
    assert raised.value.headers == {"connection": "close"}


async def test_a_dripping_body_is_cut_long_before_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_GRACE", 0.1)
    started = time.monotonic()
    with pytest.raises(TooSlow):
        await read_body(Client(*[b"x"] * 1000, pause=0.01).receive, [], limit=MB, timeout=30)
    assert 0.05 < time.monotonic() - started < 2
    assert len(await read_body(Client(*[b"x" * 100] * 30, pause=0.01).receive, [], limit=MB, timeout=30)) == 3000


# Inflating


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def zlibbed(data: bytes) -> bytes:
    return zlib.compress(data)


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"zstd", zstd),
    (b"gzip", gzip.compress),
    (b"X-GZip", gzip.compress),
    (b"deflate", zlibbed),
    (b"deflate", raw),
]
every_coding = pytest.mark.parametrize(("coding", "pack"), CODINGS, ids=["zstd", "gzip", "x-gzip", "zlib", "raw"])


@every_coding
async def test_what_was_packed_comes_back(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TEXT)
    assert len(packed) < len(TEXT)
    assert await read(packed, coding=coding) == TEXT
    assert await read(*(packed[index : index + 1] for index in range(len(packed))), coding=coding) == TEXT
    assert await read(packed, coding=b" identity, " + coding) == TEXT
    assert await read(pack(b""), coding=coding) == b""


@every_coding
async def test_long_bodies_come_back_whole(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    noise = b"".join(zlib.crc32(index.to_bytes(4)).to_bytes(4) for index in range(300_000))
    for data in (noise + noise, b"x" * (65_536 * 40), b"x" * 65_536, b"x" * MB):
        assert await read(pack(data), coding=coding, limit=4 * MB) == data
    # The end of a run may still be inside the inflater when all of its input is gone.
    for length in range(65_536, 65_836):
        assert len(await read(pack(b"x" * length), coding=coding)) == length


async def test_no_coding_is_no_coding() -> None:
    for coding in (b"", b"identity", b" , Identity"):
        assert await read(TEXT, headers=[(b"content-encoding", coding)]) == TEXT


@pytest.mark.parametrize("coding", [b"br", b"gzip, zstd", b"gzip, gzip", b"compress", b"none"])
async def test_other_codings_and_two_of_them_are_415(coding: bytes) -> None:
    with pytest.raises(UnsupportedCoding) as raised:
        await read(TEXT, coding=coding)
    assert raised.value.headers == {"accept-encoding": "zstd, gzip, deflate"}


async def test_two_headers_are_two_codings() -> None:
    with pytest.raises(UnsupportedCoding):
        await read(TEXT, coding=b"gzip", headers=[(b"content-encoding", b"gzip")])


@every_coding
async def test_the_limit_holds_for_what_is_inside(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    assert await read(pack(b"x" * 1000), coding=coding, limit=1000) == b"x" * 1000
    with pytest.raises(TooLarge):
        await read(pack(b"x" * 1001), coding=coding, limit=1000)


@every_coding
async def test_a_bomb_costs_neither_memory_nor_the_loop(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(b"\0" * 200 * MB)
    assert len(bomb) < MB
    pauses: list[float] = []
    watch = asyncio.create_task(watching(pauses))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        await read(bomb, coding=coding, limit=20 * MB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    watch.cancel()
    assert peak < 40 * MB
    assert max(pauses) < 0.5


async def watching(pauses: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.001)
        pauses.append(time.monotonic() - before)


@every_coding
async def test_a_stream_that_stops_short_is_400(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TEXT)
    for end in (0, 1, len(packed) // 2, len(packed) - 1):
        with pytest.raises(InvalidRequest, match="cut short"):
            await read(packed[:end], coding=coding)


@every_coding
async def test_bytes_behind_the_end_are_400(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    for more in (b"x", pack(TEXT), b"x" * 300_000):
        with pytest.raises(InvalidRequest, match="goes on after the end"):
            await read(pack(TEXT) + more, coding=coding)


@every_coding
async def test_nonsense_is_400(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    del pack
    with pytest.raises(InvalidRequest, match=r"not valid|cut short"):
        await read(b"\xff" * 100, coding=coding)


async def test_a_checksum_is_checked() -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-5] ^= 1
    with pytest.raises(InvalidRequest, match="not valid gzip"):
        await read(bytes(packed), coding=b"gzip")


async def test_zstd_windows_over_8_mib_are_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(b"x" * 1000) + packer.flush()
    with pytest.raises(InvalidRequest, match="window larger than 8 MiB"):
        await read(packed, coding=b"zstd")


async def test_a_zstd_frame_that_is_only_skipped_is_no_body() -> None:
    with pytest.raises(InvalidRequest, match="goes on after the end"):
        await read(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(TEXT), coding=b"zstd")


# JSON


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The request has no body. Expected a JSON object."),
        (b" \r\n", "The request has no body. Expected a JSON object."),
        (b"null", "Invalid type for the request body: expected an object, but got null instead."),
        (b" [1]", "Invalid type for the request body: expected an object, but got an array instead."),
        (b'"{}"', "Invalid type for the request body: expected an object, but got a string instead."),
        (b"true", "Invalid type for the request body: expected an object, but got a boolean instead."),
        (b"false", "Invalid type for the request body: expected an object, but got a boolean instead."),
        (b"-1.5", "Invalid type for the request body: expected an object, but got a number instead."),
        (b'{"a": "\xff"}', "The request is not valid JSON: it is not UTF-8 (byte 7)."),
        (b'{"a": ["\xed\xa0\x80"]}', "The request is not valid JSON: it is not UTF-8 (byte 8)."),
    ],
)
def test_what_is_no_object_is_400_and_says_why(data: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        check_json(data)
    assert str(raised.value) == message
    assert (raised.value.param, raised.value.code) in ((None, None), ("body", "invalid_type"))


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"a": 1} x',
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": [{"b": Infinity}]}',
        b'{"a": -Infinity}',
        b'{"a": 01}',
        b'{"a": "\n"}',
        b'{"a": [1}}',
        b'{"a": "\\ud800"}',
        b'{"a": ["\\udc00 and more"]}',
        b'{"a": {"\\ud800\\u0041": 1}}',
        b'{"\\uDBFF": 1}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "never ends',
    ],
)
def test_what_strict_readers_refuse_is_400(data: bytes) -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        check_json(data)


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    """An object that many levels deep, with brackets in strings and escapes all around."""
    noise = r'"[[[\"[", "\\", "{\\\\\"{", "", "\n[", "\u005b["'
    inner = opening * (levels - 2) + closing * (levels - 2)
    return f'{{"x": [{noise}], "a": [{noise}, {inner}, {noise}]}}'.encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k]": ', "}")])
def test_a_hundred_levels_are_enough(opening: str, closing: str) -> None:
    filled = closing if opening == "[" else "1" + closing
    data = nested(100, opening, closing).replace((opening + closing).encode(), (opening + filled).encode())
    json.loads(data)
    check_json(data)
    deeper = nested(101, opening, closing).replace((opening + closing).encode(), (opening + filled).encode())
    with pytest.raises(BadRequest, match="nested deeper than 100 levels"):
        check_json(deeper)


def test_depth_is_followed_over_a_long_way() -> None:
    wide = b'{"a": [' + b"[[]]," * 50_000 + b"[" * 98 + b"]" * 98 + b"]}"
    check_json(wide)
    with pytest.raises(BadRequest, match="nested deeper"):
        check_json(wide.replace(b"[" * 98, b"[" * 99).replace(b"]" * 98, b"]" * 99))


def test_ten_thousand_levels_do_not_reach_the_stack() -> None:
    limit = sys.getrecursionlimit()
    for data in (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[" * MB):
        with pytest.raises(BadRequest):
            check_json(data)
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": [' + b"[]," * (3 * MB) + b"1]}",
        b'{"a": [' + b'"[",' * (2 * MB) + b"1]}",
        b'{"a": "' + b'\\"[' * (3 * MB) + b'"}',
        b'{"a": "' + b'\\"[' * (3 * MB),
        b'{"a": [' + b",".join([b"[" * 90 + b"]" * 90] * 50_000) + b"]}",
    ],
    ids=["wide", "strings", "escapes", "no end", "waves"],
)
def test_no_shape_of_ten_megabytes_takes_more_than_linear_time(data: bytes) -> None:
    started = time.monotonic()
    try:
        check_json(data)
    except BadRequest:
        assert not data.endswith(b"}")
    assert time.monotonic() - started < 3


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)
objects = st.dictionaries(st.text(st.characters(codec="utf-8")), values)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def accepted(data: bytes) -> bool:
    """What the standard library says, with the four rules it does not know."""

    def never(word: str) -> None:
        raise ValueError(word)

    try:
        value = json.loads(data.decode(), parse_constant=never)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return isinstance(value, dict) and depth(value) <= 100


def check(data: bytes) -> bool:
    try:
        check_json(data)
    except BadRequest:
        return False
    return True


@given(objects, st.booleans(), st.integers(0, 104))
def test_json_is_taken_when_the_standard_library_and_our_rules_take_it(
    value: dict[str, object], escaped: bool, levels: int
) -> None:
    wrapped: object = value
    for index in range(levels):
        wrapped = [wrapped] if index % 2 else {"[": wrapped}
    data = json.dumps({"a": wrapped}, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    assert check(data) is accepted(data)


@given(objects, st.data())
def test_a_byte_changed_is_judged_alike(value: dict[str, object], data: st.DataObject) -> None:
    body = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.sampled_from(b'{}[]",:\\ud8c0e-+.19 \n\x00\x1f\x7f\xc3\xff'))
    assert check(bytes(body)) is accepted(bytes(body))


pieces = st.sampled_from(
    [r"\ud83d", r"\ude00", r"\uD800", r"\uDFFF", r"\u0041", r"\\", r"\"", "ud800", "a", "é", "[", "]", r"\n", r"\/"]
)


@given(
    st.lists(pieces).map("".join), st.sampled_from(['{"a": "%s"}', '{"a": ["%s"]}', '{"%s": 1}', '{"a": {"%s": 1}}'])
)
@example(r"\\ud800", '{"a": "%s"}')
def test_halves_of_surrogate_pairs_are_found_wherever_they_are(text: str, shape: str) -> None:
    data = (shape % text).encode()
    assert check(data) is accepted(data)

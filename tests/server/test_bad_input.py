"""What no client should send, and some do: each is refused in the words of the API, and nothing else changes for it.

reliability.md F23, F25, S2, S4, S7 to S10; http.md §6.
"""

import contextlib
import gzip
import http.client
import itertools
import json
import select
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import answer, text
from rejoinder.conformance.upstreams.strictness import OPENAI
from tests.live import LiveServer, LiveUpstream, running
from tests.server.client import NOTHING, Answer, Error, ask, create, received, streamed

KEY = "rj-0123456789abcdefghijklmnopqrstuv"
OTHER_KEY = "rj-vutsrqponmlkjihgfedcba9876543210"

MiB = 2**20

MODEL = b'"model":"test-model"'


@pytest.fixture(scope="module")
def upstream() -> Iterator[ChatUpstream]:
    with ChatUpstream(lambda request: answer(text("hello")), strictness=OPENAI) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def open_server(upstream: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server without keys that waits a second for bytes."""
    with running(
        tmp_path_factory.mktemp("open"),
        upstreams=[LiveUpstream(upstream.base_url)],
        settings={"header_timeout": 1.0, "body_timeout": 1.0},
    ) as server:
        create(server)
        yield server


@pytest.fixture
def server(open_server: LiveServer, upstream: ChatUpstream) -> Iterator[LiveServer]:
    """It must be as well after a test as before."""
    so_far = open_server.log.stat().st_size
    before = memory(open_server)
    yield open_server
    assert create(open_server).response.text == "hello"
    assert streamed(open_server).text == "hello"
    assert memory(open_server) - before < 40 * MiB
    assert '"level":"error"' not in open_server.log.read_text()[so_far:]


@pytest.fixture(scope="module")
def keyed(upstream: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running(
        tmp_path_factory.mktemp("keyed"),
        upstreams=[LiveUpstream(upstream.base_url)],
        keys={"alice": KEY, "bob": OTHER_KEY},
    ) as server:
        yield server
        log = server.log.read_text()
        assert KEY not in log
        assert OTHER_KEY not in log


def memory(server: LiveServer) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def post(server: LiveServer, body: bytes, headers: Mapping[str, str] = NOTHING) -> Answer:
    return ask(server, "POST", "/v1/responses", body, {"content-type": "application/json", **headers})


def with_field(name: str, value: bytes) -> bytes:
    rest = b'"input":"hello"' if name != "input" else b'"store":false'
    model = MODEL if name != "model" else b'"user":"me"'
    return b'{%s,%s,"%s":%s}' % (model, rest, name.encode(), value)


# Bodies that are no request

DEEP = 10_000

NO_OBJECTS: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "null": b"null",
    "an array": b'[{"model":"test-model","input":"hello"}]',
    "a string": b'"hello"',
    "a number": b"17",
    "a boolean": b"true",
    "words": b"hello",
    "half of it": b'{"model":"test-model","input":"hel',
    "two objects": b'{"model":"test-model","input":"hello"}{}',
    "a missing value": b'{"model":,"input":"hello"}',
    "a comment": b'{"model":"test-model","input":"hello"/* please */}',
    "single quotes": b"{'model':'test-model'}",
    "a form": b"model=test-model&input=hello",
    "a byte order mark": b'\xef\xbb\xbf{"model":"test-model","input":"hello"}',
    "UTF-16": '{"model":"test-model","input":"hello"}'.encode("utf-16"),
    "Latin-1": '{"model":"test-model","input":"héllo"}'.encode("latin-1"),
    "half a character": b'{"model":"test-model","input":"\xe2\x82"}',
    "overlong UTF-8": b'{"model":"test-model","input":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"model":"test-model","input":"\xed\xa0\x80"}',
    "half of a pair": rb'{"model":"test-model","input":"\ud800"}',
    "the other half": rb'{"model":"test-model","input":"\udc00 and on"}',
    "half of a pair in a name": rb'{"model":"test-model","input":"hello","\ud800":1}',
    "NaN": b'{"model":"test-model","input":"hello","temperature":NaN}',
    "Infinity": b'{"model":"test-model","input":"hello","temperature":-Infinity}',
    "NUL": b'{"model":"test-model","input":"hel\x00lo"}',
    "a line in a string": b'{"model":"test-model","input":"hel\nlo"}',
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and open": b'{"a":' * DEEP,
    "deep in the input": b'{"model":"test-model","input":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep in a field nobody knows": b'{"model":"test-model","input":"x","y":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep in a tool": b'{"model":"test-model","input":"x","tools":[{"type":"function","name":"f","parameters":'
    + b'{"a":' * DEEP
    + b"1"
    + b"}" * DEEP
    + b"}]}",
}


@pytest.mark.parametrize("body", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_a_body_that_is_no_object_is_a_400(server: LiveServer, upstream: ChatUpstream, body: bytes) -> None:
    asked = len(upstream.requests)
    told = post(server, body)
    assert (told.status, told.error.type) == (400, "invalid_request_error")
    assert len(told.error.message) < 500
    assert len(upstream.requests) == asked


# Parameters

KINDS: dict[str, bytes] = {
    "number": b"1.5",
    "integer": b"7",
    "string": b'"no such value"',
    "boolean": b"true",
    "array": b"[17]",
    "object": b'{"no such":{"field":1}}',
    "below": b"-1",
    "zero": b"0",
    "huge": b"1" + b"0" * 400,
    "exponent": b"1e400",
    "long": b'"' + b"x" * 2000 + b'"',
}

EVERY = frozenset(KINDS)
NUMBERS = frozenset({"number", "integer", "below", "zero", "huge", "exponent"})

REFUSED: dict[str, frozenset[str]] = {
    "model": EVERY - {"string"},
    "input": EVERY - {"string", "long"},
    "instructions": EVERY - {"string", "long"},
    "previous_response_id": EVERY,
    "conversation": EVERY - {"string", "long"},
    "store": EVERY - {"boolean"},
    "background": EVERY - {"boolean"},
    "stream": EVERY - {"boolean"},
    "stream_options": EVERY - {"object"},
    "include": EVERY,
    "max_output_tokens": EVERY - {"integer"},
    "max_tool_calls": EVERY - {"integer"},
    "temperature": EVERY - {"number", "zero"},
    "top_p": EVERY - {"zero"},
    "top_logprobs": EVERY - {"integer", "zero"},
    "presence_penalty": EVERY - {"number", "below", "zero"},
    "frequency_penalty": EVERY - {"number", "below", "zero"},
    "parallel_tool_calls": EVERY - {"boolean"},
    "tools": EVERY,
    "tool_choice": EVERY,
    "text": EVERY - {"object"},
    "reasoning": EVERY - {"object"},
    "truncation": EVERY,
    "context_management": EVERY,
    "metadata": EVERY,
    "prompt": EVERY,
    "prompt_cache_key": EVERY - {"string"},
    "prompt_cache_options": EVERY - {"object"},
    "prompt_cache_retention": EVERY,
    "safety_identifier": EVERY - {"string"},
    "user": EVERY - {"string", "long"},
    "service_tier": EVERY,
    "moderation": EVERY,
    "multi_agent": EVERY,
    "generate": EVERY - {"boolean"},
    "client_metadata": EVERY - {"object"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_of_the_wrong_kind_is_a_400_that_names_the_parameter(
    server: LiveServer, upstream: ChatUpstream, name: str
) -> None:
    asked = len(upstream.requests)
    for kind in sorted(REFUSED[name]):
        told = post(server, with_field(name, KINDS[kind]))
        assert (told.status, told.error.type) == (400, "invalid_request_error"), (kind, told.body)
        assert named(told.error) == name, (kind, told.body)
        assert len(told.error.message) < 600
    assert len(upstream.requests) == asked


def named(error: Error) -> str:
    """The top-level parameter an error is about."""
    return (error.param or "").split(".")[0].split("[")[0]


VALUES: dict[str, tuple[str, bytes, str]] = {
    "half a token": ("max_output_tokens", b"0.5", "max_output_tokens"),
    "no token": ("max_output_tokens", b"0", "max_output_tokens"),
    "half a tool call": ("max_tool_calls", b"0.5", "max_tool_calls"),
    "too hot": ("temperature", b"2.01", "temperature"),
    "a number as text": ("temperature", b'"1"', "temperature"),
    "a boolean as a number": ("max_output_tokens", b"true", "max_output_tokens"),
    "metadata that is no text": ("metadata", b'{"a":1}', "metadata"),
    "long metadata": ("metadata", b'{"a":"%s"}' % (b"x" * 513), "metadata"),
    "a long name in metadata": ("metadata", b'{"%s":"a"}' % (b"x" * 65), "metadata"),
    "much metadata": ("metadata", json.dumps({str(n): "x" for n in range(17)}).encode(), "metadata"),
    "a format without a schema": ("text", b'{"format":{"type":"json_schema","name":"x"}}', "text.format"),
    "a bad name of a format": (
        "text",
        b'{"format":{"type":"json_schema","name":"a b","schema":{}}}',
        "text.format.name",
    ),
    "an unknown format": ("text", b'{"format":{"type":"yaml"}}', "text.format.type"),
    "an unknown effort": ("reasoning", b'{"effort":"heroic"}', "reasoning.effort"),
    "an unknown include": ("include", b'["everything"]', "include[0]"),
    "a tool without a type": ("tools", b"[{}]", "tools[0].type"),
    "a function without a name": ("tools", b'[{"type":"function","parameters":{}}]', "tools[0].name"),
    "a tool that is none": ("tools", b'["get_weather"]', "tools[0]"),
    "a choice of nothing": ("tool_choice", b'{"type":"function"}', "tool_choice"),
    "an item without a type": ("input", b"[{}]", "input[0].type"),
    "an item that is none": ("input", b'["hello"]', "input[0]"),
    "a second item that is none": ("input", b'[{"role":"user","content":"x"},null]', "input[1]"),
    "an unknown role": ("input", b'[{"role":"emperor","content":"x"}]', "input[0].role"),
    "a message without content": ("input", b'[{"role":"user"}]', "input[0].content"),
    "a part without text": (
        "input",
        b'[{"role":"user","content":[{"type":"input_text"}]}]',
        "input[0].content[0].text",
    ),
    "a call without arguments": (
        "input",
        b'[{"type":"function_call","call_id":"c","name":"f"}]',
        "input[0].arguments",
    ),
    "too many items": ("input", b"[%s]" % b",".join([b'{"role":"user","content":"x"}'] * 10_001), "input"),
    "an unknown structure": ("extra_body", b'{"a":1}', "extra_body"),
}


@pytest.mark.parametrize(("name", "value", "param"), VALUES.values(), ids=VALUES)
def test_a_value_outside_of_its_limits_is_a_400_that_names_its_path(
    server: LiveServer, name: str, value: bytes, param: str
) -> None:
    told = post(server, with_field(name, value))
    assert told.status == 400, told.body
    assert (told.error.param or "").startswith(param), told.error
    assert len(told.error.message) < 500


@pytest.mark.parametrize("name", ["model", "input"])
def test_a_missing_parameter_is_named(server: LiveServer, name: str) -> None:
    fields = {"model": "test-model", "input": "hello"}
    del fields[name]
    error = post(server, json.dumps(fields).encode()).error
    assert (error.message, error.param, error.code) == (
        f"Missing required parameter: '{name}'.",
        name,
        "missing_required_parameter",
    )


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "odd",
    [
        "resp_unknown",
        "resp_" + "0" * 32,
        "msg_1",
        "x" * 5000,
        "../../etc/passwd",
        "resp_\x00",
        "resp_' OR 1=1",
        "rés",
        "",
    ],
)
def test_an_odd_previous_response_is_not_found(server: LiveServer, odd: str, stream: bool) -> None:
    error = create(server, previous_response_id=odd, stream=stream).error
    assert error.param == "previous_response_id"
    assert error.code in ("previous_response_not_found", None)
    assert len(error.message) < 400


# Ids in a path

PATHS: dict[str, str] = {
    "unknown": "resp_" + "0" * 32,
    "short": "x",
    "of an item": "msg_" + "0" * 32,
    "a path": "..%2f..%2f..%2fetc%2fpasswd",
    "dots": "%2e%2e",
    "twice encoded": "%252e%252e%252fetc",
    "NUL": "resp_%00",
    "lines": "resp_%0d%0aset-cookie:%20a=b",
    "an escape": "resp_%1b%5b2J",
    "SQL": "resp_%27%20OR%201=1--",
    "not UTF-8": "resp_%ff%fe",
    "not encoding": "resp_%zz",
    "a star": "*",
    "long": "resp_" + "a" * 8000,
    "a null": "null",
}


@pytest.mark.parametrize("odd", PATHS.values(), ids=PATHS)
def test_an_odd_id_is_not_found(server: LiveServer, odd: str) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/input_items"),
        ("GET", "?stream=true"),
        ("POST", "/cancel"),
    ):
        told = ask(server, method, f"/v1/responses/{odd}{path}")
        assert (told.status, told.error.type) == (404, "invalid_request_error")
        assert told.error.message.isprintable()
        assert len(told.error.message) < 400
        assert "set-cookie" not in told.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/responses", 405),
        ("PUT", "/v1/responses/resp_1", 405),
        ("POST", "/v1/responses/", 404),
        ("GET", "/v1/responses/../models", 404),
        ("GET", "//v1/models", 404),
        ("POST", "/v1/chat/completions", 404),
        ("TRACE", "/v1/responses", 405),
    ],
)
def test_a_path_nobody_serves_is_told_in_the_envelope(server: LiveServer, method: str, path: str, status: int) -> None:
    told = ask(server, method, path)
    assert told.status in (status, 404)
    assert told.error.type == "invalid_request_error"
    assert told.error.message.isprintable()


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=1e2", "limit=%D9%A1", "order=sideways", "after=no"]
)
def test_an_odd_page_is_a_400_that_names_the_parameter(server: LiveServer, query: str) -> None:
    kept = create(server).response
    told = ask(server, "GET", f"/v1/responses/{kept.id}/input_items?{query}")
    assert (told.status, told.error.param) == (400, query.split("=")[0])


# Sizes and codings


def test_a_body_that_says_it_is_too_large_is_refused_unread(server: LiveServer) -> None:
    with connected(server) as connection:
        connection.sendall(head("content-length: 200000000"))
        assert received(connection).status == 413


def test_a_body_that_grows_too_large_is_refused_on_the_way(server: LiveServer) -> None:
    with connected(server) as connection:
        connection.sendall(head("transfer-encoding: chunked"))
        sent = trickle(connection, [b"%x\r\n%s\r\n" % (MiB, b" " * MiB)] * 200)
        assert 64 <= sent < 100
        told = received(connection)
        assert (told.status, told.error.type) == (413, "invalid_request_error")


def test_a_body_sent_in_spite_of_its_refusal_is_thrown_away(server: LiveServer) -> None:
    with connected(server) as connection:
        connection.sendall(head("content-length: 200000000"))
        trickle(connection, [b" " * MiB] * 190)


def trickle(connection: socket.socket, pieces: Iterable[bytes]) -> int:
    """Send until there is an answer or nobody listens; says how many pieces were taken."""
    sent = 0
    connection.settimeout(0.5)
    with contextlib.suppress(OSError):
        for piece in pieces:
            if readable(connection):
                break
            connection.sendall(piece)
            sent += 1
    connection.settimeout(10)
    return sent


def readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def blanks(coding: str, size: int) -> bytes:
    """A request that is nearly nothing, and very long."""
    return packed(coding, b'{"model":"test-model","input":"' + b" " * size)


def packed(coding: str, body: bytes) -> bytes:
    match coding:
        case "gzip":
            return gzip.compress(body, 1)
        case "deflate":
            return zlib.compress(body, 1)
        case _:
            return zstandard.ZstdCompressor().compress(body)


GOOD = b'{"model":"test-model","input":"hello"}'
CODINGS = pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])


@CODINGS
def test_a_bomb_is_refused_before_it_is_large(server: LiveServer, coding: str) -> None:
    bomb = blanks(coding, 100 * MiB)
    assert len(bomb) < MiB
    told = post(server, bomb, {"content-encoding": coding})
    assert (told.status, told.error.type) == (413, "invalid_request_error")


@CODINGS
def test_a_bomb_of_bombs_is_not_opened(server: LiveServer, coding: str) -> None:
    twice = packed(coding, blanks(coding, 8 * MiB))
    assert post(server, twice, {"content-encoding": f"{coding}, {coding}"}).status == 415
    assert post(server, twice, {"content-encoding": coding}).status == 400


@CODINGS
def test_a_packed_body_must_be_whole_and_alone(server: LiveServer, coding: str) -> None:
    good = packed(coding, GOOD)
    assert post(server, good, {"content-encoding": coding.upper()}).status == 200
    for bad in (
        good[:-1],
        good[: len(good) // 2],
        good + good,
        good + b"x",
        b"",
        GOOD,
        b"\0" * 100,
        good[:-3] + b"abc",
    ):
        told = post(server, bad, {"content-encoding": coding})
        assert (told.status, told.error.type) == (400, "invalid_request_error")


def test_a_window_of_zstd_that_takes_too_much_memory_is_refused(server: LiveServer) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    told = post(server, wide.compress(GOOD * 10) + wide.flush(), {"content-encoding": "zstd"})
    assert (told.status, told.error.type) == (400, "invalid_request_error")


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "deflate, gzip", "identity, br", "exi", "gzip;q=1", "*"])
def test_a_coding_nobody_here_reads_is_a_415(server: LiveServer, coding: str) -> None:
    told = post(server, GOOD, {"content-encoding": coding})
    assert (told.status, told.error.type) == (415, "invalid_request_error")
    assert "zstd" in told.headers["accept-encoding"]


# Heads


@contextlib.contextmanager
def connected(server: LiveServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        yield connection


def head(*headers: str, line: str = "POST /v1/responses HTTP/1.1", host: str | None = "127.0.0.1") -> bytes:
    named = () if host is None else (f"host: {host}",)
    return "\r\n".join((line, *named, *headers, "", "")).encode("latin-1")


LENGTH = f"content-length: {len(GOOD)}"

HEADS: dict[str, tuple[bytes, int]] = {
    "two lengths": (head(LENGTH, "content-length: 5") + GOOD, 400),
    "one length twice": (head(LENGTH, LENGTH) + GOOD, 400),
    "a list of lengths": (head(f"{LENGTH}, {len(GOOD)}") + GOOD, 400),
    "a length and chunks": (head(LENGTH, "transfer-encoding: chunked") + b"0\r\n\r\n", 400),
    "a negative length": (head("content-length: -1"), 400),
    "a length in hex": (head("content-length: 0x26") + GOOD, 400),
    "a length with a plus": (head("content-length: +38") + GOOD, 400),
    "an endless length": (head("content-length: " + "9" * 40), 400),
    "a transfer coding": (head("transfer-encoding: gzip, chunked") + b"0\r\n\r\n", 400),
    "two transfer codings": (head("transfer-encoding: chunked", "transfer-encoding: chunked") + b"0\r\n\r\n", 400),
    "a bad chunk": (head("transfer-encoding: chunked") + b"zz\r\n\r\n", 400),
    "a negative chunk": (head("transfer-encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n", 400),
    "200 headers": (head(*(f"x-{n}: {n}" for n in range(200)), LENGTH) + GOOD, 431),
    "a large header": (head("x-large: " + "x" * 100_000, LENGTH) + GOOD, 431),
    "a large path": (head(line=f"GET /v1/responses/{'x' * 100_000} HTTP/1.1"), 431),
    "a folded header": (head("x-a: b\r\n c", LENGTH) + GOOD, 400),
    "a header without a colon": (head("nonsense", LENGTH) + GOOD, 400),
    "a blank before the colon": (head("x-a : b", LENGTH) + GOOD, 400),
    "NUL in a header": (head("x-a: \0", LENGTH) + GOOD, 400),
    "bare line feeds": (head(LENGTH).replace(b"\r\n", b"\n") + GOOD, 400),
    "no host": (head(LENGTH, host=None) + GOOD, 400),
    "two hosts": (head("host: localhost", LENGTH) + GOOD, 400),
    "a host with a path": (head(LENGTH, host="127.0.0.1/v1/models?") + GOOD, 400),
    "a host with a user": (head(LENGTH, host="a@127.0.0.1") + GOOD, 400),
    "a foreign host": (head(LENGTH, host="attacker.example:8080") + GOOD, 403),
    "a host that looks local": (head(LENGTH, host="127.0.0.1.attacker.example") + GOOD, 403),
    "a host that looks local too": (head(LENGTH, host="localhost.attacker.example") + GOOD, 403),
    "an open address": (head(LENGTH, host="0.0.0.0") + GOOD, 403),
    "a foreign origin": (head(LENGTH, "origin: https://attacker.example") + GOOD, 403),
    "an origin of a file": (head(LENGTH, "origin: null") + GOOD, 403),
    "an origin that looks local": (head(LENGTH, "origin: http://localhost.attacker.example") + GOOD, 403),
    "two origins": (head(LENGTH, "origin: http://localhost", "origin: https://attacker.example") + GOOD, 403),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    "no protocol": (b"hello\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a proxy": (head(line="CONNECT example.com:443 HTTP/1.1"), 400),
}


@pytest.mark.parametrize(("sent", "status"), HEADS.values(), ids=HEADS)
def test_a_head_that_breaks_a_rule_is_refused(
    server: LiveServer, upstream: ChatUpstream, sent: bytes, status: int
) -> None:
    asked = len(upstream.requests)
    with connected(server) as connection:
        connection.sendall(sent)
        told = received(connection)
    assert (told.status, told.error.type) == (status, "invalid_request_error")
    assert len(upstream.requests) == asked


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost"},
        {"host": "LOCALHOST:80"},
        {"host": "[::1]:8080"},
        {"host": "127.8.8.8"},
        {"origin": "http://localhost:5173"},
        {"origin": "http://[::1]"},
        {"origin": "https://127.0.0.1"},
        {"authorization": "Bearer anything"},
        {"upgrade": "h2c", "connection": "upgrade"},
        {"expect": "100-continue"},
    ],
    ids=str,
)
def test_what_is_unusual_and_right_is_served(server: LiveServer, headers: Mapping[str, str]) -> None:
    lines = [f"{name}: {value}" for name, value in headers.items() if name != "host"]
    with connected(server) as connection:
        connection.sendall(head(LENGTH, *lines, host=headers.get("host", "127.0.0.1")) + GOOD)
        assert received(connection).status == 200


# Slow senders (F25)


SLOW: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b"\r\n"),
    "in the line": (b"POST /", b"x"),
    "in the head": (head(LENGTH)[:-2] + b"x-", b"x"),
    "before the body": (head(LENGTH), GOOD),
    "in the body": (head(LENGTH) + GOOD[:5], GOOD[5:]),
    "in a chunk": (head("transfer-encoding: chunked") + b"ff\r\n{", b" "),
    "between chunks": (head("transfer-encoding: chunked") + b"1\r\n{\r\n", b"00"),
    "in a packed body": (head("content-length: 1000", "content-encoding: gzip"), gzip.compress(GOOD)),
}


def test_a_sender_that_takes_too_long_is_told_and_left(server: LiveServer) -> None:
    with contextlib.ExitStack() as stack:
        waiting: dict[str, tuple[socket.socket, Iterator[int]]] = {}
        for name, (start, drip) in SLOW.items():
            for drips in (b"", drip):
                connection = stack.enter_context(connected(server))
                connection.sendall(start)
                waiting[f"{name}, {'drips' if drips else 'stops'}"] = connection, itertools.cycle(drips)
        started = monotonic()
        while waiting:
            assert monotonic() - started < 4, f"nobody was told: {', '.join(waiting)}"
            sleep(0.15)
            for name, (connection, bytes_to_come) in list(waiting.items()):
                if readable(connection):
                    told = received(connection)
                    assert (told.status, told.error.type) == (408, "invalid_request_error"), name
                    assert monotonic() - started > 0.8, name
                    del waiting[name]
                else:
                    # One byte at a time, so that something always happens.
                    connection.sendall(bytes(itertools.islice(bytes_to_come, 1)))


def test_a_client_that_was_told_it_is_slow_is_left(server: LiveServer) -> None:
    with connected(server) as connection:
        connection.sendall(head(LENGTH) + GOOD[:5])
        assert received(connection).headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_slow_senders_harm_nobody_else(server: LiveServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(connected(server))
            connection.sendall(head(LENGTH) + GOOD[:5])
        started = monotonic()
        assert create(server).status == 200
        assert monotonic() - started < 0.5


# Keys


def authorized(server: LiveServer, *headers: str, line: str = "POST /v1/responses HTTP/1.1") -> Answer:
    with connected(server) as connection:
        connection.sendall(head(LENGTH, *headers, line=line) + GOOD)
        return received(connection)


WRONG_KEYS: dict[str, tuple[str, ...]] = {
    "none": (),
    "empty": ("authorization:",),
    "only the scheme": ("authorization: Bearer",),
    "another": ("authorization: Bearer rj-wrong",),
    "a part of it": (f"authorization: Bearer {KEY[:-1]}",),
    "more than it": (f"authorization: Bearer {KEY}x",),
    "in capitals": (f"authorization: Bearer {KEY.upper()}",),
    "another scheme": (f"authorization: Basic {KEY}",),
    "no scheme": (f"authorization: {KEY}",),
    "twice": (f"authorization: Bearer {KEY}", f"authorization: Bearer {KEY}"),
    "after a wrong one": ("authorization: Bearer rj-wrong", f"authorization: Bearer {KEY}"),
    "two in one": (f"authorization: Bearer {KEY}, Bearer {KEY}",),
    "two words": (f"authorization: Bearer {KEY} {KEY}",),
    "not ASCII": ("authorization: Bearer \xff\xfe",),
    "in another header": (f"x-api-key: {KEY}", f"api-key: {KEY}", f"cookie: authorization={KEY}"),
}


@pytest.mark.parametrize("headers", WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_without_exactly_one_key_of_ours_nothing_is_told(
    keyed: LiveServer, upstream: ChatUpstream, headers: Sequence[str]
) -> None:
    asked = len(upstream.requests)
    answers = [
        authorized(keyed, *headers, line=f"{line} HTTP/1.1")
        for line in (
            "POST /v1/responses",
            "GET /v1/responses/resp_1",
            "DELETE /v1/responses/resp_1",
            "GET /v1/models",
            "GET /no/such/path",
            "PATCH /v1/responses",
            f"POST /v1/responses?api_key={KEY}",
            "GET /health/../v1/models",
            "GET //health",
        )
    ]
    for told in answers:
        assert (told.status, told.error.type) == (401, "invalid_request_error")
        assert told.headers["www-authenticate"] == "Bearer"
        assert KEY[:10] not in told.body.decode()
    assert len({told.body for told in answers}) == 1, "what is there and what is not look the same"
    assert len(upstream.requests) == asked


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_opens(keyed: LiveServer, scheme: str) -> None:
    assert authorized(keyed, f"authorization: {scheme} {KEY}").status == 200


def test_a_server_with_keys_may_have_any_name(keyed: LiveServer) -> None:
    for extra in ({"host": "rejoinder.example"}, {"origin": "https://app.example"}):
        assert create(keyed, {"authorization": f"Bearer {KEY}", **extra}).status == 200


def test_health_needs_no_key(keyed: LiveServer) -> None:
    assert ask(keyed, "GET", "/health").status == 200


def test_a_response_of_somebody_else_looks_like_none(keyed: LiveServer) -> None:
    mine, theirs = ({"authorization": f"Bearer {key}"} for key in (KEY, OTHER_KEY))
    kept = create(keyed, mine).response
    unknown = f"resp_{'0' * 32}"
    for method, path in (("GET", ""), ("GET", "/input_items"), ("DELETE", "")):
        foreign = ask(keyed, method, f"/v1/responses/{kept.id}{path}", headers=theirs)
        absent = ask(keyed, method, f"/v1/responses/{unknown}{path}", headers=theirs)
        assert foreign.status == absent.status == 404
        assert foreign.body.replace(kept.id.encode(), b"") == absent.body.replace(unknown.encode(), b"")
        assert foreign.headers.keys() == absent.headers.keys()
    for stream in (False, True):
        following = create(keyed, theirs, previous_response_id=kept.id, stream=stream)
        assert (following.status, following.error.code) == (400, "previous_response_not_found")
    item = kept.output[0].id
    referring = create(keyed, theirs, input=[{"type": "item_reference", "id": item}])
    assert referring.status == 400
    assert create(keyed, mine, previous_response_id=kept.id).status == 200


# Anything at all (hypothesis)

WORDS = st.text(max_size=12)
ANYTHING: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


def some(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Objects that hold any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def one(type: str, **fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Objects of this type that hold all of these fields."""
    return st.fixed_dictionaries({"type": st.just(type), **fields})


def spoilt(body: object, path: Sequence[int], value: object) -> object:
    """The body with something else at some place."""
    if not path or not isinstance(body, dict | list) or not body:
        return value
    if isinstance(body, list):
        place = path[0] % len(body)
        return [*body[:place], spoilt(body[place], path[1:], value), *body[place + 1 :]]
    name = list(body)[path[0] % len(body)]
    return {**body, name: spoilt(body[name], path[1:], value)}


CALL_IDS = st.sampled_from(["call_1", "call_2", "call_3", "x" * 65])
NAMES = st.sampled_from(["get_weather", "get weather", "", "x" * 65, "shell"])
PART = st.one_of(
    one("input_text", text=WORDS),
    one("output_text", text=WORDS, annotations=st.just([])),
    one("refusal", refusal=WORDS),
    one("input_image", image_url=st.sampled_from(["https://a.example/b.png", "data:image/png;base64,AAAA", "b.png"])),
    one("input_file", file_data=WORDS, filename=WORDS),
)
CONTENT = WORDS | st.lists(PART, max_size=3)
ARGUMENTS = st.sampled_from(["{}", '{"a":1}', "", "nonsense", "[1]"])
ACTION = one("exec", command=st.lists(WORDS, max_size=2))
SUMMARY = st.lists(one("summary_text", text=WORDS), max_size=2)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer"]), "content": CONTENT}
)
ITEM = st.one_of(
    MESSAGE,
    one("function_call", call_id=CALL_IDS, name=NAMES, arguments=ARGUMENTS),
    one("function_call_output", call_id=CALL_IDS, output=CONTENT),
    one("custom_tool_call", call_id=CALL_IDS, name=NAMES, input=WORDS),
    one("custom_tool_call_output", call_id=CALL_IDS, output=CONTENT),
    one("local_shell_call", id=CALL_IDS, call_id=CALL_IDS, action=ACTION, status=st.just("completed")),
    one("local_shell_call_output", id=CALL_IDS, output=WORDS),
    one("shell_call", call_id=CALL_IDS, action=st.fixed_dictionaries({"commands": st.lists(WORDS, max_size=2)})),
    one("apply_patch_call_output", call_id=CALL_IDS, status=st.just("completed")),
    one("reasoning", id=st.just("rs_1"), summary=SUMMARY),
    one("reasoning", summary=SUMMARY, encrypted_content=WORDS),
    one("item_reference", id=WORDS),
    one("additional_tools", tools=st.just([])),
    one("compaction", encrypted_content=WORDS),
    one("web_search_call", status=st.just("completed")),
    one("hologram", light=ANYTHING),
)
PAIR = st.builds(
    lambda call_id, name, arguments, output: [
        {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments},
        {"type": "function_call_output", "call_id": call_id, "output": output},
    ],
    CALL_IDS,
    NAMES,
    ARGUMENTS,
    CONTENT,
)
INPUT = st.lists(PAIR | st.lists(ITEM, max_size=2), max_size=4).map(lambda runs: [item for run in runs for item in run])
TOOL = st.one_of(
    one("function", name=NAMES, parameters=st.just({"type": "object", "properties": {}}), strict=st.booleans()),
    one("custom", name=NAMES, description=WORDS),
    one("local_shell"),
    one("shell"),
    one("apply_patch"),
    one("web_search"),
    one("namespace", name=NAMES, description=WORDS, tools=st.just([])),
    one("hologram", name=NAMES),
)
BODY = st.fixed_dictionaries(
    {"model": st.just("test-model"), "input": WORDS | INPUT},
    optional={
        "instructions": WORDS,
        "tools": st.lists(TOOL, max_size=3),
        "tool_choice": st.sampled_from(["none", "auto", "required", {"type": "function", "name": "get_weather"}]),
        "text": some(
            format=st.sampled_from([{"type": "text"}, {"type": "json_object"}])
            | one("json_schema", name=NAMES, schema=st.dictionaries(WORDS, ANYTHING, max_size=2)),
            verbosity=st.sampled_from(["low", "high"]),
        ),
        "reasoning": some(effort=st.sampled_from(["low", "none"]), summary=st.just("auto")),
        "metadata": st.dictionaries(WORDS, WORDS, max_size=2),
        "temperature": st.floats(0, 2),
        "max_output_tokens": st.integers(1, 2**60),
        "parallel_tool_calls": st.booleans(),
        "truncation": st.sampled_from(["auto", "disabled"]),
        "include": st.just(["reasoning.encrypted_content"]),
        "stream": st.booleans(),
        "store": st.booleans(),
        "user": WORDS,
        "service_tier": st.sampled_from(["auto", "flex"]),
        "nonsense": st.booleans(),
    },
)
SPOILT = st.builds(spoilt, BODY, st.lists(st.integers(0, 20), max_size=6), ANYTHING)


def test_no_body_is_an_error_of_the_server(server: LiveServer) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:

        @settings(max_examples=250, database=None)
        @given(BODY | SPOILT | ANYTHING)
        def send(body: object) -> None:
            connection.request("POST", "/v1/responses", json.dumps(body).encode())
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            told = Answer(response.status, headers, response.read())
            assert told.status == 200 or 400 <= told.status < 500, told.body
            if told.status != 200:
                assert told.error.message

        send()

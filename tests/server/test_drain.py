"""A server that is asked to end: what runs ends in order, and nothing new begins (reliability.md F10)."""

import contextlib
import http.client
import json
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic, sleep

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Trouble, answer, raw, silence, text
from tests.live import SERVER, LiveServer, LiveUpstream, running
from tests.server.client import CODEX, ask, create, get, posted, received, streamed, streaming
from tests.server.impatient import IMPATIENT
from tests.server.site import Json

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])

SLOW = answer(text(*"abcdefgh"), gap=0.1)
STUCK = answer(text("Hel", "lo"), trouble=Trouble("stall", 2))


@pytest.fixture
def upstream() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


def serving(
    directory: Path, upstream: ChatUpstream, *, drain: float, command: Sequence[str] = SERVER
) -> AbstractContextManager[LiveServer]:
    return running(
        directory, upstreams=[LiveUpstream(upstream.base_url)], settings={"drain_timeout": drain}, command=command
    )


def ended(server: LiveServer, *, within: float) -> int:
    """The exit status of a process that was sent a signal and must now end by itself, within some seconds."""
    deadline = monotonic() + within
    while "State:\tZ" not in Path(f"/proc/{server.pid}/status").read_text():
        assert monotonic() < deadline, server.log.read_text()
        sleep(0.01)
    return server.terminate()


@SIGNALS
def test_running_turns_finish_and_new_ones_are_refused(
    tmp_path: Path, upstream: ChatUpstream, number: signal.Signals
) -> None:
    upstream.follow(lambda request: SLOW)
    with serving(tmp_path, upstream, drain=10) as server, ThreadPoolExecutor(5) as pool:
        streams = [pool.submit(streamed, server) for _ in range(3)]
        # A plain answer is asked for whole, so the provider lets it wait.
        upstream.follow(lambda request: answer(text("abcdefgh"), delay=0.8))
        plain = [pool.submit(create, server) for _ in range(2)]
        upstream.wait(5)
        os.kill(server.pid, number)
        refusals = [refused(server) for _ in range(20)]
        assert [stream.result().text for stream in streams] == ["abcdefgh"] * 3
        assert [stream.result().events[-1].type for stream in streams] == ["response.completed"] * 3
        assert [one.result().response.text for one in plain] == ["abcdefgh"] * 2
        assert ended(server, within=2) == 0
        assert len(upstream.requests) == 5
        assert refusals[-1] == "no connection"
        server.start()
        for stream in streams:
            assert get(server, stream.result().id).response == stream.result().events[-1].whole
        for one in plain:
            assert get(server, one.result().response.id).body == one.result().body


def refused(server: LiveServer) -> str:
    """How new work is refused: at the door, or with an answer that says when to come again."""
    sleep(0.01)
    try:
        told = create(server)
        codex = create(server, CODEX, stream=True)
        health = ask(server, "GET", "/health")
    except (OSError, http.client.HTTPException):
        return "no connection"
    assert (told.status, told.error.code) == (503, "server_is_overloaded")
    assert int(told.headers["retry-after"]) >= 1
    assert (codex.status, codex.headers["retry-after"]) == (429, told.headers["retry-after"])
    assert health.status == 503
    return "503"


def test_a_connection_that_was_open_before_is_told_too(tmp_path: Path, upstream: ChatUpstream) -> None:
    upstream.follow(lambda request: SLOW)
    with serving(tmp_path, upstream, drain=10) as server, streaming(server) as stream:
        stream.until("response.created")
        with posted(server, previous_response_id="resp_unknown") as kept:
            assert received(kept).status == 400
            os.kill(server.pid, signal.SIGTERM)
            body = b'{"model":"test","input":"hello"}'
            head = b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body)
            kept.sendall(head + body)
            # It was idle, so that it may be closed instead.
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert received(kept).status == 503
        assert stream.rest().type == "response.completed"
        assert ended(server, within=2) == 0
    assert len(upstream.requests) == 1


@SIGNALS
def test_what_outlasts_the_drain_fails_in_order(tmp_path: Path, upstream: ChatUpstream, number: signal.Signals) -> None:
    upstream.follow([STUCK, silence(), silence(), STUCK, silence(after_head=True)])
    with serving(tmp_path, upstream, drain=0.5) as server, ThreadPoolExecutor(4) as pool:
        stuck = pool.submit(streamed, server)
        upstream.wait(1)
        waiting = pool.submit(create, server, stream=True)
        upstream.wait(2)
        codex = pool.submit(create, server, CODEX, stream=True)
        upstream.wait(3)
        plain = pool.submit(create, server)
        upstream.wait(4)
        started = monotonic()
        os.kill(server.pid, number)
        last = stuck.result().events[-1]
        assert 0.4 < monotonic() - started < 1.5
        assert last.whole.error is not None
        assert (last.type, last.whole.error.code, last.whole.text) == ("response.failed", "server_error", "Hel")
        assert "shutting down" in last.whole.error.message
        for told in (waiting.result(), plain.result()):
            assert (told.status, told.error.code, told.error.type) == (503, "server_error", "server_error")
            assert "shutting down" in told.error.message
        assert (codex.result().status, codex.result().headers["retry-after"]) == (429, "1")
        assert ended(server, within=2) == 0
        assert all(request.left.wait(1) for request in upstream.requests)
        server.start()
        assert get(server, last.whole.id).response == last.whole
        assert create(server, previous_response_id=last.whole.id).error.code == "previous_response_not_found"


def test_a_client_that_does_not_read_cannot_keep_the_server_from_ending(tmp_path: Path, upstream: ChatUpstream) -> None:
    upstream.follow([raw(*[b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % (b"x" * 65536)] * 1000)])
    with serving(tmp_path, upstream, drain=0.2, command=IMPATIENT) as server:
        with posted(server, stream=True):
            upstream.wait(1)
            sleep(0.3)
            os.kill(server.pid, signal.SIGTERM)
            assert ended(server, within=4) == 0
        assert upstream.requests[0].left.wait(1)


def test_background_responses_nobody_waits_for_have_their_time_too(tmp_path: Path, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("whole"), delay=0.6), silence()])
    with serving(tmp_path, upstream, drain=2) as server:
        finishes, outlasts = (create(server, background=True).response.id for _ in range(2))
        upstream.wait(2)
        begun = monotonic()
        os.kill(server.pid, signal.SIGTERM)
        assert ended(server, within=6) == 0
        assert 1.5 < monotonic() - begun < 4
        server.start()
        assert get(server, finishes).response.text == "whole"
        failed = get(server, outlasts).response
        assert failed.status == "failed"
        assert failed.error is not None
        assert "shutting down" in failed.error.message


def test_a_follower_is_told_how_a_background_response_ends_in_a_drain(tmp_path: Path, upstream: ChatUpstream) -> None:
    upstream.follow([STUCK])
    with serving(tmp_path, upstream, drain=0.5) as server:
        with streaming(server, background=True) as stream:
            stream.until("response.output_text.delta")
            os.kill(server.pid, signal.SIGTERM)
            last = stream.rest()
        assert (last.type, last.whole.status) == ("response.failed", "failed")
        assert ended(server, within=5) == 0
        server.start()
        assert get(server, last.whole.id).response == last.whole


@contextlib.contextmanager
def socket_of(server: LiveServer) -> Iterator[Connection]:
    url = f"{server.base_url}/responses".replace("http", "ws", 1)
    with connect(url, compression=None, max_size=None, proxy=None) as connection:
        yield connection


def say(connection: Connection, **fields: object) -> None:
    connection.send(json.dumps({"type": "response.create", "model": "test", "input": "hello", **fields}))


def hear(connection: Connection, kind: str) -> Json:
    """The next message of this type."""
    while True:
        message = json.loads(connection.recv(timeout=5))
        if message["type"] == kind:
            return message


def goodbye(connection: Connection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(timeout=5)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@SIGNALS
def test_over_a_websocket_running_turns_finish_and_then_it_is_closed(
    tmp_path: Path, upstream: ChatUpstream, number: signal.Signals
) -> None:
    upstream.follow([SLOW])
    with serving(tmp_path, upstream, drain=10) as server:
        with socket_of(server) as busy, socket_of(server) as idle:
            say(busy, stream_id="a")
            hear(busy, "response.output_text.delta")
            os.kill(server.pid, number)
            assert goodbye(idle) == (1001, "the server is shutting down")
            say(busy, stream_id="b")
            refusal = hear(busy, "error")
            assert (refusal["status"], refusal["stream_id"]) == (503, "b")
            assert refusal["error"]["code"] == "server_is_overloaded"
            done = hear(busy, "response.completed")["response"]
            assert goodbye(busy) == (1001, "the server is shutting down")
        assert ended(server, within=2) == 0
        server.start()
        assert json.loads(get(server, done["id"]).body) == done


def test_over_a_websocket_what_outlasts_the_drain_fails_in_order(tmp_path: Path, upstream: ChatUpstream) -> None:
    upstream.follow([STUCK, silence()])
    with serving(tmp_path, upstream, drain=0.5) as server:
        with socket_of(server) as connection:
            say(connection, stream_id="a")
            hear(connection, "response.output_text.delta")
            say(connection, stream_id="b")
            upstream.wait(2)
            os.kill(server.pid, signal.SIGTERM)
            told: dict[str, Json] = {}
            while len(told) < 2 or told["a"]["type"] != "response.failed":
                message = json.loads(connection.recv(timeout=5))
                told[message["stream_id"]] = message
            assert told["a"]["response"]["error"]["code"] == "server_error"
            assert (told["b"]["type"], told["b"]["status"]) == ("error", 503)
            assert goodbye(connection) == (1001, "the server is shutting down")
        assert ended(server, within=2) == 0
        assert all(request.left.wait(1) for request in upstream.requests)


def test_an_idle_server_ends_at_once(tmp_path: Path, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("hello"))])
    with serving(tmp_path, upstream, drain=10) as server, posted(server) as kept:
        assert received(kept).status == 200
        os.kill(server.pid, signal.SIGTERM)
        assert ended(server, within=1) == 0


def test_a_second_server_on_the_same_store_does_not_start(tmp_path: Path, upstream: ChatUpstream) -> None:
    upstream.follow(lambda request: answer(text("hello")))
    (tmp_path / "second").mkdir()
    with serving(tmp_path, upstream, drain=10) as first:
        kept = create(first).response
        with (
            pytest.raises(RuntimeError, match=f"is open in another server, process {first.pid}") as refusal,
            running(tmp_path / "second", store=f"disk:{tmp_path / 'store'}"),
        ):
            pytest.fail("it cannot have started")
        assert "status 0" not in str(refusal.value)
        assert "Traceback" not in str(refusal.value)
        assert get(first, kept.id).response == kept
        assert create(first, previous_response_id=kept.id).status == 200

"""What a provider, a client and a disk can do to a turn, and how it ends (reliability.md §5; codex.md §9)."""

import contextlib
import datetime
import ipaddress
import json
import random
import resource
import shutil
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.live import LiveServer, LiveUpstream, running
from tests.server.client import CODEX, NOTHING, ask, create, get, posted, received, streamed, streaming
from tests.server.impatient import IMPATIENT
from tests.upstreams.chat import ChatUpstream
from tests.upstreams.script import (
    Action,
    Head,
    HttpError,
    Step,
    Trouble,
    answer,
    call,
    calls,
    death,
    raw,
    silence,
    text,
)
from tests.upstreams.sent import SentChat

UPSTREAM_SECRET = "sk-UPSTREAM-SECRET-5f2e7c90b1"
PLAIN_SECRET = "moonlit-harbour-77"
"""A key that looks like none: what local servers are given."""

WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}

MiB = 2**20


class Landing:
    """A place that counts who comes, and hangs up. With `tls` it first shows a certificate nobody vouches for."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.visitors = 0
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):  # the end of the listener
            while True:
                visitor, _ = self._listener.accept()
                self.visitors += 1
                with contextlib.suppress(OSError), visitor:
                    if self._tls is not None:
                        self._tls.wrap_socket(visitor, server_side=True)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread up
        self._listener.close()


def self_signed(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landing]:
    landing = Landing()
    yield landing
    landing.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream(key=UPSTREAM_SECRET) as provider:
        yield provider


@pytest.fixture
def upstream(provider: ChatUpstream) -> ChatUpstream:
    provider.requests.clear()
    provider.follow(())
    return provider


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose deadlines are too long to matter here."""
    directory = tmp_path_factory.mktemp("faults")
    liar = Landing(self_signed(directory))
    closed = Landing()
    closed.close()
    upstreams = [
        LiveUpstream(provider.base_url, key=UPSTREAM_SECRET),
        LiveUpstream(provider.base_url, name="plain", models=["plain"], key=PLAIN_SECRET),
        LiveUpstream(f"http://127.0.0.1:{closed.port}/v1", name="closed", models=["closed"]),
        LiveUpstream(f"https://127.0.0.1:{liar.port}/v1", name="liar", models=["liar"]),
    ]
    with running(directory, upstreams=upstreams) as server:
        yield server
    liar.close()


@pytest.fixture(scope="module")
def impatient(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that waits for nothing long."""
    with running(
        tmp_path_factory.mktemp("impatient"),
        upstreams=[LiveUpstream(provider.base_url, key=UPSTREAM_SECRET)],
        settings={"first_byte_timeout": 2.0, "stall_timeout": 2.0},
        command=IMPATIENT,
    ) as server:
        yield server


def idle(server: LiveServer) -> bool:
    """Whether no turn runs, at the latest in a second."""
    deadline = monotonic() + 1
    while ask(server, "GET", "/health").body.find(b'"running":0') < 0:
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True


# F4: errors before the first byte


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the provider says, and what it becomes: for SDKs, and for Codex as (status, retry-after)."""

    step: Step
    status: int
    code: str | None
    codex: tuple[int, str | None]
    headers: Mapping[str, str] = field(default_factory=dict)
    type: str = "invalid_request_error"


SERVER = "server_error"

REFUSALS = {
    "400": Refusal(HttpError(400, "no such knob", param="temperature"), 400, None, (400, None)),
    "overflow": Refusal(
        HttpError(400, "This model's maximum context length is 8192 tokens."),
        400,
        "context_length_exceeded",
        (400, None),
    ),
    "401": Refusal(
        HttpError(401, "Incorrect API key"), 502, SERVER, (400, None), {"x-should-retry": "false"}, type=SERVER
    ),
    "403": Refusal(HttpError(403, "not allowed"), 502, SERVER, (400, None), {"x-should-retry": "false"}, type=SERVER),
    "404": Refusal(
        HttpError(404, "The model does not exist", code="model_not_found"), 400, "model_not_found", (404, None)
    ),
    "408": Refusal(HttpError(408), 504, SERVER, (429, "1"), type=SERVER),
    "409": Refusal(HttpError(409), 409, None, (429, "1")),
    "413": Refusal(HttpError(413), 413, None, (400, None)),
    "422": Refusal(HttpError(422), 422, None, (400, None)),
    "429": Refusal(
        HttpError(429, "slow down", headers={"retry-after": "7"}),
        429,
        "rate_limit_exceeded",
        (429, "7"),
        {"retry-after": "7"},
        type="requests",
    ),
    "429 without a hint": Refusal(
        HttpError(429, "slow down"), 429, "rate_limit_exceeded", (429, "1"), {"retry-after": "1"}, type="requests"
    ),
    "429 in milliseconds": Refusal(
        HttpError(429, "slow down", headers={"retry-after-ms": "1500"}),
        429,
        "rate_limit_exceeded",
        (429, "2"),
        {"retry-after": "2"},
        type="requests",
    ),
    "no money": Refusal(
        HttpError(429, "You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"),
        429,
        "insufficient_quota",
        (429, None),
        {"x-should-retry": "false"},
        type="insufficient_quota",
    ),
    "500": Refusal(HttpError(500, "oops", type="server_error"), 502, SERVER, (429, "1"), type=SERVER),
    "502": Refusal(HttpError(502), 502, SERVER, (429, "1"), type=SERVER),
    "503": Refusal(
        HttpError(503, headers={"retry-after": "20"}), 503, SERVER, (429, "20"), {"retry-after": "20"}, type=SERVER
    ),
    "504": Refusal(HttpError(504), 504, SERVER, (429, "1"), type=SERVER),
    "529": Refusal(HttpError(529), 503, SERVER, (429, "1"), type=SERVER),
    "redirect": Refusal(
        HttpError(302, headers={"location": "http://127.0.0.1:9/"}), 502, SERVER, (429, "1"), type=SERVER
    ),
    "a page": Refusal(HttpError(500, raw=b"<html><h1>Bad gateway</h1></html>"), 502, SERVER, (429, "1"), type=SERVER),
    "gone before the head": Refusal(death("before_head"), 502, SERVER, (429, "1"), type=SERVER),
    "reset before the head": Refusal(death("before_head", reset=True), 502, SERVER, (429, "1"), type=SERVER),
    "gone in the head": Refusal(death("in_head"), 502, SERVER, (429, "1"), type=SERVER),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_what_fails_before_the_first_byte_is_an_http_error(
    server: LiveServer, upstream: ChatUpstream, refusal: Refusal, stream: bool
) -> None:
    upstream.follow([refusal.step, refusal.step])
    told = create(server, stream=stream)
    assert (told.status, told.error.code, told.error.type) == (refusal.status, refusal.code, refusal.type)
    for name in ("retry-after", "x-should-retry"):
        assert told.headers.get(name) == refusal.headers.get(name)
    codex = create(server, CODEX, stream=stream)
    assert (codex.status, codex.headers.get("retry-after")) == refusal.codex
    assert codex.error == told.error
    assert len(upstream.requests) == 2, "nothing is sent twice"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("model", "status"), [("closed", 503), ("liar", 502)])
def test_a_provider_that_cannot_be_reached_is_an_http_error(
    server: LiveServer, model: str, status: int, stream: bool
) -> None:
    told = create(server, model=model, stream=stream)
    assert (told.status, told.error.code) == (status, SERVER)
    assert "127.0.0.1" not in told.error.message


def test_the_parameter_a_provider_names_reaches_the_client(server: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow([REFUSALS["400"].step])
    error = create(server).error
    assert (error.param, error.message) == ("temperature", "no such knob")


# F5, F7, F9: answers that break off


def broken(kind: str) -> Step:
    return answer(text("Hel", "lo"), trouble=Trouble(kind, 2))  # type: ignore[arg-type]  # one of its kinds


BREAKS: dict[str, Step] = {
    **{kind: broken(kind) for kind in ("cut", "reset", "end", "error", "bad_json")},
    "cut in a frame": raw(b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: {"choi'),
    "a line without end": raw(b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: ', *[b"x" * MiB] * 17),
    "not UTF-8": raw(
        b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: {"choices":[{"delta":{"content":"\xff"'
    ),
    "an error beside choices": raw(
        b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n',
        b'data: {"error":{"message":"upstream fell over"},"choices":[{"delta":{},"finish_reason":"error"}]}\n\n',
        b"data: [DONE]\n\n",
    ),
}


@pytest.mark.parametrize("step", BREAKS.values(), ids=BREAKS)
def test_a_stream_that_breaks_off_fails_with_what_came_so_far(
    server: LiveServer, upstream: ChatUpstream, step: Step
) -> None:
    upstream.follow([step])
    stream = streamed(server)
    assert stream.text == "Hel"
    last = stream.events[-1]
    assert (last.type, [event.type for event in stream.events].count("response.completed")) == ("response.failed", 0)
    assert last.whole.error is not None
    assert (last.whole.status, last.whole.error.code, last.whole.text) == ("failed", SERVER, "Hel")
    assert last.whole.output[0].status == "incomplete"
    assert get(server, stream.id).response == last.whole
    parent = create(server, previous_response_id=stream.id)
    assert (parent.status, parent.error.code) == (400, "previous_response_not_found")
    assert idle(server)


@pytest.mark.parametrize("step", BREAKS.values(), ids=BREAKS)
def test_a_plain_answer_that_breaks_off_is_an_error(server: LiveServer, upstream: ChatUpstream, step: Step) -> None:
    upstream.follow([step])
    told = create(server)
    assert (told.status, told.error.code, told.error.type) == (502, SERVER, SERVER)
    assert idle(server)


@pytest.mark.parametrize(
    "step",
    [
        answer(),
        raw(b""),
        raw(b"data: [DONE]\n\n"),
        death("after_head"),
        death("after_head", reset=True),
        raw(b"<html>welcome</html>", content_type="text/html"),
    ],
    ids=["no text", "no body", "only the end", "gone", "reset", "a page"],
)
def test_an_empty_answer_is_a_failure(server: LiveServer, upstream: ChatUpstream, step: Step) -> None:
    upstream.follow([step, step])
    last = streamed(server).events[-1]
    assert last.whole.error is not None
    assert (last.whole.status, last.whole.error.code, last.whole.output) == ("failed", SERVER, [])
    assert (told := create(server)).status == 502
    assert told.error.code == SERVER


def test_an_overflow_inside_a_stream_is_named(server: LiveServer, upstream: ChatUpstream) -> None:
    step = raw(b'data: {"error":{"message":"maximum context length is 10","code":400}}\n\n')
    upstream.follow([step, step])
    last = streamed(server).events[-1]
    assert last.whole.error is not None
    assert last.whole.error.code == "context_length_exceeded"
    assert (told := create(server)).status == 400
    assert told.error.code == "context_length_exceeded"


def test_an_answer_that_only_lacks_its_end_mark_is_complete(server: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("all of it"), done=False)] * 2)
    stream = streamed(server)
    assert (stream.events[-1].type, stream.text) == ("response.completed", "all of it")
    assert create(server).response.text == "all of it"


# F8: silence


def test_silence_before_the_first_byte_is_told_at_the_deadline(impatient: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow(lambda request: silence())
    started = monotonic()
    with posted(impatient) as plain, streaming(impatient) as waiting, streaming(impatient, CODEX) as codex:
        assert monotonic() - started < 1.5, "the status line waits for the upstream's, but not for ever"
        assert waiting.rest().type == codex.rest().type == "response.failed"
        told = received(plain)
    assert (told.status, told.error.code) == (504, SERVER)
    assert 1.5 < monotonic() - started < 5
    assert waiting.comments > 0
    assert [event.type for event in waiting.events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    # Comments do not reset Codex's idle timer (codex.md §5).
    assert codex.comments == 0
    assert len(codex.events) > 3
    assert {event.type for event in codex.events[1:-1]} == {"response.in_progress"}
    assert all(request.left.wait(1) for request in upstream.requests)


def test_silence_in_the_middle_is_told_at_the_deadline(impatient: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow(lambda request: broken("stall"))
    with posted(impatient) as plain, streaming(impatient) as stream:
        last = stream.rest()
        assert received(plain).status == 504
    assert (last.whole.status, last.whole.text, stream.text) == ("failed", "Hel", "Hel")
    assert stream.comments > 0
    assert all(request.left.wait(1) for request in upstream.requests)


# F1, F2: the client leaves


DRIP = raw(*[b" "] * 200, gap=0.05)

LEAVINGS: dict[str, tuple[Step, str | None]] = {
    "before the first byte": (silence(), None),
    "after the head": (silence(after_head=True), "response.in_progress"),
    "while it drips": (DRIP, "response.in_progress"),
    "in the middle": (answer(text(*"abcdefghij" * 30), gap=0.05), "response.output_text.delta"),
    "in a silence": (broken("stall"), "response.output_text.delta"),
}

# A plain answer is asked for whole, so it has no middle that the provider would write slowly.
PLAIN_LEAVINGS = {name: step for name, (step, _) in LEAVINGS.items() if name != "in the middle"}


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize(("step", "seen"), LEAVINGS.values(), ids=LEAVINGS)
def test_the_upstream_is_cancelled_when_the_client_leaves_a_stream(
    server: LiveServer, upstream: ChatUpstream, step: Step, seen: str | None, reset: bool
) -> None:
    upstream.follow([step])
    if seen is None:
        hang_up(posted(server, stream=True), upstream, reset=reset)
    else:
        with streaming(server) as stream:
            stream.until(seen)
            stream.leave(reset=reset)
    assert upstream.wait(1).left.wait(1)
    assert idle(server)
    if seen is not None:
        assert get(server, stream.id).status == 404


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("step", PLAIN_LEAVINGS.values(), ids=PLAIN_LEAVINGS)
def test_the_upstream_is_cancelled_when_the_client_leaves_a_plain_request(
    server: LiveServer, upstream: ChatUpstream, step: Step, reset: bool
) -> None:
    upstream.follow([step])
    hang_up(posted(server), upstream, reset=reset)
    assert upstream.wait(1).left.wait(1)
    assert idle(server)


def hang_up(connection: socket.socket, upstream: ChatUpstream, *, reset: bool) -> None:
    """Leave as soon as the provider was asked."""
    upstream.wait(1)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_client_that_leaves_is_no_error_of_the_server(server: LiveServer, upstream: ChatUpstream) -> None:
    so_far = server.log.stat().st_size
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b'POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{"model":')
    upstream.follow([silence(), silence()])
    for stream in (False, True):
        hang_up(posted(server, stream=stream), upstream, reset=True)
        upstream.requests.clear()
    assert idle(server)
    assert create(server, model="closed").status == 503
    assert "error" not in server.log.read_text()[so_far:]


# F24: the client stays, and does not read


@dataclass(slots=True)
class Flood:
    """An answer without end, and how much of it was taken."""

    taken: int = 0

    def actions(self, request: SentChat) -> Iterator[Action]:
        frame = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % (b"x" * 65536)
        yield Head()
        while True:
            yield frame
            self.taken += len(frame)


def test_a_client_that_does_not_read_holds_the_upstream_back_and_is_cut(
    impatient: LiveServer, upstream: ChatUpstream
) -> None:
    flood = Flood()
    upstream.follow([flood])
    before = resident(impatient)
    with posted(impatient, stream=True):
        request = upstream.wait(1)
        taken = settled(lambda: flood.taken)
        assert 0 < taken < 32 * MiB
        assert resident(impatient) - before < 24 * MiB
        assert request.left.wait(4), "a client that takes nothing is cut"
        assert idle(impatient)


def settled(value: Callable[[], int]) -> int:
    """The value once it has stopped growing for a moment."""
    last = -1
    while (current := value()) != last or not current:
        last = current
        sleep(0.2)
    return last


def resident(server: LiveServer) -> int:
    """Bytes of memory the server's process holds."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


# S18: what a turn leaves behind


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("step", "model"),
    [
        (REFUSALS["overflow"].step, "test-model"),
        (death("before_head"), "test-model"),
        (broken("cut"), "test-model"),
        (broken("bad_json"), "test-model"),
        (broken("error"), "test-model"),
        (answer(), "test-model"),
        (answer(), "closed"),
        (answer(), "liar"),
    ],
    ids=["refused", "gone", "cut", "bad_json", "error", "empty", "closed", "liar"],
)
def test_a_turn_that_failed_leaves_nothing_in_memory(
    server: LiveServer, upstream: ChatUpstream, step: Step, model: str, stream: bool
) -> None:
    upstream.follow(lambda request: step)
    words = "x" * 4 * MiB
    create(server, model=model, stream=stream, store=False, input=words)
    before = resident(server)
    for _ in range(8):
        create(server, model=model, stream=stream, store=False, input=words)
        upstream.requests.clear()
    assert resident(server) - before < 48 * MiB


def test_a_client_that_left_leaves_nothing_in_memory(server: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow(lambda request: silence(after_head=True))
    words = "x" * 4 * MiB
    before = 0
    for turn in range(10):
        hang_up(posted(server, stream=turn % 2 == 0, input=words), upstream, reset=turn % 3 == 0)
        assert upstream.requests.pop().left.wait(1)
        before = before or resident(server)
    assert resident(server) - before < 48 * MiB


# F12, F13, F30: the store


@pytest.fixture
def own(provider: ChatUpstream, tmp_path: Path) -> Iterator[LiveServer]:
    """A server whose store may be harmed."""
    with running(
        tmp_path, upstreams=[LiveUpstream(provider.base_url, key=UPSTREAM_SECRET)], command=IMPATIENT
    ) as server:
        yield server


def fill_the_disk(server: LiveServer) -> None:
    """From here on no file of the server may grow beyond what it needs for its first records."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (MiB // 4, resource.RLIM_INFINITY))


def tidy_the_disk(server: LiveServer) -> None:
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def noise(request: SentChat) -> Step:
    """An answer that does not fit, and comes slowly enough for the disk to fill up meanwhile."""
    return answer(text(*(random.randbytes(10_000).hex() for _ in range(40))), delay=0.1, gap=0.01)


def test_what_cannot_be_stored_has_failed(own: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("kept"))])
    kept = create(own).response
    upstream.follow(noise)
    with streaming(own) as stream:
        stream.until("response.output_text.delta")
        fill_the_disk(own)
        last = stream.rest()
    assert last.whole.error is not None
    assert (last.type, last.whole.error.code) == ("response.failed", SERVER)
    assert "could not be stored" in last.whole.error.message
    assert [event.type for event in stream.events].count("response.completed") == 0
    assert get(own, stream.id).status == 404
    assert get(own, kept.id).response == kept
    tidy_the_disk(own)
    wait_for(own, 200)
    upstream.follow([answer(text("kept again"))])
    assert create(own, previous_response_id=kept.id).status == 200


def test_a_plain_answer_that_cannot_be_stored_must_not_be_asked_for_again(
    own: LiveServer, upstream: ChatUpstream
) -> None:
    upstream.follow(noise)
    with posted(own) as connection:
        upstream.wait(1)
        fill_the_disk(own)
        told = received(connection)
    assert (told.status, told.headers["x-should-retry"], told.error.code) == (500, "false", SERVER)
    assert create(own, store=False).status == 200


def test_a_store_that_is_gone_takes_no_turn_and_pays_nobody(own: LiveServer, upstream: ChatUpstream) -> None:
    upstream.follow(lambda request: answer(text("hello")))
    shutil.rmtree(own.log.parent / "store")
    # Before anybody has looked, the commit itself finds out.
    told = create(own)
    assert told.status in (500, 503)
    wait_for(own, 503)
    upstream.requests.clear()
    for stream in (False, True):
        told = create(own, stream=stream)
        assert (told.status, told.error.type) == (503, SERVER)
        assert told.headers["retry-after"]
    codex = create(own, CODEX, stream=True)
    assert (codex.status, codex.headers["retry-after"]) == (429, told.headers["retry-after"])
    assert upstream.requests == []
    assert create(own, store=False).response.text == "hello"


def wait_for(server: LiveServer, status: int) -> None:
    """Until /health says so."""
    deadline = monotonic() + 5
    while ask(server, "GET", "/health").status != status:
        assert monotonic() < deadline, f"/health does not become {status}"
        sleep(0.02)


# F28, F29: calls and their outputs


def test_call_ids_a_provider_repeats_are_told_apart(server: LiveServer, upstream: ChatUpstream) -> None:
    again = call("get_weather", '{"city":', '"Ghent"}', id="call_0")
    upstream.follow([answer(calls(again, again)), answer(calls(again)), answer(text("sunny"))])
    first = create(server, tools=[WEATHER]).response
    ids = [item.call_id for item in first.output]
    second = create(server, tools=[WEATHER], previous_response_id=first.id, input=outputs(ids)).response
    ids += [item.call_id for item in second.output]
    assert len(set(ids)) == 3
    third = create(server, tools=[WEATHER], previous_response_id=second.id, input=outputs(ids[2:])).response
    assert third.text == "sunny"
    assert upstream.objections == []
    sent = upstream.requests[-1].chat.messages
    called = [one.id for message in sent for one in message.tool_calls]
    assert [message.tool_call_id for message in sent if message.role == "tool"] == called
    assert len(called) == 3


def outputs(call_ids: list[str]) -> list[dict[str, str]]:
    return [{"type": "function_call_output", "call_id": one, "output": f"of {one}"} for one in call_ids]


def test_calls_and_outputs_that_do_not_pair_are_refused_before_anybody_is_asked(
    server: LiveServer, upstream: ChatUpstream
) -> None:
    upstream.follow([answer(calls(call("get_weather")))])
    parent = create(server, tools=[WEATHER]).response
    [made] = parent.output
    unpaired: dict[str, object] = {
        f"No tool output found for function call {made.call_id}.": "and now?",
        "No tool call found for function call output with call_id call_x.": outputs([made.call_id, "call_x"]),
        "one output for each call": outputs([made.call_id, made.call_id]),
        f"Duplicate item found with id {made.id}.": [
            {"type": "function_call", "id": made.id, "call_id": "call_y", "name": "get_weather", "arguments": "{}"}
        ],
    }
    for message, coming in unpaired.items():
        for stream in (False, True):
            told = create(server, tools=[WEATHER], previous_response_id=parent.id, input=coming, stream=stream)
            assert (told.status, told.error.param) == (400, "input")
            assert message in told.error.message
    assert len(upstream.requests) == 1


# S5, S6: who is asked is the operator's choice


def test_urls_in_a_request_are_not_fetched(server: LiveServer, upstream: ChatUpstream, landing: Landing) -> None:
    upstream.follow(lambda request: answer(text("nice")))
    url = f"http://127.0.0.1:{landing.port}/latest/meta-data"
    image = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    assert create(server, input=image).status == 200
    assert url in upstream.requests[0].body.decode()
    file = [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]
    told = create(server, input=file)
    assert told.status == 400
    assert (told.error.param or "").startswith("input")
    mcp = {"type": "mcp", "server_label": "x", "server_url": url}
    assert create(server, tools=[mcp]).status in (200, 400)
    assert landing.visitors == 0


def test_a_client_cannot_choose_the_upstream(server: LiveServer, upstream: ChatUpstream, landing: Landing) -> None:
    upstream.follow(lambda request: answer(text("hello")))
    url = f"http://127.0.0.1:{landing.port}/v1"
    knobs = {"api_base": url, "base_url": url, "api_key": "sk-of-the-client", "custom_llm_provider": "evil"}
    evil = {"authorization": "Bearer sk-of-the-client", "x-upstream": url, "x-api-base": url, "forwarded": "host=evil"}
    assert create(server, evil, **knobs).status == 200
    assert create(server, evil, model=url).status == 200
    for name in ("extra_headers", "extra_body", "extra_query"):
        told = create(server, **{name: {"authorization": "Bearer x"}})
        assert (told.status, told.error.param, told.error.code) == (400, name, "unknown_parameter")
    for request in upstream.requests:
        assert request.headers["authorization"] == f"Bearer {UPSTREAM_SECRET}"
        assert not {"x-upstream", "x-api-base", "forwarded", "originator"} & request.headers.keys()
        assert "sk-of-the-client" not in request.body.decode()
    assert landing.visitors == 0


# S11: secrets


LEAK = (
    f"Incorrect API key provided: {UPSTREAM_SECRET}. Authorization: Bearer {UPSTREAM_SECRET} and {PLAIN_SECRET} "
    f"for org-UPSTREAMSECRET0123456789 at https://user:{PLAIN_SECRET}@internal.example.com/v1?key={PLAIN_SECRET}"
)

LEAKS: dict[str, Step] = {
    **{str(status): HttpError(status, LEAK, param=LEAK) for status in (400, 401, 403, 404, 429, 500, 503)},
    "a page": HttpError(500, raw=LEAK.encode()),
    "code and type": HttpError(400, LEAK, code=LEAK, type=LEAK),
    "in a header": HttpError(
        429, LEAK, headers={"retry-after": UPSTREAM_SECRET, "x-request-id": UPSTREAM_SECRET, "set-cookie": LEAK}
    ),
    "in the stream": raw(
        b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n',
        b"data: " + json.dumps({"error": {"message": LEAK, "code": LEAK, "param": LEAK}}).encode() + b"\n\n",
    ),
    "in the stream first": raw(b"data: " + json.dumps({"error": {"message": LEAK}}).encode() + b"\n\n"),
    "broken JSON": raw(b'data: {"choices":[{"delta":{"content":"' + LEAK.encode() + b"\n\n"),
    "a bad finish": raw(
        b'data: {"choices":[{"delta":{},"finish_reason":"error"}],"note":' + json.dumps(LEAK).encode() + b"}\n\n"
    ),
    "a bad call": answer(calls(call(UPSTREAM_SECRET, "{}"))),
    "a redirect": HttpError(302, headers={"location": f"http://127.0.0.1:9/?key={UPSTREAM_SECRET}"}),
}


@pytest.mark.parametrize("headers", [NOTHING, CODEX], ids=["sdk", "codex"])
@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_no_secret_of_the_upstream_is_told(
    server: LiveServer, upstream: ChatUpstream, leak: Step, headers: Mapping[str, str]
) -> None:
    upstream.follow([leak, leak])
    for stream in (False, True):
        told = create(server, headers, stream=stream)
        assert_quiet(f"{told.status} {told.headers} {told.body.decode()}")
    assert_quiet(server.log.read_text())


def test_no_secret_is_written_anywhere(server: LiveServer) -> None:
    for file in server.log.parent.rglob("*"):
        if file.is_file():
            assert_quiet(file.read_bytes().decode("latin-1"))


def assert_quiet(said: str) -> None:
    for secret in (UPSTREAM_SECRET, "UPSTREAM-SECRET", PLAIN_SECRET, "org-UPSTREAMSECRET0123456789"):
        assert secret not in said, said[max(0, said.index(secret) - 200) :][:400]

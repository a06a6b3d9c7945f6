"""What a client, a disk and a missing provider can do to a turn, and how it ends (reliability.md §5; codex.md §9).

What a provider that is there can do: test_upstream_faults.
"""

import contextlib
import datetime
import ipaddress
import random
import resource
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Step, answer, silence, text
from rejoinder.conformance.upstreams.sent import SentChat
from tests import mounts
from tests.live import LiveServer, LiveUpstream, free_port, running
from tests.server.client import CODEX, ask, create, get, hang_up, idle, posted, received, resident, streaming
from tests.server.impatient import IMPATIENT

UPSTREAM_SECRET = "sk-UPSTREAM-SECRET-5f2e7c90b1"

SERVER = "server_error"

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
    upstreams = [
        LiveUpstream(provider.base_url, key=UPSTREAM_SECRET),
        LiveUpstream(f"http://127.0.0.1:{free_port()}/v1", name="closed", models=["closed"]),
        LiveUpstream(f"https://127.0.0.1:{liar.port}/v1", name="liar", models=["liar"]),
    ]
    with running(directory, upstreams=upstreams) as server:
        yield server
    liar.close()


# F4: nobody is there


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("model", "status"), [("closed", 503), ("liar", 502)])
def test_a_provider_that_cannot_be_reached_is_an_http_error(
    server: LiveServer, model: str, status: int, stream: bool
) -> None:
    told = create(server, model=model, stream=stream)
    assert (told.status, told.error.code) == (status, SERVER)
    assert "127.0.0.1" not in told.error.message


# F1, F2: the client leaves


def test_a_client_that_leaves_is_no_error_of_the_server(server: LiveServer, upstream: ChatUpstream) -> None:
    so_far = server.log.stat().st_size
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b'POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{"model":')
    upstream.follow([silence(), silence()])
    for stream in (False, True):
        connection = posted(server, stream=stream)
        upstream.wait(1)
        hang_up(connection, reset=True)
        upstream.requests.clear()
    assert idle(server)
    assert create(server, model="closed").status == 503
    assert "error" not in server.log.read_text()[so_far:]


# S18: what a turn leaves behind


@pytest.mark.parametrize("model", ["closed", "liar"])
def test_a_provider_that_is_not_there_leaves_nothing_in_memory(server: LiveServer, model: str) -> None:
    words = "x" * 4 * MiB
    before = 0
    for turn in range(10):
        create(server, model=model, stream=turn % 2 == 0, store=False, input=words)
        if turn == 1:
            before = resident(server)
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


@mounts.needs_mounts
def test_a_full_disk_takes_nothing_new_and_lets_go_of_what_is_deleted(
    provider: ChatUpstream, upstream: ChatUpstream, tmp_path: Path
) -> None:
    upstream.follow(lambda request: answer(text("hello")))
    disk = tmp_path / "disk"
    disk.mkdir()
    with running(
        tmp_path,
        upstreams=[LiveUpstream(provider.base_url, key=UPSTREAM_SECRET)],
        store=f"disk:{disk / 'store'}",
        command=mounts.with_disk(disk, 100 * MiB, IMPATIENT),
    ) as server:
        kept, unwanted = create(server).response, create(server).response
        filler = Path(f"/proc/{server.pid}/root{disk}/filler")
        mounts.fill(filler)
        wait_for(server, 503)
        assert create(server).status == 503
        assert ask(server, "DELETE", f"/v1/responses/{unwanted.id}").status == 200
        assert get(server, kept.id).response == kept
        filler.unlink()
        wait_for(server, 200)
        assert create(server, previous_response_id=kept.id).status == 200
        assert get(server, unwanted.id).status == 404


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

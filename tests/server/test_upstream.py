import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rejoinder.bridge.dialect import Call
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Head, HttpError, Reset, Wire, answer, death, raw, silence, text
from rejoinder.server import upstream
from rejoinder.server.upstream import HttpUpstream

CALL = Call(
    "/chat/completions",
    b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
    stream=False,
    headers={"x-of-the-call": "1"},
)


@asynccontextmanager
async def client(base_url: str, **headers: str) -> AsyncIterator[HttpUpstream]:
    asking = HttpUpstream(base_url, headers)
    try:
        yield asking
    finally:
        await asking.close()


async def body_of(asking: HttpUpstream) -> bytes:
    async with asking.open(CALL) as found:
        return b"".join([chunk async for chunk in found.chunks])


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server that is no provider, and its port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_a_call_goes_out_as_it_is_with_the_headers_of_the_upstream() -> None:
    with ChatUpstream([answer(text("hi"))], key="sk-1") as provider:
        async with client(f"{provider.base_url}/", authorization="Bearer sk-1") as asking, asking.open(CALL) as found:
            assert found.status == 200
            assert found.headers["content-type"] == "application/json"
            assert b"".join([chunk async for chunk in found.chunks]).startswith(b'{"id"')
        [sent] = provider.requests
        assert (sent.method, sent.path, sent.body) == ("POST", "/v1/chat/completions", CALL.body)
        assert sent.headers["authorization"] == "Bearer sk-1"
        assert sent.headers["content-type"] == "application/json"
        assert sent.headers["accept-encoding"] == "identity"
        assert sent.headers["x-of-the-call"] == "1"


async def test_a_header_of_the_upstream_replaces_the_calls_and_the_calls_replaces_ours() -> None:
    call = replace(CALL, headers={"x-beta": "of the call", "accept": "text/event-stream", "user-agent": "of the call"})
    with ChatUpstream([answer(text("hi"))]) as provider:
        mine = {"x-beta": "mine", "user-agent": "mine"}
        async with client(provider.base_url, **mine) as asking, asking.open(call) as found:
            assert found.status == 200
        [sent] = provider.requests
        assert {name: sent.headers[name] for name in call.headers} == {**mine, "accept": "text/event-stream"}


async def test_a_large_body_goes_out_whole_and_with_its_length() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"x" * 3 * 2**20)
    with ChatUpstream([answer(text("hi"))]) as provider:
        async with client(provider.base_url) as asking, asking.open(replace(CALL, body=body)) as found:
            assert found.status == 200
        [sent] = provider.requests
        assert sent.body == body
        assert sent.headers["content-length"] == str(len(body))
        assert sent.headers["content-type"] == "application/json"


async def test_the_names_of_headers_are_in_lower_case() -> None:
    step = HttpError(429, headers={"Retry-After": "3"})
    with ChatUpstream([step]) as provider:
        async with client(provider.base_url) as asking, asking.open(CALL) as found:
            assert (found.status, found.headers["retry-after"]) == (429, "3")


async def test_bytes_are_handed_over_as_they_come() -> None:
    with ChatUpstream([raw(b"one", b"two", gap=0.05)]) as provider:
        async with client(provider.base_url) as asking, asking.open(CALL) as found:
            assert [chunk async for chunk in found.chunks] == [b"one", b"two"]


async def test_leaving_an_exchange_that_is_not_over_ends_it() -> None:
    with ChatUpstream([silence(after_head=True)]) as provider:
        async with client(provider.base_url) as asking:
            async with asking.open(CALL) as found:
                assert found.status == 200
            assert await asyncio.to_thread(provider.requests[0].left.wait, 1)


async def test_a_redirect_is_not_followed_since_the_credential_would_go_with_it() -> None:
    with ChatUpstream([answer(text("elsewhere"))]) as elsewhere:
        step = Wire((Head(307, {"location": f"{elsewhere.base_url}/chat/completions", "content-length": "0"}),))
        with ChatUpstream([step]) as provider:
            async with client(provider.base_url) as asking, asking.open(CALL) as found:
                assert found.status == 307
        assert elsewhere.requests == []


async def test_cookies_are_not_kept() -> None:
    first = Wire((Head(200, {"set-cookie": "who=me", "content-length": "0"}),))
    with ChatUpstream([first, answer(text("hi"))]) as provider:
        async with client(provider.base_url) as asking:
            await body_of(asking)
            await body_of(asking)
        assert "cookie" not in provider.requests[1].headers


async def test_one_connection_serves_one_call_after_the_other() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await reader.readuntil(CALL.body)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        writer.close()

    async with listening(serve) as port:
        async with client(f"http://127.0.0.1:{port}") as asking:
            assert await body_of(asking) == await body_of(asking) == b"hi"
        assert connections == 1


async def test_an_upstream_nobody_asked_can_be_closed() -> None:
    await HttpUpstream("http://127.0.0.1:9", {}).close()


async def test_nobody_listening_is_503() -> None:
    async with listening(hang_up) as port:
        pass
    async with client(f"http://127.0.0.1:{port}") as asking:
        with pytest.raises(UpstreamError, match="could not be reached") as caught:
            await body_of(asking)
    assert caught.value.status == 503


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    async with listening(hang_up, tls=self_signed(tmp_path)) as port, client(f"https://127.0.0.1:{port}") as asking:
        with pytest.raises(UpstreamError, match="TLS certificate could not be verified") as caught:
            await body_of(asking)
    assert caught.value.status == 502


async def test_a_connection_that_does_not_come_to_stand_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "CONNECT_TIMEOUT", 0.05)
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    async with listening(say_nothing) as port, client(f"https://127.0.0.1:{port}") as asking:
        with pytest.raises(UpstreamError, match="took too long") as caught:
            await body_of(asking)
        gone.set()
    assert caught.value.status == 504


@pytest.mark.parametrize("reset", [False, True])
async def test_a_provider_that_leaves_before_its_head_has_not_answered(reset: bool) -> None:
    with ChatUpstream([death("before_head", reset=reset)]) as provider:
        async with client(provider.base_url) as asking:
            with pytest.raises(UpstreamError, match="without an answer") as caught:
                await body_of(asking)
        assert not isinstance(caught.value, BrokenStream)
        assert len(provider.requests) == 1, "a call is never sent twice"


@pytest.mark.parametrize(
    "step",
    [death("after_head"), death("after_head", reset=True), Wire((Head(), b"half", Reset()))],
    ids=["cut", "reset", "reset in the middle"],
)
async def test_a_provider_that_leaves_after_its_head_has_broken_off(step: Wire) -> None:
    with ChatUpstream([step]) as provider:
        async with client(provider.base_url) as asking:
            with pytest.raises(BrokenStream, match="broke off"):
                await body_of(asking)


async def test_what_goes_wrong_here_is_not_blamed_on_the_provider() -> None:
    with ChatUpstream([answer(text("hi"))]) as provider:
        async with client(provider.base_url) as asking:
            with pytest.raises(UpstreamError, match="too long for us"):
                async with asking.open(CALL):
                    raise UpstreamError("too long for us")


def self_signed(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_refusal_is_handed_over_with_all_it_says() -> None:
    with ChatUpstream([HttpError(429, "not so fast")]) as provider:
        async with client(provider.base_url) as asking:
            assert b"not so fast" in await body_of(asking)


async def test_a_refusal_that_breaks_off_is_still_that_refusal() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 429 Too Many Requests\r\ncontent-length: 100\r\n\r\n{"error"')
        writer.close()

    async with listening(refuse) as port, client(f"http://127.0.0.1:{port}/v1") as asking, asking.open(CALL) as found:
        assert found.status == 429
        assert b"".join([chunk async for chunk in found.chunks]) == b'{"error"'

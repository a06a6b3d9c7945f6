import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from rejoinder.conformance.errors import Broken, NoAnswer, NotApplicable, UpgradeRefused
from rejoinder.conformance.paired import Provider
from rejoinder.conformance.program import Ran
from rejoinder.conformance.server import Reply, Server
from tests.live import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def at(
    handler: Handler,
    *,
    key: str | None = None,
    other_key: str | None = None,
    timeout: float = 5,
    provider: Provider | None = None,
) -> AsyncIterator[Server]:
    """A server whose every path is this handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/"
        async with Server.at(url, "little", key=key, other_key=other_key, timeout=timeout, provider=provider) as server:
            yield server
    finally:
        await runner.cleanup()


async def echo(request: web.Request) -> web.Response:
    said = {
        "method": request.method,
        "path": request.path_qs,
        "key": request.headers.get("authorization"),
        "type": request.headers.get("content-type"),
        "coding": request.headers["accept-encoding"],
        "body": (await request.read()).decode(),
    }
    return web.json_response(said, headers={"X-Request-Id": "req_1"})


async def test_a_create_call_names_the_model_and_carries_the_key() -> None:
    async with at(echo, key="sk-little") as server:
        reply = await server.post(input="hello", store=None)
    assert reply.body == (
        b'{"method": "POST", "path": "/v1/responses", "key": "Bearer sk-little", "type": "application/json", '
        b'"coding": "identity", "body": "{\\"model\\":\\"little\\",\\"input\\":\\"hello\\",\\"store\\":null}"}'
    )
    assert (reply.status, reply.media_type, reply.headers["x-request-id"]) == (200, "application/json", "req_1")


async def test_a_create_call_may_name_another_model() -> None:
    async with at(echo) as server:
        assert b'\\"model\\":7' in (await server.post(model=7)).body


async def test_questions_carry_their_query_and_no_body() -> None:
    async with at(echo) as server:
        assert b'"GET", "path": "/v1/models?limit=2", "key": null' in (await server.get("/models", limit="2")).body
        assert b'"DELETE", "path": "/v1/responses/resp_1"' in (await server.delete("/responses/resp_1")).body


async def test_a_key_can_be_left_at_home() -> None:
    async with at(echo, key="sk-little") as server:
        assert server.has_key
        assert b'"key": null' in (await server.send("GET", "/models", with_key=False)).body


async def test_another_has_another_key_and_the_same_transcript() -> None:
    async def key_of(server: Server) -> bytes:
        return (await server.get("/models")).body

    async with at(echo, key="sk-little", other_key="sk-other") as server:
        assert (server.has_other_key, server.patience) == (True, 5)
        another = server.as_another()
        assert b"Bearer sk-little" in await server.once(key_of)
        assert b"Bearer sk-other" in await another.once(key_of)
        assert len(server.transcript) == 2
        assert "Bearer [the other key]" in server.excerpt()[1].received
        assert another.authorization == "Bearer sk-other"
    async with at(echo) as server:
        assert not server.has_other_key


async def test_a_header_may_be_sent_twice() -> None:
    async def count(request: web.Request) -> web.Response:
        return web.json_response([*request.headers.getall("authorization"), request.headers["accept"]])

    async with at(count, key="sk-little") as server:
        reply = await server.send("GET", "/models", headers={"authorization": ["one", "other"], "accept": "text/html"})
    assert reply.body == b'["one", "other", "text/html"]'


async def test_who_has_enough_hangs_up() -> None:
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        try:
            while True:
                await stream.write(b"more")
                await asyncio.sleep(0.001)
        finally:
            left.set()

    async with at(endless) as server:
        reply = await server.send("GET", "/", enough=lambda received: len(received) >= 8)
        await asyncio.wait_for(left.wait(), 5)
    assert reply.body.startswith(b"moremore")
    assert server.transcript[0].answered == "200 application/octet-stream, not read to its end"


async def test_the_chunks_of_an_answer_are_kept_apart() -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        for chunk in (b"one", b"two", b"x" * 300_000):
            await stream.write(chunk)
        return stream

    async with at(chunked) as server:
        reply = await server.get("/")
    assert reply.pieces == [b"one", b"two", b"x" * 300_000]
    assert reply.body.startswith(b"onetwoxxx")


async def test_answers_without_a_body_come_to_an_end() -> None:
    async def nothing(request: web.Request) -> web.Response:
        return web.Response(status=204)

    async with at(nothing) as server:
        assert [(await server.get("/")).body for _ in range(3)] == [b"", b"", b""]


async def test_a_redirection_is_an_answer_of_its_own() -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"location": "/v1/other"})

    async with at(elsewhere) as server:
        assert (await server.get("/models")).status == 307


async def test_an_answer_that_does_not_come_breaks_the_rule() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits for this")

    async with at(silent, timeout=0.1) as server:
        with pytest.raises(NoAnswer, match="expected an answer in time, got none"):
            await server.get("/models")


async def test_an_answer_that_breaks_off_breaks_the_rule() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return stream

    async with at(broken) as server:
        with pytest.raises(NoAnswer, match="expected a whole answer, got Client"):
            await server.get("/models")
    assert server.transcript[0].received == b"half"
    assert server.transcript[0].answered.startswith("no whole answer: Client")


async def test_nobody_there_breaks_the_rule() -> None:
    async with Server.at(f"http://127.0.0.1:{free_port()}/v1", "little", key=None, timeout=5) as server:
        with pytest.raises(NoAnswer, match="got ClientConnectorError"):
            await server.get("/models")


async def test_a_question_is_asked_once() -> None:
    asked: list[str] = []

    async def name(server: Server) -> str:
        asked.append(server.model)
        return server.model

    async def nobody(server: Server) -> str:
        asked.append("nobody")
        raise Broken("a name", "none")

    async with at(echo) as server:
        assert [await server.once(name), await server.once(name)] == ["little", "little"]
        for _ in range(2):
            with pytest.raises(Broken):
                await server.once(nobody)
    assert asked == ["little", "nobody"]


async def test_what_was_said_for_a_rule_is_its_transcript() -> None:
    async def models(server: Server) -> Reply:
        return await server.get("/models", limit="2")

    async with at(echo) as server:
        await server.post(input="hello")
        first, second = server.apart(), server.apart()
        await first.once(models)
        await second.delete("/responses/a")
        await second.once(models)
    assert [exchange.asked for exchange in server.transcript] == ["POST /responses"]
    assert [exchange.asked for exchange in first.transcript] == ["GET /models?limit=2"]
    assert [exchange.asked for exchange in second.transcript] == ["DELETE /responses/a", "GET /models?limit=2"]
    assert second.transcript[0].answered == "200 application/json; charset=utf-8"
    assert server.transcript[0].sent == b'{"model":"little","input":"hello"}'


async def test_a_question_that_failed_is_in_the_transcript_too() -> None:
    async def absent(server: Server) -> None:
        (await server.get("/models")).expect(404)

    async with at(echo) as server:
        with pytest.raises(Broken, match="expected status 404"):
            await server.once(absent)
    assert [exchange.asked for exchange in server.transcript] == ["GET /models"]


async def test_an_excerpt_tells_neither_the_key_nor_controls_of_a_terminal() -> None:
    async with at(echo, key="sk-little") as server:
        await server.send("POST", "/responses", b"a\x1b[31m \xc2\x9b \xef\xbf\xbe")
        [passage] = server.excerpt()
        assert "Bearer [the key]" in passage.received
        assert passage.sent == "POST /responses\na\N{SYMBOL FOR ESCAPE}[31m \ufffd \ufffd"
        assert server.discreet("sk-little\r\n\ud800") == "[the key]\N{SYMBOL FOR CARRIAGE RETURN}\n\ufffd"
    async with at(echo) as server:
        assert server.discreet("sk-little") == "sk-little"


async def test_a_socket_that_does_not_open_says_why() -> None:
    async def no(request: web.Request) -> web.Response:
        return web.Response(status=426)

    async with at(no) as server:
        with pytest.raises(UpgradeRefused) as caught:
            async with server.socket():
                raise AssertionError("it is not open")
    assert caught.value.status == 426
    assert [exchange.answered for exchange in server.transcript] == ["426"]


async def test_a_socket_carries_the_key_or_not() -> None:
    keys: list[str | None] = []

    async def note(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers.get("authorization"))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async with at(note, key="sk-little") as server:
        for with_key in (True, False):
            async with server.socket("/live", with_key=with_key):
                pass
    assert keys == ["Bearer sk-little", None]


async def test_the_codex_program_is_run_against_it() -> None:
    async def program(prompt: str, **given: object) -> Ran:
        return Ran(3, f"{prompt} {sorted(given.items())}".encode())

    async with Server.at("http://little/v1", "little", key="sk-little", timeout=5, codex=program) as server:
        ran = await server.run_codex("Hello?")
    told = "Hello? [('key', 'sk-little'), ('model', 'little'), ('timeout', 5), ('url', 'http://little/v1')]"
    assert ran == Ran(3, told.encode())
    [exchange] = server.transcript
    assert (exchange.asked, exchange.sent, exchange.answered) == ("codex exec", b"Hello?", "exit status 3")
    assert exchange.received == told.encode()


async def test_without_the_codex_program_nothing_is_run() -> None:
    async with Server.at("http://little/v1", "little", key=None, timeout=5) as server:
        with pytest.raises(NotApplicable, match="no Codex program was given"):
            await server.run_codex("Hello?")


def test_a_reply_of_another_status_is_told_in_short() -> None:
    reply = Reply(500, {}, [b"oh\n  no \xff", b"x" * 1000])
    assert reply.media_type == ""
    assert reply.expect(404, 500) is reply
    with pytest.raises(Broken) as caught:
        reply.expect(200, 201)
    assert (
        str(caught.value) == f"expected status 200 or 201, got status 500: oh no \N{REPLACEMENT CHARACTER}{'x' * 193}"
    )
    assert Reply(204, {}, []).excerpt == "status 204 and no body"


async def test_an_answer_is_read_no_further_than_to_what_is_wanted() -> None:
    heard = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one two")
        await heard.wait()
        await response.write(b" three")
        return response

    async with at(handler) as server, server.listening(input="Count.") as incoming:
        assert (incoming.status, await incoming.hears(b"two", 5)) == (200, True)
        assert not await incoming.hears(b"three", 0.02), "it is not there yet"
        heard.set()
        assert await incoming.hears(b"three", 5)
        assert not await incoming.hears(b"four", 5), "it has come to its end"
        assert incoming.received == b"one two three"

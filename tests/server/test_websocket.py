import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.types import Message
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import answer, text
from rejoinder.server import websocket
from rejoinder.server.sse import Pulse
from rejoinder.server.websocket import ResponsesSocket
from tests.server.site import CODEX, NOWHERE, Json, Site, closing, folded, services_in, site
from tests.server.sockets import Talk, talking

ANN, BOB = "key-of-ann", "key-of-bob"


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(autouse=True)
def _echo(provider: ChatUpstream) -> Iterator[None]:
    provider.requests.clear()
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    yield
    assert provider.objections == []


@pytest.fixture(scope="module")
async def here(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    keys = {"ann": ANN, "bob": BOB}
    async with site(services_in(tmp_path_factory.mktemp("ws"), provider.base_url, keys=keys)) as running:
        yield running


@pytest.fixture
async def talk(here: Site) -> AsyncIterator[Talk]:
    async with talking(here, key=ANN) as connected:
        yield connected


@asynccontextmanager
async def apart(tmp_path: Path, provider: ChatUpstream, **server: object) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path, provider.base_url, server=server)) as running:
        yield running


async def refused(
    here: Site, path: str = "/v1/responses", headers: Mapping[str, str] | None = None
) -> tuple[int, Json]:
    """The status and the error of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://127.0.0.1:{here.port}{path}", additional_headers=headers or {}, proxy=None)
    response = caught.value.response
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    return response.status_code, json.loads(bytes(response.body))["error"]


async def closed(talk: Talk) -> tuple[int, str]:
    """How the server said goodbye."""
    async with asyncio.timeout(5):
        await talk.connection.wait_closed()
    assert talk.connection.close_code is not None
    return talk.connection.close_code, talk.connection.close_reason or ""


# The handshake


async def test_who_has_no_key_is_refused_before_the_upgrade(here: Site) -> None:
    status, error = await refused(here)
    assert (status, error["type"]) == (401, "invalid_request_error")
    status, error = await refused(here, headers={"authorization": "Bearer wrong"})
    assert (status, error["code"]) == (401, "invalid_api_key")


async def test_a_page_of_another_origin_is_refused(tmp_path: Path, provider: ChatUpstream) -> None:
    async with apart(tmp_path, provider) as open_here:
        assert (await refused(open_here, headers={"origin": "https://evil.example"}))[0] == 403
        async with talking(open_here, headers={"origin": "http://localhost:3000"}) as talk:
            await talk.create(input="hi")
            folded(await talk.answer())


async def test_every_other_path_is_not_found(here: Site) -> None:
    for path in ("/v1/response", "/v1/responses/resp_1", "/health", "/%0A"):
        status, error = await refused(here, path, headers={"authorization": f"Bearer {ANN}"})
        assert (status, error["type"]) == (404, "invalid_request_error")


async def test_where_it_is_switched_off_codex_is_told_to_use_http(tmp_path: Path, provider: ChatUpstream) -> None:
    async with apart(tmp_path, provider, websocket=False) as here:
        for headers in ({}, CODEX):
            status, error = await refused(here, headers=headers)
            assert (status, error["message"]) == (
                426,
                "WebSocket mode is switched off on this server. Send the same request with POST.",
            )
        assert (await here.create(input="hi")).status == 200


async def test_messages_are_compressed_only_where_the_settings_say_so(tmp_path: Path, provider: ChatUpstream) -> None:
    for allowed in (False, True):
        services = services_in(tmp_path, provider.base_url, server={"websocket_compression": allowed})
        async with site(services) as here, connect(f"ws://127.0.0.1:{here.port}/v1/responses", proxy=None) as opened:
            assert bool(opened.protocol.extensions) is allowed
            talk = Talk(opened)
            await talk.create(input="hi")
            folded(await talk.answer())


# Messages


@pytest.mark.parametrize(
    ("message", "param", "says"),
    [
        ("", None, "The request has no body. Expected a JSON object."),
        ("{", None, "The request is not valid JSON"),
        ("[]", "body", "expected an object, but got an array"),
        ("{}", "type", "Missing required parameter: 'type'."),
        ('{"type":null}', "type", "Missing required parameter: 'type'."),
        ('{"type":7}', "type", "Invalid type for 'type': expected a string."),
        ('{"type":"response.cancel"}', "type", "Invalid value: 'response.cancel'. Supported values are: "),
        ('{"type":"response.inject","response_id":"resp_1","input":[]}', "type", "Invalid value: 'response.inject'."),
        ('{"type":"response.interrupt","response_id":7}', "response_id", "Invalid type for 'response_id'"),
        (b"{}", None, "Expected a text message with a JSON object, but got a binary one."),
    ],
)
async def test_a_message_that_makes_no_sense_is_answered_and_the_connection_stays(
    talk: Talk, message: str | bytes, param: str | None, says: str
) -> None:
    await talk.send(message)
    error = await talk.error()
    assert (error["status"], error["error"]["param"]) == (400, param)
    assert says in error["error"]["message"]
    assert isinstance(error["error"]["code"], str)
    await talk.create(input="hi")
    folded(await talk.answer())


async def test_an_acknowledgement_and_a_late_interruption_want_no_answer(talk: Talk) -> None:
    await talk.create(input="hi")
    done = (await talk.answer())[-1]["response"]["id"]
    await talk.send({"type": "response.processed", "response_id": done})
    await talk.send({"type": "response.interrupt", "response_id": done, "mode": "discard_partial_items"})
    await talk.send({"type": "response.interrupt"})
    assert await talk.silent()


async def test_a_large_message_is_read_like_any_other(talk: Talk, provider: ChatUpstream) -> None:
    await talk.create(input="x" * 2_000_000)
    folded(await talk.answer())
    assert len(provider.requests[-1].chat.messages[0].text) == 2_000_000


async def test_a_message_that_is_too_large_is_said_to_be(tmp_path: Path, provider: ChatUpstream) -> None:
    async with apart(tmp_path, provider, max_body_bytes=10_000) as here, talking(here) as talk:
        await talk.create(input="x" * 20_000)
        error = await talk.error()
        assert (error["status"], error["error"]["code"]) == (413, "message_too_large")
        assert (await closed(talk))[0] == 1009


# Lanes


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 257, 7, ["a"], "a\n"])
async def test_what_is_no_name_of_a_lane_is_refused(talk: Talk, name: Json) -> None:
    await talk.send({"type": "response.create", "model": "m", "input": "hi", "stream_id": name})
    assert await talk.error() == {
        "type": "error",
        "status": 400,
        "error": {
            "type": "invalid_request_error",
            "code": "invalid_stream_id",
            "message": "The 'stream_id' field must be a non-empty string with at most 256 characters and may only "
            "contain letters, numbers, underscores, hyphens, and periods.",
            "param": "stream_id",
        },
    }


async def test_a_lane_without_a_name_may_say_so(talk: Talk) -> None:
    await talk.send({"type": "response.create", "model": "m", "input": "hi", "stream_id": None})
    folded(await talk.answer())


async def test_one_lane_too_many_is_refused_and_those_there_are_go_on(talk: Talk) -> None:
    await talk.create(input="hi", generate=False)
    await talk.answer()
    for number in range(websocket.MOST_LANES):
        await talk.create(lane=f"lane{number}", input="hi", generate=False)
        await talk.answer(f"lane{number}")
    await talk.create(lane="more", input="hi")
    error = await talk.error("more")
    assert (error["status"], error["error"]["param"]) == (400, "stream_id")
    assert error["error"]["code"] == "websocket_stream_limit_reached"
    assert "maximum number of distinct stream IDs (32)" in error["error"]["message"]
    await talk.create(lane="lane0", input="hi")
    folded(await talk.answer("lane0"))


async def test_so_many_calls_may_wait_and_no_more(
    talk: Talk, provider: ChatUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "MOST_WAITING", 2)
    held = Held(answer(text("done")))
    provider.follow([held, answer(text("b")), answer(text("c"))])
    await talk.create(input="a")
    await talk.until("response.in_progress")
    for word in ("b", "c"):
        await talk.create(input=word)
    await talk.create(lane="other", input="d")
    error = await talk.error("other")
    assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")
    held.release()
    for _ in range(3):
        assert (await talk.answer())[-1]["type"] == "response.completed"


async def test_so_many_bytes_may_wait_and_no_more(tmp_path: Path, provider: ChatUpstream) -> None:
    held = Held(answer(text("done")))
    provider.follow([held, answer(text("b"))])
    async with apart(tmp_path, provider, max_body_bytes=10_000) as here, talking(here) as talk:
        await talk.create(input="a")
        await talk.until("response.in_progress")
        await talk.create(input="b" * 8_000)
        await talk.create(lane="c", input="c" * 8_000)
        assert (await talk.error("c"))["status"] == 429
        held.release()
        for _ in range(2):
            assert (await talk.answer())[-1]["type"] == "response.completed"


# Steering what is not there


async def test_words_for_nobody_go_back(talk: Talk) -> None:
    await talk.create(lane="a", input="hi")
    done = (await talk.answer("a"))[-1]["response"]["id"]
    steer: Json = {"type": "response.steer", "input": "more"}
    for to, lane, code in (("resp_1", None, "response_not_found"), (done, "a", "response_already_completed")):
        await talk.send({**steer, "previous_response_id": to})
        failed = await talk.next(lane)
        assert (failed["type"], failed["error"]["code"]) == ("response.steer.failed", code)
        assert failed["steer"] == {"input": "more", "previous_response_id": to}
    await talk.send({**steer, "previous_response_id": done, "input": []})
    assert (await talk.next("a"))["error"]["code"] == "invalid_input"
    await talk.send({**steer, "previous_response_id": 7})
    assert (await talk.next())["error"]["code"] == "invalid_input"


# Isolation


async def test_one_owner_never_continues_what_is_anothers(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    await talk.create(input="secret", store=True)
    stored = (await talk.answer())[-1]["response"]["id"]
    async with talking(here, key=BOB) as foreign:
        await foreign.create(input="go on", previous_response_id=stored)
        taken = await foreign.error()
        await foreign.create(input="go on", previous_response_id="resp_0")
        unknown = await foreign.error()
    assert json.dumps(taken).replace(stored, "resp_0") == json.dumps(unknown)


async def test_messages_of_one_connection_reach_no_other(here: Site, provider: ChatUpstream) -> None:
    async with talking(here, key=ANN) as one, talking(here, key=ANN) as two:
        await asyncio.gather(one.create(lane="a", input="one"), two.create(lane="a", input="two"))
        first, second = await one.answer("a"), await two.answer("a")
    assert folded(first)["output"][0]["content"][0]["text"] == "re: one"
    assert folded(second)["output"][0]["content"][0]["text"] == "re: two"
    assert [len(one.heard), len(two.heard)] == [len(first), len(second)]


# The end


async def test_after_its_time_a_connection_says_so_and_ends(tmp_path: Path, provider: ChatUpstream) -> None:
    async with apart(tmp_path, provider, websocket_lifetime=0.3) as here, talking(here) as talk:
        error = await talk.error()
        assert (error["status"], error["error"]["code"]) == (400, "websocket_connection_limit_reached")
        assert error["error"]["message"].startswith("Responses websocket connection limit reached (0.005 minutes).")
        assert await closed(talk) == (1000, "time is up")


async def test_what_runs_when_the_time_is_over_is_finished_and_nothing_new_begins(
    tmp_path: Path, provider: ChatUpstream
) -> None:
    held = Held(answer(text("a", "b")), after=2)
    provider.follow([held])
    async with apart(tmp_path, provider, websocket_lifetime=0.3) as here, talking(here) as talk:
        await talk.create(input="hi")
        await talk.until("response.output_text.delta")
        await asyncio.sleep(0.4)
        await talk.create(lane="b", input="too late")
        late = await talk.error("b")
        assert late["error"]["code"] == "websocket_connection_limit_reached"
        held.release()
        assert (await talk.answer())[-1]["type"] == "response.completed"
        assert (await talk.error())["error"]["code"] == "websocket_connection_limit_reached"
        assert (await closed(talk))[0] == 1000


async def test_a_server_that_stops_lets_turns_finish_and_says_goodbye(tmp_path: Path, provider: ChatUpstream) -> None:
    held = Held(answer(text("a", "b")), after=2)
    provider.follow([held])
    async with apart(tmp_path, provider) as here, talking(here) as talk, talking(here) as idle:
        await talk.create(input="hi")
        await talk.until("response.output_text.delta")
        here.stop()
        assert await closed(idle) == (1001, "the server is shutting down")
        await talk.create(lane="b", input="too late")
        late = await talk.error("b")
        assert (late["status"], late["error"]["code"]) == (503, "server_is_overloaded")
        held.release()
        assert (await talk.answer())[-1]["type"] == "response.completed"
        assert await closed(talk) == (1001, "the server is shutting down")


# The endpoint by itself


async def endpoint(tmp_path: Path, message: Message, *, answers: int) -> list[Message]:
    """What the endpoint sends to a client that says this and leaves after so many answers."""
    sent: list[Message] = []
    enough = asyncio.Event()
    waiting = iter([{"type": "websocket.connect"}, message])

    async def receive() -> Message:
        if (said := next(waiting, None)) is not None:
            return said
        await asyncio.wait_for(enough.wait(), 5)
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == answers:
            enough.set()

    async with closing(services_in(tmp_path, NOWHERE)) as services:
        scope: Json = {"type": "websocket", "headers": [], "state": {"owner": "local"}, "extensions": {}}
        await ResponsesSocket(services, Pulse())(scope, receive, send)
    return sent


async def test_a_server_without_our_extension_sends_message_by_message(tmp_path: Path) -> None:
    said = {"type": "response.create", "model": "m", "input": "hi", "generate": False}
    sent = await endpoint(tmp_path, {"type": "websocket.receive", "text": json.dumps(said)}, answers=4)
    assert sent[0] == {"type": "websocket.accept"}
    told = [json.loads(message["text"])["type"] for message in sent[1:]]
    assert told == ["response.created", "response.in_progress", "response.completed"]


async def test_a_fault_of_ours_ends_the_connection_and_is_logged(tmp_path: Path) -> None:
    with capture_logs() as logs:
        sent = await endpoint(tmp_path, {"type": "websocket.receive", "text": 7}, answers=2)
    assert sent[-1] == {"type": "websocket.close", "code": 1011, "reason": "internal error"}
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["a connection ended badly"]

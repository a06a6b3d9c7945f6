"""The openai SDK's WebSocket connections and sessions, in front of the real server process (websocket.md).

A relay stands in between, so that every message the server sends is validated strictly against the SDK's own models:
the SDK itself builds its objects without validating them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import sleep
from typing import cast

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketLane,
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketAccumulator,
    ResponsesWebSocketError,
    ResponsesWebSocketLane,
    ResponsesWebSocketLimits,
    ResponsesWebSocketSession,
)
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionToolCall,
    ResponseSteerAcceptedEvent,
    ResponseSteerFailedEvent,
    ResponseSteerPendingEvent,
)
from openai.types.responses.responses_client_event import ResponseCreate
from openai.types.responses.responses_client_event_param import ResponsesClientEventParam
from openai.types.responses.responses_server_event import ResponsesServerEvent, ResponseWsCreated, ResponseWsError
from websockets.exceptions import InvalidStatus

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import HttpError, ToolCall, Trouble, answer, call, calls, text, thought
from tests.clients.relay import Relay
from tests.clients.witness import check_messages
from tests.live import LiveServer, LiveUpstream, running

pytestmark = pytest.mark.clients

MODEL = "test-model"
KEY = "rj-ada-7f3c19d2"

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Says what the weather is.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}

LIMITS = ResponsesWebSocketLimits(
    max_lanes=40, max_events_per_lane=1000, max_events=10_000, max_bytes_per_lane=8 << 20, max_bytes=32 << 20
)


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    upstreams = [LiveUpstream(provider.base_url, models=(MODEL,))]
    with running(tmp_path_factory.mktemp("server"), upstreams=upstreams, keys={"ada": KEY}) as server:
        yield server


@pytest.fixture
def relay(server: LiveServer) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay
    for socket in relay.sockets:
        assert socket.binary == 0
        check_messages(socket.told)


@pytest.fixture
def client(relay: Relay) -> Iterator[OpenAI]:
    with OpenAI(base_url=relay.base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def session(relay: Relay) -> AsyncIterator[AsyncResponsesWebSocketSession]:
    async with (
        AsyncOpenAI(base_url=relay.base_url, api_key=KEY, max_retries=0) as client,
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        yield session


def create(
    words: str | Sequence[object],
    *,
    after: Response | str | None = None,
    store: bool = False,
    **fields: object,
) -> ResponsesClientEventParam:
    said: dict[str, object] = {"type": "response.create", "model": MODEL, "store": store, "input": words, **fields}
    if after is not None:
        said["previous_response_id"] = after if isinstance(after, str) else after.id
    return said  # type: ignore[return-value]  # the SDK's own types are what is tested by what it sends


def result(call_id: str, output: str = "sunny") -> dict[str, str]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def words(upstream: ChatUpstream, number: int) -> list[str]:
    return [message.text for message in upstream.requests[number].chat.messages]


def kinds(events: Sequence[ResponsesServerEvent]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


async def ask(lane: AsyncResponsesWebSocketLane, event: ResponsesClientEventParam) -> Response:
    await lane.send(event)
    async with asyncio.timeout(10):
        return await lane.get_final_response()


async def until(lane: AsyncResponsesWebSocketLane, kind: str) -> list[ResponsesServerEvent]:
    """What a lane hears, up to the first event of this type."""
    events: list[ResponsesServerEvent] = []
    async with asyncio.timeout(10):
        while not events or events[-1].type != kind:
            events.append(await lane.recv())
    return events


async def wait_until(claim: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread, or another process."""
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110 - nobody there could set an event of this loop
            await asyncio.sleep(0.01)


SUNNY = answer(thought("Hm."), text("All ", "sunny."))
LOOK = answer(text("Let me look."), calls(call("get_weather", '{"city":', '"Oslo"}', id="call_1")))


# A connection.


def test_a_connection_is_a_conversation_of_its_own(client: OpenAI, upstream: ChatUpstream) -> None:
    """Nothing of it is stored, and every request but the first says only what is new."""
    upstream.follow([LOOK, SUNNY, answer(text("You are welcome."))])
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="Weather?", tools=[WEATHER], store=False)
        events = [connection.recv()]
        while events[-1].type != "response.completed":
            events.append(connection.recv())
        assert kinds(events)[:3] == ["created", "in_progress", "output_item.added"]
        asked = events[-1].response
        [_, called] = asked.output
        assert isinstance(called, ResponseFunctionToolCall)
        connection.response.create(
            model=MODEL,
            input=[{"type": "function_call_output", "call_id": called.call_id, "output": "sunny"}],
            previous_response_id=asked.id,
            tools=[WEATHER],
            store=False,
        )
        told = None
        for event in connection:
            if event.type == "response.completed":
                told = event.response
                break
        assert told is not None
        assert (told.output_text, told.previous_response_id) == ("All sunny.", asked.id)
        connection.response.create(model=MODEL, input="Thanks", previous_response_id=told.id, store=False)
        while (event := connection.recv()).type != "response.completed":
            pass
    assert [message.role for message in upstream.requests[2].chat.messages] == [
        *("user", "assistant", "tool", "assistant", "user"),
    ]


def test_handlers_hear_what_they_asked_for(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([SUNNY])
    deltas: list[str] = []
    manager = client.responses.connect()
    manager.on("response.output_text.delta", lambda event: deltas.append(event.delta))
    # Said before there is a connection, it is sent as soon as there is one.
    manager.send(create("Weather?"))
    with manager as connection:
        connection.once("response.completed", lambda event: connection.close())
        connection.dispatch_events()
    assert deltas == ["All ", "sunny."]


def test_a_wrong_key_is_refused_before_there_is_a_connection(relay: Relay) -> None:
    with (
        OpenAI(base_url=relay.base_url, api_key="somebody-elses", max_retries=0) as client,
        pytest.raises(InvalidStatus) as refused,
        client.responses.connect(),
    ):
        pass
    assert refused.value.response.status_code == 401
    body = json.loads(refused.value.response.body or b"")
    assert body["error"] == {
        "message": "Incorrect API key provided.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert relay.sockets == []


def test_an_image_of_many_megabytes_is_one_message(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([SUNNY])
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 400_000
    with client.responses.connect() as connection:
        connection.send(create([{"role": "user", "content": [{"type": "input_image", "image_url": picture}]}]))
        while (event := connection.recv()).type != "response.completed":
            assert event.type != "error", event
    assert picture.encode() in upstream.requests[0].body


@pytest.mark.slow
def test_a_connection_is_opened_again_when_the_server_restarts(
    provider: ChatUpstream, upstream: ChatUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What was stored can be continued there, and nothing else (websocket.md §5)."""
    codes: list[int] = []
    upstream.follow([answer(text("Hello, Ada.")), answer(text("Hello, Bob.")), answer(text("You are Ada."))])
    upstreams = [LiveUpstream(provider.base_url, models=(MODEL,))]
    with (
        running(tmp_path_factory.mktemp("restarted"), upstreams=upstreams) as restarted,
        OpenAI(base_url=restarted.base_url, api_key="any", max_retries=0) as client,
        client.responses.connect(
            on_reconnecting=lambda event: codes.append(event.close_code), initial_delay=0.2, max_delay=1, max_retries=20
        ) as connection,
        ResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        lane = session.default
        lane.send(create("I am Ada.", store=True))
        kept = lane.get_final_response(timeout=10)
        lane.send(create("I am Bob."))
        lost = lane.get_final_response(timeout=10)
        restarted.terminate()
        restarted.start()
        send_again(lane, create("Who am I?", after=lost))
        with pytest.raises(ResponsesWebSocketError) as refused:
            lane.get_final_response(timeout=10)
        assert isinstance(refused.value.event, ResponseWsError)
        assert refused.value.event.error.code == "previous_response_not_found"
        lane.send(create("Who am I?", after=kept))
        assert lane.get_final_response(timeout=10).output_text == "You are Ada."
    assert set(codes) == {1001}
    assert words(upstream, 2) == ["I am Ada.", "Hello, Ada.", "Who am I?"]


def send_again(lane: ResponsesWebSocketLane, event: ResponsesClientEventParam) -> None:
    """Send it once there is a connection: until then the session refuses, and says no other way when that is."""
    for _ in range(500):
        try:
            lane.send(event)
            return
        except RuntimeError:
            sleep(0.02)
    raise TimeoutError("the connection was not opened again")


# Lanes.


def test_lanes_of_a_synchronous_session_answer_side_by_side(client: OpenAI, upstream: ChatUpstream) -> None:
    names = ("a", "b", "c")
    held = {name: Held(answer(text("I am ", name)), after=2) for name in names}
    upstream.follow(lambda request: held[request.messages[-1].text])
    with (
        client.responses.connect() as connection,
        ResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        lanes = {name: session.lane(name) for name in names}
        for name in names:
            lanes[name].send(create(name))
        upstream.wait(3)
        # The last to be asked is the first to be answered.
        for name in reversed(names):
            held[name].release()
            assert lanes[name].get_final_response(timeout=10).output_text == f"I am {name}"


async def test_lanes_interleave_and_every_event_says_whose_it_is(
    session: AsyncResponsesWebSocketSession, relay: Relay, upstream: ChatUpstream
) -> None:
    names = ["a", "b.1", "c_2", "D-3", None]
    held = {str(name): Held(answer(text("I ", "am ", str(name))), after=2) for name in names}
    upstream.follow(lambda request: held[request.messages[-1].text])
    lanes = [session.default if name is None else session.lane(name) for name in names]
    for name, lane in zip(names, lanes, strict=True):
        await lane.send(create(str(name)))
    begun = [await until(lane, "response.output_text.delta") for lane in lanes]
    for one in held.values():
        one.release()
    for name, lane, events in zip(names, lanes, begun, strict=True):
        assert {event.stream_id for event in events} == {name}
        assert (await lane.get_final_response()).output_text == f"I am {name}"
    told = [json.loads(message) for message in relay.sockets[0].told]
    assert [message for message in told if message.get("stream_id", "") is None] == [], "it is left out"
    ends = [message.get("stream_id") for message in told if message["type"] == "response.completed"]
    assert sorted(map(str, ends)) == sorted(map(str, names))
    # Nobody's end came before everybody's beginning.
    kinds_ = [message["type"] for message in told]
    assert kinds_[: kinds_.index("response.completed")].count("response.created") == len(names)


async def test_a_lane_answers_one_request_after_the_other(
    session: AsyncResponsesWebSocketSession, relay: Relay, upstream: ChatUpstream
) -> None:
    first = Held(answer(text("one")))
    upstream.follow(lambda request: first if request.messages[-1].text == "first" else answer(text("two")))
    lane, other = session.lane("a"), session.lane("b")
    await lane.send(create("first"))
    # The session would wait itself; what it is given as another lane's goes out at once.
    await session.connection.send(create("second", stream_id="a"))
    assert (await ask(other, create("elsewhere"))).output_text == "two"
    assert words(upstream, -1) == ["elsewhere"]
    first.release()
    await wait_until(lambda: len(relay.sockets[0].ended) == 3)
    told = [json.loads(message) for message in relay.sockets[0].told]
    kinds_ = [message["type"].removeprefix("response.") for message in told if message["stream_id"] == "a"]
    assert [kind for kind in kinds_ if kind in ("created", "completed")] == ["created", "completed"] * 2
    assert words(upstream, -1) == ["second"]


async def test_sixteen_are_made_at_once_and_the_others_wait(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    held = [Held(answer(text(f"number {number}"))) for number in range(20)]
    upstream.follow(lambda request: held[int(request.messages[-1].text)])
    lanes = [session.lane(f"lane-{number}") for number in range(20)]
    for number, lane in enumerate(lanes):
        await lane.send(create(str(number)))
    await wait_until(lambda: len(upstream.requests) == 16)
    await asyncio.sleep(0.2)
    assert len(upstream.requests) == 16
    held[3].release()
    assert (await lanes[3].get_final_response()).output_text == "number 3"
    await wait_until(lambda: len(upstream.requests) == 17)
    for one in held:
        one.release()
    for number, lane in enumerate(lanes):
        assert (await lane.get_final_response()).output_text == f"number {number}"


async def test_there_are_thirty_two_names_of_lanes(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    upstream.follow(lambda request: answer(text("ok")))
    for number in range(32):
        assert (await ask(session.lane(f"lane-{number}"), create("hi"))).output_text == "ok"
    one_more = session.lane("one-more")
    with pytest.raises(ResponsesWebSocketError) as refused:
        await ask(one_more, create("hi"))
    assert isinstance(refused.value.event, ResponseWsError)
    assert refused.value.event.error.code == "websocket_stream_limit_reached"
    assert (refused.value.event.status, refused.value.event.stream_id) == (400, "one-more")
    # The lane without a name is none of them.
    assert (await ask(session.default, create("hi"))).output_text == "ok"


async def test_a_conversation_forks_into_another_lane_without_being_stored(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    slow = Held(answer(text("Left.")), after=1)
    upstream.follow([answer(text("Hello.")), slow, answer(text("Right.")), answer(text("Left again."))])
    source, fork = session.lane("source"), session.lane("fork")
    root = await ask(source, create("Root"))
    await fork.send(create("left", after=root))
    await until(fork, "response.in_progress")
    right = await ask(source, create("right", after=root))
    slow.release()
    left = await fork.get_final_response()
    assert (left.output_text, right.output_text) == ("Left.", "Right.")
    assert {left.previous_response_id, right.previous_response_id} == {root.id}
    assert (await ask(fork, create("more", after=left))).output_text == "Left again."
    assert words(upstream, 3) == ["Root", "Hello.", "left", "Left.", "more"]
    assert words(upstream, 2) == ["Root", "Hello.", "right"]


async def test_a_name_is_no_history(session: AsyncResponsesWebSocketSession, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hello.")), answer(text("Who?"))])
    lane = session.lane("a")
    await ask(lane, create("I am Ada."))
    assert (await ask(lane, create("Who am I?"))).previous_response_id is None
    assert words(upstream, 1) == ["Who am I?"]


async def test_a_response_that_was_stored_is_continued_on_any_connection(
    session: AsyncResponsesWebSocketSession, client: OpenAI, upstream: ChatUpstream
) -> None:
    upstream.follow([answer(text("Hello, Ada.")), answer(text("You are Ada.")), answer(text("Ada."))])
    kept = await ask(session.default, create("I am Ada.", store=True))
    assert client.responses.retrieve(kept.id).output_text == "Hello, Ada."
    over_http = client.responses.create(model=MODEL, input="Who am I?", previous_response_id=kept.id)
    assert (await ask(session.lane("a"), create("Once more", after=over_http.id))).output_text == "Ada."
    assert words(upstream, 2) == ["I am Ada.", "Hello, Ada.", "Who am I?", "You are Ada.", "Once more"]


async def test_a_conversation_is_held_over_a_connection_too(
    session: AsyncResponsesWebSocketSession, client: OpenAI, upstream: ChatUpstream
) -> None:
    """Such a response cannot be steered (websocket.md §7)."""
    conversation = client.conversations.create()
    slow = Held(answer(text("You are ", "Ada.")), after=2)
    upstream.follow([answer(text("Hello, Ada.")), slow])
    lane = session.lane("a")
    first = await ask(lane, create("I am Ada.", store=True, conversation=conversation.id))
    assert first.conversation is not None
    assert first.conversation.id == conversation.id
    await lane.send(create("Who am I?", store=True, conversation=conversation.id))
    created = (await until(lane, "response.output_text.delta"))[0]
    assert isinstance(created, ResponseWsCreated)
    await session.connection.response.steer(previous_response_id=created.response.id, input="In Spanish")
    [failed] = await until(lane, "response.steer.failed")
    assert isinstance(failed, ResponseSteerFailedEvent)
    assert failed.error.code == "steering_not_supported"
    slow.release()
    assert (await lane.get_final_response()).output_text == "You are Ada."
    assert words(upstream, 1) == ["I am Ada.", "Hello, Ada.", "Who am I?"]
    assert len(client.conversations.items.list(conversation.id).data) == 4


async def test_a_long_conversation_is_compacted_on_the_way_and_goes_on_from_its_newest_response(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    """Nothing of it is stored, and the client sends only what is new (websocket.md §8)."""
    long = answer(text("Hello, Ada. " * 1000))
    upstream.follow([long, answer(text("THE SUMMARY")), answer(text("You are Ada.")), answer(text("Still Ada."))])
    lane, when = session.lane("a"), [{"type": "compaction", "compact_threshold": 1000}]
    first = await ask(lane, create("I am Ada.", context_management=when))
    second = await ask(lane, create("Who am I?", after=first, context_management=when))
    assert [item.type for item in second.output] == ["compaction", "message"]
    third = await ask(lane, create("And now?", after=second))
    assert third.output_text == "Still Ada."
    assert "Hello, Ada." not in "".join(words(upstream, 3))
    assert "THE SUMMARY" in "".join(words(upstream, 3))
    assert words(upstream, 3)[-2:] == ["You are Ada.", "And now?"]


# Warm-up.


@pytest.mark.parametrize("how", ["generate", "prewarm"])
async def test_a_warm_up_registers_what_the_next_request_continues(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream, how: str
) -> None:
    upstream.follow([answer(text("Hello, Ada."))])
    lane = session.lane("a")
    fields = {"generate": False} if how == "generate" else {"prompt_cache_options": {"prewarm": True}}
    said = {"type": "response.create", "model": MODEL, "store": False, "input": "I am Ada.", **fields}
    await lane.send(ResponseCreate.model_validate(said))
    events = await until(lane, "response.completed")
    assert kinds(events) == ["created", "in_progress", "completed"]
    registered = await lane.get_final_response()
    assert (registered.status, registered.output) == ("completed", [])
    assert upstream.requests == []
    answered = await ask(lane, create("Who am I?", after=registered))
    assert answered.output_text == "Hello, Ada."
    assert words(upstream, 0) == ["I am Ada.", "Who am I?"]


# What goes wrong.


async def test_an_error_in_one_lane_is_none_in_another(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    slow = Held(answer(text("I am ", "fine.")), after=2)
    upstream.follow([slow, HttpError(400, "Invalid value: 'x'."), answer(text("Better."))])
    ill, well = session.lane("ill"), session.lane("well")
    await well.send(create("How are you?"))
    await until(well, "response.output_text.delta")
    for said, code, param in (
        (create("And you?", model="nobody"), "model_not_found", "model"),
        (create("And you?", after="resp_unknown"), "previous_response_not_found", "previous_response_id"),
        (create("And you?", temperature="hot"), "invalid_type", "temperature"),
        # The provider's word for it is none of ours.
        (create("And you?"), "invalid_request_error", None),
    ):
        with pytest.raises(ResponsesWebSocketError) as refused:
            await ask(ill, said)
        event = refused.value.event
        assert isinstance(event, ResponseWsError)
        assert (event.stream_id, event.status, event.error.code, event.error.param) == ("ill", 400, code, param)
    slow.release()
    assert (await well.get_final_response()).output_text == "I am fine."
    assert (await ask(ill, create("And now?"))).output_text == "Better."


async def test_a_response_that_is_cut_or_fails_is_a_result(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    lane = session.default
    broken = answer(text("Ha", "lf"), trouble=Trouble("cut", after=2))
    upstream.follow([answer(text("One, ", "two"), finish="length"), answer(text("three.")), broken])
    cut = await ask(lane, create("Count"))
    assert (cut.status, cut.output_text) == ("incomplete", "One, two")
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    # It can be continued, as what failed cannot.
    assert (await ask(lane, create("Go on", after=cut))).output_text == "three."
    assert words(upstream, 1) == ["Count", "One, two", "Go on"]
    failed = await ask(lane, create("Count again"))
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "server_error"
    with pytest.raises(ResponsesWebSocketError) as refused:
        await ask(lane, create("Go on", after=failed))
    assert isinstance(refused.value.event, ResponseWsError)
    assert refused.value.event.error.code == "previous_response_not_found"


async def test_what_is_no_name_of_a_lane_is_refused(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    upstream.follow([answer(text("ok"))])
    for name in ("", "a b", "ü", "x" * 257):
        await session.connection.send(create("hi", stream_id=name))
        [event] = await until(session.default, "error")
        assert isinstance(event, ResponseWsError)
        assert (event.error.code, event.error.param, event.stream_id) == ("invalid_stream_id", "stream_id", None)
    assert (await ask(session.lane("x" * 256), create("hi"))).output_text == "ok"


async def test_a_continuation_that_fails_takes_what_it_continued_with_it(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    """In its own lane, that is: a fork that fails leaves its parent to the others (websocket.md §5)."""
    upstream.follow([answer(text("Hello.")), answer(text("Still here."))])
    lane, fork = session.lane("a"), session.lane("b")
    root = await ask(lane, create("Root"))
    wrong = create([result("call_nobody_made")], after=root)
    with pytest.raises(ResponsesWebSocketError):
        await ask(fork, wrong)
    root = await ask(lane, create("more", after=root))
    assert root.output_text == "Still here."
    with pytest.raises(ResponsesWebSocketError):
        await ask(lane, create([result("call_nobody_made")], after=root))
    for each in (lane, fork):
        with pytest.raises(ResponsesWebSocketError) as refused:
            await ask(each, create("again", after=root))
        assert isinstance(refused.value.event, ResponseWsError)
        assert refused.value.event.error.code == "previous_response_not_found"
        assert refused.value.event.error.message == f"Previous response with id '{root.id}' not found."


async def test_leaving_frees_the_providers_of_every_lane(relay: Relay, upstream: ChatUpstream) -> None:
    upstream.follow(lambda request: Held(answer(text("Hello ", "there.")), after=2))
    async with (
        AsyncOpenAI(base_url=relay.base_url, api_key=KEY, max_retries=0) as client,
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        lanes = [session.lane(name) for name in ("a", "b", "c")]
        for lane in lanes:
            await lane.send(create("Hello"))
        for lane in lanes:
            await until(lane, "response.output_text.delta")
    for request in upstream.requests:
        assert await asyncio.to_thread(request.left.wait, 1)


# Steering.


async def test_words_said_to_a_response_end_it_and_begin_the_next(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    slow = Held(answer(thought("Hm."), text("One, ", "two."), calls(call("get_weather", "{}"))), after=4)
    upstream.follow([slow, answer(text("Uno."))])
    lane, other = session.lane("a"), session.lane("b")
    await lane.send(create("Count", tools=[WEATHER], metadata={"topic": "numbers"}))
    begun = await until(lane, "response.output_text.delta")
    created = begun[0]
    assert isinstance(created, ResponseWsCreated)
    await lane.send({"type": "response.steer", "previous_response_id": created.response.id, "input": "In Spanish"})
    [*_, accepted] = await until(lane, "response.steer.accepted")
    assert isinstance(accepted, ResponseSteerAcceptedEvent)
    assert (accepted.steer.previous_response_id, accepted.stream_id) == (created.response.id, "a")
    slow.release()
    ended = await lane.get_final_response()
    assert ended.status == "incomplete"
    assert ended.incomplete_details is not None
    assert ended.incomplete_details.reason == "steered"
    assert ended.output_text == "One, two."
    [again] = await until(lane, "response.created")
    successor = await lane.get_final_response()
    assert isinstance(again, ResponseWsCreated)
    assert (successor.id, successor.previous_response_id) == (again.response.id, ended.id)
    assert (successor.output_text, successor.metadata) == ("Uno.", {"topic": "numbers"})
    assert [tool.type for tool in successor.tools] == ["function"]
    assert words(upstream, 1) == ["Count", "One, two.", "In Spanish"]
    # A lane that has heard of it may go on from it, as any other.
    upstream.follow([answer(text("Dos."))])
    assert (await ask(other, create("And?", after=successor))).output_text == "Dos."


@dataclass(frozen=True, slots=True)
class Waited:
    """A tool of the client's own: how it is called, what is wanted for that, and what it is answered with."""

    tool: Mapping[str, object]
    call: ToolCall
    wanted: Mapping[str, str]
    result: Mapping[str, object]


LOOKED = Waited(
    tool=cast(Mapping[str, object], WEATHER),
    call=call("get_weather", '{"city":', '"Oslo"}', id="call_1"),
    wanted={"type": "function_call_output", "call_id": "call_1", "name": "get_weather"},
    result={"output": "sunny"},
)

WAITED = {
    "custom": Waited(
        tool={"type": "custom", "name": "shout", "description": "Shouts."},
        call=call("shout", '{"input":', '"hello"}', id="call_0"),
        wanted={"type": "custom_tool_call_output", "call_id": "call_0"},
        result={"output": "HELLO"},
    ),
    "shell": Waited(
        tool={"type": "shell", "environment": {"type": "local"}},
        call=call("shell", '{"commands":', '["ls"]}', id="call_0"),
        wanted={"type": "shell_call_output", "call_id": "call_0"},
        result={"output": [{"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
    ),
    "apply_patch": Waited(
        tool={"type": "apply_patch"},
        call=call("apply_patch", '{"type":"delete_file",', '"path":"a.txt"}', id="call_0"),
        wanted={"type": "apply_patch_call_output", "call_id": "call_0"},
        result={"status": "completed"},
    ),
    "tool_search": Waited(
        tool={
            "type": "tool_search",
            "execution": "client",
            "description": "Finds tools.",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
        call=call("tool_search", '{"query":', '"people"}', id="call_0"),
        wanted={"type": "tool_search_output", "call_id": "call_0", "execution": "client"},
        result={"tools": []},
    ),
}


@pytest.mark.parametrize("waited", WAITED.values(), ids=WAITED)
async def test_words_to_a_response_that_calls_tools_wait_for_their_results(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream, waited: Waited
) -> None:
    # One call is made and the other begun, so that it will be made too.
    slow = Held(answer(calls(waited.call, LOOKED.call)), after=6)
    upstream.follow([slow, answer(text("Soleado."))])
    lane, tools = session.default, [waited.tool, LOOKED.tool]
    await lane.send(create("Weather?", tools=tools))
    created = (await until(lane, "response.function_call_arguments.delta"))[0]
    assert isinstance(created, ResponseWsCreated)
    await session.connection.response.steer(
        previous_response_id=created.response.id,
        input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "In Spanish"}]}],
    )
    await until(lane, "response.steer.accepted")
    slow.release()
    asked = await lane.get_final_response()
    assert (asked.status, len(asked.output)) == ("completed", 2)
    [*_, pending] = await until(lane, "response.steer.pending")
    assert isinstance(pending, ResponseSteerPendingEvent)
    assert (pending.reason, pending.steer.previous_response_id) == ("waiting_for_required_input", asked.id)
    # One copies what identifies the calls, and fills in the results.
    wanted = [one.to_dict() for one in pending.required_input]
    assert wanted == [waited.wanted, LOOKED.wanted]
    results = [{**one, **each.result} for one, each in zip(wanted, (waited, LOOKED), strict=True)]
    assert (await ask(lane, create(results, after=asked, tools=tools))).output_text == "Soleado."
    assert [message.role for message in upstream.requests[1].chat.messages] == [
        *("user", "assistant", "tool", "tool", "user"),
    ]
    assert words(upstream, 1)[-1] == "In Spanish"


async def test_words_that_come_to_nothing_are_given_back(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    upstream.follow([answer(text("Done."))])
    lane = session.lane("a")
    done = await ask(lane, create("Count"))
    await lane.send({"type": "response.steer", "previous_response_id": done.id, "input": "In Spanish"})
    [late] = await until(lane, "response.steer.failed")
    assert isinstance(late, ResponseSteerFailedEvent)
    assert (late.error.code, late.steer.input, late.stream_id) == ("response_already_completed", "In Spanish", "a")
    await lane.send({"type": "response.steer", "previous_response_id": "resp_unknown", "input": "In Spanish"})
    [lost] = await until(session.default, "response.steer.failed")
    assert isinstance(lost, ResponseSteerFailedEvent)
    assert (lost.error.code, lost.steer.previous_response_id) == ("response_not_found", "resp_unknown")
    assert len(upstream.requests) == 1


async def test_what_is_heard_adds_up_to_the_response(
    session: AsyncResponsesWebSocketSession, upstream: ChatUpstream
) -> None:
    upstream.follow(
        [answer(thought("Hm."), text("Let ", "me look."), calls(call("get_weather", '{"city":', '"Oslo"}')))]
    )
    lane, heard = session.lane("a"), ResponsesWebSocketAccumulator()
    await lane.send(create("Weather?", tools=[WEATHER]))
    for event in await until(lane, "response.completed"):
        heard.add_event(event)
    final = heard.get_final_response()
    snapshot = heard.snapshot()
    assert (snapshot.stream_id, snapshot.response_id, snapshot.output_text) == ("a", final.id, final.output_text)
    assert final.output_text == "Let me look."
    assert [one.item_id for one in snapshot.output] == [item.id for item in final.output]
    assert [one.arguments for one in snapshot.output] == ["", "", '{"city":"Oslo"}']

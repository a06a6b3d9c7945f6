"""Background responses as the `openai` SDK uses them: polled, followed, left, resumed, cancelled and deleted.

The witness validates every object and every event, and that a resumed stream begins where it was asked to. The helper
`responses.stream(response_id=…, starting_after=…)` does not send `starting_after`: it has everything repeated, and
leaves out the beginning itself (events.md §7).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from time import monotonic, sleep

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionToolCall,
    ResponseIncludable,
    ResponseStreamEvent,
)

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import HttpError, Trouble, Usage, answer, call, calls, text, thought
from tests.clients.witness import Exchange, Witness
from tests.live import LiveServer, LiveUpstream, running

pytestmark = pytest.mark.clients

ADA = "rj-ada-7f3c19d2"
BOB = "rj-bob-52be80aa"
MODEL = "test-model"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
COUNTED = answer(thought("Hm."), text("one ", "two ", "three ", "four"), usage=Usage(prompt=9, completion=4))
FOUR = "one two three four"


class Place(pydantic.BaseModel):
    city: str
    people: int


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    upstreams = [LiveUpstream(provider.base_url, models=(MODEL,))]
    directory = tmp_path_factory.mktemp("server")
    with running(directory, upstreams=upstreams, keys={"ada": ADA, "bob": BOB}) as server:
        yield server


@pytest.fixture
def client(server: LiveServer, witness: Witness) -> Iterator[OpenAI]:
    with witness.client(server.base_url, ADA) as client:
        yield client


@pytest.fixture
async def async_client(server: LiveServer, witness: Witness) -> AsyncIterator[AsyncOpenAI]:
    async with witness.async_client(server.base_url, ADA) as client:
        yield client


def is_under_way(response: Response) -> bool:
    return response.status in ("queued", "in_progress")


def polled(client: OpenAI, response_id: str) -> Response:
    """What the response came to, found as the guide says: by asking again."""
    deadline = monotonic() + 10
    while is_under_way(response := client.responses.retrieve(response_id)):
        assert monotonic() < deadline, response.status
        sleep(0.02)
    return response


def begun(client: OpenAI, upstream: ChatUpstream, *, store: bool = True) -> str:
    """The id of a background response that its provider is working on."""
    asked = len(upstream.requests)
    made = client.responses.create(model=MODEL, input="Hello", background=True, store=store)
    upstream.wait(asked + 1)
    return made.id


def frames(exchange: Exchange) -> list[bytes]:
    """The events of a stream as they came, those that came whole."""
    return [one for one in bytes(exchange.body).split(b"\n\n")[:-1] if one.startswith(b"event: ")]


def numbers(events: Sequence[ResponseStreamEvent]) -> list[int]:
    return [event.sequence_number for event in events]


def last_response(events: Sequence[ResponseStreamEvent]) -> Response:
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete", "response.failed")
    return last.response


# Polling


@pytest.mark.parametrize("store", [True, False], ids=["stored", "in memory"])
def test_a_background_response_is_polled_until_it_is_done(client: OpenAI, upstream: ChatUpstream, store: bool) -> None:
    held = Held(COUNTED)
    upstream.follow([held])
    made = client.responses.create(
        model=MODEL, input="Count", background=True, store=store, metadata={"topic": "numbers"}
    )
    assert is_under_way(made)
    assert (made.background, made.output, made.usage, made.completed_at) == (True, [], None, None)
    upstream.wait(1)
    meanwhile = client.responses.retrieve(made.id)
    assert (meanwhile.status, meanwhile.output, meanwhile.created_at) == ("in_progress", [], made.created_at)
    held.release()
    done = polled(client, made.id)
    assert (done.id, done.status, done.output_text) == (made.id, "completed", FOUR)
    assert (done.background, done.metadata) == (True, {"topic": "numbers"})
    assert done.completed_at is not None
    assert done.usage is not None
    assert done.usage.total_tokens == 13
    assert client.responses.retrieve(made.id).to_dict() == done.to_dict()
    assert [message.text for message in upstream.requests[0].chat.messages] == ["Count"]


async def test_the_async_client_polls_many_at_once(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    async def one(number: int) -> str:
        made = await async_client.responses.create(model=MODEL, input=f"number {number}", background=True)
        async with asyncio.timeout(10):
            while is_under_way(made):
                await asyncio.sleep(0.02)
                made = await async_client.responses.retrieve(made.id)
        return made.output_text

    upstream.follow(lambda request: answer(text(request.messages[-1].text), delay=0.05))
    assert await asyncio.gather(*map(one, range(16))) == [f"number {number}" for number in range(16)]


@pytest.mark.parametrize("stream", [False, True], ids=["polled", "streamed"])
def test_a_background_response_is_as_cut_off_as_its_answer(
    client: OpenAI, upstream: ChatUpstream, stream: bool
) -> None:
    upstream.follow([answer(text("Once"), finish="length")])
    if stream:
        with client.responses.create(model=MODEL, input="Tell", background=True, stream=True) as events:
            cut = last_response([*events])
    else:
        cut = polled(client, client.responses.create(model=MODEL, input="Tell", background=True).id)
    assert (cut.status, cut.output_text) == ("incomplete", "Once")
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert client.responses.retrieve(cut.id).to_dict() == cut.to_dict()


@pytest.mark.parametrize("step", [HttpError(500), answer(text("on", "ce"), trouble=Trouble("cut", 2))])
@pytest.mark.parametrize("stream", [False, True], ids=["polled", "streamed"])
def test_a_background_response_fails_where_its_provider_does(
    client: OpenAI, upstream: ChatUpstream, step: HttpError, stream: bool
) -> None:
    """The create call has long been answered, so the error is the response's (http.md §6.4)."""
    upstream.follow([step])
    if stream:
        with client.responses.create(model=MODEL, input="Tell", background=True, stream=True) as events:
            failed = last_response([*events])
    else:
        failed = polled(client, client.responses.create(model=MODEL, input="Tell", background=True).id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "server_error"
    assert client.responses.retrieve(failed.id).to_dict() == failed.to_dict()
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, previous_response_id=failed.id, input="And?")
    assert raised.value.code == "previous_response_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_said_before_anything_is_begun(client: OpenAI, upstream: ChatUpstream, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="nobody", input="Hello", background=True, stream=stream)
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(
            model=MODEL, previous_response_id="resp_nobody", input="Hello", background=True, stream=stream
        )
    assert raised.value.code == "previous_response_not_found"
    assert upstream.requests == []


def test_tools_are_called_from_one_background_response_to_the_next(client: OpenAI, upstream: ChatUpstream) -> None:
    oslo, rome = (call("get_weather", f'{{"city":"{city}"}}', id=f"call_{city}") for city in ("Oslo", "Rome"))
    upstream.follow([answer(calls(oslo, rome)), answer(text("Sunny."))])
    asked = polled(client, client.responses.create(model=MODEL, input="?", tools=[WEATHER], background=True).id)
    found = [item.call_id for item in asked.output if isinstance(item, ResponseFunctionToolCall)]
    assert len(found) == 2
    told = client.responses.create(
        model=MODEL,
        previous_response_id=asked.id,
        input=[{"type": "function_call_output", "call_id": one, "output": "sun"} for one in found],
        tools=[WEATHER],
        background=True,
    )
    assert polled(client, told.id).output_text == "Sunny."
    assert [message.role for message in upstream.requests[1].chat.messages] == ["user", "assistant", "tool", "tool"]


def test_what_is_not_finished_or_not_stored_is_not_continued(client: OpenAI, upstream: ChatUpstream) -> None:
    held = Held(COUNTED)
    upstream.follow([held, COUNTED, COUNTED])
    unfinished = begun(client, upstream)
    in_memory = polled(client, begun(client, upstream, store=False))
    for parent in (unfinished, in_memory.id):
        with pytest.raises(openai.BadRequestError) as raised:
            client.responses.create(model=MODEL, previous_response_id=parent, input="And?")
        assert raised.value.code == "previous_response_not_found"
    held.release()
    polled(client, unfinished)
    assert client.responses.create(model=MODEL, previous_response_id=unfinished, input="And?").output_text == FOUR


# Streams


@pytest.mark.parametrize("read", [1, 3, 6, 11])
def test_a_stream_that_was_left_goes_on_where_it_was(
    client: OpenAI, witness: Witness, upstream: ChatUpstream, read: int
) -> None:
    held = Held(COUNTED, after=4)
    upstream.follow([held])
    with client.responses.create(model=MODEL, input="Count", background=True, stream=True) as stream:
        seen = [next(stream) for _ in range(read)]
    created = seen[0]
    assert created.type == "response.created"
    resumed = client.responses.retrieve(created.response.id, stream=True, starting_after=seen[-1].sequence_number)
    held.release()
    with resumed:
        rest = [*resumed]
    whole = [*client.responses.retrieve(created.response.id, stream=True)]
    assert numbers(seen + rest) == [*range(len(whole))]
    assert [event.to_dict() for event in seen + rest] == [event.to_dict() for event in whole]
    first, second, third = witness.exchanges
    assert frames(first)[:read] + frames(second) == frames(third)
    assert last_response(rest).output_text == FOUR
    assert client.responses.retrieve(created.response.id).to_dict() == last_response(rest).to_dict()
    assert not upstream.requests[0].left.is_set()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("store", [True, False], ids=["stored", "in memory"])
def test_a_finished_stream_can_be_had_from_every_event_on(
    client: OpenAI, witness: Witness, upstream: ChatUpstream, store: bool
) -> None:
    upstream.follow([COUNTED])
    with client.responses.create(model=MODEL, input="Count", background=True, stream=True, store=store) as stream:
        events = [*stream]
    types = [event.type.removeprefix("response.") for event in events]
    assert types[:3] == ["created", "queued", "in_progress"]
    assert types[-1] == "completed"
    response_id = last_response(events).id
    for again in range(2):
        assert [event.to_dict() for event in client.responses.retrieve(response_id, stream=True)] == [
            event.to_dict() for event in events
        ], again
    whole = frames(witness.exchanges[0])
    for number in range(len(events)):
        rest = [*client.responses.retrieve(response_id, stream=True, starting_after=number)]
        assert numbers(rest) == [*range(number + 1, len(events))]
        assert frames(witness.exchanges[-1]) == whole[number + 1 :]


async def test_many_follow_one_stream(async_client: AsyncOpenAI, witness: Witness, upstream: ChatUpstream) -> None:
    held = Held(COUNTED, after=3)
    upstream.follow([held])
    first = await async_client.responses.create(model=MODEL, input="Count", background=True, stream=True)
    created = await anext(first)
    assert created.type == "response.created"
    response_id = created.response.id

    async def follow(after: int) -> list[ResponseStreamEvent]:
        async with await async_client.responses.retrieve(response_id, stream=True, starting_after=after) as stream:
            return [event async for event in stream]

    followers = [asyncio.create_task(follow(number % 8)) for number in range(24)]
    # One of them leaves, and nobody else notices.
    leaving = await async_client.responses.retrieve(response_id, stream=True)
    assert (await anext(leaving)).sequence_number == 0
    await leaving.close()
    held.release()
    async with first:
        events = [created, *[event async for event in first]]
    for number, follower in enumerate(followers):
        assert [event.to_dict() for event in await follower] == [event.to_dict() for event in events[number % 8 + 1 :]]
    assert len(upstream.requests) == 1


def test_the_stream_helper_resumes_a_response(client: OpenAI, witness: Witness, upstream: ChatUpstream) -> None:
    held = Held(COUNTED, after=4)
    upstream.follow([held])
    with client.responses.create(model=MODEL, input="Count", background=True, stream=True) as stream:
        created, *_, last = [next(stream) for _ in range(12)]
    assert created.type == "response.created"
    assert last.type == "response.output_text.delta"
    helper = client.responses.stream(response_id=created.response.id, starting_after=last.sequence_number)
    with helper as resumed:
        held.release()
        events = [*resumed]
        final = resumed.get_final_response()
    assert events[0].sequence_number == last.sequence_number + 1
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots == ["one two ", "one two three ", FOUR]
    assert (final.id, final.status, final.output_text) == (created.response.id, "completed", FOUR)
    assert "starting_after" not in witness.exchanges[1].request.url.params


async def test_the_async_stream_helper_resumes_into_a_type(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text('{"city":"Oslo",', '"people":700000}'))])
    async with async_client.responses.stream(model=MODEL, input="A city", background=True, text_format=Place) as stream:
        created = await anext(stream)
    assert created.type == "response.created"
    async with async_client.responses.stream(
        response_id=created.response.id, text_format=Place, starting_after=3
    ) as resumed:
        final = await resumed.get_final_response()
    assert final.output_parsed == Place(city="Oslo", people=700000)


def test_the_stream_helper_gives_the_calls_of_a_background_response(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Let me look."), calls(call("get_weather", '{"city":', '"Oslo"}')))])
    made = client.responses.create(model=MODEL, input="?", tools=[WEATHER], background=True, stream=True)
    with made:
        created = next(made)
    assert created.type == "response.created"
    with client.responses.stream(response_id=created.response.id, tools=[WEATHER]) as resumed:
        final = resumed.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call"]
    item = final.output[1]
    assert item.type == "function_call"
    assert item.parsed_arguments == {"city": "Oslo"}


def test_only_what_was_made_as_a_stream_can_be_streamed(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([COUNTED, COUNTED])
    plain = polled(client, begun(client, upstream))
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.retrieve(plain.id, stream=True)
    assert raised.value.param == "stream"
    with client.responses.create(model=MODEL, input="Count", background=True, stream=True) as stream:
        streamed = last_response([*stream])
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.retrieve(streamed.id, starting_after=3)
    assert raised.value.param == "starting_after"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_nobody", stream=True)


# Cancelling


def test_a_running_response_is_cancelled_once_and_for_all(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([Held(COUNTED)])
    response_id = begun(client, upstream)
    cancelled = client.responses.cancel(response_id)
    assert (cancelled.id, cancelled.status, cancelled.completed_at) == (response_id, "cancelled", None)
    assert upstream.requests[0].left.wait(5)
    again = client.responses.cancel(response_id)
    assert cancelled.to_dict() == again.to_dict() == client.responses.retrieve(response_id).to_dict()
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, previous_response_id=response_id, input="And?")
    assert raised.value.code == "previous_response_not_found"


async def test_a_cancelled_stream_ends_for_everybody(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    """There is no event of that name, so the last event is another one, and its response says `cancelled`."""
    upstream.follow([Held(answer(text("one ", "two")), after=2)])
    stream = await async_client.responses.create(model=MODEL, input="Count", background=True, stream=True)
    events: list[ResponseStreamEvent] = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta":
            break
    created = events[0]
    assert created.type == "response.created"
    response_id = created.response.id
    follower = await async_client.responses.retrieve(response_id, stream=True, starting_after=0)
    cancelled = await async_client.responses.cancel(response_id)
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "one ")
    async with stream, follower:
        events += [event async for event in stream]
        followed = [event async for event in follower]
    assert last_response(events).to_dict() == last_response(followed).to_dict() == cancelled.to_dict()
    assert numbers(followed) == numbers(events)[1:]
    again = [event async for event in await async_client.responses.retrieve(response_id, stream=True)]
    assert [event.to_dict() for event in again] == [event.to_dict() for event in events]


def test_a_finished_response_stays_what_it_is(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([COUNTED])
    done = polled(client, begun(client, upstream))
    assert client.responses.cancel(done.id).to_dict() == done.to_dict()
    assert client.responses.retrieve(done.id).status == "completed"


def test_a_response_that_its_client_waits_for_is_not_cancelled(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([COUNTED])
    made = client.responses.create(model=MODEL, input="Count")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_nobody")


# Deleting


@pytest.mark.parametrize("store", [True, False], ids=["stored", "in memory"])
def test_a_running_response_is_ended_and_deleted(client: OpenAI, upstream: ChatUpstream, store: bool) -> None:
    upstream.follow([Held(COUNTED)])
    response_id = begun(client, upstream, store=store)
    client.responses.delete(response_id)
    assert upstream.requests[0].left.wait(5)
    assert_gone(client, response_id)


@pytest.mark.parametrize("store", [True, False], ids=["stored", "in memory"])
def test_a_finished_response_is_deleted_with_its_stream(client: OpenAI, upstream: ChatUpstream, store: bool) -> None:
    upstream.follow([COUNTED])
    with client.responses.create(model=MODEL, input="Count", background=True, stream=True, store=store) as stream:
        response_id = last_response([*stream]).id
    client.responses.delete(response_id)
    assert_gone(client, response_id)


def test_who_follows_a_deleted_response_is_told_how_it_ended(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([Held(answer(text("one ", "two")), after=2)])
    with client.responses.create(model=MODEL, input="Count", background=True, stream=True) as stream:
        created = next(stream)
        assert created.type == "response.created"
        client.responses.delete(created.response.id)
        rest = [*stream]
    assert last_response(rest).status == "cancelled"
    assert_gone(client, created.response.id)


def assert_gone(client: OpenAI, response_id: str) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.responses.retrieve(response_id)
    assert raised.value.message.count(response_id) == 1
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response_id, stream=True)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel(response_id)
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list(response_id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(response_id)


def test_another_key_holder_finds_no_background_response(client: OpenAI, upstream: ChatUpstream) -> None:
    held = Held(COUNTED)
    upstream.follow([held])
    response_id = begun(client, upstream)
    assert_gone(client.with_options(api_key=BOB), response_id)
    held.release()
    assert polled(client, response_id).output_text == FOUR


# What it was made from


def test_the_input_of_a_running_response_can_be_listed(client: OpenAI, upstream: ChatUpstream) -> None:
    held = Held(COUNTED)
    upstream.follow([held])
    made = client.responses.create(
        model=MODEL,
        background=True,
        input=[{"role": "user", "content": f"word {number}"} for number in range(5)],
    )
    upstream.wait(1)
    while_running = [item.to_dict() for item in client.responses.input_items.list(made.id, limit=2, order="asc")]
    held.release()
    polled(client, made.id)
    backwards = [item.to_dict() for item in client.responses.input_items.list(made.id, limit=2)]
    assert len(while_running) == 5
    assert backwards == while_running[::-1]


def test_images_are_listed_for_those_who_ask(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("A dot."))])
    made = client.responses.create(
        model=MODEL,
        background=True,
        input=[{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "low"}]}],
    )
    assert client.responses.retrieve(made.id, include=["message.input_image.image_url"]).id == made.id
    polled(client, made.id)

    def urls(*include: ResponseIncludable) -> list[str | None]:
        [item] = client.responses.input_items.list(made.id, include=[*include])
        assert item.type == "message"
        assert item.role == "user"
        return [part.image_url for part in item.content if part.type == "input_image"]

    assert urls() == [None]
    assert urls("message.input_image.image_url") == [PIXEL]
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.retrieve(made.id, extra_query={"include": ["nonsense"]})
    assert raised.value.param == "include"

"""Token counts, compaction and idempotency keys as the `openai` SDK uses them.

The SDK has no name for the header of an idempotency key, so a user gives it as any other header (http.md §4).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import cast

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import CompactedResponse, FunctionToolParam, ResponseInputItemParam, ResponseStreamEvent

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import HttpError, answer, call, calls, text, thought
from tests.clients.witness import Witness
from tests.live import LiveServer, LiveUpstream, running

pytestmark = pytest.mark.clients

ADA = "rj-ada-7f3c19d2"
BOB = "rj-bob-52be80aa"
MODEL = "test-model"

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


def user(content: str) -> ResponseInputItemParam:
    return {"type": "message", "role": "user", "content": content}


def once(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


# Token counts


def test_what_a_request_adds_is_counted(client: OpenAI, upstream: ChatUpstream) -> None:
    count = client.responses.input_tokens.count
    short = count(model=MODEL, input="Hello")
    assert short.object == "response.input_tokens"
    assert 0 < short.input_tokens < 50
    counts = [
        short.input_tokens,
        count(model=MODEL, input=[user("Hello, how are you today?")]).input_tokens,
        count(model=MODEL, input="Hello, how are you today?", instructions="Be " + "very " * 50).input_tokens,
        count(
            model=MODEL,
            input="Hello, how are you today?",
            instructions="Be " + "very " * 50,
            tools=[WEATHER],
            tool_choice="required",
            parallel_tool_calls=False,
            reasoning={"effort": "low"},
            text={"verbosity": "low"},
            truncation="auto",
        ).input_tokens,
    ]
    assert counts == sorted(set(counts))
    raw = client.responses.input_tokens.with_raw_response.count(model=MODEL, input="Hello")
    assert raw.headers["x-rejoinder-counted-by"] == "o200k_base"
    assert raw.parse().to_dict() == short.to_dict()
    assert upstream.requests == []


async def test_what_was_said_before_is_counted_too(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Yes, " * 100))])
    count = async_client.responses.input_tokens.count
    conversation = await async_client.conversations.create(items=[user("A long story. " * 20)])
    made = await async_client.responses.create(model=MODEL, conversation=conversation.id, input="Is it long?")
    alone = await count(model=MODEL, input="And?")
    continued = await count(model=MODEL, input="And?", previous_response_id=made.id)
    talked = await count(model=MODEL, input="And?", conversation=conversation.id)
    named = await count(model=MODEL, input="And?", conversation={"id": conversation.id})
    assert alone.input_tokens + 200 < continued.input_tokens
    assert continued.input_tokens == talked.input_tokens == named.input_tokens
    # Counting says nothing.
    assert len([item async for item in async_client.conversations.items.list(conversation.id)]) == 3
    assert len(upstream.requests) == 1


def test_what_cannot_be_counted_is_refused_as_it_would_be_to_create(client: OpenAI) -> None:
    count = client.responses.input_tokens.count
    with pytest.raises(openai.BadRequestError) as raised:
        count(model="nobody", input="Hello")
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as raised:
        count(model=MODEL, input="Hello", previous_response_id="resp_nobody")
    assert raised.value.code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError):
        count(model=MODEL, input="Hello", conversation="conv_nobody")


# Compaction


# The SDK takes the users' messages of a compacted list for the model's, and wonders when it sends them again.
wondering = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")


def replayed(compacted: CompactedResponse) -> list[ResponseInputItemParam]:
    """The list as it is sent again: the SDK's models as they are."""
    return cast(list[ResponseInputItemParam], compacted.output)  # the SDK documents it, and has no type for it


@wondering
def test_a_compacted_list_is_the_input_of_the_next_call(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("THE SUMMARY")), answer(text("You are Ada.")), answer(text("Still Ada."))])
    compacted = client.responses.compact(
        model=MODEL,
        instructions="Be brief.",
        input=[
            user("I am Ada."),
            {"role": "assistant", "content": "Hello, Ada."},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "nothing"},
            user("Remember me."),
        ],
    )
    assert compacted.id.startswith("resp_")
    assert (compacted.object, compacted.usage.total_tokens) == ("response.compaction", 18)
    *users, compaction = compacted.output
    assert [item.type for item in users] == ["message", "message"]
    assert compaction.type == "compaction"
    assert "THE SUMMARY" not in compaction.encrypted_content
    assert len({item.id for item in compacted.output}) == 3

    told = client.responses.create(model=MODEL, input=[*replayed(compacted), user("Who am I?")])
    assert told.output_text == "You are Ada."
    words = [message.text for message in upstream.requests[1].chat.messages]
    assert (words[:2], words[-1]) == (["I am Ada.", "Remember me."], "Who am I?")
    assert any("THE SUMMARY" in one for one in words)
    assert not any("Hello, Ada." in one for one in words)
    client.responses.create(model=MODEL, previous_response_id=told.id, input="Sure?")
    assert any("THE SUMMARY" in message.text for message in upstream.requests[2].chat.messages)
    # It is stateless: the list is all there is (http.md §2.2).
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(compacted.id)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, previous_response_id=compacted.id, input="Who am I?")
    assert raised.value.code == "previous_response_not_found"


@wondering
async def test_what_came_before_a_response_is_compacted(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hello, Ada.")), answer(text("THE SUMMARY")), answer(text("Ada."))])
    made = await async_client.responses.create(model=MODEL, input="I am Ada.")
    compacted = await async_client.responses.compact(model=MODEL, previous_response_id=made.id)
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    conversation = await async_client.conversations.create(items=replayed(compacted))
    told = await async_client.responses.create(model=MODEL, conversation=conversation.id, input="Who am I?")
    assert told.output_text == "Ada."
    words = [message.text for message in upstream.requests[2].chat.messages]
    assert words[0] == "I am Ada."
    assert any("THE SUMMARY" in one for one in words)
    assert (await async_client.responses.retrieve(made.id)).output_text == "Hello, Ada."


def test_a_compaction_that_fails_is_an_error(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([HttpError(500)])
    with pytest.raises(openai.InternalServerError):
        client.responses.compact(model=MODEL, input="I am Ada.")
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.compact(model=MODEL)
    assert raised.value.param == "input"
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.compact(model=MODEL, previous_response_id="resp_nobody")
    assert raised.value.code == "previous_response_not_found"


@wondering
def test_another_key_holder_cannot_read_a_compaction(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("THE SUMMARY"))])
    compacted = client.responses.compact(model=MODEL, input="I am Ada.")
    with pytest.raises(openai.BadRequestError) as raised:
        client.with_options(api_key=BOB).responses.create(model=MODEL, input=[*replayed(compacted), user("Who?")])
    assert raised.value.code == "invalid_encrypted_content"
    assert len(upstream.requests) == 1


# Idempotency keys


@pytest.mark.parametrize("background", [False, True])
def test_the_same_call_again_gives_the_same_response(client: OpenAI, upstream: ChatUpstream, background: bool) -> None:
    upstream.follow([answer(text("one")), answer(text("two")), answer(text("three"))])
    key = once(f"again-{background}")

    def ask(words: str, asker: OpenAI = client) -> str:
        found = asker.responses.with_raw_response.create(
            model=MODEL, input=words, background=background, extra_headers=key
        )
        replays.append(found.headers.get("idempotent-replay"))
        response = found.parse()
        while response.status in ("queued", "in_progress"):
            response = asker.responses.retrieve(response.id)
        outputs.append(response.output_text)
        return response.id

    replays: list[str | None] = []
    outputs: list[str] = []
    first = ask("Hello")
    assert [ask("Hello"), ask("Hello")] == [first, first]
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        ask("Something else")
    assert raised.value.code == "idempotency_key_reused"
    # A key is its owner's alone, and whoever deletes the response has not asked yet.
    assert ask("Something else", client.with_options(api_key=BOB)) != first
    client.responses.delete(first)
    assert ask("Hello") != first
    assert replays == [None, "true", "true", None, None]
    assert outputs == ["one", "one", "one", "two", "three"]


def test_a_stream_again_gives_the_same_events(client: OpenAI, upstream: ChatUpstream, witness: Witness) -> None:
    upstream.follow([answer(thought("Hm."), text("one ", "two"))])

    def ask() -> list[ResponseStreamEvent]:
        with client.responses.create(model=MODEL, input="Count", stream=True, extra_headers=once("stream-1")) as stream:
            return [*stream]

    first, second = ask(), ask()
    assert [event.to_dict() for event in first] == [event.to_dict() for event in second]
    assert first[-1].type == "response.completed"
    assert [exchange.headers.get("idempotent-replay") for exchange in witness.exchanges] == [None, "true"]
    assert witness.exchanges[0].body == witness.exchanges[1].body
    with pytest.raises(openai.UnprocessableEntityError):
        client.responses.create(model=MODEL, input="Count", extra_headers=once("stream-1"))
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_still_answered_is_joined(
    async_client: AsyncOpenAI, upstream: ChatUpstream, witness: Witness, stream: bool
) -> None:
    held = Held(answer(text("one ", "two")), after=2 if stream else 0)
    upstream.follow([held])
    key = once(f"joined-{stream}")

    async def ask() -> str:
        if not stream:
            return (await async_client.responses.create(model=MODEL, input="Count", extra_headers=key)).id
        async with async_client.responses.stream(model=MODEL, input="Count", extra_headers=key) as events:
            final = await events.get_final_response()
        assert final.output_text == "one two"
        return final.id

    first = asyncio.create_task(ask())
    await asyncio.to_thread(upstream.wait, 1)
    others = [asyncio.create_task(ask()) for _ in range(4)]
    with pytest.raises(openai.UnprocessableEntityError):
        await async_client.responses.create(model=MODEL, input="Something else", extra_headers=key)
    held.release()
    assert {*await asyncio.gather(*others)} == {await first}
    replays = [one.headers.get("idempotent-replay") for one in witness.exchanges if one.status == 200]
    assert sorted(replays, key=str) == [None, *["true"] * 4]
    assert len(upstream.requests) == 1


def test_a_call_that_failed_may_be_tried_again(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([HttpError(500), answer(text("Hi."))])
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model=MODEL, input="Hello", extra_headers=once("failed"))
    found = client.responses.with_raw_response.create(model=MODEL, input="Hello", extra_headers=once("failed"))
    assert found.parse().output_text == "Hi."
    assert "idempotent-replay" not in found.headers


def test_a_turn_of_a_conversation_is_made_once(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(calls(call("get_weather", '{"city":"Oslo"}')))])
    conversation = client.conversations.create()
    responses = [
        client.responses.create(
            model=MODEL, conversation=conversation.id, input="?", tools=[WEATHER], extra_headers=once("turn")
        )
        for _ in range(3)
    ]
    assert len({response.id for response in responses}) == 1
    items = [item.type for item in client.conversations.items.list(conversation.id, order="asc")]
    assert items == ["message", "function_call"]


@pytest.mark.parametrize("key", ["", "two words", "x" * 256])
def test_a_key_that_is_none_is_refused(client: OpenAI, upstream: ChatUpstream, key: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, input="Hello", extra_headers=once(key))
    assert raised.value.param == "Idempotency-Key"
    assert upstream.requests == []

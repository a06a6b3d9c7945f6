"""Conversations as the `openai` SDK uses them: their eight endpoints, and responses that are made in them.

The witness validates every object with the SDK's own types.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from time import monotonic, sleep
from typing import Literal, cast

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.conversations import ConversationItem
from openai.types.conversations.conversation_item_list import ConversationItemList
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseConversationParamParam,
    ResponseFunctionToolCall,
    ResponseIncludable,
    ResponseInputItemParam,
)

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import HttpError, answer, call, calls, text, thought
from tests.clients.witness import Witness
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


def said(items: Sequence[ConversationItem]) -> list[str]:
    """What each item says, or what it is if it says nothing."""
    return [_said(item) for item in items]


def _said(item: ConversationItem) -> str:
    if item.type != "message":
        return item.type
    return "".join(part.text for part in item.content if part.type in ("input_text", "output_text"))


def told(client: OpenAI, conversation_id: str) -> list[str]:
    """All that was said in a conversation, oldest first."""
    return said([*client.conversations.items.list(conversation_id, order="asc", limit=3)])


def sent(upstream: ChatUpstream, number: int) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in upstream.requests[number].chat.messages]


def ids(items: ConversationItemList) -> list[str]:
    found = [item.id for item in items.data]
    assert None not in found
    return [one for one in found if one is not None]


def polled(client: OpenAI, response_id: str) -> Response:
    deadline = monotonic() + 10
    while (response := client.responses.retrieve(response_id)).status in ("queued", "in_progress"):
        assert monotonic() < deadline, response.status
        sleep(0.02)
    return response


# The eight endpoints


def test_a_conversation_is_created_described_and_deleted(client: OpenAI) -> None:
    made = client.conversations.create(items=[user("Hello"), user("Anybody?")], metadata={"topic": "greeting"})
    assert made.id.startswith("conv_")
    assert (made.object, made.metadata) == ("conversation", {"topic": "greeting"})
    assert client.conversations.retrieve(made.id).to_dict() == made.to_dict()
    assert told(client, made.id) == ["Hello", "Anybody?"]
    updated = client.conversations.update(made.id, metadata={"owner": "ada"})
    assert (updated.id, updated.created_at, updated.metadata) == (made.id, made.created_at, {"owner": "ada"})
    assert client.conversations.retrieve(made.id).to_dict() == updated.to_dict()
    assert client.conversations.update(made.id, metadata=None).metadata == {}
    deleted = client.conversations.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "conversation.deleted", True)
    assert_gone(client, made.id)


def assert_gone(client: OpenAI, conversation_id: str) -> None:
    conversations = client.conversations
    with pytest.raises(openai.NotFoundError) as raised:
        conversations.retrieve(conversation_id)
    assert raised.value.message.count(conversation_id) == 1
    with pytest.raises(openai.NotFoundError):
        conversations.update(conversation_id, metadata={})
    with pytest.raises(openai.NotFoundError):
        conversations.delete(conversation_id)
    with pytest.raises(openai.NotFoundError):
        conversations.items.create(conversation_id, items=[user("Hello")])
    with pytest.raises(openai.NotFoundError):
        conversations.items.list(conversation_id)
    with pytest.raises(openai.NotFoundError):
        conversations.items.retrieve("msg_nobody", conversation_id=conversation_id)
    with pytest.raises(openai.NotFoundError):
        conversations.items.delete("msg_nobody", conversation_id=conversation_id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, conversation=conversation_id, input="Hello")


def test_a_conversation_may_begin_with_nothing(client: OpenAI) -> None:
    for made in (client.conversations.create(), client.conversations.create(items=[], metadata=None)):
        assert made.metadata == {}
        page = client.conversations.items.list(made.id)
        assert (page.data, page.has_more, page.last_id) == ([], False, None)
        assert [*page] == []


def test_items_are_added_retrieved_and_taken_out(client: OpenAI) -> None:
    made = client.conversations.create(items=[user("first")])
    added = client.conversations.items.create(
        made.id,
        items=[
            user("second"),
            {"type": "message", "role": "assistant", "content": "third"},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "nothing"},
        ],
    )
    everything = ["first", "second", "third", "function_call", "function_call_output"]
    assert said(added.data) == everything[1:]
    assert (added.object, added.has_more) == ("list", False)
    assert (added.first_id, added.last_id) == (added.data[0].id, added.data[-1].id)
    assert told(client, made.id) == everything
    for item in added.data:
        assert item.id is not None
        assert client.conversations.items.retrieve(item.id, conversation_id=made.id).to_dict() == item.to_dict()
    gone = ids(added)[1]
    left = client.conversations.items.delete(gone, conversation_id=made.id)
    assert left.to_dict() == made.to_dict()
    assert told(client, made.id) == ["first", "second", "function_call", "function_call_output"]
    with pytest.raises(openai.NotFoundError) as raised:
        client.conversations.items.retrieve(gone, conversation_id=made.id)
    assert gone in raised.value.message
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.delete(gone, conversation_id=made.id)


async def test_the_async_client_has_all_eight(async_client: AsyncOpenAI) -> None:
    conversations = async_client.conversations
    made = await conversations.create(items=[user(str(number)) for number in range(7)], metadata={"a": "b"})
    added = await conversations.items.create(made.id, items=[user("7")])
    [last] = added.data
    assert last.id is not None
    listed = [item async for item in conversations.items.list(made.id, limit=3, order="asc")]
    assert said(listed) == [str(number) for number in range(8)]
    assert (await conversations.items.retrieve(last.id, conversation_id=made.id)).to_dict() == last.to_dict()
    assert (await conversations.items.delete(last.id, conversation_id=made.id)).id == made.id
    assert (await conversations.retrieve(made.id)).metadata == {"a": "b"}
    assert (await conversations.update(made.id, metadata={"c": "d"})).metadata == {"c": "d"}
    assert (await conversations.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await conversations.retrieve(made.id)


@pytest.mark.parametrize("limit", [1, 3, 8, 20])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_items_come_page_by_page_in_both_orders(client: OpenAI, limit: int, order: Literal["asc", "desc"]) -> None:
    words = [f"word {number}" for number in range(8)]
    made = client.conversations.create(items=[user(word) for word in words])
    items = [*client.conversations.items.list(made.id, limit=limit, order=order)]
    assert said(items) == (words if order == "asc" else words[::-1])
    assert len({item.id for item in items}) == 8
    page = client.conversations.items.list(made.id, limit=limit, order=order)
    assert page.has_more is page.has_next_page() is (limit < 8)
    assert page.last_id == page.data[-1].id


def test_a_page_begins_behind_an_item(client: OpenAI) -> None:
    made = client.conversations.create(items=[user(str(number)) for number in range(20)])
    client.conversations.items.create(made.id, items=[user("20")])
    newest = client.conversations.items.list(made.id)
    assert said(newest.data) == [str(number) for number in range(20, 0, -1)]
    assert newest.last_id is not None
    assert said(client.conversations.items.list(made.id, after=newest.last_id).data) == ["0"]
    with pytest.raises(openai.BadRequestError) as raised:
        client.conversations.items.list(made.id, after="msg_nobody")
    assert raised.value.param == "after"
    with pytest.raises(openai.BadRequestError) as raised:
        client.conversations.items.list(made.id, limit=101)
    assert raised.value.param == "limit"


def test_twenty_items_are_added_at_a_time(client: OpenAI) -> None:
    many = [user(str(number)) for number in range(21)]
    with pytest.raises(openai.BadRequestError) as raised:
        client.conversations.create(items=many)
    assert raised.value.param == "items"
    made = client.conversations.create(items=many[:20])
    with pytest.raises(openai.BadRequestError) as raised:
        client.conversations.items.create(made.id, items=many)
    assert raised.value.param == "items"
    assert len(told(client, made.id)) == 20


def test_images_are_shown_to_those_who_ask(client: OpenAI) -> None:
    asked: list[ResponseIncludable] = ["message.input_image.image_url"]
    image: ResponseInputItemParam = {
        "role": "user",
        "content": [{"type": "input_image", "image_url": PIXEL, "detail": "low"}],
    }
    made = client.conversations.create()
    items = client.conversations.items
    hidden = items.create(made.id, items=[image]).data[0]
    shown = items.create(made.id, items=[image], include=asked).data[0]
    assert (urls(hidden), urls(shown)) == ([None], [PIXEL])
    assert [urls(item) for item in items.list(made.id)] == [[None], [None]]
    assert [urls(item) for item in items.list(made.id, include=asked, limit=1)] == [[PIXEL], [PIXEL]]
    assert hidden.id is not None
    assert urls(items.retrieve(hidden.id, conversation_id=made.id)) == [None]
    assert urls(items.retrieve(hidden.id, conversation_id=made.id, include=asked)) == [PIXEL]


def urls(item: ConversationItem) -> list[str | None]:
    assert item.type == "message"
    return [part.image_url for part in item.content if part.type == "input_image"]


KINDS: list[ResponseInputItemParam] = [
    {"role": "system", "content": "Be kind."},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"role": "assistant", "content": "Hm.", "phase": "commentary"},
    {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "status": "completed",
        "content": [{"type": "refusal", "refusal": "I won't."}],
    },
    {
        "role": "user",
        "content": [{"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aQ=="}],
    },
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "nothing"},
    {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": [{"type": "input_text", "text": "a dot:"}, {"type": "input_image", "image_url": PIXEL}],
    },
    {"type": "custom_tool_call", "call_id": "call_1", "name": "shout", "input": "hello"},
    {"type": "custom_tool_call_output", "call_id": "call_1", "output": "HELLO"},
    {
        "type": "local_shell_call",
        "id": "lsh_1",
        "call_id": "call_1",
        "status": "completed",
        "action": {"type": "exec", "command": ["ls"], "env": {}},
    },
    {"type": "local_shell_call_output", "id": "call_1", "output": "{}"},
    {"type": "shell_call", "call_id": "call_1", "action": {"commands": ["ls"]}},
    {
        "type": "shell_call_output",
        "call_id": "call_1",
        "output": [{"stdout": "", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
    },
    {
        "type": "apply_patch_call",
        "call_id": "call_1",
        "status": "completed",
        "operation": {"type": "delete_file", "path": "a.txt"},
    },
    {"type": "apply_patch_call_output", "call_id": "call_1", "status": "completed", "output": "done"},
    {"type": "tool_search_call", "call_id": "call_1", "execution": "client", "arguments": {"query": "crm"}},
    {"type": "tool_search_output", "call_id": "call_1", "execution": "client", "tools": []},
    {"type": "additional_tools", "role": "developer", "tools": [WEATHER]},
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "crm", "tools": []},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "crm", "name": "find", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
    {"type": "mcp_call", "id": "mcp_1", "server_label": "crm", "name": "find", "arguments": "{}", "output": "nobody"},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "sky"}},
    {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["sky"]},
    {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "status": "completed",
        "container_id": "cntr_1",
        "code": "1",
        "outputs": [],
    },
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aQ=="},
    {
        "type": "computer_call",
        "id": "cu_1",
        "call_id": "call_1",
        "status": "completed",
        "pending_safety_checks": [],
        "action": {"type": "screenshot"},
    },
    {
        "type": "computer_call_output",
        "call_id": "call_1",
        "output": {"type": "computer_screenshot", "image_url": PIXEL},
    },
    {"type": "compaction", "encrypted_content": "opaque"},
]


@pytest.mark.parametrize("item", KINDS, ids=[f"{number} {kind.get('type')}" for number, kind in enumerate(KINDS)])
def test_every_kind_of_item_is_kept_as_what_it_is(client: OpenAI, item: ResponseInputItemParam) -> None:
    """The witness says whether each is what the SDK takes it for."""
    made = client.conversations.create()
    [added] = client.conversations.items.create(made.id, items=[item]).data
    assert added.type == item.get("type", "message")
    assert added.id is not None
    assert client.conversations.items.retrieve(added.id, conversation_id=made.id).to_dict() == added.to_dict()
    assert [one.to_dict() for one in client.conversations.items.list(made.id)] == [added.to_dict()]


def test_an_image_is_listed_with_its_detail(client: OpenAI, upstream: ChatUpstream) -> None:
    """A client may leave it out, and then it is `auto`; what is listed always has it (objects.md §5)."""
    upstream.follow([answer(text("A dot."))])
    parts = [{"type": "input_image", "image_url": PIXEL}]
    # The SDK's type wants it, the API does not.
    image = cast(ResponseInputItemParam, {"role": "user", "content": parts})
    made = client.conversations.create(items=[image])
    [kept] = client.conversations.items.list(made.id, include=["message.input_image.image_url"])
    assert kept.type == "message"
    assert [part.detail for part in kept.content if part.type == "input_image"] == ["auto"]
    response = client.responses.create(model=MODEL, input=[image])
    [listed] = client.responses.input_items.list(response.id, include=["message.input_image.image_url"])
    assert listed.type == "message"
    assert listed.role == "user"
    assert [part.detail for part in listed.content if part.type == "input_image"] == ["auto"]


def test_another_key_holder_finds_no_conversation(client: OpenAI) -> None:
    made = client.conversations.create(items=[user("Hello")])
    assert_gone(client.with_options(api_key=BOB), made.id)
    assert told(client, made.id) == ["Hello"]


# Turns


@pytest.mark.parametrize("named", ["by id", "as an object"])
def test_turns_of_a_conversation_follow_each_other(client: OpenAI, upstream: ChatUpstream, named: str) -> None:
    oslo, rome = (call("get_weather", f'{{"city":"{city}"}}', id=f"call_{city}") for city in ("Oslo", "Rome"))
    upstream.follow(
        [
            answer(text("Hello, Ada.")),
            answer(thought("Two."), calls(oslo, rome)),
            answer(text("Both are sunny.")),
            answer(text("You are Ada.")),
        ]
    )
    made = client.conversations.create(items=[user("I am Ada.")])

    def turn(given: str | list[ResponseInputItemParam]) -> Response:
        conversation: str | ResponseConversationParamParam = made.id if named == "by id" else {"id": made.id}
        response = client.responses.create(
            model=MODEL, conversation=conversation, input=given, tools=[WEATHER], instructions="Be brief."
        )
        assert response.conversation is not None
        assert response.conversation.id == made.id
        assert response.previous_response_id is None
        return response

    turn("Hello")
    asked = turn("Weather in Oslo and Rome?")
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call") as raised:
        turn("Well?")
    assert raised.value.param == "input"
    found = [item for item in asked.output if isinstance(item, ResponseFunctionToolCall)]
    turn([{"type": "function_call_output", "call_id": one.call_id, "output": "sun"} for one in found[::-1]])
    assert turn("Who am I?").output_text == "You are Ada."
    assert told(client, made.id) == [
        "I am Ada.",
        "Hello",
        "Hello, Ada.",
        "Weather in Oslo and Rome?",
        "reasoning",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "Both are sunny.",
        "Who am I?",
        "You are Ada.",
    ]
    assert [role for role, _ in sent(upstream, 3)] == [
        *("system", "user", "user", "assistant"),
        *("user", "assistant", "tool", "tool", "assistant", "user"),
    ]
    assert sent(upstream, 0) == [("system", "Be brief."), ("user", "I am Ada."), ("user", "Hello")]
    assert upstream.requests[2].chat.messages[5].reasoning_content == "Two."
    made_from = [item.type for item in client.responses.input_items.list(asked.id, order="asc", limit=1)]
    assert made_from == ["message"] * 4


@pytest.mark.parametrize("background", [False, True])
def test_a_stream_is_a_turn_too(client: OpenAI, upstream: ChatUpstream, background: bool) -> None:
    upstream.follow([answer(text("one ", "two")), answer(text("three"))])
    made = client.conversations.create()
    with client.responses.stream(model=MODEL, conversation=made.id, input="Count", background=background) as stream:
        first = stream.get_final_response()
    assert first.conversation is not None
    assert first.conversation.id == made.id
    # The last event comes when the turn is kept, so the next one can follow at once.
    client.responses.create(model=MODEL, conversation=made.id, input="More")
    assert told(client, made.id) == ["Count", "one two", "More", "three"]
    assert [words for _, words in sent(upstream, 1)] == ["Count", "one two", "More"]


def test_a_turn_in_the_background_locks_its_conversation(client: OpenAI, upstream: ChatUpstream) -> None:
    held = Held(answer(text("Good day.")))
    upstream.follow([held, answer(text("Bye."))])
    made = client.conversations.create(items=[user("I am Ada.")])
    running = client.responses.create(model=MODEL, conversation=made.id, input="Hello", background=True)
    upstream.wait(1)
    [item] = client.conversations.items.list(made.id)
    assert item.id is not None
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, conversation=made.id, input="Bye")
    assert (raised.value.code, raised.value.param) == ("conversation_locked", "conversation")
    with pytest.raises(openai.BadRequestError, match="Another process is currently operating"):
        client.responses.create(model=MODEL, conversation=made.id, input="Bye", background=True)
    with pytest.raises(openai.BadRequestError, match="Another process is currently operating"):
        client.responses.create(model=MODEL, conversation=made.id, input="Bye", stream=True)
    with pytest.raises(openai.BadRequestError, match="Another process is currently operating"):
        client.conversations.items.create(made.id, items=[user("Bye")])
    with pytest.raises(openai.BadRequestError, match="Another process is currently operating"):
        client.conversations.items.delete(item.id, conversation_id=made.id)
    with pytest.raises(openai.BadRequestError, match="Another process is currently operating"):
        client.conversations.delete(made.id)
    # Looking and describing disturb nobody.
    assert told(client, made.id) == ["I am Ada."]
    assert client.conversations.update(made.id, metadata={"a": "b"}).metadata == {"a": "b"}
    held.release()
    done = polled(client, running.id)
    assert (done.status, done.output_text) == ("completed", "Good day.")
    assert done.conversation is not None
    assert done.conversation.id == made.id
    assert client.responses.create(model=MODEL, conversation=made.id, input="Bye").output_text == "Bye."
    assert told(client, made.id) == ["I am Ada.", "Hello", "Good day.", "Bye", "Bye."]
    assert client.conversations.retrieve(made.id).metadata == {"a": "b"}
    assert len(upstream.requests) == 2


async def test_one_of_many_turns_at_once_is_made(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    held = Held(answer(text("Hi.")))
    upstream.follow([held])
    made = await async_client.conversations.create()

    async def turn(number: int) -> str | None:
        try:
            response = await async_client.responses.create(model=MODEL, conversation=made.id, input=f"number {number}")
        except openai.BadRequestError as error:
            return error.code
        finally:
            ended.append(number)
            if len(ended) == 7:
                held.release()
        return response.output_text

    ended: list[int] = []
    outcomes = await asyncio.gather(*map(turn, range(8)))
    assert Counter(outcomes) == {"Hi.": 1, "conversation_locked": 7}
    assert len([item async for item in async_client.conversations.items.list(made.id)]) == 2


@pytest.mark.parametrize("background", [False, True])
def test_a_turn_that_fails_says_nothing(client: OpenAI, upstream: ChatUpstream, background: bool) -> None:
    upstream.follow([HttpError(500), answer(text("Hi."))])
    made = client.conversations.create(items=[user("I am Ada.")])
    if background:
        begun = client.responses.create(model=MODEL, conversation=made.id, input="Hello", background=True)
        assert polled(client, begun.id).status == "failed"
    else:
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model=MODEL, conversation=made.id, input="Hello")
    assert told(client, made.id) == ["I am Ada."]
    client.responses.create(model=MODEL, conversation=made.id, input="Hello again")
    assert told(client, made.id) == ["I am Ada.", "Hello again", "Hi."]


def test_a_cancelled_turn_says_nothing(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([Held(answer(text("Hi."))), answer(text("Hello."))])
    made = client.conversations.create()
    begun = client.responses.create(model=MODEL, conversation=made.id, input="Hello", background=True)
    upstream.wait(1)
    assert client.responses.cancel(begun.id).status == "cancelled"
    assert told(client, made.id) == []
    client.responses.create(model=MODEL, conversation=made.id, input="Once more")
    assert told(client, made.id) == ["Once more", "Hello."]


@pytest.mark.parametrize("background", [False, True])
def test_what_is_not_stored_is_not_kept_by_its_conversation(
    client: OpenAI, upstream: ChatUpstream, background: bool
) -> None:
    upstream.follow([answer(text("Hello, Ada."))])
    made = client.conversations.create(items=[user("I am Ada.")])
    response = client.responses.create(
        model=MODEL, conversation=made.id, input="Hello", store=False, background=background
    )
    if background:
        response = polled(client, response.id)
    assert response.output_text == "Hello, Ada."
    assert [words for _, words in sent(upstream, 0)] == ["I am Ada.", "Hello"]
    assert told(client, made.id) == ["I am Ada."]


def test_an_item_that_was_taken_out_is_not_sent(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Noted.")), answer(text("I do not know."))])
    made = client.conversations.create(items=[user("The word is xyzzy."), user("Be kind.")])
    first = client.responses.create(model=MODEL, conversation=made.id, input="Remember it")
    secret = client.conversations.items.list(made.id, order="asc", limit=1).data[0].id
    assert secret is not None
    client.conversations.items.delete(secret, conversation_id=made.id)
    client.responses.create(model=MODEL, conversation=made.id, input="Which word?")
    assert [words for _, words in sent(upstream, 1)] == ["Be kind.", "Remember it", "Noted.", "Which word?"]
    # What the first response was made from is as it was.
    assert len([*client.responses.input_items.list(first.id)]) == 3


def test_a_turn_goes_on_from_a_deleted_conversation(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hello, Ada.")), answer(text("You are Ada."))])
    made = client.conversations.create(items=[user("I am Ada.")])
    first = client.responses.create(model=MODEL, conversation=made.id, input="Hello")
    client.conversations.delete(made.id)
    assert_gone(client, made.id)
    assert client.responses.retrieve(first.id).output_text == "Hello, Ada."
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input="Who am I?")
    assert (second.output_text, second.conversation) == ("You are Ada.", None)
    assert [words for _, words in sent(upstream, 1)] == ["I am Ada.", "Hello", "Hello, Ada.", "Who am I?"]


def test_a_branch_of_a_conversation_leaves_it_alone(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("one")), answer(text("aside")), answer(text("two"))])
    made = client.conversations.create()
    first = client.responses.create(model=MODEL, conversation=made.id, input="1")
    client.responses.create(model=MODEL, previous_response_id=first.id, input="By the way")
    client.responses.create(model=MODEL, conversation=made.id, input="2")
    assert told(client, made.id) == ["1", "one", "2", "two"]
    client.responses.delete(first.id)
    assert told(client, made.id) == ["1", "one", "2", "two"]


def test_a_turn_goes_on_from_one_thing_alone(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hi."))])
    made = client.conversations.create()
    first = client.responses.create(model=MODEL, conversation=made.id, input="Hello")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=MODEL, conversation=made.id, previous_response_id=first.id, input="And?")
    assert len(upstream.requests) == 1


def test_an_item_of_a_conversation_can_be_referred_to(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("A cat."))])
    made = client.conversations.create()
    [added] = ids(client.conversations.items.create(made.id, items=[user("What is it?")]))
    client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": added}])
    assert sent(upstream, 0) == [("user", "What is it?")]
    other = client.conversations.create(items=[{"type": "item_reference", "id": added}])
    assert told(client, other.id) == ["What is it?"]

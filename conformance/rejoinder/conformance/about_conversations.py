"""Conversations: what they are, what is in them, and the responses that are made in them."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from rejoinder.conformance.answer import Answer, Page, answer_in, create, read, refusal_in, skip_if_refused, usage_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal, expect_same
from rejoinder.conformance.need import BACKGROUND, CONVERSATIONS, DELETION
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, UNKNOWN_CONVERSATION, plain, unlike
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.shape import ListedItem, ListShape
from rejoinder.conformance.stream import Stream
from rejoinder.conformance.waiting import RUNNING, ended

chapter = Chapter("conversations", "Conversations", CONVERSATIONS)

_SAID = ["one", "two", "three", "four", "five"]
_LONG = "word " * 400


class _Conversation(msgspec.Struct):
    """A conversation, all of its fields."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class _Deleted(msgspec.Struct):
    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class _Id(msgspec.Struct):
    id: str


class _Kept(msgspec.Struct):
    metadata: object = None


async def _ask(server: Server, method: str, path: str, body: Json = None, **query: str) -> Reply:
    return await server.send(method, path, None if body is None else msgspec.json.encode(body), query=query or None)


async def _made(server: Server, body: Json) -> str:
    """The id of a new conversation."""
    reply = await _ask(server, "POST", "/conversations", body)
    return read(_Id, reply.expect(200).body, "a conversation").id


def _messages(texts: Iterable[str]) -> Json:
    """Messages of the user and the assistant in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


async def _spoken(server: Server) -> str:
    """A conversation that has five messages from its beginning on."""
    return await _made(server, {"items": _messages(_SAID)})


async def _page(server: Server, conversation: str, **query: str) -> Page:
    reply = await server.get(f"/conversations/{conversation}/items", **query)
    return read(Page, reply.expect(200).body, "a list of items")


def _texts(page: Page) -> list[str]:
    return [item.text for item in page.data]


def _first(page: Page) -> str:
    """The id of the first item of a page. Raises Broken when there is none."""
    expect(page.data, "an item in the list", "none")
    return page.data[0].id or ""


def _expect_turn(page: Page, answer: Answer) -> None:
    """The page begins with a greeting, and all that follows is the answer to it, in however many messages."""
    messages = [item for item in page.data if item.type == "message"]
    roles = [item.role for item in messages]
    expect_equal("the roles", ["user", *["assistant"] * (len(messages) - 1)], roles)
    expect_equal("the texts", (GREETING, answer.text), (messages[0].text, "".join(item.text for item in messages[1:])))


@chapter.rule
async def a_conversation_has_four_fields(server: Server) -> None:
    """A conversation has an id, the object "conversation", a time in whole seconds and metadata, which is an object.

    Source: API reference, Create a conversation (http.md §1).
    """
    for body in ({}, {"items": None, "metadata": None}, {"metadata": {"topic": "weather"}}):
        reply = await _ask(server, "POST", "/conversations", body)
        read(_Conversation, reply.expect(200).body, "a conversation")


@chapter.rule
async def a_conversation_can_be_asked_for(server: Server) -> None:
    """A conversation is found by its id, and is the object it was when it was made.

    Source: API reference, Retrieve a conversation (http.md §1).
    """
    made = (await _ask(server, "POST", "/conversations", {"metadata": {"topic": "found"}})).expect(200)
    found = await server.get(f"/conversations/{read(_Id, made.body, 'a conversation').id}")
    expect_same("the conversation to stay", read(object, made.body, "one"), read(object, found.expect(200).body, "one"))


@chapter.rule
async def metadata_is_kept(server: Server) -> None:
    """Metadata comes back as it was given, and what is given later takes its place.

    Source: API reference, Create a conversation, Update a conversation (http.md §1, semantics.md §4).
    """
    first: Json = {"topic": "weather", "k" * 64: "v" * 512}
    reply = (await _ask(server, "POST", "/conversations", {"metadata": first})).expect(200)
    expect_equal("the metadata", first, read(_Kept, reply.body, "a conversation").metadata)
    path = f"/conversations/{read(_Id, reply.body, 'a conversation').id}"
    second: Json = {"topic": "news"}
    for later in (await _ask(server, "POST", path, {"metadata": second}), await server.get(path)):
        told = read(_Topic, later.expect(200).body, "a conversation").metadata
        expect_equal("the topic in the metadata", "news", told.get("topic"))


class _Topic(msgspec.Struct):
    metadata: dict[str, str]


@chapter.rule
async def an_update_is_answered_with_the_conversation(server: Server) -> None:
    """An update is answered with the whole conversation.

    Source: API reference, Update a conversation (http.md §1).
    """
    conversation = await _made(server, {})
    reply = await _ask(server, "POST", f"/conversations/{conversation}", {"metadata": {"topic": "news"}})
    told = read(_Conversation, reply.expect(200).body, "a conversation")
    expect_equal("the id", conversation, told.id)


@chapter.rule
async def an_update_needs_metadata(server: Server) -> None:
    """An update says the metadata, if only null; without it is status 400.

    Source: API reference, Update a conversation (http.md §1).
    """
    path = f"/conversations/{await _made(server, {})}"
    refusal_in(await _ask(server, "POST", path, {}), param="metadata")
    (await _ask(server, "POST", path, {"metadata": None})).expect(200)


@chapter.rule
async def metadata_has_limits(server: Server) -> None:
    """Metadata of a conversation has at most 16 pairs of texts, keys of at most 64 characters and values of at most
    512.

    Source: API reference, Create a conversation (http.md §1, semantics.md §11).
    """
    for metadata in (
        {f"key{number}": "value" for number in range(17)},
        {"k" * 65: "value"},
        {"key": "v" * 513},
        {"key": 7},
    ):
        refusal_in(await _ask(server, "POST", "/conversations", {"metadata": metadata}), param="metadata")


@chapter.rule
async def a_deletion_says_what_was_deleted(server: Server) -> None:
    """Deleting a conversation answers with its id, the object "conversation.deleted" and deleted true.

    Source: API reference, Delete a conversation (http.md §1).
    """
    conversation = await _made(server, {})
    reply = await server.delete(f"/conversations/{conversation}")
    expect_equal("the deleted id", conversation, read(_Deleted, reply.expect(200).body, "a deletion").id)


@chapter.rule
async def what_was_deleted_is_not_found(server: Server) -> None:
    """A conversation that was deleted is not found any more, nor are its items by it.

    Source: API reference, Delete a conversation; guide, Error codes (http.md §1, §6.2).
    """
    conversation = await _made(server, {"items": _messages(["hello"])})
    (await server.delete(f"/conversations/{conversation}")).expect(200)
    refusal_in(await server.get(f"/conversations/{conversation}"), 404)
    refusal_in(await server.get(f"/conversations/{conversation}/items"), 404)


@chapter.rule
async def an_unknown_conversation_is_not_found(server: Server) -> None:
    """Whatever is asked of a conversation that is not there is status 404.

    Source: Guide, Error codes (semantics.md §4, http.md §6.2).
    """
    path = f"/conversations/{unlike(await _made(server, {}))}"
    refusal_in(await server.get(path), 404)
    refusal_in(await _ask(server, "POST", path, {"metadata": {}}), 404)
    refusal_in(await server.delete(path), 404)
    refusal_in(await server.get(f"{path}/items"), 404)
    refusal_in(await _ask(server, "POST", f"{path}/items", {"items": _messages(["hello"])}), 404)
    refusal_in(await server.get(f"{path}/items/msg_{'0' * 32}"), 404)
    refusal_in(await server.delete(f"{path}/items/msg_{'0' * 32}"), 404)


@chapter.rule
async def items_are_a_list(server: Server) -> None:
    """The items of a conversation are a list like every other: data, its first and last id, and whether there is more.

    Source: API reference, List items (http.md §1, §3).
    """
    reply = await server.get(f"/conversations/{await server.once(_spoken)}/items")
    read(ListShape, reply.expect(200).body, "a list of items")


class _Data(msgspec.Struct):
    data: list[msgspec.Raw]


@chapter.rule
async def items_have_an_id_and_a_status(server: Server) -> None:
    """Every item of a conversation has a type, an id of its own and a status, also if it was given none.

    Source: API reference, List items (objects.md §6, http.md §3).
    """
    reply = await server.get(f"/conversations/{await server.once(_spoken)}/items")
    items = [read(ListedItem, item, "an item") for item in read(_Data, reply.expect(200).body, "a list of items").data]
    expect_distinct("the ids of the items", [item.id for item in items])


@chapter.rule
async def a_conversation_may_begin_with_items(server: Server) -> None:
    """The items a conversation is made with are in it, and the newest comes first unless the order is asc.

    Source: API reference, Create a conversation, List items (http.md §1).
    """
    conversation = await server.once(_spoken)
    expect_equal("the texts in the order asc", _SAID, _texts(await _page(server, conversation, order="asc")))
    expect_equal("the texts in the order desc", _SAID[::-1], _texts(await _page(server, conversation, order="desc")))
    expect_equal("the texts without an order", _SAID[::-1], _texts(await _page(server, conversation)))


@chapter.rule
async def pages_join_to_the_list(server: Server) -> None:
    """Pages of two items, each after the last one of the page before, are the whole conversation.

    Source: API reference, List items; openai-python's pages (http.md §3).
    """
    conversation = await server.once(_spoken)
    first = await _page(server, conversation, order="asc", limit="2")
    second = await _page(server, conversation, order="asc", limit="2", after=str(first.last_id))
    third = await _page(server, conversation, order="asc", limit="2", after=str(second.last_id))
    expect_equal("the texts of the pages", _SAID, [text for page in (first, second, third) for text in _texts(page)])
    expect_equal("has_more of the pages", [True, True, False], [page.has_more for page in (first, second, third)])


@chapter.rule
async def a_wrong_page_is_refused(server: Server) -> None:
    """A limit is from 1 to 100 and an order is asc or desc; anything else is status 400.

    Source: API reference, List items (http.md §1).
    """
    path = f"/conversations/{await server.once(_spoken)}/items"
    for limit in ("0", "101", "many"):
        refusal_in(await server.get(path, limit=limit), param="limit")
    refusal_in(await server.get(path, order="sideways"), param="order")


@chapter.rule
async def added_items_are_told(server: Server) -> None:
    """Adding items is answered with a list of them, in their order, and they are at the end of the conversation.

    Source: API reference, Create items (http.md §1).
    """
    conversation = await _made(server, {"items": _messages(["before"])})
    reply = await _ask(server, "POST", f"/conversations/{conversation}/items", {"items": _messages(["red", "blue"])})
    read(ListShape, reply.expect(200).body, "a list of items")
    told = read(Page, reply.body, "a list of items")
    expect_equal("the texts of the added items", {"red", "blue"}, set(_texts(told)))
    page = await _page(server, conversation, order="asc")
    expect_equal("the texts of the conversation", ["before", "red", "blue"], _texts(page))
    expect(
        {item.id for item in told.data} <= {item.id for item in page.data},
        "the ids in the list to be those that were told",
        [item.id for item in page.data],
    )


@chapter.rule
async def twenty_items_fit_into_a_request(server: Server) -> None:
    """At most 20 items are added in one request, also in the one that makes the conversation.

    Source: API reference, Create a conversation, Create items (http.md §1, semantics.md §4).
    """
    conversation = await _made(server, {"items": _messages(["item"] * 20)})
    too_many: Json = {"items": _messages(["item"] * 21)}
    refusal_in(await _ask(server, "POST", "/conversations", too_many), param="items")
    refusal_in(await _ask(server, "POST", f"/conversations/{conversation}/items", too_many), param="items")


@chapter.rule
async def adding_needs_items(server: Server) -> None:
    """Adding without items is status 400 and names them.

    Source: API reference, Create items (http.md §1).
    """
    conversation = await server.once(_spoken)
    refusal_in(await _ask(server, "POST", f"/conversations/{conversation}/items", {}), param="items")


@chapter.rule
async def an_item_can_be_asked_for(server: Server) -> None:
    """An item is found by its id, and is the one in the list; one that is not in the conversation is status 404.

    Source: API reference, Retrieve an item (http.md §1).
    """
    conversation = await server.once(_spoken)
    path = f"/conversations/{conversation}/items"
    reply = (await server.get(path, limit="1")).expect(200)
    item = _first(read(Page, reply.body, "a list of items"))
    found = (await server.get(f"{path}/{item}")).expect(200)
    listed = read(_Data, reply.body, "a list of items").data[0]
    expect_same("the item to be the listed one", read(object, listed, "one"), read(object, found.body, "one"))
    refusal_in(await server.get(f"{path}/msg_{'0' * 32}"), 404)


@chapter.rule
async def an_item_of_another_conversation_is_not_found(server: Server) -> None:
    """An item is found in its own conversation only.

    Source: API reference, Retrieve an item (http.md §1).
    """
    page = await _page(server, await server.once(_spoken), limit="1")
    other = await _made(server, {})
    refusal_in(await server.get(f"/conversations/{other}/items/{_first(page)}"), 404)


@chapter.rule
async def deleting_an_item_is_answered_with_the_conversation(server: Server) -> None:
    """Deleting an item is answered with the conversation it was in.

    Source: API reference, Delete an item (http.md §1).
    """
    conversation = await _made(server, {"items": _messages(["stays", "goes"])})
    page = await _page(server, conversation, limit="1")
    reply = await server.delete(f"/conversations/{conversation}/items/{_first(page)}")
    expect_equal("the id", conversation, read(_Conversation, reply.expect(200).body, "a conversation").id)


@chapter.rule
async def a_deleted_item_is_gone(server: Server) -> None:
    """An item that was deleted is neither listed nor found, and the others stay.

    Source: API reference, Delete an item (http.md §1).
    """
    conversation = await _made(server, {"items": _messages(["goes", "stays", "stays too"])})
    gone = _first(await _page(server, conversation, order="asc", limit="1"))
    (await server.delete(f"/conversations/{conversation}/items/{gone}")).expect(200)
    left = await _page(server, conversation, order="asc")
    expect_equal("the texts that are left", ["stays", "stays too"], _texts(left))
    refusal_in(await server.get(f"/conversations/{conversation}/items/{gone}"), 404)


async def _turn(server: Server) -> tuple[str, Answer]:
    """A conversation in which one response was made."""
    conversation = await _made(server, {})
    return conversation, await create(server, input=GREETING, conversation=conversation)


class _Echo(msgspec.Struct):
    conversation: _Id | None = None


@chapter.rule
async def a_response_names_its_conversation(server: Server) -> None:
    """A response that is made in a conversation says which; the request names it by its id or as an object with an id.

    Source: Guide, Conversation state; API reference, conversation (semantics.md §4, objects.md §1).
    """
    conversation = await _made(server, {})
    forms: list[Json] = [conversation, {"id": conversation}]
    for named in forms:
        reply = await server.post(input=GREETING, conversation=named)
        echo = read(_Echo, reply.expect(200).body, "a response").conversation
        expect_equal("the id of the conversation", conversation, echo.id if echo else None, at=reply.body)


@chapter.rule
async def a_turn_is_appended(server: Server) -> None:
    """When a response is completed, its input and its output are in the conversation, in this order.

    Source: Guide, Conversation state (semantics.md §4).
    """
    conversation, answer = await server.once(_turn)
    page = await _page(server, conversation, order="asc")
    _expect_turn(page, answer)


@chapter.rule
async def turns_follow_each_other(server: Server) -> None:
    """A second response comes behind the first one, and what was there before stays before it.

    Source: Guide, Conversation state (semantics.md §4).
    """
    conversation = await _made(server, {"items": _messages(["before"])})
    for said in ("Say yes.", "Say no."):
        await create(server, input=said, conversation=conversation)
    page = await _page(server, conversation, order="asc", limit="100")
    texts = [item.text for item in page.data if item.role == "user"]
    expect_equal("what the user said", ["before", "Say yes.", "Say no."], texts)


@chapter.rule
async def a_streamed_turn_is_appended(server: Server) -> None:
    """A response that is told in events is appended as one that is not.

    Source: Guide, Conversation state (semantics.md §4).
    """
    conversation = await _made(server, {})
    answer = Stream.of(await server.post(input=GREETING, conversation=conversation, stream=True)).answer
    page = await _page(server, conversation, order="asc")
    _expect_turn(page, answer)


@chapter.rule
async def the_model_sees_the_conversation(server: Server) -> None:
    """The items of a conversation come before the input and count as input tokens.

    Source: Guide, Conversation state (semantics.md §4).
    """
    conversation = await _made(server, {"items": _messages([_LONG])})
    alone = usage_of(answer_in(await server.once(plain))).input_tokens
    if alone == 0:
        raise NotApplicable("the server counts no input tokens")
    within = usage_of(await create(server, input=GREETING, conversation=conversation)).input_tokens
    # The message has 400 words, and no tokenizer makes fewer tokens than half of that.
    expect(within >= alone + 200, f"at least {alone + 200} input tokens after a long beginning", within)


@chapter.rule
async def a_call_is_answered_in_its_conversation(server: Server) -> None:
    """The call of a tool stays in the conversation, and its output is all that the next request has to say.

    Source: Guide, Conversation state; guide, Function calling (semantics.md §1, §4).
    """
    conversation = await _made(server, {})
    reply = await server.post(
        input="What time is it?", conversation=conversation, tools=[CLOCK], tool_choice="required"
    )
    skip_if_refused(reply, TOOLS)
    calls = answer_in(reply).calls
    if not calls:
        raise NotApplicable("there is no call to go on from")
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "12:00"} for call in calls]
    after = await create(server, input=outputs, conversation=conversation, tools=[CLOCK])
    expect_equal("the status", "completed", after.status)


@chapter.rule
async def a_refused_request_leaves_nothing(server: Server) -> None:
    """A request that is refused appends nothing to its conversation.

    Source: Guide, Conversation state: items are added when the response is completed (semantics.md §4).
    """
    conversation = await _made(server, {"items": _messages(["before"])})
    refusal_in(await server.post(input="Not this.", conversation=conversation, metadata={"key": 7}))
    expect_equal("the texts", ["before"], _texts(await _page(server, conversation)))


@chapter.rule
async def either_a_conversation_or_a_previous_response(server: Server) -> None:
    """A request that names both a conversation and a previous response is status 400 and names one of them.

    Source: API reference, conversation (semantics.md §1, http.md §6.2).
    """
    conversation = await _made(server, {})
    parent = answer_in(await server.once(plain))
    reply = await server.post(input=GREETING, conversation=conversation, previous_response_id=parent.id)
    param = refusal_in(reply).param
    expect(param in ("conversation", "previous_response_id"), "an error that names one of them", param, at=reply.body)


@chapter.rule
async def nothing_is_made_in_an_unknown_conversation(server: Server) -> None:
    """A request that names a conversation which is not there is refused, with status 400 or 404.

    Source: Guide, Conversation state (semantics.md §4).
    """
    refusal_in(await server.post(input=GREETING, conversation=UNKNOWN_CONVERSATION), 400, 404)


@chapter.rule
async def a_deletion_leaves_the_responses(server: Server) -> None:
    """Deleting a conversation leaves the responses that were made in it.

    Source: API reference, Delete a conversation (http.md §1, semantics.md §4).
    """
    conversation = await _made(server, {})
    answer = await create(server, input="Say that you stay.", conversation=conversation)
    (await server.delete(f"/conversations/{conversation}")).expect(200)
    (await server.get(f"/responses/{answer.id}")).expect(200)


@chapter.needing(DELETION)
async def deleting_a_response_leaves_the_conversation(server: Server) -> None:
    """Deleting a response leaves the conversation it was made in.

    Source: API reference, Delete a model response: it deletes the response with the given id (semantics.md §5, http.md
    §1).
    """
    conversation = await _made(server, {"items": _messages(["before"])})
    answer = await create(server, input="Say that you go.", conversation=conversation)
    (await server.delete(f"/responses/{answer.id}")).expect(200)
    (await server.get(f"/conversations/{conversation}")).expect(200)
    expect("before" in _texts(await _page(server, conversation)), "what was said before", "nothing")


@chapter.needing(BACKGROUND)
async def one_response_at_a_time(server: Server) -> None:
    """While a response is made in a conversation, another one there is status 400, code conversation_locked.

    Source: observed text of the API (http.md §6.2, semantics.md §4).
    """
    conversation = await _made(server, {})
    first = answer_in(await server.post(input=GREETING, background=True, conversation=conversation))
    second = await server.post(input="Say it again.", conversation=conversation)
    still = answer_in(await server.get(f"/responses/{first.id}")).status
    if second.status == 200 and still not in RUNNING:
        raise NotApplicable("the first response was over before the second request came")
    refusal_in(second, param="conversation", code="conversation_locked")
    await ended(server, first.id)
    await create(server, input="Say it again.", conversation=conversation)

"""Going on from a previous response."""

import msgspec

from rejoinder.conformance.answer import Answer, Page, answer_in, create, input_tokens_of, read, refusal_in, usage_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal, expect_same
from rejoinder.conformance.need import DELETION, INPUT_ITEMS, RETRIEVAL, STORE
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, UNKNOWN, plain
from rejoinder.conformance.server import Server
from rejoinder.conformance.stream import Stream

_LONG = "word " * 400

chapter = Chapter("lineage", "Lineage", STORE)


async def _parent(server: Server) -> Answer:
    return await create(server, input=f"Answer in one sentence. {_LONG}")


async def _child(server: Server) -> Answer:
    parent = await server.once(_parent)
    return await create(server, input=GREETING, previous_response_id=parent.id)


@chapter.rule
async def a_response_continues_another(server: Server) -> None:
    """A request may name a previous response, and its own response names it too.

    Source: Guide, Conversation state (semantics.md §1).
    """
    parent, child = await server.once(_parent), await server.once(_child)
    expect_equal("previous_response_id", parent.id, child.previous_response_id)
    expect_distinct("the ids of parent and child", [parent.id, child.id])
    expect_equal("the status", "completed", child.status)


@chapter.rule
async def the_model_sees_what_was_said_before(server: Server) -> None:
    """What was said before is part of the context, and all of it counts as input tokens.

    Source: Guide, Conversation state (semantics.md §1).
    """
    alone = input_tokens_of(answer_in(await server.once(plain)))
    child = input_tokens_of(await server.once(_child))
    # The parent's input has 400 words, and no tokenizer makes fewer tokens than half of that.
    expect(child >= alone + 200, f"at least {alone + 200} input tokens after a long beginning", child)


@chapter.rule
async def a_chain_remembers_its_beginning(server: Server) -> None:
    """The context is the whole lineage, not the previous response alone.

    Source: Guide, Conversation state; Open Responses, previous_response_id (semantics.md §1).
    """
    child = await server.once(_child)
    grandchild = await create(server, input=GREETING, previous_response_id=child.id)
    before, after = input_tokens_of(child), input_tokens_of(grandchild)
    expect(after > before, f"more input tokens than the {before} of the response before", after)


@chapter.needing(RETRIEVAL)
async def a_response_can_be_continued_twice(server: Server) -> None:
    """Several responses may continue the same one, and it stays as it is.

    Source: Guide, Conversation state (semantics.md §1, Branching).
    """
    parent = await server.once(_parent)
    before = (await server.get(f"/responses/{parent.id}")).expect(200)
    first = await create(server, input="Say yes.", previous_response_id=parent.id)
    second = await create(server, input="Say no.", previous_response_id=parent.id)
    expect_distinct("the ids of a parent and its children", [parent.id, first.id, second.id])
    expect_equal("both to name", [parent.id] * 2, [first.previous_response_id, second.previous_response_id])
    after = (await server.get(f"/responses/{parent.id}")).expect(200)
    expect_same("the parent to stay", *(read(object, reply.body, "a response") for reply in (before, after)))


@chapter.rule
async def a_stream_continues_another(server: Server) -> None:
    """A streamed response continues a plain one and is continued by a plain one.

    Source: Guide, Conversation state (semantics.md §1).
    """
    parent = await server.once(_parent)
    streamed = Stream.of(await server.post(input=GREETING, previous_response_id=parent.id, stream=True)).answer
    expect_equal("previous_response_id of the stream", parent.id, streamed.previous_response_id)
    after = await create(server, input=GREETING, previous_response_id=streamed.id)
    expect_equal("previous_response_id of what follows the stream", streamed.id, after.previous_response_id)


@chapter.rule
async def settings_are_not_inherited(server: Server) -> None:
    """Instructions, tools and metadata hold for one response; the next one has its own or none.

    Source: Guide, Conversation state (semantics.md §1).
    """
    parent = await create(
        server, optional=TOOLS, input=GREETING, instructions="Be brief.", tools=[CLOCK], metadata={"turn": "first"}
    )
    child = await create(server, input=GREETING, previous_response_id=parent.id)
    expect_equal("the instructions", None, child.instructions)
    expect_equal("the tools", [], child.tools)
    expect(not child.metadata, "no metadata", child.metadata)


@chapter.rule
async def instructions_leave_the_context(server: Server) -> None:
    """The instructions of a previous response are not part of the next one's context.

    Source: Guide, Conversation state; API reference, instructions (semantics.md §1).
    """
    parent = await create(server, input=GREETING, instructions=f"Answer in one sentence. {_LONG}")
    child = await create(server, input=GREETING, previous_response_id=parent.id)
    after = input_tokens_of(child)
    # With the instructions it would be all that the parent took and gave, and a little more; they are at least 200.
    most = input_tokens_of(parent) + usage_of(parent).output_tokens - 100
    expect(after < most, f"fewer than {most} input tokens without the instructions", after)


@chapter.rule
async def an_unknown_previous_response_is_refused(server: Server) -> None:
    """A previous response that is not there is status 400, code previous_response_not_found, and never ignored.

    Source: Guide, Error codes (http.md §6.2, semantics.md §1).
    """
    reply = await server.post(input=GREETING, previous_response_id=UNKNOWN)
    refusal_in(reply, param="previous_response_id", code="previous_response_not_found")


@chapter.rule
async def a_malformed_previous_response_is_refused(server: Server) -> None:
    """An id with other characters than letters, digits, `_` and `-` is refused, or not found: status 400 or 404.

    Source: observed text of the API (http.md §6.2).
    """
    for wrong in ("resp_../../etc", "resp 1", "", "résp_1"):
        refusal_in(await server.post(input=GREETING, previous_response_id=wrong), 400, 404)


@chapter.rule
async def what_is_not_stored_cannot_be_continued(server: Server) -> None:
    """A response made with store false cannot be a previous response.

    Source: Guide, Conversation state (semantics.md §1, §2).
    """
    parent = await create(server, input=GREETING, store=False)
    reply = await server.post(input=GREETING, previous_response_id=parent.id)
    refusal_in(reply, 400, 404)


@chapter.needing(DELETION)
async def what_was_deleted_cannot_be_continued(server: Server) -> None:
    """A response that was deleted cannot be a previous response.

    Source: API reference, Delete a model response (semantics.md §5).
    """
    parent = await create(server, input=GREETING)
    (await server.delete(f"/responses/{parent.id}")).expect(200)
    reply = await server.post(input=GREETING, previous_response_id=parent.id)
    refusal_in(reply, 400, 404)


@chapter.needing(INPUT_ITEMS)
async def ids_are_unique_over_a_chain(server: Server) -> None:
    """No two items of a chain have the same id, neither those that were sent nor those that were answered.

    Source: openai-python's tool runner (events.md §5).
    """
    parent, child = await server.once(_parent), await server.once(_child)
    path = f"/responses/{child.id}/input_items"
    given = read(Page, (await server.get(path, limit="100")).expect(200).body, "a list of items").data
    expect_distinct("the ids of a response's items", [item.id for item in [*given, *child.output]])
    expect_distinct("the ids of two answers' items", [item.id for item in [*parent.output, *child.output]])


@chapter.rule
async def a_stored_item_can_be_referred_to(server: Server) -> None:
    """An item_reference stands for a stored item; one that is not there is status 400.

    Source: API reference, item reference (semantics.md §3).
    """
    said = answer_in(await server.once(plain)).output[-1:]
    if not said:
        raise NotApplicable("there is no stored item to refer to")
    reference = {"type": "item_reference", "id": said[0].id}
    answer = await create(server, optional=("input[0]",), input=[reference, {"role": "user", "content": "Go on."}])
    expect_equal("the status", "completed", answer.status)
    unknown = {"type": "item_reference", "id": "msg_" + "0" * 32}
    refusal_in(await server.post(input=[unknown, {"role": "user", "content": "Go on."}]), param="input")


class _Settings(msgspec.Struct):
    max_output_tokens: object = None
    truncation: object = None
    tool_choice: object = None
    top_p: object = None


@chapter.rule
async def limits_and_choices_are_not_inherited(server: Server) -> None:
    """What a response was limited to, and how it had to choose, is not what the next one inherits.

    Source: Guide, Conversation state (semantics.md §1).
    """
    parent = await create(
        server,
        optional=(*TOOLS, "truncation"),
        input=GREETING,
        max_output_tokens=4000,
        truncation="auto",
        tools=[CLOCK],
        tool_choice="none",
    )
    reply = await server.post(input=GREETING, previous_response_id=parent.id)
    told = read(_Settings, reply.expect(200).body, "a response")
    expect_equal(
        "max_output_tokens, truncation and tool_choice",
        (None, "disabled", "auto"),
        (told.max_output_tokens, told.truncation, told.tool_choice),
    )


@chapter.rule
async def siblings_do_not_see_each_other(server: Server) -> None:
    """What was said in one continuation of a response is no part of another one's context.

    Source: Guide, Conversation state (semantics.md §1, Branching).
    """
    parent = await create(server, input="Say one word.")
    first = input_tokens_of(await create(server, input=GREETING, previous_response_id=parent.id))
    await create(server, input=f"Answer in one sentence. {_LONG}", previous_response_id=parent.id)
    second = input_tokens_of(await create(server, input=GREETING, previous_response_id=parent.id))
    # The other one had 400 words more, and no tokenizer makes fewer tokens than half of that.
    expect(second < first + 200, f"about {first} input tokens, as without the one between", second)


@chapter.rule
async def a_continuation_need_not_be_stored(server: Server) -> None:
    """A response that is not stored may continue a stored one, and is not found afterwards.

    Source: API reference, store; guide, Conversation state (semantics.md §1, §2).
    """
    parent = answer_in(await server.once(plain))
    child = await create(server, input="Once, and no more.", previous_response_id=parent.id, store=False)
    expect_equal("previous_response_id", parent.id, child.previous_response_id)
    expect_equal("the status", "completed", child.status)
    refusal_in(await server.get(f"/responses/{child.id}"), 404)


@chapter.rule
async def a_continuation_may_have_items(server: Server) -> None:
    """What continues a response may be a list of messages, of the assistant's too, as any input.

    Source: Guide, Conversation state (semantics.md §1, objects.md §6.1).
    """
    parent = answer_in(await server.once(plain))
    child = await create(
        server,
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hello again."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Goodbye."},
        ],
        previous_response_id=parent.id,
    )
    expect_equal("previous_response_id", parent.id, child.previous_response_id)
    expect_equal("the status", "completed", child.status)

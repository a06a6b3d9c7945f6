"""Tools: which calls are made, and that every call finds its output."""

import msgspec

from rejoinder.conformance.answer import Answer, answer_in, create, read, refusal_in
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, TOOLS, called
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import output_items

chapter = Chapter("tools", "Tools")

_QUESTION = "What time is it, and what is the weather?"

_WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


async def _call(server: Server) -> Answer:
    """A response that ends with a call of the clock. Raises NotApplicable when there is none."""
    answer = answer_in(await server.once(called))
    if not answer.calls:
        raise NotApplicable("there is no call to go on from")
    return answer


def _outputs(answer: Answer) -> list[Json]:
    return [{"type": "function_call_output", "call_id": call.call_id, "output": "12:00"} for call in answer.calls]


def _names(answer: Answer) -> list[str | None]:
    return [call.name for call in answer.calls]


@chapter.rule
async def required_makes_a_call(server: Server) -> None:
    """With the tool choice "required" a response has a function call at least, and it is completed.

    Source: API reference, tool_choice; Open Responses, tool_choice (semantics.md §7).
    """
    answer = answer_in(await server.once(called))
    expect_equal("the calls", {"current_time"}, set(_names(answer)))
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def a_named_tool_is_the_one_called(server: Server) -> None:
    """A tool choice that names a function gives a call of exactly that function.

    Source: API reference, tool_choice (semantics.md §7).
    """
    for name in ("weather", "current_time"):
        answer = await create(
            server,
            optional=TOOLS,
            input=_QUESTION,
            tools=[CLOCK, _WEATHER],
            tool_choice={"type": "function", "name": name},
        )
        expect_equal("the calls", {name}, set(_names(answer)))


@chapter.rule
async def none_makes_no_call(server: Server) -> None:
    """With the tool choice "none" there is no call, whatever was asked.

    Source: API reference, tool_choice; Open Responses, tool_choice (semantics.md §7).
    """
    answer = await create(
        server, optional=TOOLS, input="Call current_time.", tools=[CLOCK, _WEATHER], tool_choice="none"
    )
    expect_equal("the calls", [], _names(answer))


@chapter.rule
async def only_allowed_tools_are_called(server: Server) -> None:
    """Of the allowed tools alone may one be called, though more of them are declared.

    Source: API reference, tool_choice; Open Responses, allowed_tools (semantics.md §7).
    """
    answer = await create(
        server,
        optional=TOOLS,
        input="Call weather for Oslo.",
        tools=[CLOCK, _WEATHER],
        tool_choice={
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "current_time"}],
        },
    )
    expect_equal("the calls", {"current_time"}, set(_names(answer)))


@chapter.rule
async def one_call_at_a_time_can_be_asked_for(server: Server) -> None:
    """With parallel_tool_calls false a response has one call at most.

    Source: API reference, parallel_tool_calls (semantics.md §7).
    """
    answer = await create(
        server,
        optional=(*TOOLS, "parallel_tool_calls"),
        input="Call current_time and call weather for Oslo, both at once.",
        tools=[CLOCK, _WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    expect(len(answer.calls) <= 1, "one call at most", _names(answer))


class _City(msgspec.Struct, forbid_unknown_fields=True):
    city: str


@chapter.rule
async def arguments_are_json_of_the_schema(server: Server) -> None:
    """The arguments of a call are a text of JSON, and with a strict tool it fits the tool's schema.

    Source: Guide, Function calling (semantics.md §9, objects.md §6.1).
    """
    answer = await create(
        server,
        optional=TOOLS,
        input="What is the weather in Oslo?",
        tools=[_WEATHER],
        tool_choice={"type": "function", "name": "weather"},
    )
    for call in answer.calls:
        expect(isinstance(call.arguments, str), "arguments that are a text", call.arguments)
        read(_City, str(call.arguments).encode(), "arguments")


@chapter.rule
async def a_call_has_two_ids(server: Server) -> None:
    """A call has an id as an item and another one for its output to name.

    Source: API reference, function call (objects.md §6.1).
    """
    for call in (await _call(server)).calls:
        expect_distinct("id and call_id", [call.id, call.call_id])


@chapter.rule
async def outputs_continue_a_call(server: Server) -> None:
    """The outputs of all calls, sent after the response that made them, are answered.

    Source: Guide, Function calling (semantics.md §1).
    """
    before = await _call(server)
    answer = await create(server, input=_outputs(before), tools=[CLOCK], previous_response_id=before.id)
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an answer to the outputs", "none")


@chapter.rule
async def a_whole_conversation_can_be_sent(server: Server) -> None:
    """Without storage the client sends the question, every output item as it came, and the outputs of the calls.

    Source: Guide, Function calling; guide, Reasoning models (semantics.md §2).
    """
    reply = await server.once(called)
    before = await _call(server)
    answer = await create(
        server,
        input=[{"role": "user", "content": "What time is it?"}, *output_items(reply.body), *_outputs(before)],
        tools=[CLOCK],
        store=False,
    )
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def an_open_call_is_refused(server: Server) -> None:
    """A request that leaves a call without its output is status 400 and names the input.

    Source: observed text of the API, "No tool output found" (http.md §6.2, semantics.md §1).
    """
    before = await _call(server)
    message: Json = {"role": "user", "content": "Never mind."}
    refusal_in(await server.post(input=[message], tools=[CLOCK], previous_response_id=before.id), param="input")
    call: Json = {"type": "function_call", "call_id": "call_open", "name": "current_time", "arguments": "{}"}
    refusal_in(await server.post(input=[message, call, message], tools=[CLOCK]), param="input")


@chapter.rule
async def an_output_without_a_call_is_refused(server: Server) -> None:
    """An output whose call_id is that of no call is status 400 and names the input.

    Source: observed text of the API, "No tool call found" (http.md §6.2, semantics.md §1).
    """
    stray: Json = {"type": "function_call_output", "call_id": "call_stray", "output": "12:00"}
    refusal_in(await server.post(input=[{"role": "user", "content": "Go on."}, stray]), param="input")
    before = await _call(server)
    outputs = [*_outputs(before), stray]
    refusal_in(await server.post(input=outputs, tools=[CLOCK], previous_response_id=before.id), param="input")

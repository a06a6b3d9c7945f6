"""Tools: which calls are made, and that every call finds its output."""

import msgspec

from rejoinder.conformance import grammar
from rejoinder.conformance.answer import Answer, Item, answer_in, create, read, refusal_in, skip_if_refused
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.need import STORE
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, called
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.shape import output_items
from rejoinder.conformance.stream import Stream

chapter = Chapter("tools", "Tools")

_QUESTION = "What time is it, and what is the weather?"

_WEATHER: dict[str, Json] = {
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


@chapter.needing(STORE)
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


@chapter.needing(STORE)
async def an_open_call_is_refused(server: Server) -> None:
    """A request that leaves a call without its output is status 400 and names the input.

    Source: observed text of the API, "No tool output found" (http.md §6.2, semantics.md §1).
    """
    before = await _call(server)
    message: Json = {"role": "user", "content": "Never mind."}
    refusal_in(await server.post(input=[message], tools=[CLOCK], previous_response_id=before.id), param="input")
    call: Json = {"type": "function_call", "call_id": "call_open", "name": "current_time", "arguments": "{}"}
    refusal_in(await server.post(input=[message, call, message], tools=[CLOCK]), param="input")


@chapter.needing(STORE)
async def an_output_without_a_call_is_refused(server: Server) -> None:
    """An output whose call_id is that of no call is status 400 and names the input.

    Source: observed text of the API, "No tool call found" (http.md §6.2, semantics.md §1).
    """
    stray: Json = {"type": "function_call_output", "call_id": "call_stray", "output": "12:00"}
    refusal_in(await server.post(input=[{"role": "user", "content": "Go on."}, stray]), param="input")
    before = await _call(server)
    outputs = [*_outputs(before), stray]
    refusal_in(await server.post(input=outputs, tools=[CLOCK], previous_response_id=before.id), param="input")


def _history(*outputs: str, calls: int = 2) -> list[Json]:
    """A question, calls of the clock, and outputs of those that are named."""
    return [
        {"role": "user", "content": "What time is it, here and there?"},
        *(
            {"type": "function_call", "call_id": f"call_{number}", "name": "current_time", "arguments": "{}"}
            for number in range(calls)
        ),
        *({"type": "function_call_output", "call_id": name, "output": "12:00"} for name in outputs),
    ]


@chapter.rule
async def calls_need_no_ids_as_items(server: Server) -> None:
    """A client may send calls and outputs with a call_id alone: without the id and the status of an item.

    Source: API reference, function call; Codex sends them so (objects.md §6.1, §11).
    """
    answer = await create(server, optional=TOOLS, input=_history("call_0", calls=1), tools=[CLOCK], store=False)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def outputs_come_in_any_order(server: Server) -> None:
    """The outputs of several calls may come in another order than the calls.

    Source: Guide, Function calling (semantics.md §1).
    """
    answer = await create(server, optional=TOOLS, input=_history("call_1", "call_0"), tools=[CLOCK], store=False)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def every_call_needs_its_output(server: Server) -> None:
    """Of several calls every one needs its output; one that has none is status 400 and names the input.

    Source: observed text of the API, "No tool output found" (http.md §6.2, semantics.md §1).
    """
    reply = await server.post(input=_history("call_1"), tools=[CLOCK], store=False)
    skip_if_refused(reply, TOOLS)
    refusal_in(reply, param="input")


@chapter.rule
async def a_message_may_follow_outputs(server: Server) -> None:
    """Behind the outputs of all calls something else may be said.

    Source: Guide, Function calling (semantics.md §1).
    """
    given = [*_history("call_0", calls=1), {"role": "user", "content": "Is that late?"}]
    answer = await create(server, optional=TOOLS, input=given, tools=[CLOCK], store=False)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def an_output_may_be_empty(server: Server) -> None:
    """The output of a call may be an empty text.

    Source: API reference, function call output (objects.md §6.1).
    """
    empty: Json = {"type": "function_call_output", "call_id": "call_0", "output": ""}
    answer = await create(server, optional=TOOLS, input=[*_history(calls=1), empty], tools=[CLOCK], store=False)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def an_output_may_have_parts(server: Server) -> None:
    """The output of a call may be a list of parts.

    Source: API reference, function call output (objects.md §6.1).
    """
    parts: Json = [{"type": "input_text", "text": "12:00"}, {"type": "input_text", "text": "noon"}]
    output: Json = {"type": "function_call_output", "call_id": "call_0", "output": parts}
    answer = await create(server, optional=TOOLS, input=[*_history(calls=1), output], tools=[CLOCK], store=False)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def a_tool_needs_no_parameters(server: Server) -> None:
    """A function tool may have a name and nothing else.

    Source: API reference, function tool (objects.md §7).
    """
    answer = await create(server, optional=TOOLS, input=GREETING, tools=[{"type": "function", "name": "ping"}])
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def a_long_name_comes_back(server: Server) -> None:
    """A tool whose name has 64 characters, digits, `-` and `_` among them, is called by exactly that name.

    Source: API reference, function tool; Open Responses, function names (objects.md §7, open-responses.md §8).
    """
    name = "tell-the-current_time_2-" + "x" * 40
    tool = {**_WEATHER, "name": name}
    answer = await create(
        server, optional=TOOLS, input=_QUESTION, tools=[tool], tool_choice={"type": "function", "name": name}
    )
    expect_equal("the calls", {name}, set(_names(answer)))


@chapter.rule
async def allowed_tools_need_not_be_called(server: Server) -> None:
    """With allowed_tools in the mode auto a call may be made or not, but of none that is not allowed.

    Source: API reference, tool_choice; Open Responses, allowed_tools (semantics.md §7).
    """
    answer = await create(
        server,
        optional=TOOLS,
        input="Call weather for Oslo.",
        tools=[CLOCK, _WEATHER],
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "current_time"}]},
    )
    expect(set(_names(answer)) <= {"current_time"}, "no call but of current_time", _names(answer))


class _Strict(msgspec.Struct):
    strict: object = None


class _Tools(msgspec.Struct):
    tools: list[_Strict]


@chapter.rule
async def strictness_is_echoed(server: Server) -> None:
    """A tool that is said to be strict, or not to be, is told as that.

    Source: API reference, function tool (objects.md §2, §7).
    """
    for strict in (True, False):
        reply = await server.post(input=GREETING, tools=[{**_WEATHER, "strict": strict}])
        skip_if_refused(reply, TOOLS)
        told = [tool.strict for tool in read(_Tools, reply.expect(200).body, "the tools of a response").tools]
        expect_equal("strict", [strict], told)


_POEM: Json = {"type": "custom", "name": "recite", "description": "Recites the text that it is given."}
_RECITE: dict[str, Json] = {
    "input": "Recite a line.",
    "tools": [_POEM],
    "tool_choice": {"type": "custom", "name": "recite"},
}


async def _custom(server: Server) -> Reply:
    """A call of a custom tool. Raises NotApplicable when the server has none."""
    reply = await server.post(**_RECITE)
    skip_if_refused(reply, TOOLS)
    return reply.expect(200)


def _custom_calls(answer: Answer) -> list[Item]:
    return [item for item in answer.output if item.type == "custom_tool_call"]


async def _custom_call(server: Server) -> tuple[Answer, Item]:
    """A response with the call of a custom tool, and the call. Raises NotApplicable when there is none."""
    answer = answer_in(await server.once(_custom))
    calls = _custom_calls(answer)
    if not calls:
        raise NotApplicable("there is no call to go on from")
    return answer, calls[0]


@chapter.rule
async def a_custom_tool_is_called_with_a_text(server: Server) -> None:
    """A custom tool that has to be called is called by its name, and its input is a text.

    Source: API reference, custom tool, tool_choice (objects.md §6.1, §8).
    """
    calls = _custom_calls(answer_in(await server.once(_custom)))
    expect(calls, "a call of a custom tool", "none")
    for call in calls:
        expect_equal("the name", "recite", call.name)
        expect(isinstance(call.input, str), "an input that is a text", call.input)
        expect_distinct("id and call_id", [call.id, call.call_id])


@chapter.rule
async def a_custom_call_is_told_in_events(server: Server) -> None:
    """The input of a custom tool is told in events of its own, which add up to the input of the call.

    Source: API reference, streaming events (events.md §3, §4).
    """
    await server.once(_custom)
    stream = Stream.of(await server.post(stream=True, **_RECITE))
    for rule in (grammar.fields, grammar.pairing, grammar.added_items, grammar.bodies, grammar.deltas, grammar.output):
        rule(stream)
    expect(_custom_calls(stream.answer), "a call of a custom tool", [item.type for item in stream.answer.output])


@chapter.needing(STORE)
async def a_custom_call_is_continued(server: Server) -> None:
    """The output of a custom tool continues the response that called it.

    Source: API reference, custom tool call output (objects.md §6.1, semantics.md §1).
    """
    before, call = await _custom_call(server)
    output: Json = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "That was nice."}
    answer = await create(server, input=[output], tools=[_POEM], previous_response_id=before.id)
    expect_equal("the status", "completed", answer.status)


@chapter.needing(STORE)
async def an_open_custom_call_is_refused(server: Server) -> None:
    """A request that leaves the call of a custom tool without its output is status 400 and names the input.

    Source: observed text of the API, "No tool output found" (http.md §6.2, semantics.md §1).
    """
    before, _ = await _custom_call(server)
    message: Json = {"role": "user", "content": "Never mind."}
    refusal_in(await server.post(input=[message], tools=[_POEM], previous_response_id=before.id), param="input")

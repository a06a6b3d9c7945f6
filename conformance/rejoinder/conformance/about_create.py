"""A plain answer: what may be asked, what comes back, and what is echoed."""

import asyncio

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, skip_if_refused, usage_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, LIMIT, TOOLS, cut, plain, replies, streamed
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import FunctionTool, output_items

chapter = Chapter("create", "Create a response")


@chapter.rule
async def a_plain_answer_is_json(server: Server) -> None:
    """What is not a stream is answered with the content type application/json.

    Source: API reference, Create a response (http.md §1).
    """
    expect_equal("the content type", "application/json", (await server.once(plain)).media_type)


@chapter.rule
async def an_answer_is_completed_and_not_empty(server: Server) -> None:
    """A turn that ends well has the status completed and at least one item; an empty success is none.

    Source: API reference, The response object; Open Responses, basic response (open-responses.md §9).
    """
    for reply in await replies(server):
        answer = answer_in(reply)
        expect_equal("the status", "completed", answer.status)
        expect(answer.output, "an output with an item in it", reply.excerpt)


async def _answered(server: Server, *messages: Json) -> None:
    answer = await create(server, input=list(messages))
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


@chapter.rule
async def a_message_needs_no_type(server: Server) -> None:
    """An object with a role and content is a message, with or without a type; content is a text or a list of parts.

    Source: API reference, easy input message (objects.md §6.1).
    """
    await _answered(server, _user(GREETING))
    await _answered(server, {"type": "message", "role": "user", "content": GREETING})
    await _answered(server, {"role": "user", "content": [{"type": "input_text", "text": GREETING}]})


@chapter.rule
async def system_and_developer_may_speak(server: Server) -> None:
    """Messages of the roles system and developer are accepted.

    Source: API reference, input messages; Open Responses, system prompt (objects.md §6.1).
    """
    for role in ("system", "developer"):
        await _answered(server, {"role": role, "content": "You answer briefly."}, _user(GREETING))


@chapter.rule
async def turns_of_the_assistant_are_accepted(server: Server) -> None:
    """A conversation may be sent whole, the assistant's turns with a phase and without, and without id or status.

    Source: Open Responses compliance suite, multi-turn and assistant-phase (open-responses.md §9).
    """
    await _answered(server, _user("Hello."), {"role": "assistant", "content": "Hello!"}, _user(GREETING))
    await _answered(
        server,
        _user("Hello."),
        {"role": "assistant", "content": "Let me think.", "phase": "commentary"},
        {"role": "assistant", "content": "Hello!", "phase": "final_answer"},
        _user(GREETING),
    )


@chapter.rule
async def what_was_answered_can_be_sent_back(server: Server) -> None:
    """The output of a response, as it came, is accepted as input.

    Source: Guide, Conversation state (semantics.md §2).
    """
    output = output_items((await server.once(plain)).body)
    answer = await create(server, input=[_user(GREETING), *output, _user("Once more.")], store=False)
    expect_equal("the status", "completed", answer.status)


_NULLABLE = (
    "background",
    "include",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "service_tier",
    "store",
    "stream",
    "temperature",
    "top_p",
    "truncation",
)


@chapter.rule
async def null_means_left_out(server: Server) -> None:
    """A parameter that may be null and is null is one that was left out.

    Source: API reference, Create a response (objects.md, Receiving).
    """
    answer = answer_in(await server.post(input=GREETING, **dict.fromkeys(_NULLABLE)))
    expect_equal("the status", "completed", answer.status)


class _Echo(msgspec.Struct):
    instructions: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    store: bool | None = None


@chapter.rule
async def settings_are_echoed(server: Server) -> None:
    """A response tells the instructions, the temperature, the limit and the storing it was asked for.

    Source: API reference, The response object (objects.md §2).
    """
    asked: dict[str, Json] = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "max_output_tokens": 4000,
        "store": False,
    }
    reply = await server.post(input=GREETING, **asked)
    skip_if_refused(reply, ("temperature",))
    echo = read(_Echo, reply.expect(200).body, "a response")
    expect_equal("the echo", asked, msgspec.to_builtins(echo))


@chapter.rule
async def metadata_is_echoed(server: Server) -> None:
    """Metadata comes back as it was given, and is an empty object or null where none was.

    Source: API reference, metadata (objects.md §2, semantics.md §11).
    """
    metadata = {"colour": "blue", "k" * 64: "v" * 512}
    expect_equal("the metadata", metadata, (await create(server, input=GREETING, metadata=metadata)).metadata)
    none = answer_in(await server.once(plain)).metadata
    expect(not none, "no metadata where none was given", none)


class _Tools(msgspec.Struct):
    tools: list[FunctionTool]


@chapter.rule
async def tools_are_echoed_whole(server: Server) -> None:
    """A function tool is echoed with name, description, parameters and strict, whatever was left out.

    Source: API reference, tools; Open Responses, schema of the response resource (objects.md §2, §7).
    """
    bare: Json = {"type": "function", "name": "current_date", "parameters": {"type": "object", "properties": {}}}
    reply = await server.post(input=GREETING, tools=[CLOCK, bare])
    skip_if_refused(reply, TOOLS)
    tools = read(_Tools, reply.expect(200).body, "the tools of a response").tools
    expect_equal("the names of the tools", ["current_time", "current_date"], [tool.name for tool in tools])


@chapter.rule
async def a_cut_answer_is_incomplete(server: Server) -> None:
    """An answer that reaches max_output_tokens has the status incomplete, and says why.

    Source: API reference, incomplete_details (semantics.md §11).
    """
    reply = await server.once(cut)
    end = read(_End, reply.body, "a response")
    tokens = usage_of(answer_in(reply)).output_tokens
    if end.status == "completed" and tokens <= LIMIT:
        raise NotApplicable(f"the model had no more to say than {tokens} tokens")
    reason = end.incomplete_details and end.incomplete_details.reason
    told = (end.status, reason, end.completed_at)
    expect_equal("status, reason and completed_at", ("incomplete", "max_output_tokens", None), told)


class _Why(msgspec.Struct):
    reason: str | None = None


class _End(msgspec.Struct):
    status: str | None = None
    incomplete_details: _Why | None = None
    completed_at: float | None = None


@chapter.rule
async def every_answer_has_a_request_id(server: Server) -> None:
    """Answers, streams and errors carry a header x-request-id, another one each.

    Source: API overview, debugging requests (http.md §5).
    """
    replies = [await server.once(plain), (await server.once(streamed)).reply, await server.post(input=7)]
    expect_distinct("x-request-id", [reply.headers.get("x-request-id") for reply in replies])


@chapter.rule
async def ten_requests_at_once_are_answered(server: Server) -> None:
    """Requests that come at the same time are all answered, each its own.

    Source: Open Responses compliance suite, which starts all of its tests at once (open-responses.md §9).
    """
    names = [f"request {number}" for number in range(10)]
    answers = await asyncio.gather(*(create(server, input=GREETING, instructions=name) for name in names))
    expect_distinct("ids of ten responses", [answer.id for answer in answers])
    expect_equal("the instructions", names, [answer.instructions for answer in answers])
    expect_equal("ten times the status", ["completed"] * 10, [answer.status for answer in answers])


@chapter.rule
async def stream_false_is_no_stream(server: Server) -> None:
    """With stream false the answer comes in one piece, as without it.

    Source: API reference, stream (objects.md §1, http.md §1).
    """
    reply = await server.post(input=GREETING, stream=False)
    expect_equal("the content type", "application/json", reply.expect(200).media_type)


@chapter.rule
async def null_means_left_out_inside(server: Server) -> None:
    """Within a parameter, too, null is what was left out: of a tool, of the reasoning, of the text.

    Source: API reference, Create a response (objects.md §1, §7).
    """
    tool: Json = {"type": "function", "name": "current_time", "parameters": None, "strict": None}
    for fields in ({"reasoning": {"effort": None, "summary": None}}, {"text": {"verbosity": None}}, {"tools": [tool]}):
        answer = await create(server, optional=("reasoning", "text", "tools"), input=GREETING, **fields)
        expect_equal("the status", "completed", answer.status)


@chapter.rule
async def headers_of_clients_are_accepted(server: Server) -> None:
    """Whatever clients tell of themselves in headers changes nothing.

    Source: openai-python's and openai-node's headers (http.md §4).
    """
    headers = {
        "x-stainless-lang": "python",
        "x-stainless-retry-count": "0",
        "openai-beta": "responses=v1",
        "x-client-request-id": "a-client-s-own-id",
        "accept": "*/*",
    }
    body = msgspec.json.encode({"model": server.model, "input": GREETING})
    answer = answer_in(await server.send("POST", "/responses", body, headers=headers))
    expect_equal("the status", "completed", answer.status)


class _Sampling(msgspec.Struct):
    top_p: float | None = None
    truncation: str | None = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = None


@chapter.rule
async def sampling_is_echoed(server: Server) -> None:
    """A response tells the top_p it was asked for.

    Source: API reference, The response object (objects.md §2).
    """
    reply = await server.post(input=GREETING, top_p=0.5)
    skip_if_refused(reply, ("top_p",))
    expect_equal("top_p", 0.5, read(_Sampling, reply.expect(200).body, "a response").top_p)


@chapter.rule
async def truncation_is_echoed(server: Server) -> None:
    """A response tells how it may be truncated: disabled, unless something else was asked for.

    Source: API reference, truncation (objects.md §1, §2).
    """
    told = read(_Sampling, (await server.once(plain)).body, "a response").truncation
    expect_equal("truncation without a word of it", "disabled", told)
    reply = await server.post(input=GREETING, truncation="auto")
    skip_if_refused(reply, ("truncation",))
    expect_equal("truncation", "auto", read(_Sampling, reply.expect(200).body, "a response").truncation)


@chapter.rule
async def the_most_calls_are_echoed(server: Server) -> None:
    """A response tells the max_tool_calls it was asked for.

    Source: API reference, The response object (objects.md §2).
    """
    reply = await server.post(input=GREETING, max_tool_calls=3)
    skip_if_refused(reply, ("max_tool_calls",))
    expect_equal("max_tool_calls", 3, read(_Sampling, reply.expect(200).body, "a response").max_tool_calls)


class _Keys(msgspec.Struct):
    safety_identifier: object = None
    prompt_cache_key: object = None


@chapter.rule
async def keys_are_echoed(server: Server) -> None:
    """A response tells the safety_identifier and the prompt_cache_key of its request.

    Source: API reference, The response object (objects.md §2).
    """
    reply = await server.post(input=GREETING, safety_identifier="somebody", prompt_cache_key="a-key")
    skip_if_refused(reply, ("safety_identifier", "prompt_cache_key"))
    keys = read(_Keys, reply.expect(200).body, "a response")
    expect_equal("the keys", ("somebody", "a-key"), (keys.safety_identifier, keys.prompt_cache_key))


class _Choice(msgspec.Struct):
    tool_choice: object = None
    parallel_tool_calls: object = None


@chapter.rule
async def the_choice_of_tools_is_echoed(server: Server) -> None:
    """A response tells the tool_choice of its request in the form it was said in, and auto where none was.

    Source: API reference, tool_choice (objects.md §2, §8).
    """
    told = read(_Choice, (await server.once(plain)).body, "a response").tool_choice
    expect_equal("the choice without a word of it", "auto", told)
    choices: list[Json] = ["none", "required", {"type": "function", "name": "current_time"}]
    for choice in choices:
        reply = await server.post(input=GREETING, tools=[CLOCK], tool_choice=choice)
        skip_if_refused(reply, TOOLS)
        expect_equal("tool_choice", choice, read(_Choice, reply.expect(200).body, "a response").tool_choice)


@chapter.rule
async def parallel_calls_are_echoed(server: Server) -> None:
    """A response tells whether calls may be parallel: true, unless false was asked for.

    Source: API reference, parallel_tool_calls (objects.md §1, §2).
    """
    told = read(_Choice, (await server.once(plain)).body, "a response").parallel_tool_calls
    expect_equal("parallel_tool_calls without a word of it", True, told)
    reply = await server.post(input=GREETING, tools=[CLOCK], parallel_tool_calls=False)
    skip_if_refused(reply, (*TOOLS, "parallel_tool_calls"))
    told = read(_Choice, reply.expect(200).body, "a response").parallel_tool_calls
    expect_equal("parallel_tool_calls", False, told)


@chapter.rule
async def texts_come_back_letter_by_letter(server: Server) -> None:
    """Texts that are echoed are the same in every character, whatever script, sign or escape they are made of.

    Source: API reference, instructions, metadata (objects.md §2).
    """
    text = 'Grüße, 你好, \U0001f60a e\u0301 \u200d "quoted" \\ /\n\ttab \u2028 <b>&amp;'
    answer = await create(server, input=GREETING, instructions=text, metadata={"text": text})
    expect_equal("the instructions", text, answer.instructions)
    expect_equal("the metadata", {"text": text}, answer.metadata)


_INCLUDED = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
)


@chapter.rule
async def all_that_can_be_included_is_accepted(server: Server) -> None:
    """Everything that may be named in include is accepted, also where there is nothing of that kind, or is refused by
    the name of the parameter.

    Source: API reference, include (objects.md §1.1). Models without log probabilities may refuse these.
    """
    answer = await create(server, optional=("include",), input=GREETING, include=_INCLUDED)
    expect_equal("the status", "completed", answer.status)

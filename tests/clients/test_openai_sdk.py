"""The `openai` SDK in front of the real server process, in front of a strict scripted provider.

Whatever a test looks at, the witness validates every object and every event with the SDK's own types at its end.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Literal, cast

import msgspec
import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI, pydantic_responses_function_tool
from openai.lib.responses_tool_runner import (
    AsyncRegisteredFunction,
    AsyncResponsesToolRunner,
    RegisteredFunction,
    ResponsesToolRunner,
)
from openai.types.responses import (
    CustomToolParam,
    FunctionToolParam,
    Response,
    ResponseCustomToolCall,
    ResponseFunctionToolCall,
    ResponseInputItemParam,
    ResponseOutputItem,
    ResponseReasoningItem,
    ResponseStreamEvent,
    ToolParam,
)
from openai.types.responses.response_input_param import FunctionCallOutput

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import (
    Action,
    Answer,
    CallStyle,
    Head,
    HttpError,
    Pause,
    Stall,
    Step,
    Trouble,
    Usage,
    Wire,
    answer,
    call,
    calls,
    death,
    raw,
    refusal,
    silence,
    text,
    thought,
)
from rejoinder.conformance.upstreams.sent import SentChat
from rejoinder.conformance.upstreams.strictness import Json
from tests.clients.witness import Witness, losses_of, notes_of
from tests.live import LiveServer, LiveUpstream, running

pytestmark = pytest.mark.clients

ADA = "rj-ada-7f3c19d2"
BOB = "rj-bob-52be80aa"
MODEL = "test-model"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="

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
RAW = {"reasoning": "raw", "chat": {"options": ["parallel_tool_calls", "logprobs"]}}
PATCH: CustomToolParam = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" /.+/s'},
}


class Place(pydantic.BaseModel):
    """A place on earth."""

    city: str
    people: int


class get_weather(pydantic.BaseModel):  # noqa: N801  # the SDK names the tool after the class
    """Says what the weather is."""

    city: str


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One process for the whole file: its upstreams differ in what they show, and in being inside."""
    upstreams = [
        LiveUpstream(provider.base_url, models=(MODEL, "org/small:free")),
        LiveUpstream(provider.base_url, name="raw", models=("raw-model",), options=RAW),
        LiveUpstream(name="demo", dialect="demo", models=("demo",)),
    ]
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


def types_of(events: list[ResponseStreamEvent]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


def chunk(delta: Json, **choice: Json) -> bytes:
    """A chunk of the provider's stream, with further fields of its choice."""
    said = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **choice}]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def user(content: str) -> ResponseInputItemParam:
    return {"role": "user", "content": content}


def replayed(output: Sequence[openai.BaseModel]) -> list[ResponseInputItemParam]:
    """The output as it is sent again: the SDK's models as they are."""
    return cast(list[ResponseInputItemParam], output)  # the SDK documents it, and has no type for it


def result(of: ResponseOutputItem, output: str) -> FunctionCallOutput:
    assert isinstance(of, ResponseFunctionToolCall)
    return {"type": "function_call_output", "call_id": of.call_id, "output": output}


# A response


def test_a_string_makes_a_response(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Good ", "day."), usage=Usage(prompt=30, completion=12, cached=8, reasoning=5))])
    response = client.responses.create(model=MODEL, input="Hello", metadata={"topic": "greeting"})
    assert response.output_text == "Good day."
    assert (response.status, response.model, response.metadata) == ("completed", MODEL, {"topic": "greeting"})
    assert response.id.startswith("resp_")
    assert response.completed_at is not None
    assert response.usage is not None
    assert response.usage.to_dict() == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 42,
    }
    assert [(message.role, message.content) for message in upstream.requests[0].chat.messages] == [("user", "Hello")]


def test_items_instructions_and_images_reach_the_provider(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("A dot."))])
    response = client.responses.create(
        model=MODEL,
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Speak English."},
            user("I show you something."),
            {"role": "assistant", "content": "Go on."},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": PIXEL, "detail": "low"},
                ],
            },
        ],
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=100,
        reasoning={"effort": "low"},
    )
    sent = upstream.requests[0].chat
    assert [(message.role, message.text) for message in sent.messages] == [
        ("system", "Be brief.\n\nSpeak English."),
        ("user", "I show you something."),
        ("assistant", "Go on."),
        ("user", "What is it?"),
    ]
    parts = sent.messages[3].content
    assert isinstance(parts, list)
    assert parts[1].image_url is not None
    assert (parts[1].image_url.url, parts[1].image_url.detail) == (PIXEL, "low")
    assert (sent.temperature, sent.max_tokens, sent.reasoning_effort) == (0.5, 100, "low")
    assert (response.instructions, response.temperature, response.top_p) == ("Be brief.", 0.5, 0.9)
    assert response.max_output_tokens == 100
    assert response.reasoning is not None
    assert response.reasoning.effort == "low"


def test_what_was_asked_is_echoed(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("{}"))])
    response = client.responses.create(
        model=MODEL,
        input="An object, please",
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        tools=[WEATHER, PATCH],
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]},
        parallel_tool_calls=False,
        truncation="auto",
        prompt_cache_key="cache-1",
        safety_identifier="user-1",
        reasoning={"effort": "high", "summary": "auto"},
        stream_options={"include_obfuscation": False},
    )
    assert response.text is not None
    assert response.text.to_dict() == {"format": {"type": "json_object"}, "verbosity": "low"}
    assert [json.loads(tool.to_json()) for tool in response.tools] == [WEATHER, PATCH]
    assert not isinstance(response.tool_choice, str)
    assert response.tool_choice.type == "allowed_tools"
    assert (response.parallel_tool_calls, response.truncation) == (False, "auto")
    assert (response.prompt_cache_key, response.safety_identifier) == ("cache-1", "user-1")
    assert response.reasoning is not None
    assert (response.reasoning.effort, response.reasoning.summary) == ("high", "auto")
    # Only what may be called is offered (mapping.md §4).
    assert [tool.function.name for tool in upstream.requests[0].chat.tools] == ["get_weather"]


async def test_the_async_client_makes_the_same_response(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hi."))])
    response = await async_client.responses.create(model=MODEL, input="Hello")
    again = await async_client.responses.retrieve(response.id)
    assert again.to_dict() == response.to_dict()
    assert response.output_text == "Hi."


def test_every_answer_has_a_request_id_of_its_own(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("a")), answer(text("b"))])
    first = client.responses.create(model=MODEL, input="Hello")
    second = client.responses.create(model=MODEL, input="Hello")
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="nobody", input="Hello")
    ids = {first._request_id, second._request_id, raised.value.request_id}
    assert len(ids) == 3
    assert None not in ids


def test_what_was_left_out_is_said_in_a_header(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("a")), answer(text("b"))])
    plain = client.responses.with_raw_response.create(model=MODEL, input="Hello")
    knobs = client.responses.with_raw_response.create(
        model=MODEL, input="Hello", service_tier="flex", user="u-1", extra_body={"top_k": 5}
    )
    assert "x-rejoinder-notes" not in plain.headers
    assert sorted(note.partition(":")[0] for note in notes_of(knobs.headers)) == ["service_tier", "top_k", "user"]
    assert knobs.parse().output_text == "b"
    assert set(upstream.requests[1].fields) == {"model", "messages"}


def test_a_streamed_answer_can_be_read_raw(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("a", "b"))])
    with client.responses.with_streaming_response.create(
        model=MODEL, input="Hello", stream=True, user="u-1"
    ) as response:
        lines = [*response.iter_lines()]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert notes_of(response.headers) == ["user: not understood by this upstream"]
    assert (lines[0], lines[-2:]) == ("event: response.created", ["data: [DONE]", ""])


def test_an_answer_that_is_cut_is_incomplete(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Once"), finish="length"), answer(text("No"), finish="content_filter")])
    cut = client.responses.create(model=MODEL, input="Tell a story", max_output_tokens=16)
    assert (cut.status, cut.output_text) == ("incomplete", "Once")
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    events = [*client.responses.create(model=MODEL, input="Tell a story", stream=True)]
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "content_filter"


# Streams


def test_a_stream_follows_the_grammar(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(thought("Hm."), text("Good ", "day."))])
    with client.responses.create(model=MODEL, input="Hello", stream=True) as stream:
        events = [*stream]
    assert types_of(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert client.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()


def test_raw_reasoning_streams_as_raw_text(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(thought("Hm, ", "yes."), text("Yes."))])
    with client.responses.stream(model="raw-model", input="Is it?") as stream:
        deltas = [event.delta for event in stream if event.type == "response.reasoning_text.delta"]
        final = stream.get_final_response()
    item = final.output[0]
    assert isinstance(item, ResponseReasoningItem)
    assert deltas == ["Hm, ", "yes."]
    assert item.summary == []
    assert item.content is not None
    assert [part.text for part in item.content] == ["Hm, yes."]


def test_log_probabilities_and_citations_are_whole(client: OpenAI, upstream: ChatUpstream) -> None:
    top: Json = [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}, {"token": "<s>", "logprob": -9.5, "bytes": None}]
    tokens: Json = [{"token": "Hi", "logprob": -0.1, "top_logprobs": top}, {"token": "!", "logprob": -0.2}]
    cited: dict[str, Json] = {"url": "https://example.com/", "title": "A page", "start_index": 0, "end_index": 2}
    upstream.follow(
        [
            raw(
                chunk({"role": "assistant", "content": "Hi!"}, logprobs={"content": tokens}),
                chunk({"annotations": [{"type": "url_citation", "url_citation": cited}]}),
                chunk({}, finish_reason="stop"),
                b"data: [DONE]\n\n",
            )
        ]
    )
    with client.responses.stream(
        model="raw-model", input="Hello", include=["message.output_text.logprobs"], top_logprobs=2
    ) as stream:
        message = stream.get_final_response().output[0]
    assert message.type == "message"
    part = message.content[0]
    assert part.type == "output_text"
    assert part.logprobs is not None
    # Chat may leave the bytes out, Responses may not (objects.md §5).
    assert [(one.token, one.bytes) for one in part.logprobs] == [("Hi", [72, 105]), ("!", [33])]
    assert [(one.token, one.bytes) for one in part.logprobs[0].top_logprobs] == [("Hi", [72, 105]), ("<s>", [])]
    assert [one.to_dict() for one in part.annotations] == [{"type": "url_citation", **cited}]
    assert json.loads(bytes(upstream.requests[0].fields["top_logprobs"])) == 2


def test_the_stream_helper_accumulates_text(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("One, ", "two, ", "three."))])
    with client.responses.stream(model=MODEL, input="Count") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots == ["One, ", "One, two, ", "One, two, three."]
    assert final.output_text == "One, two, three."
    assert final.usage is not None
    assert final.usage.total_tokens == 18


STYLES: list[CallStyle] = ["fragments", "interleaved", "whole", "together", "no_id", "same_index", "object"]


@pytest.mark.parametrize("style", STYLES)
def test_the_stream_helper_takes_reasoning_text_and_calls_in_any_style(
    client: OpenAI, upstream: ChatUpstream, style: CallStyle
) -> None:
    oslo, rome = (call("get_weather", '{"city":', f'"{city}"}}', id=f"call_{city}") for city in ("Oslo", "Rome"))
    upstream.follow([answer(thought("Two."), text("Let me look."), calls(oslo, rome, style=style))])
    with client.responses.stream(model=MODEL, input="Weather in Oslo and Rome?", tools=[WEATHER]) as stream:
        final = stream.until_done().get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    found = [item for item in final.output if isinstance(item, ResponseFunctionToolCall)]
    assert [json.loads(item.arguments) for item in found] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert len({item.call_id for item in found}) == 2
    assert final.status == "completed"


async def test_the_async_stream_helper_passes_its_own_checks(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Let me look."), calls(call("get_weather", '{"city":', '"Oslo"}')))])
    async with async_client.responses.stream(model=MODEL, input="Weather?", tools=[WEATHER]) as stream:
        snapshots = [event.snapshot async for event in stream if event.type == "response.function_call_arguments.delta"]
        final = await (await stream.until_done()).get_final_response()
    assert snapshots == ['{"city":', '{"city":"Oslo"}']
    assert [item.type for item in final.output] == ["message", "function_call"]


def test_a_refusal_is_a_part_of_its_own(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(refusal("I ", "won't."))])
    with client.responses.stream(model=MODEL, input="Do harm") as stream:
        deltas = [event.delta for event in stream if event.type == "response.refusal.delta"]
        message = stream.get_final_response().output[0]
    assert deltas == ["I ", "won't."]
    assert message.type == "message"
    assert [part.type for part in message.content] == ["refusal"]


@dataclass(frozen=True, slots=True)
class Together:
    """Nobody is answered before that many have asked."""

    count: int
    upstream: ChatUpstream
    answer: Answer

    def actions(self, request: SentChat) -> Iterator[Action]:
        while len(self.upstream.requests) < self.count:
            yield Pause(0.01)
        yield from self.answer.actions(request)


def test_thirty_two_streams_run_side_by_side(server: LiveServer, witness: Witness, upstream: ChatUpstream) -> None:
    def echo(request: SentChat) -> Step:
        pieces = (text(piece) for piece in request.messages[-1].text)
        return Together(32, upstream, answer(*pieces, gap=0.005))

    async def one(client: AsyncOpenAI, number: int) -> str:
        async with client.responses.stream(model=MODEL, input=f"number {number}") as stream:
            return (await stream.get_final_response()).output_text

    async def all_of_them() -> list[str]:
        async with witness.async_client(server.base_url, ADA) as client:
            return await asyncio.gather(*(one(client, number) for number in range(32)))

    upstream.follow(echo)
    assert asyncio.run(all_of_them()) == [f"number {number}" for number in range(32)]
    events = [event for exchange in witness.exchanges for event in exchange.events]
    assert len({event.response.id for event in events if event.type == "response.created"}) == 32


# Structured output


def test_parse_gives_an_object(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text('{"city":"Oslo",', '"people":700000}'))] * 2)
    whole = client.responses.parse(model=MODEL, input="A city", text_format=Place)
    with client.responses.stream(model=MODEL, input="A city", text_format=Place) as stream:
        dones = [event.parsed for event in stream if event.type == "response.output_text.done"]
        streamed = stream.get_final_response()
    assert whole.output_parsed == streamed.output_parsed == Place(city="Oslo", people=700000)
    assert dones == [Place(city="Oslo", people=700000)]
    for request in upstream.requests:
        wanted = json.loads(bytes(request.fields["response_format"]))
        assert wanted["type"] == "json_schema"
        assert wanted["json_schema"]["strict"] is True
        assert set(wanted["json_schema"]["schema"]["properties"]) == {"city", "people"}


async def test_parse_gives_the_arguments_of_a_tool(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(calls(call("get_weather", '{"city":"Oslo"}')))])
    tool = pydantic_responses_function_tool(get_weather)
    response = await async_client.responses.parse(model=MODEL, input="Weather?", tools=[tool])
    item = response.output[0]
    assert item.type == "function_call"
    assert item.parsed_arguments == get_weather(city="Oslo")
    assert upstream.requests[0].chat.tools[0].function.strict is True


# Tools


def test_parallel_calls_are_answered_over_the_previous_response(client: OpenAI, upstream: ChatUpstream) -> None:
    oslo, rome = (call("get_weather", f'{{"city":"{city}"}}', id=f"call_{city}") for city in ("Oslo", "Rome"))
    upstream.follow([answer(calls(oslo, rome)), answer(text("Both are sunny.")), answer(text("Not at all."))])
    asked = client.responses.create(model=MODEL, input="Weather in Oslo and Rome?", tools=[WEATHER])
    assert asked.status == "completed"
    assert asked.output_text == ""
    told = client.responses.create(
        model=MODEL,
        previous_response_id=asked.id,
        # In another order than asked: pairing is by call id (semantics.md §1).
        input=[result(asked.output[1], "sunny in Rome"), result(asked.output[0], "sunny in Oslo")],
        tools=[WEATHER],
    )
    assert (told.output_text, told.previous_response_id) == ("Both are sunny.", asked.id)
    thanked = client.responses.create(model=MODEL, previous_response_id=told.id, input="Thanks", tools=[WEATHER])
    assert thanked.output_text == "Not at all."
    sent = upstream.requests[2].chat.messages
    assert [message.role for message in sent] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert [one.id for one in sent[1].tool_calls] == ["call_Oslo", "call_Rome"]
    outputs = {message.tool_call_id: message.text for message in sent if message.role == "tool"}
    assert outputs == {"call_Oslo": "sunny in Oslo", "call_Rome": "sunny in Rome"}


def test_a_response_without_parallel_calls_has_one(client: OpenAI, upstream: ChatUpstream) -> None:
    both = calls(call("get_weather", '{"city":"Oslo"}', id="a"), call("get_weather", '{"city":"Rome"}', id="b"))
    upstream.follow([answer(both), answer(text("Sunny."))])
    asked = client.responses.create(model=MODEL, input="Weather?", tools=[WEATHER], parallel_tool_calls=False)
    assert [item.type for item in asked.output] == ["function_call"]
    assert upstream.requests[0].chat.parallel_tool_calls is False
    told = client.responses.create(model=MODEL, previous_response_id=asked.id, input=[result(asked.output[0], "sun")])
    assert told.output_text == "Sunny."


@pytest.mark.parametrize("choice", ["required", "none"])
def test_a_tool_choice_reaches_the_provider(
    client: OpenAI, upstream: ChatUpstream, choice: Literal["required", "none"]
) -> None:
    upstream.follow([answer(text("ok"))])
    response = client.responses.create(model=MODEL, input="Hello", tools=[WEATHER], tool_choice=choice)
    assert response.tool_choice == choice
    assert json.loads(bytes(upstream.requests[0].chat.tool_choice)) == choice


def test_a_named_tool_is_chosen(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(calls(call("get_weather", '{"city":"Oslo"}')))])
    response = client.responses.create(
        model=MODEL, input="Hello", tools=[WEATHER], tool_choice={"type": "function", "name": "get_weather"}
    )
    assert response.output[0].type == "function_call"
    choice = json.loads(bytes(upstream.requests[0].chat.tool_choice))
    assert choice == {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_custom_tool_takes_free_text(client: OpenAI, upstream: ChatUpstream, streaming: bool) -> None:
    patch = '*** Begin Patch\n+ "quoted" \\ and é\n*** End Patch'
    arguments = json.dumps({"input": patch})
    upstream.follow([answer(calls(call("apply_patch", arguments[:20], arguments[20:]))), answer(text("Done."))])
    if streaming:
        with client.responses.stream(model=MODEL, input="Fix it", tools=[PATCH]) as stream:
            deltas = [event.delta for event in stream if event.type == "response.custom_tool_call_input.delta"]
            asked: Response = stream.get_final_response()
        assert "".join(deltas) == patch
    else:
        asked = client.responses.create(model=MODEL, input="Fix it", tools=[PATCH])
    item = asked.output[0]
    assert isinstance(item, ResponseCustomToolCall)
    assert (item.name, item.input) == ("apply_patch", patch)
    told = client.responses.create(
        model=MODEL,
        previous_response_id=asked.id,
        input=[{"type": "custom_tool_call_output", "call_id": item.call_id, "output": "patched"}],
        tools=[PATCH],
    )
    assert told.output_text == "Done."
    declared = upstream.requests[0].chat.tools[0].function
    assert declared.description is not None
    assert "*** Begin Patch" in declared.description
    sent = upstream.requests[1].chat.messages
    assert json.loads(sent[1].tool_calls[0].function.arguments) == {"input": patch}
    assert (sent[2].role, sent[2].tool_call_id, sent[2].text) == ("tool", item.call_id, "patched")
    listed = [one.type for one in client.responses.input_items.list(told.id, order="asc")]
    assert listed == ["message", "custom_tool_call", "custom_tool_call_output"]


def test_a_tool_may_answer_with_an_image(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(calls(call("get_weather", '{"city":"Oslo"}'))), answer(text("Blue."))])
    asked = client.responses.create(model=MODEL, input="Weather?", tools=[WEATHER])
    item = asked.output[0]
    assert isinstance(item, ResponseFunctionToolCall)
    seen: FunctionCallOutput = {
        "type": "function_call_output",
        "call_id": item.call_id,
        "output": [{"type": "input_text", "text": "the sky:"}, {"type": "input_image", "image_url": PIXEL}],
    }
    client.responses.create(model=MODEL, previous_response_id=asked.id, input=[seen], tools=[WEATHER])
    sent = upstream.requests[1].chat.messages
    # A tool message holds text alone, so the picture follows it as the user's (provider-chat.md §3).
    assert [message.role for message in sent] == ["user", "assistant", "tool", "user"]
    parts = sent[3].content
    assert isinstance(parts, list)
    assert [part.image_url.url for part in parts if part.image_url] == [PIXEL]


def weather(arguments: dict[str, object]) -> str:
    return f"sunny in {arguments['city']}"


RUN: list[Answer] = [
    answer(
        thought("Two cities."),
        text("Let me look."),
        calls(call("get_weather", '{"city":"Oslo"}', id="call_1"), call("get_weather", '{"city":"Rome"}', id="call_2")),
    ),
    # The same id as before: a run needs another one (provider-chat.md §7, events.md §5).
    answer(calls(call("get_weather", '{"city":"Bern"}', id="call_1"))),
    answer(thought("Done."), text("All are sunny.")),
]


@pytest.mark.parametrize(("stream", "eager"), [(False, False), (True, False), (True, True)])
def test_the_tool_runner_runs_to_its_end(client: OpenAI, upstream: ChatUpstream, stream: bool, eager: bool) -> None:
    upstream.follow(RUN)
    runner = ResponsesToolRunner(functions=[RegisteredFunction(WEATHER, weather, independent=True)])
    final = runner.run(client, {"model": MODEL, "input": "Weather?"}, stream=stream, eager=eager)
    assert final.output_text == "All are sunny."
    sent = upstream.requests[2].chat.messages
    assert [message.text for message in sent if message.role == "tool"] == [
        "sunny in Oslo",
        "sunny in Rome",
        "sunny in Bern",
    ]
    ids = [one.id for message in sent for one in message.tool_calls]
    assert len({*ids}) == 3
    # The runner keeps the history itself, and the provider's reasoning comes back to it (semantics.md §2).
    assert sent[1].reasoning_content == "Two cities."


@pytest.mark.parametrize("eager", [False, True])
async def test_the_async_tool_runner_runs_to_its_end(
    async_client: AsyncOpenAI, upstream: ChatUpstream, eager: bool
) -> None:
    async def look(arguments: dict[str, object]) -> str:
        return weather(arguments)

    upstream.follow(RUN)
    runner = AsyncResponsesToolRunner(functions=[AsyncRegisteredFunction(WEATHER, look, independent=True)])
    final = await runner.run(async_client, {"model": MODEL, "input": "Weather?"}, stream=True, eager=eager)
    assert final.output_text == "All are sunny."
    assert len(upstream.requests) == 3


# What is kept


def test_a_response_is_there_until_it_is_deleted(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(thought("Hm."), text("Hi."))])
    made = client.responses.create(model=MODEL, input="Hello")
    assert client.responses.retrieve(made.id).to_dict() == made.to_dict()
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as retrieved:
        client.responses.retrieve(made.id)
    assert retrieved.value.type == "invalid_request_error"
    assert made.id in retrieved.value.message
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list(made.id)
    with pytest.raises(openai.BadRequestError) as continued:
        client.responses.create(model=MODEL, previous_response_id=made.id, input="And?")
    assert continued.value.code == "previous_response_not_found"
    assert len(upstream.requests) == 1


def test_deleting_an_ancestor_leaves_its_descendants_whole(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("one")), answer(text("two")), answer(text("three"))])
    first = client.responses.create(model=MODEL, input="1")
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input="2")
    client.responses.delete(first.id)
    client.responses.create(model=MODEL, previous_response_id=second.id, input="3")
    assert [message.text for message in upstream.requests[2].chat.messages] == ["1", "one", "2", "two", "3"]


def test_what_is_not_stored_is_not_found(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hi."))])
    made = client.responses.create(model=MODEL, input="Hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, previous_response_id=made.id, input="And?")
    assert raised.value.param == "previous_response_id"


def test_another_key_holder_finds_nothing(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hi."))])
    made = client.responses.create(model=MODEL, input="Hello")
    other = client.with_options(api_key=BOB)
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.delete(made.id)
    with pytest.raises(openai.BadRequestError):
        other.responses.create(model=MODEL, previous_response_id=made.id, input="And?")
    assert client.responses.retrieve(made.id).output_text == "Hi."


def test_only_a_background_response_is_streamed_again(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Hi."))])
    made = client.responses.create(model=MODEL, input="Hello")
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.retrieve(made.id, stream=True)
    assert raised.value.param == "stream"


def test_input_items_come_page_by_page_in_both_orders(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("ok")), answer(text("ok"))])
    words = [f"word {number}" for number in range(25)]
    made = client.responses.create(model=MODEL, input=[user(word) for word in words])

    def texts(order: Literal["asc", "desc"], **query: int) -> list[str]:
        found: list[str] = []
        for item in client.responses.input_items.list(made.id, order=order, **query):  # type: ignore[arg-type]  # only `limit` is ever given
            assert item.type == "message"
            assert item.role == "user"
            found += [part.text for part in item.content if part.type == "input_text"]
        return found

    assert texts("asc", limit=10) == words
    assert texts("desc") == words[::-1]
    page = client.responses.input_items.list(made.id)
    assert len(page.data) == 20
    assert page.has_next_page()
    assert [item.id for item in page.get_next_page().data] == [item.id for item in [*page][20:]]
    # What was said before belongs to what a response was made from.
    child = client.responses.create(model=MODEL, previous_response_id=made.id, input="more")
    assert len([*client.responses.input_items.list(child.id)]) == 27
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.input_items.list(made.id, after="msg_nobody")
    assert raised.value.param == "after"
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.input_items.list(made.id, limit=101)
    assert raised.value.param == "limit"


async def test_the_async_client_pages_too(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("ok"))])
    made = await async_client.responses.create(model=MODEL, input=[user(str(number)) for number in range(7)])
    items = [item async for item in async_client.responses.input_items.list(made.id, limit=3, order="asc")]
    assert len({item.id for item in items}) == 7


def test_a_stored_item_can_be_referred_to(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("A cat.")), answer(text("Yes."))])
    made = client.responses.create(model=MODEL, input="What is it?")
    item = made.output[0]
    assert item.type == "message"
    client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": item.id}, user("Sure?")])
    assert [message.text for message in upstream.requests[1].chat.messages] == ["A cat.", "Sure?"]
    with pytest.raises(openai.BadRequestError, match="not found"):
        client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_nobody"}, user("Sure?")])


# Without a store


def test_sealed_reasoning_comes_back_to_its_provider(client: OpenAI, upstream: ChatUpstream) -> None:
    first = answer(
        thought("I must ", "look.", place="reasoning_details", signature="sig-1"),
        calls(call("get_weather", '{"city":"Oslo"}')),
    )
    upstream.follow([first, answer(text("Sunny.")), answer(text("Sunny."))])
    asked = client.responses.create(
        model=MODEL, input="Weather?", tools=[WEATHER], store=False, include=["reasoning.encrypted_content"]
    )
    reasoning = asked.output[0]
    assert isinstance(reasoning, ResponseReasoningItem)
    assert reasoning.encrypted_content is not None
    assert "sig-1" not in reasoning.encrypted_content
    history = [user("Weather?"), *replayed(asked.output), result(asked.output[1], "sun")]
    told = client.responses.create(model=MODEL, input=history, tools=[WEATHER], store=False)
    assert told.output_text == "Sunny."
    details = json.loads(bytes(upstream.requests[1].chat.messages[1].reasoning_details))
    assert "".join(entry.get("text", "") for entry in details) == "I must look."
    assert [entry["signature"] for entry in details if "signature" in entry] == ["sig-1"]
    # Another key holder gets no use of it (mapping.md §5), and the turn goes on without.
    stolen = client.with_options(api_key=BOB).responses.with_raw_response.create(
        model=MODEL, input=history, tools=[WEATHER], store=False
    )
    [loss] = losses_of(stolen.headers)
    assert (loss["type"], loss["reason"]) == ("reasoning", "end_user_mismatch")
    assert upstream.requests[2].chat.messages[1].reasoning_details == msgspec.Raw(b"null")


def test_reasoning_with_nothing_but_an_id_is_not_found(client: OpenAI, upstream: ChatUpstream) -> None:
    lost: ResponseInputItemParam = {"type": "reasoning", "id": "rs_0123456789abcdef", "summary": []}
    with pytest.raises(openai.BadRequestError, match="Items are not persisted") as raised:
        client.responses.create(model=MODEL, input=[user("Hello"), lost, user("And?")], store=False)
    assert raised.value.param == "input"
    assert upstream.requests == []


def test_a_stream_without_a_store_can_be_replayed(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(thought("Hm."), text("Two.")), answer(text("Four."))])
    with client.responses.stream(model=MODEL, input="1+1?", store=False) as stream:
        first = stream.get_final_response()
    history = [user("1+1?"), *replayed(first.output), user("Twice that?")]
    second = client.responses.create(model=MODEL, input=history, store=False)
    assert second.output_text == "Four."
    sent = upstream.requests[1].chat.messages
    assert [(message.role, message.text) for message in sent] == [
        ("user", "1+1?"),
        ("assistant", "Two."),
        ("user", "Twice that?"),
    ]


# Models


def test_models_are_listed_retrieved_and_asked(client: OpenAI, upstream: ChatUpstream) -> None:
    assert {model.id for model in client.models.list()} == {MODEL, "org/small:free", "raw-model", "demo"}
    assert client.models.retrieve("org/small:free").owned_by == "test"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("nobody")
    assert raised.value.code == "model_not_found"
    upstream.follow([answer(text("Hi."))])
    assert client.responses.create(model="org/small:free", input="Hello").model == "org/small:free"
    assert upstream.requests[0].chat.model == "org/small:free"


# Errors


def test_an_unknown_previous_response_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, previous_response_id="resp_nobody", input="Hello")
    assert (raised.value.code, raised.value.param) == ("previous_response_not_found", "previous_response_id")
    assert raised.value.body == {
        "message": "Previous response with id 'resp_nobody' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }


@pytest.mark.parametrize("streaming", [False, True])
def test_a_wrong_request_is_refused_before_anything_streams(
    client: OpenAI, upstream: ChatUpstream, streaming: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="nobody", input="Hello", stream=streaming)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(
            model=MODEL, input="Hello", stream=streaming, tools=[{"type": "file_search", "vector_store_ids": ["vs"]}]
        )
    assert raised.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, input="Hello", stream=streaming, temperature=3)
    assert raised.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="No tool call found for function call output with call_id call_x"):
        client.responses.create(
            model=MODEL,
            input=[{"type": "function_call_output", "call_id": "call_x", "output": "?"}],
            stream=streaming,
        )
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(
            model=MODEL,
            input="Hello",
            stream=streaming,
            tools=[WEATHER],
            tool_choice={"type": "function", "name": "nobody"},
        )
    assert raised.value.param == "tool_choice"
    assert upstream.requests == []


def test_a_tool_of_the_wrong_shape_is_named(client: OpenAI, upstream: ChatUpstream) -> None:
    nested = {"type": "function", "function": {"name": "get_weather"}}
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, input="Hello", extra_body={"tools": [nested]})
    assert (raised.value.code, raised.value.param) == ("missing_required_parameter", "tools[0].name")
    assert upstream.requests == []


def test_every_tool_a_client_can_run_is_offered_and_echoed(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("ok"))])
    tools: list[ToolParam] = [
        {"type": "function", "name": "ping", "parameters": None, "strict": None},
        {"type": "custom", "name": "shout"},
        {"type": "namespace", "name": "crm", "description": "People.", "tools": [{"type": "function", "name": "find"}]},
        {"type": "tool_search", "execution": "client"},
        {"type": "local_shell"},
        {"type": "shell"},
        {"type": "apply_patch"},
        {"type": "web_search"},
    ]
    response = client.responses.with_raw_response.create(model=MODEL, input="Hello", tools=tools)
    assert [tool.type for tool in response.parse().tools] == [tool["type"] for tool in tools]
    offered = [tool.function.name for tool in upstream.requests[0].chat.tools]
    assert offered == ["ping", "shout", "crm__find", "tool_search", "local_shell", "shell", "apply_patch"]
    assert [note.partition(":")[0] for note in notes_of(response.headers)] == ["tools.web_search"]


def test_an_unanswered_call_is_a_bad_request(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(calls(call("get_weather", '{"city":"Oslo"}', id="call_1")))])
    asked = client.responses.create(model=MODEL, input="Weather?", tools=[WEATHER])
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call call_1") as raised:
        client.responses.create(model=MODEL, previous_response_id=asked.id, input="Well?", tools=[WEATHER])
    assert raised.value.param == "input"


def test_a_wrong_key_is_an_authentication_error(client: OpenAI, upstream: ChatUpstream) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        client.with_options(api_key="rj-nobody-000").responses.create(model=MODEL, input="Hello")
    assert raised.value.code == "invalid_api_key"
    assert raised.value.request_id is not None
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="rj-nobody-000").models.list()
    assert upstream.requests == []


def test_an_endpoint_nobody_serves_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        client.files.list()


def test_a_busy_provider_is_asked_again_when_it_said(client: OpenAI, upstream: ChatUpstream) -> None:
    busy = HttpError(429, "Slow down.", type="requests", code="rate_limit_exceeded", headers={"retry-after": "1"})
    upstream.follow([busy, answer(text("Here.")), busy])
    assert client.with_options(max_retries=1).responses.create(model=MODEL, input="Hello").output_text == "Here."
    first, second = upstream.requests
    assert second.at - first.at >= 1
    with pytest.raises(openai.RateLimitError) as raised:
        client.responses.create(model=MODEL, input="Hello", stream=True)
    assert (raised.value.code, raised.value.response.headers["retry-after"]) == ("rate_limit_exceeded", "1")


def test_an_empty_account_is_not_asked_again(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([HttpError(429, "You exceeded your current quota.", code="insufficient_quota")] * 3)
    with pytest.raises(openai.RateLimitError) as raised:
        client.with_options(max_retries=2).responses.create(model=MODEL, input="Hello")
    assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (HttpError(500, "It broke.", type="server_error"), 502),
        (HttpError(503, "Overloaded.", type="server_error"), 503),
        (HttpError(502, raw=b"<html>bad gateway</html>"), 502),
        (death("before_head"), 502),
        (death("after_head"), 502),
        (raw(b"{", content_type="application/json"), 502),
        (answer(trouble=Trouble("error", after=0)), 502),
        (answer(), 502),
    ],
    ids=["500", "503", "a page", "no head", "no body", "half a body", "an error inside", "empty"],
)
def test_a_broken_provider_is_an_internal_server_error(
    client: OpenAI, upstream: ChatUpstream, step: Step, status: int
) -> None:
    upstream.follow([step])
    with pytest.raises(openai.InternalServerError) as raised:
        client.responses.create(model=MODEL, input="Hello")
    assert (raised.value.status_code, raised.value.type) == (status, "server_error")
    assert raised.value.request_id is not None


def test_a_refused_credential_of_the_server_is_not_the_clients_fault(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([HttpError(401, "Incorrect API key provided: sk-verysecret0123456789")] * 3)
    with pytest.raises(openai.InternalServerError) as raised:
        client.with_options(max_retries=2).responses.create(model=MODEL, input="Hello")
    assert "sk-very" not in str(raised.value.body)
    assert len(upstream.requests) == 1


def test_what_does_not_fit_is_a_bad_request_with_its_code(client: OpenAI, upstream: ChatUpstream) -> None:
    full = HttpError(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded")
    upstream.follow([full, full])
    for streaming in (False, True):
        with pytest.raises(openai.BadRequestError) as raised:
            client.responses.create(model=MODEL, input="Hello", stream=streaming)
        assert raised.value.code == "context_length_exceeded"


@pytest.mark.parametrize("kind", ["cut", "reset", "end", "error", "bad_json"])
def test_an_answer_that_breaks_off_ends_in_a_failed_response(
    client: OpenAI, upstream: ChatUpstream, kind: Literal["cut", "reset", "end", "error", "bad_json"]
) -> None:
    upstream.follow([answer(text("Half an ", "answer"), gap=0.01, trouble=Trouble(kind, after=2))] * 2)
    events = [*client.responses.create(model=MODEL, input="Hello", stream=True)]
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    message = last.response.output[0]
    assert message.type == "message"
    assert (last.response.output_text, message.status) == ("Half an ", "incomplete")
    assert client.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=MODEL, previous_response_id=last.response.id, input="Go on")
    assert raised.value.code == "previous_response_not_found"
    with (
        client.responses.stream(model=MODEL, input="Hello") as stream,
        pytest.raises(RuntimeError, match=r"response\.completed"),
    ):
        stream.get_final_response()


# Time, and leaving


def test_a_client_that_waits_no_longer_frees_the_provider(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([silence()])
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).responses.create(model=MODEL, input="Hello")
    assert upstream.wait(1).left.wait(1)


def test_a_stream_that_stops_times_out(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Half an ", "answer"), trouble=Trouble("stall", after=2))])
    seen: list[ResponseStreamEvent] = []
    with (
        client.with_options(timeout=0.5).responses.create(model=MODEL, input="Hello", stream=True) as stream,
        pytest.raises(openai.APITimeoutError),
    ):
        seen.extend(stream)
    assert types_of(seen)[-1] == "output_text.delta"
    assert upstream.requests[0].left.wait(1)


def test_closing_a_stream_frees_the_provider(client: OpenAI, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("One", "two"), trouble=Trouble("stall", after=2))])
    with client.responses.create(model=MODEL, input="Count", stream=True) as stream:
        response_id = next(event.response.id for event in stream if event.type == "response.created")
        next(event for event in stream if event.type == "response.output_text.delta")
        assert not upstream.requests[0].left.is_set()
    closed = monotonic()
    assert upstream.requests[0].left.wait(1)
    assert monotonic() - closed < 1
    # A turn nobody waited for is not kept (semantics.md §1, reliability.md F1).
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response_id)


async def test_cancelling_a_task_frees_the_provider(async_client: AsyncOpenAI, upstream: ChatUpstream) -> None:
    endless = answer(text("One", "two"), trouble=Trouble("stall", after=2))
    upstream.follow([endless, silence()])
    begun = asyncio.Event()

    async def read() -> None:
        async with async_client.responses.stream(model=MODEL, input="Count") as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    begun.set()

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.to_thread(upstream.requests[0].left.wait, 1)
    waiting = asyncio.create_task(async_client.responses.create(model=MODEL, input="Count"))
    await asyncio.to_thread(upstream.wait, 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(upstream.requests[1].left.wait, 1)


def test_a_slow_beginning_is_waited_for(client: OpenAI, upstream: ChatUpstream) -> None:
    slow = Wire((Pause(0.3), Head(429, {"content-type": "application/json", "retry-after": "7"}), b"{}"))
    upstream.follow([slow, Wire((Head(), Pause(0.3), Stall()))])
    # The status line waits for the provider's, so that an early error is a real one (reliability.md §4).
    with pytest.raises(openai.RateLimitError) as raised:
        client.responses.create(model=MODEL, input="Hello", stream=True)
    assert raised.value.response.headers["retry-after"] == "7"
    with client.responses.create(model=MODEL, input="Hello", stream=True) as stream:
        assert next(iter(stream)).type == "response.created"


# The model inside


def test_the_demo_model_holds_a_conversation(client: OpenAI) -> None:
    first = client.responses.create(model="demo", input="My name is Ada Lovelace.")
    with client.responses.stream(
        model="demo", previous_response_id=first.id, input="Think: what is my name?"
    ) as stream:
        second = stream.get_final_response()
    assert second.output_text == "Your name is Ada Lovelace."
    assert [item.type for item in second.output] == ["reasoning", "message"]
    assert second.usage is not None
    assert second.usage.total_tokens == second.usage.input_tokens + second.usage.output_tokens
    place = client.responses.parse(model="demo", input="A city, please", text_format=Place)
    assert isinstance(place.output_parsed, Place)
    runner = ResponsesToolRunner(functions=[RegisteredFunction(WEATHER, weather)])
    final = runner.run(
        client, {"model": "demo", "input": 'call get_weather with {"city": "Oslo"}'}, stream=True, eager=True
    )
    assert final.output_text == "The tool get_weather answered: sunny in Oslo"


async def test_the_demo_model_serves_the_async_client(async_client: AsyncOpenAI) -> None:
    async with async_client.responses.stream(
        model="demo",
        input='call apply_patch with {"input": "*** Begin Patch"} and get_weather with {"city": "Oslo"}',
        tools=[PATCH, WEATHER],
        store=False,
    ) as stream:
        asked = await stream.get_final_response()
    assert [item.type for item in asked.output] == ["custom_tool_call", "function_call"]

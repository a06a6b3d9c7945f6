"""What the provider answers comes through: every character, every token, every call, in its order and in time."""

from collections.abc import Mapping, Sequence

from rejoinder.conformance.answer import Answer, answer_in, create, skip_if_refused, usage_of
from rejoinder.conformance.dialects import Dialect
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.need import PAIRED, STORE
from rejoinder.conformance.paired import Cue, dialect_of, only_in, playing
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import TOOLS
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.stream import Stream
from rejoinder.conformance.upstreams import script
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.obliging import telling
from rejoinder.conformance.upstreams.recut import Recut
from rejoinder.conformance.upstreams.script import (
    CallStyle,
    Usage,
    UsagePlace,
    answer,
    call,
    calls,
    refusal,
    text,
    thought,
)
from rejoinder.conformance.upstreams.seen import Seen, compact

chapter = Chapter("fidelity", "Provider fidelity", PAIRED)

_PIECES = (
    "\n Grüße aus",
    " Zürich: “so” – ",
    '{"a": "\\u00fc\\n"}',
    "\t🎈🎈 漢",
    "字\r\n",
    "data: [DONE]\n\n",
    "  end ",
)
_TEXT = "".join(_PIECES)

_LOOK: Json = {
    "type": "function",
    "name": "look",
    "description": "Looks somewhere.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}
_CLOCK: Json = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}
_TOOLS: Sequence[Json] = [_LOOK, _CLOCK]

_ARGUMENTS = '{"place": "Zürich, \\"am \\\\ See\\"\\n\\u00e9 🎈", "days": [1, 2.5, {"none": null}], "empty": ""}'


async def both(server: Server, *cues: Cue, optional: tuple[str, ...] = (), **fields: Json) -> list[Answer]:
    """The same answer, in one piece and in events."""
    async with playing(server, *cues):
        plain = await create(server, optional=optional, **fields)
    async with playing(server, *cues):
        return [plain, Stream.of(await server.post(stream=True, **fields)).answer]


def _cut(said: str, size: int) -> list[str]:
    return [said[at : at + size] for at in range(0, len(said), size)]


@chapter.rule
async def a_text_is_exact(server: Server) -> None:
    """A text is told as the provider says it, to the last character, in one piece and in events.

    Source: Open Responses, output text (mapping.md §6, events.md §4).
    """
    for told in await both(server, answer(text(*_PIECES)), input="Say it."):
        expect_equal("the text", _TEXT, told.text)
        expect_equal("the status", "completed", told.status)


@chapter.rule
async def a_text_survives_every_cut(server: Server) -> None:
    """How the provider's bytes are cut on their way does not matter, in the middle of a character neither.

    Source: WHATWG, server-sent events; seen with many providers (provider-chat.md §7, mapping.md §6).
    """
    async with playing(server, Recut(answer(text(*_PIECES)))):
        stream = Stream.of(await server.post(input="Say it.", stream=True))
    told = "".join(event.delta or "" for event in stream.events if event.kind == "output_text.delta")
    expect_equal("the deltas together", _TEXT, told)
    expect_equal("the text at the end", _TEXT, stream.answer.text)


@chapter.rule
async def deltas_come_while_the_provider_writes(server: Server) -> None:
    """What the provider has said so far is told before it says more.

    Source: Guide, Streaming responses (events.md §1, reliability.md §4).
    """
    held = Held(answer(text("the-first-word", " the-second-word")), before=b"the-second-word")
    async with playing(server, held):
        try:
            async with server.listening(input="Say two words.", stream=True) as incoming:
                came = await incoming.hears(b"the-first-word", min(server.patience / 2, 5))
                expect(came, "the first word while the provider waits with the second one", "nothing of it")
        finally:
            held.release()


@chapter.rule
async def what_is_cut_off_is_incomplete(server: Server) -> None:
    """An answer that the provider cut off for its length is incomplete, says so, and has the text so far.

    Source: API reference, incomplete_details (mapping.md §6).
    """
    for told in await both(server, answer(text("Once upon"), finish="length"), input="Tell a story."):
        expect_equal("status and reason", ("incomplete", "max_output_tokens"), (told.status, told.incomplete_reason))
        expect_equal("the text", "Once upon", told.text)


@chapter.rule
async def what_was_filtered_is_incomplete(server: Server) -> None:
    """An answer that the provider cut off for its content is incomplete, says so, and has the text so far.

    Source: API reference, incomplete_details (mapping.md §6).
    """
    only_in(server, "chat", "gemini", "responses", because="knows refusals instead")
    for told in await both(server, answer(text("Once upon"), finish="content_filter"), input="Tell a story."):
        expect_equal("status and reason", ("incomplete", "content_filter"), (told.status, told.incomplete_reason))
        expect_equal("the text", "Once upon", told.text)


@chapter.rule
async def a_refusal_is_no_text(server: Server) -> None:
    """A provider that refuses is told of in a part of its own, and not as if that were the answer.

    Source: API reference, refusal; guide, Structured outputs (mapping.md §6).
    """
    only_in(server, "chat", "anthropic", "responses", because="has no refusals")
    for told in await both(server, answer(refusal("I will ", "not.")), input="Do it."):
        parts = [part for item in told.output for part in (item.parts if item.type == "message" else [])]
        expect_equal("the refusal", "I will not.", "".join(part.refusal or "" for part in parts))
        expect_equal("the text", "", told.text)


def _counts(told: Answer) -> Mapping[str, int]:
    usage = usage_of(told)
    return {
        "input": usage.input_tokens,
        "cached": usage.input_tokens_details.cached_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.output_tokens_details.reasoning_tokens,
        "total": usage.total_tokens,
    }


@chapter.rule
async def usage_is_exact(server: Server) -> None:
    """Tokens are those that the provider counted: what was cached is part of the input, what was thought of the output.

    Source: API reference, usage (mapping.md §6, objects.md §4).
    """
    usage = Usage(prompt=1200, completion=340, cached=1000, reasoning=300)
    for told in await both(server, answer(text("Hello."), usage=usage), input="Say hello."):
        expected = {"input": 1200, "cached": 1000, "output": 340, "reasoning": 300, "total": 1540}
        expect_equal("the tokens", expected, _counts(told))


@chapter.rule
async def what_is_written_to_a_cache_is_input(server: Server) -> None:
    """Tokens that the provider wrote into its cache are part of the input, too.

    Source: API reference, usage (mapping.md §6, provider-anthropic.md §8).
    """
    only_in(server, "chat", "anthropic", "responses", because="does not count them")
    usage = Usage(prompt=1200, completion=40, cached=200, written=900)
    for told in await both(server, answer(text("Hello."), usage=usage), input="Say hello."):
        expected = {"input": 1200, "cached": 200, "output": 40, "reasoning": 0, "total": 1240}
        expect_equal("the tokens", expected, _counts(told))


_PLACES: Sequence[UsagePlace] = ("after", "finish", "every")


@chapter.rule
async def usage_is_found_where_it_stands(server: Server) -> None:
    """The tokens of a stream are found behind its end, with its end, and when every piece counts anew.

    Source: seen with many providers (provider-chat.md §7, mapping.md §6).
    """
    for place in _PLACES:
        usage = Usage(prompt=31, completion=17)
        async with playing(server, answer(text("Hel", "lo."), usage=usage, usage_place=place)):
            stream = Stream.of(await server.post(input="Say hello.", stream=True))
        found = _counts(stream.answer)
        expect_equal("input and output", (31, 17), (found["input"], found["output"]), at=stream.events[-1].raw)


@chapter.rule
async def arguments_are_exact(server: Server) -> None:
    """The arguments of a call are those of the provider, in one piece and in events, wherever they were cut.

    Source: API reference, function call (mapping.md §6, events.md §4).
    """
    step = answer(calls(call("look", *_cut(_ARGUMENTS, 5))))
    as_text = dialect_of(server) in ("chat", "responses")
    for told in await both(server, step, input="Look.", tools=_TOOLS, optional=TOOLS):
        arguments = [str(call.arguments) for call in told.calls]
        if as_text:
            expect_equal("the arguments", [_ARGUMENTS], arguments)
        else:  # the provider gives an object, and nobody knows how that was written
            expect_equal("the arguments", [compact(_ARGUMENTS)], [compact(one) for one in arguments])


@chapter.rule
async def deltas_of_arguments_add_up(server: Server) -> None:
    """The deltas of a call's arguments make up the arguments, and those of one call are not mixed with another's.

    Source: API reference, streaming events (events.md §4, mapping.md §6).
    """
    places = ("Oslo", "Rome")
    both_ = calls(*(call("look", *_cut(f'{{"place": "{place}"}}', 4), id=f"call_{place}") for place in places))
    async with playing(server, answer(both_)):
        reply = await server.post(input="Look.", tools=_TOOLS, stream=True)
    skip_if_refused(reply, TOOLS)
    stream = Stream.of(reply)
    told: dict[int | None, str] = {}
    for event in stream.events:
        if event.kind == "function_call_arguments.delta":
            told[event.output_index] = told.get(event.output_index, "") + (event.delta or "")
    expected = [compact(f'{{"place": "{place}"}}') for place in places]
    expect_equal("the deltas", expected, [compact(one) for _, one in sorted(told.items(), key=str)])


@chapter.rule
async def calls_keep_their_order(server: Server) -> None:
    """Calls of one answer are as many items, in the order in which they were made, each with an id of its own.

    Source: Guide, Function calling (mapping.md §6, semantics.md §7).
    """
    made = [("look", '{"place":"Oslo"}'), ("clock", "{}"), ("look", '{"place":"Rome"}')]
    step = answer(calls(*(call(name, said, id=f"call_{place}") for place, (name, said) in enumerate(made))))
    for told in await both(server, step, input="Look.", tools=_TOOLS, optional=TOOLS):
        found = [(call.name, compact(str(call.arguments))) for call in told.calls]
        expect_equal("the calls", made, found)
        expect_distinct("call_ids", [call.call_id for call in told.calls])
        expect_equal("the status", "completed", told.status)


_STYLES: Mapping[Dialect, Sequence[CallStyle]] = {
    "chat": ("whole", "together", "interleaved"),
    "anthropic": ("whole",),
    "gemini": ("whole", "together"),
    "responses": ("whole",),
}


@chapter.rule
async def calls_may_be_written_in_every_way(server: Server) -> None:
    """Calls come through whole or in pieces, one after another, at once or interleaved: whatever the protocol allows.

    Source: seen with many providers (provider-chat.md §7, mapping.md §8).
    """
    made = [("look", '{"place":"Oslo"}'), ("look", '{"place":"Rome"}')]
    for style in _STYLES[dialect_of(server)]:
        parts = [call(name, *_cut(said, 6), id=f"call_{place}") for place, (name, said) in enumerate(made)]
        async with playing(server, answer(calls(*parts, style=style))):
            reply = await server.post(input="Look.", tools=_TOOLS, stream=True)
        skip_if_refused(reply, TOOLS)
        found = [(call.name, compact(str(call.arguments))) for call in Stream.of(reply).answer.calls]
        expect_equal(f"the calls, when they come {style}", made, found)


@chapter.rule
async def a_call_without_arguments_has_an_empty_object(server: Server) -> None:
    """A call to which the provider gives no arguments has those that are an empty object.

    Source: seen with many providers (provider-chat.md §7, provider-anthropic.md §10).
    """
    only_in(server, "chat", "anthropic", "gemini", because="always gives arguments")
    step = answer(calls(call("clock"), style="no_arguments"))
    for told in await both(server, step, input="What time is it?", tools=_TOOLS, optional=TOOLS):
        expect_equal("the arguments", ["{}"], [call.arguments for call in told.calls])


@chapter.needing(STORE)
async def a_repeated_call_id_is_made_unique(server: Server) -> None:
    """A call_id is new within a lineage, though the provider gives the same one in every answer.

    Source: seen with local servers; OpenAI refuses ids that come twice (reliability.md §5, F28, mapping.md §6).
    """
    only_in(server, "chat", "gemini", because="gives every call an id of its own")
    step = answer(calls(call("look", id="call_0")))
    async with playing(server, step):
        first = await create(server, optional=TOOLS, input="Look.", tools=_TOOLS)
        second = await create(server, input=_results(first), tools=_TOOLS, previous_response_id=first.id)
        third = await create(server, input=_results(second), tools=_TOOLS, previous_response_id=second.id)
    expect_distinct("call_ids", [call.call_id for told in (first, second, third) for call in told.calls])


def _results(told: Answer) -> list[Json]:
    return [{"type": "function_call_output", "call_id": call.call_id, "output": "Nothing."} for call in told.calls]


@chapter.rule
async def a_call_counts_whatever_the_end_says(server: Server) -> None:
    """Calls are told though the provider says that it has stopped as usual, and the response is completed.

    Source: seen with many providers, OpenAI among them (provider-chat.md §5, mapping.md §8).
    """
    only_in(server, "chat", "gemini", because="has one word for the end")
    for told in await both(
        server, answer(calls(call("clock")), finish="stop"), input="Look.", tools=_TOOLS, optional=TOOLS
    ):
        expect_equal("the calls", ["clock"], [call.name for call in told.calls])
        expect_equal("the status", "completed", told.status)


@chapter.rule
async def calls_come_without_a_message(server: Server) -> None:
    """An answer of calls alone has no message: a provider that says nothing is not made to say the empty text.

    Source: API reference, output (mapping.md §6).
    """
    step = answer(calls(call("clock")))
    for told in await both(server, step, input="Look.", tools=_TOOLS, optional=TOOLS):
        expect_equal("the items", ["function_call"], [item.type for item in told.output if item.type != "reasoning"])


@chapter.rule
async def what_is_said_stands_before_what_is_called(server: Server) -> None:
    """A text and the calls behind it are items in this order.

    Source: Guide, Function calling (mapping.md §6).
    """
    step = answer(text("Let me look."), calls(call("clock"), call("look", '{"place": "Oslo"}')))
    for told in await both(server, step, input="Look.", tools=_TOOLS, optional=TOOLS):
        items = [item.name or item.text for item in told.output if item.type != "reasoning"]
        expect_equal("the items", ["Let me look.", "clock", "look"], items)


@chapter.rule
async def reasoning_is_an_item_before_the_answer(server: Server) -> None:
    """What the provider thinks is an item of its own before the message, and no part of the text.

    Source: Guide, Reasoning models (mapping.md §5, §6).
    """
    step = answer(thought("Six times ", "seven."), text("It is 42."))
    for told in await both(server, step, input="What is it?", reasoning={"summary": "auto"}, optional=("reasoning",)):
        expect_equal("the text", "It is 42.", told.text)
        kinds = [item.type for item in told.output]
        expect("reasoning" in kinds[: kinds.index("message")], "reasoning before the message", kinds)


@chapter.rule
async def reasoning_is_told_as_it_is(server: Server) -> None:
    """What is shown of the reasoning is what the provider says of it.

    Source: Guide, Reasoning models, reasoning summaries (mapping.md §5).
    """
    step = answer(thought("Six times ", "seven."), text("It is 42."))
    for told in await both(server, step, input="What is it?", reasoning={"summary": "auto"}, optional=("reasoning",)):
        thoughts = [item for item in told.output if item.type == "reasoning"]
        shown = [part.text or "" for item in thoughts for part in (*(item.summary or ()), *item.parts)]
        expect_equal("what is shown", "Six times seven.", "".join(shown))


@chapter.rule
async def a_custom_tool_is_told_its_text(server: Server) -> None:
    """The input of a custom tool is the text that the provider gives, to the last character.

    Source: Guide, Function calling, custom tools (mapping.md §3).
    """
    said = 'print("Grüße")\n# {"input": "🎈"}\\n\n'
    tool: Json = {"type": "custom", "name": "run", "description": "Runs a program."}

    def step(seen: Seen) -> script.Answer:
        return answer(telling(seen.tools[0], said))

    for told in await both(server, step, input="Run it.", tools=[tool], optional=TOOLS):
        made = [(item.type, item.name, item.input) for item in told.output if item.type != "reasoning"]
        expect_equal("the call", [("custom_tool_call", "run", said)], made)


@chapter.rule
async def one_call_at_a_time_is_kept_to(server: Server) -> None:
    """With parallel_tool_calls false the provider is told so, or the client gets no more than one call of an answer.

    Source: API reference, parallel_tool_calls (mapping.md §4).
    """
    step = answer(calls(call("clock"), call("look", '{"place": "Oslo"}')))
    async with playing(server, step) as scene:
        reply = await server.post(input="Look.", tools=_TOOLS, parallel_tool_calls=False)
        skip_if_refused(reply, (*TOOLS, "parallel_tool_calls"))
        told = answer_in(reply)
        if scene.prompt(1).parallel is not False:
            expect(
                len(told.calls) <= 1, "one call at most, or a provider that is told", [call.name for call in told.calls]
            )

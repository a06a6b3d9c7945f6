"""What the provider is told: all that was said, in its order, in its own words, and the same again in the next turn."""

import base64
from collections.abc import Mapping, Sequence

import msgspec

from rejoinder.conformance.answer import Answer, Item, answer_in, create, read, refusal_in, skip_if_refused
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import COMPACTION, CONVERSATIONS, PAIRED, STORE, WARM_UP, WEBSOCKET
from rejoinder.conformance.paired import Scene, only_in, playing
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import PICTURE, TOOLS, UNKNOWN
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.shape import output_items
from rejoinder.conformance.talk import talking
from rejoinder.conformance.upstreams import script
from rejoinder.conformance.upstreams.obliging import obliging, telling
from rejoinder.conformance.upstreams.script import answer, call, calls, text, thought
from rejoinder.conformance.upstreams.seen import Seen, compact

chapter = Chapter("prompts", "What the provider is told", PAIRED)

_OK = answer(text("Well."))

_LOOK: Json = {
    "type": "function",
    "name": "look",
    "description": "Looks at a place.",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string", "description": "Where to look."}, "far": {"type": "boolean"}},
        "required": ["place"],
    },
    "strict": False,
}
_CLOCK: Json = {"type": "function", "name": "clock", "description": "Tells the time."}

_SEALS = ("TGV0IG1lIHNlZSwgd2hlcmUgaXMgaXQ/", "QW5kIHRoZXJlIGl0IGlzLCBpIHRoaW5r")
"""Reasoning that is also its own seal: Chat Completions knows no other."""


def _user(said: Json) -> Json:
    return {"role": "user", "content": said}


async def _turn(server: Server, settings: Mapping[str, Json], **fields: Json) -> Answer:
    """A turn with settings that every turn of a conversation has. Raises NotApplicable when they are refused."""
    reply = await server.post(**{**settings, **fields})
    skip_if_refused(reply, (*TOOLS, "reasoning"))
    return answer_in(reply)


def _outputs(told: Answer, *outputs: Json) -> list[Json]:
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": output}
        for call, output in zip(told.calls, outputs, strict=True)
    ]


def _looks(*places: str) -> script.Answer:
    return answer(calls(*(call("look", compact(f'{{"place": "{place}"}}'), id=f"call_{place}") for place in places)))


@chapter.rule
async def a_text_is_what_the_user_says(server: Server) -> None:
    """An input that is a text reaches the provider as the user's, to the last character, and nothing beside it.

    Source: API reference, input (mapping.md §2).
    """
    said = '  Grüße, "Welt"!\n\n\t🎈 {"role": "system"} \\u0041 <b> '
    async with playing(server, _OK) as scene:
        await create(server, input=said)
    expect_equal("the prompt", [f"user {said}"], scene.prompt(1).outline)


@chapter.rule
async def parts_of_a_message_are_all_sent(server: Server) -> None:
    """A message of several parts reaches the provider whole, in its order.

    Source: API reference, input (mapping.md §2, objects.md §5).
    """
    parts: list[Json] = [{"type": "input_text", "text": part} for part in ("One, ", "two, ", "three.")]
    async with playing(server, _OK) as scene:
        await create(server, input=[_user(parts)])
    said = "".join(one.text for one in scene.prompt(1).of("text", "user"))
    expect_equal("the parts", "One,two,three.", "".join(said.split()))


@chapter.rule
async def a_history_is_sent_in_its_roles(server: Server) -> None:
    """What the client says that the user and the assistant said reaches the provider in these roles, in its order.

    Source: API reference, input; guide, Conversation state (mapping.md §2).
    """
    said: list[Json] = [
        _user("My name is Ada."),
        {"role": "assistant", "content": "Hello, Ada."},
        _user("Who am I?"),
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "You are Ada."}]},
        _user("Thank you."),
    ]
    expected = ["user My name is Ada.", "assistant Hello, Ada.", "user Who am I?", "assistant You are Ada."]
    async with playing(server, _OK) as scene:
        await create(server, input=said, store=False)
    expect_equal("the prompt", [*expected, "user Thank you."], scene.prompt(1).outline)


@chapter.rule
async def what_the_developer_says_is_kept_in_place(server: Server) -> None:
    """What a developer or the system says reaches the provider, and what they say later is not moved to the front.

    Source: API reference, input; guide, Text generation, message roles (mapping.md §2).
    """
    said: list[Json] = [
        {"role": "developer", "content": "Speak in rhymes."},
        _user("My name is Ada."),
        {"role": "assistant", "content": "Hello, Ada."},
        _user("Who am I?"),
        {"role": "system", "content": "Whisper from here on."},
    ]
    async with playing(server, _OK) as scene:
        await create(server, input=said, store=False)
    texts = [one.text for one in scene.prompt(1).said]
    places = [_place(texts, words) for words in ("Speak in rhymes.", "My name is Ada.", "Who am I?", "Whisper")]
    expect_equal("their order", sorted(places), places)


def _place(texts: Sequence[str], words: str) -> tuple[int, int]:
    """Where that is said. Raises Broken when it is not."""
    found = [(number, said.index(words)) for number, said in enumerate(texts) if words in said]
    expect(found, f"{words!r} in the prompt", texts)
    return found[0]


@chapter.rule
async def instructions_are_what_the_system_says(server: Server) -> None:
    """Instructions reach the provider, to the last character, as what the system or the developer says.

    Source: API reference, instructions (mapping.md §1).
    """
    said = "Speak “like” a pirate.\n  Always. "
    async with playing(server, _OK) as scene:
        await create(server, instructions=said, input="Hello.")
    expect_equal("the prompt", ["user Hello."], scene.prompt(1).outline)
    expect(said in scene.prompt(1).system, f"the instructions, {said!r}", repr(scene.prompt(1).system))


@chapter.needing(STORE)
async def instructions_are_of_one_turn(server: Server) -> None:
    """The instructions of the previous response are not told again, with new ones or without.

    Source: API reference, instructions, previous_response_id (semantics.md §1).
    """
    async with playing(server, _OK) as scene:
        first = await create(server, instructions="Speak like a pirate.", input="Hello.")
        second = await create(server, input="And now?", previous_response_id=first.id)
        await create(server, instructions="Whisper.", input="And then?", previous_response_id=second.id)
    for number in (2, 3):
        system = scene.prompt(number).system
        expect("pirate" not in system, "no instructions of an earlier turn", system)
    expect("Whisper." in scene.prompt(3).system, "the instructions of this turn", scene.prompt(3).system)


def _base64(url: str) -> str:
    return url.partition(";base64,")[2]


@chapter.rule
async def an_image_reaches_the_provider(server: Server) -> None:
    """An image of a message reaches the provider byte for byte, between what was said before it and behind it.

    Source: Guide, Images and vision (mapping.md §7).
    """
    parts: Json = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
    ]
    async with playing(server, _OK) as scene:
        await create(server, optional=("input",), input=[_user(parts)])
    expect_equal("the images", [_base64(PICTURE)], scene.prompt(1).media)


_PDF = (
    "data:application/pdf;base64,"
    + base64.b64encode(
        b"%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    ).decode()
)


@chapter.rule
async def a_file_reaches_the_provider(server: Server) -> None:
    """A file of a message reaches the provider byte for byte, or is refused.

    Source: Guide, File inputs (mapping.md §7).
    """
    parts: Json = [
        {"type": "input_file", "filename": "empty.pdf", "file_data": _PDF},
        {"type": "input_text", "text": "What is this?"},
    ]
    async with playing(server, _OK) as scene:
        await create(server, optional=("input",), input=[_user(parts)])
    expect_equal("the files", [_base64(_PDF)], scene.prompt(1).media)


class _Parameters(msgspec.Struct):
    properties: dict[str, object] = {}
    required: list[str] = []


@chapter.rule
async def tools_are_declared_whole(server: Server) -> None:
    """Tools reach the provider in their order, with their names, their descriptions and their parameters.

    Source: Guide, Function calling (mapping.md §3).
    """
    async with playing(server, _OK) as scene:
        await create(server, optional=TOOLS, input="Look.", tools=[_LOOK, _CLOCK])
    offered = scene.prompt(1).tools
    expect_equal("the names", ["look", "clock"], [tool.name for tool in offered])
    for tool, words in zip(offered, ("Looks at a place.", "Tells the time."), strict=True):
        expect(words in tool.description, f"a description with {words!r}", tool.description)
    found = read(_Parameters, offered[0].schema or b"{}", "the parameters")
    expect_equal("the parameters", (["place", "far"], ["place"]), ([*found.properties], found.required))


@chapter.rule
async def a_tool_choice_reaches_the_provider(server: Server) -> None:
    """What has to be called, that something has to be, and that nothing may be: the provider is told.

    Source: API reference, tool_choice (mapping.md §4).
    """
    choices: Sequence[tuple[Json, tuple[str, list[str]]]] = [
        ("required", ("required", [])),
        ({"type": "function", "name": "clock"}, ("required", ["clock"])),
    ]
    for choice, expected in choices:
        async with playing(server, answer(calls(call("clock")))) as scene:
            await create(server, optional=TOOLS, input="Look.", tools=[_LOOK, _CLOCK], tool_choice=choice)
        found = scene.prompt(1)
        # Who offers nothing but what has to be called has said it too.
        names = [*found.choice.names] or ([found.tools[0].name] if len(found.tools) == 1 else [])
        expect_equal("the choice", expected, (found.choice.mode, names))
    async with playing(server, _OK) as scene:
        await create(server, optional=TOOLS, input="Look.", tools=[_LOOK, _CLOCK], tool_choice="none")
    found = scene.prompt(1)
    expect(found.choice.mode == "none" or not found.tools, "that nothing may be called", found.choice)


@chapter.needing(STORE)
async def results_follow_their_calls(server: Server) -> None:
    """The outputs of parallel calls reach the provider right behind the calls, each with its own, however they came.

    Source: Guide, Function calling (mapping.md §2, §8, semantics.md §1).
    """
    async with playing(server, _looks("Oslo", "Rome"), _OK) as scene:
        first = await create(server, optional=TOOLS, input="Look.", tools=[_LOOK])
        outputs = [*reversed(_outputs(first, "Rain.", "Sun.")), _user("Thank you.")]
        await create(server, input=outputs, tools=[_LOOK], previous_response_id=first.id)
    _expect_pairs(scene.prompt(2), "Thank you.")


def _expect_pairs(prompt: Seen, last: str) -> None:
    """Raises Broken unless two calls are followed by their results and these by what is said last. A result may stand
    behind both calls or between them."""
    looks = [f'call look {{"place":"{place}"}}' for place in ("Oslo", "Rome")]
    outline = prompt.outline
    expect_equal("what is before", ["user Look."], outline[:1])
    expect_equal("the calls", looks, [line for line in outline[1:5] if line.startswith("call")])
    expect_equal("the results", ["result Rain.", "result Sun."], sorted(set(outline[1:5]) - {*looks}))
    expect_equal("what follows", [f"user {last}"], outline[5:])
    ids = [one.id for one in prompt.of("call")]
    # Without ids the order tells which result is whose.
    told = {one.id or ids[place]: one.text for place, one in enumerate(prompt.of("result"))}
    expect_equal("the results by their calls", ["Rain.", "Sun."], [told.get(id) for id in ids])


@chapter.rule
async def a_history_of_calls_is_sent_whole(server: Server) -> None:
    """Calls and outputs that the client keeps itself reach the provider paired, and no call is left out.

    Source: Guide, Function calling; guide, Conversation state (mapping.md §2, semantics.md §2).
    """
    async with playing(server, _looks("Oslo", "Rome"), _OK) as scene:
        reply = await server.post(input="Look.", tools=[_LOOK], store=False)
        skip_if_refused(reply, TOOLS)
        outputs = _outputs(answer_in(reply), "Rain.", "Sun.")
        given = [_user("Look."), *output_items(reply.body), *outputs, _user("Thank you.")]
        await create(server, input=given, tools=[_LOOK], store=False)
    _expect_pairs(scene.prompt(2), "Thank you.")


@chapter.needing(STORE)
async def an_output_of_parts_is_sent_whole(server: Server) -> None:
    """An output that is a list of parts reaches the provider with all of them.

    Source: API reference, function call output (mapping.md §2).
    """
    parts: Json = [{"type": "input_text", "text": "Rain."}, {"type": "input_text", "text": "And wind."}]
    async with playing(server, _looks("Oslo"), _OK) as scene:
        first = await create(server, optional=TOOLS, input="Look.", tools=[_LOOK])
        await create(server, input=_outputs(first, parts), tools=[_LOOK], previous_response_id=first.id)
    [result] = [one.text for one in scene.prompt(2).of("result")] or [""]
    expect("Rain." in result and "And wind." in result.partition("Rain.")[2], "both parts of the result", result)


async def _refused_unasked(server: Server, scene: Scene, *statuses: int, **fields: Json) -> None:
    """Raises Broken unless the request is refused and the provider hears nothing of it."""
    before = scene.asked
    reply = await server.post(**fields)
    expect_equal("requests to the provider", before, scene.asked)
    refusal_in(reply, *statuses)


@chapter.rule
async def an_open_call_is_not_sent(server: Server) -> None:
    """A request that leaves a call without its output is refused before the provider is asked.

    Source: observed text of the API, "No tool output found" (reliability.md §5, F29, semantics.md §1).
    """
    made: Json = {"type": "function_call", "call_id": "call_open", "name": "look", "arguments": '{"place":"Oslo"}'}
    async with playing(server, _OK) as scene:
        await _refused_unasked(server, scene, input=[_user("Look."), made, _user("And?")], tools=[_LOOK])


@chapter.rule
async def a_stray_output_is_not_sent(server: Server) -> None:
    """A request with the output of a call that nobody made is refused before the provider is asked.

    Source: observed text of the API, "No tool call found" (reliability.md §5, F29, semantics.md §1).
    """
    stray: Json = {"type": "function_call_output", "call_id": "call_stray", "output": "Rain."}
    async with playing(server, _OK) as scene:
        await _refused_unasked(server, scene, input=[_user("Look."), stray], tools=[_LOOK])


@chapter.rule
async def nothing_is_sent_of_an_unknown_past(server: Server) -> None:
    """A request that goes on from a response that is nowhere is refused before the provider is asked.

    Source: API reference, previous_response_id (reliability.md §1, semantics.md §1).
    """
    async with playing(server, _OK) as scene:
        await _refused_unasked(server, scene, 400, 404, input="Go on.", previous_response_id=UNKNOWN)


@chapter.rule
async def what_is_refused_is_not_sent(server: Server) -> None:
    """A request that is none is refused before the provider is asked.

    Source: API reference, Create a response (reliability.md §4, http.md §6.2).
    """
    async with playing(server, _OK) as scene:
        await _refused_unasked(server, scene, 400, 422, input=42)
        await _refused_unasked(server, scene, 400, 422, input="Hello.", tools="look")


@chapter.needing(STORE)
async def a_chain_is_sent_in_order(server: Server) -> None:
    """All that was said in the responses before, and all that was answered, reaches the provider, oldest first.

    Source: Guide, Conversation state; API reference, previous_response_id (semantics.md §1, reliability.md §1).
    """
    async with playing(server, *(answer(text(f"Answer {number}.")) for number in range(4))) as scene:
        told = await create(server, input="Question 0.")
        for number in range(1, 4):
            told = await create(server, input=f"Question {number}.", previous_response_id=told.id)
    said = [line for number in range(4) for line in (f"user Question {number}.", f"assistant Answer {number}.")]
    for number in range(4):
        expect_equal("the prompt", said[: 2 * number + 1], scene.prompt(number + 1).outline)


@chapter.needing(STORE)
async def forks_share_nothing(server: Server) -> None:
    """Two responses that go on from the same one know nothing of each other.

    Source: Guide, Conversation state (semantics.md §1, reliability.md §5, F15).
    """
    async with playing(server, *(answer(text(f"Answer {number}.")) for number in range(4))) as scene:
        root = await create(server, input="Root.")
        left = await create(server, input="Left.", previous_response_id=root.id)
        await create(server, input="Right.", previous_response_id=root.id)
        await create(server, input="Further left.", previous_response_id=left.id)
    start = ["user Root.", "assistant Answer 0."]
    expect_equal("the prompt", [*start, "user Right."], scene.prompt(3).outline)
    expected = [*start, "user Left.", "assistant Answer 1.", "user Further left."]
    expect_equal("the prompt", expected, scene.prompt(4).outline)


@chapter.needing(STORE)
async def a_prompt_begins_with_the_one_before(server: Server) -> None:
    """What the provider reads in the next turn begins with what it read in this one: byte for byte, for its cache.

    Source: Guide, Prompt caching (mapping.md §0).
    """
    settings: dict[str, Json] = {"instructions": "Be brief.", "tools": [_LOOK, _CLOCK]}
    steps = (_looks("Oslo", "Rome"), answer(text("Rain ", "and sun.")), answer(text("Never.")))
    async with playing(server, *steps) as scene:
        first = await _turn(server, settings, input="Look.")
        outputs = _outputs(first, "Rain.", "Sun.")
        second = await _turn(server, settings, input=outputs, previous_response_id=first.id)
        await _turn(server, settings, input="And snow?", previous_response_id=second.id)
    for number in (1, 2):
        before, after = scene.prefix(number), scene.prefix(number + 1)
        expect(len(after) > len(before), "more in the next turn than before", [len(before), len(after)])
        for one, other in zip(before, after, strict=False):
            expect_equal("the same bytes again", one, other)


@chapter.needing(STORE)
async def either_way_of_going_on_is_the_same(server: Server) -> None:
    """Whether a client names the previous response or sends the history itself, the provider is told the same.

    Source: Guide, Conversation state (mapping.md §0, §5).
    """
    async with playing(server, _looks("Oslo"), answer(text("Rain.")), _OK) as scene:
        first = await server.post(input="Look.", tools=[_LOOK])
        skip_if_refused(first, TOOLS)
        outputs = _outputs(answer_in(first), "Wet.")
        second = await server.post(input=outputs, tools=[_LOOK], previous_response_id=answer_in(first).id)
        await create(server, input="And?", tools=[_LOOK], previous_response_id=answer_in(second).id)
        items = [*output_items(first.body), *outputs, *output_items(second.body)]
        await create(server, input=[_user("Look."), *items, _user("And?")], tools=[_LOOK], store=False)
    expect_equal("the prompt", scene.prompt(3).reasoned, scene.prompt(4).reasoned)


def _told(reply: Reply, name: str) -> bool:
    """Whether the answer says in a header that this parameter had no effect."""
    return any(name in value for value in reply.headers.values())


@chapter.rule
async def sampling_reaches_the_provider(server: Server) -> None:
    """Temperature and top_p reach the provider as they are, or are refused or noted: they are not lost silently.

    Source: API reference, temperature, top_p (mapping.md §1).
    """
    for name, number in (("temperature", 0.25), ("top_p", 0.75)):
        async with playing(server, _OK) as scene:
            reply = await server.post(input="Hello.", **{name: number})
        if reply.status == 400:
            refusal_in(reply, param=name)
            continue
        reply.expect(200)
        found = {"temperature": scene.prompt(1).temperature, "top_p": scene.prompt(1).top_p}[name]
        expect(found == number or _told(reply, name), f"{name} {number}", found)


@chapter.rule
async def a_limit_reaches_the_provider(server: Server) -> None:
    """The most tokens of an answer reach the provider.

    Source: API reference, max_output_tokens (mapping.md §1).
    """
    async with playing(server, _OK) as scene:
        await create(server, optional=("max_output_tokens",), input="Hello.", max_output_tokens=1234)
    expect_equal("the limit", 1234, scene.prompt(1).limit)


@chapter.rule
async def a_schema_reaches_the_provider(server: Server) -> None:
    """The schema of the answer's text reaches the provider, as such, as a tool, or in words.

    Source: Guide, Structured outputs (mapping.md §1).
    """
    schema: Json = {
        "type": "object",
        "properties": {"capital": {"type": "string"}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    form: Json = {"type": "json_schema", "name": "country", "schema": schema, "strict": True}
    async with playing(server, answer(text('{"capital": "Oslo"}'))) as scene:
        await create(server, optional=("text",), input="Norway.", text={"format": form})
    prompt = scene.prompt(1)
    places = [prompt.form.schema.decode(), *(tool.schema.decode() for tool in prompt.tools), prompt.system]
    expect(any('"capital"' in place for place in places), "the schema", places)


@chapter.rule
async def an_effort_reaches_the_provider(server: Server) -> None:
    """How much is to be thought reaches the provider: it is asked in other ways for little than for much.

    Source: API reference, reasoning (mapping.md §1).
    """
    bodies: list[bytes] = []
    for effort in ("low", "high"):
        async with playing(server, _OK) as scene:
            reply = await server.post(input="Hello.", reasoning={"effort": effort})
        skip_if_refused(reply, ("reasoning",))
        if _told(reply.expect(200), "effort"):
            raise NotApplicable("the server says that an effort has no effect")
        bodies.append(scene.request(1).body)
    expect(bodies[0] != bodies[1], "two requests that differ", bodies[0].decode(errors="replace"))


def _thinking(number: int) -> script.Answer:
    return answer(thought(_SEALS[number], signature=_SEALS[number]), *_looks(f"place{number}").parts)


_REASONED = [
    "user Look.",
    f"seal {_SEALS[0]}",
    'call look {"place":"place0"}',
    "result Here.",
    f"seal {_SEALS[1]}",
    'call look {"place":"place1"}',
    "result There.",
]


@chapter.needing(STORE)
async def reasoning_goes_back_to_its_issuer(server: Server) -> None:
    """Between calls the provider gets its own reasoning back, byte for byte, each before the call it led to.

    Source: Guide, Reasoning models; the providers refuse or forget without it (mapping.md §5, provider-chat.md §6,
    provider-anthropic.md §5, provider-gemini.md §5, provider-responses.md §4).
    """
    settings: dict[str, Json] = {"tools": [_LOOK], "reasoning": {"effort": "low"}}
    async with playing(server, _thinking(0), _thinking(1), _OK) as scene:
        first = await _turn(server, settings, input="Look.")
        second = await _turn(server, settings, input=_outputs(first, "Here."), previous_response_id=first.id)
        await _turn(server, settings, input=_outputs(second, "There."), previous_response_id=second.id)
    expect_equal("the prompt", _REASONED[:4], scene.prompt(2).reasoned)
    expect_equal("the prompt", _REASONED, scene.prompt(3).reasoned)


@chapter.rule
async def reasoning_comes_back_by_the_client(server: Server) -> None:
    """Without storage the client sends the reasoning with the rest, and the provider gets it back byte for byte.

    Source: Guide, Reasoning models, encrypted reasoning (mapping.md §5, semantics.md §2).
    """
    settings: dict[str, Json] = {
        "tools": [_LOOK],
        "reasoning": {"effort": "low"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    given: list[Json] = [_user("Look.")]
    async with playing(server, _thinking(0), _thinking(1), _OK) as scene:
        for output in ("Here.", "There."):
            reply = await server.post(input=given, **settings)
            skip_if_refused(reply, (*TOOLS, "reasoning"))
            given += [*output_items(reply.body), *_outputs(answer_in(reply), output)]
        await _turn(server, settings, input=given)
    expect_equal("the prompt", _REASONED, scene.prompt(3).reasoned)


@chapter.needing(STORE)
async def reasoning_details_go_back_unchanged(server: Server) -> None:
    """A provider that gives its reasoning in details gets the list back as it was, with every field.

    Source: OpenRouter, reasoning tokens (provider-chat.md §6, mapping.md §5).
    """
    only_in(server, "chat", because="has no such details")
    parts = (thought("Let me see.", place="reasoning_details", signature=_SEALS[0]), *_looks("Oslo").parts)
    async with playing(server, answer(*parts), _OK) as scene:
        first = await create(server, optional=TOOLS, input="Look.", tools=[_LOOK])
        await create(server, input=_outputs(first, "Here."), tools=[_LOOK], previous_response_id=first.id)
    sent = [message.reasoning_details for message in scene.request(2).chat.messages if message.tool_calls]
    # The pieces of an entry have come together; the rest is as it was.
    entry = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    expected = compact(msgspec.json.encode([{**entry, "text": "Let me see.", "signature": _SEALS[0]}]))
    expect_equal("the details", [expected], [compact(details) for details in sent])


@chapter.needing(STORE)
async def a_custom_result_goes_back(server: Server) -> None:
    """The output of a custom tool reaches the provider behind its call, which tells the text that was its input.

    Source: Guide, Function calling, custom tools (mapping.md §2, §3).
    """
    tool: Json = {"type": "custom", "name": "run", "description": "Runs a program."}

    def step(seen: Seen) -> script.Answer:
        return answer(telling(seen.tools[0], "print(42)"))

    async with playing(server, step, _OK) as scene:
        first = await create(server, optional=TOOLS, input="Run it.", tools=[tool])
        made = _custom_call(first)
        output: Json = {"type": "custom_tool_call_output", "call_id": made.call_id, "output": "42"}
        await create(server, input=[output], tools=[tool], previous_response_id=first.id)
    outline = scene.prompt(2).outline
    expect_equal("the prompt", ["user Run it.", "result 42"], [outline[0], *outline[2:]])
    expect(outline[1].startswith("call run ") and "print(42)" in outline[1], "the call", outline[1])


def _custom_call(told: Answer) -> Item:
    made = [item for item in told.output if item.type == "custom_tool_call"]
    expect(made, "a call of the custom tool", [item.type for item in told.output])
    return made[0]


@chapter.needing(CONVERSATIONS)
async def a_conversation_is_sent_in_order(server: Server) -> None:
    """All that is in a conversation reaches the provider before what is said now, oldest first.

    Source: Guide, Conversation state; API reference, conversation (semantics.md §4).
    """
    body = msgspec.json.encode({"items": [_user("Question 0.")]})
    made = read(_Made, (await server.send("POST", "/conversations", body)).expect(200).body, "a conversation")
    async with playing(server, answer(text("Answer 1.")), _OK) as scene:
        await create(server, input="Question 1.", conversation=made.id)
        await create(server, input="Question 2.", conversation=made.id)
    outline = [line.replace("\n", "") for line in scene.prompt(2).outline]
    expected = ["user Question 0.Question 1.", "assistant Answer 1.", "user Question 2."]
    expect_equal("the prompt", expected, outline)


class _Made(msgspec.Struct):
    id: str


@chapter.needing(COMPACTION)
async def a_compaction_stands_for_what_it_was_made_of(server: Server) -> None:
    """Behind a compaction the provider gets its own summary back, or what it sealed, and the next question.

    Source: Guide, Compaction (semantics.md §8, mapping.md §2).
    """
    said = [_user("I have a cat."), {"role": "assistant", "content": "How nice."}, _user("It is called Ada.")]
    summary = "The user has a cat whose name is Ada. Sum: 4711."
    body = msgspec.json.encode({"model": server.model, "input": said})

    def step(seen: Seen) -> script.Answer:
        return obliging(seen) if seen.compacts else answer(text(summary))

    async with playing(server, step) as scene:
        reply = await server.send("POST", "/responses/compact", body)
        await create(server, input=[*output_items(reply.expect(200).body), _user("What is it called?")])
    prompt = scene.prompts[-1]
    expect(
        any("Sum: 4711." in one.text for one in prompt.said) or prompt.seals,
        "the summary, or what stands for it",
        prompt.outline,
    )
    expect("What is it called?" in prompt.outline[-1], "the question at the end", prompt.outline)


@chapter.needing(WEBSOCKET, WARM_UP)
async def a_warm_up_is_read_before_what_follows(server: Server) -> None:
    """What was said in a warm-up reaches the provider before what is said behind it.

    Source: Guide, WebSocket mode (websocket.md §3, semantics.md §1).
    """
    async with playing(server, _OK) as scene, talking(server) as talk:
        warm = await talk.ask(input="My name is Ada.", store=False, generate=False)
        await talk.ask(input="Who am I?", store=False, previous_response_id=warm.answer.id)
    said = [one.text for one in scene.prompts[-1].of("text", "user")]
    expect_equal("what the user said", "My name is Ada.Who am I?", "".join(said).replace("\n", ""))

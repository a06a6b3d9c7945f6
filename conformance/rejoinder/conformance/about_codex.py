"""What a server has to do for Codex (codex.md §11): the requests it makes, and what it needs of the answers."""

from collections.abc import Sequence

import msgspec
import zstandard
from msgspec import Raw, Struct

from rejoinder.conformance import codex
from rejoinder.conformance.answer import Answer, read, skip_if_refused
from rejoinder.conformance.errors import NoAnswer, NotApplicable
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import WARM_UP, WEBSOCKET
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import TOOLS
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.stream import Event, Stream
from rejoinder.conformance.talk import Talk, Turn, talking

chapter = Chapter("codex", "Codex")

_INPUT = ("input",)


def _heard(reply: Reply) -> Stream:
    """The events as Codex reads them: it does not look at the content type (codex.md §5)."""
    return Stream.of(Reply(reply.expect(200).status, {"content-type": "text/event-stream"}, reply.pieces))


async def _asked(server: Server, *items: Json, optional: Sequence[str] = (), **fields: Json) -> Stream:
    """What comes for a request with these items. Codex stores nothing and takes streams alone.

    `optional` are parameters that a server may do without, if it says so: the rule does not apply then.
    """
    reply = await server.post(**{"input": list(items), "store": False, "stream": True, **fields})
    skip_if_refused(reply, tuple(optional))
    return _heard(reply)


def _ended(stream: Stream) -> Stream:
    """Raises Broken unless it comes to an end that Codex takes for one."""
    kinds = [event.kind for event in stream.events]
    expect("completed" in kinds, "a 'response.completed' in the stream", kinds[-1], at=stream.events[-1].raw)
    return stream


class _Done(Struct):
    """An item, as far as Codex acts on it."""

    type: str
    name: str | None = None
    namespace: str | None = None
    call_id: str | None = None
    execution: str | None = None
    arguments: object = None
    input: object = None
    encrypted_content: object = None


def _done(stream: Stream) -> list[tuple[Event, _Done]]:
    """The items that were done: Codex knows no others (codex.md §5)."""
    return [
        (event, read(_Done, event.item, "an item that is done"))
        for event in stream.events
        if event.kind == "output_item.done"
    ]


async def _call(server: Server, tool: Json) -> tuple[Event, _Done]:
    """The call that comes of a request with this tool alone, which has to be called.

    Raises NotApplicable when the server has no such tools, or makes no call.
    """
    stream = await _asked(server, codex.PROMPT, optional=TOOLS, tools=[tool], tool_choice="required")
    calls = [one for one in _done(stream) if one[1].type.endswith("_call")]
    if not calls:
        raise NotApplicable("no call was made, though one was required")
    return calls[0]


# What a request may have.


@chapter.rule
async def instructions_may_be_messages(server: Server) -> None:
    """There may be several developer messages, of several parts, in place of instructions.

    Source: Codex never sends instructions (codex.md §2, §3, §11).
    """
    more = codex.message("developer", "Skills: none.", "Permissions: all.", "Tools: none.", number=6)
    _ended(await _asked(server, codex.INSTRUCTIONS, more, codex.CONTEXT, codex.PROMPT))


@chapter.rule
async def items_may_have_an_id_a_status_and_a_phase(server: Server) -> None:
    """Messages may have ids the server never gave, and those of the assistant a status and a phase.

    Source: Codex gives every item an id (codex.md §3, §11).
    """
    said: Json = {
        "type": "message",
        "id": "msg_01a1fb44-0000-7000-8000-000000000009",
        "role": "assistant",
        "status": "completed",
        "phase": "final_answer",
        "content": [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}],
    }
    _ended(await _asked(server, codex.PROMPT, said, codex.message("user", "Once more.", number=4)))


@chapter.rule
async def fields_of_items_that_nobody_knows_are_taken(server: Server) -> None:
    """An item may carry `internal_chat_message_metadata_passthrough`, which nobody has to understand.

    Source: Codex adds it for a provider named OpenAI (codex.md §3, §11).
    """
    item: Json = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Say hello."}],
        "internal_chat_message_metadata_passthrough": {"turn_id": "t-1", "create_time": 1795216963},
    }
    _ended(await _asked(server, item))


class _Thought(Struct):
    """A reasoning item as Codex sends it back: with nulls for what it does not have."""

    type: str
    id: str | None = None
    summary: list[Raw] = []
    content: list[Raw] | None = None
    encrypted_content: str | None = None


@chapter.rule
async def reasoning_comes_back_with_nulls(server: Server) -> None:
    """A reasoning item is taken back with null for the content or the encrypted content it does not have.

    Source: Codex sends both, always (codex.md §3, §11).
    """
    question = codex.message("user", "Think about a greeting, then say hello.")
    stream = await _asked(server, question, include=codex.SEALED)
    items = [event.item for event in stream.events if event.kind == "output_item.done"]
    if not any(read(_Done, item, "an item").type == "reasoning" for item in items):
        raise NotApplicable("the model tells nothing of its reasoning")
    back = [
        Raw(msgspec.json.encode(read(_Thought, item, "a reasoning item")))
        if read(_Done, item, "an item").type == "reasoning"
        else item
        for item in items
    ]
    again = codex.message("user", "Once more.", number=2)
    _ended(await _asked(server, question, *back, again, include=codex.SEALED))


@chapter.rule
async def encrypted_reasoning_may_be_asked_for(server: Server) -> None:
    """A request may include `reasoning.encrypted_content`, whether there is any or not.

    Source: Codex always does (codex.md §2).
    """
    _ended(await _asked(server, codex.PROMPT, include=codex.SEALED, optional=("include",)))


@chapter.rule
async def reasoning_may_be_a_summary_alone(server: Server) -> None:
    """Reasoning may be asked for as a summary without an effort.

    Source: Codex does for models it does not know (codex.md §2).
    """
    _ended(await _asked(server, codex.PROMPT, reasoning={"summary": "auto"}, optional=("reasoning",)))


@chapter.rule
async def a_cache_key_is_any_text(server: Server) -> None:
    """The prompt_cache_key may be a text of a client's own making.

    Source: Codex sends the id of its thread, with a word before it for its reviews (codex.md §2).
    """
    _ended(await _asked(server, codex.PROMPT, prompt_cache_key="guardian:01a1fb44", optional=("prompt_cache_key",)))


@chapter.rule
async def client_metadata_is_taken_over_http(server: Server) -> None:
    """A request may carry `client_metadata`, a map of texts.

    Source: Codex always sends it (codex.md §2).
    """
    _ended(await _asked(server, codex.PROMPT, client_metadata=codex.METADATA))


@chapter.rule
async def tools_may_be_an_empty_list(server: Server) -> None:
    """A request may have no tools, and the tool choice "auto" and no parallel calls all the same.

    Source: Codex asks so for titles and for summaries (codex.md §2, §8).
    """
    fields: dict[str, Json] = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
    _ended(await _asked(server, codex.PROMPT, optional=tuple(fields), **fields))


@chapter.rule
async def headers_of_codex_are_taken(server: Server) -> None:
    """A request may come with the headers of Codex.

    Source: Codex (codex.md §2).
    """
    body = {"model": server.model, "input": [codex.PROMPT], "store": False, "stream": True}
    _ended(_heard(await server.send("POST", "/responses", msgspec.json.encode(body), headers=codex.HEADERS)))


# What a history may have.


def _history(output: Json) -> list[Json]:
    """A turn with two calls that were made at once, one without arguments, and then their outputs."""
    call: dict[str, Json] = {"type": "function_call", "name": "exec_command"}
    return [
        codex.PROMPT,
        {**call, "id": "fc_1", "call_id": "call_1", "arguments": '{"cmd":"ls"}'},
        {**call, "id": "fc_2", "call_id": "call_2", "arguments": ""},
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": output},
        {"type": "function_call_output", "id": "fco_2", "call_id": "call_2", "output": "aborted"},
    ]


@chapter.rule
async def all_calls_may_come_before_all_outputs(server: Server) -> None:
    """A history may have all calls of a response first and all outputs after them, and a call without arguments.

    Source: Codex sends them so (codex.md §3).
    """
    _ended(await _asked(server, *_history("Exit code: 0"), tools=[codex.SHELL], optional=TOOLS))


@chapter.rule
async def an_output_may_be_a_list(server: Server) -> None:
    """The output of a call may be a list of texts.

    Source: Codex sends those of MCP servers so (codex.md §3, §11).
    """
    parts: Json = [{"type": "input_text", "text": "Wall time: 0.1 seconds"}, {"type": "input_text", "text": "done"}]
    _ended(await _asked(server, *_history(parts), tools=[codex.SHELL], optional=TOOLS))


_OTHER_ITEMS: dict[str, Sequence[Json]] = {
    "searches for tools": (
        {
            "type": "tool_search_call",
            "id": "tsc_1",
            "call_id": "call_4",
            "execution": "client",
            "arguments": {"query": "pages", "limit": 8},
        },
        {
            "type": "tool_search_output",
            "id": "tso_1",
            "call_id": "call_4",
            "execution": "client",
            "status": "completed",
            "tools": [codex.DOCS],
        },
    ),
    "agents": (
        {
            "type": "agent_message",
            "id": "amsg_1",
            "author": "/root/helper",
            "recipient": "/root",
            "content": [{"type": "input_text", "text": "All is done."}],
        },
    ),
    "settings": ({"type": "configuration_update", "reasoning": {"effort": "low"}},),
}


async def _with_items(server: Server, kind: str, *tools: Json) -> None:
    items = (codex.PROMPT, *_OTHER_ITEMS[kind], codex.message("user", "Go on.", number=5))
    _ended(await _asked(server, *items, tools=[codex.SHELL, *tools], optional=(*TOOLS, *_INPUT)))


@chapter.rule
async def a_history_may_have_searches_for_tools(server: Server) -> None:
    """A history may have a tool_search_call and an output with the tools that were found.

    Source: Codex finds the tools of MCP servers so (codex.md §3, §4).
    """
    await _with_items(server, "searches for tools", codex.TOOL_SEARCH)


@chapter.rule
async def a_history_may_have_words_of_other_agents(server: Server) -> None:
    """A history may have an agent_message.

    Source: Codex sends what its agents say to each other (codex.md §3, §11).
    """
    await _with_items(server, "agents")


@chapter.rule
async def a_history_may_have_updates_of_settings(server: Server) -> None:
    """A history may have a configuration_update.

    Source: Codex sends it when the effort changes (codex.md §3, §11).
    """
    await _with_items(server, "settings")


@chapter.rule
async def tools_may_come_as_an_item(server: Server) -> None:
    """The tools may be an item additional_tools, and there is no parameter `tools` then.

    Source: Codex for its own newest models (codex.md §3, §4, §11).
    """
    item = codex.additional_tools(codex.SHELL, codex.DOCS)
    _ended(await _asked(server, item, codex.PROMPT, optional=_INPUT))


# Tools that are no functions.


@chapter.rule
async def a_web_search_may_be_declared(server: Server) -> None:
    """The tool web_search may stand beside functions, with `external_web_access`.

    Source: Codex declares it unless told otherwise (codex.md §4, §11).
    """
    _ended(await _asked(server, codex.PROMPT, tools=[codex.SHELL, codex.WEB_SEARCH], optional=TOOLS))


@chapter.rule
async def a_call_names_its_namespace(server: Server) -> None:
    """A function that is declared in a namespace is called by its bare name, with the namespace beside it.

    Source: Codex does not find it otherwise (codex.md §4, §11).
    """
    event, call = await _call(server, codex.DOCS)
    named = (call.type, call.namespace, call.name)
    expect_equal("type, namespace and name", ("function_call", "mcp__docs", "list_pages"), named, at=event.raw)
    expect(call.call_id and isinstance(call.arguments, str), "a call_id and arguments that are a text", call)


@chapter.rule
async def a_free_form_tool_is_called_with_a_text(server: Server) -> None:
    """A custom tool is called by a custom_tool_call, with its name, a call_id and a text as its input.

    Source: Codex takes no other kind of call for it (codex.md §4, §11).
    """
    event, call = await _call(server, codex.FREE)
    expect_equal("type and name", ("custom_tool_call", "apply_patch"), (call.type, call.name), at=event.raw)
    expect(call.call_id and isinstance(call.input, str), "a call_id and an input that is a text", call)


@chapter.rule
async def a_search_for_tools_is_left_to_the_client(server: Server) -> None:
    """The tool tool_search is called by a tool_search_call, with the execution "client", a call_id and an object as its
    arguments.

    Source: Codex ignores it otherwise (codex.md §4, §11).
    """
    event, call = await _call(server, codex.TOOL_SEARCH)
    expect_equal("type and execution", ("tool_search_call", "client"), (call.type, call.execution), at=event.raw)
    expect(call.call_id and isinstance(call.arguments, dict), "a call_id and arguments that are an object", call)


# Compaction.


async def _compacted(server: Server) -> Raw:
    """The compaction of a short conversation."""
    items = (codex.INSTRUCTIONS, codex.PROMPT, {"type": "compaction_trigger"})
    stream = _ended(await _asked(server, *items, optional=_INPUT))
    found = [event for event, item in _done(stream) if item.type in ("compaction", "compaction_summary")]
    expect(len(found) == 1, "exactly one compaction", f"{len(found)} of {len(_done(stream))} items")
    return found[0].item


@chapter.rule
async def a_trigger_gives_one_compaction(server: Server) -> None:
    """A request that ends with a compaction_trigger is answered with exactly one compaction, and that has a text as its
    encrypted content.

    Source: Codex fails otherwise (codex.md §8, §11).
    """
    item = read(_Done, await server.once(_compacted), "a compaction")
    expect(isinstance(item.encrypted_content, str), "an encrypted_content that is a text", item)


@chapter.rule
async def a_compaction_is_taken_back(server: Server) -> None:
    """A compaction is accepted as input, as it came.

    Source: Codex begins the next window with it (codex.md §3, §8).
    """
    _ended(await _asked(server, codex.INSTRUCTIONS, await server.once(_compacted), codex.PROMPT))


# Whole requests.


async def _whole(server: Server, request: dict[str, Json], *optional: str) -> None:
    body = msgspec.json.encode({"model": server.model, **request})
    reply = await server.send("POST", "/responses", body, headers=codex.HEADERS)
    skip_if_refused(reply, (*TOOLS, "reasoning", *optional))
    _ended(_heard(reply))


_FIRST = (codex.INSTRUCTIONS, codex.CONTEXT, codex.PROMPT)


@chapter.rule
async def a_plain_request_is_answered(server: Server) -> None:
    """The whole first request for a model that Codex does not know is answered.

    Source: Codex (codex.md §2 to §4).
    """
    await _whole(server, codex.plain(_FIRST))


@chapter.rule
async def a_classic_request_is_answered(server: Server) -> None:
    """The whole first request for a model that Codex knows is answered.

    Source: Codex (codex.md §2 to §4).
    """
    await _whole(server, codex.classic(_FIRST), "text")


@chapter.rule
async def a_lite_request_is_answered(server: Server) -> None:
    """The whole first request for a model with code mode is answered.

    Source: Codex (codex.md §2 to §4).
    """
    await _whole(server, codex.lite(_FIRST), "text", "input")


@chapter.rule
async def a_compressed_request_is_read(server: Server) -> None:
    """A body that is compressed with zstd, and says so, is read.

    Source: Codex sends them when it is logged in with an account (codex.md §2).
    """
    body = msgspec.json.encode({"model": server.model, "input": [codex.PROMPT], "store": False, "stream": True})
    headers = {"content-encoding": "zstd"}
    reply = await server.send("POST", "/responses", zstandard.ZstdCompressor().compress(body), headers=headers)
    if 400 <= reply.status < 500:
        raise NotApplicable(f"the server reads no zstd: {reply.excerpt}")
    _ended(_heard(reply))


# What else an answer must not do, and the catalogue.


@chapter.rule
async def no_other_model_is_named_in_a_header(server: Server) -> None:
    """A header openai-model names the model that was asked for, if it is there at all.

    Source: Codex warns its user of a flagged account otherwise (codex.md §5, §11).
    """
    reply = await server.post(input=[codex.PROMPT], store=False, stream=True)
    expect_equal("openai-model", server.model, reply.headers.get("openai-model", server.model))


class _Limit(Struct):
    mode: str
    limit: int


class _Level(Struct):
    effort: str
    description: str


class _Entry(Struct):
    slug: str
    display_name: str
    supported_reasoning_levels: list[_Level]
    shell_type: str
    visibility: str
    supported_in_api: bool
    priority: int
    support_verbosity: bool
    truncation_policy: _Limit
    experimental_supported_tools: list[str]


class _Catalogue(Struct):
    models: list[_Entry] | None = None


@chapter.rule
async def a_catalogue_has_whole_entries(server: Server) -> None:
    """Where the list of models has a catalogue for Codex, every entry of it has the fields Codex needs.

    Source: Codex drops the whole answer for one bad entry (codex.md §6).
    """
    reply = await server.get("/models", client_version="0.169.0")
    if b'"models"' not in reply.body:
        raise NotApplicable("the list of models has no catalogue for Codex")
    read(_Catalogue, reply.expect(200).body, "a catalogue")


# Over a WebSocket.


@chapter.needing(WEBSOCKET)
async def a_socket_opens_for_codex(server: Server) -> None:
    """A socket opens for the headers of Codex and its offer to compress frames, and answers its whole first request.

    Source: Codex (codex.md §7).
    """
    async with talking(server, headers=codex.UPGRADE, compressed=True) as talk:
        turn = await talk.ask(**codex.plain(_FIRST))
        _completed(turn.unless_refused(*TOOLS, "reasoning"))


def _completed(turn: Turn) -> Answer:
    expect_equal("the end", "response.completed", turn.end.type, at=turn.end.raw)
    return turn.answer


@chapter.needing(WEBSOCKET, WARM_UP)
async def a_turn_goes_on_from_a_warm_up(server: Server) -> None:
    """A connection begins with a warm-up of the instructions and tools; the turn, and the outputs of its calls after
    it, name what came before and send nothing twice.

    Source: Codex (codex.md §7).
    """
    async with talking(server, headers=codex.UPGRADE) as talk:
        warmed = await talk.ask(**codex.plain([codex.INSTRUCTIONS]), generate=False)
        before = _completed(warmed.unless_refused(*TOOLS, "reasoning"))
        for items in ([codex.CONTEXT, codex.PROMPT], [codex.message("user", "Once more.", number=4)]):
            before = await _next(talk, before, items)
            if before.calls:
                outputs: list[Json] = [
                    {"type": "function_call_output", "call_id": call.call_id, "output": "Exit code: 0"}
                    for call in before.calls
                ]
                before = await _next(talk, before, outputs)


async def _next(talk: Talk, before: Answer, items: Sequence[Json]) -> Answer:
    turn = await talk.ask(**codex.plain(items), previous_response_id=before.id)
    expect_equal("previous_response_id", before.id, _completed(turn).previous_response_id)
    return turn.answer


@chapter.needing(WEBSOCKET, WARM_UP)
async def a_warm_up_may_be_empty(server: Server) -> None:
    """A warm-up may have no input at all, and a turn goes on from it.

    Source: Codex for its own newest models (codex.md §7).
    """
    async with talking(server, headers=codex.UPGRADE) as talk:
        warmed = _completed(await talk.ask(input=[], store=False, stream=True, generate=False))
        _completed(await talk.ask(input=[codex.PROMPT], store=False, stream=True, previous_response_id=warmed.id))


@chapter.needing(WEBSOCKET)
async def a_fault_that_stays_is_status_400(server: Server) -> None:
    """A model that is not there is status 400 over a socket, or 404 with the code model_not_found.

    Source: Codex tries any other status again, for a long time (codex.md §9, §11).
    """
    async with talking(server, headers=codex.UPGRADE) as talk:
        end = (await talk.ask(input=[codex.PROMPT], model="no-such-model-here", store=False)).end
        fine = end.status == 400 or (end.status == 404 and b"model_not_found" in end.raw)
        expect(fine, "status 400, or 404 and model_not_found", end.raw.decode()[:200], at=end.raw)


class _Cached(Struct):
    cached_tokens: int


class _Reasoned(Struct):
    reasoning_tokens: int


class _Usage(Struct):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Reasoned | None = None


class _End(Struct):
    id: str
    usage: _Usage | None = None


@chapter.needing(WEBSOCKET)
async def usage_is_whole_where_there_is_any(server: Server) -> None:
    """The response at the end has an id, and its usage, if it tells one, is whole: with cached tokens where there are
    details of the input, and reasoning tokens where there are of the output.

    Source: Codex takes the stream for broken otherwise (codex.md §5, §11).
    """
    async with talking(server, headers=codex.UPGRADE) as talk:
        turn = await talk.ask(input=[codex.PROMPT], store=False, stream=True)
        read(_End, turn.end.response, "the response at the end")


@chapter.needing(WEBSOCKET)
async def an_interrupt_leaves_an_end(server: Server) -> None:
    """After response.interrupt the response still ends, completed or incomplete, or with an error that has a status;
    and what ended can be continued.

    Source: Codex waits for one of these (codex.md §7).
    """
    async with talking(server, headers=codex.UPGRADE) as talk:
        await talk.socket.create(input="Count slowly from one to two hundred, in words.", store=False)
        first = await talk.until("response.created", "error")
        begun = read(_Begun, first.raw, "a 'response.created'").response.id
        frame = {"type": "response.interrupt", "response_id": begun, "mode": "discard_partial_items"}
        await talk.socket.send(msgspec.json.encode(frame))
        try:
            end = Turn(await talk.messages(1)).end
        except NoAnswer:
            if talk.socket.close_code is None:
                raise
            raise NotApplicable("the server ends the connection, and Codex begins another one") from None
        if end.type == "error":
            expect(isinstance(end.status, int), "an error with a status", end.raw.decode()[:200], at=end.raw)
            return
        expect(end.type != "response.failed", "an end that is no failure", end.raw.decode()[:200], at=end.raw)
        _completed(await talk.ask(input=[codex.PROMPT], store=False, previous_response_id=begun))


class _Id(Struct):
    id: str


class _Begun(Struct):
    response: _Id


# The program itself.


@chapter.rule
async def codex_comes_to_an_end(server: Server) -> None:
    """The Codex program, asked to run a command, ends its turn without an error and without asking twice.

    Source: Codex (codex.md §10).
    """
    ran = await server.run_codex("Run `echo hello` with your shell tool, then say what it printed.")
    expect_equal("the exit status", 0, ran.status, at=ran.printed)
    events = [line for line in ran.printed.splitlines() if line.startswith(b"{")]
    kinds = [read(_Told, event, "an event of Codex").type for event in events]
    expect("turn.completed" in kinds, "a 'turn.completed' among its events", kinds, at=ran.printed)
    # What it prints of a request that it sends again is an event of this type.
    expect("error" not in kinds, "no 'error' among its events", kinds, at=ran.printed)


class _Told(Struct):
    type: str

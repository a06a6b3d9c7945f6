from collections.abc import Callable

import pytest

from rejoinder.conformance import codex
from rejoinder.conformance.about_codex import chapter
from rejoinder.conformance.program import Ran
from rejoinder.conformance.server import Server
from rejoinder.conformance.verdict import Verdict, judge
from tests.conformance.judging import Mutants, broken, every, judged, refusing
from tests.conformance.little_program import CACHE_KEY
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer, Refused
from tests.conformance.little_session import URL, reaching
from tests.conformance.spoken import deaf, errors, saying


def items(it: Exchange) -> list[Json]:
    given = it.body.get("input")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def kinds(it: Exchange) -> list[Json]:
    return [item.get("type") for item in items(it)]


def tools(it: Exchange) -> list[Json]:
    given = it.body.get("tools")
    return [tool.get("name", tool.get("type")) for tool in given if isinstance(tool, dict)] if given else []


def bare(it: Exchange) -> bool:
    """Whether it has the prompt of Codex and nothing before it."""
    return bool(it.body.get("input") == [codex.PROMPT])


def whole(it: Exchange) -> bool:
    return bool(it.body.get("prompt_cache_key") == codex.THREAD)


def having(kind: str, *, in_a_whole: bool = False) -> Callable[[Exchange], bool]:
    return lambda it: kind in kinds(it) and whole(it) == in_a_whole


def developers(it: Exchange) -> int:
    return sum(item.get("type") == "message" and item.get("role") == "developer" for item in items(it))


def outputs(it: Exchange) -> list[Json]:
    return [item["output"] for item in items(it) if item.get("id") == "fco_1"]


def is_named(it: Exchange) -> bool:
    return bare(it) and "prompt_cache_key" not in it.body


def calls(kind: str, change: Callable[[Json], object]) -> Fault:
    """Changes the calls of this kind when they are done."""

    def told(it: Exchange) -> None:
        for event in it.of("output_item.done") if bare(it) else ():
            if event["item"]["type"] == kind:
                change(event["item"])

    return Fault(told=told)


def flattened(call: Json) -> None:
    call["name"] = f"{call.pop('namespace')}__{call['name']}" if "namespace" in call else call["name"]


def is_triggered(it: Exchange) -> bool:
    return "compaction_trigger" in kinds(it) and developers(it) > 0


def two_compactions(it: Exchange) -> None:
    if is_triggered(it):
        it.events = [event for event in it.events for _ in range(1 + (event["type"] == "response.output_item.done"))]


def unsealed(it: Exchange) -> None:
    for event in it.of("output_item.done") if is_triggered(it) else ():
        event["item"]["encrypted_content"] = 7


def has_taken_back(it: Exchange) -> bool:
    return "compaction" in kinds(it) and developers(it) > 0


def no_zstd(it: Exchange) -> None:
    if "zstd" in it.came_with.get("content-encoding", ""):
        raise Refused("no", status=500)


def another_model(it: Exchange) -> None:
    it.headers["openai-model"] = "large"


def without_a_slug(it: Exchange) -> None:
    if it.path == "/models":
        for model in it.told.get("models", []):
            model.pop("slug")


def half_a_usage(it: Exchange) -> None:
    for event in it.of("completed"):
        event["response"]["usage"]["input_tokens_details"] = {}


def failed(it: Exchange) -> None:
    for event in it.events:
        if event["type"] == "response.incomplete":
            event["type"] = "response.failed"


def interrupted(it: Exchange) -> bool:
    return str(it.body.get("input")).startswith("Count slowly") and "instructions" not in it.body


MUTANTS: Mutants = {
    "one developer may speak": (refusing(lambda it: developers(it) > 1), {"codex.instructions-may-be-messages"}),
    "ids are given by the server": (
        refusing(lambda it: any("id" in item and "phase" in item for item in items(it))),
        {"codex.items-may-have-an-id-a-status-and-a-phase"},
    ),
    "a field nobody knows is refused": (
        refusing(lambda it: "internal_chat_message_metadata_passthrough" in str(it.body)),
        {"codex.fields-of-items-that-nobody-knows-are-taken"},
    ),
    "no content is refused": (
        refusing(lambda it: any("content" in item and item["content"] is None for item in items(it))),
        {"codex.reasoning-comes-back-with-nulls"},
    ),
    "encrypted reasoning is refused": (
        refusing(lambda it: is_named(it) and "include" in it.body),
        {"codex.encrypted-reasoning-may-be-asked-for"},
    ),
    "reasoning needs an effort": (
        refusing(lambda it: is_named(it) and "reasoning" in it.body),
        {"codex.reasoning-may-be-a-summary-alone"},
    ),
    "a cache key is a UUID": (
        refusing(lambda it: str(it.body.get("prompt_cache_key")).startswith("guardian")),
        {"codex.a-cache-key-is-any-text"},
    ),
    "metadata of a client is refused": (
        refusing(lambda it: is_named(it) and "client_metadata" in it.body),
        {"codex.client-metadata-is-taken-over-http"},
    ),
    "no tools are refused": (
        refusing(lambda it: is_named(it) and it.body.get("tools") == []),
        {"codex.tools-may-be-an-empty-list"},
    ),
    "headers of Codex are refused": (
        refusing(lambda it: is_named(it) and "originator" in it.came_with),
        {"codex.headers-of-codex-are-taken"},
    ),
    "outputs follow their calls": (
        refusing(lambda it: any(isinstance(output, str) for output in outputs(it))),
        {"codex.all-calls-may-come-before-all-outputs"},
    ),
    "a list of texts is refused": (
        refusing(lambda it: "Wall time" in str(outputs(it))),
        {"codex.an-output-may-be-a-list"},
    ),
    "searches for tools are refused": (
        refusing(lambda it: "tsc_1" in str(items(it))),
        {"codex.a-history-may-have-searches-for-tools"},
    ),
    "words of agents are refused": (
        refusing(having("agent_message")),
        {"codex.a-history-may-have-words-of-other-agents"},
    ),
    "updates of settings are refused": (
        refusing(having("configuration_update")),
        {"codex.a-history-may-have-updates-of-settings"},
    ),
    "tools as an item are refused": (
        refusing(lambda it: having("additional_tools")(it) and "exec_command" in str(items(it))),
        {"codex.tools-may-come-as-an-item"},
    ),
    "a web search is refused": (
        refusing(lambda it: is_named(it) and "web_search" in tools(it)),
        {"codex.a-web-search-may-be-declared"},
    ),
    "namespaces are flattened": (calls("function_call", flattened), {"codex.a-call-names-its-namespace"}),
    "a free-form call is one of a function": (
        calls("custom_tool_call", lambda call: call.update(type="function_call")),
        {"codex.a-free-form-tool-is-called-with-a-text"},
    ),
    "a free-form call has an object": (
        calls("custom_tool_call", lambda call: call.update(input={"text": "hello"})),
        {"codex.a-free-form-tool-is-called-with-a-text"},
    ),
    "nobody searches for tools": (
        calls("tool_search_call", lambda call: call.pop("execution")),
        {"codex.a-search-for-tools-is-left-to-the-client"},
    ),
    "a search has a text": (
        calls("tool_search_call", lambda call: call.update(arguments="{}")),
        {"codex.a-search-for-tools-is-left-to-the-client"},
    ),
    "a compaction is not sealed": (Fault(told=unsealed), {"codex.a-trigger-gives-one-compaction"}),
    "there are two compactions": (
        Fault(told=two_compactions),
        {"codex.a-trigger-gives-one-compaction", "codex.a-compaction-is-taken-back"},
    ),
    "a compaction is not taken back": (refusing(has_taken_back), {"codex.a-compaction-is-taken-back"}),
    "a plain request is refused": (
        refusing(lambda it: whole(it) and "write_stdin" in tools(it) and "multi_agent_v1" in tools(it)),
        {"codex.a-plain-request-is-answered"},
    ),
    "a classic request is refused": (
        refusing(lambda it: whole(it) and "apply_patch" in tools(it)),
        {"codex.a-classic-request-is-answered"},
    ),
    "a lite request is refused": (
        refusing(having("additional_tools", in_a_whole=True)),
        {"codex.a-lite-request-is-answered"},
    ),
    "zstd is a surprise": (Fault(asked=no_zstd), {"codex.a-compressed-request-is-read"}),
    "another model answers": (Fault(told=another_model), {"codex.no-other-model-is-named-in-a-header"}),
    "an entry of the catalogue is not whole": (Fault(told=without_a_slug), {"codex.a-catalogue-has-whole-entries"}),
    "a first request over a socket is refused": (
        deaf(lambda it: whole(it) and len(items(it)) == 3),
        {"codex.a-socket-opens-for-codex"},
    ),
    "a turn after a warm-up is refused": (
        deaf(lambda it: whole(it) and len(items(it)) == 2),
        {"codex.a-turn-goes-on-from-a-warm-up"},
    ),
    "an empty warm-up is refused": (
        deaf(lambda it: it.body.get("generate") is False and it.body["input"] == []),
        {"codex.a-warm-up-may-be-empty"},
    ),
    "a fault that stays is another status": (
        saying(
            lambda it: it.body.get("model") == "no-such-model-here" and items(it),
            errors(lambda event: event.update(status=422)),
        ),
        {"codex.a-fault-that-stays-is-status-400"},
    ),
    "usage is not whole": (
        saying(lambda it: bare(it) and "previous_response_id" not in it.body, half_a_usage),
        {"codex.usage-is-whole-where-there-is-any"},
    ),
    "an interrupt is a failure": (saying(interrupted, failed), {"codex.an-interrupt-leaves-an-end"}),
    "Codex does not come through": (
        refusing(lambda it: it.body.get("prompt_cache_key") == CACHE_KEY),
        {"codex.codex-comes-to-an-end"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_server_without_tools_is_not_asked_for_their_kinds() -> None:
    found, lacking = await judged(chapter, Fault(), refuses="tools")
    assert found == set()
    assert lacking == {
        "codex.tools-may-be-an-empty-list",
        "codex.all-calls-may-come-before-all-outputs",
        "codex.an-output-may-be-a-list",
        "codex.a-history-may-have-searches-for-tools",
        "codex.a-history-may-have-words-of-other-agents",
        "codex.a-history-may-have-updates-of-settings",
        "codex.a-web-search-may-be-declared",
        "codex.a-call-names-its-namespace",
        "codex.a-free-form-tool-is-called-with-a-text",
        "codex.a-search-for-tools-is-left-to-the-client",
        "codex.a-plain-request-is-answered",
        "codex.a-classic-request-is-answered",
        "codex.a-socket-opens-for-codex",
        "codex.a-turn-goes-on-from-a-warm-up",
    }


async def test_a_server_may_know_no_items_but_its_own() -> None:
    named = {"agent_message", "configuration_update", "additional_tools", "compaction_trigger"}
    _, lacking = await judged(chapter, refusing(lambda it: named & {*kinds(it)}, "input[1]"))
    assert lacking == {
        "codex.a-history-may-have-words-of-other-agents",
        "codex.a-history-may-have-updates-of-settings",
        "codex.tools-may-come-as-an-item",
        "codex.a-trigger-gives-one-compaction",
        "codex.a-compaction-is-taken-back",
        "codex.a-lite-request-is-answered",
    }


async def test_what_the_model_does_not_do_is_not_asked_of_it() -> None:
    def told(it: Exchange) -> None:
        it.events = [event for event in it.events if "reasoning" not in str(event.get("item"))]

    def asked(it: Exchange) -> None:
        if "tool_choice" in it.body:
            it.body["tool_choice"] = "auto"

    assert await judged(chapter, Fault(asked=asked, told=told)) == (
        set(),
        {
            "codex.reasoning-comes-back-with-nulls",
            "codex.a-call-names-its-namespace",
            "codex.a-free-form-tool-is-called-with-a-text",
            "codex.a-search-for-tools-is-left-to-the-client",
        },
    )


async def test_a_server_without_zstd_and_a_catalogue_breaks_nothing() -> None:
    def asked(it: Exchange) -> None:
        if "content-encoding" in it.came_with:
            raise Refused("no", status=415)

    def told(it: Exchange) -> None:
        if it.path == "/models":
            it.told.pop("models")

    assert await judged(chapter, Fault(asked=asked, told=told)) == (
        set(),
        {"codex.a-compressed-request-is-read", "codex.a-catalogue-has-whole-entries"},
    )


async def test_calls_of_a_turn_are_answered_with_outputs_alone() -> None:
    def heard(it: Exchange) -> None:
        if whole(it) and it.body.get("generate") is not False and "function_call_output" not in kinds(it):
            it.body["tool_choice"] = "required"

    assert await judged(chapter, Fault(heard=heard)) == (set(), set())


async def test_an_interrupt_may_be_an_error_or_the_end_of_the_connection() -> None:
    def strange(it: Exchange) -> None:
        if it.body.get("type") == "response.interrupt":
            raise Refused("no such type", "type")

    assert await judged(chapter, Fault(heard=strange)) == (set(), set())

    def closing(it: Exchange) -> None:
        if it.body.get("type") == "response.interrupt":
            it.events = [None]

    assert await judged(chapter, Fault(heard=strange, said=closing)) == (set(), {"codex.an-interrupt-leaves-an-end"})


async def verdict_on(name: str, fault: Fault, **program: Ran) -> Verdict:
    """The verdict of somebody who waits for a moment only."""

    async def ran(prompt: str, *, url: str, model: str, key: str | None, timeout: float) -> Ran:
        return program["ran"]

    [rule] = [rule for rule in chapter if rule.id == name]
    codex_program = ran if program else None
    return await judge(
        rule, Server(reaching(LittleServer(fault), timeout=0.2), URL, MODEL, key=None, codex=codex_program)
    )


async def test_who_never_ends_after_an_interrupt_breaks_the_rule() -> None:
    def said(it: Exchange) -> None:
        if interrupted(it):
            it.events = []

    verdict = await verdict_on("codex.an-interrupt-leaves-an-end", Fault(said=said))
    assert (verdict.outcome, verdict.reason) == ("broken", "expected a frame in time, got none")


async def test_without_the_program_nothing_is_said_of_it() -> None:
    verdict = await verdict_on("codex.codex-comes-to-an-end", Fault())
    assert (verdict.outcome, verdict.reason) == ("not_applicable", "no Codex program was given")


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (b'{"type":"turn.started"}', "expected a 'turn.completed' among its events, got ['turn.started']"),
        (
            b'warning\n{"type":"error","message":"Reconnecting... 1/5"}\n{"type":"turn.completed"}\n',
            "expected no 'error' among its events, got ['error', 'turn.completed']",
        ),
    ],
)
async def test_codex_is_to_end_and_not_to_ask_twice(printed: bytes, told: str) -> None:
    verdict = await verdict_on("codex.codex-comes-to-an-end", Fault(), ran=Ran(0, printed))
    assert (verdict.outcome, verdict.reason) == ("broken", told)

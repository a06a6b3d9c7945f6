"""The real Codex through every dialect, against strict scripted providers (issue 3, "Shown by").

The same test runs for every protocol: `Model` says in its words what a model of that protocol says, and `spoken` reads
what its provider was told. A provider remembers what it gave and refuses what has changed, so every one of these tests
also says that its state came back as it was.

Needs the program: set REJOINDER_CODEX to the path of a `codex` executable.
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from pathlib import Path

import msgspec
import pytest

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.anthropic_script import citation, cited, found, search_results, server_call
from rejoinder.conformance.upstreams.anthropic_strictness import BOUND
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.gemini_script import Support, grounding, part
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.responses_script import compaction, custom_call, item, message
from rejoinder.conformance.upstreams.script import (
    Asked,
    HttpError,
    Part,
    Step,
    ToolCall,
    Trouble,
    Usage,
    answer,
    call,
    calls,
    refusal,
    text,
    thought,
)
from rejoinder.conformance.upstreams.sent import SentRequest
from tests.clients.codex import Codex, CodexRun, McpServer, Shape
from tests.clients.relay import Relay
from tests.clients.spoken import Dialect, Spoken, offered, spoken
from tests.live import LiveServer, LiveUpstream, running

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not os.environ.get("REJOINDER_CODEX"), reason="REJOINDER_CODEX does not name a codex program"),
]

KEY = "codex-key"
UPSTREAM_KEY = "upstream-key"
WEATHER = McpServer("weather", (sys.executable, str(Path(__file__).parent / "weather.py")))

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

SEALED, SEALED_TOO, THEIRS = "c2VhbGVkIG9uY2U=", "c2VhbGVkIHR3aWNl", "c2VhbGVkIGVsc2V3aGVyZQ=="
"""What a provider signs its reasoning with."""

Upstream = ChatUpstream | AnthropicUpstream | GeminiUpstream | ResponsesUpstream


@dataclass(frozen=True, slots=True)
class Model:
    """A model behind one protocol, and how it says what means the same in all of them."""

    id: str
    dialect: Dialect
    name: str

    @property
    def careful(self) -> str:
        """The same model where free-form calls are held to their grammar."""
        return f"{self.name}-careful"

    @property
    def is_native(self) -> bool:
        """Its provider speaks this API itself."""
        return self.dialect == "responses"

    def calls(self, name: str, arguments: Mapping[str, str], *, id: str, namespace: str | None = None) -> Part:
        if namespace is None or not self.is_native:
            return calls(called(name if namespace is None else f"{namespace}__{name}", arguments, id=id))
        told = {"call_id": id, "namespace": namespace, "name": name, "arguments": json.dumps(arguments)}
        return item({"id": f"fc_{id}", "type": "function_call", "status": "completed", **told})

    def writes(self, tool: str, words: str, *, id: str) -> Part:
        """A call of a free-form tool."""
        if self.is_native:
            return custom_call(tool, *pieces(words), id=id)
        return calls(called(tool, {"input": words}, id=id))

    def runs(self, shape: Shape, command: str, *, id: str) -> Part:
        """How a command is run: by a tool of its own, or by a program that calls the tool (codex.md §4, lite)."""
        if shape == "lite":
            program = f"const r = await tools.exec_command({{cmd: {json.dumps(command)}}}); text(r.output)"
            return self.writes("exec", program, id=id)
        return calls(called("exec_command", {"cmd": command}, id=id))

    def looks_for_tools(self, query: str, *, id: str) -> Part:
        if not self.is_native:
            return calls(called("tool_search", {"query": query}, id=id))
        told: Mapping[str, Json] = {"call_id": id, "execution": "client", "arguments": {"query": query}}
        return item({"id": f"tsc_{id}", "type": "tool_search_call", "status": "completed", **told})

    def searches(self, query: str, *, page: str, says: str) -> list[Part]:
        """A search of the provider's own, and a text that goes back to what it found."""
        match self.dialect:
            case "anthropic":
                return [
                    server_call("web_search", *pieces(json.dumps({"query": query}))),
                    search_results(found(page)),
                    cited(says, by=citation(page)),
                ]
            case "gemini":
                asked: Mapping[str, Json] = {"queries": [query]}
                kind: Mapping[str, Json] = {"id": "search-1", "toolType": "GOOGLE_SEARCH_WEB"}
                return [
                    part({"toolCall": {**kind, "args": asked}, "thoughtSignature": SEALED}),
                    part({"toolResponse": {**kind, "response": {}}, "thoughtSignature": SEALED_TOO}),
                    text(says),
                    grounding(query, pages=[(page, "A page")], supports=[Support(0, len(says), says)]),
                ]
            case "responses":
                action = {"type": "search", "query": query, "queries": [query]}
                place: Mapping[str, Json] = {"start_index": 0, "end_index": len(says)}
                cites: Mapping[str, Json] = {"type": "url_citation", "url": page, "title": "A page", **place}
                return [
                    item({"type": "web_search_call", "status": "completed", "action": action}),
                    message(says, annotations=(cites,)),
                ]
            case "chat":
                raise AssertionError("there is no search behind this protocol")

    def sealed(self, words: str, signature: str) -> Spoken:
        """What comes back of a thought."""
        return Spoken("state", words if self.dialect == "chat" else signature)


CHAT = Model("chat", "chat", "my-model")
ANTHROPIC = Model("anthropic", "anthropic", "claude-sonnet-4-5")
BOUND_ANTHROPIC = Model("anthropic, bound", "anthropic", "claude-opus-5-5")
GEMINI = Model("gemini", "gemini", "gemini-3-flash")
OLD_GEMINI = Model("gemini 2.5", "gemini", "gemini-2.5-flash")
RESPONSES = Model("responses", "responses", "their-model")

DIALECTS = (CHAT, ANTHROPIC, GEMINI, RESPONSES)
MODELS = (CHAT, ANTHROPIC, BOUND_ANTHROPIC, GEMINI, OLD_GEMINI, RESPONSES)


def for_each(*models: Model) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("model", models, ids=lambda model: model.id)


VENDORS: Mapping[Dialect, Mapping[str, str]] = {
    "chat": {},
    "anthropic": {"vendor": "anthropic"},
    "gemini": {"vendor": "gemini"},
    "responses": {"vendor": "openai"},
}
"""On loopback a server is taken for a compatible one, unless one says whose it is."""

every_dialect = for_each(*DIALECTS)
every_model = for_each(*MODELS)
with_function_tools = pytest.mark.parametrize("shape", ["plain", "classic"])


def provider_of(model: Model) -> Upstream:
    match model.dialect:
        case "chat":
            return ChatUpstream(key=UPSTREAM_KEY)
        case "anthropic" if model is BOUND_ANTHROPIC:
            return AnthropicUpstream(key=UPSTREAM_KEY, strictness=BOUND)
        case "anthropic":
            return AnthropicUpstream(key=UPSTREAM_KEY)
        case "gemini":
            return GeminiUpstream(key=UPSTREAM_KEY)
        case "responses":
            return ResponsesUpstream(key=UPSTREAM_KEY)


@dataclass(frozen=True, slots=True)
class Desk:
    """A place to run Codex at, with a provider that does what the test says."""

    directory: Path
    home: Path
    server: LiveServer
    model: Model
    upstream: Upstream
    relay: Relay | None = None
    """What stands in front of the server when it is to be reached over WebSockets."""

    @property
    def workdir(self) -> Path:
        work = self.directory / "work"
        work.mkdir(exist_ok=True)
        return work

    def codex(self, shape: Shape = "plain") -> Codex:
        base_url = (self.relay or self.server).base_url
        over_socket = self.relay is not None
        return Codex(self.home, base_url, shape=shape, model=self.model.name, key=KEY, websocket=over_socket)

    def run(
        self,
        codex: Codex,
        script: Sequence[Step[Asked]] | Callable[[Asked], Step[Asked]],
        *,
        prompt: str = "do it",
        resume: str | None = None,
        images: Sequence[Path] = (),
    ) -> CodexRun:
        self.upstream.follow(script)
        return codex.exec(prompt, workdir=self.workdir, resume=resume, images=images)

    def sent(self) -> list[SentRequest]:
        """What the provider was asked so far, in order. It had no objections."""
        assert self.upstream.objections == []
        return self.upstream.requests

    def told(self) -> list[list[Spoken]]:
        return [spoken(request, self.model.dialect) for request in self.sent()]

    def offered(self) -> list[list[str]]:
        return [offered(request, self.model.dialect) for request in self.sent()]


@dataclass(frozen=True, slots=True)
class House:
    """One server with every provider behind it. Codex fills a new home with databases, so there is one for all."""

    home: Path
    server: LiveServer
    providers: Mapping[str, Upstream]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with ExitStack() as stack:
        providers = {model.id: provider_of(model) for model in MODELS}
        for provider in providers.values():
            stack.enter_context(provider)
        upstreams = [
            upstream
            for number, model in enumerate(MODELS)
            for upstream in upstreams_of(model, providers[model.id].base_url, number)
        ]
        directory = tmp_path_factory.mktemp("codex-dialects")
        server = stack.enter_context(running(directory, upstreams=upstreams, keys={"alice": KEY}))
        yield House(tmp_path_factory.mktemp("home"), server, providers)


def upstreams_of(model: Model, base_url: str, number: int) -> Iterator[LiveUpstream]:
    options = VENDORS[model.dialect]
    plain = LiveUpstream(base_url, f"plain-{number}", model.dialect, [model.name], UPSTREAM_KEY, options)
    yield plain
    if not model.is_native:  # a provider of this API keeps to a grammar itself
        yield replace(plain, name=f"careful-{number}", models=[model.careful], options={**options, "grammar": "repair"})


over_both = pytest.mark.parametrize("transport", ["http", "websocket"])
"""Where what travels between two requests is no longer the whole conversation. Other cases are the same to a provider,
and `test_codex.py` has all of them over both."""


@pytest.fixture
def transport() -> str:
    return "http"


@pytest.fixture
def desk(house: House, model: Model, transport: str, tmp_path: Path) -> Iterator[Desk]:
    for upstream in house.providers.values():
        upstream.requests.clear()
        upstream.exchanges.clear()
    with Relay(house.server.port) as relay:
        front = relay if transport == "websocket" else None
        yield Desk(tmp_path, house.home, house.server, model, house.providers[model.id], front)
    # Codex may go on over HTTP without a word.
    assert relay.posts == 0
    assert [objection for upstream in house.providers.values() for objection in upstream.objections] == []


def called(name: str, arguments: Mapping[str, str], *, id: str) -> ToolCall:
    """A call whose arguments come in pieces that cut escapes in two."""
    return call(name, *pieces(json.dumps(arguments)), id=id)


def pieces(words: str) -> list[str]:
    return [words[at : at + 7] for at in range(0, len(words), 7)]


def answered(run: CodexRun) -> str:
    """The final answer of a run in which nothing went wrong."""
    assert (run.exit_code, run.failure, run.retries) == (0, "", []), run.stdout + run.stderr
    # Codex complains here of a delta without its item, of items it cannot read, and of failing tools.
    assert "ERROR" not in run.stderr
    return run.last_message


def reason(run: CodexRun) -> str:
    """What a failed run says. Codex prints the body of a 400 as it is (codex.md §9)."""
    if not run.failure.startswith("{"):
        return run.failure
    told = json.loads(run.failure)["error"]["message"]
    assert isinstance(told, str)
    return told


def kinds(told: Sequence[Spoken]) -> list[str]:
    """Who spoke, without what is sealed: where that stands differs from protocol to protocol."""
    return [one.kind for one in told if one.kind != "state"]


def states(told: Sequence[Spoken]) -> list[Spoken]:
    return [one for one in told if one.kind == "state"]


def own_states(told: Sequence[Spoken], model: Model) -> list[Spoken]:
    """Without what Gemini signs unasked, and what stands there for a signature of somebody else's call."""
    return [one for one in states(told) if one.text in (SEALED, SEALED_TOO, THEIRS) or model.dialect == "chat"]


def made(told: Sequence[Spoken]) -> list[tuple[str, Mapping[str, str]]]:
    """The calls: their names and arguments."""
    return [(one.name, msgspec.json.decode(one.text, type=dict[str, str])) for one in told if one.kind == "call"]


def results(told: Sequence[Spoken]) -> list[str]:
    return [one.text for one in told if one.kind == "result"]


def last_words(told: Sequence[Spoken]) -> str:
    return told[-1].text


def goes_on(earlier: SentRequest, later: SentRequest) -> bool:
    """Whether the later body begins with the earlier one, up to the end of its last message (mapping.md §0.2).

    Codex itself gives reasoning a content of null once it has read it back, and who takes items as they are gets that.
    """
    before, after = (one.body.replace(b'"content":null,', b"") for one in (earlier, later))
    return after.startswith(before.removesuffix(b"]}") + b",")


def resumes(desk: Desk, earlier: SentRequest, later: SentRequest) -> bool:
    """As `goes_on`, where Codex tells everything again.

    Over WebSockets it had told less before. Who takes items as they are then got those of the server, and gets them
    with their members in Codex's order now: only what is said is the same.
    """
    if desk.relay is None or not desk.model.is_native:
        return goes_on(earlier, later)
    before, after = (spoken(one, desk.model.dialect) for one in (earlier, later))
    return after[: len(before)] == before


OPENING = ["system", "user"]
"""Every developer message at the start; the environment and the prompt."""


# One turn.


@every_model
@pytest.mark.parametrize("shape", ["plain", "classic", "lite"])
def test_the_shell_tool_writes_a_file_and_the_answer_is_printed(desk: Desk, model: Model, shape: Shape) -> None:
    tool = model.runs(shape, "echo hi > out.txt; echo written", id="call_1")
    run = desk.run(desk.codex(shape), [answer(thought("hm", "m"), tool), answer(text("do", "ne"))])
    assert answered(run) == "done"
    assert (desk.workdir / "out.txt").read_text() == "hi\n"
    [command] = run.finished("command_execution")
    assert (command.status, command.exit_code) == ("completed", 0)
    assert [one.text for one in run.finished("reasoning")] == ["hmm"]
    usage = run.events[-1].usage
    assert (usage.input_tokens, usage.output_tokens) == (22, 14)

    first, second = desk.told()
    assert kinds(first) == OPENING
    assert "<permissions instructions>" in first[0].text
    assert first[1].text.endswith("do it")
    assert kinds(second) == [*OPENING, "call", "result"]
    [(name, _)] = made(second)
    assert name == ("exec" if shape == "lite" else "exec_command")
    assert name in desk.offered()[0]
    assert "written" in results(second)[0]
    assert goes_on(*desk.sent())


@every_model
@with_function_tools
def test_parallel_calls_all_run(desk: Desk, model: Model, shape: Shape) -> None:
    both = calls(
        called("exec_command", {"cmd": "echo one | tee one.txt"}, id="call_1"),
        called("exec_command", {"cmd": "echo two | tee two.txt"}, id="call_2"),
    )
    run = desk.run(desk.codex(shape), [answer(thought("hm"), text("Two at once."), both), answer(text("both"))])
    assert answered(run) == "both"
    assert {one.aggregated_output for one in run.finished("command_execution")} == {"one\n", "two\n"}
    assert {path.name for path in desk.workdir.iterdir()} == {"one.txt", "two.txt"}

    _, second = desk.told()
    assert kinds(second) == [*OPENING, "assistant", "call", "call", "result", "result"]
    assert ["one" in results(second)[0], "two" in results(second)[1]] == [True, True]
    assert goes_on(*desk.sent())


# Free-form tools.

PATCHED = 'say "hi" \\ ünï 😀\n\ttabbed\n'
PATCH = "*** Begin Patch\n*** Update File: p.txt\n@@\n-old\n+" + "\n+".join(PATCHED.splitlines()) + "\n*** End Patch\n"


@every_model
def test_a_patch_in_a_free_form_call_changes_a_file(desk: Desk, model: Model) -> None:
    (desk.workdir / "p.txt").write_text("old\n")
    patch = model.writes("apply_patch", PATCH, id="call_1")
    run = desk.run(desk.codex("classic"), [answer(thought("hm"), patch), answer(text("patched"))])
    assert answered(run) == "patched"
    assert (desk.workdir / "p.txt").read_text() == PATCHED
    assert [one.status for one in run.finished("file_change")] == ["completed"]

    _, second = desk.told()
    assert "apply_patch" in desk.offered()[0]
    assert kinds(second) == [*OPENING, "call", "result"]
    assert made(second) == [("apply_patch", {"input": PATCH})]
    assert "Exit code: 0" in results(second)[0]
    assert goes_on(*desk.sent())


@for_each(CHAT, ANTHROPIC, BOUND_ANTHROPIC, GEMINI, OLD_GEMINI)
def test_a_patch_that_is_none_goes_back_to_the_model_once(desk: Desk, model: Model) -> None:
    """With `grammar = "repair"` Codex never hears of the first text, nor does a later request (mapping.md §3)."""
    (desk.workdir / "p.txt").write_text("old\n")
    codex = replace(desk.codex("classic"), model=model.careful)
    wrong = model.writes("apply_patch", "-old\n+new\n", id="call_1")
    right = model.writes("apply_patch", PATCH, id="call_2")
    run = desk.run(
        codex,
        [answer(thought("So.", signature=SEALED), wrong), answer(thought("Oh."), right), answer(text("patched"))],
    )
    assert answered(run) == "patched"
    assert (desk.workdir / "p.txt").read_text() == PATCHED
    assert [one.status for one in run.finished("file_change")] == ["completed"]

    first, second, third = desk.told()
    assert kinds(first) == OPENING
    assert kinds(second) == [*OPENING, "call", "result"]
    assert made(second) == [("apply_patch", {"input": "-old\n+new\n"})]
    assert "does not match the grammar of the tool" in results(second)[0]
    assert kinds(third) == [*OPENING, "call", "result"]
    assert made(third) == [("apply_patch", {"input": PATCH})]
    assert "Exit code: 0" in results(third)[0]


# Tools of MCP servers.


@every_dialect
def test_a_tool_in_a_namespace_is_called(desk: Desk, model: Model) -> None:
    codex = replace(desk.codex(), mcp=[WEATHER])
    weather = model.calls("get_weather", {"city": "Oslo"}, namespace="mcp__weather", id="call_1")
    run = desk.run(codex, [answer(weather), answer(text("sunny"))])
    assert_weather_was_asked(run)

    _, second = desk.told()
    assert "mcp__weather__get_weather" in desk.offered()[0]
    assert kinds(second) == [*OPENING, "call", "result"]
    assert made(second) == [("mcp__weather__get_weather", {"city": "Oslo"})]
    assert "It is sunny in Oslo." in results(second)[0]
    assert goes_on(*desk.sent())


@over_both
@every_model
def test_a_tool_found_by_a_search_can_be_called(desk: Desk, model: Model) -> None:
    codex = replace(desk.codex("classic"), mcp=[WEATHER])
    weather = model.calls("get_weather", {"city": "Oslo"}, namespace="mcp__weather", id="call_2")
    steps = [answer(thought("hm"), model.looks_for_tools("weather", id="call_1")), answer(thought("so"), weather)]
    run = desk.run(codex, [*steps, answer(text("sunny"))])
    assert_weather_was_asked(run)

    _, second, third = desk.told()
    tools, found_tools, _ = desk.offered()
    assert "mcp__weather__get_weather" not in tools
    # A provider of this API reads in the history what was found; the others are offered it.
    assert ("mcp__weather__get_weather" in found_tools) is not model.is_native
    assert "get_weather" in results(second)[0]
    assert kinds(third) == [*OPENING, "call", "result", "call", "result"]
    assert made(third) == [("tool_search", {"query": "weather"}), ("mcp__weather__get_weather", {"city": "Oslo"})]
    assert "It is sunny in Oslo." in results(third)[1]
    assert goes_on(*desk.sent()[1:])


@every_dialect
def test_a_tool_of_an_mcp_server_is_called_from_within_a_program(desk: Desk, model: Model) -> None:
    codex = replace(desk.codex("lite"), mcp=[WEATHER])
    program = "const r = await tools.mcp__weather__get_weather({city: 'Oslo'}); text(JSON.stringify(r))"
    run = desk.run(codex, [answer(thought("hm"), model.writes("exec", program, id="call_1")), answer(text("sunny"))])
    assert_weather_was_asked(run)

    _, second = desk.told()
    assert kinds(second) == [*OPENING, "call", "result"]
    assert made(second) == [("exec", {"input": program})]
    assert "It is sunny in Oslo." in results(second)[0]


def assert_weather_was_asked(run: CodexRun) -> None:
    assert answered(run) == "sunny"
    [asked] = run.finished("mcp_tool_call")
    assert (asked.server, asked.tool, asked.status) == ("weather", "get_weather", "completed")
    assert b"It is sunny in Oslo." in bytes(asked.result)


# Several turns.


@over_both
@every_model
@pytest.mark.parametrize("shape", ["plain", "classic", "lite"])
def test_reasoning_goes_back_as_it_came_in_a_turn_and_after_a_resume(desk: Desk, model: Model, shape: Shape) -> None:
    """Codex stores nothing here (`store: false`), so all of it travels in what Codex keeps."""
    codex = desk.codex(shape)
    steps = [
        answer(thought("hm", signature=SEALED), model.runs(shape, "echo hi", id="call_1")),
        answer(thought("done?", signature=SEALED_TOO), text("Said ", "hi.")),
    ]
    run = desk.run(codex, steps)
    assert answered(run) == "Said hi."
    again = desk.run(codex, [answer(text("Again."))], prompt="once more", resume=run.thread_id)
    assert answered(again) == "Again."
    assert again.thread_id == run.thread_id

    _, second, third = desk.told()
    assert states(second) == [model.sealed("hm", SEALED)]
    assert states(third) == [model.sealed("hm", SEALED), model.sealed("done?", SEALED_TOO)]
    assert kinds(third) == [*OPENING, "call", "result", "assistant", "user"]
    assert [one.text for one in third if one.kind == "assistant"] == ["Said hi."]
    assert last_words(third) == "once more"
    first_body, second_body, third_body = desk.sent()
    assert goes_on(first_body, second_body)
    assert resumes(desk, second_body, third_body)

    kept = [line["payload"] for line in map(json.loads, codex.rollout(run.thread_id).read_text().splitlines())]
    sealed = [payload["encrypted_content"] for payload in kept if payload.get("type") == "reasoning"]
    # A provider of this API seals it itself.
    beginnings = (SEALED, SEALED_TOO) if model.is_native else ("brg1.",)
    assert len(sealed) >= 2
    assert [one for one in sealed if not one.startswith(beginnings)] == []


@every_model
def test_a_conversation_is_resumed_again_and_again(desk: Desk, model: Model) -> None:
    codex = desk.codex()
    run = desk.run(codex, [answer(thought("one?"), text("One."))], prompt="count")
    for word in ("Two.", "Three."):
        more = [answer(model.runs("plain", "echo on", id=f"call_{word}")), answer(thought("more?"), text(word))]
        assert answered(desk.run(codex, more, prompt="on", resume=run.thread_id)) == word
    *_, last = desk.told()
    turn = ["assistant", "user", "call", "result"]
    assert kinds(last) == [*OPENING, *turn, *turn]
    assert [one.text for one in last if one.kind == "assistant"] == ["One.", "Two."]
    requests = desk.sent()
    assert [goes_on(*two) for two in pairwise(requests)] == [True] * 4


@pytest.mark.parametrize(("model", "other"), [*permutations(DIALECTS, 2)], ids=lambda model: model.id)
def test_a_conversation_goes_to_another_provider_and_comes_back(
    desk: Desk, house: House, model: Model, other: Model
) -> None:
    """Each gets back what it sealed itself, and nothing of the other's (issue 3, portable conversations)."""
    codex = desk.codex()
    away = replace(desk, model=other, upstream=house.providers[other.id])
    steps = [
        answer(thought("hm", signature=SEALED), model.runs("plain", "echo hi", id="call_1")),
        answer(thought("done?", signature=SEALED_TOO), text("Said hi.")),
    ]
    run = desk.run(codex, steps)
    more = [
        answer(thought("And me?", signature=THEIRS), other.runs("plain", "echo you", id="call_2")),
        answer(text("Said you.")),
    ]
    assert answered(away.run(away.codex(), more, prompt="now you", resume=run.thread_id)) == "Said you."
    back = [
        answer(thought("again"), model.runs("plain", "echo again", id="call_3")),
        answer(text("Said again.")),
    ]
    assert answered(desk.run(codex, back, prompt="you again", resume=run.thread_id)) == "Said again."

    theirs, own = away.told()[-1], desk.told()[-1]
    assert own_states(away.told()[0], other) == []
    assert own_states(theirs, other) == [other.sealed("And me?", THEIRS)]
    # Codex tells a model of the change, and where that stands differs.
    said = [kind for kind in kinds(theirs)[2:] if kind != "system"]
    assert said == ["call", "result", "assistant", "user", "call", "result"]
    assert "<model_switch>" in "".join(one.text for one in theirs)
    assert own_states(own, model)[:2] == [model.sealed("hm", SEALED), model.sealed("done?", SEALED_TOO)]
    assert {THEIRS, "And me?"}.isdisjoint(one.text for one in states(own))


# Compaction.

SHORT_OF_ROOM = {"model_auto_compact_token_limit": 10_000}


@every_model
@pytest.mark.parametrize("shape", ["plain", "classic", "lite"])
def test_a_long_conversation_is_compacted_by_the_model(desk: Desk, model: Model, shape: Shape) -> None:
    codex = replace(desk.codex(shape), settings=SHORT_OF_ROOM)
    steps = [
        answer(thought("hm"), model.runs(shape, "echo one", id="call_1"), usage=Usage(prompt=20_000)),
        answer(text("THE SUMMARY")),
        answer(thought("so"), text("after")),
    ]
    run = desk.run(codex, steps)
    assert answered(run) == "after"
    assert answered(desk.run(codex, [answer(text("again"))], resume=run.thread_id)) == "again"

    _, second, third, fourth = desk.told()
    assert kinds(second) == [*OPENING, "call", "result", "user"]
    assert last_words(second).startswith("You are performing a CONTEXT CHECKPOINT COMPACTION")
    assert kinds(third) == OPENING
    assert "Another language model started to solve this problem" in last_words(third)
    assert last_words(third).endswith("THE SUMMARY")
    assert kinds(fourth) == [*OPENING, "assistant", "user"]


@over_both
@every_model
@pytest.mark.parametrize("shape", ["plain", "classic", "lite"])
def test_a_long_conversation_is_compacted_where_codex_asks_for_an_item(desk: Desk, model: Model, shape: Shape) -> None:
    """A provider called "OpenAI" is asked for exactly one compaction item (codex.md §8)."""
    codex = replace(desk.codex(shape), provider_name="OpenAI", settings=SHORT_OF_ROOM)
    steps = [
        answer(thought("hm"), model.runs(shape, "echo one", id="call_1"), usage=Usage(prompt=20_000)),
        answer(compaction("their summary") if model.is_native else text("THE SUMMARY")),
        answer(thought("so"), model.runs(shape, "echo two", id="call_2")),
        answer(text("after")),
    ]
    run = desk.run(codex, steps)
    assert answered(run) == "after"
    assert answered(desk.run(codex, [answer(text("again"))], resume=run.thread_id)) == "again"

    _, second, third, fourth, fifth = desk.told()
    assert kinds(second)[:4] == [*OPENING, "call", "result"]
    if model.is_native:
        # The provider is one that does this itself.
        assert b'"type":"compaction_trigger"' in desk.sent()[1].body
        assert [one.text for one in third if one.kind == "compaction"] == ["their summary"]
    else:
        assert last_words(second) != last_words(third)
        assert "THE SUMMARY" in "".join(one.text for one in third)
    assert kinds(fourth) == [*kinds(third), "call", "result"]
    assert kinds(fifth) == [*kinds(fourth), "assistant", "user"]
    requests = desk.sent()
    assert goes_on(requests[2], requests[3])
    assert resumes(desk, requests[3], requests[4])


# Images.


@every_model
def test_an_image_of_the_prompt_reaches_the_model(desk: Desk, model: Model) -> None:
    image = desk.directory / "dot.png"
    image.write_bytes(PNG)
    run = desk.run(desk.codex(), [answer(text("a dot"))], prompt="what is it?", images=[image])
    assert answered(run) == "a dot"
    [only] = desk.told()
    assert kinds(only) == [*OPENING, "image", "user"]
    assert only[2].text == base64.b64encode(PNG).decode()
    assert last_words(only).endswith("what is it?")


@every_model
@with_function_tools
def test_an_image_a_tool_found_reaches_the_model(desk: Desk, model: Model, shape: Shape) -> None:
    (desk.workdir / "dot.png").write_bytes(PNG)
    both = calls(
        called("view_image", {"path": "dot.png"}, id="call_1"),
        called("exec_command", {"cmd": "echo hi"}, id="call_2"),
    )
    run = desk.run(desk.codex(shape), [answer(thought("hm"), both), answer(text("a dot"))])
    assert answered(run) == "a dot"
    _, second = desk.told()
    assert kinds(second)[:5] == [*OPENING, "call", "call", "result"]
    [shown] = [one for one in second if one.kind == "image"]
    assert shown.text == base64.b64encode(PNG).decode()


# The provider's own search.

PAGE = "https://example.com/hills"


@over_both
@for_each(ANTHROPIC, BOUND_ANTHROPIC, GEMINI, RESPONSES)
@with_function_tools
def test_a_search_of_the_provider_is_shown_and_the_turn_goes_on(desk: Desk, model: Model, shape: Shape) -> None:
    """Codex offers a web search in every request (codex.md §4)."""
    codex = desk.codex(shape)
    found_seven = model.searches("hills of Rome", page=PAGE, says="There are seven.")
    steps = [
        answer(thought("hm"), *found_seven, model.runs(shape, "echo seven > hills.txt", id="call_1")),
        answer(text("Noted.")),
    ]
    run = desk.run(codex, steps)
    assert answered(run) == "Noted."
    assert (desk.workdir / "hills.txt").read_text() == "seven\n"
    assert [one.query for one in run.finished("web_search")] == ["hills of Rome"]
    assert [one.text for one in run.finished("agent_message")] == ["There are seven.", "Noted."]
    assert answered(desk.run(codex, [answer(text("Again."))], resume=run.thread_id)) == "Again."

    _, second, third = desk.told()
    own = {"anthropic": "web_search_20250305", "gemini": "googleSearch", "responses": "web_search"}[model.dialect]
    assert own in desk.offered()[0]
    assert [kind for kind in kinds(second) if kind != "search"] == [*OPENING, "assistant", "call", "result"]
    assert "search" in kinds(second)
    assert [one.text for one in second if one.kind == "assistant"] == ["There are seven."]
    assert kinds(third) == [*kinds(second), "assistant", "user"]
    requests = desk.sent()
    assert goes_on(requests[0], requests[1])
    assert resumes(desk, requests[1], requests[2])


@for_each(CHAT, OLD_GEMINI)
def test_without_a_search_behind_it_nothing_is_disturbed(desk: Desk, model: Model) -> None:
    assert answered(desk.run(desk.codex(), [answer(text("fine"))])) == "fine"
    assert {"googleSearch", "web_search"}.isdisjoint(desk.offered()[0])


# Faults (codex.md §9). One that lasts ends the turn at the first request; one that passes is waited for.

OUT_OF_ROOM = "Codex ran out of room in the model's context window."
REFUSED = "The provider refused this server's own credential of upstream '"

OVERFLOWS: Mapping[Dialect, HttpError] = {
    "chat": HttpError(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
    "anthropic": HttpError(400, "prompt is too long: 205000 tokens > 200000 maximum"),
    "gemini": HttpError(400, "The input token count (1058577) exceeds the maximum number of tokens allowed (1048576)."),
    "responses": HttpError(
        400,
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        code="context_length_exceeded",
        param="input",
    ),
}
BAD_KEYS: Mapping[Dialect, HttpError] = {
    "chat": HttpError(401, "Incorrect API key provided: upstream-key.", code="invalid_api_key"),
    "anthropic": HttpError(401, "invalid x-api-key"),
    "gemini": HttpError(400, "API key not valid. Please pass a valid API key.", code="API_KEY_INVALID"),
    "responses": HttpError(401, "Incorrect API key provided: upstream-key.", code="invalid_api_key"),
}
OVERLOADS: Mapping[Dialect, HttpError] = {
    "chat": HttpError(503, "Overloaded.", type="server_error"),
    "anthropic": HttpError(529, "Overloaded"),
    "gemini": HttpError(503, "The model is overloaded. Please try again later."),
    "responses": HttpError(503, "Overloaded.", type="server_error", code="server_is_overloaded"),
}


@over_both
@every_dialect
@pytest.mark.parametrize(
    ("faults", "says"), [(OVERFLOWS, OUT_OF_ROOM), (BAD_KEYS, REFUSED)], ids=["overflow", "bad key"]
)
def test_a_fault_that_lasts_ends_the_turn_at_the_first_request(
    desk: Desk, model: Model, faults: Mapping[Dialect, HttpError], says: str
) -> None:
    run = desk.run(desk.codex(), lambda request: faults[model.dialect])
    assert run.exit_code == 1
    assert reason(run).startswith(says)
    assert UPSTREAM_KEY not in run.stdout + run.stderr
    assert run.retries == []
    assert len(desk.sent()) == 1
    assert run.seconds < 3


@every_dialect
def test_an_answer_that_reaches_its_limit_ends_the_turn(desk: Desk, model: Model) -> None:
    run = desk.run(desk.codex(), [answer(text("half"), finish="length")])
    assert reason(run) == "Incomplete response returned, reason: max_output_tokens"
    assert [one.text for one in run.finished("agent_message")] == ["half"]
    assert len(desk.sent()) == 1


@pytest.mark.slow
@every_dialect
@pytest.mark.parametrize("fault", ["overload", "limit"])
def test_a_fault_that_passes_is_waited_for(desk: Desk, model: Model, fault: str) -> None:
    limit = HttpError(429, "Too many requests.", headers={"retry-after": "2"})
    step, wait = (OVERLOADS[model.dialect], 1) if fault == "overload" else (limit, 2)
    run = desk.run(desk.codex(), [step, answer(text("fine"))])
    assert (run.exit_code, run.failure, run.last_message) == (0, "", "fine")
    assert len(run.retries) == 1
    first, second = desk.sent()
    assert first.body == second.body
    assert wait <= second.at - first.at < wait + 2


@pytest.mark.slow
@for_each(ANTHROPIC)
def test_a_fault_that_never_passes_ends_the_turn(desk: Desk, model: Model) -> None:
    run = desk.run(desk.codex(), lambda request: OVERLOADS[model.dialect])
    assert run.exit_code == 1
    assert len(desk.sent()) == 6
    assert run.seconds < 10


@every_dialect
def test_an_error_in_the_stream_is_waited_for(desk: Desk, model: Model) -> None:
    broken = answer(text("ha", "lf"), trouble=Trouble("error", after=2))
    run = desk.run(desk.codex(), [broken, answer(text("fine"))])
    assert (run.exit_code, run.failure, run.last_message) == (0, "", "fine"), run.stdout
    assert len(run.retries) == 1
    first, second = desk.sent()
    assert first.body == second.body


@for_each(CHAT, ANTHROPIC, RESPONSES)
def test_a_refusal_is_shown(desk: Desk, model: Model) -> None:
    """Codex shows nothing of a refusal part (codex.md §4), so it gets the words as text."""
    codex = desk.codex()
    run = desk.run(codex, [answer(refusal("I can", "not."))])
    assert answered(run) == "I cannot."
    assert answered(desk.run(codex, [answer(text("Then not."))], resume=run.thread_id)) == "Then not."
    _, second = desk.told()
    # Anthropic wants nothing of a turn that it refused (provider-anthropic.md §8).
    said = [one.text for one in second if one.kind == "assistant"]
    assert said == ([] if model.dialect == "anthropic" else ["I cannot."])


@every_model
@pytest.mark.parametrize("what", ["text", "call"])
def test_an_answer_that_broke_off_is_asked_for_again(desk: Desk, model: Model, what: str) -> None:
    """Half an answer is no part of the conversation, and no command is run for one (reliability.md F5)."""
    half = text("ha", "lf") if what == "text" else model.runs("plain", "touch one", id="call_1")
    run = desk.run(desk.codex(), [answer(half, trouble=Trouble("cut", after=2)), answer(text("fine"))])
    assert (run.exit_code, run.last_message) == (0, "fine")
    assert len(run.retries) == 1
    assert [*desk.workdir.iterdir()] == []
    first, second = desk.sent()
    assert first.body == second.body

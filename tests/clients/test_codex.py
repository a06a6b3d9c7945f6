"""The real Codex, the real server and a strict scripted provider, in every shape and over both transports Codex has
(codex.md).

Needs the program: set REJOINDER_CODEX to the path of a `codex` executable. What went out to the provider is looked at
as closely as what Codex made of its answers; the provider refuses what the strictest servers refuse, and
`Desk.sent` insists that it had nothing to refuse.
"""

import base64
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import (
    Head,
    HttpError,
    Pause,
    Step,
    ToolCall,
    Trouble,
    Usage,
    Wire,
    answer,
    call,
    calls,
    raw,
    refusal,
    text,
    thought,
)
from rejoinder.conformance.upstreams.sent import SentChat, SentMessage, SentPart, SentUrl
from tests.clients.codex import CodexRun, McpServer, Shape
from tests.clients.desk import (
    KEY,
    OPENING,
    UPSTREAM_KEY,
    Desk,
    answered,
    arguments_of,
    called,
    goes_on,
    in_pieces,
    made,
    reason,
    roles,
    script_of,
    shell,
    tool_names,
)
from tests.clients.relay import Relay
from tests.live import LiveServer, LiveUpstream, running

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not os.environ.get("REJOINDER_CODEX"), reason="REJOINDER_CODEX does not name a codex program"),
]

every_shape = pytest.mark.parametrize("shape", ["plain", "classic", "lite"])
with_function_tools = pytest.mark.parametrize("shape", ["plain", "classic"])

IMPATIENT = (sys.executable, str(Path(__file__).parents[1] / "server" / "impatient.py"))
WEATHER = McpServer("weather", (sys.executable, str(Path(__file__).parent / "weather.py")))

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

TOOLS: Mapping[Shape, Sequence[str]] = {
    "plain": (
        "exec_command",
        "write_stdin",
        "request_user_input",
        "view_image",
        *(f"multi_agent_v1__{name}_agent" for name in ("close", "resume")),
        "multi_agent_v1__send_input",
        *(f"multi_agent_v1__{name}_agent" for name in ("spawn", "wait")),
        "get_goal",
        "create_goal",
        "update_goal",
    ),
    "classic": (
        "exec_command",
        "write_stdin",
        "request_user_input",
        "apply_patch",
        "view_image",
        "get_goal",
        "create_goal",
        "update_goal",
        "tool_search",
    ),
    "lite": (
        "exec",
        "wait",
        "request_user_input",
        "collaboration__followup_task",
        "collaboration__interrupt_agent",
        "collaboration__list_agents",
        "collaboration__send_message",
        "collaboration__spawn_agent",
        "collaboration__wait_agent",
    ),
}
"""What the provider is offered, in this order: namespaces flattened, no web search."""


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream(key=UPSTREAM_KEY) as provider:
        yield provider


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    upstreams = [
        LiveUpstream(provider.base_url, key=UPSTREAM_KEY),
        LiveUpstream(name="toy", dialect="demo", models=["demo"]),
    ]
    with running(tmp_path_factory.mktemp("codex"), upstreams=upstreams, keys={"alice": KEY}) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: Codex fills a new one with databases, and writes what a test sets anew for every run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def relay(server: LiveServer) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay


@pytest.fixture(params=["http", "websocket"])
def desk(
    request: pytest.FixtureRequest, server: LiveServer, relay: Relay, provider: ChatUpstream, home: Path, tmp_path: Path
) -> Iterator[Desk]:
    """Over both transports: what reaches the provider, and what Codex makes of its answers, is the same."""
    provider.requests.clear()
    relay.lines.clear()
    front = relay if request.param == "websocket" else None
    yield Desk(tmp_path, home, server, front, provider, server.log.stat().st_size)
    # Codex may go on over HTTP without a word.
    assert relay.posts == 0


# One turn.


@every_shape
def test_the_shell_tool_writes_a_file_and_the_answer_is_printed(desk: Desk, shape: Shape) -> None:
    tool = shell(shape, "echo hi > out.txt; echo written", id="call_1")
    run = desk.run(desk.codex(shape), [answer(thought("hm", "m"), calls(tool)), answer(text("do", "ne"))])
    assert answered(run) == "done"
    assert (desk.workdir / "out.txt").read_text() == "hi\n"
    [command] = run.finished("command_execution")
    assert (command.status, command.exit_code) == ("completed", 0)
    assert [item.text for item in run.finished("reasoning")] == ["hmm"]
    assert [item.text for item in run.finished("agent_message")] == ["done"]
    usage = run.events[-1].usage
    assert (usage.input_tokens, usage.output_tokens) == (22, 14)

    first, second = desk.chats()
    assert (first.model, first.stream, first.stream_options.include_usage) == ("my-model", True, True)
    assert first.reasoning_effort == (None if shape == "plain" else "low")
    assert first.parallel_tool_calls is (False if shape == "lite" else None)
    assert tool_names(first) == tool_names(second) == list(TOOLS[shape])
    assert roles(first) == OPENING
    assert ("You are a coding assistant." in first.messages[0].text) is (shape != "plain")
    assert "<permissions instructions>" in first.messages[0].text
    assert f"<cwd>{desk.workdir}</cwd>" in first.messages[1].text
    assert first.messages[2].text == "do it"
    assert roles(second) == [*OPENING, "assistant", "tool"]
    said, result = second.messages[3:]
    assert (said.content, said.reasoning_content) == (None, "hmm")
    assert made(said) == [("call_1", tool.name)]
    assert arguments_of(said.tool_calls[0]) == json.loads(tool.arguments)
    assert result.tool_call_id == "call_1"
    assert "written" in result.text
    assert goes_on(*desk.sent())


@with_function_tools
def test_parallel_calls_all_run(desk: Desk, shape: Shape) -> None:
    both = calls(
        shell(shape, "echo one | tee one.txt", id="call_1"),
        shell(shape, "echo two | tee two.txt", id="call_2"),
        style="interleaved",
    )
    run = desk.run(desk.codex(shape), [answer(text("Two at once."), both), answer(text("both"))])
    assert answered(run) == "both"
    assert {item.aggregated_output for item in run.finished("command_execution")} == {"one\n", "two\n"}
    assert {path.name for path in desk.workdir.iterdir()} == {"one.txt", "two.txt"}

    first, second = desk.chats()
    assert first.parallel_tool_calls is None
    assert roles(second) == [*OPENING, "assistant", "tool", "tool"]
    said, *results = second.messages[3:]
    assert said.content == "Two at once."
    assert made(said) == [("call_1", "exec_command"), ("call_2", "exec_command")]
    assert [result.tool_call_id for result in results] == ["call_1", "call_2"]
    assert ["one" in results[0].text, "two" in results[1].text] == [True, True]
    assert goes_on(*desk.sent())


def test_where_one_call_at_a_time_is_asked_for_a_second_is_left_out_and_noted(desk: Desk) -> None:
    both = calls(shell("lite", "echo one", id="call_1"), shell("lite", "echo two", id="call_2"), style="interleaved")
    run = desk.run(desk.codex("lite"), [answer(both), answer(text("one"))])
    assert answered(run) == "one"
    assert [item.aggregated_output for item in run.finished("command_execution")] == ["one\n"]
    assert "parallel_tool_calls: a second call, of 'exec', was left out" in desk.notes()

    first, second = desk.chats()
    assert first.parallel_tool_calls is False
    assert roles(second) == [*OPENING, "assistant", "tool"]
    assert made(second.messages[3]) == [("call_1", "exec")]


def test_what_a_model_gets_wrong_comes_back_to_it(desk: Desk) -> None:
    wrong = calls(call("look_around", '{"at":', '"it"}', id="call_1"), call("exec_command", '{"cmd":', id="call_2"))
    run = desk.run(desk.codex(), [answer(wrong), answer(text("sorry"))])
    assert (run.exit_code, run.last_message) == (0, "sorry")

    _, second = desk.chats()
    said, unknown, broken = second.messages[3:]
    assert made(said) == [("call_1", "look_around"), ("call_2", "exec_command")]
    # A strict server reads the arguments of old calls, so the broken ones come back inside of an object.
    assert arguments_of(said.tool_calls[1]) == {"_raw": '{"cmd":'}
    assert (unknown.tool_call_id, unknown.text) == ("call_1", "unsupported call: look_around")
    assert broken.tool_call_id == "call_2"
    assert broken.text.startswith("failed to parse function arguments")


# Free-form tools.

PATCHED = 'say "hi" \\ ünï 😀\n\ttabbed\n'
PATCH = "*** Begin Patch\n*** Update File: p.txt\n@@\n-old\n+" + "\n+".join(PATCHED.splitlines()) + "\n*** End Patch\n"


@pytest.mark.parametrize("arguments", [json.dumps({"input": PATCH}), PATCH], ids=["as asked", "as bare text"])
def test_a_patch_in_a_free_form_call_changes_a_file(desk: Desk, arguments: str) -> None:
    (desk.workdir / "p.txt").write_text("old\n")
    patch = in_pieces("apply_patch", arguments, id="call_1")
    run = desk.run(desk.codex("classic"), [answer(calls(patch)), answer(text("patched"))])
    assert answered(run) == "patched"
    assert (desk.workdir / "p.txt").read_text() == PATCHED
    assert [item.status for item in run.finished("file_change")] == ["completed"]

    first, second = desk.chats()
    [tool] = [tool.function for tool in first.tools if tool.function.name == "apply_patch"]
    assert_takes_free_text(tool.description, bytes(tool.parameters), "start: begin_patch hunk+ end_patch")
    assert roles(second) == [*OPENING, "assistant", "tool"]
    said, result = second.messages[3:]
    assert made(said) == [("call_1", "apply_patch")]
    assert arguments_of(said.tool_calls[0]) == {"input": PATCH}
    assert result.tool_call_id == "call_1"
    assert result.text.startswith("Exit code: 0")
    assert goes_on(*desk.sent())


def test_a_patch_from_within_a_program_changes_a_file(desk: Desk) -> None:
    (desk.workdir / "p.txt").write_text("old\n")
    program = f"const r = await tools.apply_patch({json.dumps(PATCH)}); text(JSON.stringify(r))"
    run = desk.run(desk.codex("lite"), [answer(calls(script_of(program))), answer(text("patched"))])
    assert answered(run) == "patched"
    assert (desk.workdir / "p.txt").read_text() == PATCHED
    assert [item.status for item in run.finished("file_change")] == ["completed"]

    first, second = desk.chats()
    [tool] = [tool.function for tool in first.tools if tool.function.name == "exec"]
    assert_takes_free_text(tool.description, bytes(tool.parameters), "start: pragma_source | plain_source")
    assert made(second.messages[3]) == [("call_exec", "exec")]
    assert arguments_of(second.messages[3].tool_calls[0]) == {"input": program}


def assert_takes_free_text(description: str | None, parameters: bytes, grammar: str) -> None:
    assert description is not None
    assert f"It must match this lark grammar:\n{grammar}" in description.replace("\n\n", "\n")
    schema = json.loads(parameters)
    assert [*schema["properties"]] == schema["required"] == ["input"]


# Tools of MCP servers.


def test_a_tool_in_a_namespace_is_called_by_its_flat_name(desk: Desk) -> None:
    codex = replace(desk.codex(), mcp=[WEATHER])
    weather = called("mcp__weather__get_weather", {"city": "Oslo"}, id="call_1")
    run = desk.run(codex, [answer(calls(weather)), answer(text("sunny"))])
    assert_weather_was_asked(run)

    first, second = desk.chats()
    [tool] = [tool.function for tool in first.tools if tool.function.name == "mcp__weather__get_weather"]
    assert tool.description is not None
    assert "The weather of a city, always the same." in tool.description
    assert roles(second) == [*OPENING, "assistant", "tool"]
    assert made(second.messages[3]) == [("call_1", "mcp__weather__get_weather")]
    assert second.messages[4].text.endswith("It is sunny in Oslo.")
    assert goes_on(*desk.sent())


def test_a_tool_found_by_a_search_can_be_called(desk: Desk) -> None:
    codex = replace(desk.codex("classic"), mcp=[WEATHER])
    search = called("tool_search", {"query": "weather"}, id="call_1")
    weather = called("mcp__weather__get_weather", {"city": "Oslo"}, id="call_2")
    run = desk.run(codex, [answer(calls(search)), answer(calls(weather)), answer(text("sunny"))])
    assert_weather_was_asked(run)

    first, second, third = desk.chats()
    found = "mcp__weather__get_weather"
    assert found not in tool_names(first)
    # What a search found becomes a function, behind those there were. Only this moves the messages: from then on the
    # bodies grow at their end again.
    assert tool_names(second) == tool_names(third) == [*tool_names(first), found]
    before, after = (bytes(request.fields["tools"]) for request in desk.sent()[:2])
    assert after.startswith(before.removesuffix(b"]") + b",")
    assert goes_on(*desk.sent()[1:])
    assert roles(third) == [*OPENING, "assistant", "tool", "assistant", "tool"]
    assert made(third.messages[3]) == [("call_1", "tool_search")]
    assert arguments_of(third.messages[3].tool_calls[0]) == {"query": "weather"}
    assert third.messages[4].tool_call_id == "call_1"
    assert "get_weather" in third.messages[4].text
    assert made(third.messages[5]) == [("call_2", found)]
    assert third.messages[6].text.endswith("It is sunny in Oslo.")


def test_a_tool_of_an_mcp_server_is_called_from_within_a_program(desk: Desk) -> None:
    codex = replace(desk.codex("lite"), mcp=[WEATHER])
    program = "const r = await tools.mcp__weather__get_weather({city: 'Oslo'}); text(JSON.stringify(r))"
    run = desk.run(codex, [answer(calls(script_of(program))), answer(text("sunny"))])
    assert_weather_was_asked(run)

    _, second = desk.chats()
    assert roles(second) == [*OPENING, "assistant", "tool"]
    assert "It is sunny in Oslo." in second.messages[4].text


def assert_weather_was_asked(run: CodexRun) -> None:
    assert answered(run) == "sunny"
    [asked] = run.finished("mcp_tool_call")
    assert (asked.server, asked.tool, asked.status) == ("weather", "get_weather", "completed")
    assert b"It is sunny in Oslo." in bytes(asked.result)


# Several turns.


@every_shape
def test_a_resumed_conversation_begins_with_the_bytes_of_the_one_before(desk: Desk, shape: Shape) -> None:
    """Codex resends its own instructions and environment unchanged, so whatever differed would be of our making."""
    codex = desk.codex(shape)
    steps = [
        answer(thought("hm"), calls(shell(shape, "echo hi", id="call_1"))),
        answer(thought("done?"), text("Said ", "hi.")),
    ]
    run = desk.run(codex, steps)
    assert answered(run) == "Said hi."
    again = desk.run(codex, [answer(text("Again."))], prompt="once more", resume=run.thread_id)
    assert answered(again) == "Again."
    assert again.thread_id == run.thread_id

    first, second, third = desk.sent()
    assert goes_on(first, second)
    assert goes_on(second, third)
    assert roles(third.chat) == [*OPENING, "assistant", "tool", "assistant", "user"]
    said, result, concluded, prompt = third.chat.messages[3:]
    assert [one_id for one_id, _ in made(said)] == [result.tool_call_id] == ["call_1"]
    assert said.reasoning_content == "hm"
    assert (concluded.content, concluded.reasoning_content) == ("Said hi.", "done?")
    assert prompt.text == "once more"


def test_reasoning_travels_sealed_and_goes_back_as_it_came(desk: Desk) -> None:
    codex = desk.codex()
    run = desk.run(codex, [answer(thought("a hidden thought"), text("one"))])
    assert answered(run) == "one"
    rollout = codex.rollout(run.thread_id)
    history = rollout.read_text()
    [sealed] = [
        line["payload"]["encrypted_content"]
        for line in map(json.loads, history.splitlines())
        if line["payload"].get("type") == "reasoning"
    ]
    assert sealed.startswith("brg1.")
    # What anybody can read of it is a copy for people: only what is sealed goes back (mapping.md §5, rule 6).
    rollout.write_text(history.replace("a hidden thought", "a forged thought"))
    assert answered(desk.run(codex, [answer(text("two"))], resume=run.thread_id)) == "two"

    _, second = desk.chats()
    assert roles(second) == [*OPENING, "assistant", "user"]
    assert second.messages[3].reasoning_content == "a hidden thought"


def test_another_model_does_not_get_the_reasoning_of_the_first(desk: Desk) -> None:
    codex = desk.codex()
    run = desk.run(codex, [answer(thought("a hidden thought"), text("one"))])
    other = replace(codex, model="other-model")
    assert answered(desk.run(other, [answer(text("two"))], resume=run.thread_id)) == "two"
    assert desk.losses() == ["reasoning"]

    _, second = desk.chats()
    assert second.model == "other-model"
    # Codex tells the model of the change, in the middle of the conversation.
    assert roles(second) == [*OPENING, "assistant", "system", "user"]
    assert second.messages[4].text.startswith("<model_switch>")
    assert (second.messages[3].content, second.messages[3].reasoning_content) == ("one", None)


@every_shape
def test_a_long_conversation_is_compacted_by_the_model(desk: Desk, shape: Shape) -> None:
    codex = replace(desk.codex(shape), settings={"model_auto_compact_token_limit": 10_000})
    steps = [
        answer(calls(shell(shape, "echo one", id="call_1")), usage=Usage(prompt=20_000)),
        answer(text("THE SUMMARY")),
        answer(text("after")),
    ]
    assert answered(desk.run(codex, steps)) == "after"

    first, second, third = desk.sent()
    assert roles(second.chat) == [*OPENING, "assistant", "tool", "user"]
    assert second.chat.messages[-1].text.startswith("You are performing a CONTEXT CHECKPOINT COMPACTION")
    # Codex sends no tools with this prompt (codex.md §2), which changes the body in front of the messages; lite has
    # its tools in the history.
    assert tool_names(second.chat) == (list(TOOLS["lite"]) if shape == "lite" else [])
    messages = bytes(first.fields["messages"]).removesuffix(b"]")
    assert bytes(second.fields["messages"]).startswith(messages + b",")
    assert goes_on(first, second) is (shape == "lite")
    # Then Codex replaces the history: what went before is a summary, in the words of its user.
    assert roles(third.chat) == [*OPENING, "user"]
    assert bytes(third.fields["messages"]).startswith(messages + b",")
    assert tool_names(third.chat) == list(TOOLS[shape])
    assert third.chat.messages[-1].text.startswith("Another language model started to solve this problem")
    assert third.chat.messages[-1].text.endswith("THE SUMMARY")


def test_sub_agents_hear_each_other(desk: Desk) -> None:
    def script(request: SentChat) -> Step:
        last = request.messages[-1]
        if "NEW_TASK" in last.text:
            return answer(text("seven"))
        if "FINAL_ANSWER" in last.text:
            return answer(text("They say ", "seven."))
        if last.role == "user":
            task = {"task_name": "count", "message": "Count the hills.", "fork_turns": "none"}
            return answer(calls(called("collaboration__spawn_agent", task)))
        return answer(calls(call("collaboration__wait_agent", '{"timeout_ms":10000}')))

    assert answered(desk.run(desk.codex("lite"), script)) == "They say seven."
    chats = desk.chats()
    # Codex declares these texts as encrypted by the server; one that does not encrypt gets them back in the clear.
    [task] = [chat.messages for chat in chats if "NEW_TASK" in chat.messages[-1].text]
    assert task[-1].text.startswith("Message from /root to /root/count:")
    assert task[-1].text.endswith("Count the hills.")
    [told] = [chat.messages for chat in chats if "FINAL_ANSWER" in chat.messages[-1].text]
    assert told[-1].text.startswith("Message from /root/count to /root:")
    assert told[-1].text.endswith("seven")


# Images, refusals and formats.


@every_shape
def test_an_image_of_the_prompt_reaches_the_model(desk: Desk, shape: Shape) -> None:
    image = desk.directory / "dot.png"
    image.write_bytes(PNG)
    run = desk.run(desk.codex(shape), [answer(text("a dot"))], prompt="what is it?", images=[image])
    assert answered(run) == "a dot"
    [only] = desk.chats()
    assert roles(only) == OPENING
    opened, shown, closed, prompt = parts_of(only.messages[2])
    assert (opened.text, closed.text, prompt.text) == (
        f'<image name=[Image #1] path="{image}">',
        "</image>",
        "what is it?",
    )
    # Lite asks for no detail; the others ask for "original", which only few servers know.
    assert_is_the_dot(shown, detail=None if shape == "lite" else "high")


@with_function_tools
def test_an_image_a_tool_found_follows_its_result(desk: Desk, shape: Shape) -> None:
    (desk.workdir / "dot.png").write_bytes(PNG)
    look = called("view_image", {"path": "dot.png"}, id="call_1")
    assert answered(desk.run(desk.codex(shape), [answer(calls(look)), answer(text("a dot"))])) == "a dot"
    _, second = desk.chats()
    assert roles(second) == [*OPENING, "assistant", "tool", "user"]
    result, shown = second.messages[4:]
    assert (result.tool_call_id, result.text) == ("call_1", "[image output, shown in the next message]")
    label, image = parts_of(shown)
    assert label.text == "[output of call call_1]"
    assert_is_the_dot(image, detail="high")


def parts_of(message: SentMessage) -> list[SentPart]:
    assert isinstance(message.content, list)
    return message.content


def assert_is_the_dot(part: SentPart, *, detail: str | None) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert part == SentPart("image_url", image_url=SentUrl(url, detail))


def test_a_refusal_is_shown(desk: Desk) -> None:
    """Codex shows nothing of a refusal part (codex.md §4), so it gets the words as text."""
    codex = desk.codex()
    run = desk.run(codex, [answer(refusal("I can", "not."))])
    assert answered(run) == "I cannot."
    assert answered(desk.run(codex, [answer(text("Then not."))], resume=run.thread_id)) == "Then not."
    _, second = desk.chats()
    assert roles(second) == [*OPENING, "assistant", "user"]
    assert second.messages[3].content == "I cannot."


def test_a_schema_of_the_answer_reaches_the_model(desk: Desk) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    file = desk.directory / "schema.json"
    file.write_text(json.dumps(schema))
    run = desk.run(desk.codex(), [answer(text('{"a":', '"b"}'))], arguments=["--output-schema", str(file)])
    assert answered(run) == '{"a":"b"}'
    [only] = desk.chats()
    wanted = {"name": "codex_output_schema", "schema": schema, "strict": True}
    assert json.loads(bytes(only.response_format)) == {"type": "json_schema", "json_schema": wanted}


# Faults. One that lasts ends the turn at the first request; Codex would send it 6 to 30 times (codex.md §9).

TOO_LONG = "This model's maximum context length is 8192 tokens."
OUT_OF_ROOM = "Codex ran out of room in the model's context window."


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (
            HttpError(401, "Incorrect API key provided: upstream-key.", code="invalid_api_key"),
            "The provider refused this server's own credential of upstream 'test'. Ask the operator",
        ),
        (HttpError(404, "The model `x` does not exist.", code="model_not_found"), "The model `x` does not exist."),
        (HttpError(400, "Invalid value: 'x'."), "Invalid value: 'x'."),
        (HttpError(422, "Cannot do that."), "Cannot do that."),
        (
            HttpError(429, "You exceeded your current quota.", type="insufficient_quota", code="insufficient_quota"),
            "Quota exceeded. Check your plan and billing details.",
        ),
        (HttpError(400, TOO_LONG, code="context_length_exceeded"), OUT_OF_ROOM),
        (raw(f'data: {{"error": {{"message": "{TOO_LONG}", "code": 400}}}}\n\n'.encode()), OUT_OF_ROOM),
        (answer(text("half"), finish="length"), "Incomplete response returned, reason: max_output_tokens"),
    ],
    ids=["401", "404", "400", "422", "quota", "overflow", "overflow in the stream", "output limit"],
)
def test_a_fault_that_lasts_ends_the_turn_at_the_first_request(desk: Desk, step: Step, says: str) -> None:
    run = desk.run(desk.codex(), lambda request: step)
    assert run.exit_code == 1
    assert reason(run).startswith(says)
    assert UPSTREAM_KEY not in run.stdout + run.stderr
    assert run.retries == []
    assert len(desk.sent()) == 1
    assert run.seconds < 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "wait", "says"),
    [
        (HttpError(429, "Slow down.", code="rate_limit_exceeded", headers={"retry-after": "2"}), 2, "429"),
        (HttpError(500, "Something broke.", type="server_error"), 1, "429"),
        (answer(text("ha", "lf"), trouble=Trouble("cut", after=2)), 0.1, "broke off before the answer was over"),
        (answer(text("ha", "lf"), trouble=Trouble("error", after=2)), 0.1, "The server had an error"),
    ],
    ids=["429", "500", "cut", "error in the stream"],
)
def test_a_fault_that_passes_is_waited_for(desk: Desk, step: Step, wait: float, says: str) -> None:
    run = desk.run(desk.codex(), [step, answer(text("fine"))])
    assert (run.exit_code, run.failure, run.last_message) == (0, "", "fine")
    assert [item.text for item in run.finished("agent_message")] == ["fine"]
    [retry] = desk.retries(run)
    assert says in retry
    first, second = desk.sent()
    # Half an answer is no part of the conversation.
    assert first.body == second.body
    assert wait <= second.at - first.at < wait + 2


def test_a_filtered_answer_is_asked_for_again_with_guidance(desk: Desk) -> None:
    """The guidance is Codex's own, and it is why the half that came stays in the conversation."""
    run = desk.run(desk.codex(), [answer(text("ha", "lf"), finish="content_filter"), answer(text("fine"))])
    assert (run.exit_code, run.last_message) == (0, "fine")
    assert ["content_filter" in retry for retry in desk.retries(run)] == [True]
    first, second = desk.sent()
    assert goes_on(first, second)
    assert roles(second.chat) == [*OPENING, "assistant", "system"]
    assert second.chat.messages[3].content == "half"
    assert second.chat.messages[4].text.startswith("<content_filter_guidance>")


PROGRAM = json.dumps({"input": "await tools.exec_command({cmd: 'touch one'});\nawait tools.exec_command({cmd: 'x'});"})
HALF = PROGRAM.index(r"\n") + 2


@pytest.mark.parametrize(
    ("shape", "unfinished"),
    [
        ("plain", call("exec_command", '{"cmd":"touch one"}', "\n")),
        ("lite", call("exec", PROGRAM[:HALF], PROGRAM[HALF:])),
    ],
)
def test_a_call_in_an_answer_that_broke_off_is_not_carried_out(desk: Desk, shape: Shape, unfinished: ToolCall) -> None:
    """Codex acts on every call it is told of, be it called incomplete; and half a program is a program."""
    broken = answer(calls(unfinished), trouble=Trouble("cut", after=3))
    run = desk.run(desk.codex(shape), [broken, answer(text("fine"))])
    assert (run.exit_code, run.last_message) == (0, "fine")
    assert run.finished("command_execution") == []
    assert [*desk.workdir.iterdir()] == []
    first, second = desk.sent()
    assert first.body == second.body


def test_a_call_cut_by_the_output_limit_is_not_carried_out(desk: Desk) -> None:
    cut = answer(text("First this."), calls(call("exec", PROGRAM[:HALF])), finish="length")
    run = desk.run(desk.codex("lite"), [cut])
    assert run.failure == "Incomplete response returned, reason: max_output_tokens"
    assert [item.text for item in run.finished("agent_message")] == ["First this."]
    assert [*desk.workdir.iterdir()] == []
    assert len(desk.sent()) == 1


def test_a_key_that_is_not_ours_is_told_at_once(desk: Desk) -> None:
    run = desk.run(replace(desk.codex(), key="somebody-elses"), [])
    assert run.exit_code == 1
    assert reason(run) == "Incorrect API key provided."
    assert run.retries == []
    assert desk.sent() == []
    assert run.seconds < 3


@pytest.mark.slow
def test_a_model_may_be_silent_for_longer_than_codex_waits(
    provider: ChatUpstream, desk: Desk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Codex gives up on a stream without events; a comment would not count (codex.md §5)."""
    with (
        running(
            tmp_path_factory.mktemp("impatient"),
            upstreams=[LiveUpstream(provider.base_url, key=UPSTREAM_KEY)],
            command=IMPATIENT,
        ) as impatient,
        Relay(impatient.port) as relay,
    ):
        waits = {"stream_idle_timeout_ms": 2500, "stream_max_retries": 0}
        codex = replace(desk.codex(), base_url=relay.base_url, provider=waits)
        run = desk.run(codex, [Wire((Head(), delta("At "), Pause(3.2), delta("last.", finish="stop")))])
    assert answered(run) == "At last."
    assert (relay.posts, len(relay.sockets)) == ((1, 0) if desk.relay is None else (0, 1))
    assert run.seconds > 3.2
    assert len(desk.sent()) == 1


def delta(content: str, *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


# Without a provider.


@every_shape
def test_the_demo_model_uses_the_shell_and_answers(desk: Desk, shape: Shape) -> None:
    codex = replace(desk.codex(shape), model="demo")
    tool = shell(shape, "echo hi > out.txt; echo written")
    run = desk.run(codex, [], prompt=f"use the tool {tool.name} with {tool.arguments}")
    assert answered(run).startswith(f"The tool {tool.name} answered: ")
    assert "written" in run.last_message
    assert (desk.workdir / "out.txt").read_text() == "hi\n"
    assert desk.sent() == []


def test_the_demo_model_remembers_a_resumed_conversation(desk: Desk) -> None:
    codex = replace(desk.codex(), model="demo")
    run = desk.run(codex, [], prompt="My name is Ada.")
    again = desk.run(codex, [], prompt="What did I say first?", resume=run.thread_id)
    assert answered(again) == 'The first thing you said was: "My name is Ada."'

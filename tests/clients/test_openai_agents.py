"""The agents SDK, with its Responses model, in front of the real server process.

The runner owns the loop here: which items it sends again, which it leaves to the server, and what it makes of every
kind of call. The witness validates all that it was answered.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any  # the SDK's generic over the type of a run's context, of which there is none

import openai
import pydantic
import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    CustomTool,
    LocalShellCommandRequest,
    LocalShellTool,
    ModelBehaviorError,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    RunResult,
    RunResultStreaming,
    ShellCallOutcome,
    ShellCommandOutput,
    ShellCommandRequest,
    ShellResult,
    ShellTool,
    SQLiteSession,
    Tool,
    ToolSearchTool,
    function_tool,
    tool_namespace,
)
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.memory import OpenAIResponsesCompactionSession
from agents.tool_context import ToolContext
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall
from openai.types.shared import Reasoning

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Trouble, Usage, answer, call, calls, text, thought
from tests.clients.witness import Exchange, Witness
from tests.live import LiveServer, LiveUpstream, running

pytestmark = pytest.mark.clients

MODEL = "test-model"
UNTRACED = RunConfig(tracing_disabled=True)


class Place(pydantic.BaseModel):
    city: str
    people: int


@function_tool
def get_weather(city: str) -> str:
    """Says what the weather is."""
    return f"sunny in {city}"


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    upstreams = [
        LiveUpstream(provider.base_url, models=(MODEL, "gpt-test")),
        LiveUpstream(name="demo", dialect="demo", models=("demo",)),
    ]
    with running(tmp_path_factory.mktemp("server"), upstreams=upstreams) as server:
        yield server


@pytest.fixture
async def client(server: LiveServer, witness: Witness) -> AsyncIterator[AsyncOpenAI]:
    async with witness.async_client(server.base_url, "any key") as client:
        yield client


@pytest.fixture
def model(client: AsyncOpenAI) -> OpenAIResponsesModel:
    return OpenAIResponsesModel(MODEL, client)


async def run(agent: Agent[Any], said: Any, *, streamed: bool, **options: Any) -> RunResult | RunResultStreaming:
    """A run to its end. `said` and the options are those of the runner."""
    if not streamed:
        return await Runner.run(agent, said, run_config=UNTRACED, **options)
    result = Runner.run_streamed(agent, said, run_config=UNTRACED, **options)
    async for _ in result.stream_events():
        pass
    return result


def asked(exchange: Exchange) -> dict[str, Any]:
    body = json.loads(exchange.request.content)
    assert isinstance(body, dict)
    return body


async def listed(client: AsyncOpenAI, result: RunResult | RunResultStreaming) -> list[str]:
    """The types of the items the last response of a run was made from, as the server kept them."""
    assert result.last_response_id is not None
    items = client.responses.input_items.list(result.last_response_id, order="asc", limit=2)
    return [item.type async for item in items]


def roles(upstream: ChatUpstream, number: int) -> list[str]:
    return [message.role for message in upstream.requests[number].chat.messages]


TWO_CITIES = answer(
    thought("Two cities."),
    text("Let me look."),
    calls(call("get_weather", '{"city":"Oslo"}', id="call_1"), call("get_weather", '{"city":"Rome"}', id="call_2")),
    usage=Usage(prompt=20, completion=10, cached=4, reasoning=3),
)
SUNNY = answer(text("All ", "sunny."), usage=Usage(prompt=50, completion=5))

both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@both_ways
async def test_a_tool_loop_runs_to_its_end(model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool) -> None:
    upstream.follow([TWO_CITIES, SUNNY])
    settings = ModelSettings(parallel_tool_calls=True, reasoning=Reasoning(effort="low"), temperature=0.2)
    agent = Agent("Herald", instructions="Be brief.", model=model, model_settings=settings, tools=[get_weather])
    result = await run(agent, "Weather in Oslo and Rome?", streamed=streamed)
    assert result.final_output == "All sunny."
    assert roles(upstream, 1) == ["system", "user", "assistant", "tool", "tool"]
    sent = upstream.requests[1].chat.messages
    assert sent[0].text == "Be brief."
    assert (sent[2].text, sent[2].reasoning_content) == ("Let me look.", "Two cities.")
    assert [message.text for message in sent[3:]] == ["sunny in Oslo", "sunny in Rome"]
    assert upstream.requests[0].chat.reasoning_effort == "low"
    usage = result.context_wrapper.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.total_tokens) == (2, 70, 15, 85)
    assert usage.input_tokens_details.cached_tokens == 4
    assert usage.output_tokens_details.reasoning_tokens == 3
    assert len({response.request_id for response in result.raw_responses} - {None}) == 2


async def test_a_streamed_run_tells_what_it_hears(model: OpenAIResponsesModel, upstream: ChatUpstream) -> None:
    upstream.follow([TWO_CITIES, SUNNY])
    result = Runner.run_streamed(Agent("Herald", model=model, tools=[get_weather]), "Weather?", run_config=UNTRACED)
    names: list[str] = []
    deltas: list[str] = []
    async for event in result.stream_events():
        if event.type == "run_item_stream_event":
            names.append(event.name)
        elif event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas.append(event.data.delta)
    assert sorted(names) == sorted(
        ["reasoning_item_created", "message_output_created", "message_output_created"]
        + ["tool_called", "tool_output"] * 2
    )
    assert deltas == ["Let me look.", "All ", "sunny."]


@both_ways
async def test_a_run_goes_on_from_a_response(
    model: OpenAIResponsesModel, witness: Witness, upstream: ChatUpstream, streamed: bool
) -> None:
    upstream.follow([answer(text("Hello, Ada.")), answer(text("You are Ada."))])
    agent = Agent("Friend", instructions="Be kind.", model=model)
    first = await run(agent, "I am Ada.", streamed=streamed)
    second = await run(agent, "Who am I?", streamed=streamed, previous_response_id=first.last_response_id)
    assert second.final_output == "You are Ada."
    assert asked(witness.exchanges[1])["previous_response_id"] == first.last_response_id
    # The history is the server's; the instructions are not part of it and come again (semantics.md §1).
    assert [item["content"] for item in asked(witness.exchanges[1])["input"]] == ["Who am I?"]
    assert [message.text for message in upstream.requests[1].chat.messages] == [
        "Be kind.",
        "I am Ada.",
        "Hello, Ada.",
        "Who am I?",
    ]


@both_ways
async def test_a_run_can_leave_its_own_history_to_the_server(
    model: OpenAIResponsesModel, witness: Witness, upstream: ChatUpstream, streamed: bool
) -> None:
    upstream.follow([TWO_CITIES, SUNNY])
    agent = Agent("Herald", model=model, tools=[get_weather])
    result = await run(agent, "Weather?", streamed=streamed, auto_previous_response_id=True)
    assert result.final_output == "All sunny."
    second = asked(witness.exchanges[1])
    assert second["previous_response_id"] == result.raw_responses[0].response_id
    assert [item["type"] for item in second["input"]] == ["function_call_output", "function_call_output"]
    assert roles(upstream, 1) == ["user", "assistant", "tool", "tool"]


@pytest.mark.parametrize("store", [True, False])
@both_ways
async def test_a_run_can_keep_its_own_history(
    model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool, store: bool
) -> None:
    upstream.follow([TWO_CITIES, SUNNY, answer(text("You are welcome."))])
    settings = ModelSettings(store=store, response_include=["reasoning.encrypted_content"])
    agent = Agent("Herald", model=model, model_settings=settings, tools=[get_weather])
    first = await run(agent, "Weather?", streamed=streamed)
    again = [*first.to_input_list(), {"role": "user", "content": "Thanks"}]
    second = await run(agent, again, streamed=streamed)
    assert second.final_output == "You are welcome."
    assert roles(upstream, 2) == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert upstream.requests[2].chat.messages[1].reasoning_content == "Two cities."


@both_ways
async def test_a_session_holds_what_was_said(
    model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool
) -> None:
    upstream.follow([TWO_CITIES, SUNNY, answer(text("You are welcome."))])
    agent = Agent("Herald", model=model, tools=[get_weather])
    session = SQLiteSession("herald")
    try:
        await run(agent, "Weather?", streamed=streamed, session=session)
        await run(agent, "Thanks", streamed=streamed, session=session)
    finally:
        session.close()
    assert roles(upstream, 2) == ["user", "assistant", "tool", "tool", "assistant", "user"]


@pytest.mark.parametrize("options", [{}, {"auto_previous_response_id": True}], ids=["own history", "server's history"])
@both_ways
async def test_an_agent_hands_over_to_another(
    model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool, options: dict[str, bool]
) -> None:
    upstream.follow([answer(calls(call("transfer_to_norwegian"))), answer(text("God dag."))])
    norwegian = Agent("Norwegian", instructions="Speak Norwegian.", model=model)
    desk = Agent("Desk", instructions="Hand over.", model=model, handoffs=[norwegian])
    result = await run(desk, "Hei!", streamed=streamed, **options)
    assert (result.last_agent.name, result.final_output) == ("Norwegian", "God dag.")
    assert [tool.function.name for tool in upstream.requests[0].chat.tools] == ["transfer_to_norwegian"]
    sent = upstream.requests[1].chat
    assert [message.role for message in sent.messages] == ["system", "user", "assistant", "tool"]
    assert sent.messages[0].text == "Speak Norwegian."
    assert sent.tools == []


@both_ways
async def test_an_agent_answers_in_a_type(model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool) -> None:
    upstream.follow([answer(text('{"city":"Oslo",', '"people":700000}'))])
    agent = Agent("Geographer", model=model, output_type=Place)
    result = await run(agent, "A city", streamed=streamed)
    assert result.final_output == Place(city="Oslo", people=700000)
    wanted = json.loads(bytes(upstream.requests[0].fields["response_format"]))
    assert wanted["json_schema"]["strict"] is True


class Editor:
    """Keeps the operations it is asked for, instead of any file."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, str, str | None]] = []

    def _keep(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        self.operations.append((operation.type, operation.path, operation.diff))
        return ApplyPatchResult("completed", "done")

    create_file = update_file = delete_file = _keep


async def upper(context: ToolContext[Any], free_text: str) -> str:
    return free_text.upper()


def shell(request: ShellCommandRequest) -> ShellResult:
    done = ShellCallOutcome("exit", 0)
    return ShellResult([ShellCommandOutput(f"ran {one}", "", done) for one in request.data.action.commands])


def local_shell(request: LocalShellCommandRequest) -> str:
    return f"ran {' '.join(request.data.action.command)}"


@pytest.mark.parametrize("options", [{}, {"auto_previous_response_id": True}], ids=["own history", "server's history"])
@both_ways
async def test_every_tool_of_the_clients_machine_runs(
    client: AsyncOpenAI, model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool, options: dict[str, bool]
) -> None:
    editor = Editor()
    patch = {"type": "update_file", "path": "a.txt", "diff": "@@\n-old\n+new\n"}
    upstream.follow(
        [
            answer(
                calls(
                    call("shell", '{"commands":["ls","pwd"]}'),
                    call("apply_patch", json.dumps(patch)),
                    call("shout", '{"input":"hello é"}'),
                )
            ),
            answer(text("Done.")),
        ]
    )
    tools: list[Tool] = [ShellTool(shell), ApplyPatchTool(editor), CustomTool("shout", "Shouts.", upper)]
    result = await run(Agent("Worker", model=model, tools=tools), "Work!", streamed=streamed, **options)
    assert result.final_output == "Done."
    assert editor.operations == [("update_file", "a.txt", "@@\n-old\n+new\n")]
    sent = upstream.requests[1].chat.messages
    assert [message.role for message in sent] == ["user", "assistant", "tool", "tool", "tool"]
    assert [json.loads(one.function.arguments) for one in sent[1].tool_calls] == [
        {"commands": ["ls", "pwd"]},
        patch,
        {"input": "hello é"},
    ]
    told = {message.tool_call_id: message.text for message in sent[2:]}
    assert "ran ls" in told["call_shell"]
    assert "ran pwd" in told["call_shell"]
    assert "done" in told["call_apply_patch"]
    assert told["call_shout"] == "HELLO É"
    kinds = ["shell_call", "apply_patch_call", "custom_tool_call"]
    assert sorted(await listed(client, result)) == sorted(["message", *kinds, *(f"{kind}_output" for kind in kinds)])


@both_ways
async def test_the_older_shell_tool_runs_too(
    client: AsyncOpenAI, model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool
) -> None:
    upstream.follow([answer(calls(call("local_shell", '{"command":["ls","-l"]}'))), answer(text("Done."))])
    agent = Agent("Worker", model=model, tools=[LocalShellTool(local_shell)])
    result = await run(agent, "Work!", streamed=streamed)
    assert result.final_output == "Done."
    assert "ran ls -l" in upstream.requests[1].chat.messages[2].text
    assert await listed(client, result) == ["message", "local_shell_call", "local_shell_call_output"]


@both_ways
async def test_deferred_tools_of_a_namespace_are_found_and_called_by_both_names(
    model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool
) -> None:
    @function_tool(defer_loading=True)
    def find(name: str) -> str:
        """Finds a person."""
        return f"{name} is here"

    searched = answer(calls(call("tool_search", '{"query":"find a person"}')))
    upstream.follow([searched, answer(calls(call("crm__find", '{"name":"Ada"}'))), answer(text("Found."))])
    tools: list[Tool] = [*tool_namespace(name="crm", description="People.", tools=[find]), ToolSearchTool()]
    result = await run(Agent("Clerk", model=model, tools=tools), "Where is Ada?", streamed=streamed)
    assert result.final_output == "Found."
    *search, item = result.raw_responses[0].output
    assert [one.type for one in search] == ["tool_search_call", "tool_search_output"]
    assert isinstance(item, ResponseFunctionToolCall)
    assert (item.namespace, item.name) == ("crm", "find")
    assert upstream.requests[2].chat.messages[4].text == "Ada is here"
    assert upstream.requests[2].chat.messages[3].tool_calls[0].function.name == "crm__find"


# What the server keeps for a run


@both_ways
async def test_a_run_is_held_in_a_conversation(
    client: AsyncOpenAI, model: OpenAIResponsesModel, witness: Witness, upstream: ChatUpstream, streamed: bool
) -> None:
    upstream.follow([TWO_CITIES, SUNNY, answer(text("You are welcome."))])
    agent = Agent("Herald", instructions="Be brief.", model=model, tools=[get_weather])
    conversation = await client.conversations.create()
    first = await run(agent, "Weather?", streamed=streamed, conversation_id=conversation.id)
    second = await run(agent, "Thanks", streamed=streamed, conversation_id=conversation.id)
    assert (first.final_output, second.final_output) == ("All sunny.", "You are welcome.")
    # Every call says only what is new.
    bodies = [asked(exchange) for exchange in witness.exchanges if exchange.request.url.path.endswith("/responses")]
    assert [body["conversation"] for body in bodies] == [conversation.id] * 3
    assert [[item.get("type", "message") for item in body["input"]] for body in bodies] == [
        ["message"],
        ["function_call_output"] * 2,
        ["message"],
    ]
    assert roles(upstream, 2) == ["system", "user", "assistant", "tool", "tool", "assistant", "user"]
    items = client.conversations.items.list(conversation.id, order="asc", limit=3)
    assert [item.type async for item in items] == [
        *("message", "reasoning", "message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message", "message", "message"),
    ]


@both_ways
async def test_a_conversation_is_a_session(
    client: AsyncOpenAI, model: OpenAIResponsesModel, upstream: ChatUpstream, streamed: bool
) -> None:
    upstream.follow([TWO_CITIES, SUNNY, answer(text("You are welcome."))])
    agent = Agent("Herald", model=model, tools=[get_weather])
    session = OpenAIConversationsSession(openai_client=client)
    await run(agent, "Weather?", streamed=streamed, session=session)
    await run(agent, "Thanks", streamed=streamed, session=session)
    assert roles(upstream, 2) == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert session.session_id.startswith("conv_")
    items = [dict(item) for item in await session.get_items()]
    assert [item["type"] for item in items] == [
        *("message", "reasoning", "message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message", "message", "message"),
    ]
    # A session that is opened again has them all.
    again = OpenAIConversationsSession(conversation_id=session.session_id, openai_client=client)
    assert await again.get_items() == items
    upstream.follow([answer(text("Goodbye."))])
    await run(agent, "Bye", streamed=streamed, session=again)
    assert roles(upstream, 3) == [*roles(upstream, 2), "assistant", "user"]


async def test_items_of_a_session_are_added_popped_and_cleared(client: AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    assert await session.get_items() == []
    assert await session.pop_item() is None
    # Twenty at a time, and more than one page of them.
    await session.add_items([{"role": "user", "content": f"word {number}"} for number in range(45)])

    def words(items: list[Any]) -> list[str]:
        return [part["text"] for item in items for part in item["content"]]

    assert words(await session.get_items()) == [f"word {number}" for number in range(45)]
    assert words(await session.get_items(limit=22)) == [f"word {number}" for number in range(23, 45)]
    popped = [await session.pop_item() for _ in range(3)]
    assert words(popped) == ["word 44", "word 43", "word 42"]
    assert len(await session.get_items()) == 42
    conversation_id = session.session_id
    await session.clear_session()
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(conversation_id)
    assert await session.get_items() == []
    assert session.session_id != conversation_id


async def test_a_session_is_compacted_by_the_server(
    client: AsyncOpenAI, model: OpenAIResponsesModel, upstream: ChatUpstream
) -> None:
    upstream.follow([TWO_CITIES, SUNNY, answer(text("THE SUMMARY")), answer(text("You are welcome."))])
    agent = Agent("Herald", model=model, tools=[get_weather])
    memory = SQLiteSession("herald")
    session = OpenAIResponsesCompactionSession(
        "herald", memory, client=client, model="gpt-test", compaction_mode="input"
    )
    try:
        await run(agent, "Weather?", streamed=False, session=session)
        await session.run_compaction({"force": True})
        assert [dict(item)["type"] for item in await session.get_items()] == ["message", "compaction"]
        result = await run(agent, "Thanks", streamed=False, session=session)
    finally:
        memory.close()
    assert result.final_output == "You are welcome."
    words = [message.text for message in upstream.requests[3].chat.messages]
    assert (words[0], words[-1]) == ("Weather?", "Thanks")
    assert any("THE SUMMARY" in one for one in words)


@pytest.mark.parametrize("options", [{}, {"auto_previous_response_id": True}], ids=["own history", "server's history"])
async def test_a_streamed_run_may_be_made_in_the_background(
    client: AsyncOpenAI, model: OpenAIResponsesModel, upstream: ChatUpstream, options: dict[str, bool]
) -> None:
    """Streamed alone: the SDK does not poll, and takes what is queued for the end."""
    upstream.follow([TWO_CITIES, SUNNY])
    settings = ModelSettings(extra_args={"background": True})
    agent = Agent("Herald", model=model, model_settings=settings, tools=[get_weather])
    result = await run(agent, "Weather?", streamed=True, **options)
    assert result.final_output == "All sunny."
    assert roles(upstream, 1) == ["user", "assistant", "tool", "tool"]
    for one in result.raw_responses:
        assert one.response_id is not None
        kept = await client.responses.retrieve(one.response_id)
        assert (kept.background, kept.status) == (True, "completed")


# What goes wrong


@both_ways
async def test_an_unknown_model_ends_the_run(client: AsyncOpenAI, upstream: ChatUpstream, streamed: bool) -> None:
    agent = Agent("Nobody", model=OpenAIResponsesModel("nobody", client))
    with pytest.raises(openai.BadRequestError) as raised:
        await run(agent, "Hello", streamed=streamed)
    assert raised.value.code == "model_not_found"
    assert upstream.requests == []


async def test_an_answer_that_breaks_off_ends_the_run(model: OpenAIResponsesModel, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("Half an ", "answer"), trouble=Trouble("cut", after=2))])
    with pytest.raises(ModelBehaviorError, match=r"response\.failed.*broke off"):
        await run(Agent("Herald", model=model), "Hello", streamed=True)


async def test_leaving_a_streamed_run_frees_the_provider(model: OpenAIResponsesModel, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("One", "two"), trouble=Trouble("stall", after=2))])
    result = Runner.run_streamed(Agent("Herald", model=model), "Count", run_config=UNTRACED)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            result.cancel()
    assert upstream.requests[0].left.wait(1)


# The model inside


@both_ways
async def test_the_demo_model_runs_an_agent(client: AsyncOpenAI, streamed: bool) -> None:
    demo = OpenAIResponsesModel("demo", client)
    clerk = Agent("Clerk", model=demo, tools=[get_weather])
    desk = Agent("Desk", model=demo, handoffs=[clerk])
    looked = await run(
        clerk, 'call get_weather with {"city": "Oslo"}', streamed=streamed, auto_previous_response_id=True
    )
    assert looked.final_output == "The tool get_weather answered: sunny in Oslo"
    handed = await run(desk, "use transfer_to_clerk", streamed=streamed)
    assert handed.last_agent.name == "Clerk"
    typed = await run(Agent("Geographer", model=demo, output_type=Place), "A city", streamed=streamed)
    assert isinstance(typed.final_output, Place)

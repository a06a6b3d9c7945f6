"""The agents SDK over its WebSocket transport, in front of the real server process.

One connection carries all that a model is asked, one request after the other. A relay stands in between: what the
runner sends is looked at there, and everything it was answered is validated against the SDK's models.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any  # the SDK's generic over the type of a run's context, of which there is none

import pydantic
import pytest
from agents import (
    Agent,
    CustomTool,
    ModelBehaviorError,
    ModelSettings,
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
    function_tool,
    responses_websocket_session,
)
from agents.models.openai_responses import OpenAIResponsesWSModel, ResponsesWebSocketError
from agents.tool_context import ToolContext
from openai import AsyncOpenAI

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Trouble, Usage, answer, call, calls, text, thought
from tests.clients.relay import Relay, Said
from tests.clients.witness import check_messages
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
        LiveUpstream(provider.base_url, models=(MODEL,)),
        LiveUpstream(name="demo", dialect="demo", models=("demo",)),
    ]
    with running(tmp_path_factory.mktemp("server"), upstreams=upstreams) as server:
        yield server


@pytest.fixture
def relay(server: LiveServer) -> Iterator[Relay]:
    with Relay(server.port) as relay:
        yield relay
    assert relay.posts == 0
    for socket in relay.sockets:
        check_messages(socket.told)


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=relay.base_url, api_key="any key", max_retries=0) as client:
        yield client


@pytest.fixture
async def model(client: AsyncOpenAI) -> AsyncIterator[OpenAIResponsesWSModel]:
    model = OpenAIResponsesWSModel(MODEL, client)
    yield model
    await model.close()


async def run(agent: Agent[Any], said: Any, *, streamed: bool, **options: Any) -> RunResult | RunResultStreaming:
    """A run to its end. `said` and the options are those of the runner."""
    if not streamed:
        return await Runner.run(agent, said, run_config=UNTRACED, **options)
    result = Runner.run_streamed(agent, said, run_config=UNTRACED, **options)
    async for _ in result.stream_events():
        pass
    return result


def asked(relay: Relay) -> list[Said]:
    """What was sent, all on one connection."""
    [socket] = relay.sockets
    return socket.creates


def roles(upstream: ChatUpstream, number: int) -> list[str]:
    return [message.role for message in upstream.requests[number].chat.messages]


def words(upstream: ChatUpstream, number: int) -> list[str]:
    return [message.text for message in upstream.requests[number].chat.messages]


TWO_CITIES = answer(
    thought("Two cities."),
    text("Let me look."),
    calls(call("get_weather", '{"city":"Oslo"}', id="call_1"), call("get_weather", '{"city":"Rome"}', id="call_2")),
    usage=Usage(prompt=20, completion=10, cached=4, reasoning=3),
)
SUNNY = answer(text("All ", "sunny."), usage=Usage(prompt=50, completion=5))

both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@both_ways
async def test_a_tool_loop_runs_to_its_end_on_one_connection(
    model: OpenAIResponsesWSModel, relay: Relay, upstream: ChatUpstream, streamed: bool
) -> None:
    upstream.follow([TWO_CITIES, SUNNY])
    agent = Agent("Herald", instructions="Be brief.", model=model, tools=[get_weather])
    result = await run(agent, "Weather in Oslo and Rome?", streamed=streamed)
    assert result.final_output == "All sunny."
    assert [said.previous_response_id for said in asked(relay)] == [None, None]
    assert roles(upstream, 1) == ["system", "user", "assistant", "tool", "tool"]
    sent = upstream.requests[1].chat.messages
    assert (sent[2].text, sent[2].reasoning_content) == ("Let me look.", "Two cities.")
    assert [message.text for message in sent[3:]] == ["sunny in Oslo", "sunny in Rome"]
    usage = result.context_wrapper.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.total_tokens) == (2, 70, 15, 85)


@pytest.mark.parametrize("store", [True, False], ids=["stored", "not stored"])
@both_ways
async def test_a_run_leaves_its_history_to_the_connection(
    model: OpenAIResponsesWSModel, relay: Relay, upstream: ChatUpstream, streamed: bool, store: bool
) -> None:
    """Without `store` this is what only a connection can hold (websocket.md §5)."""
    upstream.follow([TWO_CITIES, SUNNY, answer(text("You are welcome."))])
    agent = Agent("Herald", model=model, model_settings=ModelSettings(store=store), tools=[get_weather])
    first = await run(agent, "Weather?", streamed=streamed, auto_previous_response_id=True)
    second = await run(agent, "Thanks", streamed=streamed, previous_response_id=first.last_response_id)
    assert (first.final_output, second.final_output) == ("All sunny.", "You are welcome.")
    said = asked(relay)
    assert [one.kinds for one in said] == [["user"], ["function_call_output"] * 2, ["user"]]
    ids = [made.id for made in relay.sockets[0].ended]
    assert [one.previous_response_id for one in said] == [None, *ids[:-1]]
    assert roles(upstream, 2) == ["user", "assistant", "tool", "tool", "assistant", "user"]


async def test_several_turns_keep_their_own_history(
    model: OpenAIResponsesWSModel, relay: Relay, upstream: ChatUpstream
) -> None:
    upstream.follow([TWO_CITIES, SUNNY, answer(text("Welcome.")), answer(text("Goodbye."))])
    agent = Agent("Herald", model=model, tools=[get_weather])
    session = SQLiteSession("herald")
    try:
        for prompt in ("Weather?", "Thanks", "Bye"):
            result = await run(agent, prompt, streamed=True, session=session)
    finally:
        session.close()
    assert result.final_output == "Goodbye."
    assert len(asked(relay)) == 4
    assert roles(upstream, 3) == ["user", "assistant", "tool", "tool", *("assistant", "user") * 2]


async def test_a_session_of_the_sdk_holds_one_connection_for_all_its_runs(relay: Relay, upstream: ChatUpstream) -> None:
    """An agent that is a tool of another goes over it, too."""
    upstream.follow(
        [
            answer(calls(call("ask_clerk", '{"input":"Weather in Oslo?"}', id="call_1"))),
            answer(calls(call("get_weather", '{"city":"Oslo"}', id="call_2"))),
            answer(text("It is sunny.")),
            answer(text("The clerk says: sunny.")),
            answer(text("You are welcome.")),
        ]
    )
    clerk = Agent("Clerk", model=MODEL, tools=[get_weather])
    desk = Agent("Desk", model=MODEL, tools=[clerk.as_tool("ask_clerk", "Asks the clerk.")])
    async with responses_websocket_session(base_url=relay.base_url, api_key="any key") as session:
        first = await session.run(desk, "Weather?")
        second = session.run_streamed(desk, "Thanks", previous_response_id=first.last_response_id)
        async for _ in second.stream_events():
            pass
    assert (first.final_output, second.final_output) == ("The clerk says: sunny.", "You are welcome.")
    assert len(asked(relay)) == 5
    assert words(upstream, 2)[-1] == "sunny in Oslo"
    assert words(upstream, 3)[-1] == "It is sunny."
    assert words(upstream, 4)[-2:] == ["The clerk says: sunny.", "Thanks"]


@both_ways
async def test_tools_of_the_clients_machine_run(
    model: OpenAIResponsesWSModel, relay: Relay, upstream: ChatUpstream, streamed: bool
) -> None:
    async def upper(context: ToolContext[Any], free_text: str) -> str:
        return free_text.upper()

    def shell(request: ShellCommandRequest) -> ShellResult:
        done = ShellCallOutcome("exit", 0)
        return ShellResult([ShellCommandOutput(f"ran {one}", "", done) for one in request.data.action.commands])

    both = calls(call("shell", '{"commands":["ls","pwd"]}'), call("shout", '{"input":"hello é"}'))
    upstream.follow([answer(both), answer(text("Done."))])
    tools: list[Tool] = [ShellTool(shell), CustomTool("shout", "Shouts.", upper)]
    settings = ModelSettings(store=False)
    agent = Agent("Worker", model=model, model_settings=settings, tools=tools)
    result = await run(agent, "Work!", streamed=streamed, auto_previous_response_id=True)
    assert result.final_output == "Done."
    assert sorted(asked(relay)[1].kinds) == ["custom_tool_call_output", "shell_call_output"]
    told = {message.tool_call_id: message.text for message in upstream.requests[1].chat.messages[2:]}
    assert "ran ls" in told["call_shell"]
    assert told["call_shout"] == "HELLO É"


async def test_an_agent_hands_over_and_answers_in_a_type(
    model: OpenAIResponsesWSModel, relay: Relay, upstream: ChatUpstream
) -> None:
    upstream.follow([answer(calls(call("transfer_to_geographer"))), answer(text('{"city":"Oslo",', '"people":7}'))])
    geographer = Agent("Geographer", model=model, output_type=Place)
    result = await run(Agent("Desk", model=model, handoffs=[geographer]), "A city", streamed=True)
    assert (result.last_agent.name, result.final_output) == ("Geographer", Place(city="Oslo", people=7))
    assert len(asked(relay)) == 2


@both_ways
async def test_an_error_ends_the_run_and_not_the_next(
    client: AsyncOpenAI, relay: Relay, upstream: ChatUpstream, streamed: bool
) -> None:
    """The SDK lets go of the connection (websocket.md §3)."""
    upstream.follow([answer(text("Hello."))])
    nobody = OpenAIResponsesWSModel("nobody", client)
    with pytest.raises(ResponsesWebSocketError) as raised:
        await run(Agent("Nobody", model=nobody), "Hello", streamed=streamed)
    assert (raised.value.code, raised.value.event_type) == ("model_not_found", "error")
    model = OpenAIResponsesWSModel(MODEL, client)
    assert (await run(Agent("Herald", model=model), "Hello", streamed=streamed)).final_output == "Hello."
    await model.close()
    await nobody.close()
    assert len(upstream.requests) == 1


async def test_an_answer_that_breaks_off_ends_the_run(
    model: OpenAIResponsesWSModel, relay: Relay, upstream: ChatUpstream
) -> None:
    upstream.follow([answer(text("Half an ", "answer"), trouble=Trouble("cut", after=2)), answer(text("Better."))])
    agent = Agent("Herald", model=model)
    with pytest.raises(ModelBehaviorError, match=r"response\.failed.*broke off"):
        await run(agent, "Hello", streamed=True)
    # The connection is none the worse for it.
    assert (await run(agent, "Hello", streamed=True)).final_output == "Better."
    assert len(asked(relay)) == 2


async def test_leaving_a_streamed_run_frees_the_provider(model: OpenAIResponsesWSModel, upstream: ChatUpstream) -> None:
    upstream.follow([answer(text("One", "two"), trouble=Trouble("stall", after=2)), answer(text("Hello."))])
    agent = Agent("Herald", model=model)
    result = Runner.run_streamed(agent, "Count", run_config=UNTRACED)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            result.cancel()
    assert upstream.requests[0].left.wait(1)
    assert (await run(agent, "Hello", streamed=True)).final_output == "Hello."


@both_ways
async def test_the_demo_model_runs_an_agent(client: AsyncOpenAI, streamed: bool) -> None:
    demo = OpenAIResponsesWSModel("demo", client)
    clerk = Agent("Clerk", model=demo, model_settings=ModelSettings(store=False), tools=[get_weather])
    looked = await run(
        clerk, 'call get_weather with {"city": "Oslo"}', streamed=streamed, auto_previous_response_id=True
    )
    await demo.close()
    assert looked.final_output == "The tool get_weather answered: sunny in Oslo"

"""What twenty tool calls in a row cost, by how the client goes on from one to the next, in one run.

An agent with instructions and tools of 30 KB reads one file of 8 KB after the other. The provider is asked the same in
every way; the figures are the client's wall time and the processor time of the server's process, each the best of some
rounds.
"""

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp
import pytest
from websockets.asyncio.client import connect

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Step, answer, call, calls, text
from rejoinder.conformance.upstreams.sent import SentChat
from tests.live import LiveServer, LiveUpstream, running
from tests.server.site import Json, output_of, user
from tests.server.test_pace import spent

TURNS = 20
ROUNDS = 3
FILE = "x = 1  # a line of a file\n" * 300
TOOLS: Json = [
    {"type": "function", "name": f"tool{number}", "description": "d" * 900, "parameters": {"type": "object"}}
    for number in range(20)
]
REQUEST: Json = {"model": "test-model", "instructions": "i" * 10_000, "tools": TOOLS, "stream": True}


def script(request: SentChat) -> Step:
    """One more call until there were enough."""
    made = sum(message.role == "tool" for message in request.messages)
    if made == TURNS:
        return answer(text("done"))
    return answer(calls(call("tool0", f'{{"file":{made}}}', id=f"call_{made}")))


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream(script) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running(tmp_path_factory.mktemp("chain"), upstreams=[LiveUpstream(provider.base_url)], covered=False) as live:
        yield live


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds."""

    wall: float
    processor: float


Turn = Callable[[Json], Awaitable[Json]]
"""Sends one request and gives the finished response."""


async def chain(ask: Turn, *, whole: bool, store: bool) -> None:
    """Twenty calls and their outputs. `whole`: the client says everything again each time."""
    said: list[Json] = [user("read the files")]
    fields: Json = {}
    for _ in range(TURNS):
        response = await ask({**REQUEST, **fields, "store": store, "input": said})
        [made] = response["output"]
        output = output_of(made["call_id"], FILE)
        if whole:
            said = [*said, made, output]
        else:
            said, fields = [output], {"previous_response_id": response["id"]}
    response = await ask({**REQUEST, **fields, "store": store, "input": said})
    assert response["output"][0]["content"][0]["text"] == "done"


async def over_http(server: LiveServer, *, whole: bool, store: bool) -> None:
    async with aiohttp.ClientSession() as client:

        async def ask(body: Json) -> Json:
            async with client.post(f"{server.base_url}/responses", json=body) as reply:
                last = (await reply.read()).split(b"\n\n")[-3]
            return json.loads(last.partition(b"\ndata: ")[2])["response"]

        await chain(ask, whole=whole, store=store)


async def over_websocket(server: LiveServer, *, store: bool) -> None:
    url = f"{server.base_url}/responses".replace("http", "ws", 1)
    async with connect(url, compression=None, max_size=None, proxy=None) as connection:

        async def ask(body: Json) -> Json:
            await connection.send(json.dumps({"type": "response.create", **body}))
            while True:
                said = await connection.recv()
                if '"type":"response.completed"' in said[:40]:
                    return json.loads(said)["response"]

        await chain(ask, whole=False, store=store)


WAYS: dict[str, Callable[[LiveServer], Awaitable[None]]] = {
    "HTTP, whole history": lambda server: over_http(server, whole=True, store=False),
    "HTTP, previous_response_id": lambda server: over_http(server, whole=False, store=True),
    "WebSocket, stored": lambda server: over_websocket(server, store=True),
    "WebSocket, not stored": lambda server: over_websocket(server, store=False),
}


async def measured(server: LiveServer, way: Callable[[LiveServer], Awaitable[None]]) -> Cost:
    began, before = time.perf_counter(), spent(server)
    await way(server)
    return Cost((time.perf_counter() - began) * 1000, (spent(server) - before) * 1000)


def best(costs: Sequence[Cost]) -> Cost:
    return Cost(min(cost.wall for cost in costs), min(cost.processor for cost in costs))


@pytest.mark.alone
@pytest.mark.slow
async def test_twenty_tool_calls_are_the_same_to_the_provider_and_cost_no_more_over_a_websocket(
    server: LiveServer, provider: ChatUpstream
) -> None:
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    asked: dict[str, list[bytes]] = {}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            provider.requests.clear()
            costs[name].append(await measured(server, way))
            asked[name] = [request.body for request in provider.requests]
    for name, found in costs.items():
        cost = best(found)
        print(f"{name}: wall {cost.wall:.0f} ms, processor {cost.processor:.0f} ms")
    first, *others = asked.values()
    assert len(first) == TURNS + 1
    assert all(other == first for other in others), "the provider cannot tell the ways apart"
    # Twice is far from what is measured, so that a busy machine does not decide.
    whole, local = best(costs["HTTP, whole history"]), best(costs["WebSocket, not stored"])
    assert local.processor < 2 * whole.processor

"""What a streamed chunk costs the server's process, dialect by dialect, in one run.

Every provider streams the same text, each piece in a write of its own, to many streams at once. The figures are ratios
of processor time, so the machine does not matter; what else it does at the same time matters little.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TypeAlias

import aiohttp
import pytest

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.script import answer, text
from tests.live import LiveServer, LiveUpstream, running

Dialect: TypeAlias = Literal["chat", "anthropic", "gemini", "responses"]
Kind: TypeAlias = type[ChatUpstream] | type[AnthropicUpstream] | type[GeminiUpstream] | type[ResponsesUpstream]

KINDS: dict[Dialect, tuple[Kind, str]] = {
    "chat": (ChatUpstream, "test-model"),
    "anthropic": (AnthropicUpstream, "claude-sonnet-4-5"),
    "gemini": (GeminiUpstream, "gemini-3-flash"),
    "responses": (ResponsesUpstream, "gpt-5.4"),
}

CHUNKS = 150
STREAMS = 16
GAP = 0.004
ROUNDS = 3

BAR = 1.3
"""Times the cost of a chunk through the chat dialect."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    script = answer(text(*(f"word{number} " for number in range(CHUNKS))), gap=GAP)
    with ExitStack() as stack:
        upstreams: list[LiveUpstream] = []
        for dialect, (kind, model) in KINDS.items():
            provider = kind(lambda request: script, models=[model])
            stack.enter_context(provider)
            options = {"vendor": "openai"} if dialect == "responses" else {}
            upstreams.append(LiveUpstream(provider.base_url, name=dialect, dialect=dialect, options=options))
        yield stack.enter_context(running(tmp_path_factory.mktemp("pace"), upstreams=upstreams, covered=False))


def spent(server: LiveServer) -> float:
    """Seconds of processor time of the server's loop."""
    return int(Path(f"/proc/{server.pid}/schedstat").read_text().split()[0]) / 1e9


async def streamed(server: LiveServer, dialect: Dialect) -> float:
    """Microseconds of processor time for each chunk."""
    body = {"model": f"{dialect}/{KINDS[dialect][1]}", "input": "hi", "stream": True, "store": False}
    before = spent(server)
    async with aiohttp.ClientSession() as client:
        answers = await asyncio.gather(*(_read(client, server, body) for _ in range(STREAMS)))
    cost = (spent(server) - before) / (CHUNKS * STREAMS) * 1e6
    assert all(said.count(b"response.output_text.delta\n") == CHUNKS for said in answers)
    assert all(json.dumps(f"word{CHUNKS - 1} ")[1:-1].encode() in said for said in answers)
    return cost


async def _read(client: aiohttp.ClientSession, server: LiveServer, body: object) -> bytes:
    async with client.post(f"{server.base_url}/responses", json=body) as reply:
        assert reply.status == 200
        return await reply.read()


@pytest.mark.alone
@pytest.mark.slow
async def test_a_chunk_costs_about_the_same_through_every_dialect(server: LiveServer) -> None:
    rounds: dict[Dialect, list[float]] = {dialect: [] for dialect in KINDS}
    for _ in range(ROUNDS):
        for dialect in KINDS:
            rounds[dialect].append(await streamed(server, dialect))
    costs = {dialect: min(found) for dialect, found in rounds.items()}
    print({dialect: f"{cost:.1f} us, {cost / costs['chat']:.2f} x" for dialect, cost in costs.items()})
    assert all(cost <= BAR * costs["chat"] for cost in costs.values()), costs

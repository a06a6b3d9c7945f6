import pytest

from rejoinder.conformance.answer import answer_in
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.samples import (
    begun,
    called,
    called_in_events,
    cut,
    cut_in_events,
    plain,
    replies,
    streamed,
    streams,
)
from rejoinder.conformance.server import Server
from tests.conformance.little_server import MODEL, LittleServer, serving


async def test_a_server_with_tools_is_looked_at_twice() -> None:
    async with serving(LittleServer()) as url, Server.at(url, MODEL, key=None, timeout=5) as server:
        assert await replies(server) == [await server.once(plain), await server.once(called)]
        assert await streams(server) == [await server.once(streamed), await server.once(called_in_events)]
        assert [answer_in(reply).output[-1].type for reply in await replies(server)] == ["message", "function_call"]
        assert [stream.answer.output[-1].type for stream in await streams(server)] == ["message", "function_call"]


async def test_a_server_without_tools_is_looked_at_once() -> None:
    async with (
        serving(LittleServer(refuses="tools")) as url,
        Server.at(url, MODEL, key=None, timeout=5) as server,
    ):
        assert await replies(server) == [await server.once(plain)]
        assert await streams(server) == [await server.once(streamed)]
        with pytest.raises(NotApplicable):
            await called(server)
        with pytest.raises(NotApplicable):
            await called_in_events(server)


async def test_an_answer_can_be_under_way_or_cut() -> None:
    async with serving(LittleServer()) as url, Server.at(url, MODEL, key=None, timeout=5) as server:
        assert answer_in(await begun(server)).status == "queued"
        assert answer_in(await cut(server)).status == "incomplete"
        assert (await cut_in_events(server)).answer.status == "incomplete"

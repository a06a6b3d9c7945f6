import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.need import (
    BACKGROUND,
    COMPACTION,
    CONVERSATIONS,
    COUNTING,
    KEY,
    WEBSOCKET,
    Need,
    check_needs,
)
from rejoinder.conformance.server import Server
from tests.conformance.little_server import MODEL, Exchange, Fault, LittleServer, Refused, serving


@asynccontextmanager
async def at(fault: Fault, *, key: str | None = None, asks: str | None = None) -> AsyncIterator[Server]:
    async with (
        serving(LittleServer(fault, key=asks)) as url,
        Server.at(url, MODEL, key=key, timeout=5) as server,
    ):
        yield server


async def lacking(need: Need, fault: Fault) -> str:
    """Why a server with this fault lacks it."""
    async with at(fault) as server:
        with pytest.raises(NotApplicable) as caught:
            await check_needs([need], server)
        return str(caught.value)


def changed(change: Callable[[Exchange], object]) -> Fault:
    def told(it: Exchange) -> None:
        if it.asked != {}:
            change(it)

    return Fault(told=told)


async def test_a_server_is_asked_once() -> None:
    asked: list[str] = []

    async def look(server: Server) -> None:
        asked.append(server.model)
        raise NotApplicable("never")

    async with at(Fault()) as server:
        for _ in range(2):
            with pytest.raises(NotApplicable, match="never"):
                await check_needs([Need("nothing", look)], server)
        await check_needs([], server)
    assert asked == [MODEL]


async def test_without_a_key_nothing_is_known_of_keys() -> None:
    assert await lacking(KEY, Fault()) == "no key was given, so none is known to be asked for"
    async with at(Fault(), key="sk-little") as server:
        await check_needs([KEY], server)


async def test_background_is_refused_by_its_name_or_ignored_or_there() -> None:
    def refuse(it: Exchange) -> None:
        if "background" in it.body:
            raise Refused("not here", "background")

    def keep(it: Exchange) -> None:
        it.told["background"] = True

    assert await lacking(BACKGROUND, Fault(asked=refuse)) == "the server refuses 'background': not here"
    assert await lacking(BACKGROUND, Fault()) == "the server answers a background request as any other"
    async with at(changed(keep)) as server:
        await check_needs([BACKGROUND], server)


async def test_who_fails_has_it_and_breaks_the_rules() -> None:
    def fail(it: Exchange) -> None:
        it.status, it.told = 500, {"error": {"message": "oh"}}

    async with at(Fault(told=fail)) as server:
        await check_needs([BACKGROUND, CONVERSATIONS], server)


@pytest.mark.parametrize("need", [CONVERSATIONS, COMPACTION, COUNTING])
async def test_a_path_is_there_or_not(need: Need) -> None:
    paths: list[str] = []

    def found(it: Exchange) -> None:
        paths.append(f"{it.path} {json.dumps(it.asked)}")
        it.status = 400

    async with at(Fault(told=found)) as server:
        await check_needs([need], server)
    assert [path.partition(" ")[2] for path in paths] == ["{}"]
    path = paths[0].partition(" ")[0]
    assert (await lacking(need, Fault())).startswith(f'POST {path} is not there: status 404: {{"error"')


async def test_a_websocket_opens_or_does_not() -> None:
    async with at(Fault()) as server:
        await check_needs([WEBSOCKET], server)

    async with at(Fault(), asks="sk-other") as server:
        await check_needs([WEBSOCKET], server)  # 401: it is there, and something is wrong with the key


async def test_a_server_may_have_no_websocket() -> None:
    little = LittleServer(sockets=False)
    async with serving(little) as url, Server.at(url, MODEL, key=None, timeout=5) as server:
        with pytest.raises(NotApplicable, match="there is no WebSocket: status 404"):
            await check_needs([WEBSOCKET], server)

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.need import (
    BACKGROUND,
    BACKGROUND_STREAM,
    CANCEL,
    COMPACTION,
    CONVERSATIONS,
    COUNTING,
    DELETION,
    INPUT_ITEMS,
    KEY,
    LANES,
    OTHER_KEY,
    PAIRED,
    RETRIEVAL,
    STEERING,
    STORE,
    UPGRADE,
    WARM_UP,
    WEBSOCKET,
    Need,
    check_needs,
)
from rejoinder.conformance.paired import Provider
from rejoinder.conformance.samples import GREETING
from rejoinder.conformance.server import Server
from tests.conformance.judging import in_responses
from tests.conformance.little_server import MODEL, Exchange, Fault, LittleServer, Refused, serving
from tests.conformance.spoken import deaf, hearing


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


def absent(method: str, end: str) -> Fault:
    """There is no such path."""

    def asked(it: Exchange) -> None:
        if it.method == method and it.path.endswith(end):
            raise Refused("nothing there", status=404)

    return Fault(asked=asked)


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

    def ignore(it: Exchange) -> None:
        it.body.pop("background", None)

    assert await lacking(BACKGROUND, Fault(asked=refuse)) == "the server refuses 'background': not here"
    assert await lacking(BACKGROUND, Fault(asked=ignore)) == "the server answers a background request as any other"
    async with at(Fault()) as server:
        await check_needs([BACKGROUND], server)


async def test_who_fails_has_it_and_breaks_the_rules() -> None:
    def fail(it: Exchange) -> None:
        it.status, it.told = 500, {"error": {"message": "oh"}}

    async with at(Fault(told=fail)) as server:
        await check_needs([BACKGROUND, CONVERSATIONS], server)


@pytest.mark.parametrize(
    ("need", "body"), [(CONVERSATIONS, {}), (COMPACTION, {"model": MODEL, "input": GREETING}), (COUNTING, {})]
)
async def test_a_path_is_there_or_not(need: Need, body: object) -> None:
    asked: list[tuple[str, object]] = []

    def found(it: Exchange) -> None:
        asked.append((it.path, it.asked))
        it.status = 400

    async with at(Fault(told=found)) as server:
        await check_needs([need], server)
    [(path, told)] = asked
    assert told == body
    assert (await lacking(need, absent("POST", path))).startswith(f"POST {path} is not there: status 404: ")


@pytest.mark.parametrize(
    ("need", "method", "end"),
    [(INPUT_ITEMS, "GET", "/input_items"), (CANCEL, "POST", "/cancel"), (DELETION, "DELETE", "")],
)
async def test_what_can_be_done_with_a_response_is_there_or_not(need: Need, method: str, end: str) -> None:
    async with at(Fault()) as server:
        await check_needs([need], server)
    told = f"{method} /responses/…{end} is not there: status 404: "
    assert (await lacking(need, absent(method, end))).startswith(told)


async def test_a_server_stores_nothing_when_it_says_so() -> None:
    async with at(Fault()) as server:
        await check_needs([STORE], server)
    assert (await lacking(STORE, in_responses(lambda response: response.update(store=False)))).startswith(
        "the server stores nothing"
    )


async def test_the_other_key_has_to_be_one() -> None:
    assert await lacking(OTHER_KEY, Fault()) == "no key of somebody else was given"
    for other, lacks in (("sk-other", False), ("sk-wrong", True)):
        little = LittleServer(key="sk-little", other_key="sk-other")
        async with serving(little) as url, Server.at(url, MODEL, key="sk-little", timeout=5, other_key=other) as server:
            if not lacks:
                await check_needs([OTHER_KEY], server)
                continue
            with pytest.raises(NotApplicable, match="the server does not accept the other key: status 401"):
                await check_needs([OTHER_KEY], server)


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


def without(name: str) -> Fault:
    """Ignores a parameter over sockets."""
    return hearing(lambda it: True, lambda it: it.body.pop(name, None))


def refusing_by_name(name: str) -> Fault:
    def refuse(it: Exchange) -> None:
        raise Refused("not here", name)

    return hearing(lambda it: name in it.body, refuse)


@pytest.mark.parametrize(
    ("need", "name", "ignored"),
    [
        (WARM_UP, "generate", "the server answers a warm-up as any other request"),
        (LANES, "stream_id", "the server answers in a lane as it does without one"),
    ],
)
async def test_a_parameter_of_a_socket_is_refused_by_its_name_or_ignored_or_there(
    need: Need, name: str, ignored: str
) -> None:
    assert await lacking(need, without(name)) == ignored
    assert await lacking(need, refusing_by_name(name)) == f"the server refuses '{name}': not here"
    async with at(Fault()) as server:
        await check_needs([need], server)


async def test_steering_is_unknown_or_ignored_or_there() -> None:
    def silent(it: Exchange) -> None:
        if it.method == "STEER":
            it.events = []

    unknown = "the server does not know 'response.steer': it says"
    assert await lacking(STEERING, deaf(lambda it: it.body["type"] == "response.steer")) == f"{unknown} 'error'"
    assert await lacking(STEERING, Fault(said=silent)) == f"{unknown} 'response.completed'"
    async with at(Fault()) as server:
        await check_needs([STEERING], server)


async def test_a_provider_of_ours_is_there_or_not() -> None:
    assert await lacking(PAIRED, Fault()) == "needs --paired"
    with Provider.listening("chat", 0) as provider:
        async with Server.at("http://127.0.0.1:1/v1", MODEL, key=None, timeout=1, provider=provider) as server:
            await check_needs([PAIRED], server)


async def test_a_background_stream_may_be_refused() -> None:
    def refuse(it: Exchange) -> None:
        if it.body.get("background") and it.body.get("stream"):
            raise Refused("'stream' and 'background' do not go together")

    assert await lacking(BACKGROUND_STREAM, Fault(asked=refuse)) == (
        "the server refuses 'stream': 'stream' and 'background' do not go together"
    )


async def test_a_socket_that_says_nothing_is_none() -> None:
    def hang_up(it: Exchange) -> None:
        it.events = [None]

    assert (await lacking(WEBSOCKET, Fault(said=hang_up))).startswith("nothing is answered over a WebSocket: ")
    async with at(Fault(said=hang_up)) as server:
        await check_needs([UPGRADE], server)


async def test_what_is_stored_is_found_or_not() -> None:
    async with at(Fault()) as server:
        await check_needs([RETRIEVAL], server)

    def lose(it: Exchange) -> None:
        if it.method == "GET":
            raise Refused("nowhere", status=404)

    assert (await lacking(RETRIEVAL, Fault(asked=lose))).startswith("GET /responses/… is not there: status 404: ")

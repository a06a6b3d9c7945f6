"""What a server may lack without breaking a rule.

A server lacks something when it says so: a path that is not there, a parameter refused by its name. One that tries and
fails has it, and breaks the rules.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, skip_if_refused
from rejoinder.conformance.errors import Broken, NoAnswer, NotApplicable, UpgradeRefused
from rejoinder.conformance.samples import GREETING, UNKNOWN, begun, begun_in_events, plain
from rejoinder.conformance.server import Reply, Server
from rejoinder.conformance.talk import Turn, answered, talking

_NOT_THERE = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class Need:
    """`look` raises NotApplicable, with the reason, when the server lacks it. A server is asked once."""

    name: str
    look: Callable[[Server], Awaitable[None]]


async def check_needs(needs: Iterable[Need], server: Server) -> None:
    """Raises NotApplicable when the server lacks one of these."""
    for need in needs:
        with suppress(Broken):
            await server.once(need.look)


async def _key(server: Server) -> None:
    if not server.has_key:
        raise NotApplicable("no key was given, so none is known to be asked for")


async def _other_key(server: Server) -> None:
    if not server.has_other_key:
        raise NotApplicable("no key of somebody else was given")
    reply = await server.as_another().post(input=GREETING)
    if reply.status in (401, 403):
        raise NotApplicable(f"the server does not accept the other key: {reply.excerpt}")


async def _paired(server: Server) -> None:
    if server.provider is None:
        raise NotApplicable("needs --paired")


class _Echo(msgspec.Struct):
    background: bool | None = None
    store: bool | None = None


async def _store(server: Server) -> None:
    if read(_Echo, (await server.once(plain)).body, "a response").store is False:
        raise NotApplicable("the server stores nothing: it answers a request that says nothing of it with store false")


async def _retrieval(server: Server) -> None:
    answer = answer_in(await server.once(plain))
    # One rule says that what is stored can be asked for.
    _skip_if_absent(await server.get(f"/responses/{answer.id}"), "GET /responses/…")


async def _background(server: Server) -> None:
    reply = await server.once(begun)
    skip_if_refused(reply, ("background",))
    if not read(_Echo, reply.expect(200).body, "a response").background:
        raise NotApplicable("the server answers a background request as any other")


async def _background_stream(server: Server) -> None:
    skip_if_refused(await server.once(begun_in_events), ("background", "stream"))


def _path(path: str) -> Callable[[Server], Awaitable[None]]:
    async def look(server: Server) -> None:
        # Empty, so that it costs nothing where the path is there.
        _skip_if_absent(await server.send("POST", path, b"{}"), f"POST {path}")

    return look


def _of_a_response(method: str, suffix: str) -> Callable[[Server], Awaitable[None]]:
    """Of one that is there: what is said of one that is not cannot be told from what is said of a path that is not."""

    async def look(server: Server) -> None:
        answer = answer_in(await server.once(plain))
        _skip_if_absent(await server.send(method, f"/responses/{answer.id}{suffix}"), f"{method} /responses/…{suffix}")

    return look


async def _deletion(server: Server) -> None:
    answer = await create(server, input=GREETING)
    _skip_if_absent(await server.delete(f"/responses/{answer.id}"), "DELETE /responses/…")


async def _compaction(server: Server) -> None:
    # A server that passes on what it does not know may have the path, and nobody behind it.
    body = msgspec.json.encode({"model": server.model, "input": GREETING})
    _skip_if_absent(await server.send("POST", "/responses/compact", body), "POST /responses/compact")


def _skip_if_absent(reply: Reply, what: str) -> None:
    if reply.status in _NOT_THERE:
        raise NotApplicable(f"{what} is not there: {reply.excerpt}")


async def _upgrade(server: Server) -> None:
    try:
        async with server.socket():
            pass
    except UpgradeRefused as refused:
        if refused.status in (400, 426, *_NOT_THERE):
            raise NotApplicable(f"there is no WebSocket: status {refused.status}") from None
        raise


async def _websocket(server: Server) -> None:
    await server.once(_upgrade)
    try:
        await server.once(answered)
    except NoAnswer as none:
        # One rule says so; a hundred more would say no more.
        raise NotApplicable(f"nothing is answered over a WebSocket: {none}") from None


async def _warm_up(server: Server) -> None:
    async with talking(server) as talk:
        turn = await talk.ask(input=GREETING, store=False, generate=False)
        if turn.unless_refused("generate").answer.output:
            raise NotApplicable("the server answers a warm-up as any other request")


async def _lanes(server: Server) -> None:
    async with talking(server) as talk:
        await talk.socket.create(input=GREETING, store=False, stream_id="a-lane")
        messages = await talk.messages(1)
    skip_if_refused(Turn(messages).reply, ("stream_id",))
    if all(message.stream_id is None for message in messages):
        raise NotApplicable("the server answers in a lane as it does without one")


async def _steering(server: Server) -> None:
    async with talking(server) as talk:
        await talk.steer(UNKNOWN, "Stop.")
        # Who ignores it answers this; who does not may also say that it knows no such message.
        await talk.socket.create(input=GREETING, store=False)
        messages = await talk.messages(1)
    if not any(message.kind.startswith("steer.") for message in messages):
        raise NotApplicable(f"the server does not know 'response.steer': it says '{messages[-1].type}'")


KEY = Need("key", _key)
OTHER_KEY = Need("other-key", _other_key)
PAIRED = Need("paired", _paired)
STORE = Need("store", _store)
RETRIEVAL = Need("retrieval", _retrieval)
DELETION = Need("deletion", _deletion)
INPUT_ITEMS = Need("input-items", _of_a_response("GET", "/input_items"))
CANCEL = Need("cancel", _of_a_response("POST", "/cancel"))
BACKGROUND = Need("background", _background)
BACKGROUND_STREAM = Need("background-stream", _background_stream)
CONVERSATIONS = Need("conversations", _path("/conversations"))
COMPACTION = Need("compaction", _compaction)
COUNTING = Need("counting", _path("/responses/input_tokens"))
UPGRADE = Need("upgrade", _upgrade)
WEBSOCKET = Need("websocket", _websocket)
WARM_UP = Need("warm-up", _warm_up)
LANES = Need("lanes", _lanes)
STEERING = Need("steering", _steering)

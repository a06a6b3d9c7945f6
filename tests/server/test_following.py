import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import HttpError, answer, text
from rejoinder.server import following
from rejoinder.server.following import frames
from rejoinder.store import Record, Store, VolatileBackend
from rejoinder.store import runs as rows
from tests.server.site import Site, body_of, events_of, services_in, site

OWNER, ID = "ann", "resp_1"
FRAMES = [b"0\n\n", b"1\n\n", b"2\n\n", b"3\n\n", b"4\n\n"]
DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A finished response whose stream has three pieces."""
    store = Store(VolatileBackend())
    record = Record(ID, None, 1, "in_progress", b"{}", [], [], journaled=True)
    await store.save(record, owner=OWNER, beside=rows.begun(rows.Run(OWNER, ID, b"{}")))
    for number, (first, last) in enumerate(((0, 2), (2, 3), (3, 5))):
        await store.append(ID, rows.told(ID, number, first, FRAMES[first:last], owner=OWNER), owner=OWNER)
    yield store
    await store.close()


@pytest.mark.parametrize("after", [None, 0, 1, 2, 3, 4, 99])
async def test_what_follows_an_event_follows_whole_and_nothing_before_it(store: Store, after: int | None) -> None:
    told = [chunk async for chunk in frames(store, ID, owner=OWNER, run=None, after=after)]
    assert b"".join(told) == b"".join([*FRAMES[0 if after is None else after + 1 :], DONE])
    assert b"" not in told


@pytest.fixture
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream(lambda request: answer(text("a ", "b ", "c"), gap=0.05)) as upstream:
        yield upstream


async def test_the_head_of_a_stream_says_what_its_turn_does_without(provider: ChatUpstream, tmp_path: Path) -> None:
    async with site(services_in(tmp_path, provider.base_url)) as here:
        reply = await here.create(input="hi", background=True, stream=True, image={"context_compression": "auto"})
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.notes == ["image: unknown or without effect here"]
        assert reply.headers["x-request-id"].startswith("req_")


async def test_a_refusal_before_the_beginning_is_a_status(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([HttpError(400, "no such thing")])
    async with site(services_in(tmp_path, provider.base_url)) as here:
        reply = await here.create(input="hi", stream=True, headers={"idempotency-key": "k"})
        assert (reply.status, reply.headers["content-type"]) == (400, "application/json")


async def test_a_follower_that_does_not_read_is_dropped_and_the_response_is_made(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SLOW_CLIENT", 0.2)
    large = "x" * 400_000
    provider.follow(lambda request: answer(text(*[large] * 40)))
    async with site(services_in(tmp_path, provider.base_url)) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port, limit=2**16)
        body = body_of(input="hi", background=True, stream=True)
        head = b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        start = await reader.readuntil(b"response.queued")
        response_id = json.loads(start.partition(b"\ndata: ")[2].partition(b"\n")[0])["response"]["id"]
        reply = await ended(here, response_id)
        assert reply["status"] == "completed"
        writer.close()


async def ended(here: Site, response_id: str) -> dict[str, object]:
    async with asyncio.timeout(20):
        while True:
            response = (await here.get(response_id)).json
            assert isinstance(response, dict)
            if response["status"] not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(0.05)


async def test_a_head_request_is_answered_with_a_head(provider: ChatUpstream, tmp_path: Path) -> None:
    async with site(services_in(tmp_path, provider.base_url)) as here:
        events = events_of((await here.create(input="hi", background=True, stream=True)).body)
        path = f"/v1/responses/{events[0]['response']['id']}?stream=true"
        reply = await here.ask("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")

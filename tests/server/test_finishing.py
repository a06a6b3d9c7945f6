"""Turns whose clients leave, where the settings let them finish (`on_disconnect`)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Action, Answer, Pause, Trouble, answer, text
from rejoinder.conformance.upstreams.sent import SentChat
from tests.server.site import Json, Site, body_of, services_in, site

WORDS = ("One ", "two ", "three.")


@dataclass(frozen=True)
class Late:
    """An answer that comes whole, after a while."""

    inner: Answer

    def actions(self, request: SentChat) -> Iterator[Action]:
        yield Pause(0.4)
        yield from self.inner.actions(request)


@pytest.fixture
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream(lambda request: Late(answer(text(*WORDS), gap=0.05))) as upstream:
        yield upstream


@pytest.fixture
async def here(provider: ChatUpstream, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path, provider.base_url, server={"on_disconnect": "finish"})) as running:
        yield running


async def conversation(here: Site) -> str:
    reply = await here.ask("POST", "/v1/conversations", b"{}")
    conversation_id = reply.json["id"]
    assert isinstance(conversation_id, str)
    return conversation_id


async def said_in(here: Site, conversation_id: str) -> list[str]:
    """What was said, once nothing goes on there any more."""
    async with asyncio.timeout(5):
        while True:
            items: list[Json] = (await here.ask("GET", f"/v1/conversations/{conversation_id}/items?order=asc")).json[
                "data"
            ]
            if items:
                return [item["content"][0]["text"] for item in items]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_is_finished_and_kept_without_its_client(provider: ChatUpstream, here: Site, stream: bool) -> None:
    talk = await conversation(here)
    turn = asyncio.create_task(here.create(input="hi", conversation=talk, stream=stream))
    await asyncio.to_thread(provider.wait, 1)
    await asyncio.sleep(0.15)
    turn.cancel()
    assert await said_in(here, talk) == ["hi", "".join(WORDS)]
    assert not provider.requests[-1].left.is_set()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_stays_is_answered_as_ever(here: Site, stream: bool) -> None:
    reply = await here.create(input="hi", stream=stream)
    response = reply.events[-1]["response"] if stream else reply.json
    assert response["output"][0]["content"][0]["text"] == "".join(WORDS)


async def test_a_plain_turn_that_fails_without_its_client_is_in_the_log(provider: ChatUpstream, here: Site) -> None:
    provider.follow([Late(answer(text(*WORDS), trouble=Trouble("cut", 3)))])
    with capture_logs() as logs:
        turn = asyncio.create_task(here.create(input="hi"))
        await asyncio.to_thread(provider.wait, 1)
        await asyncio.sleep(0.15)
        turn.cancel()
        await asyncio.sleep(0.6)
    assert "a turn whose client had left failed" in [entry["event"] for entry in logs]


async def test_a_long_answer_waits_for_nobody_once_its_client_has_left(provider: ChatUpstream, here: Site) -> None:
    large = "x" * 300_000
    provider.follow([answer(text(*[large] * 30))])
    talk = await conversation(here)
    body = body_of(input="hi", conversation=talk, stream=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port, limit=2**16)
    writer.write(b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"response.output_text.delta")
    writer.transport.abort()
    assert await said_in(here, talk) == ["hi", large * 30]

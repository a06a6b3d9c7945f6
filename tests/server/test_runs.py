import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Prompt, Reader
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Answer, HttpError, Trouble, answer, call, calls, silence, text
from rejoinder.server import following, journal, runs, turn
from rejoinder.server.services import Services
from rejoinder.store import Change, StoreError
from rejoinder.store import runs as rows
from tests.server.site import (
    TERMINAL,
    WEATHER,
    Gate,
    Json,
    Reply,
    Site,
    body_of,
    events_of,
    gated,
    output_of,
    services_in,
    site,
)

ANN, BOB = "key-of-ann", "key-of-bob"
KEYS = {"ann": ANN, "bob": BOB}
WORDS = ("One ", "two ", "three ", "four.")


@pytest.fixture
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream(lambda request: answer(text(*WORDS))) as upstream:
        yield upstream
    assert upstream.objections == []


@pytest.fixture
async def here(provider: ChatUpstream, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path, provider.base_url)) as running:
        yield running


def stuck(*pieces: str) -> Answer:
    """An answer that begins and does not end."""
    return answer(text(*pieces), trouble=Trouble("stall", len(pieces) + 1))


async def begun(here: Site, **fields: object) -> str:
    """The id of a background response."""
    reply = await here.ask("POST", "/v1/responses", body_of(background=True, **fields))
    assert reply.status == 200, reply.body
    assert (reply.json["status"], reply.json["background"], reply.json["output"]) == ("queued", True, [])
    response_id = reply.json["id"]
    assert isinstance(response_id, str)
    return response_id


async def became(here: Site, response_id: str, *statuses: str) -> Json:
    """The response once it has one of these statuses."""
    async with asyncio.timeout(10):
        while (reply := await here.get(response_id)).json.get("status") not in statuses:
            assert reply.status == 200, reply.body
            await asyncio.sleep(0.01)
    return reply.json


async def ended(here: Site, response_id: str) -> Json:
    return await became(here, response_id, "completed", "incomplete", "failed", "cancelled")


async def cancel(here: Site, response_id: str) -> Reply:
    return await here.ask("POST", f"/v1/responses/{response_id}/cancel")


@asynccontextmanager
async def following_of(
    here: Site, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream that is read by the test, as far as it wants."""
    url = f"http://127.0.0.1:{here.port}/v1/responses{path}"
    async with here.client.request(method, url, data=body, headers=headers) as response:
        assert response.status == 200, await response.read()
        yield response


async def frame_of(response: aiohttp.ClientResponse, kind: str) -> Json:
    """Read on until an event of this type."""
    async with asyncio.timeout(10):
        while True:
            frame = await response.content.readuntil(b"\n\n")
            if frame.startswith(f"event: {kind}\n".encode()):
                return json.loads(frame.partition(b"\ndata: ")[2])


def told(events: list[Json]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def check_background(events: list[Json]) -> None:
    """The grammar of events.md §4 for a response that waited for its turn."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [kind for kind in kinds if kind in TERMINAL] == [kinds[-1]]
    assert [event["response"]["status"] for event in events[:3]] == ["queued", "queued", "in_progress"]


# A life in the background


async def test_a_background_response_is_queued_then_made_and_then_there(provider: ChatUpstream, here: Site) -> None:
    provider.follow([stuck("half")])
    response_id = await begun(here, input="hello")
    assert (await became(here, response_id, "in_progress"))["output"] == []
    await cancel(here, response_id)
    provider.follow([answer(text(*WORDS))])
    response_id = await begun(here, input="hello", metadata={"a": "b"})
    response = await ended(here, response_id)
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "".join(WORDS)
    assert (response["background"], response["metadata"]) == (True, {"a": "b"})
    listed = (await here.get(f"{response_id}/input_items")).json["data"]
    assert [item["content"] for item in listed] == [[{"type": "input_text", "text": "hello"}]]


async def test_a_background_response_can_be_continued_once_it_is_over(provider: ChatUpstream, here: Site) -> None:
    provider.follow([answer(calls(call("weather", '{"city":"Oslo"}', id="call_1"))), answer(text("Cold."))])
    first = await begun(here, input="weather?", tools=[WEATHER])
    await ended(here, first)
    second = await begun(here, input=[output_of("call_1", "-3")], previous_response_id=first, tools=[WEATHER])
    assert (await ended(here, second))["output"][0]["content"][0]["text"] == "Cold."
    assert [message.role for message in provider.requests[-1].chat.messages] == ["user", "assistant", "tool"]


async def test_an_unfinished_or_cancelled_response_is_no_parent(provider: ChatUpstream, here: Site) -> None:
    provider.follow(lambda request: stuck("half"))
    response_id = await begun(here, input="hello")
    for _ in range(2):
        reply = await here.create(input="on", previous_response_id=response_id)
        assert (reply.status, reply.json["error"]["code"]) == (400, "previous_response_not_found")
        await cancel(here, response_id)


async def test_what_is_wrong_with_a_background_request_is_told_at_once_and_leaves_nothing(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    async with site(services) as here:
        for fields in ({"previous_response_id": "resp_unknown"}, {"model": None}, {"tools": [{"type": "mcp"}]}):
            for stream in (False, True):
                body = body_of(**{"background": True, "stream": stream, "input": "hi", **fields})
                reply = await here.ask("POST", "/v1/responses", body)
                assert reply.status == 400
        assert (gate.commits, provider.requests) == (0, [])


async def test_a_refusal_by_the_provider_is_a_failed_response(provider: ChatUpstream, here: Site) -> None:
    provider.follow(lambda request: HttpError(429, "slow down", headers={"retry-after": "7"}))
    response = await ended(here, await begun(here, input="hello"))
    assert (response["status"], response["error"]["code"]) == ("failed", "rate_limit_exceeded")
    reply = await here.create(input="hello", background=True, stream=True)
    events = reply.events
    check_background(events)
    assert events[-1]["type"] == "response.failed"


async def test_what_must_not_be_stored_is_in_memory_for_a_while_and_nowhere_else(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    async with site(services) as here:
        response_id = await begun(here, input="secret", store=False)
        assert (await ended(here, response_id))["status"] == "completed"
        streamed = await here.create(input="secret", store=False, background=True, stream=True)
        other = streamed.events[0]["response"]["id"]
        assert (await here.get(f"{other}?stream=true")).body == streamed.body
        assert (await here.get(f"{response_id}/input_items")).json["data"][0]["content"][0]["text"] == "secret"
        reply = await here.create(input="on", previous_response_id=response_id)
        assert reply.json["error"]["code"] == "previous_response_not_found"
        assert (await here.delete(response_id)).json["deleted"] is True
        assert (await here.get(response_id)).status == 404
        assert gate.commits == 0


async def test_so_many_are_made_at_once_and_the_others_wait(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AT_ONCE", 1)
    provider.follow([stuck("half"), answer(text("at last"))])
    async with site(services_in(tmp_path, provider.base_url)) as here:
        first = await begun(here, input="first")
        await became(here, first, "in_progress")
        second, third = await begun(here, input="second"), await begun(here, input="third")
        await asyncio.sleep(0.05)
        assert [(await here.get(one)).json["status"] for one in (second, third)] == ["queued", "queued"]
        # One that waits can be cancelled, too, and never asks anybody.
        assert (await cancel(here, second)).json["status"] == "cancelled"
        await cancel(here, first)
        assert (await ended(here, third))["status"] == "completed"
    assert [request.chat.messages[-1].text for request in provider.requests] == ["first", "third"]


async def test_an_owner_has_so_many_unfinished_ones_and_no_more(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PER_OWNER", 2)
    provider.follow(lambda request: silence())
    async with site(services_in(tmp_path, provider.base_url, keys=KEYS)) as here:
        mine = [await here.create(key=ANN, input="x", background=True) for _ in range(3)]
        assert [reply.status for reply in mine] == [200, 200, 429]
        assert mine[2].json["error"]["code"] == "rate_limit_exceeded"
        assert mine[2].headers["retry-after"] == "10"
        other = await here.create(key=BOB, input="x", background=True)
        assert other.status == 200
        for key, reply in ((ANN, mine[0]), (ANN, mine[1]), (BOB, other)):
            await here.ask("POST", f"/v1/responses/{reply.json['id']}/cancel", key=key)
        again = await here.create(key=ANN, input="x", background=True)
        assert again.status == 200
        await here.ask("POST", f"/v1/responses/{again.json['id']}/cancel", key=ANN)


# Streams


async def test_a_stream_is_the_same_bytes_from_every_place_while_it_runs_and_afterwards(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    provider.follow(lambda request: answer(text(*(f"{n} " for n in range(40))), gap=0.01))
    async with site(services_in(tmp_path, provider.base_url)) as here:
        async with following_of(here, "POST", "", body_of(input="hi", background=True, stream=True)) as first:
            created = await first.content.readuntil(b"\n\n")
            response_id = json.loads(created.partition(b"\ndata: ")[2])["response"]["id"]
            live = [asyncio.create_task(here.get(f"{response_id}?stream=true&starting_after={n}")) for n in (0, 3, 20)]
            whole = created + await first.content.read()
        events = events_of(whole)
        check_background(events)
        assert told(events) == "".join(f"{n} " for n in range(40))
        frames = whole.split(b"\n\n")
        for n, one in zip((0, 3, 20), await asyncio.gather(*live), strict=True):
            assert one.body == b"\n\n".join(frames[n + 1 :])
    async with site(services_in(tmp_path, provider.base_url)) as here:  # and after a restart
        assert (await here.get(f"{response_id}?stream=true")).body == whole
        for n in range(len(events) + 2):
            assert (await here.get(f"{response_id}?stream=true&starting_after={n}")).body == b"\n\n".join(
                frames[min(n + 1, len(events)) :]
            )


async def test_a_client_that_leaves_at_the_first_event_stops_nothing(provider: ChatUpstream, here: Site) -> None:
    provider.follow(lambda request: answer(text(*WORDS), gap=0.05))
    async with following_of(here, "POST", "", body_of(input="hi", background=True, stream=True)) as response:
        response_id = (await frame_of(response, "response.created"))["response"]["id"]
    assert (await ended(here, response_id))["status"] == "completed"
    assert told((await here.get(f"{response_id}?stream=true")).events) == "".join(WORDS)


async def test_a_follower_that_leaves_disturbs_no_other(provider: ChatUpstream, here: Site) -> None:
    provider.follow(lambda request: answer(text(*WORDS), gap=0.05))
    first = asyncio.create_task(here.create(input="hi", background=True, stream=True))
    sent = await asyncio.to_thread(provider.wait, 1)
    assert sent.chat.messages[-1].text == "hi"
    [place] = [*_runs_of(here)]
    async with following_of(here, "GET", f"/{place}?stream=true") as second:
        await frame_of(second, "response.in_progress")
    assert told((await first).events) == "".join(WORDS)


def _runs_of(here: Site) -> Iterator[str]:
    return (response_id for _, response_id in here.runs._runs)


async def test_only_what_was_streamed_can_be_streamed_again(provider: ChatUpstream, here: Site) -> None:
    response_id = await begun(here, input="hello")
    foreground = (await here.create(input="hello", stream=True)).events[-1]["response"]["id"]
    for one in (response_id, foreground):
        reply = await here.get(f"{one}?stream=true")
        assert (reply.status, reply.json["error"]["param"]) == (400, "stream")


async def test_a_response_of_another_owner_is_as_unknown_as_none(provider: ChatUpstream, tmp_path: Path) -> None:
    async with site(services_in(tmp_path, provider.base_url, keys=KEYS)) as here:
        provider.follow(lambda request: stuck("half"))
        reply = await here.create(key=ANN, input="mine", background=True)
        response_id, unknown = reply.json["id"], "resp_" + "0" * 32

        async def seen(one: str) -> list[tuple[int, bytes]]:
            path = f"/v1/responses/{one}"
            asked = [("GET", path), ("GET", f"{path}?stream=true"), ("POST", f"{path}/cancel"), ("DELETE", path)]
            replies = [await here.ask(method, where, key=BOB) for method, where in asked]
            return [(reply.status, reply.body.replace(one.encode(), b"ID")) for reply in replies]

        assert await seen(response_id) == await seen(unknown)
        mine = await here.get(response_id, key=ANN)
        assert mine.json["status"] in ("queued", "in_progress")
        await here.ask("POST", f"/v1/responses/{response_id}/cancel", key=ANN)


# Cancel and delete


async def test_a_cancelled_response_keeps_what_it_came_to_and_its_provider_is_left(
    provider: ChatUpstream, here: Site
) -> None:
    provider.follow([stuck("Half a", " story")])
    async with following_of(here, "POST", "", body_of(input="hi", background=True, stream=True)) as response:
        created = await frame_of(response, "response.created")
        await frame_of(response, "response.output_text.delta")
        response_id = created["response"]["id"]
        reply = await cancel(here, response_id)
        last = await frame_of(response, "response.incomplete")
        assert await response.content.read() == b"data: [DONE]\n\n"
    assert (reply.status, reply.json["status"], reply.json["completed_at"]) == (200, "cancelled", None)
    assert reply.json["output"][0]["content"][0]["text"].startswith("Half a")
    assert last["response"] == reply.json == (await here.get(response_id)).json
    check_background((await here.get(f"{response_id}?stream=true")).events)
    assert (await cancel(here, response_id)).body == reply.body
    assert await asyncio.to_thread(provider.requests[-1].left.wait, 1)


async def test_only_background_responses_can_be_cancelled_and_finished_ones_stay_as_they_are(here: Site) -> None:
    foreground = (await here.create(input="hello")).json["id"]
    reply = await cancel(here, foreground)
    assert (reply.status, reply.json["error"]["message"]) == (400, "Cannot cancel a synchronous response.")
    finished = await begun(here, input="hello")
    response = await ended(here, finished)
    reply = await cancel(here, finished)
    assert (reply.status, reply.json) == (200, response)
    assert (await cancel(here, "resp_unknown")).status == 404


async def test_whoever_wins_a_race_between_cancel_and_the_end_everybody_is_told_the_same(
    provider: ChatUpstream, here: Site
) -> None:
    statuses = set()
    for n in range(30):
        provider.follow([answer(text("a", "b", "c"), gap=0.002)])
        reply = await here.create(input="hi", background=True)
        await asyncio.sleep(n / 1500)
        told_by_cancel = [one.json for one in await asyncio.gather(*(cancel(here, reply.json["id"]) for _ in range(2)))]
        seen = (await here.get(reply.json["id"])).json
        assert told_by_cancel == [seen, seen]
        statuses.add(seen["status"])
    assert statuses == {"cancelled", "completed"}, "the race had one winner only"


async def test_a_running_response_that_is_deleted_is_ended_first_and_writes_no_more(
    provider: ChatUpstream, here: Site
) -> None:
    provider.follow([stuck("half")])
    async with following_of(here, "POST", "", body_of(input="hi", background=True, stream=True)) as response:
        response_id = (await frame_of(response, "response.created"))["response"]["id"]
        await frame_of(response, "response.output_text.delta")
        assert (await here.delete(response_id)).json == {"id": response_id, "object": "response", "deleted": True}
        assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
    await asyncio.sleep(0.1)
    for reply in (await here.get(response_id), await here.get(f"{response_id}?stream=true")):
        assert reply.status == 404
    assert (await cancel(here, response_id)).status == 404


# Idempotency keys


async def keyed(here: Site, key: str, *, owner: str | None = None, **fields: object) -> Reply:
    return await here.create(key=owner, headers={"idempotency-key": key}, **{"input": "hi", **fields})


async def test_the_same_key_again_is_the_same_response_and_not_a_second_one(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    async with site(services_in(tmp_path, provider.base_url)) as here:
        plain = [await keyed(here, "plain") for _ in range(2)]
        streamed = [await keyed(here, "streamed", stream=True) for _ in range(2)]
        volatile = [await keyed(here, "volatile", store=False, stream=True) for _ in range(2)]
    async with site(services_in(tmp_path, provider.base_url)) as here:
        plain.append(await keyed(here, "plain"))
        streamed.append(await keyed(here, "streamed", stream=True))
    for replies in (plain, streamed, volatile):
        assert [reply.status for reply in replies] == [200] * len(replies)
        assert len({reply.body for reply in replies}) == 1
        assert [reply.headers.get("idempotent-replay") for reply in replies] == [None, *["true"] * (len(replies) - 1)]
    assert len(provider.requests) == 3
    kinds = [event["type"] for event in streamed[0].events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert streamed[0].events[-1]["response"]["background"] is False


@pytest.mark.parametrize("stream", [False, True])
async def test_many_calls_with_one_key_are_one_turn(provider: ChatUpstream, here: Site, stream: bool) -> None:
    provider.follow([answer(text(*WORDS), gap=0.02)])
    replies = await asyncio.gather(*(keyed(here, "k", stream=stream) for _ in range(8)))
    assert len({reply.body for reply in replies}) == 1
    assert sorted(reply.headers.get("idempotent-replay", "") for reply in replies) == ["", *["true"] * 7]
    assert len(provider.requests) == 1


async def test_a_key_with_another_body_is_refused_and_keys_of_others_are_their_own(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    async with site(services_in(tmp_path, provider.base_url, keys=KEYS)) as here:
        assert (await keyed(here, "k", owner=ANN)).status == 200
        for fields in ({"input": "other"}, {"stream": True}, {"store": False}):
            reply = await keyed(here, "k", owner=ANN, **fields)
            assert (reply.status, reply.json["error"]["code"]) == (422, "idempotency_key_reused")
        assert (await keyed(here, "k", owner=BOB, input="other")).status == 200


@pytest.mark.parametrize("key", ["", "k" * 256, "with space", "é"])
async def test_a_key_that_is_none_is_named(here: Site, key: str) -> None:
    reply = await here.ask("POST", "/v1/responses", body_of(input="hi"), headers={"idempotency-key": key})
    assert (reply.status, reply.json["error"]["param"]) == (400, "Idempotency-Key")


async def test_two_keys_are_one_too_many(here: Site) -> None:
    url = f"http://127.0.0.1:{here.port}/v1/responses"
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    async with here.client.post(url, data=body_of(input="hi"), headers=headers) as response:
        assert response.status == 400


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_is_refused_leaves_its_key_free(provider: ChatUpstream, here: Site, stream: bool) -> None:
    bad = await keyed(here, "k", stream=stream, previous_response_id="resp_unknown")
    assert (bad.status, bad.json["error"]["code"]) == (400, "previous_response_not_found")
    provider.follow([HttpError(429, "slow down"), answer(text("now"))])
    refused = await keyed(here, "k", stream=stream)
    assert refused.status == 429
    served = await keyed(here, "k", stream=stream)
    assert (served.status, served.headers.get("idempotent-replay")) == (200, None)
    assert len(provider.requests) == 2


async def test_a_failure_that_may_pass_is_tried_again_and_one_that_stays_is_told_again(
    provider: ChatUpstream, here: Site
) -> None:
    provider.follow([answer(text("half"), trouble=Trouble("cut", 2)), answer(text("whole"))])
    first, second = [await keyed(here, "passes", stream=True) for _ in range(2)]
    assert [reply.events[-1]["type"] for reply in (first, second)] == ["response.failed", "response.completed"]
    overflow = HttpError(400, "too long: maximum context length is 10 tokens", code="context_length_exceeded")
    provider.follow([overflow, answer(text("never"))])
    again = [await keyed(here, "stays", background=True, stream=True) for _ in range(2)]
    assert again[0].body == again[1].body
    assert again[0].events[-1]["response"]["error"]["code"] == "context_length_exceeded"


async def test_a_key_is_forgotten_after_a_day_and_with_its_response(provider: ChatUpstream, tmp_path: Path) -> None:
    now = [1_000_000.0]
    services = replace(services_in(tmp_path, provider.base_url), clock=lambda: now[0])
    async with site(services) as here:
        first = await keyed(here, "k")
        await here.delete(first.json["id"])
        second = await keyed(here, "k")
        now[0] += rows.KEPT_ONCE + 1
        third = await keyed(here, "k", input="another question")
        assert third.status == 200
        assert len({reply.json["id"] for reply in (first, second, third)}) == 3


async def test_a_background_response_is_found_by_its_key_whatever_it_is_at(provider: ChatUpstream, here: Site) -> None:
    provider.follow([stuck("half")])
    first = await keyed(here, "k", background=True)
    assert first.json["status"] == "queued"
    await became(here, first.json["id"], "in_progress")
    second = await keyed(here, "k", background=True)
    assert (second.json["id"], second.json["status"]) == (first.json["id"], "in_progress")
    await cancel(here, first.json["id"])
    third = await keyed(here, "k", background=True)
    assert (third.json["id"], third.json["status"]) == (first.json["id"], "cancelled")


@pytest.mark.parametrize("stream", [False, True])
async def test_when_all_who_wait_for_a_keyed_turn_leave_it_ends_and_the_key_is_worth_another_try(
    provider: ChatUpstream, here: Site, stream: bool
) -> None:
    provider.follow([stuck("half"), answer(text("whole"))])
    waiting = [asyncio.create_task(keyed(here, "k", stream=stream)) for _ in range(2)]
    await asyncio.to_thread(provider.wait, 1)
    await asyncio.sleep(0.1)
    waiting[0].cancel()
    await asyncio.sleep(0.1)
    assert not provider.requests[-1].left.is_set(), "the other one still waits"
    waiting[1].cancel()
    assert await asyncio.to_thread(provider.requests[-1].left.wait, 1)
    reply = await keyed(here, "k", stream=stream)
    assert reply.status == 200
    assert b"whole" in reply.body


async def test_a_keyed_turn_is_finished_without_its_client_where_the_settings_say_so(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    provider.follow([answer(text(*WORDS), gap=0.05)])
    services = services_in(tmp_path, provider.base_url, server={"on_disconnect": "finish"})
    async with site(services) as here:
        waiting = asyncio.create_task(keyed(here, "k"))
        await asyncio.to_thread(provider.wait, 1)
        waiting.cancel()
        reply = await keyed(here, "k")
        assert (reply.status, reply.headers["idempotent-replay"]) == (200, "true")
        assert reply.json["status"] == "completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_keyed_turn_can_be_deleted_before_it_is_answered(
    provider: ChatUpstream, here: Site, stream: bool
) -> None:
    provider.follow([silence(), answer(text("whole"))])
    waiting = asyncio.create_task(keyed(here, "k", stream=stream))
    await asyncio.to_thread(provider.wait, 1)
    [response_id] = [*_runs_of(here)]
    assert (await here.delete(response_id)).status == 200
    gone = await waiting
    assert gone.status == 409
    assert gone.json["error"]["message"] == "The response was cancelled before it was answered."
    assert (await keyed(here, "k", stream=stream)).headers.get("idempotent-replay") is None


async def test_a_keyed_turn_that_is_deleted_while_it_is_answered_is_told_as_cancelled(
    provider: ChatUpstream, here: Site
) -> None:
    provider.follow([stuck("half")])
    waiting = asyncio.create_task(keyed(here, "k"))
    await asyncio.to_thread(provider.wait, 1)
    await asyncio.sleep(0.1)
    [response_id] = [*_runs_of(here)]
    assert (await here.delete(response_id)).status == 200
    assert (await waiting).json["status"] == "cancelled"
    assert (await here.get(response_id)).status == 404


# Crashes


def image(directory: Path, name: str) -> Path:
    """The store as a power cut at this moment would leave it."""
    copy = directory.parent / name
    shutil.copytree(directory, copy)
    return copy


@asynccontextmanager
async def crashed(
    provider: ChatUpstream, directory: Path, act: Callable[[Site], object], **server: object
) -> AsyncIterator[Site]:
    """A server on what another one left when it was cut off after `act`."""
    first = directory / "first"
    first.mkdir()
    async with site(services_in(first, provider.base_url, server=server)) as here:
        result = act(here)
        assert asyncio.iscoroutine(result)
        await result
        image(first, "second")
        for response_id in list(_runs_of(here)):
            await here.delete(response_id)
    async with site(services_in(directory / "second", provider.base_url, server=server)) as here:
        yield here


class Left:
    """What is known of a response that was interrupted."""

    id = ""
    told = b""


async def test_an_interrupted_response_has_failed_after_the_next_start(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([silence()])
    left = Left()

    async def act(here: Site) -> None:
        left.id = await begun(here, input="hello")
        await became(here, left.id, "in_progress")

    async with crashed(provider, tmp_path, act) as here:
        response = (await here.get(left.id)).json
        assert response["status"] == "failed"
        assert response["error"] == {"code": "server_error", "message": runs._INTERRUPTED}
        assert (await cancel(here, left.id)).json == response
        assert (await here.create(input="on", previous_response_id=left.id)).status == 400
    assert len(provider.requests) == 1


async def test_the_stream_of_an_interrupted_response_goes_on_without_a_gap_to_its_end(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    provider.follow([stuck("Half ", "a story")])
    left = Left()

    async def act(here: Site) -> None:
        async with following_of(here, "POST", "", body_of(input="hi", background=True, stream=True)) as response:
            left.id = (await frame_of(response, "response.created"))["response"]["id"]
            await frame_of(response, "response.output_text.delta")
            left.told = await _so_far(here, left.id)

    async with crashed(provider, tmp_path, act, background_recovery="continue") as here:
        whole = await here.get(f"{left.id}?stream=true")
        assert whole.body.startswith(left.told)
        check_background(whole.events)
        assert whole.events[-1]["type"] == "response.failed"
        assert whole.events[-1]["response"] == (await here.get(left.id)).json
    assert len(provider.requests) == 1


async def _so_far(here: Site, response_id: str) -> bytes:
    async with following_of(here, "GET", f"/{response_id}?stream=true") as response:
        told = b""
        try:
            async with asyncio.timeout(0.3):
                while True:
                    told += await response.content.readany()
        except TimeoutError:
            return told


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_nothing_was_told_of_is_made_again_where_the_settings_say_so(
    provider: ChatUpstream, tmp_path: Path, stream: bool
) -> None:
    provider.follow([silence(), answer(text(*WORDS))])
    left = Left()

    async def act(here: Site) -> None:
        if stream:
            async with following_of(here, "POST", "", body_of(input="hi", background=True, stream=True)) as response:
                left.id = (await frame_of(response, "response.in_progress"))["response"]["id"]
        else:
            left.id = await begun(here, input="hi")
        await asyncio.to_thread(provider.wait, 1)

    async with crashed(provider, tmp_path, act, background_recovery="continue") as here:
        response = await ended(here, left.id)
        assert (response["status"], response["id"]) == ("completed", left.id)
        if stream:
            events = (await here.get(f"{left.id}?stream=true")).events
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert told(events) == "".join(WORDS)
    assert [request.chat.messages[-1].text for request in provider.requests] == ["hi", "hi"]


async def test_one_that_is_looked_at_before_it_is_made_again_is_made_again(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.follow([silence(), answer(text("whole"))])
    left = Left()

    async def act(here: Site) -> None:
        left.id = await begun(here, input="hi")
        await asyncio.to_thread(provider.wait, 1)
        monkeypatch.setattr(turn, "prepare", late)

    prepare = turn.prepare

    async def late(*args: Any, **fields: Any) -> turn.Turn:
        await asyncio.sleep(0.2)
        return await prepare(*args, **fields)

    async with crashed(provider, tmp_path, act, background_recovery="continue") as here:
        assert (await here.get(left.id)).json["status"] in ("queued", "in_progress", "completed")
        assert (await ended(here, left.id))["status"] == "completed"


async def test_a_response_that_can_no_longer_be_made_again_has_failed(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([answer(text("first")), silence()])
    left = Left()

    async def act(here: Site) -> None:
        parent = (await here.create(input="hi")).json["id"]
        left.id = await begun(here, input="on", previous_response_id=parent)
        await asyncio.to_thread(provider.wait, 2)
        await here.delete(parent)

    async with crashed(provider, tmp_path, act, background_recovery="continue") as here:
        response = await ended(here, left.id)
        assert response["status"] == "failed"


async def test_a_keyed_turn_that_was_interrupted_runs_again_with_its_key(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    provider.follow([silence(), answer(text("whole"))])

    async def act(here: Site) -> None:
        waiting = asyncio.create_task(keyed(here, "k", stream=True))
        await asyncio.to_thread(provider.wait, 1)
        left.append(waiting)

    left: list[asyncio.Task[Reply]] = []
    async with crashed(provider, tmp_path, act, background_recovery="continue") as here:
        reply = await keyed(here, "k", stream=True)
        assert reply.events[-1]["type"] == "response.completed"
    await asyncio.gather(*left, return_exceptions=True)


async def test_a_row_that_cannot_be_read_keeps_no_server_from_starting(provider: ChatUpstream, tmp_path: Path) -> None:
    services = services_in(tmp_path, provider.base_url)
    key = "run/" + "0" * 64 + "/resp_1"
    await services.store.backend.commit(Change({key: b"no row"}))
    other = rows.begun(rows.Run("local", "resp_2", b"{}"))
    await services.store.backend.commit(other)
    with capture_logs() as logs:
        async with site(services) as here:
            assert (await here.ask("GET", "/health")).status == 200
    told = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert sorted(told) == ["an unfinished response cannot be ended", "damaged record"]


# A store that fails


@asynccontextmanager
async def failing(provider: ChatUpstream, directory: Path) -> AsyncIterator[tuple[Site, Services, Gate]]:
    services, gate = await gated(services_in(directory, provider.base_url))
    async with site(services) as here:
        yield here, services, gate


def broken(change: Change) -> None:
    raise StoreError("the disk is full")


async def test_an_end_that_cannot_be_written_is_told_as_a_failure_and_written_later(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    async with failing(provider, tmp_path) as (here, _, gate):
        provider.follow([answer(text("a", "b"), gap=0.05)])

        def last(change: Change) -> None:
            if any(key.startswith("run/") for key in change.deletes):
                broken(change)

        gate.before = last
        reply = await here.create(input="hi", background=True, stream=True)
        events = reply.events
        check_background(events)
        assert events[-1]["type"] == "response.failed"
        assert "could not be stored" in events[-1]["response"]["error"]["message"]
        gate.before = None
        response = (await here.get(events[0]["response"]["id"])).json
        assert response["status"] == "failed"
        events = (await here.get(f"{response['id']}?stream=true")).events
        check_background(events)


async def test_events_that_cannot_be_written_wait_until_they_can(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "RETRY", 0.02)
    async with failing(provider, tmp_path) as (here, _, gate):
        provider.follow([answer(text(*WORDS), gap=0.02)])
        failures = itertools.count()

        def sometimes(change: Change) -> None:
            if any("/event/" in key for key in change.puts) and not change.deletes and next(failures) in (1, 2):
                broken(change)

        gate.before = sometimes
        events = (await here.create(input="hi", background=True, stream=True)).events
        check_background(events)
        assert told(events) == "".join(WORDS)
        assert next(failures) > 2


async def test_a_run_that_cannot_even_be_failed_is_ended_by_whoever_looks_next(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    async with failing(provider, tmp_path) as (here, services, gate):
        provider.follow([silence()])
        response_id = await begun(here, input="hi")
        await asyncio.to_thread(provider.wait, 1)
        gate.before = broken
        services.running.stop()
        run = here.runs.get(response_id, "local")
        assert run is not None
        await run.over.wait()
        gate.before = None
        assert (await here.get(response_id)).json["status"] == "failed"


# Errors of our own


def broken_reader(self: ChatDialect, prompt: Prompt, out: Composer) -> Reader:
    raise ValueError("a mistake of ours")


async def test_a_mistake_of_ours_is_a_failed_response_and_no_stuck_one(
    provider: ChatUpstream, here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatDialect, "reader", broken_reader)
    response = await ended(here, await begun(here, input="hi"))
    assert response["error"] == {
        "code": "server_error",
        "message": "The server had an error while processing your request.",
    }
    events = (await here.create(input="hi", background=True, stream=True)).events
    check_background(events)
    assert events[-1]["type"] == "response.failed"
    failed = await keyed(here, "k")
    assert (failed.status, failed.json["error"]["code"]) == (500, "server_error")
    monkeypatch.undo()
    assert (await keyed(here, "k")).json["status"] == "completed"


async def test_a_mistake_of_ours_while_the_store_is_down_is_ended_by_whoever_looks_next(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with failing(provider, tmp_path) as (here, _, gate):
        response_id = await stuck_by_a_mistake(here, gate, monkeypatch, broken)
        gate.before = None
        assert (await here.get(response_id)).json["status"] == "failed"


async def test_a_mistake_of_ours_about_a_response_that_is_gone_is_nobodys_business(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with failing(provider, tmp_path) as (here, services, gate):

        async def gone(change: Change) -> None:
            gate.before = None
            [response_id] = [*_runs_of(here)]
            await services.store.delete(response_id, owner="local")

        response_id = await stuck_by_a_mistake(here, gate, monkeypatch, gone)
        assert (await here.get(response_id)).status == 404


async def stuck_by_a_mistake(
    here: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch, then: Callable[[Change], object]
) -> str:
    """The id of a response whose turn goes wrong, and something happens to the store before that is written."""

    def reader(self: ChatDialect, prompt: Prompt, out: Composer) -> Reader:
        gate.before = then
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(ChatDialect, "reader", reader)
    response_id = await begun(here, input="hi")
    run = here.runs.get(response_id, "local")
    if run is not None:
        await run.over.wait()
    return response_id


async def test_a_response_that_is_deleted_twice_at_once_is_deleted_once(provider: ChatUpstream, tmp_path: Path) -> None:
    async with failing(provider, tmp_path) as (here, services, gate):
        response_id = (await here.create(input="hi")).json["id"]

        async def first(change: Change) -> None:
            gate.before = None
            await services.store.delete(response_id, owner="local")

        gate.before = first
        assert (await here.delete(response_id)).status == 404


# The end of the server


def told_to_stop(here: Site, services: Services) -> None:
    """What a SIGTERM does (serving.DrainingServer)."""
    services.running.draining = True
    drain_timeout = services.settings.server.drain_timeout
    asyncio.get_running_loop().call_later(drain_timeout, services.running.stop)
    here.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_stops_ends_its_runs(provider: ChatUpstream, tmp_path: Path, stream: bool) -> None:
    provider.follow([silence()])
    services = services_in(tmp_path, provider.base_url, server={"drain_timeout": 0.1})
    async with site(services) as here:
        reply = asyncio.create_task(here.create(input="hi", background=True, stream=stream))
        await asyncio.to_thread(provider.wait, 1)
        [response_id] = [*_runs_of(here)]
        told_to_stop(here, services)
        if stream:
            assert (await reply).events[-1]["type"] == "response.failed"
        await reply
    async with site(services_in(tmp_path, provider.base_url)) as here:
        response = (await here.get(response_id)).json
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
        assert "shutting down" in response["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_stops_hands_over_what_nothing_was_told_of(
    provider: ChatUpstream, tmp_path: Path, stream: bool
) -> None:
    provider.follow([silence(), answer(text(*WORDS))])
    server = {"drain_timeout": 0.1, "background_recovery": "continue"}
    services = services_in(tmp_path, provider.base_url, server=server)
    async with site(services) as here:
        reply = asyncio.create_task(here.create(input="hi", background=True, stream=stream))
        await asyncio.to_thread(provider.wait, 1)
        [response_id] = [*_runs_of(here)]
        told_to_stop(here, services)
        body = (await reply).body
        assert b"[DONE]" not in body, "it is not over"
    async with site(services_in(tmp_path, provider.base_url, server=server)) as here:
        assert (await ended(here, response_id))["status"] == "completed"
        if stream:
            assert (await here.get(f"{response_id}?stream=true")).body.startswith(body)


# Followers


async def test_a_follower_that_waits_is_told_so(
    provider: ChatUpstream, here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "KEEP_ALIVE", 0.05)
    provider.follow([answer(text("a", "b"), gap=0.3)])
    reply = await here.create(input="hi", background=True, stream=True)
    assert reply.body.count(b": keep-alive\n\n") >= 2
    check_background(reply.events)
    response_id = reply.events[0]["response"]["id"]
    assert b"keep-alive" not in (await here.get(f"{response_id}?stream=true")).body


async def test_a_conversation_goes_on_in_the_background(provider: ChatUpstream, here: Site) -> None:
    conversation = (await here.ask("POST", "/v1/conversations", b"{}")).json["id"]
    for words in ("one", "two"):
        response = await ended(here, await begun(here, input=words, conversation=conversation))
        assert response["conversation"] == {"id": conversation}
    assert [message.text for message in provider.requests[-1].chat.messages] == ["one", "".join(WORDS), "two"]
    provider.follow([stuck("half")])
    locked = await begun(here, input="three", conversation=conversation)
    reply = await here.create(input="four", conversation=conversation)
    assert (reply.status, reply.json["error"]["code"]) == (400, "conversation_locked")
    await cancel(here, locked)
    items = await here.ask("GET", f"/v1/conversations/{conversation}/items?limit=100")
    assert len(items.json["data"]) == 4, "what was cancelled is no part of it"

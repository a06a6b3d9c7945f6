import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import Raw
from starlette.requests import ClientDisconnect
from starlette.types import Message

from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.chat_reader import ChatReader
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Identity, Prompt
from rejoinder.bridge.echo import echo
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import (
    Answer,
    Head,
    HttpError,
    Pause,
    Trouble,
    Wire,
    answer,
    call,
    calls,
    refusal,
    silence,
    text,
    thought,
)
from rejoinder.server import sse, turn
from rejoinder.server.services import Services
from rejoinder.server.sse import Pulse, Stream, StreamedTurn, while_connected
from rejoinder.wire.events import Completed, Event, Failed, Incomplete, Relayed
from tests.server.site import (
    CODEX,
    WEATHER,
    Json,
    Site,
    body_of,
    closing,
    events_of,
    folded,
    request_of,
    services_in,
    site,
)


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def here(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path_factory.mktemp("sse"), provider.base_url)) as running:
        yield running


class Told:
    """A stream that has begun, and what its client was given."""

    def __init__(self, *, codex: bool = False) -> None:
        self.stream = Stream(codex=codex)
        self.out = Composer(
            echo(request_of(input="hi"), response_id="resp_1", created_at=1),
            Toolbox((), "auto", ()),
            mint=lambda prefix: f"{prefix}_1",
            seal=lambda parts, calls: "",
        )
        self.out.start()
        self.outcome = turn.Outcome("resp_1", [])
        self.stream.begin(self.outcome, self.out, self.out.drain())
        self._chunks = self.stream.chunks()

    async def taken(self) -> bytes:
        """What the client takes when it comes by."""
        return await anext(self._chunks)

    async def rest(self) -> bytes:
        return b"".join([chunk async for chunk in self._chunks])

    def said(self, delta: str) -> list[Event]:
        self.out.text(delta)
        return self.out.drain()


def later(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def is_waiting(task: asyncio.Task[None]) -> bool:
    await asyncio.sleep(0.01)
    return not task.done()


async def test_events_that_come_together_leave_together() -> None:
    told = Told()
    await told.stream.send(told.said("one"))
    await told.stream.send(told.said("two"))
    chunk = await told.taken()
    assert chunk.startswith(b"event: response.created\ndata: {")
    assert chunk.endswith(b'"delta":"two","logprobs":[]}\n\n')
    told.stream.end()
    assert await told.rest() == b"data: [DONE]\n\n"


async def test_a_client_that_waits_gets_what_comes_at_once() -> None:
    told = Told()
    await told.taken()
    waiting = asyncio.create_task(told.taken())
    await asyncio.sleep(0)
    await told.stream.send(told.said("one"))
    assert b'"delta":"one"' in await asyncio.wait_for(waiting, 1)


async def test_nothing_is_read_on_while_too_much_waits_for_the_client() -> None:
    told = Told()
    sending = asyncio.create_task(told.stream.send(told.said("x" * sse.HIGH_WATER)))
    assert await is_waiting(sending)
    await told.taken()
    await asyncio.wait_for(sending, 1)


async def test_sending_no_events_sends_nothing() -> None:
    told = Told()
    await told.taken()
    await told.stream.send([])
    told.stream.end()
    assert await told.rest() == b"data: [DONE]\n\n"


async def test_a_stream_that_has_begun_can_still_fail_and_loses_nothing_it_had() -> None:
    told = Told()
    told.out.text("half")
    assert told.stream.fail(RuntimeError("boom"))
    told.stream.end()
    events = events_of(await told.rest())
    response = folded(events)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert response["output"][0]["content"][0]["text"] == "half"
    assert "boom" not in json.dumps(events)


async def test_a_stream_that_has_not_begun_leaves_its_error_to_the_status_line() -> None:
    stream = Stream(codex=False)
    assert not stream.fail(RuntimeError("boom"))
    stream.end()
    assert not await stream.beginning()
    assert [chunk async for chunk in stream.chunks()] == []


async def test_a_quiet_client_is_told_by_a_comment_that_the_turn_still_runs() -> None:
    told = Told()
    await told.taken()
    told.stream.beat(later(sse.KEEP_ALIVE - 1))
    told.stream.beat(later(sse.KEEP_ALIVE + 1))
    assert await told.taken() == b": keep-alive\n\n"


async def test_codex_is_told_by_an_event_since_it_does_not_count_comments() -> None:
    told = Told(codex=True)
    await told.taken()
    told.stream.beat(later(sse.KEEP_ALIVE + 1))
    chunk = await told.taken()
    event: Json = json.loads(chunk.partition(b"data: ")[2])
    assert (event["type"], event["sequence_number"]) == ("response.in_progress", 2)
    assert event["response"]["output"] == []


@pytest.mark.parametrize(
    ("step", "ending", "done"),
    [
        (answer(text("ha", "lf"), trouble=Trouble("cut", after=2)), "response.failed", []),
        (answer(text("a"), calls(call("weather")), finish="length"), "response.incomplete", ["message"]),
        (answer(text("a"), calls(call("weather"))), "response.completed", ["message", "function_call"]),
    ],
)
async def test_codex_is_told_only_of_whole_items_that_they_are_done(
    here: Site, provider: ChatUpstream, step: Answer, ending: str, done: list[str]
) -> None:
    provider.follow([step])
    events = (await here.create(input="hi", stream=True, tools=[WEATHER], headers=CODEX)).events
    assert events[-1]["type"] == ending
    assert [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"] == done


def relayed_done(kind: str) -> Relayed:
    item = json.dumps({"type": kind, "id": "x"}).encode()
    return Relayed(0, "response.output_item.done", b'{"item":%b}' % item, Raw(item))


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (Failed(1, Raw(b"{}")), []),
        (Incomplete(1, Raw(b"{}")), ["message", "reasoning"]),
        (Completed(1, Raw(b"{}")), ["message", "reasoning", "function_call", "hologram"]),
    ],
)
async def test_what_a_provider_of_this_very_api_did_not_finish_codex_is_not_told_of_either(
    last: Event, told: list[str]
) -> None:
    stream = Stream(codex=True)
    kinds = ["message", "reasoning", "function_call", "hologram"]
    await stream.send([Relayed(0, "acme.event", b"{}"), *map(relayed_done, kinds), last])
    stream.end()
    sent = b"".join([chunk async for chunk in stream.chunks()])
    assert b"event: acme.event\ndata: {}\n\n" in sent
    assert [kind for kind in kinds if b'"type": "%b"' % kind.encode() in sent] == told


async def test_codex_is_told_of_a_refusal_as_text(here: Site, provider: ChatUpstream) -> None:
    provider.follow(lambda request: answer(refusal("I can", "not")))
    codex, plain = [
        folded((await here.create(input="hi", stream=True, headers=headers)).events) for headers in (CODEX, {})
    ]
    assert [part["type"] for part in plain["output"][0]["content"]] == ["refusal"]
    [part] = codex["output"][0]["content"]
    assert (part["type"], part["text"]) == ("output_text", "I cannot")


async def test_before_the_beginning_nobody_is_kept_waiting() -> None:
    stream = Stream(codex=False)
    stream.beat(later(sse.KEEP_ALIVE + 1))
    stream.end()
    assert [chunk async for chunk in stream.chunks()] == []


@pytest.mark.parametrize("codex", [False, True])
async def test_after_the_end_nobody_is_kept_waiting(codex: bool) -> None:
    told = Told(codex=codex)
    told.stream.fail(RuntimeError())
    await told.taken()
    told.stream.end()
    assert await told.taken() == b"data: [DONE]\n\n"
    told.stream.beat(later(sse.KEEP_ALIVE + 1))
    assert await told.rest() == b""


async def test_codex_is_told_nothing_between_the_last_event_and_the_end() -> None:
    told = Told(codex=True)
    told.stream.fail(RuntimeError())
    await told.taken()
    told.stream.beat(later(sse.KEEP_ALIVE + 1))
    told.stream.end()
    assert await told.rest() == b"data: [DONE]\n\n"


async def test_a_client_that_takes_nothing_for_too_long_is_cut() -> None:
    told = Told()
    told.stream.beat(later(sse.SLOW_CLIENT + 1))
    async with asyncio.timeout(None) as presence:
        told.stream.cut_with(presence)
        told.stream.beat(later(sse.SLOW_CLIENT - 1))
        assert presence.when() is None
        told.stream.beat(later(sse.SLOW_CLIENT + 1))
        assert presence.when() is not None
        presence.reschedule(None)
        await asyncio.sleep(0)


async def test_a_client_is_cut_once() -> None:
    told = Told()

    async def present() -> None:
        async with asyncio.timeout(None) as presence:
            told.stream.cut_with(presence)
            told.stream.beat(later(sse.SLOW_CLIENT + 1))
            try:
                await asyncio.sleep(5)
            finally:
                told.stream.beat(later(sse.SLOW_CLIENT + 1))

    with pytest.raises(TimeoutError):
        await present()


async def test_a_client_that_takes_something_now_and_then_is_not_cut() -> None:
    told = Told()
    async with asyncio.timeout(None) as presence:
        told.stream.cut_with(presence)
        await told.stream.send(told.said("one"))
        await told.taken()
        await told.stream.send(told.said("two"))
        told.stream.beat(later(sse.SLOW_CLIENT - 1))
        assert presence.when() is None


async def test_a_stream_is_whole_and_ends_in_order(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("Hel", "lo"))])
    reply = await here.create(input="hi", stream=True)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-request-id"].startswith("req_")
    assert "x-rejoinder-notes" not in reply.headers
    assert b"\r" not in reply.body
    assert folded(reply.events)["output"][0]["content"][0]["text"] == "Hello"


async def test_what_is_left_out_is_said_in_the_head_of_a_stream(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("hi"))])
    reply = await here.create(input="hi", stream=True, seed=7)
    assert reply.notes == ["seed: unknown or without effect here"]


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        (HttpError(400, "no such field", code="unknown"), 400, None),
        (HttpError(429, "slow down", headers={"retry-after": "7"}), 429, "rate_limit_exceeded"),
        (HttpError(500, "oops"), 502, "server_error"),
    ],
)
async def test_an_error_before_the_beginning_is_a_status(
    here: Site, provider: ChatUpstream, step: HttpError, status: int, code: str | None
) -> None:
    provider.follow([step])
    reply = await here.create(input="hi", stream=True)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert reply.json["error"]["code"] == code
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers.get("retry-after") == ("7" if status == 429 else None)


async def test_an_error_after_the_beginning_is_the_last_event(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("cut", after=2))])
    reply = await here.create(input="hi", stream=True)
    response = folded(reply.events)
    assert (reply.status, response["status"]) == (200, "failed")
    assert response["error"]["code"] == "server_error"
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert response["output"][0]["status"] == "incomplete"


async def test_a_silent_provider_does_not_hold_up_the_status_line_for_ever(
    here: Site, provider: ChatUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "STATUS_WAIT", 0.02)
    provider.follow([answer(text("at last"), delay=0.3)])
    async with here.client.post(f"http://127.0.0.1:{here.port}/v1/responses", data=streaming()) as response:
        assert response.status == 200
        first = await response.content.readuntil(b"\n\n")
        assert first.startswith(b"event: response.created\n")
        body = first + await response.content.read()
    assert folded(events_of(body))["status"] == "completed"


async def test_what_the_provider_says_after_the_status_line_is_an_event(
    here: Site, provider: ChatUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "STATUS_WAIT", 0.02)
    refused = b'{"error":{"message":"too many","type":"requests","code":null}}'
    provider.follow([Wire((Pause(0.1), Head(429, {"content-type": "application/json"}), refused))])
    response = folded((await here.create(input="hi", stream=True)).events)
    assert (response["status"], response["error"]["code"]) == ("failed", "rate_limit_exceeded")


async def test_waiting_clients_are_kept_waiting_each_in_its_own_way(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.02)
    monkeypatch.setattr(sse, "BEAT", 0.02)
    provider.follow(lambda request: answer(text("Hel", "lo"), gap=0.1))
    async with site(services_in(tmp_path, provider.base_url)) as here:
        plain, codex = await asyncio.gather(
            here.create(input="hi", stream=True), here.create(input="hi", stream=True, headers=CODEX)
        )
    assert plain.body.count(b": keep-alive\n\n") > 2
    assert [event["type"] for event in plain.events].count("response.in_progress") == 1
    assert b": keep-alive" not in codex.body
    assert [event["type"] for event in codex.events].count("response.in_progress") > 2
    assert folded(plain.events)["output"][0]["content"] == folded(codex.events)["output"][0]["content"]


def done(events: list[Json]) -> list[str]:
    return [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]


@pytest.mark.parametrize(
    ("step", "for_all", "for_codex"),
    [
        (answer(text("Hel"), trouble=Trouble("cut", after=2)), ["message"], []),
        (answer(text("Hel", "lo"), finish="length"), ["message"], ["message"]),
        (
            answer(thought("hm"), calls(call("f", '{"a":')), finish="length"),
            ["reasoning", "function_call"],
            ["reasoning"],
        ),
        (answer(text("hi"), calls(call("f", "{}"))), ["message", "function_call"], ["message", "function_call"]),
    ],
    ids=["broken off", "text at its limit", "a call at its limit", "whole"],
)
async def test_codex_is_not_told_to_act_on_half_an_item(
    here: Site, provider: ChatUpstream, step: Answer, for_all: list[str], for_codex: list[str]
) -> None:
    provider.follow(lambda request: step)
    tools = [{"type": "function", "name": "f"}]
    others = (await here.create(input="hi", stream=True, tools=tools)).events
    codex = (await here.create(input="hi", stream=True, tools=tools, headers=CODEX)).events
    assert (done(others), done(codex)) == (for_all, for_codex)
    assert codex[-1]["type"] == others[-1]["type"]
    assert [item["type"] for item in codex[-1]["response"]["output"]] == for_all


async def test_codex_reads_a_refusal_as_text_since_it_drops_it_otherwise(here: Site, provider: ChatUpstream) -> None:
    provider.follow(lambda request: answer(refusal("I would ", "rather not.")))
    others = folded((await here.create(input="hi", stream=True)).events)
    codex = folded((await here.create(input="hi", stream=True, headers=CODEX)).events)
    assert others["output"][0]["content"] == [{"type": "refusal", "refusal": "I would rather not."}]
    assert codex["output"][0]["content"][0]["text"] == "I would rather not."


async def test_a_client_that_leaves_before_the_beginning_ends_the_turn(here: Site, provider: ChatUpstream) -> None:
    await leave_early(here, provider, stream=True)


async def test_a_client_that_leaves_before_a_plain_answer_ends_the_turn(here: Site, provider: ChatUpstream) -> None:
    await leave_early(here, provider, stream=False)


async def test_a_client_that_leaves_in_the_middle_ends_the_turn(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("stall", after=2))])
    provider.requests.clear()
    async with here.client.post(f"http://127.0.0.1:{here.port}/v1/responses", data=streaming()) as response:
        await response.content.readuntil(b'"delta":"Hel"')
    assert await asyncio.to_thread(provider.requests[0].left.wait, 2)


async def test_a_fault_of_our_own_is_the_last_event_too(tmp_path: Path) -> None:
    with ChatUpstream(lambda request: answer(text("Hel", "lo"))) as provider:
        async with site(crashing(services_in(tmp_path, provider.base_url))) as here:
            reply = await here.create(input="hi", stream=True)
            plain = await here.create(input="hi")
    response = folded(reply.events)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "boom" not in reply.body.decode()
    assert (plain.status, plain.json["error"]["type"]) == (500, "server_error")
    assert "boom" not in plain.body.decode()


async def test_a_client_that_waited_hears_the_outcome(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([answer(text("hi"))])

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async with closing(services_in(tmp_path, provider.base_url)) as services:
        outcome = await while_connected(receive, request_of(input="hi"), services, owner="local", caller=Identity())
    assert json.loads(bytes(outcome.response))["status"] == "completed"


async def test_a_client_that_left_before_its_stream_began_is_sent_nothing(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    provider.follow([silence()])
    messages: list[Message] = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(f"nobody is there for {message}")

    async with closing(services_in(tmp_path, provider.base_url)) as services:
        streamed = StreamedTurn(
            request_of(input="hi"), services, Pulse(), owner="local", caller=Identity(), codex=False
        )
        await streamed({"type": "http", "method": "POST"}, receive, send)
    assert messages == []


async def test_a_client_that_did_not_wait_has_left(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([silence()])
    messages: list[Message] = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async with closing(services_in(tmp_path, provider.base_url)) as services:
        with pytest.raises(ClientDisconnect):
            await while_connected(receive, request_of(input="hi"), services, owner="local", caller=Identity())


async def test_a_timeout_of_something_else_is_no_client_that_left(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object, **__: object) -> turn.Outcome:
        raise TimeoutError("something else")

    async def receive() -> Message:
        raise AssertionError("nobody looks so soon")

    monkeypatch.setattr(turn, "run", late)
    async with closing(services_in(tmp_path, provider.base_url)) as services:
        with pytest.raises(TimeoutError, match="something else"):
            await while_connected(receive, request_of(input="hi"), services, owner="local", caller=Identity())


async def test_a_pulse_beats_for_the_streams_it_has_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.0)
    monkeypatch.setattr(sse, "BEAT", 0.01)
    with_pulse, without = Told(), Told()
    await with_pulse.taken()
    await without.taken()
    pulse = Pulse()
    pulse.add(with_pulse.stream)
    pulse.add(without.stream)
    pulse.remove(without.stream)
    beating = asyncio.create_task(pulse.run())
    assert await asyncio.wait_for(with_pulse.taken(), 3) == b": keep-alive\n\n"
    beating.cancel()
    with suppress(asyncio.CancelledError):
        await beating
    without.stream.end()
    assert await without.rest() == b"data: [DONE]\n\n"


def streaming() -> bytes:
    return body_of(input="hi", stream=True)


async def leave_early(here: Site, provider: ChatUpstream, *, stream: bool) -> None:
    provider.follow([silence()])
    provider.requests.clear()
    body = body_of(input="hi", stream=stream)
    head = f"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", here.port)) as connection:
        connection.sendall(head.encode() + body)
        sent = await asyncio.to_thread(provider.wait, 1)
    assert await asyncio.to_thread(sent.left.wait, 2)


class _Crashing(ChatDialect):
    """A dialect with a mistake in it."""

    def reader(self, prompt: Prompt, out: Composer) -> ChatReader:
        return _CrashingReader(out, ChatProfile())


class _CrashingReader(ChatReader):
    def feed(self, data: bytes) -> None:
        super().feed(data)
        raise RuntimeError("boom")


def crashing(services: Services) -> Services:
    provider = replace(services.providers["test"], dialect=_Crashing(ChatProfile()))
    return replace(services, providers={"test": provider})

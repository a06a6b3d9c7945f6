from collections.abc import Sequence

import pytest

from rejoinder.conformance.errors import Broken, NoAnswer, NotApplicable
from rejoinder.conformance.server import Server
from rejoinder.conformance.talk import Message, Turn, talking, turns
from tests.conformance.little_server import MODEL, Exchange, Fault, LittleServer
from tests.conformance.little_session import URL, reaching
from tests.conformance.spoken import saying


def server_with(fault: Fault, *, timeout: float = 5) -> Server:
    return Server(reaching(LittleServer(fault), timeout=timeout), URL, MODEL, key=None)


def heard(*told: str) -> list[Message]:
    """Messages of these types, in the lanes behind the slashes."""
    return [Message(kind, stream_id=lane or None) for kind, _, lane in (one.partition("/") for one in told)]


def kinds(found: Sequence[Turn]) -> list[str]:
    return [" ".join(message.type for message in turn.messages) for turn in found]


async def test_a_turn_is_what_comes_for_a_request() -> None:
    async with talking(server_with(Fault())) as talk:
        turn = await talk.ask(input="Say hello.", store=False)
        assert turn.answer.text == "Hello, I am little."
        assert [event.type for event in turn.stream.events] == [message.type for message in turn.messages]
        assert (turn.reply.status, turn.end.type) == (200, "response.completed")
        with pytest.raises(Broken, match="expected status 400, got status 200"):
            turn.refusal()


async def test_an_error_is_a_turn_too() -> None:
    async with talking(server_with(Fault())) as talk:
        turn = await talk.ask(input=7)
        assert (turn.refusal(param="input").code, turn.end.status) == ("invalid_value", 400)
        with pytest.raises(NotApplicable, match="the server refuses 'input': wrong"):
            turn.unless_refused("tools", "input")
        assert turn.unless_refused("tools") is turn
        for look in (lambda: turn.answer, lambda: turn.stream):
            with pytest.raises(Broken):
                look()


async def test_a_response_that_failed_is_a_refusal_of_what_it_says() -> None:
    def fail(it: Exchange) -> None:
        it.events = [{"type": "response.failed", "response": {"error": {"code": "gone", "message": "gone"}}}]

    async with talking(server_with(saying(lambda it: True, fail))) as talk:
        assert (await talk.ask(input="Say hello.")).refusal().code == "gone"


async def test_lanes_are_kept_apart() -> None:
    ends = "response.completed/a", "error/b"
    found = turns(heard("response.created/a", "response.created/b", *reversed(ends), "response.created", ends[0]))
    assert kinds(found) == ["response.created error", "response.created response.completed", "response.completed"]
    assert turns(heard("response.created")) == []


async def test_what_is_no_event_is_kept_and_is_none_of_the_stream() -> None:
    def noisy(it: Exchange) -> None:
        it.events[1:1] = [b"\xff", "[DONE]", "7", {"type": "codex.rate_limits"}, {"type": "response.metadata"}]

    async with talking(server_with(saying(lambda it: True, noisy))) as talk:
        turn = await talk.ask(input="Say hello.")
        assert [message.type for message in turn.messages[:6]] == [
            "response.created", "", "", "", "codex.rate_limits", "response.metadata",
        ]  # fmt: skip
        assert turn.messages[1].raw == b"\xff"
        assert [event.type for event in turn.stream.events][:2] == ["response.created", "response.in_progress"]


@pytest.mark.parametrize(
    ("message", "is_one"),
    [
        (Message("response.steer.accepted", 1), False),
        (Message("response.metadata", 1), True),
        (Message("keepalive", 1), True),
        (Message("keepalive"), False),
        (Message("response.created"), True),
    ],
)
def test_what_has_a_number_may_be_of_the_stream(message: Message, is_one: bool) -> None:
    assert message.is_of_a_stream == is_one


async def test_a_message_of_some_types_can_be_waited_for() -> None:
    async with talking(server_with(Fault())) as talk:
        await talk.socket.create(input="Say hello.")
        assert (await talk.until("error", "response.output_item.")).type == "response.output_item.added"


async def test_words_go_to_a_response() -> None:
    async with talking(server_with(Fault())) as talk:
        await talk.steer("resp_1", "Stop.")
        assert (await talk.message()).type == "response.steer.failed"


async def test_who_says_nothing_is_waited_for_once() -> None:
    def silent(it: Exchange) -> None:
        it.events = it.events[:1]

    server = server_with(saying(lambda it: True, silent), timeout=0.05)
    for _ in range(2):
        with pytest.raises(NoAnswer, match="a frame in time"):
            async with talking(server):
                raise AssertionError("nobody gets here")
    assert [exchange.asked for exchange in server.transcript] == ["WebSocket /responses", "WebSocket, a frame"] * 2

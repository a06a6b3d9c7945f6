"""Steering: what is said to a response while it is made.

A response has to be caught while it is made. One that is over too soon breaks nothing: those rules do not apply then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Raw, Struct

from rejoinder.conformance.answer import Item, Page, read
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import INPUT_ITEMS, LANES, STEERING, WEBSOCKET
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, UNKNOWN
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.stream import TERMINAL
from rejoinder.conformance.talk import Message, Talk, Turn, talking, turns

chapter = Chapter("steering", "WebSocket: steering", WEBSOCKET, STEERING)

_TASK = "Count slowly from one to two hundred, in words."
_WORDS = "Stop there, and say hello."
_SETTINGS: dict[str, Json] = {"instructions": "Be brief.", "metadata": {"turn": "first"}}

_TOO_LATE = ("response_already_completed", "response_not_active", "response_not_found", "steering_not_supported")
"""Codes for a response that is not made any more, or cannot be steered at all (websocket.md §7)."""


class _Steer(Struct):
    previous_response_id: str
    id: str | None = None
    input: Raw = Raw()


class _Error(Struct):
    code: str
    message: str
    type: str


class _Failed(Struct):
    error: _Error
    steer: _Steer


class _Accepted(Struct):
    steer: _Steer


class _Pending(Struct):
    reason: str
    required_input: list[Raw]
    steer: _Steer


class _Response(Struct):
    id: str


class _Id(Struct):
    response: _Response


async def _refused(server: Server, said: Json = _WORDS) -> _Failed:
    """What is said to a steer of a response that is nowhere."""
    async with talking(server) as talk:
        await talk.steer(UNKNOWN, said)
        message = await talk.until("response.steer.")
        expect_equal("the answer", "response.steer.failed", message.type, at=message.raw)
        return read(_Failed, message.raw, f"a '{message.type}'")


async def _over(talk: Talk, said: Json) -> Message:
    """The answer to words for a response that is complete; an error as any other is one, too."""
    answer = (await talk.ask(input=GREETING, store=False)).answer
    await talk.steer(answer.id, said)
    return await talk.until("response.steer.", "error")


# What is refused.


@chapter.rule
async def a_refused_steer_says_why(server: Server) -> None:
    """A steer that comes to nothing is answered by response.steer.failed, with the type invalid_request_error, a code
    and a message.

    Source: Guide, WebSocket mode, steering (websocket.md §3, §7).
    """
    error = (await _refused(server)).error
    expect_equal("the type of the error", "invalid_request_error", error.type)
    expect(error.code and error.message, "a code and a message", error)


@chapter.rule
async def a_refused_steer_is_given_back(server: Server) -> None:
    """The words of a steer that comes to nothing come back as they were said, with the id they were for.

    Source: Guide, WebSocket mode, steering (websocket.md §3, §7).
    """
    for said in (_WORDS, [{"type": "message", "role": "user", "content": _WORDS}]):
        steer = (await _refused(server, said)).steer
        expect_equal("previous_response_id", UNKNOWN, steer.previous_response_id)
        expect_equal("the input", said, read(object, steer.input, "the input of a steer"))


@chapter.rule
async def a_response_that_is_nowhere_cannot_be_steered(server: Server) -> None:
    """A steer for a response the connection does not know has the code response_not_found.

    Source: Guide, WebSocket mode, steering (websocket.md §7).
    """
    code = (await _refused(server)).error.code
    if code == "steering_not_supported":
        raise NotApplicable("the server says that it does not support steering")
    expect_equal("the code", "response_not_found", code)


@chapter.rule
async def a_response_that_is_over_cannot_be_steered(server: Server) -> None:
    """A steer for a response that is complete fails, with a code that says so.

    Source: Guide, WebSocket mode, steering: its target is in progress (websocket.md §7).
    """
    async with talking(server) as talk:
        message = await _over(talk, _WORDS)
        expect_equal("the answer", "response.steer.failed", message.type, at=message.raw)
        code = read(_Failed, message.raw, f"a '{message.type}'").error.code
        expect(code in _TOO_LATE, f"one of the codes {', '.join(_TOO_LATE)}", code, at=message.raw)


@chapter.rule
async def nothing_but_words_of_a_user_can_be_said(server: Server) -> None:
    """A steer is a text or some messages of the role user; nothing else is accepted.

    Source: Guide, WebSocket mode, steering (websocket.md §7).
    """
    for said in ([], [{"type": "message", "role": "assistant", "content": _WORDS}]):
        async with talking(server) as talk:
            message = await _over(talk, said)
            expect(message.type != "response.steer.accepted", "a failure", message.type, at=message.raw)


@chapter.rule
async def a_refused_steer_changes_nothing(server: Server) -> None:
    """After a steer that came to nothing the connection answers what is asked, and nothing else.

    Source: Guide, WebSocket mode, steering (websocket.md §5, §7).
    """
    async with talking(server) as talk:
        await _over(talk, _WORDS)
        turn = await talk.ask(input=GREETING, store=False)
        expect_equal("the status", "completed", turn.answer.status)
        expect_equal("previous_response_id", None, turn.answer.previous_response_id)


# What is accepted.


@dataclass(frozen=True, slots=True)
class _Steered:
    """A response that was steered, and the one that followed."""

    target: str
    accepted: Message
    first: Turn
    second: Turn


async def _caught(talk: Talk, is_time: Callable[[Message], bool], **fields: Json) -> tuple[str, list[Message]]:
    """Begin a response and speak to it in time: its id, and what came so far. The answer to the steer is the last.

    Raises NotApplicable when that came too late.
    """
    await talk.socket.create(**fields)
    first = await talk.until("response.created", "error")
    if first.type == "error":
        Turn([first]).unless_refused(*TOOLS)
    target = read(_Id, first.raw, "a 'response.created'").response.id
    heard = [first]
    while not is_time(heard[-1]):
        heard.append(await talk.message())
        if heard[-1].type in TERMINAL:
            raise NotApplicable("there is no call to wait for")
    await talk.steer(target, _WORDS)
    while not heard[-1].kind.startswith("steer."):
        heard.append(await talk.message())
        expect(heard[-1].type != "error", "an answer to a steer", heard[-1].raw.decode()[:200], at=heard[-1].raw)
    if heard[-1].type == "response.steer.failed":
        code = read(_Failed, heard[-1].raw, "a 'response.steer.failed'").error.code
        raise NotApplicable(f"no response could be caught while it was made: {code}")
    return target, heard


def _has_begun(message: Message) -> bool:
    return message.type == "response.created"


def _has_called(message: Message) -> bool:
    return message.kind == "output_item.added" and read(Item, message.item, "an added item").type == "function_call"


async def _steered(server: Server) -> _Steered:
    async with talking(server) as talk:
        return await _followed(talk)


async def _followed(talk: Talk, **fields: Json) -> _Steered:
    target, heard = await _caught(talk, _has_begun, input=_TASK, **_SETTINGS, **fields)
    accepted = heard.pop()
    heard += await talk.messages(2 - _ended(heard))
    first, second, *_ = turns(heard)
    return _Steered(target, accepted, first, second)


def _ended(heard: Sequence[Message]) -> int:
    return sum(message.type in TERMINAL for message in heard)


@chapter.rule
async def an_accepted_steer_has_an_id(server: Server) -> None:
    """A steer that is accepted gets an id, and is told with the id of the response it is for.

    Source: Guide, WebSocket mode, steering (websocket.md §3, §7).
    """
    steered = await server.once(_steered)
    expect_equal("the answer", "response.steer.accepted", steered.accepted.type, at=steered.accepted.raw)
    steer = read(_Accepted, steered.accepted.raw, "a 'response.steer.accepted'").steer
    expect_equal("previous_response_id", steered.target, steer.previous_response_id)
    expect(steer.id, "the id of a steer", steer.id)


@chapter.rule
async def a_steered_response_ends_as_steered_or_as_ever(server: Server) -> None:
    """A response that was steered ends completed, or incomplete for the reason steered.

    Source: Guide, WebSocket mode, steering (websocket.md §7).
    """
    end = (await server.once(_steered)).first.end
    if end.type != "response.completed":
        expect_equal("the end", "response.incomplete", end.type, at=end.raw)
        reason = read(_Ended, end.response, "a response").incomplete_details.reason
        expect_equal("the reason", "steered", reason, at=end.raw)


class _Why(Struct):
    reason: str


class _Ended(Struct):
    incomplete_details: _Why


@chapter.rule
async def words_begin_the_next_response(server: Server) -> None:
    """After a response that was steered the server begins the next one by itself, and that names it as the one before.

    Source: Guide, WebSocket mode, steering (websocket.md §7).
    """
    steered = await server.once(_steered)
    expect_equal("previous_response_id", steered.target, steered.second.answer.previous_response_id)


@chapter.rule
async def the_next_response_has_the_same_settings(server: Server) -> None:
    """The response that begins by itself has the instructions and the metadata of the one before.

    Source: Guide, WebSocket mode, steering: it inherits all settings (websocket.md §7).
    """
    answer = (await server.once(_steered)).second.answer
    expect_equal("the settings", _SETTINGS, {"instructions": answer.instructions, "metadata": answer.metadata})


@chapter.needing(INPUT_ITEMS)
async def words_are_the_input_of_the_next_response(server: Server) -> None:
    """What was said to a response is among the input items of the next one.

    Source: Guide, WebSocket mode, steering (websocket.md §7).
    """
    answer = (await server.once(_steered)).second.answer
    texts = await _texts(server, answer.id)
    expect(_WORDS in texts, f"'{_WORDS}' among the input items", texts)


async def _texts(server: Server, response_id: str) -> Sequence[str]:
    """The texts of its input items, the first one first; the type of an item where it has none."""
    reply = await server.get(f"/responses/{response_id}/input_items", order="asc", limit="100")
    return [item.text or str(item.type) for item in read(Page, reply.expect(200).body, "a list of items").data]


@chapter.needing(LANES)
async def a_steer_stays_in_its_lane(server: Server) -> None:
    """A steer for a response of a lane is answered in that lane, and so is what follows.

    Source: Guide, WebSocket mode, lanes and steering (websocket.md §3, §4).
    """
    async with talking(server) as talk:
        steered = await _followed(talk, stream_id="a-lane")
        names = [steered.accepted.stream_id, *(message.stream_id for message in steered.second.messages)]
        expect_equal("the lanes", {"a-lane"}, set(names))


# What has to wait.


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A response with open calls that was steered, and what was said of that; what came of the results."""

    first: Turn
    pending: Message
    after: Turn


async def _waiting(server: Server) -> _Waiting:
    async with talking(server) as talk:
        target, heard = await _caught(
            talk, _has_called, input="Ask slowly for the time.", tools=[CLOCK], tool_choice="required"
        )
        heard.pop()
        heard += await talk.messages(1 - _ended(heard))
        first, *_ = turns(heard)
        if not first.answer.calls or first.end.type != "response.completed":
            raise NotApplicable("there is no call to wait for")
        pending = await talk.until("response.")
        outputs = [
            {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"} for call in first.answer.calls
        ]
        after = await talk.ask(input=outputs, tools=[CLOCK], previous_response_id=target)
        return _Waiting(first, pending, after)


@chapter.rule
async def words_wait_for_the_results_of_tools(server: Server) -> None:
    """Where the response that was steered ends with calls, response.steer.pending says which outputs the words wait
    for.

    Source: Guide, WebSocket mode, steering (websocket.md §3, §7).
    """
    waiting = await server.once(_waiting)
    expect_equal("the next frame", "response.steer.pending", waiting.pending.type, at=waiting.pending.raw)
    pending = read(_Pending, waiting.pending.raw, "a 'response.steer.pending'")
    expect_equal("the reason", "waiting_for_required_input", pending.reason)
    wanted = [read(_Stub, raw, "what is required") for raw in pending.required_input]
    calls = [_Stub("function_call_output", call.call_id) for call in waiting.first.answer.calls]
    expect_equal("what is required", calls, wanted, at=waiting.pending.raw)


class _Stub(Struct):
    type: str
    call_id: str | None


@chapter.rule
async def results_go_on_with_the_words_that_wait(server: Server) -> None:
    """The results that are waited for are answered when they come.

    Source: Guide, WebSocket mode, steering (websocket.md §7).
    """
    expect_equal("the status", "completed", (await server.once(_waiting)).after.answer.status)


@chapter.needing(INPUT_ITEMS)
async def words_that_wait_come_before_the_results(server: Server) -> None:
    """The words that waited are in front of the results in the input of the response that has both.

    Source: Guide, WebSocket mode, steering (websocket.md §7).
    """
    texts = await _texts(server, (await server.once(_waiting)).after.answer.id)
    order = [text for text in texts if text in (_WORDS, "function_call_output")]
    expect_equal("the order of the input", [_WORDS, "function_call_output"], order[:2])

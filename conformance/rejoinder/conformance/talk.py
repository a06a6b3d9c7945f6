"""What is said over a WebSocket, turn by turn (websocket.md §3, §4).

A turn is everything that comes for one create call: it ends with a terminal event, or with an error. Frames that are no
events are kept, and only those who look at frames see them.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from rejoinder.conformance.answer import Answer, Refusal, answer_in, refusal_in, skip_if_refused
from rejoinder.conformance.errors import Broken
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.socket import Socket
from rejoinder.conformance.stream import TERMINAL, Event, Stream

_ENDS = (*TERMINAL, "error")


class Message(Event):
    """A frame: an event, with what only a socket adds to it. Its type is empty when it is no event at all."""

    stream_id: str | None = None
    status: object = None

    @property
    def is_of_a_stream(self) -> bool:
        """Whether it may be an event of a response: what else some servers say has no number (websocket.md §3)."""
        if self.kind == self.type or self.kind == "metadata":
            return self.sequence_number is not None
        return not self.kind.startswith("steer.")


@dataclass(frozen=True, slots=True)
class Turn:
    messages: Sequence[Message]

    @property
    def end(self) -> Message:
        return self.messages[-1]

    @property
    def reply(self) -> Reply:
        """The end as if it had come over HTTP: a response, or an error with the status 400 whatever it says itself."""
        end = self.end
        if end.type in ("response.completed", "response.incomplete"):
            return Reply(200, {}, [bytes(end.response)])
        return Reply(400, {}, [bytes(end.response) or end.raw])

    @property
    def answer(self) -> Answer:
        """The response. Raises Broken when it failed or was refused."""
        return answer_in(self.reply)

    @property
    def stream(self) -> Stream:
        """Its events. Raises Broken when it was refused."""
        if self.end.type == "error":
            raise Broken("a response", self.end.raw.decode()[:200], at=self.end.raw)
        return Stream(self.reply, [], [one for one in self.messages if one.is_of_a_stream])

    def unless_refused(self, *names: str) -> "Turn":
        """This turn. Raises NotApplicable when it refuses one of these parameters by its name."""
        skip_if_refused(self.reply, names)
        return self

    def refusal(self, *, param: str | None = None, code: str | None = None) -> Refusal:
        """The error it ended with, whatever its status. Raises Broken when there is none, or another one."""
        return refusal_in(self.reply, param=param, code=code)


class Talk:
    """A conversation over one socket."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket

    async def ask(self, **fields: Json) -> Turn:
        """What comes for a create call."""
        await self.socket.create(**fields)
        [turn] = await self.hear(1)
        return turn

    async def steer(self, response_id: str, said: Json) -> None:
        """Say something to a response while it is made."""
        frame = {"type": "response.steer", "previous_response_id": response_id, "input": said}
        await self.socket.send(msgspec.json.encode(frame))

    async def hear(self, number: int) -> list[Turn]:
        """That many turns, in the order in which they end. Lanes are kept apart."""
        return turns(await self.messages(number))

    async def messages(self, ends: int) -> list[Message]:
        """All that comes until that many turns have ended."""
        heard: list[Message] = []
        while ends > 0:
            heard.append(await self.message())
            ends -= heard[-1].type in _ENDS
        return heard

    async def until(self, *types: str) -> Message:
        """The next frame whose type begins with one of these."""
        while not (message := await self.message()).type.startswith(types):
            pass
        return message

    async def message(self) -> Message:
        """The next frame."""
        frame = await self.socket.receive()
        try:
            message = msgspec.json.decode(frame, type=Message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            message = Message("")
        message.raw = frame
        return message


def turns(messages: Sequence[Message]) -> list[Turn]:
    """The turns these messages are of, as far as they have ended."""
    found: list[Turn] = []
    begun: dict[str | None, list[Message]] = {}
    for message in messages:
        lane = begun.setdefault(message.stream_id, [])
        lane.append(message)
        if message.type in _ENDS:
            found.append(Turn(begun.pop(message.stream_id)))
    return found


@asynccontextmanager
async def talking(
    server: Server, *, headers: Mapping[str, str] | None = None, compressed: bool = False
) -> AsyncIterator[Talk]:
    """A conversation. Who comes to no end over a socket is waited for once, and not for every rule."""
    await server.once(answered)
    async with server.socket(headers=headers, compressed=compressed) as socket:
        yield Talk(socket)


async def answered(server: Server) -> None:
    """Ask for something over a socket. Raises NoAnswer when it ends instead, or nothing comes."""
    async with server.socket() as socket:
        await Talk(socket).ask(input="Say hello.", store=False)

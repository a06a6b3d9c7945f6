"""Answers that many rules look at. Ask for them with `server.once`."""

import base64
import struct
import zlib
from contextlib import suppress

from rejoinder.conformance.answer import answer_in, skip_if_refused
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.stream import Stream

GREETING = "Say hello."

_LONG = "Count from one to two hundred, in words."

UNKNOWN = "resp_" + "0" * 32
"""The id of a response that is nowhere."""


def unlike(id: str) -> str:
    """An id of the same form that is nobody's, for those who look at the form first."""
    return id[:-6] + "".join("1" if letter == "0" else "0" for letter in id[-6:])


UNKNOWN_CONVERSATION = "conv_" + "0" * 32

CLOCK: Json = {
    "type": "function",
    "name": "current_time",
    "description": "Tells the current time.",
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
}
"""A tool any model can call: there are no arguments to get wrong."""

TOOLS = ("tools", "tool_choice")
"""The parameters a server without tools may refuse."""


async def greeted(server: Server) -> Reply:
    """Whatever a greeting is answered with."""
    return await server.post(input=GREETING)


async def plain(server: Server) -> Reply:
    """A greeting, answered in one piece."""
    return (await server.once(greeted)).expect(200)


async def streamed(server: Server) -> Stream:
    """A greeting, answered in events."""
    return Stream.of(await server.post(input=GREETING, stream=True))


async def begun(server: Server) -> Reply:
    """Whatever a greeting in the background is answered with at once."""
    return await server.post(input=GREETING, background=True)


async def begun_in_events(server: Server) -> Reply:
    """Whatever a greeting in the background is answered with when its events are asked for."""
    return await server.post(input=GREETING, background=True, stream=True)


LIMIT = 16
"""The fewest tokens an answer may be limited to."""


async def cut(server: Server) -> Reply:
    """A long answer with a short limit, in one piece."""
    return (await server.post(input=_LONG, max_output_tokens=LIMIT)).expect(200)


async def cut_in_events(server: Server) -> Stream:
    """A long answer with a short limit, in events."""
    return Stream.of(await server.post(input=_LONG, max_output_tokens=LIMIT, stream=True))


async def called(server: Server) -> Reply:
    """A call of the clock in one piece. Raises NotApplicable when the server has no tools."""
    reply = await server.post(input="What time is it?", tools=[CLOCK], tool_choice="required")
    skip_if_refused(reply, TOOLS)
    answer_in(reply)
    return reply


async def called_in_events(server: Server) -> Stream:
    """A call of the clock in events. Raises NotApplicable when the server has no tools."""
    reply = await server.post(input="What time is it?", tools=[CLOCK], tool_choice="required", stream=True)
    skip_if_refused(reply, TOOLS)
    return Stream.of(reply)


async def replies(server: Server) -> list[Reply]:
    """The answers in one piece there are."""
    found = [await server.once(plain)]
    with suppress(NotApplicable):  # the rules about tools say so
        found.append(await server.once(called))
    return found


async def streams(server: Server) -> list[Stream]:
    """The answers in events there are."""
    found = [await server.once(streamed)]
    with suppress(NotApplicable):
        found.append(await server.once(called_in_events))
    return found


def _png() -> str:
    """A red square of 16 by 16 pixels, as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\0\0" * 16) * 16
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


PICTURE = _png()

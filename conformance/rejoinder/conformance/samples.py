"""Answers that many rules look at. Ask for them with `server.once`."""

from contextlib import suppress

from rejoinder.conformance.answer import answer_in, skip_if_refused
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.stream import Stream

GREETING = "Say hello."

UNKNOWN = "resp_" + "0" * 32
"""The id of a response that is nowhere."""

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

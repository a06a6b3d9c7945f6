"""Running cases against the little server."""

from collections.abc import Callable, Iterable, Sequence

from rejoinder.conformance.case import Case
from rejoinder.conformance.server import Reply, Server
from rejoinder.conformance.stream import Stream
from rejoinder.conformance.suite import CASES
from rejoinder.conformance.verdict import Verdict, judge
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer, framed, serving


async def verdicts(little: LittleServer, *, key: str | None = None, cases: Sequence[Case] = CASES) -> list[Verdict]:
    """What the judge says of a little server, case by case."""
    async with serving(little) as url, Server.at(url, MODEL, key=key, timeout=5) as server:
        found = [await judge(case, server) for case in cases]
    assert little.crashes == [], "a fault of the fault is none of the server"
    return found


def named(outcome: str, found: Iterable[Verdict]) -> set[str]:
    return {verdict.case.name for verdict in found if verdict.outcome == outcome}


def told_in_events(**asked: Json) -> list[Json]:
    """The events a little server answers with."""
    it = Exchange("POST", "/responses", {}, {"model": MODEL, "stream": True, **asked})
    LittleServer().serve(it)
    return it.events


def stream_of(events: Sequence[Json]) -> Stream:
    return Stream.of(Reply(200, {"content-type": "text/event-stream"}, [framed(event) for event in events]))


async def failed(fault: Fault) -> set[str]:
    """The names of all cases that a little server with this fault fails."""
    return named("fail", await verdicts(LittleServer(fault)))


def in_responses(change: Callable[[Json], object]) -> Fault:
    """Changes every response object, wherever it is told."""

    def told(it: Exchange) -> None:
        for response in it.responses:
            change(response)

    return Fault(told=told)


def in_events(*kinds: str, change: Callable[[Json], object]) -> Fault:
    """Changes the events of these types."""

    def told(it: Exchange) -> None:
        for event in it.of(*kinds):
            change(event)

    return Fault(told=told)


def renumbered(choose: Callable[[list[Json]], list[Json]]) -> Fault:
    """Chooses among the events of a stream, or puts them in another order, and numbers what is left."""

    def told(it: Exchange) -> None:
        events = choose(it.events) if it.events else []
        it.events = [{**event, "sequence_number": number} for number, event in enumerate(events)]

    return Fault(told=told)

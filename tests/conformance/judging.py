"""Judging the little server, and proving that a mutant of it breaks exactly the rules it should."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from rejoinder.conformance.rule import Rule
from rejoinder.conformance.server import Reply, Server
from rejoinder.conformance.stream import Stream
from rejoinder.conformance.suite import RULES
from rejoinder.conformance.verdict import Outcome, Verdict, judge
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer, framed, serving

KEY = "sk-little"

Mutants = Mapping[str, tuple[Fault, set[str]]]
"""By what is wrong with it: the fault, and the ids of all rules that it breaks.

MUTANTS: Mutants = {
    "[DONE] is missing": (Fault(sent=lambda chunks: chunks[:-1]), {"streams.the-last-data-is-done"}),
}

@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks
"""


def every(mutants: Mutants) -> pytest.MarkDecorator:
    """A test for each mutant."""
    return pytest.mark.parametrize(("fault", "breaks"), list(mutants.values()), ids=list(mutants))


async def broken(fault: Fault) -> set[str]:
    """The ids of all rules of the suite that a little server with this fault breaks."""
    return ids("broken", await verdicts(LittleServer(fault, key=KEY), key=KEY))


async def verdicts(little: LittleServer, *, key: str | None = None, rules: Sequence[Rule] = RULES) -> list[Verdict]:
    """What the judge says of a little server, rule by rule."""
    async with serving(little) as url, Server.at(url, MODEL, key=key, timeout=5) as server:
        found = [await judge(rule, server) for rule in rules]
    assert little.crashes == [], "a fault of the fault is none of the server"
    stumbled = [verdict.reason for verdict in found if verdict.outcome == "not_judged"]
    assert stumbled == [], "a rule has an answer to everything a server does"
    return found


def ids(outcome: Outcome, found: Iterable[Verdict]) -> set[str]:
    return {verdict.id for verdict in found if verdict.outcome == outcome}


def told_in_events(**asked: Json) -> list[Json]:
    """The events a little server answers with."""
    it = Exchange("POST", "/responses", {}, {"model": MODEL, "stream": True, **asked})
    LittleServer().serve(it)
    return it.events


def stream_of(events: Sequence[Json]) -> Stream:
    return Stream.of(Reply(200, {"content-type": "text/event-stream"}, [framed(event) for event in events]))


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


@contextmanager
def in_a_thread(little: LittleServer) -> Iterator[str]:
    """Its base URL, for those who have a loop of their own."""
    url: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    enough = asyncio.Event()

    async def serve() -> None:
        async with serving(little) as address:
            url.append(address)
            ready.set()
            await enough.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(5)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(enough.set)
        thread.join(5)

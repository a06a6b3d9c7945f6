"""Judging the little server, and proving that a mutant of it breaks exactly the rules it should."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager

import pytest

from rejoinder.conformance.need import PAIRED
from rejoinder.conformance.rule import Rule
from rejoinder.conformance.server import Reply, Server
from rejoinder.conformance.stream import Stream
from rejoinder.conformance.suite import RULES
from rejoinder.conformance.verdict import Outcome, Verdict, judge
from tests.conformance.little_exchange import Wire
from tests.conformance.little_program import little_program
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer, Refused, framed, serving
from tests.conformance.little_session import URL, reaching

KEY = "sk-little"
OTHER_KEY = "sk-other"

OPEN: Sequence[Rule] = [rule for rule in RULES if PAIRED not in rule.needs]
"""The rules that need no provider of ours behind the server; `bridged` has the others."""

Mutants = Mapping[str, tuple[Fault, set[str]]]
"""By what is wrong with it: the fault, and the ids of all rules that it breaks.

MUTANTS: Mutants = {
    "[DONE] comes twice": (Fault(sent=lambda chunks: [*chunks, chunks[-1]]), {"streams.the-last-data-is-done"}),
}

@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks
"""


def every(mutants: Mutants) -> pytest.MarkDecorator:
    """A test for each mutant."""
    return pytest.mark.parametrize(("fault", "breaks"), list(mutants.values()), ids=list(mutants))


async def broken(fault: Fault) -> set[str]:
    """The ids of all rules of the suite that a little server with this fault breaks.

    A rule that speaks over sockets alone, or never over one, is told the same by a server that is only wrong over the
    other: it need not be asked.
    """
    little = LittleServer(fault, key=KEY, other_key=OTHER_KEY)
    wires = await wires_of_rules()
    rules = [rule for rule in OPEN if wires[rule.id] & fault.wires]
    return ids("broken", await verdicts(little, key=KEY, other_key=OTHER_KEY, rules=rules))


async def verdicts(
    little: LittleServer, *, key: str | None = None, other_key: str | None = None, rules: Sequence[Rule] = OPEN
) -> list[Verdict]:
    """What the judge says of a little server, rule by rule."""
    server = Watched(little, key=key, other_key=other_key)
    found = [await judge(rule, server) for rule in rules]
    assert little.crashes == [], "a fault of the fault is none of the server"
    stumbled = [verdict.reason for verdict in found if verdict.outcome == "not_judged"]
    assert stumbled == [], "a rule has an answer to everything a server does"
    return found


async def judged(rules: Iterable[Rule], fault: Fault, *, refuses: str | None = None) -> tuple[set[str], set[str]]:
    """What of these rules is broken and what does not apply."""
    found = await verdicts(LittleServer(fault, key=KEY, refuses=refuses), key=KEY, rules=list(rules))
    return ids("broken", found), ids("not_applicable", found)


class Watched(Server):
    """A little server as the judge sees it, and over what it was spoken to."""

    def __init__(self, little: LittleServer, *, key: str | None, other_key: str | None) -> None:
        session = reaching(little)
        super().__init__(session, URL, MODEL, key=key, other_key=other_key, codex=little_program(session))
        self._apart: list[Server] = []

    def apart(self) -> Server:
        self._apart.append(super().apart())
        return self._apart[-1]

    def wires(self) -> set[Wire]:
        """Since the last time it was asked."""
        asked = {exchange.asked for server in self._apart for exchange in server.transcript}
        self._apart.clear()
        return {"socket" if one.startswith("WebSocket") else "http" for one in asked}


_WIRES: dict[str, set[Wire]] = {}


async def wires_of_rules() -> Mapping[str, set[Wire]]:
    """Over what each rule speaks, by its id, to a server that keeps them all."""
    if not _WIRES:
        server = Watched(LittleServer(key=KEY, other_key=OTHER_KEY), key=KEY, other_key=OTHER_KEY)
        for rule in OPEN:
            await judge(rule, server)
            _WIRES[rule.id] = server.wires()
    return _WIRES


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


def refusing(is_refused: Callable[[Exchange], object], param: str | None = None) -> Fault:
    """Refuses what it should not, and names this parameter."""

    def asked(it: Exchange) -> None:
        if is_refused(it):
            raise Refused("not this", param)

    return Fault(asked=asked)


def bending(change: Callable[[Json], object]) -> Fault:
    """Changes the bodies of create calls before anything looks at them: what is wrong may be right then."""
    return Fault(asked=lambda it: change(it.body) if it.path == "/responses" else None)


def telling(is_meant: Callable[[Exchange], object], change: Callable[[Json], object]) -> Fault:
    """Changes the responses in the answers to these create calls."""

    def told(it: Exchange) -> None:
        if it.path == "/responses" and is_meant(it):
            for response in it.responses:
                change(response)

    return Fault(told=told)


def keeping(
    is_meant: Callable[[Exchange], object], change: Callable[[Json], object], *, at_once: bool = False
) -> Fault:
    """Changes the responses that these create calls made, whenever they are asked for or cancelled later; or from the
    first answer on."""
    ids: set[str] = set()

    def told(it: Exchange) -> None:
        if it.path == "/responses" and is_meant(it):
            ids.update(response["id"] for response in it.responses)
        for response in it.responses if at_once else [*it.kept, *it.cancelled]:
            if response["id"] in ids:
                change(response)

    return Fault(told=told)


def anything(it: Exchange) -> bool:
    return True


def in_events(*kinds: str, change: Callable[[Json], object], within: Callable[[Exchange], object] = anything) -> Fault:
    """Changes the events of these types, in these exchanges."""

    def told(it: Exchange) -> None:
        for event in it.of(*kinds) if within(it) else ():
            change(event)

    return Fault(told=told)


def renumbered(choose: Callable[[list[Json]], list[Json]], within: Callable[[Exchange], object] = anything) -> Fault:
    """Chooses among the events of a stream, or puts them in another order, and numbers what is left."""

    def told(it: Exchange) -> None:
        if not it.events or not within(it):
            return
        events = choose(it.events)
        it.events = [{**event, "sequence_number": number} for number, event in enumerate(events)]

    return Fault(told=told)


def is_nobodys(path: str) -> bool:
    """Whether the place ends with an id that `samples.unlike` has made: the numbers of the little server are short."""
    return any(len(name) > 30 and name[-6] == "1" for name in path.split("/"))


def in_a_thread(little: LittleServer) -> AbstractContextManager[str]:
    """Its base URL, for those who have a loop of their own."""
    return threaded(serving(little))


@contextmanager
def threaded(served: AbstractAsyncContextManager[str]) -> Iterator[str]:
    """The same for anything that is served at a URL."""
    url: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    enough = asyncio.Event()

    async def serve() -> None:
        async with served as address:
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

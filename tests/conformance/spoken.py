"""Faults of what goes over a socket."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from tests.conformance.little_server import Exchange, Fault, Json, Refused

Meant: TypeAlias = Callable[[Exchange], object]
Change: TypeAlias = Callable[[Exchange], object]
Marks: TypeAlias = Callable[[Exchange], set[str]]


def hearing(is_meant: Meant, change: Change) -> Fault:
    """Changes these create calls before they wait."""

    def heard(it: Exchange) -> None:
        if it.method == "POST" and is_meant(it):
            change(it)

    return Fault(heard=heard)


def saying(is_meant: Meant, change: Change) -> Fault:
    """Changes what is said to these create calls."""

    def said(it: Exchange) -> None:
        if it.method == "POST" and is_meant(it):
            change(it)

    return Fault(said=said)


def deaf(is_meant: Meant, code: str | None = None, status: int = 400) -> Fault:
    """Refuses these create calls."""

    def refuse(it: Exchange) -> None:
        raise Refused("not this", code=code, status=status)

    return hearing(is_meant, refuse)


def events(*kinds: str, change: Callable[[Json], object]) -> Change:
    """Changes the events of these types."""

    def changed(it: Exchange) -> None:
        for event in it.of(*kinds):
            change(event)

    return changed


def errors(change: Callable[[Json], object]) -> Change:
    """Changes error frames."""
    return events("error", change=change)


def responses(change: Callable[[Json], object]) -> Change:
    """Changes the responses in events."""

    def changed(it: Exchange) -> None:
        for event in it.events:
            if "response" in event:
                change(event["response"])

    return changed


def chosen(choose: Callable[[list[Json]], list[Json]]) -> Change:
    """Chooses among the events, or puts them in another order, and numbers what is left."""

    def changed(it: Exchange) -> None:
        it.events = [{**event, "sequence_number": number} for number, event in enumerate(choose(it.events))]

    return changed


def without(*kinds: str) -> Change:
    return chosen(lambda all_: [event for event in all_ if event["type"].removeprefix("response.") not in kinds])


def called(old: str, new: str, it: Exchange) -> None:
    """Calls something else by this name, everywhere."""
    it.events = msgspec.json.decode(msgspec.json.encode(it.events).replace(old.encode(), new.encode()))


def connections() -> Marks:
    """What a fault notes of a connection."""
    # The memory of a connection is the one thing its exchanges have in common; it is kept, so that its id is its own.
    noted: dict[int, tuple[Json, set[str]]] = {}
    return lambda it: noted.setdefault(id(it.local), (it.local, set()))[1]


def tokens(number: int) -> Change:
    """Tells another number of input tokens."""

    def change(response: Json) -> None:
        if usage := response["usage"]:
            usage.update(input_tokens=number, total_tokens=number + usage["output_tokens"])

    return responses(change)


def unnamed(it: Exchange) -> bool:
    """Whether it is a mere greeting, in no lane and with no settings that matter."""
    names = {"stream_id", "instructions", "tools", "client_metadata", "stream", "background", "generate"}
    return it.body.get("input") == "Say hello." and not names & {name for name in it.body if it.body[name]}


def a_gap(it: Exchange) -> None:
    for event in it.events[3:]:
        event["sequence_number"] += 1

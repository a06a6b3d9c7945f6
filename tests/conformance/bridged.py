"""Judging the little bridge in front of the scripted provider, as `judging` does with the little server."""

from collections.abc import Callable, Collection, Mapping, Sequence

import pytest

from rejoinder.conformance.need import PAIRED
from rejoinder.conformance.paired import Provider
from rejoinder.conformance.rule import Rule
from rejoinder.conformance.server import Server
from rejoinder.conformance.suite import RULES
from rejoinder.conformance.verdict import Verdict, judge
from tests.conformance.judging import ids
from tests.conformance.little_bridge import MODEL, Fault, Habit, Json, LittleBridge, bridging

PAIRED_RULES: Sequence[Rule] = [rule for rule in RULES if PAIRED in rule.needs]

FLOOD = "faults.who-does-not-read-holds-the-provider-up"
"""The one rule that takes a second. Only the mutants that break it are judged by it."""

Mutants = Mapping[str, tuple[Fault, set[str]]]
"""By what is wrong with it: the fault, and the ids of all paired rules that it breaks."""


def every(mutants: Mutants) -> pytest.MarkDecorator:
    """A test for each mutant."""
    return pytest.mark.parametrize(("fault", "breaks"), list(mutants.values()), ids=list(mutants))


UNHURRIED = "fidelity.deltas-come-while-the-provider-writes"
"""The rule that waits for half of what a server may take, at most five seconds, when it is broken."""


async def broken(fault: Fault, breaks: Collection[str]) -> set[str]:
    """The ids of all paired rules that a bridge with this fault breaks; `breaks` are those that it is to."""
    rules = [rule for rule in PAIRED_RULES if rule.id != FLOOD or FLOOD in breaks]
    return ids("broken", await verdicts(fault, rules=rules, timeout=2 if UNHURRIED in breaks else 10))


async def verdicts(
    fault: Fault | None = None, *, rules: Sequence[Rule] = PAIRED_RULES, timeout: float = 10
) -> list[Verdict]:
    """What the judge says of a little bridge, rule by rule."""
    with Provider.listening("chat", 0) as provider:
        bridge = LittleBridge(provider.upstream.base_url, fault)
        async with (
            bridging(bridge) as url,
            Server.at(url, MODEL, key=None, timeout=timeout, provider=provider) as server,
        ):
            found = [await judge(rule, server) for rule in rules]
    assert bridge.crashes == [], "a fault of the fault is none of the server"
    stumbled = [verdict.reason for verdict in found if verdict.outcome == "not_judged"]
    assert stumbled == [], "a rule has an answer to everything a server does"
    return found


def having(*habits: Habit, when: Callable[[Json], bool] | None = None) -> Fault:
    """A bridge with these habits, all the time or with some requests only."""
    return Fault(habits=frozenset(habits)) if when is None else Fault(habits=frozenset(habits), when=when)


def in_messages(change: Callable[[Json], object]) -> Fault:
    """Changes every message for the provider."""

    def prompted(body: Json) -> None:
        for message in body["messages"]:
            change(message)

    return Fault(prompted=prompted)


def in_output(change: Callable[[Json], object]) -> Fault:
    """Changes every item of a response in one piece."""

    def plain(response: Json) -> None:
        for item in response["output"]:
            change(item)

    return Fault(plain=plain)

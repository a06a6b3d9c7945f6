from collections.abc import Callable

import pytest

from rejoinder.conformance.about_refusals import theme
from tests.conformance.judging import failed, named, verdicts
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer


def in_errors(change: Callable[[Json], object]) -> Fault:
    def told(it: Exchange) -> None:
        for error in it.error:
            change(error)

    return Fault(told=told)


def html(it: Exchange) -> None:
    if it.path == "/no-such-path":
        it.headers["content-type"] = "text/html"


def failing_on_null(it: Exchange) -> None:
    if it.asked == b"null":
        it.status = 500


def unnamed_model(it: Exchange) -> None:
    for error in it.error:
        if it.body and "model" not in it.body:
            error["param"] = None


def default_input(it: Exchange) -> None:
    if "model" in it.body:
        it.body.setdefault("input", "Say hello.")


def any_model(it: Exchange) -> None:
    if isinstance(it.body.get("model"), str):
        it.body["model"] = MODEL


def warm(it: Exchange) -> None:
    if it.body.get("temperature") == "warm":
        it.body["temperature"] = 1


def bounded(it: Exchange) -> None:
    if it.body.get("temperature") == 2.5:
        it.body["temperature"] = 2


def anybody(it: Exchange) -> None:
    given = it.body.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and item.get("role") == "nobody":
            item["role"] = "user"


def cut_metadata(it: Exchange) -> None:
    if isinstance(it.body.get("metadata"), dict):
        it.body["metadata"] = dict(list(it.body["metadata"].items())[:16])


def everything_is_there(it: Exchange) -> None:
    if it.path == "/no-such-path":
        it.status, it.told = 200, {}


FAULTS = {
    "an error has no type": (in_errors(lambda error: error.pop("type")), {"an-error-has-one-envelope"}),
    "an error is called HTML": (Fault(told=html), {"an-error-has-one-envelope"}),
    "null is too much": (Fault(told=failing_on_null), {"a-body-that-is-no-object-is-refused"}),
    "a missing model is not named": (Fault(told=unnamed_model), {"a-missing-model-is-named"}),
    "a missing input is made up": (Fault(asked=default_input), {"a-missing-input-is-named"}),
    "another model answers": (Fault(asked=any_model), {"an-unknown-model-is-refused"}),
    "a wrong type is bent": (Fault(asked=warm), {"a-wrong-type-is-named"}),
    "a value out of range is bent": (Fault(asked=bounded), {"a-value-out-of-range-is-named"}),
    "anybody may speak": (Fault(asked=anybody), {"an-unknown-role-is-refused"}),
    "metadata is cut": (Fault(asked=cut_metadata), {"metadata-has-limits"}),
    "every path is there": (Fault(told=everything_is_there), {"an-unknown-path-is-not-found"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_fails_its_cases_alone(name: str) -> None:
    fault, expected = FAULTS[name]
    assert await failed(fault) == expected


async def test_a_server_that_keeps_the_rules_passes() -> None:
    found = await verdicts(LittleServer(key="sk-little"), key="sk-little", cases=list(theme))
    assert named("pass", found) == {case.name for case in theme}


async def test_a_key_that_nobody_asks_for_fails_its_case_alone() -> None:
    found = await verdicts(LittleServer(), key="sk-little")
    assert named("fail", found) == {"a-request-without-its-key-is-refused"}


async def test_without_a_key_nothing_is_said_of_keys() -> None:
    assert named("skip", await verdicts(LittleServer())) == {"a-request-without-its-key-is-refused"}


def test_every_case_can_fail() -> None:
    with_key = {"a-request-without-its-key-is-refused"}
    assert {case.name for case in theme} <= with_key.union(*(expected for _, expected in FAULTS.values()))

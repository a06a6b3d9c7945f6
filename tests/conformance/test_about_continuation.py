import re
from collections.abc import Callable

import pytest

from rejoinder.conformance.about_continuation import theme
from rejoinder.conformance.samples import UNKNOWN
from tests.conformance.judging import failed, in_responses, named, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def ignoring(is_ignored: Callable[[Exchange, str], object]) -> Callable[[Exchange], None]:
    """Drops the previous response silently when it is one of these."""

    def asked(it: Exchange) -> None:
        previous = it.body.get("previous_response_id")
        if isinstance(previous, str) and is_ignored(it, previous):
            it.body.pop("previous_response_id")

    return asked


def forgetting_unstored() -> Fault:
    unstored: set[str] = set()

    def told(it: Exchange) -> None:
        unstored.update(response["id"] for response in it.plain if not response["store"])

    return Fault(asked=ignoring(lambda _, previous: previous in unstored), told=told)


def forgetting_deleted() -> Fault:
    deleted: set[str] = set()

    def told(it: Exchange) -> None:
        if it.method == "DELETE":
            deleted.add(it.path.rpartition("/")[2])

    return Fault(asked=ignoring(lambda _, previous: previous in deleted), told=told)


def reading_one_response_back() -> Fault:
    """The context is the previous response and nothing before it."""
    children: set[str] = set()

    def told(it: Exchange) -> None:
        for response in it.plain:
            if (previous := response["previous_response_id"]) is not None:
                children.add(response["id"])
                if previous in children:
                    response["usage"].update(input_tokens=10, total_tokens=10 + response["usage"]["output_tokens"])

    return Fault(told=told)


def counting_its_children() -> Fault:
    children: list[str] = []

    def told(it: Exchange) -> None:
        children.extend(response["previous_response_id"] for response in it.plain)
        for response in it.kept:
            if count := children.count(response["id"]):
                response["metadata"] = {"children": str(count)}

    return Fault(told=told)


def inheriting(name: str) -> Fault:
    known: dict[str, Json] = {}

    def told(it: Exchange) -> None:
        for response in it.plain:
            if inherited := known.get(response["previous_response_id"]):
                response[name] = inherited
            known[response["id"]] = response[name]

    return Fault(told=told)


def keeping_instructions() -> Fault:
    """The instructions of the previous response stay in the context."""
    known: dict[str, int] = {}

    def told(it: Exchange) -> None:
        for response in it.plain:
            words = len((response["instructions"] or "").split())
            inherited = known.get(response["previous_response_id"], 0)
            known[response["id"]] = words
            usage = response["usage"]
            usage.update(input_tokens=usage["input_tokens"] + inherited)
            usage.update(total_tokens=usage["input_tokens"] + usage["output_tokens"])

    return Fault(told=told)


def alone(response: Json) -> None:
    if response["usage"] and response["previous_response_id"]:
        response["usage"].update(input_tokens=8, total_tokens=8 + response["usage"]["output_tokens"])


def uncounted(response: Json) -> None:
    if response["usage"]:
        response["usage"].update(input_tokens=0, total_tokens=response["usage"]["output_tokens"])


def nameless(response: Json) -> None:
    response["usage"] = None


def streamed_alone(it: Exchange) -> None:
    for response in it.responses if it.events else ():
        response["previous_response_id"] = None


def without_parents(it: Exchange) -> None:
    for response in it.plain:
        response["previous_response_id"] = None


def same_ids(it: Exchange) -> None:
    for response in it.plain:
        if response["previous_response_id"] or len(str(it.body["input"])) > 1000:
            response["output"][0]["id"] = "rs_same"


def without_references(it: Exchange) -> None:
    given = it.body.get("input")
    if isinstance(given, list):
        it.body["input"] = [item for item in given if item != {"type": "item_reference", "id": "msg_" + "0" * 32}]


def coded(it: Exchange) -> None:
    for error in it.error:
        if error["code"] == "previous_response_not_found":
            error["code"] = "not_found"


def no_references(it: Exchange) -> None:
    if "item_reference" in str(it.body.get("input")):
        raise Refused("no references", "input[0]")


def empty(it: Exchange) -> None:
    for response in it.plain:
        response["output"] = []


FAULTS = {
    "the parent is not named": (
        Fault(told=without_parents),
        {"a-response-continues-another", "a-response-can-be-continued-twice", "a-stream-continues-another"},
    ),
    "the context is empty": (
        in_responses(alone),
        {"the-model-sees-what-was-said-before", "a-chain-remembers-its-beginning"},
    ),
    "the context is one response long": (reading_one_response_back(), {"a-chain-remembers-its-beginning"}),
    "a parent is changed by its children": (counting_its_children(), {"a-response-can-be-continued-twice"}),
    "a stream does not name its parent": (Fault(told=streamed_alone), {"a-stream-continues-another"}),
    "tools are inherited": (inheriting("tools"), {"settings-are-not-inherited"}),
    "instructions are inherited": (inheriting("instructions"), {"settings-are-not-inherited"}),
    "instructions stay in the context": (keeping_instructions(), {"instructions-leave-the-context"}),
    "an unknown response is ignored": (
        Fault(asked=ignoring(lambda it, previous: previous == UNKNOWN and not it.body.get("stream"))),
        {"an-unknown-previous-response-is-refused"},
    ),
    "the code is another one": (
        Fault(told=coded),
        {
            "an-unknown-previous-response-is-refused",
            "what-is-not-stored-cannot-be-continued",
            "what-was-deleted-cannot-be-continued",
        },
    ),
    "a malformed id is ignored": (
        Fault(asked=ignoring(lambda _, previous: not re.fullmatch(r"[A-Za-z0-9_-]+", previous))),
        {"a-malformed-previous-response-is-refused"},
    ),
    "what is not stored is ignored": (forgetting_unstored(), {"what-is-not-stored-cannot-be-continued"}),
    "what was deleted is ignored": (forgetting_deleted(), {"what-was-deleted-cannot-be-continued"}),
    "items of two responses share an id": (Fault(told=same_ids), {"ids-are-unique-over-a-chain"}),
    "an unknown reference is ignored": (Fault(asked=without_references), {"a-stored-item-can-be-referred-to"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_fails_its_cases_alone(name: str) -> None:
    fault, expected = FAULTS[name]
    assert await failed(fault) == expected


async def test_a_server_that_keeps_the_rules_passes() -> None:
    assert named("pass", await verdicts(LittleServer(), cases=list(theme))) == {case.name for case in theme}


def test_every_case_can_fail() -> None:
    assert {case.name for case in theme} <= set().union(*(expected for _, expected in FAULTS.values()))


async def test_a_server_that_counts_no_tokens_is_not_asked_what_it_read() -> None:
    found = await verdicts(LittleServer(in_responses(uncounted)), cases=list(theme))
    assert named("fail", found) == set()
    assert named("skip", found) == {
        "the-model-sees-what-was-said-before",
        "a-chain-remembers-its-beginning",
        "instructions-leave-the-context",
    }


async def test_a_server_that_reports_no_usage_fails() -> None:
    found = await verdicts(LittleServer(in_responses(nameless)), cases=list(theme))
    assert "the-model-sees-what-was-said-before" in named("fail", found)


async def test_without_references_or_items_there_is_nothing_to_refer_to() -> None:
    for fault in (Fault(asked=no_references), Fault(told=empty)):
        found = await verdicts(LittleServer(fault), cases=list(theme))
        assert "a-stored-item-can-be-referred-to" in named("skip", found)

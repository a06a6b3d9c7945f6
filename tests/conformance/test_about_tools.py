import pytest

from rejoinder.conformance.about_tools import theme
from tests.conformance.judging import failed, named, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def choosing(choice: Json, instead: Json) -> Fault:
    """Takes one tool choice for another."""

    def asked(it: Exchange) -> None:
        if it.body.get("tool_choice") == choice and it.body.get("parallel_tool_calls", True):
            it.body["tool_choice"] = instead

    return Fault(asked=asked)


def the_first_named(it: Exchange) -> None:
    match it.body.get("tool_choice"):
        case {"type": "function"} if len(it.body["tools"]) > 1:
            it.body["tool_choice"] = "required"


def any_allowed(it: Exchange) -> None:
    match it.body.get("tool_choice"):
        case {"type": "allowed_tools"}:
            it.body["tool_choice"] = {"type": "function", "name": "weather"}


def twice(it: Exchange) -> None:
    if it.body.get("parallel_tool_calls") is False:
        for response in it.plain:
            response["output"] *= 2


def calls(it: Exchange) -> list[Json]:
    return [item for response in it.plain for item in response["output"] if item["type"] == "function_call"]


def without_arguments(it: Exchange) -> None:
    for call in calls(it):
        call["arguments"] = "{}"


def arguments_as_an_object(it: Exchange) -> None:
    for call in calls(it):
        if call["name"] == "weather":
            call["arguments"] = {"city": "Oslo"}


def one_id(it: Exchange) -> None:
    for call in calls(it):
        call["id"] = call["call_id"]


def kinds(it: Exchange) -> list[str]:
    given = it.body.get("input")
    return [item.get("type", "message") for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def no_outputs_after(it: Exchange) -> None:
    if it.body.get("previous_response_id") and "function_call_output" in kinds(it):
        raise Refused("no outputs", "input")


def no_calls(it: Exchange) -> None:
    if "function_call" in kinds(it):
        raise Refused("no calls", "input")


def never_minding(it: Exchange) -> None:
    """An open call is forgotten."""
    if "Never mind." in str(it.body.get("input")):
        it.body.pop("previous_response_id", None)
        it.body["input"] = "Never mind."


def dropping_strays(it: Exchange) -> None:
    if "function_call_output" in kinds(it):
        it.body["input"] = [item for item in it.body["input"] if item.get("call_id") != "call_stray"]


FAULTS = {
    "required is taken for none": (
        choosing("required", "none"),
        {"required-makes-a-call"},
    ),
    "the first tool is called whatever was named": (
        Fault(asked=the_first_named),
        {"a-named-tool-is-the-one-called"},
    ),
    "none is taken for required": (choosing("none", "required"), {"none-makes-no-call"}),
    "all tools are allowed": (Fault(asked=any_allowed), {"only-allowed-tools-are-called"}),
    "calls are parallel": (Fault(told=twice), {"one-call-at-a-time-can-be-asked-for"}),
    "arguments are left out": (Fault(told=without_arguments), {"arguments-are-json-of-the-schema"}),
    "arguments are no text": (Fault(told=arguments_as_an_object), {"arguments-are-json-of-the-schema"}),
    "a call has one id": (Fault(told=one_id), {"a-call-has-two-ids"}),
    "outputs are refused": (Fault(asked=no_outputs_after), {"outputs-continue-a-call"}),
    "calls are refused": (Fault(asked=no_calls), {"a-whole-conversation-can-be-sent"}),
    "an open call is forgotten": (Fault(asked=never_minding), {"an-open-call-is-refused"}),
    "an output without a call is dropped": (Fault(asked=dropping_strays), {"an-output-without-a-call-is-refused"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_fails_its_cases_alone(name: str) -> None:
    fault, expected = FAULTS[name]
    assert await failed(fault) == expected


async def test_a_server_that_keeps_the_rules_passes() -> None:
    assert named("pass", await verdicts(LittleServer(), cases=list(theme))) == {case.name for case in theme}


def test_every_case_can_fail() -> None:
    assert {case.name for case in theme} <= set().union(*(expected for _, expected in FAULTS.values()))


async def test_a_server_without_tools_is_not_asked_for_calls() -> None:
    found = await verdicts(LittleServer(refuses="tools"), cases=list(theme))
    assert named("fail", found) == set()
    assert named("pass", found) == set()


async def test_without_a_call_there_is_nothing_to_go_on_from() -> None:
    found = await verdicts(LittleServer(choosing("required", "none")), cases=list(theme))
    assert named("skip", found) == {
        "a-call-has-two-ids",
        "outputs-continue-a-call",
        "a-whole-conversation-can-be-sent",
        "an-open-call-is-refused",
        "an-output-without-a-call-is-refused",
    }

from rejoinder.conformance.about_tools import chapter
from tests.conformance.judging import Mutants, broken, every, ids, verdicts
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


MUTANTS: Mutants = {
    "required is taken for none": (
        choosing("required", "none"),
        {"tools.required-makes-a-call"},
    ),
    "the first tool is called whatever was named": (
        Fault(asked=the_first_named),
        {"tools.a-named-tool-is-the-one-called"},
    ),
    "none is taken for required": (choosing("none", "required"), {"tools.none-makes-no-call"}),
    "all tools are allowed": (Fault(asked=any_allowed), {"tools.only-allowed-tools-are-called"}),
    "calls are parallel": (Fault(told=twice), {"tools.one-call-at-a-time-can-be-asked-for"}),
    "arguments are left out": (Fault(told=without_arguments), {"tools.arguments-are-json-of-the-schema"}),
    "arguments are no text": (Fault(told=arguments_as_an_object), {"tools.arguments-are-json-of-the-schema"}),
    "a call has one id": (Fault(told=one_id), {"tools.a-call-has-two-ids"}),
    "outputs are refused": (Fault(asked=no_outputs_after), {"tools.outputs-continue-a-call"}),
    "calls are refused": (Fault(asked=no_calls), {"tools.a-whole-conversation-can-be-sent"}),
    "an open call is forgotten": (Fault(asked=never_minding), {"tools.an-open-call-is-refused"}),
    "an output without a call is dropped": (
        Fault(asked=dropping_strays),
        {"tools.an-output-without-a-call-is-refused"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_server_without_tools_is_not_asked_for_calls() -> None:
    found = await verdicts(LittleServer(refuses="tools"), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("kept", found) == set()


async def test_without_a_call_there_is_nothing_to_go_on_from() -> None:
    found = await verdicts(LittleServer(choosing("required", "none")), rules=list(chapter))
    assert ids("not_applicable", found) == {
        "tools.a-call-has-two-ids",
        "tools.outputs-continue-a-call",
        "tools.a-whole-conversation-can-be-sent",
        "tools.an-open-call-is-refused",
        "tools.an-output-without-a-call-is-refused",
    }

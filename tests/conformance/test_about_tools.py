from rejoinder.conformance.about_tools import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import (
    Mutants,
    bending,
    broken,
    every,
    ids,
    in_responses,
    refusing,
    renumbered,
    telling,
    verdicts,
)
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def choosing(choice: Json, instead: Json) -> Fault:
    """Takes one tool choice for another."""

    def asked(it: Exchange) -> None:
        is_asked = it.said != GREETING and not it.body.get("background") and it.body.get("parallel_tool_calls", True)
        if it.body.get("tool_choice") == choice and is_asked:
            it.body["tool_choice"] = instead

    return Fault(asked=asked)


def the_first_named(it: Exchange) -> None:
    match it.body.get("tool_choice"):
        case {"type": "function"} if len(it.body["tools"]) > 1:
            it.body["tool_choice"] = "required"


def any_allowed(it: Exchange) -> None:
    match it.body.get("tool_choice"):
        case {"type": "allowed_tools", "mode": "required"}:
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
    for response in [*it.plain, *it.kept]:
        for item in response["output"]:
            if item["type"] == "function_call":
                item["id"] = item["call_id"]


def items(it: Exchange) -> list[Json]:
    given = it.body.get("input")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def kinds(it: Exchange) -> list[str]:
    return [item.get("type", "message") for item in items(it)]


def no_outputs_after(it: Exchange) -> None:
    if it.body.get("previous_response_id") and history(it) == ("12:00",):
        raise Refused("no outputs", "input")


def is_asked(it: Exchange) -> bool:
    return bool(items(it)[0].get("content") == "What time is it?")


def no_calls(it: Exchange) -> None:
    if any(item["type"] == "function_call" and "id" in item for item in items(it) if "type" in item) and is_asked(it):
        raise Refused("no calls", "input")


def never_minding(it: Exchange) -> None:
    """An open call is forgotten."""
    if "Never mind." in str(it.body.get("input")) and "current_time" in str(it.body["tools"]):
        it.body.pop("previous_response_id", None)
        it.body["input"] = "Never mind."


def dropping_strays(it: Exchange) -> None:
    if "function_call_output" in kinds(it):
        it.body["input"] = [item for item in it.body["input"] if item.get("call_id") != "call_stray"]


def history(it: Exchange) -> tuple[Json, ...]:
    """What was sent of calls of the clock: their call ids and the outputs."""
    return tuple(item.get("output", item.get("call_id", item.get("role"))) for item in items(it))


def sending(*items: Json) -> Fault:
    """Refuses this history."""
    return refusing(lambda it: history(it) == items and "tools" in it.body)


def completing(body: Json) -> None:
    """Makes up the output of a call."""
    given = body.get("input")
    if isinstance(given, list) and len(given) == 4 and "'call_0'" in str(given) and "'call_1'" in str(given):
        given.append({"type": "function_call_output", "call_id": "call_0", "output": "12:00"})


def has_parts(it: Exchange) -> bool:
    output = history(it)[-1:]
    return output != () and isinstance(output[0], list) and len(output[0]) == 2 and "noon" in str(output)


def shortened(response: Json) -> None:
    for item in response["output"]:
        if len(item.get("name", "")) > 60:
            item["name"] = item["name"][:60]


def calling(response: Json) -> None:
    response["output"] = [
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "weather",
            "arguments": "{}",
            "status": "completed",
        }
    ]


def lenient(response: Json) -> None:
    for tool in response["tools"]:
        if tool.get("name") == "weather":
            tool["strict"] = False


def with_an_object(it: Exchange) -> None:
    for response in it.plain:
        for item in response["output"]:
            if item["type"] == "custom_tool_call":
                item["input"] = {"text": item["input"]}


def without_input_done(events: list[Json]) -> list[Json]:
    return [event for event in events if event["type"] != "response.custom_tool_call_input.done"]


def never_minding_poems(body: Json) -> None:
    if "Never mind." in str(body.get("input")) and "recite" in str(body.get("tools")):
        body.pop("previous_response_id", None)


MUTANTS: Mutants = {
    "calls need an id": (sending("user", "call_0", "12:00"), {"tools.calls-need-no-ids-as-items"}),
    "outputs have to be in order": (
        refusing(lambda it: [item.get("call_id") for item in items(it)][3:] == ["call_1", "call_0"]),
        {"tools.outputs-come-in-any-order"},
    ),
    "an output is made up": (bending(completing), {"tools.every-call-needs-its-output"}),
    "outputs come alone": (sending("user", "call_0", "12:00", "user"), {"tools.a-message-may-follow-outputs"}),
    "an output is never empty": (sending("user", "call_0", ""), {"tools.an-output-may-be-empty"}),
    "an output is a text": (refusing(has_parts), {"tools.an-output-may-have-parts"}),
    "a tool needs parameters": (
        refusing(lambda it: it.body.get("tools") == [{"type": "function", "name": "ping"}]),
        {"tools.a-tool-needs-no-parameters"},
    ),
    "a long name is cut": (telling(lambda it: "tool_choice" in it.body, shortened), {"tools.a-long-name-comes-back"}),
    "a tool that is not allowed is called": (
        telling(lambda it: "'auto'" in str(it.body.get("tool_choice")), calling),
        {"tools.allowed-tools-need-not-be-called"},
    ),
    "nothing is strict": (in_responses(lenient), {"tools.strictness-is-echoed"}),
    "a custom tool is called with an object": (
        Fault(told=with_an_object),
        {"tools.a-custom-tool-is-called-with-a-text"},
    ),
    "the input of a custom tool is not done": (
        renumbered(without_input_done, within=lambda it: it.method == "POST"),
        {"tools.a-custom-call-is-told-in-events"},
    ),
    "the output of a custom tool is refused": (
        refusing(lambda it: "custom_tool_call_output" in kinds(it)),
        {"tools.a-custom-call-is-continued"},
    ),
    "an open custom call is forgotten": (bending(never_minding_poems), {"tools.an-open-custom-call-is-refused"}),
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


async def test_without_a_custom_call_there_is_nothing_to_go_on_from() -> None:
    fault = telling(lambda it: "recite" in str(it.body.get("tools")), lambda response: response["output"].clear())
    found = await verdicts(LittleServer(fault), rules=list(chapter))
    assert ids("not_applicable", found) == {
        "tools.a-custom-call-is-continued",
        "tools.an-open-custom-call-is-refused",
    }

import pytest

from rejoinder.conformance.about_inputs import theme
from tests.conformance.judging import failed, in_responses, named, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def messages(it: Exchange) -> list[Json]:
    given = it.body.get("input")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def no_parts(it: Exchange) -> None:
    if any(isinstance(item.get("content"), list) and len(item["content"]) == 1 for item in messages(it)):
        raise Refused("no parts", "input[0].content[0]")


def no_developer(it: Exchange) -> None:
    if any(item.get("role") == "developer" for item in messages(it)):
        raise Refused("no developer", "input[0].role")


def no_phase(it: Exchange) -> None:
    if any("phase" in item for item in messages(it)):
        raise Refused("no phase", "input[1].phase")


def no_reasoning(it: Exchange) -> None:
    if any(item.get("type") == "reasoning" for item in messages(it)):
        raise Refused("no reasoning", "input[1]")


def no_nulls(it: Exchange) -> None:
    if None in it.body.values():
        raise Refused("no null", "store")


def has_image(it: Exchange) -> bool:
    parts = [part for item in messages(it) for part in item.get("content", ())]
    return any(isinstance(part, dict) and part.get("type") == "input_image" for part in parts)


def no_images(it: Exchange) -> None:
    if has_image(it):
        raise Refused("no images", "input[0].content[1]", "unsupported_value")


def silent_about_images(it: Exchange) -> None:
    if has_image(it):
        raise Refused("something is wrong")


def said(it: Exchange, kind: str, text: str) -> None:
    for response in it.plain:
        if (it.body.get("text") or {}).get("format", {}).get("type") == kind:
            response["output"][-1]["content"][0]["text"] = text


def too_long(response: Json) -> None:
    if response["max_output_tokens"] == 16:
        response["status"] = "completed"
        response["usage"].update(output_tokens=90, total_tokens=90 + response["usage"]["input_tokens"])


def short(it: Exchange) -> None:
    if it.body.get("max_output_tokens") == 16:
        it.body["input"] = "Say hello."


FAULTS = {
    "content has to be a text": (
        Fault(asked=no_parts),
        {"a-message-needs-no-type", "what-was-answered-can-be-sent-back"},
    ),
    "developers are not heard": (Fault(asked=no_developer), {"system-and-developer-may-speak"}),
    "phases are refused": (Fault(asked=no_phase), {"turns-of-the-assistant-are-accepted"}),
    "its own items are refused": (Fault(asked=no_reasoning), {"what-was-answered-can-be-sent-back"}),
    "null is refused": (Fault(asked=no_nulls), {"null-means-left-out"}),
    "an image is refused without a name": (
        Fault(asked=silent_about_images),
        {"an-image-is-accepted-or-refused-by-name"},
    ),
    "a schema is ignored": (
        Fault(told=lambda it: said(it, "json_schema", "Ada, 36")),
        {"a-schema-is-kept-to"},
    ),
    "an enumeration is ignored": (
        Fault(told=lambda it: said(it, "json_schema", '{"name": "Ada", "age": 36, "colour": "blue"}')),
        {"a-schema-is-kept-to"},
    ),
    "JSON is not spoken": (Fault(told=lambda it: said(it, "json_object", "Hello!")), {"json-can-be-asked-for"}),
    "an answer is cut silently": (in_responses(too_long), {"a-cut-answer-is-incomplete"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_fails_its_cases_alone(name: str) -> None:
    fault, expected = FAULTS[name]
    assert await failed(fault) == expected


async def test_a_server_that_keeps_the_rules_passes() -> None:
    assert named("pass", await verdicts(LittleServer(), cases=list(theme))) == {case.name for case in theme}


def test_every_case_can_fail() -> None:
    assert {case.name for case in theme} <= set().union(*(expected for _, expected in FAULTS.values()))


async def test_a_model_that_cannot_see_is_not_asked_to() -> None:
    found = await verdicts(LittleServer(Fault(asked=no_images)), cases=list(theme))
    assert named("fail", found) == set()
    assert named("skip", found) == {"an-image-is-accepted-or-refused-by-name"}


async def test_an_answer_that_was_not_cut_says_nothing() -> None:
    found = await verdicts(LittleServer(Fault(asked=short)), cases=list(theme))
    assert named("fail", found) == set()
    assert named("skip", found) == {"a-cut-answer-is-incomplete"}

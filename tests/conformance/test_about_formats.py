from rejoinder.conformance.about_formats import chapter
from tests.conformance.judging import Mutants, broken, every, ids, telling, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer


def said(it: Exchange, kind: str, text: str) -> None:
    for response in it.plain:
        asked = (it.body.get("text") or {}).get("format", {})
        if asked.get("type") == kind and asked.get("name", "person") == "person":
            response["output"][-1]["content"][0]["text"] = text


def titled(it: Exchange) -> bool:
    return "'a-title_2'" in str(it.body.get("text"))


def with_a_number(response: Json) -> None:
    response["output"][-1]["content"][0]["text"] = '{"title": "Ada", "subtitle": 7}'


def told_as_text(it: Exchange) -> None:
    for event in it.of("output_text.delta") if titled(it) else ():
        event["delta"] = "Ada"


MUTANTS: Mutants = {
    "null is a number": (
        telling(lambda it: titled(it) and not it.body.get("stream"), with_a_number),
        {"formats.what-is-optional-may-be-null"},
    ),
    "what is told in events is no JSON": (Fault(told=told_as_text), {"formats.a-schema-is-kept-to-in-events"}),
    "a schema is not echoed": (
        telling(titled, lambda response: response["text"]["format"].pop("schema")),
        {"formats.a-format-is-echoed"},
    ),
    "a text is called JSON": (
        telling(
            lambda it: it.body.get("text") == {"format": {"type": "text"}},
            lambda response: response["text"]["format"].update(type="json_object"),
        ),
        {"formats.the-format-is-text-unless-another-is-asked-for"},
    ),
    "a schema is ignored": (
        Fault(told=lambda it: said(it, "json_schema", "Ada, 36")),
        {"formats.a-schema-is-kept-to"},
    ),
    "an enumeration is ignored": (
        Fault(told=lambda it: said(it, "json_schema", '{"name": "Ada", "age": 36, "colour": "blue"}')),
        {"formats.a-schema-is-kept-to"},
    ),
    "JSON is not spoken": (Fault(told=lambda it: said(it, "json_object", "Hello!")), {"formats.json-can-be-asked-for"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_server_without_formats_is_not_asked_for_them() -> None:
    found = await verdicts(LittleServer(refuses="text"), rules=list(chapter))
    assert ids("kept", found) == set()
    assert ids("broken", found) == {"formats.the-format-is-text-unless-another-is-asked-for"}

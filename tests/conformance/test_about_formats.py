from tests.conformance.judging import Mutants, broken, every
from tests.conformance.little_server import Exchange, Fault


def said(it: Exchange, kind: str, text: str) -> None:
    for response in it.plain:
        if (it.body.get("text") or {}).get("format", {}).get("type") == kind:
            response["output"][-1]["content"][0]["text"] = text


MUTANTS: Mutants = {
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

import json
from typing import Any

import jsonschema_rs
import pytest

from rejoinder.conformance.upstreams.example import example

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "height": {"type": ["number", "null"]},
        "is_here": {"type": "boolean"},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}},
        "mood": {"enum": ["good", "bad"]},
        "kind": {"const": "person"},
        "nothing": {"type": "null"},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "left_out": {"type": "string"},
    },
    "required": ["name", "age", "height", "is_here", "friends", "mood", "kind", "nothing", "either"],
    "$defs": {"friend": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def made(schema: object) -> Any:
    return json.loads(example(json.dumps(schema).encode()))


def test_a_value_fits_its_schema_and_has_nothing_that_is_not_required() -> None:
    value = made(PERSON)
    jsonschema_rs.validate(PERSON, value)
    assert "left_out" not in value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {}),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"a": "Ada"}),
        ({"type": "OBJECT", "properties": None, "required": ["a"]}, {}),
        ({"properties": {"a": True}, "required": ["a"]}, {"a": None}),
        ({"type": "array"}, [None]),
        ({"oneOf": [{"type": "STRING"}]}, "Ada"),
        ({"allOf": [{"type": "integer"}]}, 36),
        ({"$ref": "#"}, None),
        ({"$ref": "#/nowhere/at/all"}, None),
        (True, None),
    ],
)
def test_what_a_schema_does_not_say_is_not_looked_for(schema: object, value: object) -> None:
    assert made(schema) == value

import json

import pytest
from msgspec import Raw

from rejoinder.server.schema_example import example, schema_of


def made(schema: object, *quoted: str) -> object:
    value: object = json.loads(example(schema_of(Raw(json.dumps(schema).encode())), quoted))
    return value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "example"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "maxLength": 3}, "exa"),
        ({"type": "string", "minLength": 9}, "example.."),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "minimum": 2.5}, 3),
        ({"type": "number", "maximum": -1.5}, -1.5),
        ({"type": "number", "minimum": 0.5, "maximum": 2}, 0.5),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": "hologram"}, None),
        ({"type": ["string", "null"]}, "example"),
        ({"type": []}, "example"),
        ({}, "example"),
        ({"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"a": 0}),
        ({"type": "object", "properties": {"a": {}}}, {}),
        ({"type": "object", "required": ["undeclared"]}, {"undeclared": None}),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"enum": ["red", "blue"]}, "red"),
        ({"const": {"a": 1}}, {"a": 1}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"oneOf": [{"const": 7}]}, 7),
        ({"allOf": [{"type": "boolean"}]}, False),
        ({"$ref": "#/$defs/color", "$defs": {"color": {"enum": ["green"]}}}, "green"),
    ],
)
def test_the_example_fits_the_schema(schema: object, value: object) -> None:
    assert made(schema) == value


def test_strings_are_taken_from_what_was_quoted_as_far_as_it_reaches() -> None:
    texts = {name: {"type": "string"} for name in ("a", "b", "c")}
    schema = {"type": "object", "properties": texts, "required": ["a", "b", "c"]}
    assert made(schema, "Oslo", "today") == {"a": "Oslo", "b": "today", "c": "example"}


def test_a_schema_that_holds_itself_ends_with_null() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    assert made(node) == {"next": {"next": None}}


def test_a_schema_without_a_way_out_is_given_up() -> None:
    endless = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert "null" in json.dumps(made(endless))


def test_a_schema_that_asks_for_very_much_is_given_less() -> None:
    huge = {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9, "items": {}}}
    assert len(json.dumps(made(huge))) < 200_000
    assert len(json.dumps(made({"type": "string", "minLength": 10**9}))) < 20_000


@pytest.mark.parametrize(
    "raw", [b'{"items": [{"type": "string"}]}', b'"object"', b'{"items":' * 5000 + b"1" + b"}" * 5000]
)
def test_a_schema_in_another_form_stands_for_any_object(raw: bytes) -> None:
    assert example(schema_of(Raw(raw))) == "{}"

import json

import pytest

from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.gemini_schema import json_schema, subset


def plain(schema: object) -> tuple[object, set[str]]:
    cleaned = json_schema(json.dumps(schema).encode(), param="tools")
    return json.loads(cleaned.schema or b"null"), set(cleaned.lost)


def small(schema: object, *, ordered: bool = False) -> tuple[object, set[str]]:
    cleaned = subset(json.dumps(schema).encode(), param="tools", ordered=ordered)
    return json.loads(cleaned.schema or b"null"), set(cleaned.lost)


def thing(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


# JSON Schema.


def test_json_schema_is_left_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/A"},
            "type": {"type": ["string", "null"], "minLength": 1, "pattern": "^a", "default": None},
            "examples": {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 1},
            "t": {"prefixItems": [{"type": "integer"}, True]},
        },
        "$defs": {"A": {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 1}]}},
        "required": ["a"],
        "additionalProperties": False,
    }

    assert plain(schema) == (schema, set())


def test_what_says_nothing_about_a_value_is_left_out() -> None:
    schema = {"$schema": "https://x", "$id": "y", "type": "string", "discriminator": {"propertyName": "k"}}

    assert plain(schema) == ({"type": "string"}, set())


def test_a_constant_is_an_enum_of_one() -> None:
    assert plain(thing(kind={"const": "x"})) == (thing(kind={"enum": ["x"]}), set())


def test_what_is_refused_is_said_in_words() -> None:
    schema = thing(
        n={"type": "number", "exclusiveMinimum": 0, "description": "How many."},
        m={"type": "string", "format": "uuid", "examples": ["a"]},
    )

    assert plain(schema) == (
        thing(
            n={"type": "number", "description": "How many. (exclusiveMinimum: 0)"},
            m={"type": "string", "description": '(format: "uuid"; examples: ["a"])'},
        ),
        {"exclusiveMinimum", "format", "examples"},
    )


def test_schemas_inside_schemas_are_cleaned_wherever_they_are() -> None:
    wrong, right = {"const": 1}, {"enum": [1]}
    holders = [
        {"$defs": {"a": wrong}, "type": "object", "properties": {"x": wrong}},
        {"anyOf": [wrong, wrong]},
        {"type": "array", "items": wrong},
        {"type": "object", "additionalProperties": wrong, "patternProperties": {"^a": wrong}},
        {"not": wrong},
    ]

    for holder in holders:
        found, lost = plain(holder)
        assert json.dumps(found) == json.dumps(holder).replace(json.dumps(wrong), json.dumps(right))
        assert lost == set()


def test_a_keyword_of_another_shape_is_nobodys_business() -> None:
    assert plain({"type": "string", "properties": [], "anyOf": {}, "items": True}) == (
        {"type": "string", "properties": [], "anyOf": {}, "items": True},
        set(),
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False, "title": "None"},
    ],
)
def test_an_object_without_properties_is_no_schema(schema: object) -> None:
    assert plain(schema) == (None, set())
    assert small(schema) == (None, set())


def test_an_object_of_anything_described_is_a_schema() -> None:
    schema = {"type": "object", "description": "Whatever you like."}

    assert plain(schema) == (schema, set())


@pytest.mark.parametrize("body", [b"[]", b"true", b"7", b'{"items":' * 3000 + b"{}" + b"}" * 3000])
def test_what_is_no_object_or_has_no_end_is_refused_by_name(body: bytes) -> None:
    for clean in (json_schema, subset):
        with pytest.raises(Unsupported, match="object of reasonable depth") as raised:
            clean(body, param="text.format")
        assert raised.value.param == "text.format"


# The subset of OpenAPI.


def test_the_subset_is_left_as_it_is() -> None:
    schema = {
        "type": "object",
        "title": "T",
        "description": "D",
        "properties": {
            "a": {"type": "string", "enum": ["x"], "format": "enum", "nullable": True, "pattern": "x", "maxLength": 3},
            "b": {"type": "array", "items": {"type": "integer", "format": "int32", "minimum": 1}, "minItems": 1},
            "c": {"anyOf": [{"type": "string"}, {"type": "number"}], "default": 1},
        },
        "required": ["a"],
        "propertyOrdering": ["b", "a", "c"],
    }

    assert small(schema, ordered=True) == (schema, set())


def test_the_order_of_properties_is_said_where_it_matters() -> None:
    schema = thing(b={"type": "string"}, a=thing(d={"type": "string"}))

    assert small(schema, ordered=True) == (
        {
            **thing(b={"type": "string"}, a={**thing(d={"type": "string"}), "propertyOrdering": ["d"]}),
            "propertyOrdering": ["b", "a"],
        },
        set(),
    )


def test_nothing_is_a_flag_there() -> None:
    nullable = {"type": "string", "nullable": True}

    assert small(thing(a={"type": ["string", "null"]}))[0] == thing(a=nullable)
    assert small(thing(a={"anyOf": [{"type": "string"}, {"type": "null"}]}))[0] == thing(a=nullable)
    assert small(thing(a={"enum": ["x", None]}))[0] == thing(a={**nullable, "enum": ["x"]})
    assert small(thing(a={"type": "null"}))[0] == thing(a={"nullable": True})
    assert small(thing(a={"type": ["null"]}))[0] == thing(a={"nullable": True})


def test_several_types_are_a_choice() -> None:
    assert small(thing(a={"type": ["string", "integer", "null"]})) == (
        thing(a={"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True}),
        set(),
    )


def test_one_of_is_any_of() -> None:
    choices = [{"type": "string"}, {"type": "integer"}]

    assert small(thing(a={"oneOf": choices})) == (thing(a={"anyOf": choices}), set())


def test_a_constant_text_is_an_enum_and_every_other_constant_is_said_in_words() -> None:
    assert small(thing(a={"const": "x"})) == (thing(a={"type": "string", "enum": ["x"]}), set())
    assert small(thing(a={"const": 1})) == (thing(a={"description": "(const: 1)"}), {"const"})
    assert small(thing(a={"enum": [1, 2]})) == (thing(a={"description": "(enum: [1,2])"}), {"enum"})


def test_what_the_subset_has_no_word_for_is_said_in_words() -> None:
    schema = thing(
        a={"type": "string", "format": "email", "description": "Whom."},
        b={"type": "number", "multipleOf": 2, "exclusiveMaximum": 9},
        c={"type": "object", "additionalProperties": {"type": "string"}},
    )

    assert small(schema) == (
        thing(
            a={"type": "string", "description": 'Whom. (format: "email")'},
            b={"type": "number", "description": "(multipleOf: 2; exclusiveMaximum: 9)"},
            c={"type": "object", "description": '(additionalProperties: {"type":"string"})'},
        ),
        {"format", "multipleOf", "exclusiveMaximum", "additionalProperties"},
    )


def test_no_further_properties_is_what_there_are_anyway() -> None:
    assert small({**thing(a={"type": "string"}), "additionalProperties": False}) == (thing(a={"type": "string"}), set())


def test_definitions_stand_where_they_are_referred_to() -> None:
    schema = {
        **thing(a={"$ref": "#/$defs/A", "description": "The first."}, b={"items": {"$ref": "#/definitions/B"}}),
        "$defs": {"A": {"type": "string", "description": "An A."}},
        "definitions": {"B": {"$ref": "#/$defs/A"}},
    }

    assert small(schema) == (
        thing(
            a={"type": "string", "description": "The first."}, b={"items": {"type": "string", "description": "An A."}}
        ),
        set(),
    )


def test_what_contains_itself_ends_in_words() -> None:
    schema = {**thing(node={"$ref": "#/$defs/N"}), "$defs": {"N": thing(next={"$ref": "#/$defs/N"})}}

    assert small(schema) == (
        thing(node=thing(next={"type": "object", "description": '($ref: "#/$defs/N")'})),
        {"$ref"},
    )


@pytest.mark.parametrize("reference", ["#/$defs/Nowhere", "https://a.example/schema", "#/$defs/A/b"])
def test_a_reference_to_elsewhere_ends_in_words(reference: str) -> None:
    found, lost = small({**thing(a={"$ref": reference}), "$defs": {"A": {"b": 7}}})

    assert found == thing(a={"type": "object", "description": f'($ref: "{reference}")'})
    assert lost == {"$ref"}


def test_definitions_that_double_have_an_end() -> None:
    definitions = {f"D{n}": thing(a={"$ref": f"#/$defs/D{n + 1}"}, b={"$ref": f"#/$defs/D{n + 1}"}) for n in range(30)}
    schema = {**thing(a={"$ref": "#/$defs/D0"}), "$defs": {**definitions, "D30": {"type": "string"}}}

    cleaned = subset(json.dumps(schema).encode(), param="tools")

    assert cleaned.schema is not None
    assert len(cleaned.schema) < 200_000
    assert cleaned.lost == {"$ref"}


def test_parts_that_must_all_hold_are_one() -> None:
    schema = {
        "allOf": [
            {**thing(a={"type": "string"}), "required": ["a"]},
            {"allOf": [{**thing(b={"type": "integer"}), "required": ["a", "b"], "title": "B"}]},
        ],
        "description": "Both.",
    }

    assert small(schema) == (
        {
            "description": "Both.",
            **thing(a={"type": "string"}, b={"type": "integer"}),
            "required": ["a", "b"],
            "title": "B",
        },
        set(),
    )


def test_parts_that_are_elsewhere_are_said_in_words() -> None:
    found, lost = small({"type": "object", "allOf": [{"$ref": "#/x"}], "title": "T"})

    assert found == {"type": "object", "title": "T", "description": '(allOf: [{"$ref":"#/x"}])'}
    assert lost == {"allOf"}


def test_a_list_says_what_is_in_it() -> None:
    assert small(thing(a={"type": "array"}, b={"type": "array", "items": {}})) == (
        thing(a={"type": "array", "items": {"type": "string"}}, b={"type": "array", "items": {}}),
        set(),
    )


def test_properties_make_an_object() -> None:
    assert small({"properties": {"a": {"type": "string"}}})[0] == {
        "properties": {"a": {"type": "string"}},
        "type": "object",
    }


def test_anything_is_a_schema_too() -> None:
    assert small(thing(a=True, b={}))[0] == thing(a={}, b={})
    assert small(thing(a={"type": "object", "properties": {}, "required": ["x"]}))[0] == thing(a={"type": "object"})

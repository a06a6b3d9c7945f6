import json

import pytest

from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.schema import MAX_DEPTH, MAX_MERGES, Subset, as_object, cleaned
from tests.bridge.prompts import Fields

SUBSET = Subset(
    keywords=frozenset(
        (
            *("$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "description", "enum", "format"),
            *("items", "minItems", "pattern", "properties", "required", "type"),
        )
    ),
    formats=frozenset(("date", "email")),
)
TEXT = {"type": "string"}


def made(schema: object) -> tuple[Fields, tuple[str, ...]]:
    found = as_object(json.dumps(schema).encode(), param="p")
    return json.loads(bytes(found.schema)), found.moved


def cleaned_to(schema: object, subset: Subset = SUBSET) -> tuple[Fields, tuple[str, ...]] | None:
    found = cleaned(json.dumps(schema).encode(), subset, param="p")
    return None if found is None else (json.loads(bytes(found.schema)), found.moved)


def closed(**properties: object) -> Fields:
    return {"type": "object", "properties": properties, "additionalProperties": False}


# The top of a tool's schema.


def test_a_schema_of_an_object_stays_the_bytes_it_was() -> None:
    raw = b'{ "type": "object",  "properties": {"a": {"anyOf": []}} }'

    assert bytes(as_object(raw, param="p").schema) == raw


def test_a_schema_without_a_type_becomes_that_of_an_object() -> None:
    assert made({"properties": {"a": TEXT}}) == ({"properties": {"a": TEXT}, "type": "object"}, ())
    assert made({"type": ["object", "null"]}) == ({"type": "object"}, ())


def test_a_reference_at_the_top_is_what_it_refers_to() -> None:
    definitions = {"A/b~c": {"type": "object", "properties": {"a": TEXT}}}

    found, moved = made({"$ref": "#/$defs/A~1b~0c", "$defs": definitions, "description": "d"})

    assert found == {"type": "object", "properties": {"a": TEXT}, "$defs": definitions, "description": "d"}
    assert moved == ()


def test_a_reference_that_leads_back_or_nowhere_is_an_object_with_nothing_in_it() -> None:
    assert made({"$ref": "#"}) == ({"type": "object"}, ())
    assert made({"$ref": "#/$defs/missing"}) == ({"type": "object"}, ())


def test_alternatives_become_one_object_that_requires_what_all_of_them_do() -> None:
    one = {"type": "object", "properties": {"kind": TEXT, "a": TEXT}, "required": ["kind", "a"]}
    two = {"type": "object", "properties": {"kind": TEXT, "b": TEXT}, "required": ["b", "kind"]}
    schema = {"anyOf": [one, two, True], "properties": {"z": TEXT}, "required": ["z"], "additionalProperties": False}

    found, moved = made(schema)

    assert found == {
        "properties": {"z": TEXT, "kind": TEXT, "a": TEXT, "b": TEXT},
        "required": ["z", "kind"],
        "type": "object",
        "description": "Must also satisfy: " + json.dumps({"anyOf": schema["anyOf"]}, separators=(",", ":")),
    }
    assert moved == ("anyOf",)


def test_all_of_several_is_an_object_that_requires_what_any_of_them_does() -> None:
    found, moved = made(
        {"allOf": [{"properties": {"a": TEXT}, "required": ["a"]}, {"properties": {"b": TEXT}, "required": ["b", 1]}]}
    )

    assert found == {"properties": {"a": TEXT, "b": TEXT}, "required": ["a", "b"], "type": "object"}
    assert moved == ()


def test_alternatives_of_nothing_require_nothing() -> None:
    assert made({"oneOf": [], "allOf": None})[0]["properties"] == {}


@pytest.mark.parametrize("schema", [b"[]", b"null", b'"x"', b"{", b"[" * 5000])
def test_what_is_no_schema_is_refused_by_name(schema: bytes) -> None:
    with pytest.raises(Unsupported) as refused:
        as_object(schema, param="tools['f'].parameters")

    assert refused.value.param == "tools['f'].parameters"


def test_a_schema_without_end_is_refused() -> None:
    deep: object = TEXT
    for _ in range(MAX_DEPTH):
        deep = {"items": deep}

    with pytest.raises(Unsupported, match="levels"):
        made(deep)


def test_alternatives_of_alternatives_of_alternatives_are_refused() -> None:
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    assert MAX_MERGES < 2**40

    with pytest.raises(Unsupported, match="alternatives"):
        made({"$ref": "#/$defs/d0", "$defs": definitions})


# A subset.


def test_what_a_subset_knows_stays_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "tags": {"type": "array", "items": TEXT, "minItems": 1},
            "kind": {"enum": ["a", None]},
            "one": {"const": None},
            "code": {"type": "string", "pattern": "^[A-Z]+$"},
            "either": {"anyOf": [TEXT, {"type": "null"}]},
            "again": {"$ref": "#/$defs/t"},
        },
        "required": ["day"],
        "additionalProperties": False,
        "$defs": {"t": TEXT},
    }

    assert cleaned_to(schema) == (schema, ())


def test_what_it_does_not_know_is_said_in_the_description() -> None:
    found = cleaned_to(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "age": {"type": "integer", "minimum": 0, "maximum": 150, "description": "Years."},
                "name": {"type": "string", "minLength": 1, "format": "idn-email", "pattern": r"^(?=a)\1"},
                "tags": {"type": "array", "items": True, "minItems": 2, "uniqueItems": True},
                "any": True,
            },
        }
    )

    assert found == (
        closed(
            age={"type": "integer", "description": 'Years.\nMust also satisfy: {"minimum":0,"maximum":150}'},
            name={
                "type": "string",
                "description": r'Must also satisfy: {"minLength":1,"format":"idn-email","pattern":"^(?=a)\\1"}',
            },
            tags={
                "type": "array",
                "items": True,
                "description": 'Must also satisfy: {"minItems":2,"uniqueItems":true}',
            },
            any=True,
        ),
        ("format", "maximum", "minItems", "minLength", "minimum", "pattern", "uniqueItems"),
    )


def test_one_of_is_any_of_for_those_who_cannot_count() -> None:
    found = cleaned_to(closed(a={"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}))

    assert found == (
        closed(
            a={"anyOf": [{"type": "string", "description": 'Must also satisfy: {"maxLength":3}'}, {"type": "null"}]}
        ),
        ("maxLength",),
    )


def test_objects_are_closed_wherever_they_are() -> None:
    found = cleaned_to(
        {
            "type": "object",
            "properties": {"a": {"type": ["object", "null"], "properties": {"b": {"properties": {"c": TEXT}}}}},
        }
    )

    assert found is not None
    inner = {"properties": {"c": TEXT}, "additionalProperties": False}
    assert found[0] == closed(a={"type": ["object", "null"], "properties": {"b": inner}, "additionalProperties": False})


def test_a_subset_that_needs_no_closing_leaves_objects_open() -> None:
    free = Subset(keywords=frozenset(("type", "properties")), formats=frozenset(), closed=False)

    assert cleaned_to({"type": "object"}, free) == ({"type": "object"}, ())


def test_an_object_of_nothing_at_all_is_one_where_it_says_so() -> None:
    assert cleaned_to({"type": "object", "additionalProperties": False}) is not None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": TEXT}}},
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}},
         "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema"}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
    ],
    ids=["free", "map", "half-free", "recursive", "elsewhere", "itself"],
)  # fmt: skip
def test_what_would_mean_something_else_is_not_cleaned(schema: object) -> None:
    assert cleaned_to(schema) is None


def test_one_definition_may_be_used_twice() -> None:
    schema = {**closed(a={"$ref": "#/$defs/t"}, b={"$ref": "#/$defs/t"}), "$defs": {"t": TEXT}}

    assert cleaned_to(schema) == (schema, ())

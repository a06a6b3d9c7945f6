"""The schemas of Open Responses, as far as they are written with the keywords below (open-responses.md §4).

The file stands beside the project, not in it; tests that need it are marked `needs_schemas` and say so when skipped.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).parents[3] / "shared" / "contract" / "open-responses.openapi.json"

needs_schemas = pytest.mark.skipif(not _FILE.exists(), reason="the schemas of Open Responses are not here")

Json = Any  # JSON as the standard library reads it: a schema is walked from every side

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_IGNORED = frozenset({"description", "default", "title", "discriminator", "format", "example", "examples"})


def violations(value: Json, schema: str) -> list[str]:
    """What is wrong with a value by the schema of this name, one line each."""
    return list(_check(value, {"$ref": f"#/components/schemas/{schema}"}, "$"))


def event_violations(event: Json) -> list[str]:
    """What is wrong with a streaming event; one of a type Open Responses does not have is nothing but wrong."""
    schema = _events().get(event["type"])
    return violations(event, schema) if schema is not None else [f"$: an event of type {event['type']}"]


@cache
def _schemas() -> dict[str, Json]:
    schemas = json.loads(_FILE.read_text())["components"]["schemas"]
    assert isinstance(schemas, dict)
    return schemas


@cache
def _events() -> dict[str, str]:
    found = {}
    for name, schema in _schemas().items():
        if name.endswith("StreamingEvent"):
            [kind] = schema["properties"]["type"]["enum"]
            found[kind] = name
    return found


def _check(value: Json, schema: Json, path: str) -> Iterator[str]:
    for keyword, rule in schema.items():
        match keyword:
            case "$ref":
                yield from _check(value, _schemas()[rule.rpartition("/")[2]], path)
            case "type":
                types = _TYPES[rule]
                if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                    yield f"{path}: expected {rule}, got {value!r}"
            case "enum":
                if value not in rule:
                    yield f"{path}: expected one of {rule}, got {value!r}"
            case "allOf":
                for part in rule:
                    yield from _check(value, part, path)
            case "anyOf" | "oneOf":
                reasons = [list(_check(value, part, path)) for part in rule]
                if all(reasons):
                    yield min(reasons, key=len)[0]
            case "required":
                yield from (
                    f"{path}: expected '{name}'" for name in rule if isinstance(value, dict) and name not in value
                )
            case "properties":
                for name, part in rule.items():
                    if isinstance(value, dict) and name in value:
                        yield from _check(value[name], part, f"{path}.{name}")
            case "items":
                for index, one in enumerate(value if isinstance(value, list) else ()):
                    yield from _check(one, rule, f"{path}[{index}]")
            case "additionalProperties" | "minimum" | "maximum" | "maxLength" | "minLength" | "pattern" | "maxItems":
                pass
            case _:
                assert keyword in _IGNORED or keyword.startswith("x-"), f"a keyword this check does not know: {keyword}"

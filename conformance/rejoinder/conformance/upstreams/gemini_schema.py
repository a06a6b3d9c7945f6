"""The two kinds of schema that Gemini takes (provider-gemini.md §4)."""

from collections.abc import Mapping

from rejoinder.conformance.upstreams.gemini_memory import camel
from rejoinder.conformance.upstreams.gemini_values import Object, invalid, refused, unknown
from rejoinder.conformance.upstreams.objection import Json

_NAMES = frozenset(
    {
        "type",
        "format",
        "description",
        "nullable",
        "enum",
        "items",
        "minItems",
        "maxItems",
        "properties",
        "required",
        "propertyOrdering",
        "anyOf",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minProperties",
        "maxProperties",
        "pattern",
        "title",
        "default",
        "example",
    }
)

_FORMATS = frozenset({"int32", "int64", "float", "double", "enum", "date-time"})

_JSON_FORMATS = _FORMATS | {"date", "time"}

_NOT_JSON = frozenset({"$schema", "discriminator", "examples", "exclusiveMinimum", "exclusiveMaximum"})


def check_subset(schema: Json, path: str) -> None:
    """`parameters` and `responseSchema`: a message of its own, after OpenAPI."""
    if not isinstance(schema, Mapping):
        raise invalid(schema, path, "an object")
    for name in schema:
        if camel(name) not in _NAMES:
            raise unknown(name, path)
    read = {camel(name): value for name, value in schema.items()}
    if isinstance(read.get("type"), list):
        raise unknown("type", path, "Proto field is not repeating, cannot start list.")
    if read.get("type") is not None and not isinstance(read["type"], str):
        raise invalid(read["type"], f"{path}.type", "TYPE_ENUM")
    _check_format(read, path, _FORMATS)
    for index, one in enumerate(_list(read.get("enum"))):
        if not isinstance(one, str):
            raise invalid(one, f"{path}.enum[{index}]", "TYPE_STRING")
    for where, below in _below(read, path):
        check_subset(below, where)


def check_json_schema(schema: Json, path: str) -> None:
    """`parametersJsonSchema` and `responseJsonSchema`: nearly all of JSON Schema."""
    if not isinstance(schema, Mapping):
        return
    for name in schema:
        if name in _NOT_JSON:
            raise refused(f"{path}.{name}")
    _check_format(schema, path, _JSON_FORMATS)
    for where, below in _below(schema, path):
        check_json_schema(below, where)


def _check_format(schema: Object, path: str, formats: frozenset[str]) -> None:
    kind = schema.get("type")
    if isinstance(kind, str) and kind.upper() == "STRING" and schema.get("format") not in (None, *formats):
        raise refused(f"{path}.format", "only 'enum' and 'date-time' are supported for STRING type")


def _below(schema: Object, path: str) -> list[tuple[str, Json]]:
    below = [(f"{path}.items", schema["items"])] if "items" in schema else []
    for name in ("anyOf", "prefixItems"):
        below += [(f"{path}.{name}[{index}]", one) for index, one in enumerate(_list(schema.get(name)))]
    for name in ("properties", "$defs"):
        if isinstance(named := schema.get(name), Mapping):
            below += [(f"{path}.{name}.{key}", one) for key, one in named.items()]
    return below


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []

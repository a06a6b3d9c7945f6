"""A value that fits a JSON Schema, as a model would fill it in. What the schema does not say, it does not look for."""

from collections.abc import Mapping

import msgspec

from rejoinder.conformance.upstreams.objection import Json

_DEEP = 20


def example(schema: bytes) -> str:
    """A value of that schema, as JSON."""
    whole: Json = msgspec.json.decode(schema)
    return msgspec.json.encode(_value(whole, whole, _DEEP)).decode()


def _value(schema: Json, root: Json, depth: int) -> Json:
    if not isinstance(schema, Mapping) or not depth:
        return None
    match schema:
        case {"const": value}:
            return value
        case {"enum": [first, *_]}:
            return first
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]} | {"allOf": [first, *_]}:
            return _value(first, root, depth - 1)
        case {"$ref": str(path)}:
            return _value(_found(path, root), root, depth - 1)
        case {"type": str(kind) | [str(kind), *_]}:
            return _of(kind.lower(), schema, root, depth - 1)
        case _:
            return _of("object", schema, root, depth - 1)


def _of(kind: str, schema: Mapping[str, Json], root: Json, depth: int) -> Json:
    match kind:
        case "object":
            named = schema.get("properties")
            required = schema.get("required")
            return {
                name: _value(one, root, depth)
                for name, one in (named if isinstance(named, Mapping) else {}).items()
                if isinstance(required, list) and name in required
            }
        case "array":
            return [_value(schema.get("items"), root, depth)]
        case "string":
            return "Ada"
        case "integer" | "number":
            return 36
        case "boolean":
            return True
        case _:
            return None


def _found(path: str, root: Json) -> Json:
    """What a reference means. One that leads nowhere means anything."""
    at = root
    for name in path.removeprefix("#").strip("/").split("/"):
        at = at.get(name) if isinstance(at, Mapping) and name else at
    return at

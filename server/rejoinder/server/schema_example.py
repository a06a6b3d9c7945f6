"""A small value for a JSON Schema (patterns, multiples and exclusive bounds aside)."""

from collections.abc import Sequence
from math import ceil

import msgspec
from msgspec import Raw, Struct

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_DEEPEST = 16
_MOST = 10_000
"""Where an example is given up: levels and values. The schema is a stranger's, and may ask for a billion items."""


class Schema(Struct, frozen=True, rename="camel"):
    type: str | list[str] = ""
    properties: dict[str, "Schema | bool"] = {}
    required: list[str] = []
    items: "Schema | bool" = True
    enum: list[Raw] = []
    const: Raw = Raw()
    any_of: list["Schema | bool"] = []
    one_of: list["Schema | bool"] = []
    all_of: list["Schema | bool"] = []
    ref: str = msgspec.field(default="", name="$ref")
    defs: dict[str, "Schema | bool"] = msgspec.field(default_factory=dict, name="$defs")
    format: str = ""
    min_items: int = 0
    min_length: int = 0
    max_length: int | None = None
    minimum: float | None = None
    maximum: float | None = None


def schema_of(raw: Raw) -> Schema:
    """The schema in `raw`. One in a form we do not read stands for any object: providers do not refuse it either."""
    try:
        return msgspec.json.decode(raw, type=Schema)
    except (msgspec.ValidationError, RecursionError):
        return Schema(type="object")


def example(schema: Schema, quoted: Sequence[str] = ()) -> str:
    """A JSON value that fits the schema; its first strings are taken from `quoted`."""
    return msgspec.json.encode(_Example(schema, quoted).of(schema, 0)).decode()


class _Example:
    def __init__(self, root: Schema, quoted: Sequence[str]) -> None:
        self._root = root
        self._quoted = iter(quoted)
        self._left = _MOST

    def of(self, schema: Schema | bool, depth: int) -> object:
        self._left -= 1
        if isinstance(schema, bool) or depth > _DEEPEST or self._left < 0:
            return None
        if schema.ref:
            return self.of(self._root.defs.get(schema.ref.removeprefix("#/$defs/"), self._root), depth + 1)
        if bytes(schema.const):
            return schema.const
        if schema.enum:
            return schema.enum[0]
        if options := schema.any_of or schema.one_of:
            # A schema that holds itself lets go somewhere, and null is the usual place.
            ends = [option for option in options if isinstance(option, Schema) and option.type == "null"]
            return self.of((ends if ends and depth > 3 else options)[0], depth + 1)
        if schema.all_of:
            return self.of(schema.all_of[0], depth + 1)
        return self._plain(schema, depth)

    def _plain(self, schema: Schema, depth: int) -> object:
        kind = schema.type if isinstance(schema.type, str) else "".join(schema.type[:1])
        match kind or ("object" if schema.properties else "string"):
            case "object":
                members = ((name, schema.properties.get(name, True)) for name in schema.required)
                return {name: self.of(member, depth + 1) for name, member in members}
            case "array":
                return [self.of(schema.items, depth + 1) for _ in range(min(schema.min_items, self._left))]
            case "string":
                text = next(self._quoted, _FORMATS.get(schema.format, "example"))
                return text[: schema.max_length].ljust(min(schema.min_length, _MOST), ".")
            case "boolean":
                return False
            case "integer":
                return ceil(_lowest(schema))
            case "number":
                return _lowest(schema)
            case _:
                return None


def _lowest(schema: Schema) -> float:
    low = 0 if schema.minimum is None else schema.minimum
    return low if schema.maximum is None else min(low, schema.maximum)

"""JSON schemas in the words Gemini takes (provider-gemini.md §4).

There are two vocabularies: the fields named …JsonSchema take JSON Schema without a few keywords, `parameters` and
`responseSchema` a subset of OpenAPI's. What a vocabulary cannot say is said to the model in words, in `description`,
and named to the caller; what it says otherwise (a constant as an enum of one) is rewritten.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.schema import Json, Object, pointed


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`schema` is None for an object without properties: a function without arguments declares none. `lost` are the
    keywords that were moved into descriptions."""

    schema: bytes | None
    lost: frozenset[str]


def json_schema(raw: bytes, *, param: str) -> Cleaned:
    """A schema for `parametersJsonSchema` or `responseJsonSchema`.

    Raises Unsupported, naming `param`, for what is no object or nested too deeply.
    """
    lost: set[str] = set()
    with _refusing(param):
        return Cleaned(_encoded(_plain(_SCHEMA.decode(raw), lost)), frozenset(lost))


def subset(raw: bytes, *, param: str, ordered: bool = False) -> Cleaned:
    """A schema for `parameters` or `responseSchema`. `ordered`: the properties shall come in the order written.

    Raises Unsupported, naming `param`, for what is no object or nested too deeply.
    """
    with _refusing(param):
        root = _SCHEMA.decode(raw)
        walk = _Subset(root, ordered)
        return Cleaned(_encoded(walk.schema(root)), frozenset(walk.lost))


@contextmanager
def _refusing(param: str) -> Iterator[None]:
    try:
        yield
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unsupported(
            f"a JSON schema must be an object of reasonable depth: {error}", param=param, code="invalid_value"
        ) from error


def _encoded(schema: Object) -> bytes | None:
    if schema.get("type") == "object" and not schema.keys() - _EMPTY and not schema.get("properties"):
        return None
    return _ENCODER.encode(schema)


_EMPTY = frozenset(("type", "properties", "required", "additionalProperties", "title", "propertyOrdering"))

# JSON Schema.

_LEFT_OUT = frozenset(("$schema", "$id", "$comment", "discriminator"))
"""They say nothing about the value."""

_IN_WORDS = frozenset(("examples", "exclusiveMinimum", "exclusiveMaximum"))
_FORMATS = frozenset(("date-time", "date", "time", "int32", "int64", "float", "double", "enum"))

_OF_SCHEMAS = frozenset(("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"))
"""Keywords whose values map names to schemas."""

_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_NESTED = frozenset(("items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames"))


def _plain(schema: Object, lost: set[str]) -> Object:
    """JSON Schema without the keywords that are refused."""
    clean: Object = {}
    words: list[str] = []
    for name, value in schema.items():
        if name in _LEFT_OUT:
            continue
        if name in _IN_WORDS or (name == "format" and value not in _FORMATS):
            lost.add(name)
            words.append(_said(name, value))
        elif name == "const":
            clean["enum"] = [value]
        else:
            clean[name] = _inside(name, value, lost)
    return _described(clean, words)


def _inside(name: str, value: Json, lost: set[str]) -> Json:
    if name in _OF_SCHEMAS and isinstance(value, dict):
        return {key: _any_plain(inner, lost) for key, inner in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [_any_plain(inner, lost) for inner in value]
    return _any_plain(value, lost) if name in _NESTED else value


def _any_plain(value: Json, lost: set[str]) -> Json:
    return _plain(value, lost) if isinstance(value, dict) else value


# The subset of OpenAPI.

_KNOWN = frozenset(
    (
        "default",
        "description",
        "example",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "nullable",
        "pattern",
        "propertyOrdering",
        "required",
        "title",
    )
)
"""Keywords that mean the same there and hold no schemas."""

_FORMATS_OF_SUBSET = frozenset(("date-time", "int32", "int64", "float", "double", "enum"))

_MOST_REFERENCES = 500
"""References of one schema that are written out: definitions that name each other twice would grow without end."""


@dataclass(slots=True)
class _Subset:
    root: Object
    ordered: bool
    lost: set[str] = field(default_factory=set)
    _within: list[str] = field(default_factory=list)
    _written_out: int = 0

    def schema(self, schema: Json) -> Object:
        if not isinstance(schema, dict):
            return {}  # `true`: anything
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(reference, schema)
        schema = _merged(schema)
        clean: Object = {}
        words: list[str] = []
        for name, value in schema.items():
            if name in _LEFT_OUT or name in ("$defs", "definitions"):
                continue
            if name in _KNOWN:
                clean[name] = value
            elif (said := self._keyword(name, value)) is not None:
                clean.update(said)
            elif not (name == "additionalProperties" and value is False):  # nothing else is generated there anyway
                self.lost.add(name)
                words.append(_said(name, value))
        return self._complete(_described(clean, words))

    def _keyword(self, name: str, value: Json) -> Object | None:
        """What a keyword becomes; None when it can only be said in words."""
        match name, value:
            case "type", list():
                return self._types(value)
            case "type", str():
                return {"type": value} if value != "null" else {"nullable": True}
            case "properties", dict():
                return {"properties": {key: self.schema(inner) for key, inner in value.items()}} if value else {}
            case "items", dict():
                return {"items": self.schema(value)}
            case (("anyOf" | "oneOf"), list()):
                return self._choices(value)
            case "enum", list():
                return _enum(value)
            case "const", _:
                return _enum([value])
            case "format", str() if value in _FORMATS_OF_SUBSET:
                return {"format": value}
        return None

    def _types(self, types: list[Json]) -> Object:
        kinds: list[Json] = [kind for kind in types if kind != "null"]
        nullable: Object = {"nullable": True} if len(kinds) < len(types) else {}
        match kinds:
            case []:
                return nullable
            case [kind]:
                return {"type": kind, **nullable}
            case _:
                return {"anyOf": [{"type": kind} for kind in kinds], **nullable}

    def _choices(self, choices: list[Json]) -> Object:
        some = [self.schema(choice) for choice in choices if not _is_null(choice)]
        nullable: Object = {"nullable": True} if len(some) < len(choices) else {}
        if len(some) == 1:
            return {**some[0], **nullable}
        return {"anyOf": list(some), **nullable}

    def _referred(self, reference: str, schema: Object) -> Object:
        """The definition in the place of the reference, with what stands beside it."""
        target = pointed(self.root, reference)
        self._written_out += 1
        if target is None or reference in self._within or self._written_out > _MOST_REFERENCES:
            # What contains itself has no end when it is written out.
            self.lost.add("$ref")
            return _described({"type": "object"}, [_said("$ref", reference)])
        self._within.append(reference)
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        found = self.schema({**target, **beside})
        self._within.pop()
        return found

    def _complete(self, clean: Object) -> Object:
        if "properties" in clean:
            clean.setdefault("type", "object")
            if self.ordered:
                names = clean["properties"]
                assert isinstance(names, dict)
                clean.setdefault("propertyOrdering", list(names))
        elif clean.get("type") == "object":
            clean.pop("required", None)  # of nothing
        if clean.get("type") == "array":
            # A list of whatever cannot be said; without `items` the whole request is refused.
            clean.setdefault("items", {"type": "string"})
        return clean


def _merged(schema: Object) -> Object:
    """`allOf` as one schema, where its parts are plain objects."""
    parts = schema.get("allOf")
    if not isinstance(parts, list) or not all(isinstance(part, dict) and "$ref" not in part for part in parts):
        return schema
    merged: Object = {name: value for name, value in schema.items() if name != "allOf"}
    for part in _objects(parts):
        for name, value in _merged(part).items():
            before = merged.get(name)
            if isinstance(before, dict) and isinstance(value, dict):
                merged[name] = {**before, **value}
            elif isinstance(before, list) and isinstance(value, list):
                merged[name] = [*before, *(one for one in value if one not in before)]
            else:
                merged[name] = value
    return merged


def _objects(values: list[Json]) -> Iterator[Object]:
    for value in values:
        if isinstance(value, dict):  # pragma: no branch  # looked at before
            yield value


def _enum(values: list[Json]) -> Object | None:
    """Only strings can be enumerated there; null among them is a flag."""
    names: list[Json] = [value for value in values if value is not None]
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return {"type": "string", "enum": names, **({"nullable": True} if len(names) < len(values) else {})}


def _is_null(choice: Json) -> bool:
    return isinstance(choice, dict) and choice.get("type") == "null"


def _said(name: str, value: Json) -> str:
    return f"{name}: {_ENCODER.encode(value).decode()}"


def _described(schema: Object, words: list[str]) -> Object:
    if words:
        described = schema.get("description")
        before = f"{described} " if isinstance(described, str) and described else ""
        schema["description"] = f"{before}({'; '.join(words)})"
    return schema


_SCHEMA: msgspec.json.Decoder[Object] = msgspec.json.Decoder(dict)
_ENCODER = msgspec.json.Encoder()

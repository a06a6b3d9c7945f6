"""JSON schemas, cleaned to what a provider's subset knows (provider-anthropic.md §4 and §6).

What the subset cannot say is moved into `description`, where the model still reads it. What would no longer mean the
same (a map with free keys, a schema inside itself) is not cleaned at all, and the caller finds another way.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from msgspec import Raw

from rejoinder.bridge.errors import Unsupported

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Object: TypeAlias = dict[str, Json]

MAX_DEPTH = 100
"""Levels of a schema."""


@dataclass(frozen=True, slots=True)
class Subset:
    """What a provider's schemas may hold. Keywords that are in none of these are moved into the description.

    `formats` are those of strings. `closed`: every object lists all its properties. `least_items`: the highest
    `minItems`.
    """

    keywords: frozenset[str]
    formats: frozenset[str]
    closed: bool = True
    least_items: int = 1


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`moved` are the keywords that stand in a description where they were rules before, sorted."""

    schema: Raw
    moved: tuple[str, ...] = ()


def as_object(schema: bytes, *, param: str) -> Cleaned:
    """The schema of an object, as every tool's must be: no alternatives and no reference at its top.

    Raises Unsupported, naming `param`, for something that is no schema.
    """
    root = _read(schema, param)
    if root.get("type") == "object" and not root.keys() & {"$ref", *_COMBINATIONS}:
        return Cleaned(Raw(schema))
    merging = _Merging(root, param)
    merged = merging.merged(root)
    merged["type"] = "object"
    _describe(merged, merging.moved)
    return Cleaned(_raw(merged), tuple(sorted(merging.moved)))


def cleaned(schema: bytes, subset: Subset, *, param: str) -> Cleaned | None:
    """The schema in the words of the subset; None where the subset has none for it.

    Raises Unsupported, naming `param`, for something that is no schema.
    """
    top = as_object(schema, param=param)
    root = _read(bytes(top.schema), param)
    if _is_recursive(root):
        return None
    moved = set(top.moved)
    try:
        found = _Cleaning(subset, moved).schema(root)
    except _NoWords:
        return None
    return Cleaned(_raw(found), tuple(sorted(moved)))


_COMBINATIONS = ("allOf", "anyOf", "oneOf")


def _read(schema: bytes, param: str) -> Object:
    try:
        root = _DECODER.decode(schema)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unsupported(f"the JSON schema cannot be read: {error}", param=param, code="invalid_value") from error
    if _depth(root) > MAX_DEPTH:
        raise Unsupported(f"the JSON schema has more than {MAX_DEPTH} levels", param=param, code="invalid_value")
    return root


def _depth(value: Json) -> int:
    """Levels of nesting, counted without going any deeper in Python's own stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        level = [inner for outer in level for inner in _inside(outer)]
    return depth


def _inside(value: Json) -> Iterator[Json]:
    match value:
        case dict():
            yield from value.values()
        case list():
            yield from value


MAX_MERGES = 1000
"""Alternatives and references put together at the top of one schema; more is no schema but an attack."""


class _Merging:
    """One object in the place of references and alternatives: every property any of them has, and required what all of
    them require. Which properties go together is for the description: `moved`."""

    def __init__(self, root: Object, param: str) -> None:
        self._root = root
        self._param = param
        self._merges = 0
        self.moved: dict[str, Json] = {}

    def merged(self, schema: Object, seen: frozenset[str] = frozenset()) -> Object:
        self._merges += 1
        if self._merges > MAX_MERGES:
            raise Unsupported("the JSON schema has too many alternatives", param=self._param, code="invalid_value")
        schema = dict(schema)
        reference = schema.pop("$ref", None)
        if isinstance(reference, str) and reference not in seen:
            schema = {**self.merged(pointed(self._root, reference) or {}, seen | {reference}), **schema}
        for name in _COMBINATIONS:
            branches = schema.pop(name, None)
            if isinstance(branches, list):
                self._join(schema, name, branches, seen)
        return schema

    def _join(self, schema: Object, name: str, branches: list[Json], seen: frozenset[str]) -> None:
        parts = [self.merged(branch, seen) for branch in branches if isinstance(branch, dict)]
        properties: Object = {}
        for part in (schema, *parts):
            properties.update(_object(part.get("properties")))
        needed = [set(_names(part.get("required"))) for part in parts] or [set()]
        always = set(_names(schema.get("required")))
        always |= set.union(*needed) if name == "allOf" else set.intersection(*needed)
        schema["properties"] = properties
        schema["required"] = [key for key in properties if key in always]
        if name != "allOf":
            self.moved[name] = branches
            # What one of them closes another one may need.
            schema.pop("additionalProperties", None)


def pointed(root: Object, reference: str) -> Object | None:
    """What `#/$defs/…` points at; None for a pointer to nothing, or to somewhere else."""
    if not reference.startswith("#/"):
        return None
    found: Json = root
    for step in reference.removeprefix("#/").split("/"):
        found = _object(found).get(step.replace("~1", "/").replace("~0", "~"))
    return found if isinstance(found, dict) else None


def _is_recursive(root: Object) -> bool:
    """Whether a definition leads back to itself, or a reference out of the schema."""
    open_references: list[str] = []
    done: set[str] = set()

    def leads_back(value: Json) -> bool:
        reference = value.get("$ref") if isinstance(value, dict) else None
        if isinstance(reference, str):
            if reference in open_references or not reference.startswith("#/"):
                return True
            if reference not in done:
                open_references.append(reference)
                if leads_back(pointed(root, reference)):
                    return True
                done.add(open_references.pop())
        return any(leads_back(inner) for inner in _inside(value))

    return leads_back(root)


class _NoWords(Exception):
    """Raised when a schema means something the subset cannot say, not even in a description."""


class _Cleaning:
    def __init__(self, subset: Subset, moved: set[str]) -> None:
        self._subset = subset
        self._moved = moved

    def schema(self, schema: Object) -> Object:
        found: Object = {}
        rules: Object = {}
        for name, value in schema.items():
            if name == "oneOf":
                name = "anyOf"  # the difference is one of counting, and the subset cannot count
            if name in _IGNORED:
                continue
            if self._says(name, value):
                found[name] = self._value(name, value)
            else:
                rules[name] = value
        if self._subset.closed and _is_object(schema):
            self._close(schema, found)
        self._moved.update(rules)
        _describe(found, rules)
        return found

    def _close(self, schema: Object, found: Object) -> None:
        others = schema.get("additionalProperties")
        # A map with free keys, closed, could only be empty.
        if isinstance(others, dict) or (others is not False and not _object(schema.get("properties"))):
            raise _NoWords
        found["additionalProperties"] = False

    def _says(self, name: str, value: Json) -> bool:
        subset = self._subset
        if name not in subset.keywords:
            return False
        if name == "format":
            return value in subset.formats
        if name == "pattern":
            return isinstance(value, str) and not _BEYOND_REGULAR.search(value)
        if name == "minItems":
            return isinstance(value, int) and value <= subset.least_items
        return True

    def _value(self, name: str, value: Json) -> Json:
        match name, value:
            case (("properties" | "$defs" | "definitions"), dict()):
                return {key: self._inner(inner) for key, inner in value.items()}
            case (("anyOf" | "allOf"), list()):
                return [self._inner(inner) for inner in value]
            case "items", _:
                return self._inner(value)
            case _:
                return value

    def _inner(self, value: Json) -> Json:
        return self.schema(value) if isinstance(value, dict) else value


_IGNORED = frozenset(("$schema", "$id", "$comment"))
_BEYOND_REGULAR = re.compile(r"\(\?[=!<]|\\[1-9]|\\k<")


def _is_object(schema: Object) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _describe(schema: Object, rules: Mapping[str, Json]) -> None:
    if rules:
        said = schema.get("description")
        lines = [said] if isinstance(said, str) and said else []
        schema["description"] = "\n".join([*lines, f"Must also satisfy: {_ENCODER.encode(rules).decode()}"])


def _object(value: Json) -> Object:
    return value if isinstance(value, dict) else {}


def _names(value: Json) -> Sequence[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else ()


def _raw(value: Json) -> Raw:
    return Raw(_ENCODER.encode(value))


_DECODER: msgspec.json.Decoder[Object] = msgspec.json.Decoder(dict[str, object])
_ENCODER = msgspec.json.Encoder()

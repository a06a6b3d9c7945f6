"""The part of JSON Schema that Anthropic takes where an answer must match (provider-anthropic.md §6)."""

import re
from collections.abc import Mapping

from rejoinder.conformance.upstreams.objection import Json

_REFUSED = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "not",
    "if",
    "then",
    "oneOf",
)

_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")

_LOOKAROUND = re.compile(r"\(\?[=!<]|\\[1-9]")


def wrong_in(schema: Json, root: Json = None, above: tuple[str, ...] = ()) -> str | None:
    """What is not taken in a schema, in the provider's words; None when it is all right.

    `above` are the references that led here: one that comes again makes the schema recursive.
    """
    if not isinstance(schema, Mapping):
        return None
    root = schema if root is None else root
    kind = schema.get("type")
    for name in _REFUSED:
        if name in schema:
            return f"For '{kind or 'any'}' type, property '{name}' is not supported"
    if isinstance(least := schema.get("minItems"), int) and least > 1:
        return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    if isinstance(pattern := schema.get("pattern"), str) and _LOOKAROUND.search(pattern):
        return "For 'string' type, lookaround and backreferences are not supported in 'pattern'"
    if isinstance(form := schema.get("format"), str) and form not in _FORMATS:
        return f"For 'string' type, format '{form}' is not supported"
    if (kind == "object" or "properties" in schema) and schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    if isinstance(reference := schema.get("$ref"), str):
        if not reference.startswith("#"):
            return f"External reference '{reference}' is not supported"
        if reference in above:
            return f"Recursive reference '{reference}' is not supported"
        return wrong_in(_resolved(root, reference), root, (*above, reference))
    for below in _below(schema):
        if wrong := wrong_in(below, root, above):
            return wrong
    return None


def _below(schema: Mapping[str, Json]) -> list[Json]:
    below: list[Json] = [schema["items"]] if "items" in schema else []
    for name in ("anyOf", "allOf", "prefixItems"):
        if isinstance(several := schema.get(name), list):
            below += several
    if isinstance(properties := schema.get("properties"), Mapping):
        below += properties.values()
    return below


def _resolved(root: Json, reference: str) -> Json:
    found = root
    for name in reference.removeprefix("#").split("/")[1:]:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found

"""Reading a JSON value as OpenAI does, and its words for a value that is wrong (provider-chat.md §8)."""

import re
from collections.abc import Mapping

from rejoinder.conformance.upstreams.objection import Json, Objection, parsed

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_TYPE_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    type(None): "null",
}


def body_of(body: bytes) -> dict[str, Json]:
    try:
        request = parsed(body)
    except ValueError as error:
        message = f"We could not parse the JSON body of your request. ({error})"
        raise Objection(message, None) from None
    if not isinstance(request, dict):
        raise wrong_type(request, (dict,), "body")
    return request


def expect(value: Json, types: tuple[type, ...], path: str) -> None:
    # bool is an int to Python, not to JSON.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise wrong_type(value, types, path)


def wrong_type(value: Json, types: tuple[type, ...], path: str) -> Objection:
    wanted = " or ".join(_TYPE_NAMES[one] for one in types)
    message = f"Invalid type for '{path}': expected {wanted}, but got {_TYPE_NAMES[type(value)]} instead."
    return Objection(message, path, "invalid_type")


def an_object(value: Json, path: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise wrong_type(value, (dict,), path)
    return value


def an_array(value: Json, path: str) -> list[Json]:
    """A list with something in it; no provider takes an empty one (§4)."""
    if not isinstance(value, list):
        raise wrong_type(value, (list,), path)
    if not value:
        message = (
            f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise Objection(message, path, "empty_array")
    return value


def text_of(value: Json, path: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(value, (str,), path)
    return value


def name_of(value: Json, path: str) -> str:
    name = text_of(value, path)
    if not _NAME.fullmatch(name):
        message = f"Invalid '{path}': expected a string that matches the pattern '^[a-zA-Z0-9_-]{{1,64}}$'."
        raise Objection(message, path, "invalid_value")
    return name


def only_known(fields: Mapping[str, Json], known: frozenset[str], path: str) -> None:
    for name in fields:
        if name not in known:
            raise Objection(f"Unknown parameter: '{path}.{name}'.", f"{path}.{name}", "unknown_parameter")

"""Reading a JSON value as Gemini does, a proto message with two spellings, and its words for one that is wrong (§2)."""

import json
from collections.abc import Iterable, Mapping

from rejoinder.conformance.upstreams.gemini_memory import camel
from rejoinder.conformance.upstreams.objection import Json, Objection

Object = Mapping[str, Json]


class InvalidArgument(Objection):
    """Raised when a request breaks a rule of Gemini's; `param` is the place in it (§9)."""

    def body(self) -> bytes:
        error = {"code": 400, "message": self.message, "status": "INVALID_ARGUMENT"}
        return json.dumps({"error": error}, indent=2).encode() + b"\n"


def refused(path: str, message: str = "Request contains an invalid argument.") -> InvalidArgument:
    return InvalidArgument(message, path)


def unknown(name: str, path: str, why: str = "Cannot find field.") -> InvalidArgument:
    at = f" at '{path}'" if path else ""
    message = f'Invalid JSON payload received. Unknown name "{name}"{at}: {why}'
    return InvalidArgument(message, f"{path}.{name}" if path else name)


def message_of(value: Json, known: Iterable[str], path: str) -> dict[str, Json]:
    """An object with known names only, in camel case."""
    if not isinstance(value, dict):
        raise invalid(value, path, "an object")
    read: dict[str, Json] = {}
    for name, one in value.items():
        if camel(name) not in known:
            raise unknown(name, path)
        read[camel(name)] = one
    return read


def list_of(value: Json, path: str) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(value, path, "a list")
    return value


def text_of(value: Json, path: str) -> str:
    if not isinstance(value, str):
        raise invalid(value, path, "TYPE_STRING")
    return value


def number_of(value: Json, path: str) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise invalid(value, path, "TYPE_FLOAT")
    return value


def invalid(value: Json, path: str, kind: str) -> InvalidArgument:
    return InvalidArgument(f"Invalid value at '{path}' ({kind}), {json.dumps(value)}", path)


def is_one_of(value: Json, words: Iterable[str]) -> bool:
    """Words of an enumeration are read in any case [R]."""
    return isinstance(value, str) and value.upper() in words

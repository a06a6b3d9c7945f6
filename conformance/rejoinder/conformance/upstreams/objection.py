"""What a strict provider says no to, and the JSON bodies it looks at."""

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"


class Objection(Exception):
    """Raised when a request breaks a rule; carries what the error envelope says.

    The envelope is OpenAI's (provider-chat.md §8). A provider with another one says so in a class of its own.
    """

    status = 400

    def __init__(self, message: str, param: str | None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> bytes:
        error = {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def parsed(body: bytes) -> Json:
    """The value of a JSON text. Raises ValueError, for doubled keys and for NaN too."""
    value: Json = json.loads(body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    return value


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return whole


def _no_constants(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")

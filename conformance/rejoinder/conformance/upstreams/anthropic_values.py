"""Reading a JSON value as Anthropic does, and its words for one that is wrong (provider-anthropic.md §11)."""

import json
from collections.abc import Iterable, Mapping

from rejoinder.conformance.upstreams.objection import Json, Objection

Object = Mapping[str, Json]


class InvalidRequest(Objection):
    """Raised when a request breaks a rule of Anthropic's; `param` is the place that the message names (§11)."""

    def body(self) -> bytes:
        error = {"type": "invalid_request_error", "message": self.message}
        return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()


def wrong(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {message}", path)


def extra(path: str) -> InvalidRequest:
    return wrong(path, "Extra inputs are not permitted")


def an_object(value: Json, path: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise wrong(path, "Input should be a valid dictionary")
    return value


def a_list(value: Json, path: str) -> list[Json]:
    if not isinstance(value, list):
        raise wrong(path, "Input should be a valid list")
    return value


def a_text(value: Json, path: str) -> str:
    if not isinstance(value, str):
        raise wrong(path, "Input should be a valid string")
    return value


def a_number(value: Json, path: str) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(path, "Input should be a valid number")
    return value


def only(value: Object, known: Iterable[str], path: str) -> None:
    for name in value:
        if name not in known:
            raise extra(f"{path}.{name}")


def one_of(value: Json, words: Iterable[str], path: str) -> str:
    known = [f"'{word}'" for word in words]
    if not isinstance(value, str) or f"'{value}'" not in known:
        listed = f"{', '.join(known[:-1])} or {known[-1]}" if known[1:] else known[0]
        raise wrong(path, f"Input should be {listed}")
    return value


def kind_of(block: Json) -> Json:
    return block.get("type") if isinstance(block, dict) else None


def messages_of(request: Object) -> list[dict[str, Json]]:
    return [an_object(one, f"messages.{index}") for index, one in enumerate(a_list(request["messages"], "messages"))]

"""The judge of `grammar`, for streams that are relayed: what a provider says beyond the grammar is taken out before,
and what it may leave out is put in, so that everything else is judged as strictly as a stream of ours.

Taken out: events and fields the grammar does not name. Put in: a status (OpenAI's own reasoning items have none), log
probabilities, the name beside finished arguments. An item the provider made on its own side is judged as one without a
body; so is a shell call, whose commands may be cut off. A `reasoning_part`, as some servers call it, is a content part.
"""

import json
from collections.abc import Sequence

from tests.bridge import grammar
from tests.bridge.grammar import Response
from tests.bridge.recordings import Json, Object, objects

_USAGE: dict[str, tuple[str, ...]] = {
    "input_tokens_details": ("cached_tokens", "cache_write_tokens"),
    "output_tokens_details": ("reasoning_tokens",),
}


def judged(encoded: Sequence[bytes]) -> Response:
    """The response these events end with. Raises AssertionError naming the rule they break."""
    assert all(b"\n" not in data for data in encoded), "§1: one line"
    events = [objects([json.loads(data)])[0] for data in encoded]
    assert [event["sequence_number"] for event in events] == list(range(len(events))), "§1: numbered from 0, one by one"
    items: dict[Json, Object] = {}
    known = [event for event in events if _is_known(event, items)]
    plain = [_plain(event, number, items) for number, event in enumerate(known)]
    return grammar.judged([json.dumps(event).encode() for event in plain])


def _is_known(event: Object, items: dict[Json, Object]) -> bool:
    event["type"] = str(event["type"]).replace("reasoning_part", "content_part")
    if isinstance(item := event.get("item"), dict):
        items.setdefault(event["output_index"], item)
        return True
    index = event.get("output_index")
    if index is None:
        return _kind(event) in grammar._FIELDS
    assert index in items, "§5.3: an item is added before anything is said of it"
    return _kind(event) in grammar._FIELDS and items[index]["type"] in _WITH_A_BODY


def _kind(event: Object) -> str:
    return str(event["type"]).removeprefix("response.")


def _plain(event: Object, number: int, items: dict[Json, Object]) -> Object:
    fields = {"type", *grammar._FIELDS[_kind(event)].split()}
    plain: Object = {name: value for name, value in event.items() if name in fields}
    plain["sequence_number"] = number
    if isinstance(item := plain.get("item"), dict):
        plain["item"] = _item(item, "completed" if _kind(event) == "output_item.done" else "in_progress")
    if isinstance(part := plain.get("part"), dict):
        plain["part"] = _part(part)
    if isinstance(response := plain.get("response"), dict):
        plain["response"] = _response(response)
    if "logprobs" in fields:
        plain.setdefault("logprobs", [])
    if "name" in fields:
        plain.setdefault("name", items[plain["output_index"]].get("name"))
    return plain


def _item(item: Object, status: str) -> Object:
    if item["type"] not in _WITH_A_BODY:
        # A hosted call may fail on its own; the answer goes on.
        return {"type": "local_shell_call", "id": item["id"], "status": status}
    plain: Object = {"status": status, **item}
    for name in ("content", "summary"):
        if parts := item.get(name):
            plain[name] = [_part(part) for part in objects(parts)]
    return plain


_WITH_A_BODY = frozenset(("message", "reasoning", "function_call", "custom_tool_call"))


def _part(part: Object) -> Object:
    known = {name: value for name, value in part.items() if name in grammar.Part.__struct_fields__}
    return {"annotations": [], "logprobs": [], **known} if part["type"] == "output_text" else known


def _response(response: Object) -> Object:
    plain: Object = {**response, "output": [_item(item, "completed") for item in objects(response["output"])]}
    if isinstance(usage := response["usage"], dict):
        counted: Object = {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}
        for name, inner in _USAGE.items():
            [details] = objects([usage[name]])
            counted[name] = {detail: details[detail] for detail in inner}
        plain["usage"] = counted
    return plain

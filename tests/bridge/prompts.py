"""Prompts and items, made of plain JSON values the way a client makes them."""

import itertools
import json
from collections.abc import Mapping, Sequence, Set

from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.pairing import paired
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.items import Item
from rejoinder.wire.request import CreateRequest

Fields = Mapping[str, object]


class Counter:
    """Mints `msg_1`, `fc_2`, …"""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, prefix: str, /) -> str:
        return f"{prefix}_{next(self._numbers)}"


def item(**fields: object) -> Item:
    return Item.parse(json.dumps(fields).encode())


def user(content: object) -> Fields:
    return {"type": "message", "role": "user", "content": content}


def assistant(content: object) -> Fields:
    return {"type": "message", "role": "assistant", "content": content}


def call(call_id: str, name: str = "f", arguments: str = "{}") -> Fields:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id: str, content: object = "done") -> Fields:
    return {"type": "function_call_output", "call_id": call_id, "output": content}


def function(name: str, **fields: object) -> Fields:
    return {"type": "function", "name": name, **fields}


def toolbox(
    tools: Sequence[Fields] = (),
    choice: object = "auto",
    history: Sequence[Item] = (),
    hosted: Set[str] = frozenset(),
) -> Toolbox:
    request = CreateRequest.parse(
        json.dumps({"model": "m", "input": "x", "tools": tools, "tool_choice": choice}).encode()
    )
    return Toolbox.of(request.tools, history, request.tool_choice, hosted)


def prompt(
    said: Sequence[Fields] | Sequence[Item] | str, opened: Mapping[str, Envelope] | None = None, **fields: object
) -> Prompt:
    """A prompt of one request with all of the conversation as its input."""
    if isinstance(said, str):
        said = [user(said)]
    raws = [one.raw.decode() if isinstance(one, Item) else json.dumps(one) for one in said]
    body = json.dumps({"model": "alias", **fields, "input": []})
    request = CreateRequest.parse(body.replace('"input": []', f'"input": [{",".join(raws)}]').encode())
    items = paired((), request.input).items
    return Prompt("m", request, items, Toolbox.of(request.tools, items, request.tool_choice), dict(opened or {}), [])

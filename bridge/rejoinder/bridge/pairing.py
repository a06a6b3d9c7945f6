"""Calls and their outputs find each other, or the request is refused before anybody is asked (semantics.md §1)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw, Struct, field

from rejoinder.bridge.turns import CALLS, OUTPUTS, call_id_of
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import (
    CustomToolCall,
    FunctionCall,
    FunctionCallOutput,
    Item,
    LocalShellCall,
    LocalShellCallOutput,
)

_WORDS = {
    "function_call": "function call",
    "custom_tool_call": "custom tool call",
    "local_shell_call": "local shell call",
    "shell_call": "shell call",
    "apply_patch_call": "apply patch call",
    "tool_search_call": "tool search call",
}


@dataclass(frozen=True, slots=True)
class Paired:
    """The whole conversation, every call answered, what of it is said now, and the call ids it uses."""

    items: list[Item]
    coming: list[Item]
    call_ids: set[str]


def paired(past: Sequence[Item], coming: Sequence[Item]) -> Paired:
    """Join what was said with what is said now.

    Raises BadRequest when a call has no output, an output no call, a call two outputs, or an item of the past is sent
    again (reliability.md F29). An output without a `call_id` answers the open call of its `name` (objects.md §6.1); a
    local shell's may have the `id` of its call's item (provider-responses.md §3). A call that was cut off by an output
    limit needs no output, and is left out where it has none.
    """
    items: list[Item] = []
    opened: dict[str, Item] = {}
    seen: set[str] = set()
    for item in past:
        # Stored as it came, so what it answers is found again in every turn.
        items.append(_pair(item, opened, seen))
    known = {item.id for item in past if item.id is not None} if any(item.id for item in coming) else set()
    for item in coming:
        # An output may have the id of its call (objects.md §6.2), so only the others are told apart by theirs.
        if item.id is not None and item.type not in OUTPUTS:
            if item.id in known:
                raise BadRequest(
                    f"Duplicate item found with id {item.id}. It is in the conversation already.", param="input"
                )
            known.add(item.id)
        items.append(_pair(item, opened, seen))
    for call_id, item in opened.items():
        if not _was_cut(item):
            raise BadRequest(f"No tool output found for {_WORDS[item.type]} {call_id}.", param="input")
    said_now = items[len(past) :]
    if opened:
        # Half a call cannot be run, so nobody can be asked for its output; nor can it be said again (mapping.md §6).
        cut = {id(item) for item in opened.values()}
        items = [item for item in items if id(item) not in cut]
    return Paired(items, said_now, seen)


class _Asking(Struct):
    """What is read of an item that may want something of the client."""

    id: str | None = None
    name: str = ""
    call_id: str | None = None
    is_async: bool = field(default=False, name="async")


_ASKING = msgspec.json.Decoder(_Asking)


def unanswered(output: Iterable[Item]) -> list[dict[str, str]]:
    """What a client has to send back before a conversation that ends with these items can go on: for each, the item
    without its result (websocket.md §7). A call that need not be waited for is none of them (semantics.md §7), nor is
    half a call."""
    wanted: list[dict[str, str]] = []
    for item in output:
        if (item.type in CALLS or item.type in _ASKS) and not _was_cut(item):
            asking = _ASKING.decode(item.raw)
            if item.type == "mcp_approval_request" and asking.id is not None:
                wanted.append({"type": "mcp_approval_response", "approval_request_id": asking.id})
            elif (item.type == "computer_call" or call_id_of(item)) and asking.call_id and not asking.is_async:
                match item.type:
                    case "tool_search_call":
                        named = {"type": "tool_search_output", "execution": "client"}
                    case "function_call":
                        named = {"type": "function_call_output", "name": asking.name}
                    case other:
                        named = {"type": f"{other}_output"}
                wanted.append({**named, "call_id": asking.call_id})
    return wanted


_ASKS = frozenset(("computer_call", "mcp_approval_request"))
"""Items of a provider that speaks this API itself which want an answer, too."""


def _was_cut(item: Item) -> bool:
    return isinstance(item.view, FunctionCall | CustomToolCall) and item.view.status == "incomplete"


def _pair(item: Item, opened: dict[str, Item], seen: set[str]) -> Item:
    """The item, with the call id of what it answers."""
    if isinstance(item.view, FunctionCallOutput) and item.view.call_id is None:
        item = _named(item, item.view, opened)
    elif isinstance(item.view, LocalShellCallOutput) and item.view.call_id is None and item.id not in opened:
        item = _by_item(item, opened)
    if item.type in CALLS:
        call_id = call_id_of(item)
        if call_id is None:
            return item  # a search the server ran itself
        if call_id in opened:
            raise BadRequest(
                f"Duplicate call with call_id {call_id}: the first one is not answered yet.", param="input"
            )
        opened[call_id] = item
        seen.add(call_id)
    elif item.type in OUTPUTS:
        call_id = call_id_of(item)
        if call_id is None:
            return item
        if opened.pop(call_id, None) is None:
            what = "is answered already" if call_id in seen else "does not exist"
            kind = _WORDS[item.type.removesuffix("_output").replace("tool_search", "tool_search_call")]
            if call_id in seen:
                raise BadRequest(f"The {kind} with call_id {call_id} {what}: one output for each call.", param="input")
            raise BadRequest(f"No tool call found for {kind} output with call_id {call_id}.", param="input")
    return item


def _named(item: Item, view: FunctionCallOutput, opened: dict[str, Item]) -> Item:
    for call_id, call in opened.items():
        if isinstance(call.view, FunctionCall) and call.view.name == view.name:
            return _answering(call_id, msgspec.json.decode(item.raw, type=dict[str, Raw]))
    raise BadRequest(f"No tool call found for an output without call_id, named '{view.name}'.", param="input")


def _by_item(item: Item, opened: dict[str, Item]) -> Item:
    """The id of a local shell's output may be that of the call's item; listed, two items cannot share it."""
    for call_id, call in opened.items():
        if isinstance(call.view, LocalShellCall) and call.id == item.id:
            fields = msgspec.json.decode(item.raw, type=dict[str, Raw])
            del fields["id"]
            return _answering(call_id, fields)
    return item


def _answering(call_id: str, fields: dict[str, Raw]) -> Item:
    fields["call_id"] = Raw(msgspec.json.encode(call_id))
    return Item.parse(msgspec.json.encode(fields))

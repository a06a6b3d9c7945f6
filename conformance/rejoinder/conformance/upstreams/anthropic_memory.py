"""What an Anthropic provider knows of its own answers: whatever it signed, it wants back unchanged (§5, §7)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rejoinder.conformance.upstreams.exchange import Exchange
from rejoinder.conformance.upstreams.objection import Json

Block = Mapping[str, Json]

Told = tuple[str, str]
"""A role, and a block as it counts for the conversation it stands in."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """A thinking block as it was issued, and the conversation before it."""

    text: Json
    system: str
    tools: str
    before: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    thoughts: dict[str, list[Thinking]] = field(default_factory=dict)
    """By signature. A block without one is under the empty string."""

    sealed: set[str] = field(default_factory=set)
    """The `data`, `encrypted_content` and `encrypted_index` that were handed out."""


def remembered(exchanges: Iterable[Exchange]) -> Memory:
    memory = Memory()
    for exchange in exchanges:
        learned = exchange.learned(_learned)
        for signature, thoughts in learned.thoughts.items():
            memory.thoughts.setdefault(signature, []).extend(thoughts)
        memory.sealed.update(learned.sealed)
    return memory


def _learned(exchange: Exchange) -> Memory:
    """What one answer adds."""
    memory = Memory()
    before = told(exchange.asked.get("messages"))
    for block in issued(exchange.values):
        if block.get("type") == "thinking":
            thinking = Thinking(block.get("thinking"), *context(exchange.asked), tuple(before))
            memory.thoughts.setdefault(str(block.get("signature", "")), []).append(thinking)
        memory.sealed.update(_sealed(block))
        before.append(("assistant", counted(block)))
    return memory


def context(asked: Block) -> tuple[str, str]:
    """The system prompt and the tools, as far as a thought hangs on them."""
    system = asked.get("system") or []
    blocks: list[Json] = [{"type": "text", "text": system}] if isinstance(system, str) else [*_list(system)]
    tools = _list(asked.get("tools") or [])
    return json.dumps([counted(one) for one in blocks]), json.dumps([counted(one) for one in tools])


def told(messages: Json) -> list[Told]:
    """The blocks of a conversation, each with its role: how they are cut into messages does not count (§3)."""
    said: list[Told] = []
    for message in _list(messages):
        if isinstance(message, Mapping):
            said += [(str(message.get("role")), counted(block)) for block in blocks_of(message)]
    return said


def blocks_of(message: Block) -> list[Json]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else [*_list(content)]


def counted(block: Json) -> str:
    """A block without what does not change its meaning."""
    if not isinstance(block, Mapping):
        return json.dumps(block)
    kept = {name: value for name, value in block.items() if name not in ("cache_control", "caller")}
    if not kept.get("citations"):
        kept.pop("citations", None)
    if kept.get("is_error") is False:
        kept.pop("is_error")
    return json.dumps(kept, sort_keys=True)


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _sealed(block: Block) -> Iterator[str]:
    if block.get("type") == "redacted_thinking":
        yield str(block.get("data"))
    for name in ("content", "citations"):
        for one in _list(block.get(name)):
            if isinstance(one, Mapping):
                yield from (str(one[key]) for key in ("encrypted_content", "encrypted_index") if key in one)


def issued(values: Iterable[Json]) -> list[Block]:
    """The blocks of an answer, put together from its events; those that never ended are not among them."""
    ended: list[Block] = []
    block: dict[str, Json] = {}
    for value in values:
        match value:
            case {"type": "message", "content": [*content]}:
                ended += [one for one in content if isinstance(one, Mapping)]
            case {"type": "content_block_start", "content_block": Mapping() as start}:
                block = dict(start)
            case {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": str(piece)}}:
                block["partial"] = str(block.get("partial", "")) + piece
            case {"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": citation}}:
                block["citations"] = [*_list(block.get("citations")), citation]
            case {"type": "content_block_delta", "delta": Mapping() as delta}:
                for name in ("text", "thinking", "signature"):
                    if name in delta:
                        block[name] = f"{block.get(name, '')}{delta[name]}"
            case {"type": "content_block_stop"}:
                if partial := block.pop("partial", None):
                    block["input"] = _input(str(partial))
                ended.append(block)
    return ended


def _input(partial: str) -> Json:
    """The input of a call; the text itself when a script has made it nonsense."""
    try:
        value: Json = json.loads(partial)
    except ValueError:
        return partial
    return value

"""What a Responses provider keeps of its answers: whole responses, and what it sealed (provider-responses.md §4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from rejoinder.conformance.upstreams.exchange import Exchange
from rejoinder.conformance.upstreams.objection import Json

Item = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Memory:
    responses: dict[str, list[Item]] = field(default_factory=dict)
    """The conversation up to the end of every stored response, by its id."""

    stored: dict[str, Item] = field(default_factory=dict)
    """Stored items by id."""

    sealed: set[str] = field(default_factory=set)
    """Every `encrypted_content` that was handed out."""

    led_to_by: dict[str, str] = field(default_factory=dict)
    """For an item that came right after reasoning, the id of that reasoning."""

    def before(self, asked: Item) -> list[Item]:
        """The conversation that a request continues; nothing when it continues none."""
        previous = asked.get("previous_response_id")
        return list(self.responses.get(previous, [])) if isinstance(previous, str) else []


def remembered(exchanges: Iterable[Exchange]) -> Memory:
    memory = Memory()
    for exchange in exchanges:
        asked = exchange.asked
        response, output = exchange.learned(_answer)
        for item in output:
            if isinstance(sealed := item.get("encrypted_content"), str):
                memory.sealed.add(sealed)
        for reasoning, item in pairwise(output):
            if reasoning.get("type") == "reasoning" and item.get("type") != "reasoning":
                memory.led_to_by[str(item.get("id"))] = str(reasoning.get("id"))
        if asked.get("store") is not False and response is not None:
            memory.responses[response] = [*memory.before(asked), *items_of(asked), *output]
            memory.stored.update({str(item["id"]): item for item in output if "id" in item})
    return memory


def items_of(asked: Item) -> list[Item]:
    given = asked.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [item for item in given if isinstance(item, Mapping)] if isinstance(given, list) else []


def _answer(exchange: Exchange) -> tuple[str | None, list[Item]]:
    """The id of a response that has come to its end, and the items that were done."""
    response: str | None = None
    output: list[Item] = []
    for value in exchange.values:
        match value:
            case {"object": "response" | "response.compaction" as kind, "id": str(id), "output": [*items]}:
                response = id if kind == "response" else None
                output = [item for item in items if isinstance(item, Mapping)]
            case {"type": "response.output_item.done", "item": Mapping() as item}:
                output.append(item)
            case {"type": "response.completed" | "response.incomplete", "response": {"id": str(id)}}:
                response = id
    return response, output

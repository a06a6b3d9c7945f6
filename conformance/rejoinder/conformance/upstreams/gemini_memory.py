"""What a Gemini provider has signed: a signature comes back inside the part it came with (provider-gemini.md §5)."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from rejoinder.conformance.upstreams.exchange import Exchange
from rejoinder.conformance.upstreams.objection import Json

Memory = Mapping[str, Counter[str]]
"""By signature, the parts it came in, and how often."""


def remembered(exchanges: Iterable[Exchange]) -> Memory:
    memory: dict[str, Counter[str]] = {}
    for exchange in exchanges:
        for signature, part in exchange.learned(_signed):
            memory.setdefault(signature, Counter())[part] += 1
    return memory


def _signed(exchange: Exchange) -> list[tuple[str, str]]:
    """The signatures of one answer, each with the part it came in."""
    return [
        (signature, unsigned(part))
        for value in exchange.values
        for part in _parts(value)
        if isinstance(signature := part.get("thoughtSignature"), str)
    ]


def unsigned(part: Mapping[str, Json]) -> str:
    """A part without its signature, its names in one spelling."""
    return json.dumps(
        {camel(name): value for name, value in part.items() if camel(name) != "thoughtSignature"}, sort_keys=True
    )


def camel(name: str) -> str:
    """The wire knows every name in two spellings (§2)."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _parts(value: Json) -> list[Mapping[str, Json]]:
    match value:
        case {"candidates": [{"content": {"parts": [*parts]}}, *_]}:
            return [part for part in parts if isinstance(part, Mapping)]
        case _:
            return []

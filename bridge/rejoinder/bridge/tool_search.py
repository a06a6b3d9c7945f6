"""Finding deferred tools by what they say of themselves, where the search is left to the server (mapping.md §3,
semantics.md §7)."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from rejoinder.wire.tools import FunctionTool, NamespaceTool, Tool

MOST = 8
"""Tools one search returns."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """A tool that is offered only once it was found. `raw` is its declaration, `namespace` the one around it."""

    name: str
    text: str
    raw: bytes
    namespace: NamespaceTool | None = None


def deferred(tool: Tool, name: str, description: str | None, namespace: NamespaceTool | None) -> Deferred:
    """What can be found of a tool: its name, its description, the names and descriptions of its parameters."""
    view = tool.view
    parameters = bytes(view.parameters).decode() if isinstance(view, FunctionTool) else ""
    around = f"{namespace.name} {namespace.description or ''}" if namespace is not None else ""
    return Deferred(name, f"{name} {name} {around} {description or ''} {parameters}", tool.raw, namespace)


def search(query: str, tools: Sequence[Deferred], limit: int = MOST) -> list[Deferred]:
    """The tools that fit best, the best first: words in common, rare ones counting more. None where none has any."""
    words = set(_words(query))
    known = [(tool, Counter(_words(tool.text))) for tool in tools]
    frequency = Counter(word for _, said in known for word in said)
    scores: list[tuple[float, int, Deferred]] = []
    for place, (tool, said) in enumerate(known):
        length = 1 + sum(said.values()) / 100
        score = sum(
            math.log(1 + len(tools) / frequency[word]) * said[word] / (said[word] + length)
            for word in words & said.keys()
        )
        if score:
            scores.append((-score, place, tool))
    return [tool for _, _, tool in sorted(scores, key=lambda found: found[:2])[:limit]]


def declared(found: Sequence[Deferred]) -> list[Raw]:
    """The tools as a search output lists them: those of a namespace inside it, in the order they were found."""
    listed: list[Raw] = []
    for tool in found:
        listed.append(Raw(tool.raw if tool.namespace is None else _inside(tool.namespace, tool.raw)))
    return listed


def _inside(namespace: NamespaceTool, raw: bytes) -> bytes:
    around = {
        "type": "namespace",
        "name": namespace.name,
        "description": namespace.description or "",
        "tools": [Raw(raw)],
    }
    return _ENCODER.encode(around)


_ENCODER = msgspec.json.Encoder()
_WORD = re.compile(r"[a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _words(text: str) -> list[str]:
    """The words of a text, those of `snake_case` and `camelCase` names apart, without their plural."""
    return [_stem(word) for word in _WORD.findall(_CAMEL.sub(" ", text).lower())]


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word

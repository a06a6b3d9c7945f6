"""The words of a script that Responses alone has (provider-responses.md §3, §6)."""

from collections.abc import Mapping
from dataclasses import dataclass

from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.script import Native


@dataclass(frozen=True, slots=True)
class Message(Native):
    """A message with a phase, with annotations, or with both."""

    pieces: tuple[str, ...]
    phase: str | None
    annotations: tuple[Mapping[str, Json], ...]


@dataclass(frozen=True, slots=True)
class RawThought(Native):
    """Reasoning in the open, as open-weight servers give it: `content`, no summary, nothing encrypted."""

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CustomCall(Native):
    name: str
    pieces: tuple[str, ...]
    id: str


@dataclass(frozen=True, slots=True)
class Item(Native):
    """Any item, whole: a type nobody knows, or a call of a server tool. It gets an id unless it has one."""

    value: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Event(Native):
    """Any event, in its place among the items. A JSON body has none."""

    value: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Failure(Native):
    """The response ends as failed, with an error event before it or without."""

    code: str
    message: str
    told: bool


def message(*pieces: str, phase: str | None = None, annotations: tuple[Mapping[str, Json], ...] = ()) -> Message:
    return Message(pieces, phase, annotations)


def raw_thought(*pieces: str) -> RawThought:
    return RawThought(pieces)


def custom_call(name: str, *pieces: str, id: str | None = None) -> CustomCall:
    return CustomCall(name, pieces, id or f"call_{name}")


def item(value: Mapping[str, Json]) -> Item:
    return Item(value)


def compaction(encrypted_content: str) -> Item:
    """What a `compaction_trigger` asks for."""
    return Item({"type": "compaction", "encrypted_content": encrypted_content})


def event(value: Mapping[str, Json]) -> Event:
    return Event(value)


def failure(
    code: str = "server_error",
    message: str = "The server had an error while processing your request.",
    *,
    told: bool = False,
) -> Failure:
    return Failure(code, message, told)

"""What a recorded answer says, read as plainly as can be: whole, with `json`, and nothing of the bridge."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bridge.recordings import Json, Object, Recording, objects

LIFECYCLE = ("response.created", "response.queued", "response.in_progress")
_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


@dataclass(slots=True)
class Said:
    """`events` are those between the beginning and the end, in order, without what is never passed on; `response` is
    the whole object of the end, or of a body."""

    events: list[Object] = field(default_factory=list)
    response: Object = field(default_factory=dict)

    @property
    def output(self) -> list[Object]:
        return objects(self.response["output"])

    @property
    def done(self) -> list[Object]:
        """The items the stream said were done."""
        found: list[Json] = [event["item"] for event in self.events if event["type"] == "response.output_item.done"]
        return objects(found)


def said(exchange: Recording) -> Said:
    """Read an answer; of several in one file the first."""
    if not exchange.is_stream:
        return Said(response=objects([json.loads(exchange.body)])[0])
    found = Said()
    for event in events(exchange):
        if event["type"] in _ENDS:
            found.response = objects([event.get("response", {})])[0]
            break
        if event["type"] not in LIFECYCLE:
            found.events.append(unmarked(event))
    return found


def unmarked(event: Object) -> Object:
    """The event without its number, and without what only pads it."""
    return {name: value for name, value in event.items() if name not in ("sequence_number", "obfuscation")}


def events(exchange: Recording) -> Iterator[Object]:
    for line in exchange.body.decode().splitlines():
        if line.startswith("data:"):
            yield from objects([json.loads(line.removeprefix("data:"))])

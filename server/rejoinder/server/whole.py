"""What Codex is told of an answer that broke off, over any transport."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from rejoinder.wire.events import Event, Failed, Incomplete, ItemDone, Relayed
from rejoinder.wire.items import Head


def whole(events: Sequence[Event]) -> Sequence[Event]:
    """The events for Codex: what was closed only because the answer broke off is not reported as done.

    Codex acts on every item that is done, whatever its status (codex.md §5): it would run the first half of a program,
    and ask again with half a message in its history. What was never done it forgets, as after a dropped stream. Text
    at an output limit is kept: there the turn ends, with what was said so far.
    """
    match events[-1]:
        case Failed():
            return [event for event in events if _done(event) is None]
        case Incomplete():
            return [event for event in events if _done(event) in (None, "message", "reasoning")]
        case _:
            return events


def _done(event: Event) -> str | None:
    """The type of the item an event says is done."""
    match event:
        case ItemDone(item=item):
            tag = item.__struct_config__.tag
            assert isinstance(tag, str)
            return tag
        case Relayed(item=Raw() as raw):
            return _HEAD.decode(raw).type
        case _:
            return None


_HEAD = msgspec.json.Decoder(Head)

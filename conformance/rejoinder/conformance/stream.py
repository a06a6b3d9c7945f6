"""An answer that came as events."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Raw, Struct

from rejoinder.conformance.answer import Answer, Item, read
from rejoinder.conformance.errors import Broken
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.frames import DONE, Frame, frames
from rejoinder.conformance.server import Reply

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
LIFECYCLE = ("response.created", "response.queued", "response.in_progress", *TERMINAL)


class Event(Struct):
    """What rules read of an event. `raw` is the whole of it."""

    type: str
    sequence_number: int | None = None
    response: Raw = Raw()
    output_index: int | None = None
    item_id: str | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item: Raw = Raw()
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    raw: bytes = b""

    @property
    def kind(self) -> str:
        """The type without the word all of them begin with."""
        return self.type.removeprefix("response.")


@dataclass(frozen=True, slots=True)
class Stream:
    """`frames` are what came, `events` what those with JSON say."""

    reply: Reply
    frames: Sequence[Frame]
    events: Sequence[Event]

    @classmethod
    def of(cls, reply: Reply) -> "Stream":
        """Read a reply. Raises Broken when it is no stream of events."""
        expect_equal("a stream with the content type", "text/event-stream", reply.expect(200).media_type)
        found = frames(reply.body)
        events = [_event(frame) for frame in found if frame.data is not None and frame.data != DONE]
        expect(events, "events in the stream", reply.excerpt)
        return cls(reply, found, events)

    @property
    def response(self) -> Raw:
        """The response the last lifecycle event tells of. Raises Broken when the stream does not end with one."""
        last = self.events[-1]
        if last.type not in TERMINAL:
            raise Broken("a terminal event at the end", f"'{last.type}'", at=last.raw)
        return last.response

    @property
    def answer(self) -> Answer:
        return read(Answer, self.response, "the response at the end of the stream")

    def items(self, kind: str) -> list[tuple[Event, Item]]:
        """The events of that kind that carry an item, and the item."""
        return [(event, read(Item, event.item, f"the item of '{kind}'")) for event in self.events if event.kind == kind]


def _event(frame: Frame) -> Event:
    data = (frame.data or "").encode()
    event = read(Event, data, f"an event ('{frame.event}')")
    event.raw = data
    return event

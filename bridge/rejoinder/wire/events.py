"""Streaming events (events.md §2 and §3). The same objects travel over SSE and over a WebSocket; those of steering are
told over a WebSocket alone (websocket.md §7)."""

import msgspec
from msgspec import Raw, Struct

from rejoinder.wire.responses import Citation, OutputItem, OutputPart, SummaryText


class Event(Struct, tag_field="type", gc=False):
    """What every event has: its type, and its place in the stream."""

    sequence_number: int

    @property
    def type(self) -> str:
        tag = self.__struct_config__.tag
        assert isinstance(tag, str)
        return tag


class Lifecycle(Event, tag=""):
    """`response` is the whole object, encoded: it is the same in several events, in the store and in a plain answer."""

    response: Raw


class Created(Lifecycle, tag="response.created"):
    pass


class Queued(Lifecycle, tag="response.queued"):
    pass


class InProgress(Lifecycle, tag="response.in_progress"):
    pass


class Completed(Lifecycle, tag="response.completed"):
    pass


class Incomplete(Lifecycle, tag="response.incomplete"):
    pass


class Failed(Lifecycle, tag="response.failed"):
    pass


TERMINAL = (Completed, Incomplete, Failed)


class ItemAdded(Event, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(Event, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class PartAdded(Event, tag="response.content_part.added"):
    item_id: str
    output_index: int
    content_index: int
    part: OutputPart


class PartDone(Event, tag="response.content_part.done"):
    item_id: str
    output_index: int
    content_index: int
    part: OutputPart


class TextDelta(Event, tag="response.output_text.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[Raw]


class TextDone(Event, tag="response.output_text.done"):
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[Raw]


class AnnotationAdded(Event, tag="response.output_text.annotation.added"):
    item_id: str
    output_index: int
    content_index: int
    annotation_index: int
    annotation: Citation


class RefusalDelta(Event, tag="response.refusal.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str


class RefusalDone(Event, tag="response.refusal.done"):
    item_id: str
    output_index: int
    content_index: int
    refusal: str


class ReasoningDelta(Event, tag="response.reasoning_text.delta"):
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ReasoningDone(Event, tag="response.reasoning_text.done"):
    item_id: str
    output_index: int
    content_index: int
    text: str


class SummaryPartAdded(Event, tag="response.reasoning_summary_part.added"):
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class SummaryPartDone(Event, tag="response.reasoning_summary_part.done"):
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class SummaryDelta(Event, tag="response.reasoning_summary_text.delta"):
    item_id: str
    output_index: int
    summary_index: int
    delta: str


class SummaryDone(Event, tag="response.reasoning_summary_text.done"):
    item_id: str
    output_index: int
    summary_index: int
    text: str


class ArgumentsDelta(Event, tag="response.function_call_arguments.delta"):
    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(Event, tag="response.function_call_arguments.done"):
    item_id: str
    output_index: int
    name: str
    arguments: str


class InputDelta(Event, tag="response.custom_tool_call_input.delta"):
    item_id: str
    output_index: int
    delta: str


class InputDone(Event, tag="response.custom_tool_call_input.done"):
    item_id: str
    output_index: int
    input: str


class CommandAdded(Event, tag="response.shell_call_command.added"):
    """Shell command events have no `item_id` (events.md §3)."""

    output_index: int
    command_index: int
    command: str


class CommandDelta(Event, tag="response.shell_call_command.delta"):
    output_index: int
    command_index: int
    delta: str


class CommandDone(Event, tag="response.shell_call_command.done"):
    output_index: int
    command_index: int
    command: str


class _ItemProgress(Event, tag=""):
    """What a provider does on its own side for an item."""

    item_id: str
    output_index: int


class SearchInProgress(_ItemProgress, tag="response.web_search_call.in_progress"):
    pass


class SearchSearching(_ItemProgress, tag="response.web_search_call.searching"):
    pass


class SearchCompleted(_ItemProgress, tag="response.web_search_call.completed"):
    pass


class ImageInProgress(_ItemProgress, tag="response.image_generation_call.in_progress"):
    pass


class ImageGenerating(_ItemProgress, tag="response.image_generation_call.generating"):
    pass


class ImageCompleted(_ItemProgress, tag="response.image_generation_call.completed"):
    pass


class Compacting(_ItemProgress, tag="response.compaction.compacting"):
    pass


class Steer(Struct, frozen=True):
    """What a client said to a response under way, by the id it got here (websocket.md §7)."""

    id: str
    previous_response_id: str


class Steering(Event, tag=""):
    """What becomes of words said to a response under way."""


class SteerAccepted(Steering, tag="response.steer.accepted"):
    steer: Steer


class SteerPending(Steering, tag="response.steer.pending"):
    """`required_input` are items without their results: `{type, call_id}`, and what else tells one."""

    reason: str
    required_input: list[dict[str, str]]
    steer: Steer


class SteerError(Struct, frozen=True, tag_field="type", tag="invalid_request_error"):
    code: str
    message: str


class Unsteered(Struct, frozen=True, omit_defaults=True):
    """What did not become part of a response, as the client sent it; without an id where it never got one."""

    input: Raw
    previous_response_id: str
    id: str | None = None


class SteerFailed(Steering, tag="response.steer.failed"):
    error: SteerError
    steer: Unsteered


class Relayed(Event, tag=""):
    """An event of a provider that speaks this API itself, as it came but for its number. `data` is all of it as JSON on
    one line; `item` is there when it says that an item is done."""

    kind: str
    data: bytes
    item: Raw | None = None

    @property
    def type(self) -> str:
        return self.kind


_ENCODER = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """One event as JSON on one line."""
    return event.data if event.__class__ is Relayed else _ENCODER.encode(event)

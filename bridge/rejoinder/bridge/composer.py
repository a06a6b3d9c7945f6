"""The one author of events: what happened upstream becomes Responses events in the order the grammar wants.

    stream    := created in_progress item* terminal
    item      := output_item.added body output_item.done
    message   := (content_part.added output_text.delta* output_text.done content_part.done)*
    reasoning := summary parts, or raw parts, in the same manner
    call      := argument deltas and their done, or nothing but the whole item

(events.md §4). A dialect reports text, reasoning and calls as they come and never builds an event; the composer opens
what has to be open, closes what has to be closed, numbers everything, and keeps the items it has finished.

Reasoning closes when text or a call opens; a message closes when reasoning or a call opens (mapping.md §6). Calls stay
open side by side until the end: a provider may add to any of them, and text that parses is not text that is finished.
Only a call whose item comes whole is written as soon as something follows it, so that the output keeps the order.
"""

from collections.abc import Callable, Set
from typing import Literal, Protocol

import msgspec
from msgspec import Raw

from rejoinder.bridge.calls import CallWriter, LeftOut, writer_for
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire import events, responses
from rejoinder.wire.responses import ItemStatus, Response, Usage

MAX_CALL_ID = 64
"""Characters of a call id (objects.md §6)."""


class Mint(Protocol):
    """Makes an id that no other item of this server has: `msg_…` for the prefix `msg`."""

    def __call__(self, prefix: str, /) -> str: ...


class Composer:
    """Turns what a dialect reports into events; `drain` hands them over.

    `response` is filled in as the answer grows. `seal` turns the opaque state of reasoning into `encrypted_content`.
    `taken` are the call ids the conversation has already.
    """

    def __init__(
        self,
        response: Response,
        toolbox: Toolbox,
        *,
        mint: Mint,
        seal: Callable[[list[Raw], dict[str, Raw]], str],
        taken: Set[str] = frozenset(),
        reasoning: Literal["summary", "raw"] = "summary",
    ) -> None:
        self.response = response
        self._toolbox = toolbox
        self._mint = mint
        self._seal = seal
        self._taken = set(taken)
        self._raw = reasoning == "raw"
        self._single = not response.parallel_tool_calls
        self._spells_out_refusals = False
        self._events: list[events.Event] = []
        self._number = 0
        self._next_index = 0
        self._done: dict[int, responses.OutputItem] = {}
        self._message: _Message | None = None
        self._reasoning: _Reasoning | None = None
        self._calls: dict[str, CallWriter] = {}
        self.notes: list[str] = []

    def drain(self) -> list[events.Event]:
        """The events since the last time, in order."""
        drained, self._events = self._events, []
        return drained

    def start(self) -> None:
        """The response exists: `created`, then `in_progress`, both with an empty output (events.md §2)."""
        snapshot = _encoded(self.response)
        self.emit(events.Created(self.number(), snapshot))
        self.emit(events.InProgress(self.number(), snapshot))

    @property
    def has_started(self) -> bool:
        """Whether `created` was reported."""
        return self._number > 0

    def keep_alive(self) -> None:
        """A legal event that says nothing new: Codex's idle timer counts events, not comments (codex.md §5).

        Nothing may follow the last event, so after it nothing is reported.
        """
        if self.response.status == "in_progress":
            self.emit(events.InProgress(self.number(), _encoded(self.response)))

    def text(self, delta: str, logprobs: list[Raw] | None = None) -> None:
        """More of the visible answer."""
        message = self._message or self._open_message()
        message.text(delta, logprobs or [])

    def spell_out_refusals(self) -> None:
        """Report what the model refuses as its text: Codex drops messages with a refusal part (codex.md §4)."""
        self._spells_out_refusals = True

    def refusal(self, delta: str) -> None:
        """More of the model's refusal to answer."""
        if self._spells_out_refusals:
            self.text(delta)
            return
        message = self._message or self._open_message()
        message.refusal(delta)

    def annotation(self, citation: responses.UrlCitation) -> None:
        """A citation of the text so far; without text there is nothing to cite and it is noted."""
        if self._message is None:
            self.notes.append(f"annotations: {citation.url} cites no text")
        else:
            self._message.annotation(citation)

    def reasoning(self, delta: str) -> None:
        """More of what the model thinks."""
        reasoning = self._reasoning or self._open_reasoning()
        if delta:
            reasoning.text(delta)

    def end_reasoning(
        self, parts: list[Raw], calls: dict[str, Raw] | None = None, status: ItemStatus = "completed"
    ) -> None:
        """Reasoning is over, or was cut off, and this is what its issuer wants back. Opens an empty item, which nothing
        can cut off, when there is none to carry it (mapping.md §5)."""
        if self._reasoning is None:
            status = "completed"
        reasoning = self._reasoning or self._open_reasoning()
        self._reasoning = None
        reasoning.close(status, self._seal(parts, calls or {}))

    def reserve(self, call_id: str | None) -> str:
        """The id a call will have: the provider's own where it can serve, else a new one."""
        # Some servers leave the id out, repeat it in one answer, or start again at call_0 in every turn
        # (provider-chat.md §7, reliability.md F28). Clients pair by it, so it must be unique in the conversation.
        if not call_id or call_id in self._taken or len(call_id) > MAX_CALL_ID:
            call_id = self._mint("call")
        self._taken.add(call_id)
        return call_id

    def call(self, key: str, name: str, call_id: str) -> None:
        """A call of the function `name` begins, with an id from `reserve`; `key` is how the dialect will speak of it.

        Raises UpstreamError for a call where no tool was offered.
        """
        if not self._toolbox.offers(name):
            raise UpstreamError(f"the model called '{name}', but no such tool was offered")
        if self._single and self._calls:
            self.notes.append(f"parallel_tool_calls: a second call, of '{name}', was left out")
            self._calls[key] = LeftOut()
            return
        self._close_reasoning("completed")
        self._close_message("completed")
        self._settle_calls()
        self._calls[key] = writer_for(self._toolbox.target_of(name), call_id, self)

    def arguments(self, key: str, delta: str) -> None:
        """More of the argument text of a call."""
        self._calls[key].arguments(delta)

    @property
    def in_message(self) -> bool:
        """Whether a message is being written."""
        return self._message is not None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was reported so far."""
        return self._next_index == 0 and not self._calls

    def finish(
        self, status: Literal["completed", "incomplete"], *, usage: Usage, at: int, reason: str | None = None
    ) -> None:
        """The answer is over. `at` is the time in unix seconds, `reason` the one of an incomplete answer.

        Raises UpstreamError when nothing came: an empty answer is a failure, never an empty success
        (reliability.md F9).
        """
        if status == "completed" and self.is_empty:
            raise BrokenStream("the model's answer is empty")
        self._close_all(status)
        response = self.response
        response.status = status
        response.usage = usage
        response.output = [self._done[index] for index in sorted(self._done)]
        if status == "completed":
            response.completed_at = at
            self.emit(events.Completed(self.number(), _encoded(response)))
        else:
            response.incomplete_details = responses.IncompleteDetails(reason or "max_output_tokens")
            self.emit(events.Incomplete(self.number(), _encoded(response)))

    def fail(self, code: str, message: str, *, usage: Usage | None = None) -> None:
        """The answer broke off. What came so far is closed and stays in the response (reliability.md F5)."""
        self._close_all("incomplete")
        response = self.response
        response.status = "failed"
        response.error = responses.Failure(code, message)
        response.usage = usage
        response.completed_at = None
        response.incomplete_details = None
        response.output = [self._done[index] for index in sorted(self._done)]
        self.emit(events.Failed(self.number(), _encoded(response)))

    def fail_unstored(self, message: str) -> None:
        """The answer is whole but could not be kept: a last event in the place of the one that was not sent."""
        self._number -= 1
        self.fail("server_error", message, usage=self.response.usage)

    # What the writers of items need.

    def emit(self, event: events.Event) -> None:
        self._events.append(event)

    def number(self) -> int:
        number = self._number
        self._number += 1
        return number

    def mint(self, prefix: str) -> str:
        return self._mint(prefix)

    def open_item(self, item: responses.OutputItem) -> int:
        """Announce an item and give it the next place in the output."""
        index = self._next_index
        self._next_index += 1
        self.emit(events.ItemAdded(self.number(), index, item))
        return index

    def close_item(self, index: int, item: responses.OutputItem) -> None:
        self._done[index] = item
        self.emit(events.ItemDone(self.number(), index, item))

    def _open_message(self) -> "_Message":
        self._close_reasoning("completed")
        self._settle_calls()
        self._message = _Message(self)
        return self._message

    def _open_reasoning(self) -> "_Reasoning":
        self._close_message("completed")
        self._settle_calls()
        self._reasoning = _Reasoning(self, self._raw)
        return self._reasoning

    def _close_message(self, status: ItemStatus) -> None:
        if self._message is not None:
            self._message.close(status)
            self._message = None

    def _close_reasoning(self, status: ItemStatus) -> None:
        if self._reasoning is not None:
            self._reasoning.close(status, None)
            self._reasoning = None

    def _settle_calls(self) -> None:
        for call in self._calls.values():
            call.settle()

    def _close_all(self, status: ItemStatus) -> None:
        # Only the item that was being written is cut; an incomplete item must be the last one (open-responses.md §2).
        # A call that is not whole, and was never announced, is left out of an answer that was cut.
        # A call that fails leaves the others open, so that a failed answer closes them too.
        cut_elsewhere = self._message is not None or self._reasoning is not None
        newest_is_done = self._next_index - 1 in self._done
        self._close_reasoning(status)
        while self._calls:
            key = next(iter(self._calls))
            call = self._calls.pop(key)
            last = not self._calls and not cut_elsewhere
            if status == "incomplete" and not last and not call.is_open:
                self.notes.append("a call that was written beside others was left out of an incomplete answer")
                continue
            call.close("completed" if (call.is_open and newest_is_done) or not last else status)
        self._close_message(status)


class _Message:
    """An assistant message while it is written: parts of text or refusal, one after the other."""

    def __init__(self, out: Composer) -> None:
        self._out = out
        self._id = out.mint("msg")
        self._content: list[responses.OutputText | responses.OutputRefusal] = []
        self._pieces: list[str] = []
        self._part: responses.OutputText | responses.OutputRefusal | None = None
        self._index = out.open_item(responses.OutputMessage(self._id, "in_progress", []))

    def text(self, delta: str, logprobs: list[Raw]) -> None:
        part = self._part
        if not isinstance(part, responses.OutputText):
            part = responses.OutputText("")
            self._open(part)
        self._pieces.append(delta)
        if logprobs:
            part.logprobs.extend(logprobs)
        out = self._out
        out.emit(events.TextDelta(out.number(), self._id, self._index, len(self._content), delta, logprobs))

    def refusal(self, delta: str) -> None:
        if not isinstance(self._part, responses.OutputRefusal):
            self._open(responses.OutputRefusal(""))
        self._pieces.append(delta)
        out = self._out
        out.emit(events.RefusalDelta(out.number(), self._id, self._index, len(self._content), delta))

    def annotation(self, citation: responses.UrlCitation) -> None:
        part = self._part
        if not isinstance(part, responses.OutputText):
            part = responses.OutputText("")
            self._open(part)
        part.annotations.append(citation)
        out = self._out
        index = len(part.annotations) - 1
        out.emit(events.AnnotationAdded(out.number(), self._id, self._index, len(self._content), index, citation))

    def close(self, status: ItemStatus) -> None:
        self._close_part()
        self._out.close_item(self._index, responses.OutputMessage(self._id, status, self._content))

    def _open(self, part: responses.OutputText | responses.OutputRefusal) -> None:
        self._close_part()
        self._part = part
        out = self._out
        # The event's part is empty, so it cannot be the object that is filled later.
        empty = responses.OutputText("") if isinstance(part, responses.OutputText) else responses.OutputRefusal("")
        out.emit(events.PartAdded(out.number(), self._id, self._index, len(self._content), empty))

    def _close_part(self) -> None:
        part = self._part
        if part is None:
            return
        out, index, text = self._out, len(self._content), "".join(self._pieces)
        if isinstance(part, responses.OutputText):
            part.text = text
            out.emit(events.TextDone(out.number(), self._id, self._index, index, text, part.logprobs))
        else:
            part.refusal = text
            out.emit(events.RefusalDone(out.number(), self._id, self._index, index, text))
        out.emit(events.PartDone(out.number(), self._id, self._index, index, part))
        self._content.append(part)
        self._pieces.clear()
        self._part = None


class _Reasoning:
    """A reasoning item while it is written: one summary part, or one raw part where the upstream's setting asks."""

    def __init__(self, out: Composer, raw: bool) -> None:
        self._out = out
        self._raw = raw
        self._id = out.mint("rs")
        self._pieces: list[str] = []
        self._index = out.open_item(responses.ReasoningItem(self._id, "in_progress", []))

    def text(self, delta: str) -> None:
        out = self._out
        if not self._pieces:
            if self._raw:
                empty = responses.ReasoningText("")
                out.emit(events.PartAdded(out.number(), self._id, self._index, 0, empty))
            else:
                out.emit(events.SummaryPartAdded(out.number(), self._id, self._index, 0, responses.SummaryText("")))
        self._pieces.append(delta)
        made = events.ReasoningDelta if self._raw else events.SummaryDelta
        out.emit(made(out.number(), self._id, self._index, 0, delta))

    def close(self, status: ItemStatus, sealed: str | None) -> None:
        item = responses.ReasoningItem(self._id, status, [], encrypted_content=sealed)
        if self._pieces:
            self._close_part(item, "".join(self._pieces))
        self._out.close_item(self._index, item)

    def _close_part(self, item: responses.ReasoningItem, text: str) -> None:
        out = self._out
        if self._raw:
            raw = responses.ReasoningText(text)
            item.content = [raw]
            out.emit(events.ReasoningDone(out.number(), self._id, self._index, 0, text))
            out.emit(events.PartDone(out.number(), self._id, self._index, 0, raw))
        else:
            summary = responses.SummaryText(text)
            item.summary = [summary]
            out.emit(events.SummaryDone(out.number(), self._id, self._index, 0, text))
            out.emit(events.SummaryPartDone(out.number(), self._id, self._index, 0, summary))


def _encoded(response: Response) -> Raw:
    return Raw(_ENCODER.encode(response))


_ENCODER = msgspec.json.Encoder()

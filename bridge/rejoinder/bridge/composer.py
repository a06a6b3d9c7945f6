"""The one author of events: what happened upstream becomes Responses events in the order the grammar wants.

    stream    := created queued? in_progress item* terminal
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

from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from typing import Literal, Protocol

import msgspec
from msgspec import Raw

from rejoinder.bridge.calls import CallWriter, CheckedCall, HeldCall, LeftOut, ServerSearch, not_matching, writer_for
from rejoinder.bridge.errors import BrokenStream, Steered, UpstreamError
from rejoinder.bridge.grammar import Mode
from rejoinder.bridge.pairing import unanswered
from rejoinder.bridge.relayed import RelayedItem
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire import events, responses
from rejoinder.wire.items import Item
from rejoinder.wire.responses import (
    Citation,
    InputDetails,
    ItemStatus,
    OutputDetails,
    OutputItem,
    Response,
    UrlCitation,
    Usage,
)

MAX_ROUNDS = 10
"""Requests that may follow the first one of an answer (provider-anthropic.md §8, `pause_turn`)."""

MAX_CALL_ID = 64
"""Characters of a call id (objects.md §6)."""


class Mint(Protocol):
    """Makes an id that no other item of this server has: `msg_…` for the prefix `msg`."""

    def __call__(self, prefix: str, /) -> str: ...


class Composer:
    """Turns what a dialect reports into events; `drain` hands them over.

    `response` is filled in as the answer grows. `paused` says that another request goes on where this one stopped, and
    `provider_id` what a provider that speaks this API itself calls the response. `spells_out_refusals` says that the
    client is told of refusals as text. `seal` turns the opaque state of
    reasoning into `encrypted_content`, and `sign` marks state in a provider's own form as that provider's. `taken` are
    the call ids the conversation has already. `grammar` says what is done with free-form calls whose tool declares one.
    """

    def __init__(
        self,
        response: Response,
        toolbox: Toolbox,
        *,
        mint: Mint,
        seal: Callable[[list[Raw], dict[str, Raw]], str],
        sign: Callable[[str], str] = str,
        taken: Set[str] = frozenset(),
        reasoning: Literal["summary", "raw"] = "summary",
        grammar: Mode = "pass",
    ) -> None:
        self.response = response
        self._toolbox = toolbox
        self._mint = mint
        self._seal = seal
        self.sign = sign
        self._taken = set(taken)
        self._raw = reasoning == "raw"
        self._grammar = grammar
        self._single = not response.parallel_tool_calls
        self.spells_out_refusals = False
        self._events: list[events.Event] = []
        self._number = 0
        self._next_index = 0
        self._done: dict[int, OutputItem | Raw] = {}
        self._message: _Message | None = None
        self._reasoning: _Reasoning | None = None
        self._calls: dict[str, CallWriter] = {}
        self._hosted: dict[str, _Hosted] = {}
        self._relayed: dict[int, RelayedItem] = {}
        self._spent = Usage()
        self._resumed = 0
        self._hidden: list[Item] = []
        self._repaired = False
        self._rounds = 0
        self._ends_early = False
        self.paused = False
        self.provider_id: str | None = None
        self.notes: list[str] = []

    def note(self, said: str) -> None:
        """Once: what is true of one piece of an answer is mostly true of many."""
        if said not in self.notes:
            self.notes.append(said)

    def drain(self) -> list[events.Event]:
        """The events since the last time, in order."""
        drained, self._events = self._events, []
        return drained

    def start(self) -> None:
        """The response exists: `created`, then `in_progress`, both with an empty output (events.md §2)."""
        snapshot = encoded(self.response)
        self.emit(events.Created(self.number(), snapshot))
        self.emit(events.InProgress(self.number(), snapshot))

    def queue(self) -> None:
        """The response exists, and waits for its turn: `created`, then `queued`; `proceed` follows."""
        self.response.status = "queued"
        snapshot = encoded(self.response)
        self.emit(events.Created(self.number(), snapshot))
        self.emit(events.Queued(self.number(), snapshot))

    def proceed(self) -> None:
        """The response has waited long enough, and is made from here on."""
        self.response.status = "in_progress"
        self.emit(events.InProgress(self.number(), encoded(self.response)))

    def go_on(self, number: int) -> None:
        """Others have reported the beginning of this response; the next event has this number."""
        self._number = number

    @property
    def has_started(self) -> bool:
        """Whether `created` was reported."""
        return self._number > 0

    def keep_alive(self) -> None:
        """A legal event that says nothing new: Codex's idle timer counts events, not comments (codex.md §5).

        Nothing may follow the last event, so after it nothing is reported.
        """
        if self.response.status == "in_progress":
            self.emit(events.InProgress(self.number(), encoded(self.response)))

    def text(self, delta: str, logprobs: list[Raw] | None = None) -> None:
        """More of the visible answer."""
        message = self._message or self._open_message()
        message.text(delta, logprobs or [])

    def spell_out_refusals(self) -> None:
        """Report what the model refuses as its text: Codex drops messages with a refusal part (codex.md §4)."""
        self.spells_out_refusals = True

    def refusal(self, delta: str) -> None:
        """More of the model's refusal to answer."""
        if self.spells_out_refusals:
            self.text(delta)
            return
        message = self._message or self._open_message()
        message.refusal(delta)

    def annotation(self, citation: Citation) -> None:
        """A citation of the text so far; without text there is nothing to cite and it is noted."""
        if self._message is None:
            cited = citation.url if isinstance(citation, UrlCitation) else citation.filename
            self.note(f"annotations: {cited} cites no text")
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
            self.note(f"parallel_tool_calls: a second call, of '{name}', was left out")
            self._calls[key] = LeftOut()
            return
        self._close_reasoning("completed")
        self._close_message("completed")
        self._settle_calls()
        self._between_items()
        self._calls[key] = self._writer(name, call_id)

    def _writer(self, name: str, call_id: str) -> CallWriter:
        target = self._toolbox.target_of(name)
        grammar = self._toolbox.grammar_of(name) if self._grammar != "pass" else None
        if grammar is None:
            return writer_for(target, call_id, self)
        made = HeldCall if self._grammar == "repair" else CheckedCall
        return made(target, call_id, self, grammar)

    def arguments(self, key: str, delta: str) -> None:
        """More of the argument text of a call."""
        self._calls[key].arguments(delta)

    def search(self, key: str) -> str:
        """The provider searches the web on its own side; `key` is how the dialect will speak of it. Returns the item's
        id: what is sealed under it (`calls` of `end_reasoning`) goes back in its place."""
        search = _Search(self)
        self._begin_hosted(key, search)
        return search.id

    def searched(self, key: str, queries: list[str], sources: list[str] | None = None, *, failed: bool = False) -> None:
        """What a search looked for, and found (URLs, where the client wants to know). It is over."""
        search = self._hosted.pop(key)
        assert isinstance(search, _Search)
        search.found(queries, sources, failed=failed)

    def image(self, data: str, output_format: str) -> None:
        """A picture the provider made: base64, and its format (`png`)."""
        self._close_reasoning("completed")
        self._close_message("completed")
        self._settle_calls()
        self._between_items()
        item = responses.ImageCallItem(self.mint("ig"), "in_progress", None)
        index = self.open_item(item)
        for made in (events.ImageInProgress, events.ImageGenerating, events.ImageCompleted):
            self.emit(made(self.number(), item.id, index))
        self.close_item(index, responses.ImageCallItem(item.id, "completed", data, output_format))

    def compacting(self) -> None:
        """A summary is made that will stand for the conversation so far."""
        self._begin_hosted(_COMPACTION, _Compaction(self))

    def compacted(self, sealed: str) -> None:
        """The summary, sealed. Tokens spent on it are reported by `spend`."""
        compaction = self._hosted.pop(_COMPACTION)
        assert isinstance(compaction, _Compaction)
        compaction.found(sealed)

    def spend(self, usage: Usage) -> None:
        """Tokens of a request beside the one that is answered."""
        self._spent = _sum(self._spent, usage)

    @property
    def in_message(self) -> bool:
        """Whether a message is being written."""
        return self._message is not None

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was reported so far."""
        return self._next_index == 0 and not self._calls

    @property
    def is_idle(self) -> bool:
        """Whether nothing was reported since the beginning or the last pause: the request can be made again."""
        return self._next_index == self._resumed and not self._calls

    def pause(self, usage: Usage) -> None:
        """The answer is not over, but this request is: another one goes on where it stopped (mapping.md §6, internal
        continuation). What was written so far is closed."""
        self.spend(usage)
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise UpstreamError(f"the answer was not over after {MAX_ROUNDS} requests")
        self._close_all("completed")
        self.paused = True

    def offer(self, toolbox: Toolbox) -> None:
        """The tools of the next request: what was found may be called from now on."""
        self._toolbox = toolbox

    def resume(self) -> list[Item]:
        """The items that were written since the beginning or the last pause: what the next request goes on from."""
        self.paused = False
        hidden, self._hidden = self._hidden, []
        fresh = [index for index in sorted(self._done) if index >= self._resumed]
        self._resumed = self._next_index
        return [*(Item.parse(_ENCODER.encode(self._done[index])) for index in fresh), *hidden]

    # What a provider that speaks this API itself reports.

    def relay(self, kind: str, fields: dict[str, Raw], item: Raw | None = None) -> None:
        """An event as it came; it gets a number of ours. `fields` are all of its own, in their order; `item` is there
        when it says that an item is done."""
        number = self._number
        self._number = number + 1
        fields["sequence_number"] = Raw(b"%d" % number)
        self._events.append(events.Relayed(number, kind, _ENCODER.encode(fields), item))

    def begin_relayed(self, item: RelayedItem) -> int:
        """The place in the output of an item that begins."""
        self._between_items()
        place = self._next_index
        self._next_index += 1
        self._relayed[place] = item
        return place

    def end_relayed(self, place: int, item: Raw) -> None:
        """The item of that place is done, and this is it."""
        del self._relayed[place]
        self._done[place] = item

    def finish_relayed(self, status: Literal["completed", "incomplete"], said: dict[str, Raw], *, at: int) -> None:
        """The answer is over. `said` is the provider's own response object: what it says of itself stands, what is ours
        to say (ids, the model's name here, what is stored) is ours, and the items are those that were done."""
        if status == "completed" and self.is_empty:
            raise BrokenStream("the model's answer is empty")
        self._close_all(status)
        response = self.response
        response.status = status
        response.output = [self._done[index] for index in sorted(self._done)]
        response.completed_at = at if status == "completed" else None
        if status == "incomplete":
            response.incomplete_details = responses.IncompleteDetails("max_output_tokens")
        counted = _counted(said.get("usage", _NULL))
        response.usage = _sum(self._spent, _USAGE.decode(counted))
        fields = _FIELDS.decode(encoded(response))
        for name, value in said.items():
            if name not in _OURS and bytes(value) != b"null":
                fields[name] = value
        fields["usage"] = counted if self._spent == _NOTHING else _raw(response.usage)
        with suppress(msgspec.MsgspecError):
            removed = _LIST.decode(said.get("input_transformations", _NULL))
            fields["input_transformations"] = _raw([*(response.input_transformations or ()), *removed])
        made = events.Completed if status == "completed" else events.Incomplete
        self.emit(made(self.number(), _raw(fields)))

    def finish(
        self, status: Literal["completed", "incomplete"], *, usage: Usage, at: int, reason: str | None = None
    ) -> None:
        """The answer is over. `at` is the time in unix seconds, `reason` the one of an incomplete answer.

        Raises UpstreamError when nothing came: an empty answer is a failure, never an empty success
        (reliability.md F9).
        """
        if status == "completed" and self.is_empty:
            raise BrokenStream("the model's answer is empty")
        if status == "completed" and self._calls and self._goes_on():
            self.pause(usage)
            return
        self._close_all(status)
        response = self.response
        response.status = status
        response.usage = _sum(self._spent, usage)
        response.output = [self._done[index] for index in sorted(self._done)]
        if status == "completed":
            response.completed_at = at
            self.emit(events.Completed(self.number(), encoded(response)))
        else:
            response.incomplete_details = responses.IncompleteDetails(reason or "max_output_tokens")
            self.emit(events.Incomplete(self.number(), encoded(response)))

    def _goes_on(self) -> bool:
        return self._rounds < MAX_ROUNDS and (self._searches() or self._sends_back())

    def _searches(self) -> bool:
        """All the model did last was to look for tools: it goes on with what was found."""
        calls = [call for call in self._calls.values() if not isinstance(call, LeftOut)]
        return bool(calls) and all(isinstance(call, ServerSearch) for call in calls)

    def _sends_back(self) -> bool:
        """A text that does not match its grammar, and is all the model called, goes back to it, once: the client never
        sees it."""
        match [*self._calls.values()]:
            case [HeldCall(is_open=False) as call] if not self._repaired and (wrong := call.wrong) is not None:
                pass
            case _:
                return False
        self._calls.clear()
        self._repaired = True
        self.note(f"{not_matching(call.target.name, wrong)}; the model was asked once more")
        said = responses.CustomCallItem(
            self.mint("ctc"), "completed", call.call_id, call.target.name, call.text, call.target.namespace
        )
        told = (
            f"This call was not carried out: its text does not match the grammar of the tool, {wrong}. Call it again."
        )
        answered = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": told}
        self._hidden = [Item.parse(_ENCODER.encode(said)), Item.parse(_ENCODER.encode(answered))]
        return True

    def fail(self, code: str, message: str, *, usage: Usage | None = None) -> None:
        """The answer broke off. What came so far is closed and stays in the response (reliability.md F5)."""
        self._close_all("incomplete")
        response = self.response
        response.status = "failed"
        response.error = responses.Failure(code, message)
        response.usage = usage or (self._spent if self._spent != _NOTHING else None)
        response.completed_at = None
        response.incomplete_details = None
        response.output = [self._done[index] for index in sorted(self._done)]
        self.emit(events.Failed(self.number(), encoded(response)))

    def cancel(self) -> None:
        """The answer is no longer wanted. What came so far is closed and stays in the response.

        How a cancelled stream ends is not established, and there is no event of that name (events.md §2).
        `response.incomplete` is the one end that clients take neither for an answer nor for an error; the response in
        it says `cancelled`.
        """
        self._close_all("incomplete")
        response = self.response
        response.status = "cancelled"
        response.usage = self._spent if self._spent != _NOTHING else None
        response.output = [self._done[index] for index in sorted(self._done)]
        self.emit(events.Incomplete(self.number(), encoded(response)))

    def end_early(self) -> None:
        """The client has said more: the answer is to end before its next item begins. Whoever reports one then gets
        Steered. An answer that calls tools goes on to its end, as every call of it has to be there (websocket.md §7).
        """
        self._ends_early = True

    def break_off(self, reason: str) -> None:
        """The answer ends here, for a reason of the client's. What is not done by now is no part of it: it is not
        reported as done either, so that the client has the same items as its next turn (codex.md §7, interrupt)."""
        response = self.response
        response.status = "incomplete"
        response.incomplete_details = responses.IncompleteDetails(reason)
        response.usage = self._spent if self._spent != _NOTHING else None
        response.output = [self._done[index] for index in sorted(self._done)]
        self.emit(events.Incomplete(self.number(), encoded(response)))

    def register(self, *, at: int) -> None:
        """Nothing was to be generated: the response is complete, and stands for what was said up to here."""
        response = self.response
        response.status = "completed"
        response.usage = self._spent
        response.completed_at = at
        self.emit(events.Completed(self.number(), encoded(response)))

    def take_back(self, drained: Sequence[events.Event]) -> None:
        """The last events of the answer could not be told after all: all but the very last are reported again."""
        self._events = [*drained[:-1], *self._events]
        self._number -= 1

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

    def found(self, query: str) -> list[Raw]:
        """The deferred tools that fit."""
        return self._toolbox.found(query)

    def open_item(self, item: responses.OutputItem) -> int:
        """Announce an item and give it the next place in the output."""
        index = self._next_index
        self._next_index += 1
        self.emit(events.ItemAdded(self.number(), index, item))
        return index

    def close_item(self, index: int, item: responses.OutputItem) -> None:
        self._done[index] = item
        self.emit(events.ItemDone(self.number(), index, item))

    def _between_items(self) -> None:
        open_still = self._message or self._reasoning or self._calls or self._hosted or self._relayed
        if self._ends_early and not open_still and not unanswered(self.said()):
            raise Steered

    def said(self) -> list[Item]:
        """The items that are done, in the order of the output."""
        return [Item.parse(_ENCODER.encode(self._done[index])) for index in sorted(self._done)]

    def _open_message(self) -> "_Message":
        self._close_reasoning("completed")
        self._settle_calls()
        self._between_items()
        self._message = _Message(self)
        return self._message

    def _open_reasoning(self) -> "_Reasoning":
        self._close_message("completed")
        self._settle_calls()
        self._between_items()
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
        for hosted in self._hosted.values():
            hosted.abandon()
        self._hosted.clear()
        cut_elsewhere = self._message is not None or self._reasoning is not None
        newest_is_done = self._next_index - 1 in self._done
        self._close_reasoning(status)
        for place in sorted(self._relayed):
            self._relayed[place].cut(status if place == self._next_index - 1 else "completed")
        while self._calls:
            key = next(iter(self._calls))
            call = self._calls.pop(key)
            last = not self._calls and not cut_elsewhere
            if status == "incomplete" and not last and not call.is_open:
                self.note("a call that was written beside others was left out of an incomplete answer")
                continue
            call.close("completed" if (call.is_open and newest_is_done) or not last else status)
        # Calls that come whole may have taken their places after the message before one of them failed.
        is_newest = self._message is not None and self._message.index == self._next_index - 1
        self._close_message(status if is_newest else "completed")

    def _begin_hosted(self, key: str, hosted: "_Hosted") -> None:
        self._close_reasoning("completed")
        self._close_message("completed")
        self._settle_calls()
        self._between_items()
        self._hosted[key] = hosted
        hosted.begin()


_COMPACTION = "compaction"


class _Hosted(Protocol):
    """Something that runs at the provider while the answer is written."""

    def begin(self) -> None: ...

    def abandon(self) -> None:
        """The answer is over, and this is not."""


class _Search:
    def __init__(self, out: Composer) -> None:
        self._out = out
        self.id = out.mint("ws")
        self._index = -1

    def begin(self) -> None:
        out = self._out
        self._index = out.open_item(responses.WebSearchCallItem(self.id, "in_progress", self._action([], None)))
        out.emit(events.SearchInProgress(out.number(), self.id, self._index))
        out.emit(events.SearchSearching(out.number(), self.id, self._index))

    def found(self, queries: list[str], sources: list[str] | None, *, failed: bool) -> None:
        out = self._out
        if not failed:
            out.emit(events.SearchCompleted(out.number(), self.id, self._index))
        action = self._action(queries, sources)
        out.close_item(self._index, responses.WebSearchCallItem(self.id, "failed" if failed else "completed", action))

    def abandon(self) -> None:
        self.found([], None, failed=True)

    @staticmethod
    def _action(queries: list[str], sources: list[str] | None) -> Raw:
        action: dict[str, object] = {"type": "search", "query": queries[0] if queries else "", "queries": queries}
        if sources is not None:
            action["sources"] = [{"type": "url", "url": url} for url in sources]
        return _raw(action)


class _Compaction:
    def __init__(self, out: Composer) -> None:
        self._out = out
        self._id = out.mint("cmp")
        self._index = -1

    def begin(self) -> None:
        out = self._out
        self._index = out.open_item(responses.CompactionItem(self._id, ""))
        out.emit(events.Compacting(out.number(), self._id, self._index))

    def found(self, sealed: str) -> None:
        self._out.close_item(self._index, responses.CompactionItem(self._id, sealed))

    def abandon(self) -> None:
        self.found("")


class _Message:
    """An assistant message while it is written: parts of text or refusal, one after the other."""

    def __init__(self, out: Composer) -> None:
        self._out = out
        self._id = out.mint("msg")
        self._content: list[responses.OutputText | responses.OutputRefusal] = []
        self._pieces: list[str] = []
        self._part: responses.OutputText | responses.OutputRefusal | None = None
        self.index = out.open_item(responses.OutputMessage(self._id, "in_progress", []))

    def text(self, delta: str, logprobs: list[Raw]) -> None:
        part = self._part
        if not isinstance(part, responses.OutputText):
            part = responses.OutputText("")
            self._open(part)
        self._pieces.append(delta)
        if logprobs:
            part.logprobs.extend(logprobs)
        out = self._out
        out.emit(events.TextDelta(out.number(), self._id, self.index, len(self._content), delta, logprobs))

    def refusal(self, delta: str) -> None:
        if not isinstance(self._part, responses.OutputRefusal):
            self._open(responses.OutputRefusal(""))
        self._pieces.append(delta)
        out = self._out
        out.emit(events.RefusalDelta(out.number(), self._id, self.index, len(self._content), delta))

    def annotation(self, citation: Citation) -> None:
        part = self._part
        if not isinstance(part, responses.OutputText):
            part = responses.OutputText("")
            self._open(part)
        part.annotations.append(citation)
        out = self._out
        index = len(part.annotations) - 1
        out.emit(events.AnnotationAdded(out.number(), self._id, self.index, len(self._content), index, citation))

    def close(self, status: ItemStatus) -> None:
        self._close_part()
        self._out.close_item(self.index, responses.OutputMessage(self._id, status, self._content))

    def _open(self, part: responses.OutputText | responses.OutputRefusal) -> None:
        self._close_part()
        self._part = part
        out = self._out
        # The event's part is empty, so it cannot be the object that is filled later.
        empty = responses.OutputText("") if isinstance(part, responses.OutputText) else responses.OutputRefusal("")
        out.emit(events.PartAdded(out.number(), self._id, self.index, len(self._content), empty))

    def _close_part(self) -> None:
        part = self._part
        if part is None:
            return
        out, index, text = self._out, len(self._content), "".join(self._pieces)
        if isinstance(part, responses.OutputText):
            part.text = text
            out.emit(events.TextDone(out.number(), self._id, self.index, index, text, part.logprobs))
        else:
            part.refusal = text
            out.emit(events.RefusalDone(out.number(), self._id, self.index, index, text))
        out.emit(events.PartDone(out.number(), self._id, self.index, index, part))
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


def _sum(one: Usage, two: Usage) -> Usage:
    """Several requests of one answer are paid for together (mapping.md §6 Usage)."""
    if one == _NOTHING:
        return two
    return Usage(
        input_tokens=one.input_tokens + two.input_tokens,
        input_tokens_details=InputDetails(
            one.input_tokens_details.cached_tokens + two.input_tokens_details.cached_tokens,
            one.input_tokens_details.cache_write_tokens + two.input_tokens_details.cache_write_tokens,
        ),
        output_tokens=one.output_tokens + two.output_tokens,
        output_tokens_details=OutputDetails(
            one.output_tokens_details.reasoning_tokens + two.output_tokens_details.reasoning_tokens
        ),
        total_tokens=one.total_tokens + two.total_tokens,
    )


def _counted(said: Raw) -> Raw:
    """Tokens as a provider counted them, whatever it calls them, and zero for what every client expects and it does not
    say (mapping.md §6 Usage)."""
    try:
        fields = _filled(said, _NOTHING)
        for name, details in (("input_tokens_details", InputDetails()), ("output_tokens_details", OutputDetails())):
            fields[name] = _raw(_filled(fields[name], details))
        if "total_tokens" not in _FIELDS.decode(said):
            counted = _USAGE.decode(_raw(fields))
            fields["total_tokens"] = _raw(counted.input_tokens + counted.output_tokens)
        _USAGE.decode(_raw(fields))
    except msgspec.MsgspecError:
        return _raw(_NOTHING)
    return _raw(fields)


def _filled(said: Raw, zeros: msgspec.Struct) -> dict[str, Raw]:
    fields = {name: value for name, value in _FIELDS.decode(said).items() if bytes(value) != b"null"}
    return {**fields, **{name: value for name, value in _FIELDS.decode(_raw(zeros)).items() if name not in fields}}


_NOTHING = Usage()
_NULL = Raw(b"null")
_USAGE = msgspec.json.Decoder(Usage)
_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])

_OURS = frozenset(
    (
        "background",
        "completed_at",
        "conversation",
        "created_at",
        "id",
        "input_transformations",
        "instructions",
        "metadata",
        "model",
        "object",
        "output",
        "previous_response_id",
        "prompt_cache_key",
        "status",
        "store",
        "usage",
    )
)
"""What a response says that is not its provider's to say."""


def encoded(response: Response) -> Raw:
    """The object as it stands in events, in the store and in a plain answer."""
    return Raw(_ENCODER.encode(response))


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder()

"""A judge of event streams: the grammar of events.md §4, the field lists of its §3 and the client rules of its §5.

It reads encoded events as a client would and shares nothing with the code that writes them.
"""

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

_TEXT = "response.output_text"
_PART = "response.content_part"
_SUMMARY = "response.reasoning_summary"

_OF_ITEM = "output_index item_id"
_OF_PART = f"{_OF_ITEM} content_index"
_FIELDS = {
    **dict.fromkeys(("created", "queued", "in_progress", "completed", "incomplete", "failed"), "response"),
    **dict.fromkeys(("output_item.added", "output_item.done"), "output_index item"),
    **dict.fromkeys(("content_part.added", "content_part.done"), f"{_OF_PART} part"),
    "output_text.delta": f"{_OF_PART} delta logprobs",
    "output_text.done": f"{_OF_PART} text logprobs",
    "output_text.annotation.added": f"{_OF_PART} annotation_index annotation",
    "refusal.delta": f"{_OF_PART} delta",
    "refusal.done": f"{_OF_PART} refusal",
    "reasoning_text.delta": f"{_OF_PART} delta",
    "reasoning_text.done": f"{_OF_PART} text",
    **dict.fromkeys(("reasoning_summary_part.added", "reasoning_summary_part.done"), f"{_OF_ITEM} summary_index part"),
    "reasoning_summary_text.delta": f"{_OF_ITEM} summary_index delta",
    "reasoning_summary_text.done": f"{_OF_ITEM} summary_index text",
    "function_call_arguments.delta": f"{_OF_ITEM} delta",
    "function_call_arguments.done": f"{_OF_ITEM} arguments name",
    "custom_tool_call_input.delta": f"{_OF_ITEM} delta",
    "custom_tool_call_input.done": f"{_OF_ITEM} input",
    **dict.fromkeys((f"web_search_call.{step}" for step in ("in_progress", "searching", "completed")), _OF_ITEM),
    **dict.fromkeys((f"image_generation_call.{step}" for step in ("in_progress", "generating", "completed")), _OF_ITEM),
    "compaction.compacting": _OF_ITEM,
    "shell_call_command.added": "output_index command_index command",
    "shell_call_command.delta": "output_index command_index delta",
    "shell_call_command.done": "output_index command_index command",
}
"""§3: the fields of every event a bridge writes, beside `type` and `sequence_number`."""

_LETTERS = {
    "content_part.added": "p",
    "content_part.done": "q",
    "output_text.delta": "t",
    "output_text.annotation.added": "n",
    "output_text.done": "T",
    "refusal.delta": "r",
    "refusal.done": "R",
    "reasoning_text.delta": "x",
    "reasoning_text.done": "X",
    "reasoning_summary_part.added": "s",
    "reasoning_summary_text.delta": "d",
    "reasoning_summary_text.done": "D",
    "reasoning_summary_part.done": "S",
    "function_call_arguments.delta": "f",
    "function_call_arguments.done": "F",
    "custom_tool_call_input.delta": "c",
    "custom_tool_call_input.done": "C",
    "shell_call_command.added": "k",
    "shell_call_command.delta": "l",
    "shell_call_command.done": "K",
    "web_search_call.in_progress": "u",
    "web_search_call.searching": "v",
    "web_search_call.completed": "w",
    "image_generation_call.in_progress": "u",
    "image_generation_call.generating": "v",
    "image_generation_call.completed": "w",
    "compaction.compacting": "z",
}
_BODIES = {
    "message": re.compile(r"(p[tn]*Tq|pr*Rq)*"),
    "reasoning": re.compile(r"(sd*DS)*(px*Xq)*"),
    "function_call": re.compile(r"f*F"),
    "custom_tool_call": re.compile(r"c*C"),
    "local_shell_call": re.compile(r""),
    "shell_call": re.compile(r"(kl*K)*"),
    "apply_patch_call": re.compile(r""),
    "tool_search_call": re.compile(r""),
    "tool_search_output": re.compile(r""),
    "compaction": re.compile(r"z?"),
    "web_search_call": re.compile(r"uvw?"),
    "image_generation_call": re.compile(r"uvw"),
}
"""§4: what may stand between an item's `added` and its `done`."""


class Part(Struct, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    refusal: str | None = None
    annotations: list[Raw] | None = None
    logprobs: list[Raw] | None = None


class Item(Struct):
    """An output item, with the fields clients look at."""

    type: str
    id: str
    status: str | None = None
    role: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: object = None
    input: str | None = None
    content: list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None
    result: str | None = None

    @property
    def identity(self) -> tuple[str, str, str | None]:
        return self.type, self.id, self.call_id


class _InputDetails(Struct, forbid_unknown_fields=True):
    cached_tokens: int
    cache_write_tokens: int


class _OutputDetails(Struct, forbid_unknown_fields=True):
    reasoning_tokens: int


class Usage(Struct, forbid_unknown_fields=True):
    """All of it is required (mapping.md §6, Usage)."""

    input_tokens: int
    input_tokens_details: _InputDetails
    output_tokens: int
    output_tokens_details: _OutputDetails
    total_tokens: int


class Failure(Struct, forbid_unknown_fields=True):
    code: str
    message: str


class _Reason(Struct, forbid_unknown_fields=True):
    reason: str


class Response(Struct):
    """The response of the last event."""

    id: str
    status: str
    output: list[Item]
    usage: Usage | None
    completed_at: int | None
    error: Failure | None
    incomplete_details: _Reason | None


class _Event(Struct):
    type: str
    sequence_number: int
    response: Raw = Raw()
    output_index: int = -1
    item_id: str | None = None
    content_index: int = -1
    summary_index: int = -1
    command_index: int = -1
    annotation_index: int = -1
    item: Raw = Raw()
    part: Part | None = None
    annotation: Raw = Raw()
    delta: str = ""
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    command: str | None = None
    name: str | None = None
    logprobs: list[Raw] | None = None

    @property
    def kind(self) -> str:
        return self.type.removeprefix("response.")


_KEYS = msgspec.json.Decoder(dict[str, Raw])
_EVENT = msgspec.json.Decoder(_Event)
_ITEM = msgspec.json.Decoder(Item)
_RESPONSE = msgspec.json.Decoder(Response)
_OUTPUT = msgspec.json.Decoder(dict[str, Raw])
_ITEMS = msgspec.json.Decoder(list[Raw])


def judged(encoded: Sequence[bytes]) -> Response:
    """The response these events end with. Raises AssertionError naming the rule they break."""
    events = [_event(data, number) for number, data in enumerate(encoded)]
    last = events[-1]
    assert last.kind in ("completed", "incomplete", "failed"), "§4: the last event ends the response"
    lifecycle = [event for event in events if event.response]
    _began([event.kind for event in events], _RESPONSE.decode(last.response))
    for event in lifecycle[:-1]:
        _nothing_yet(event)
    response = _RESPONSE.decode(last.response)
    assert {_RESPONSE.decode(event.response).id for event in lifecycle} == {response.id}, "§5.2: one response id"
    done = _Items(events).done
    assert _ITEMS.decode(_OUTPUT.decode(last.response)["output"]) == done, "§4: the output is what was done"
    _ended(last.kind, response)
    return response


def _event(data: bytes, number: int) -> _Event:
    assert b"\n" not in data, "§1: one line"
    event = _EVENT.decode(data)
    assert event.sequence_number == number, "§1: numbered from 0, one by one"
    expected = {"type", "sequence_number", *_FIELDS[event.kind].split()}
    assert _KEYS.decode(data).keys() == expected, f"§3: the fields of {event.type}"
    return event


def _began(kinds: Sequence[str], response: Response) -> None:
    queued = ["queued"] if kinds[1] == "queued" else []
    begins = ["created", *queued, "in_progress"]
    if queued and response.status in ("cancelled", "failed") and len(kinds) == 3:
        begins = ["created", "queued", kinds[-1]]  # nobody came to make it
    assert [*kinds[: len(begins)]] == begins, "§4: created, queued where it had to wait, and in_progress come first"
    between = {*kinds[len(begins) : -1]} & {"created", "queued", "completed", "incomplete", "failed"}
    assert not between, "§4: nothing follows the end, and there is one beginning"


def _nothing_yet(event: _Event) -> None:
    response = _RESPONSE.decode(event.response)
    assert response.status in ("queued", "in_progress")
    assert event.kind == "created" or event.kind == response.status, "§2: the event is named as the response is"
    assert not response.output, "§2: no output before the end"
    unset = (response.usage, response.completed_at, response.error, response.incomplete_details)
    assert unset == (None,) * 4, "§2: usage, completed_at and error are null before the end"


def _ended(kind: str, response: Response) -> None:
    # There is no event for a response that was cancelled (§2).
    cancelled = kind == "incomplete" and response.status == "cancelled"
    assert response.status == kind or cancelled
    assert (response.completed_at is not None) == (kind == "completed")
    assert (response.error is not None) == (kind == "failed")
    assert (response.incomplete_details is not None) == (kind == "incomplete" and not cancelled)
    # An upstream that was left in the middle never said what it had spent.
    left = response.incomplete_details is not None and response.incomplete_details.reason in ("steered", "interrupted")
    assert response.usage is not None or kind == "failed" or cancelled or left, "§2: usage with the end"
    statuses = [item.status for item in response.output]
    if kind == "completed":
        failed = [item for item in response.output if item.status == "failed" and item.type == "web_search_call"]
        whole = statuses.count("completed") + statuses.count(None) + len(failed)
        assert whole == len(statuses), "§5, tool runner: what is completed is complete in all its items"
        asked = response.usage is not None and response.usage.total_tokens > 0
        assert statuses or not asked, "an answer without an item is no success (reliability.md F9)"
    assert "incomplete" not in statuses[:-1], "§4: an incomplete item is the last one"
    if response.incomplete_details is not None and response.incomplete_details.reason == "max_output_tokens":
        assert statuses[-1:] in ([], ["incomplete"]), "§4: what was cut is the last item, unless nothing had begun"
    identities = [item.identity for item in response.output]
    assert len(set(identities)) == len(identities), "§5.6: items differ"
    assert len({item.id for item in response.output}) == len(identities), "§5, tool runner: ids are unique"
    calls = [item.call_id for item in response.output if item.call_id is not None]
    assert len(set(calls)) == len(calls), "§5, tool runner: call ids are unique"


_ENDS: dict[str, tuple[str | None, ...]] = {
    "compaction": (None,),
    "image_generation_call": ("completed",),
    "tool_search_output": ("completed",),
    "web_search_call": ("completed", "failed"),
}
"""objects.md §6: the statuses an item may end with, where they are not the usual ones. A compaction has none."""


def _begins(item: Item) -> str | None:
    return None if item.type == "compaction" else "in_progress"


class _Items:
    """The items of a stream, each with the events that speak of it."""

    def __init__(self, events: Sequence[_Event]) -> None:
        self._added: list[Item] = []
        self._bodies: list[list[_Event]] = []
        self._done: dict[int, Raw] = {}
        for event in events:
            match event.kind:
                case "output_item.added":
                    self._add(event)
                case "output_item.done":
                    self._end(event)
                case _ if not event.response:
                    self._of(event)
        assert len(self._done) == len(self._added), "§4: every added item is done"

    @property
    def done(self) -> list[Raw]:
        return [self._done[index] for index in range(len(self._added))]

    def _add(self, event: _Event) -> None:
        assert event.output_index == len(self._added), "§4: output_index counts from 0 in the order of adding"
        item = _ITEM.decode(event.item)
        assert item.status == _begins(item), "§4: an added item is in progress"
        empty = {"message": item.content, "function_call": item.arguments, "custom_tool_call": item.input}
        assert not empty.get(item.type), "§4: an added item is empty"
        if item.type in ("compaction", "image_generation_call"):
            assert not item.encrypted_content, "§4: an added item is empty"
            assert not item.result, "§4: an added item is empty"
        if item.type == "reasoning":
            assert item.summary == [], "§4: an added reasoning item has an empty summary"
            assert not item.content, "§4: an added reasoning item has no content"
        self._added.append(item)
        self._bodies.append([])

    def _of(self, event: _Event) -> None:
        index = event.output_index
        assert 0 <= index < len(self._added), "§5.3: an item is added before anything is said of it"
        assert index not in self._done, "§4: nothing is said of an item that is done"
        if "item_id" in _FIELDS[event.kind].split():
            assert event.item_id == self._added[index].id, "§4: item_id is the item's id"
            assert event.item_id != self._added[index].call_id, "§4: item_id is never the call_id"
        self._bodies[index].append(event)

    def _end(self, event: _Event) -> None:
        index = event.output_index
        assert 0 <= index < len(self._added), "§5.3: an item is added before it is done"
        assert index not in self._done, "§4: an item is done once"
        item = _ITEM.decode(event.item)
        assert item.status in _ENDS.get(item.type, ("completed", "incomplete"))
        if item.type == "web_search_call":
            found = any(inner.kind == "web_search_call.completed" for inner in self._bodies[index])
            assert found == (item.status == "completed"), "§3: a search that failed is never completed"
        assert item.identity == self._added[index].identity, "§5.5: added and done are the same item"
        self._done[index] = event.item
        body = self._bodies[index]
        word = "".join(_LETTERS[inner.kind] for inner in body)
        assert _BODIES[item.type].fullmatch(word), f"§4: {item.type} is not {word!r}"
        match item.type:
            case "message":
                assert item.role == "assistant"
                assert item.content == _parts(body, "content_index"), "§4: deltas, done and item say the same"
            case "reasoning":
                raw = [inner for inner in body if _LETTERS[inner.kind] in "pxXq"]
                summary = [inner for inner in body if _LETTERS[inner.kind] in "sdDS"]
                assert item.summary == _parts(summary, "summary_index"), "§4: deltas, done and item say the same"
                assert (item.content or []) == _parts(raw, "content_index"), "§4: deltas, done and item say the same"
            case "function_call":
                assert item.arguments == body[-1].arguments == _joined(body), "§4: deltas, done and item say the same"
                assert item.name == body[-1].name
            case "image_generation_call":
                assert item.result, "§6.3: a picture that is made is there"
            case "custom_tool_call":
                assert item.input == body[-1].input == _joined(body), "§4: deltas, done and item say the same"


def _parts(body: Sequence[_Event], counter: str) -> list[Part]:
    """The parts as their own events tell them."""
    parts: list[Part] = []
    since = 0
    for place, event in enumerate(body):
        assert getattr(event, counter) == len(parts), f"{counter} counts the parts"
        if _LETTERS[event.kind] in "qS":
            parts.append(_part(body[since : place + 1]))
            since = place + 1
    return parts


def _part(events: Sequence[_Event]) -> Part:
    added, *deltas, done, ended = events
    assert ended.part is not None
    text = _joined(deltas)
    match ended.part.type:
        case "output_text":
            assert added.part == Part("output_text", text="", annotations=[], logprobs=[]), "§4: an added part is empty"
            annotations = [event for event in deltas if event.annotation]
            assert [event.annotation_index for event in annotations] == list(range(len(annotations)))
            assert ended.part.annotations == [event.annotation for event in annotations]
            assert done.logprobs == ended.part.logprobs
            assert done.text == ended.part.text == text, "§4: deltas, done and part say the same"
        case "refusal":
            assert added.part == Part("refusal", refusal=""), "§4: an added part is empty"
            assert done.refusal == ended.part.refusal == text, "§4: deltas, done and part say the same"
        case kind:
            assert kind in ("summary_text", "reasoning_text")
            assert added.part == Part(kind, text=""), "§4: an added part is empty"
            assert done.text == ended.part.text == text, "§4: deltas, done and part say the same"
    return ended.part


def _joined(events: Sequence[_Event]) -> str:
    return "".join(event.delta for event in events)

"""The grammar of a stream (events.md §3 to §5), one rule each.

Every function takes a whole stream and raises Broken at the first event that breaks its rule.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec
from msgspec import Raw, Struct

from rejoinder.conformance.answer import Item, Part, read
from rejoinder.conformance.expectation import expect, expect_equal, expect_same
from rejoinder.conformance.stream import LIFECYCLE, TERMINAL, Event, Stream

_TYPES: dict[str, type] = {
    **dict.fromkeys(("output_index", "content_index", "summary_index"), int),
    **dict.fromkeys(("item_id", "delta", "text", "refusal", "arguments", "input"), str),
    **dict.fromkeys(("response", "item", "part"), dict[str, Raw]),
    "logprobs": list[Raw],
    "sequence_number": int,
}
_OF_PART = "output_index item_id content_index"
_OF_SUMMARY = "output_index item_id summary_index"
_FIELDS = {
    **dict.fromkeys(LIFECYCLE, "response"),
    **dict.fromkeys(("response.output_item.added", "response.output_item.done"), "output_index item"),
    **dict.fromkeys(("response.content_part.added", "response.content_part.done"), f"{_OF_PART} part"),
    "response.output_text.delta": f"{_OF_PART} delta logprobs",
    "response.output_text.done": f"{_OF_PART} text logprobs",
    "response.refusal.delta": f"{_OF_PART} delta",
    "response.refusal.done": f"{_OF_PART} refusal",
    "response.reasoning_text.delta": f"{_OF_PART} delta",
    "response.reasoning_text.done": f"{_OF_PART} text",
    "response.reasoning_summary_part.added": f"{_OF_SUMMARY} part",
    "response.reasoning_summary_part.done": f"{_OF_SUMMARY} part",
    "response.reasoning_summary_text.delta": f"{_OF_SUMMARY} delta",
    "response.reasoning_summary_text.done": f"{_OF_SUMMARY} text",
    "response.function_call_arguments.delta": "output_index item_id delta",
    "response.function_call_arguments.done": "output_index item_id arguments",
    "response.custom_tool_call_input.delta": "output_index item_id delta",
    "response.custom_tool_call_input.done": "output_index item_id input",
}
_EVENTS: dict[str, type[Struct]] = {
    kind: msgspec.defstruct("Event", [(name, _TYPES[name]) for name in ("sequence_number", *fields.split())])
    for kind, fields in _FIELDS.items()
}


def fields(stream: Stream) -> None:
    """Every event has the fields of its type (§3)."""
    for event in stream.events:
        if event.type in _EVENTS:
            read(_EVENTS[event.type], event.raw, f"a '{event.type}' event")


def numbering(stream: Stream) -> None:
    """Sequence numbers begin at 0, or at 1 as some examples do, and count every event (§1)."""
    first = stream.events[0]
    expect(first.sequence_number in (0, 1), "the first sequence_number to be 0", first.sequence_number, at=first.raw)
    for before, event in pairwise(stream.events):
        number, last = event.sequence_number, before.sequence_number
        expect(
            last is not None and number == last + 1,
            f"the sequence_number after {last} to be one more",
            number,
            at=event.raw,
        )


def lifecycle(stream: Stream) -> None:
    """`created`, perhaps `queued`, `in_progress`; at the very end one terminal event; one response id throughout (§4).

    `in_progress` may be repeated to keep the connection alive.
    """
    kinds = [event.type for event in stream.events]
    begin = [kind for kind in kinds[:3] if kind != "response.queued"]
    expect_equal(
        "the stream to begin with", ["response.created", "response.in_progress"], begin[:2], at=stream.events[0].raw
    )
    ends = [place for place, kind in enumerate(kinds) if kind in TERMINAL]
    expect(
        ends == [len(kinds) - 1],
        "one terminal event, and nothing after it",
        [kinds[place] for place in ends],
        at=stream.events[-1].raw,
    )
    ids = {read(_Id, event.response, "a response").id for event in stream.events if event.type in LIFECYCLE}
    expect(len(ids) == 1, "one response id in all events", sorted(ids))


class _Id(Struct):
    id: str


class _Begun(Struct):
    output: list[Raw] = []
    usage: Raw = Raw(b"null")
    completed_at: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


def beginnings(stream: Stream) -> None:
    """Until the end the response has no output, no usage, no end and no error (§2)."""
    for event in stream.events:
        if event.type in LIFECYCLE and event.type not in TERMINAL:
            begun = read(_Begun, event.response, "a response")
            expect(not begun.output, f"an empty output in '{event.type}'", begun.output, at=event.raw)
            for name in ("usage", "completed_at", "error"):
                expect_equal(f"{name} in '{event.type}' to be", b"null", bytes(getattr(begun, name)), at=event.raw)


class _Added(Struct):
    type: str
    status: str | None = "in_progress"
    content: list[Raw] = []
    summary: list[Raw] = []
    arguments: Raw = Raw(b'""')
    input: Raw = Raw(b'""')


_FILLED = {"message": "content", "reasoning": "summary", "function_call": "arguments", "custom_tool_call": "input"}


def added_items(stream: Stream) -> None:
    """An added item is in progress and has nothing in it yet (§4)."""
    for event in stream.events:
        if event.kind == "output_item.added":
            item = read(_Added, event.item, "an added item")
            if field := _FILLED.get(item.type):
                expect_equal("the status of an added item to be", "in_progress", item.status, at=event.raw)
                value = getattr(item, field)
                empty = value in ([], Raw(b'""'))
                expect(empty, f"the {field} of an added '{item.type}' item to be empty", value, at=event.raw)


def pairing(stream: Stream) -> None:
    """Items are numbered in the order in which they are added, each is done once, and only while an item is open is
    something said of it, under its own id (§4, §5)."""
    added: list[Item] = []
    open_items: dict[int, Item] = {}
    for event in stream.events:
        place = event.output_index
        if event.kind == "output_item.added":
            expect_equal("the output_index of the next item to be", len(added), place, at=event.raw)
            added.append(read(Item, event.item, "an added item"))
            open_items[len(added) - 1] = added[-1]
        elif place is not None:
            within = f"'{event.type}' between 'added' and 'done' of its item"
            expect(place in open_items, within, f"index {place}", at=event.raw)
            item = open_items[place]
            if event.kind == "output_item.done":
                done = read(Item, event.item, "an item that is done")
                expect_equal("type, id and call_id as they were added:", item.identity, done.identity, at=event.raw)
                del open_items[place]
            elif event.item_id is not None:
                expect_equal(f"the item_id in '{event.type}' to be", item.id, event.item_id, at=event.raw)
    expect(not open_items, "every added item to be done", f"open ones at {sorted(open_items)}")


_TEXT = r"(output_text\.(delta|annotation\.added) )*output_text\.done"
_REFUSAL = r"(refusal\.delta )*refusal\.done"
_SUMMARY = (
    r"reasoning_summary_part\.added (reasoning_summary_text\.delta )*reasoning_summary_text\.done "
    r"reasoning_summary_part\.done "
)
_RAW = r"(content_part\.added )?(reasoning(_text)?\.delta )*reasoning(_text)?\.done (content_part\.done )?"
_BODIES = {
    "message": re.compile(rf"(content_part\.added ({_TEXT}|{_REFUSAL}) content_part\.done )*"),
    "reasoning": re.compile(rf"({_SUMMARY})*({_RAW})*"),
    "function_call": re.compile(r"(function_call_arguments\.delta )*function_call_arguments\.done "),
    "custom_tool_call": re.compile(r"(custom_tool_call_input\.delta )*custom_tool_call_input\.done "),
}


def bodies(stream: Stream) -> None:
    """What is said of an item between `added` and `done`: parts are added, told and done, one after another (§4)."""
    for done, item in stream.items("output_item.done"):
        body = [event.kind for event in stream.events if event.output_index == done.output_index][1:-1]
        if grammar := _BODIES.get(item.type or ""):
            word = "".join(f"{kind} " for kind in body)
            expect(
                grammar.fullmatch(word),
                f"the events of a '{item.type}' item in order",
                word or "no events",
                at=done.raw,
            )


_TOLD = {
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning_text", "text"),
    "reasoning": ("reasoning_text", "text"),
    "reasoning_summary_text": ("summary_text", "text"),
    "function_call_arguments": ("arguments", "arguments"),
    "custom_tool_call_input": ("input", "input"),
}
"""The deltas of an event are those of a part of this type, or of this field of the item; `done` has the whole here."""

_Said = dict[tuple[str, int], str]


def deltas(stream: Stream) -> None:
    """The deltas joined are what `done` says, and what the finished item holds (§4)."""
    for done, item in stream.items("output_item.done"):
        joined: _Said = {}
        whole: _Said = {}
        for event in stream.events:
            stem, _, ending = event.kind.rpartition(".")
            if event.output_index == done.output_index and stem in _TOLD:
                kind, field = _TOLD[stem]
                key = kind, _index(event)
                joined[key] = joined.get(key, "") + (event.delta or "")
                if ending == "done":
                    whole[key] = getattr(event, field) or ""
        # Whether there is a 'done' for each is another rule's question.
        finished = {key: joined[key] for key in whole}
        expect_equal("the deltas joined to be what 'done' says:", whole, finished, at=done.raw)
        expect_equal("the finished item to hold what its events said:", joined, _held(item), at=done.raw)


def _index(event: Event) -> int:
    return (event.summary_index if event.summary_index is not None else event.content_index) or 0


def _held(item: Item) -> _Said:
    parts: list[Part] = [part for part in item.parts if part.type]
    held = {
        (part.type or "", place): part.text or part.refusal or ""
        for numbered in (parts, item.summary or [])
        for place, part in enumerate(numbered)
    }
    match item:
        case Item(type="function_call", arguments=str(arguments)):
            held["arguments", 0] = arguments
        case Item(type="custom_tool_call", input=str(given)):
            held["input", 0] = given
    return held


def output(stream: Stream) -> None:
    """The output at the end is exactly the items that were done, in their order (§4, §5).

    Sealed reasoning may be sealed twice: openai-python allows it, and OpenAI does it.
    """
    by_place = {event.output_index or 0: event.item for event, _ in stream.items("output_item.done")}
    done = [read(_Fields, by_place[place], "an item that is done") for place in sorted(by_place)]
    last = read(_Output, stream.response, "the response at the end of the stream").output
    for one, other in zip(done, last, strict=False):
        if one.get("type") == "reasoning" and one.get(_SEALED) and other.get(_SEALED):
            one[_SEALED] = other[_SEALED]
    expect_same("the output at the end to be the items that were done", done, last)


_Fields = dict[str, object]
_SEALED = "encrypted_content"


class _Output(Struct):
    output: list[_Fields]


ALL: Sequence[Callable[[Stream], None]] = (
    fields,
    numbering,
    lifecycle,
    beginnings,
    added_items,
    pairing,
    bodies,
    deltas,
    output,
)
"""What holds of every stream of a response."""

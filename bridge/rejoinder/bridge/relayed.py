"""One output item of a provider that speaks this API itself, passed on event by event.

What the provider says goes on as it came, in its order. What is changed is this, and nothing else:

- `output_index`, and the index of a part, count from 0 in the order things were announced (events.md §4); some servers
  begin at 1, and an item of ours may stand before theirs.
- An item has one id, that of its announcement: some servers change it with every event (provider-responses.md §6). One
  without an id, or with one the conversation has already, gets a new one; so does a call for its `call_id`.
- State only the provider can read says whose it is, in a mark behind it: it must not go to another one.
- An announced item is empty, so that its deltas add up to it.

What the grammar of events.md §4 wants and the provider did not say is said for it: parts that were never announced,
text that was never ended, a body that came with the whole item alone. An item that was cut off is closed with what came
of it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from rejoinder.bridge.errors import BrokenStream
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import Item
from rejoinder.wire.responses import ItemStatus

if TYPE_CHECKING:
    from rejoinder.bridge.composer import Composer

Fields = dict[str, Raw]
"""A JSON object whose values are as they came."""

ADDED = "response.output_item.added"
DONE = "response.output_item.done"


class RelayedItem:
    """`kind` is the item's type, `their_id` what the provider called it when it announced it; `item_id` and `call_id`
    are those it has here, as JSON."""

    def __init__(self, out: "Composer", kind: str, their_id: str | None, item_id: Raw, call_id: Raw | None) -> None:
        self.kind = kind
        self.their_id = their_id
        self.is_done = False
        self._out = out
        self._id = item_id
        self._call_id = call_id
        self._place = -1
        self._index = Raw()
        self._began: Fields = {}
        # Parts go by the index the provider gives them, in the order in which they begin.
        self._parts: dict[str, dict[bytes, _Part]] = {_CONTENT: {}, _SUMMARY: {}}
        self._text = _Text()
        self._deltas, self._noted = (_DELTAS, _NOTED) if kind in _EMPTY else ({}, {})

    def begin(self, fields: Fields, item: Fields) -> None:
        """The item is announced. `fields` are those of the event."""
        for name, empty in _EMPTY.get(self.kind, {}).items():
            # Raw reasoning is not everybody's, and where there is none there is no list for it.
            if (self.kind, name) != ("reasoning", "content") or len(item.get(name, _EMPTY_LIST)) > 4:
                item[name] = empty
        self._began = self._named(item, "in_progress")
        self._place = self._out.begin_relayed(self)
        self._index = Raw(b"%d" % self._place)
        fields["output_index"] = self._index
        fields["item"] = _raw(self._began)
        self._out.relay(ADDED, fields)

    def announce(self, whole: Fields) -> None:
        """The item was never announced, and here is the whole of it: it begins as it would have. Raises BrokenStream
        for an item that makes no sense."""
        self._check(self._named(dict(whole), "completed"))
        item = dict(whole)
        if "status" in item:
            item["status"] = _IN_PROGRESS
        if self.kind == "reasoning":
            item.pop("encrypted_content", None)
        elif self.kind == "tool_search_call":
            item["arguments"] = _NO_FIELDS
        self.begin({"type": _raw(ADDED)}, item)

    def tell(self, kind: str, fields: Fields) -> None:
        """Something is said of the item."""
        if "output_index" in fields:
            fields["output_index"] = self._index
        if "item_id" in fields:
            fields["item_id"] = self._id
        if (spot := self._deltas.get(kind)) is not None:
            # Nearly all there is of an answer, and so the one place here whose cost counts.
            counter, part_kind = spot
            part = self._parts[counter].get(bytes(fields.get(counter, _ZERO)))
            if part is None:
                part = self._part(fields, counter, part_kind)
            fields[counter] = part.index
            part.pieces.append(bytes(fields.get("delta", _NOTHING)))
        elif (note := self._noted.get(kind)) is not None:
            note(self, fields)
        self._out.relay(kind, fields)

    def finish(self, fields: Fields, item: Fields) -> None:
        """The item is whole. `fields` are those of the event. Raises BrokenStream for an item that makes no sense."""
        item = self._named(item, "completed")
        self._check(item)
        for name, counter in _LISTS.get(self.kind, ()):
            told, values = self._parts[counter], _values(item.get(name))
            self._close_parts(counter)
            for value in values[len(told) :]:
                self._spell_out(counter, value)
            if len(values) < len(told):
                item[name] = self._told(counter)
        if self.kind in _TEXTS:
            name = _TEXTS[self.kind][0]
            if self._text.pieces and len(item[name]) <= 2:
                item[name] = self._text.joined()
            self._end_call(item)
        self._end(fields, item)

    def cut(self, status: ItemStatus) -> None:
        """The answer is over, and the item was not (events.md §4): it is closed with what came of it."""
        item = dict(self._began)
        for name, counter in _LISTS.get(self.kind, ()):
            self._close_parts(counter)
            if self._parts[counter]:
                item[name] = self._told(counter)
        if self.kind in _TEXTS:
            item[_TEXTS[self.kind][0]] = self._text.joined()
            self._end_call(item)
        if "status" in item or self.kind in _EMPTY:
            item["status"] = _raw(status)
        self._end({"type": _raw(DONE)}, item)

    def _end(self, fields: Fields, item: Fields) -> None:
        self.is_done = True
        raw = _raw(item)
        fields["output_index"] = self._index
        fields["item"] = raw
        self._out.end_relayed(self._place, raw)
        self._out.relay(DONE, fields, raw)

    def _check(self, item: Fields) -> None:
        try:
            Item.parse(_ENCODER.encode(item))
        except BadRequest as error:
            # Nobody could go on from it: the next turn reads items as it reads a request's.
            raise BrokenStream(f"the provider sent a {self.kind} item that makes no sense: {error}") from error

    def _named(self, item: Fields, status: ItemStatus) -> Fields:
        """The item with its own id, first where it had none, and a status where clients look for one."""
        if "id" in item:
            item["id"] = self._id
        else:
            item = {"id": self._id, **item}
        if self._call_id is not None:
            item["call_id"] = self._call_id
        if bytes(sealed := item.get("encrypted_content", _NOTHING)) not in (b"null", b'""'):
            item["encrypted_content"] = _raw(self._out.sign(_STRING.decode(sealed)))
        if self.kind in ("message", "function_call"):
            item.setdefault("status", _raw(status))
        return item

    # What is noted of an event before it goes on.

    def content_added(self, fields: Fields) -> None:
        self._part_added(fields, _CONTENT, "content_part")

    def reasoning_added(self, fields: Fields) -> None:
        """What gpt-oss's servers call a content part of reasoning (provider-responses.md §6)."""
        self._part_added(fields, _CONTENT, "reasoning_part")

    def content_done(self, fields: Fields) -> None:
        self._part_done(fields, _CONTENT)

    def summary_added(self, fields: Fields) -> None:
        self._part_added(fields, _SUMMARY, "reasoning_summary_part")

    def summary_done(self, fields: Fields) -> None:
        self._part_done(fields, _SUMMARY)

    def annotated(self, fields: Fields) -> None:
        part = self._part(fields, _CONTENT, "output_text")
        part.annotations.append(fields.get("annotation", _NO_FIELDS))

    def output_text_done(self, fields: Fields) -> None:
        self._text_done(fields, _CONTENT, "output_text")

    def refusal_done(self, fields: Fields) -> None:
        self._text_done(fields, _CONTENT, "refusal")

    def reasoning_text_done(self, fields: Fields) -> None:
        self._text_done(fields, _CONTENT, "reasoning_text")

    def summary_text_done(self, fields: Fields) -> None:
        self._text_done(fields, _SUMMARY, "summary_text")

    def call_delta(self, fields: Fields) -> None:
        self._text.pieces.append(bytes(fields.get("delta", _NOTHING)))

    def call_done(self, fields: Fields) -> None:
        if self.kind not in _TEXTS:
            return
        said = fields.get(_TEXTS[self.kind][0], _NOTHING)
        if not self._text.pieces and len(said) > 2:
            self._say("delta", {"delta": said})  # some models send nothing but the end (provider-responses.md §6)
        self._text.end(said)

    def _part_added(self, fields: Fields, counter: str, family: str) -> None:
        value = _FIELDS.decode(fields.get("part", _NO_FIELDS))
        self._add(fields, counter, _Part(_kind(value), value, family))

    def _part_done(self, fields: Fields, counter: str) -> None:
        value = _FIELDS.decode(fields.get("part", _NO_FIELDS))
        part = self._part(fields, counter, _kind(value))
        self._end_text(part)
        part.is_closed = True
        part.value = value

    def _text_done(self, fields: Fields, counter: str, kind: str) -> None:
        part = self._part(fields, counter, kind)
        said = fields.get(_PART_TEXTS[kind][0], _NOTHING)
        if not part.pieces and len(said) > 2:
            self._say_delta(part, said, fields.get("logprobs", _EMPTY_LIST))
        part.end(said)

    # Parts.

    def _part(self, fields: Fields, counter: str, kind: str) -> "_Part":
        """The part an event speaks of. One that was not announced is announced, but for raw reasoning, where nobody
        expects it."""
        part = self._parts[counter].get(bytes(fields.get(counter, _ZERO)))
        if part is None:
            part = _Part(kind, _empty_part(kind), _FAMILIES[counter])
            part.is_announced = kind != "reasoning_text"
            self._add(fields, counter, part)
            if part.is_announced:
                self._say_part(part, "added", _raw(part.value))
        fields[counter] = part.index
        return part

    def _add(self, fields: Fields, counter: str, part: "_Part") -> None:
        parts = self._parts[counter]
        part.counter = counter
        part.index = Raw(b"%d" % len(parts))
        parts[bytes(fields.get(counter, _ZERO))] = part
        fields[counter] = part.index

    def _told(self, counter: str) -> Raw:
        return _raw([part.value for part in self._parts[counter].values()])

    def _close_parts(self, counter: str) -> None:
        for part in self._parts[counter].values():
            if part.is_closed:
                continue
            self._end_text(part)
            if part.kind in _PART_TEXTS:
                part.value[_PART_TEXTS[part.kind][0]] = part.joined()
            if part.annotations:
                part.value["annotations"] = _raw(part.annotations)
            if part.is_announced:
                self._say_part(part, "done", _raw(part.value))
            part.is_closed = True

    def _spell_out(self, counter: str, value: Fields) -> None:
        """A part that came with the whole item alone."""
        kind = _kind(value)
        part = _Part(kind, value, _FAMILIES[counter])
        self._add({counter: _raw(f"of the whole item: {len(self._parts[counter])}")}, counter, part)
        self._say_part(part, "added", _raw(_empty_part(kind) if kind in _PART_TEXTS else value))
        if kind in _PART_TEXTS:
            text, logprobs = value.get(_PART_TEXTS[kind][0], _NOTHING), value.get("logprobs", _EMPTY_LIST)
            if len(text) > 2:
                self._say_delta(part, text, logprobs)
            for place, annotation in enumerate(_LIST.decode(value.get("annotations", _EMPTY_LIST))):
                self._say_text(part, "annotation.added", {"annotation_index": _raw(place), "annotation": annotation})
            self._say_text(part, "done", {_PART_TEXTS[kind][0]: text, **_logprobs(kind, logprobs)})
        self._say_part(part, "done", _raw(value))

    def _end_text(self, part: "_Part") -> None:
        if part.kind in _PART_TEXTS and not part.is_done:
            text = part.joined()
            part.end(text)
            self._say_text(part, "done", {_PART_TEXTS[part.kind][0]: text, **_logprobs(part.kind, _EMPTY_LIST)})

    def _end_call(self, item: Fields) -> None:
        if self._text.is_done:
            return
        text = item[_TEXTS[self.kind][0]]
        if not self._text.pieces and len(text) > 2:
            self._say("delta", {"delta": text})
        name = {"name": item.get("name", _NOTHING)} if self.kind == "function_call" else {}
        self._say("done", {_TEXTS[self.kind][0]: text, **name})

    # Events the provider did not send.

    def _say_part(self, part: "_Part", what: str, value: Raw) -> None:
        self._relay(f"response.{part.family}.{what}", {part.counter: part.index, "part": value})

    def _say_delta(self, part: "_Part", text: Raw, logprobs: Raw) -> None:
        self._say_text(part, "delta", {"delta": text, **_logprobs(part.kind, logprobs)})

    def _say_text(self, part: "_Part", what: str, fields: Fields) -> None:
        self._relay(f"response.{_PART_TEXTS[part.kind][1]}.{what}", {part.counter: part.index, **fields})

    def _say(self, what: str, fields: Fields) -> None:
        self._relay(f"response.{_TEXTS[self.kind][1]}.{what}", fields)

    def _relay(self, kind: str, fields: Fields) -> None:
        place: Fields = {"item_id": self._id, "output_index": self._index}
        self._out.relay(kind, {"type": _raw(kind), "sequence_number": _ZERO, **place, **fields})


class _Text:
    """Text as it comes: JSON strings, each a piece of it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_done = False

    def joined(self) -> Raw:
        # What is between the quotes of two JSON strings makes one: no piece ends inside an escape.
        return Raw(b'"%b"' % b"".join([piece[1:-1] for piece in self.pieces if piece.startswith(b'"')]))

    def end(self, said: Raw) -> None:
        self.is_done = True
        self.pieces = [bytes(said)]


class _Part(_Text):
    """A part of a message or of reasoning. `value` is the part as it was announced, and in the end the whole of it;
    `family` is that of the events which announce and end it."""

    def __init__(self, kind: str, value: Fields, family: str) -> None:
        super().__init__()
        self.kind = kind
        self.value = value
        self.family = family
        self.counter = ""
        self.index = Raw()
        self.annotations: list[Raw] = []
        self.is_announced = True
        self.is_closed = False


def _kind(value: Fields) -> str:
    return _STRING.decode(value.get("type", _NOTHING))


def _values(raw: Raw | None) -> list[Fields]:
    return _OBJECTS.decode(raw) if raw is not None and bytes(raw).startswith(b"[") else []


def _empty_part(kind: str) -> Fields:
    part = {"type": _raw(kind)}
    if kind in _PART_TEXTS:
        part[_PART_TEXTS[kind][0]] = _NOTHING
    return {**part, "annotations": _EMPTY_LIST, **_logprobs(kind, _EMPTY_LIST)} if kind == "output_text" else part


def _logprobs(kind: str, logprobs: Raw) -> Fields:
    return {"logprobs": logprobs} if kind == "output_text" else {}


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder()
_FIELDS = msgspec.json.Decoder(Fields)
_LIST = msgspec.json.Decoder(list[Raw])
_OBJECTS = msgspec.json.Decoder(list[Fields])
_STRING = msgspec.json.Decoder(str)

_ZERO = Raw(b"0")
_NOTHING = Raw(b'""')
_EMPTY_LIST = Raw(b"[]")
_NO_FIELDS = Raw(b"{}")
_IN_PROGRESS = Raw(b'"in_progress"')

_CONTENT = "content_index"
_SUMMARY = "summary_index"
_FAMILIES = {_CONTENT: "content_part", _SUMMARY: "reasoning_summary_part"}

_LISTS = {"message": (("content", _CONTENT),), "reasoning": (("summary", _SUMMARY), ("content", _CONTENT))}
"""The lists of parts an item has, and what counts them in events."""

_TEXTS = {
    "function_call": ("arguments", "function_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
}
"""The field that holds the text of a call, and the family of events that stream it."""

_PART_TEXTS = {
    "output_text": ("text", "output_text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("text", "reasoning_text"),
    "summary_text": ("text", "reasoning_summary_text"),
}
"""The same for the parts of an item."""

_EMPTY: dict[str, Fields] = {
    "message": {"content": _EMPTY_LIST},
    "reasoning": {"summary": _EMPTY_LIST, "content": _EMPTY_LIST},
    "function_call": {"arguments": _NOTHING},
    "custom_tool_call": {"input": _NOTHING},
}
"""What an announced item does not hold yet, but for types of which nothing is known here."""

_DELTAS = {
    "response.output_text.delta": (_CONTENT, "output_text"),
    "response.refusal.delta": (_CONTENT, "refusal"),
    "response.reasoning_text.delta": (_CONTENT, "reasoning_text"),
    "response.reasoning_summary_text.delta": (_SUMMARY, "summary_text"),
}
"""Which counter says what part a delta belongs to, and the type of that part."""

_NOTED: dict[str, Callable[[RelayedItem, Fields], None]] = {
    "response.content_part.added": RelayedItem.content_added,
    "response.content_part.done": RelayedItem.content_done,
    "response.reasoning_part.added": RelayedItem.reasoning_added,
    "response.reasoning_part.done": RelayedItem.content_done,
    "response.reasoning_summary_part.added": RelayedItem.summary_added,
    "response.reasoning_summary_part.done": RelayedItem.summary_done,
    "response.output_text.annotation.added": RelayedItem.annotated,
    "response.output_text.done": RelayedItem.output_text_done,
    "response.refusal.done": RelayedItem.refusal_done,
    "response.reasoning_text.done": RelayedItem.reasoning_text_done,
    "response.reasoning_summary_text.done": RelayedItem.summary_text_done,
    "response.function_call_arguments.delta": RelayedItem.call_delta,
    "response.function_call_arguments.done": RelayedItem.call_done,
    "response.custom_tool_call_input.delta": RelayedItem.call_delta,
    "response.custom_tool_call_input.done": RelayedItem.call_done,
}
"""The other events of which something is remembered until the item is done."""

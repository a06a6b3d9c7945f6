"""The Responses API itself: how an answer is passed on (provider-responses.md §4 to §6, §8, §9).

One reader takes whatever comes: server-sent events with or without `event:` lines, or one response as a JSON body. What
an event is says its `type`; what is changed of it, `relayed` says.

A body, and an item that only the last event holds, become the events a stream would have had, so that every client sees
every item done. The answer is over with the event that says so; an end of bytes before it is a broken stream.
"""

import re
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Raw

from rejoinder.bridge.composer import MAX_CALL_ID, Composer
from rejoinder.bridge.delivery import MAKES_NO_SENSE, Delivery
from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.refusals import spelled_out
from rejoinder.bridge.rejection import stream_error
from rejoinder.bridge.relayed import ADDED, DONE, Fields, RelayedItem
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.bridge.turns import CALLS
from rejoinder.wire import sse

OWN_CALL_ID = re.compile(r"call_[0-9A-Za-z]+--(?P<own>[0-9A-Za-z_-]+)")
"""An id made here that names the provider's own, which the conversation had already."""


class ResponsesReader:
    """Reads one answer and passes it to the composer."""

    def __init__(self, prompt: Prompt, out: Composer, profile: ResponsesProfile) -> None:
        self._out = out
        self._ids = _Ids(prompt, out, profile)
        self._delivery = Delivery()
        self._items: list[RelayedItem] = []
        self._by_id: dict[str | None, RelayedItem] = {}
        self._by_index: dict[int | None, RelayedItem] = {}
        self._end: tuple[Literal["completed", "incomplete"], Fields] | None = None
        self._takes: dict[str, Callable[[Fields], None]] = {
            "response.created": self._begun,
            "response.queued": self._begun,
            "response.in_progress": self._begun,
            "keepalive": self._alive,
            ADDED: self._added,
            DONE: self._done,
        }

    @property
    def is_over(self) -> bool:
        return self._end is not None

    def feed(self, data: bytes) -> None:
        if self._end is None:
            self._read(self._delivery.feed(data))

    def close(self, at: int) -> None:
        if not self.is_over:
            self._read(self._delivery.close())
            if body := self._delivery.body:
                self._whole(body)
        if self._end is None:
            raise BrokenStream("the stream ended before the answer did")
        status, response = self._end
        self._out.finish_relayed(status, response, at=at)

    def _read(self, frames: list[sse.Frame]) -> None:
        for frame in frames:
            if self._end is not None or frame.data.startswith(b"[DONE]"):
                return  # nothing of it belongs to this answer
            try:
                self._event(_on_one_line(frame.data))
            except MAKES_NO_SENSE as error:
                raise BrokenStream(f"the provider sent something that is no event of an answer: {error}") from error

    def _whole(self, body: bytes) -> None:
        try:
            self._over(None, self._fields(_on_one_line(body)))
        except MAKES_NO_SENSE as error:
            raise BrokenStream(f"the provider sent something that is no answer: {error}") from error

    def _fields(self, data: bytes) -> Fields:
        fields = _FIELDS.decode(data)
        return spelled_out(fields) if self._out.spells_out_refusals and b"refusal" in data else fields

    def _event(self, data: bytes) -> None:
        fields = self._fields(data)
        kind = _ID.decode(fields.get("type", _NULL))
        if kind == "error" or len(fields.get("error", _NULL)) > 4:  # neither left out nor null
            raise stream_error(data)
        if kind is None:
            raise BrokenStream("the provider sent something that is no event of an answer: it has no 'type'")
        if (take := self._takes.get(kind)) is not None:
            take(fields)
        elif kind in _ENDS:
            self._over(_ENDS[kind], _FIELDS.decode(fields.get("response", _NO_FIELDS)))
        else:
            fields.pop("obfuscation", None)
            self._told(kind, fields)

    def _alive(self, fields: Fields) -> None:
        """`keepalive` is no part of the API, and closed event types refuse it (events.md §1)."""

    def _begun(self, fields: Fields) -> None:
        """Ours was reported long ago."""
        self._remember(_FIELDS.decode(fields.get("response", _NO_FIELDS)))

    def _remember(self, response: Fields) -> None:
        """Some servers change even this id; the last one is what they stored the answer under."""
        if len(response.get("id", _NULL)) > 4:
            self._out.provider_id = _STRING.decode(response["id"])

    def _added(self, fields: Fields) -> None:
        item = _given(fields)
        if item is None:
            return
        kind = _type(item)
        if kind == "tool_search_call" and len(item.get("call_id", _NULL)) > 4:
            return  # OpenAI gives it another `call_id` when it is done, and streams nothing of it: it is announced then
        if self._open(kind, _ID.decode(item.get("id", _NULL))) is None:
            self._begin(kind, fields, item)

    def _done(self, fields: Fields) -> None:
        item = _given(fields)
        if item is None:
            return
        kind = _type(item)
        known = self._open(kind, _ID.decode(item.get("id", _NULL)))
        if known is None:
            there = self._by_index.get(_INDEX.decode(fields.get("output_index", _NULL)))
            known = there if there is not None and there.kind == kind else self._announce(kind, fields, item)
        if not known.is_done:
            self._ids.refer(item)
            known.finish(fields, item)

    def _told(self, kind: str, fields: Fields) -> None:
        # By its id, which several may have that follow one another; or by its place, where ids change (§6).
        item = self._by_id.get(_ID.decode(fields.get("item_id", _NULL)))
        if item is None or item.is_done:
            item = self._by_index.get(_INDEX.decode(fields.get("output_index", _NULL)), item)
        if item is None and (implied := _implied(kind, fields)) is not None:
            announced = {"type": _raw(ADDED), "output_index": fields.get("output_index", _NULL)}
            item = self._begin(_type(implied), announced, implied)
        if item is None:
            self._out.relay(kind, fields)
        elif item.is_done:
            self._out.note(f"{kind}: said of an item that was done, and left out")
        else:
            item.tell(kind, fields)

    def _open(self, kind: str, theirs: str | None) -> RelayedItem | None:
        found = self._by_id.get(theirs)
        return found if found is not None and found.kind == kind and not found.is_done else None

    def _over(self, ended: str | None, response: Fields) -> None:
        """The answer is over: `ended` says the event, or else the response itself says how."""
        self._remember(response)
        error = response.get("error", _NULL)
        status = ended or _STRING.decode(response.get("status", _COMPLETED))
        if len(error) > 4:
            raise stream_error(b'{"error":%b}' % bytes(error))
        if status in ("failed", "cancelled"):
            raise UpstreamError(f"the provider ended the answer as '{status}', and does not say why")
        if status not in ("completed", "incomplete"):
            raise BrokenStream(f"the provider left the answer '{status}'")
        output = bytes(response.get("output", _NULL))
        unlisted = list(self._items)
        for place, item in enumerate(_OBJECTS.decode(output) if output != b"null" else ()):
            self._listed(place, item, unlisted)
        self._end = ("completed" if status == "completed" else "incomplete"), response

    def _listed(self, place: int, item: Fields, unlisted: list[RelayedItem]) -> None:
        """An item of the whole output. Most were done before; one that was not is done now."""
        kind, theirs = _type(item), _ID.decode(item.get("id", _NULL))
        there = self._by_index.get(place)
        for known in unlisted:
            if known.kind == kind and (known is there or known.their_id == theirs is not None):
                unlisted.remove(known)
                break
        else:
            known = self._announce(kind, {"output_index": Raw(b"%d" % place)}, item)
        if not known.is_done:
            self._ids.refer(item)
            known.finish({"type": _raw(DONE)}, item)

    def _begin(self, kind: str, fields: Fields, item: Fields) -> RelayedItem:
        begun = self._new(kind, fields, item)
        begun.begin(fields, item)
        return begun

    def _announce(self, kind: str, fields: Fields, whole: Fields) -> RelayedItem:
        begun = self._new(kind, fields, whole)
        begun.announce(whole)
        return begun

    def _new(self, kind: str, fields: Fields, item: Fields) -> RelayedItem:
        theirs, index = _ID.decode(item.get("id", _NULL)), _INDEX.decode(fields.get("output_index", _NULL))
        call_id = self._ids.call(kind, _ID.decode(item.get("call_id", _NULL)))
        made = RelayedItem(self._out, kind, theirs, _raw(self._ids.item(kind, theirs)), call_id)
        self._items.append(made)
        if theirs is not None:
            self._by_id[theirs] = made
        if index is not None:
            self._by_index[index] = made
        return made


class _Ids:
    """The ids items and calls have here, by what the provider calls them."""

    def __init__(self, prompt: Prompt, out: Composer, profile: ResponsesProfile) -> None:
        self._out = out
        # What was taken out for this provider is in the conversation all the same.
        self._taken = {item.id for item in prompt.items} | {loss.id for loss in prompt.losses}
        self._keeps_own = profile.call_ids == "own"
        self._calls: dict[str, Raw] = {}

    def item(self, kind: str, theirs: str | None) -> str:
        if not theirs or theirs in self._taken:
            return self._out.mint(_PREFIXES.get(kind, "item"))
        self._taken.add(theirs)
        return theirs

    def call(self, kind: str, theirs: str | None) -> Raw | None:
        if kind not in CALLS or (kind == "tool_search_call" and theirs is None):
            return None  # nobody answers it
        ours = self._out.reserve(theirs)
        if theirs and ours != theirs and self._keeps_own and theirs not in self._calls:
            # It begins again in every turn (reliability.md F28): the new id says what the provider calls it.
            marked = f"{ours}--{theirs}"
            if len(marked) <= MAX_CALL_ID and OWN_CALL_ID.fullmatch(marked):
                ours = marked
        self._calls[theirs or ours] = _raw(ours)
        return _raw(ours)

    def refer(self, item: Fields) -> None:
        """What a provider answers itself has the id of the call it answers."""
        if (ours := self._calls.get(_ID.decode(item.get("call_id", _NULL)) or "")) is not None:
            item["call_id"] = ours


def _on_one_line(data: bytes) -> bytes:
    """As it goes out again: valid UTF-8, which msgspec does not look at in what it hands on, and on one line."""
    if not data.isascii():
        data.decode()
    return msgspec.json.format(data, indent=-1) if b"\n" in data or b"\r" in data else data


def _given(fields: Fields) -> Fields | None:
    """The item of an event; some servers announce places for items that never come."""
    item = fields.get("item", _NULL)
    return _FIELDS.decode(item) if bytes(item) != b"null" else None


def _type(item: Fields) -> str:
    return _STRING.decode(item.get("type", _NULL))


def _implied(kind: str, fields: Fields) -> Fields | None:
    """The item an event speaks of that no event announced, where the kind of event says what it is."""
    if kind.startswith("response.reasoning_") or b'"reasoning_text"' in bytes(fields.get("part", _NULL)):
        made = {"type": _raw("reasoning"), "summary": _EMPTY}
    elif kind.startswith(("response.output_text.", "response.refusal.", "response.content_part.")):
        made = {"type": _raw("message"), "status": _IN_PROGRESS, "role": _raw("assistant"), "content": _EMPTY}
    else:
        return None
    return {"id": fields["item_id"], **made} if "item_id" in fields else made


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder()
_FIELDS = msgspec.json.Decoder(Fields)
_OBJECTS = msgspec.json.Decoder(list[Fields])
_STRING = msgspec.json.Decoder(str)
_ID = msgspec.json.Decoder(str | None)
_INDEX = msgspec.json.Decoder(int | None)

_NULL = Raw(b"null")
_EMPTY = Raw(b"[]")
_NO_FIELDS = Raw(b"{}")
_COMPLETED = Raw(b'"completed"')
_IN_PROGRESS = Raw(b'"in_progress"')

_ENDS = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}
"""Events that end the response, and how."""

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "web_search_call": "ws",
}
"""How an id begins that is made here (objects.md §10)."""

"""What a client says to a response while it is made (websocket.md §7).

Words that are accepted belong to this server: they begin the response that follows the one they were said to, which
ends for them as soon as it can. Where that one waits for results of tools they wait with it, and go in front of what
the client sends next. Words that come to nothing go back to the client.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from rejoinder.wire.errors import BadRequest, bad_request
from rejoinder.wire.events import Steer, SteerError, Unsteered
from rejoinder.wire.items import Item, Message

MOST = 16
"""Steers that may wait for the end of one response."""

_PARTS = frozenset(("input_text", "input_image", "input_file"))

Code = Literal[
    "response_not_found",
    "invalid_input",
    "steering_not_supported",
    "too_many_pending_steers",
    "response_already_completed",
    "response_not_active",
    "successor_creation_failed",
]


class Said(Struct, frozen=True):
    """One steer. `given` is its input as it was sent, `items` the messages it stands for."""

    to: str
    given: Raw
    items: list[Raw]
    id: str = ""

    @property
    def steer(self) -> Steer:
        return Steer(self.id, self.to)


def failed(said: Said, code: Code, message: str) -> tuple[SteerError, Unsteered]:
    """What a `response.steer.failed` says."""
    return SteerError(code, message), Unsteered(said.given, said.to, said.id or None)


class _Frame(Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    previous_response_id: str
    input: Raw


class _Message(Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["user"]
    content: Raw
    type: Literal["message"] = "message"


_FRAME = msgspec.json.Decoder(_Frame)
_LOOSE = msgspec.json.Decoder(dict[str, Raw])
_ID = msgspec.json.Decoder(str)
_INPUT = msgspec.json.Decoder(str | list[Raw])
_MESSAGE = msgspec.json.Decoder(_Message)
_ENCODER = msgspec.json.Encoder()


def unread(body: bytes) -> Said:
    """What can be said of a steer that may be wrong in every way: enough to give it back."""
    fields = _LOOSE.decode(body)
    try:
        to = _ID.decode(fields.get("previous_response_id", b""))
    except msgspec.MsgspecError:
        to = ""
    return Said(to, fields.get("input", Raw(b'""')), [])


def read(body: bytes) -> Said:
    """A `response.steer` message. Raises BadRequest."""
    try:
        frame = _FRAME.decode(body)
        value = _INPUT.decode(frame.input)
    except msgspec.MsgspecError as error:
        raise bad_request(error) from error
    if isinstance(value, str):
        return Said(frame.previous_response_id, frame.input, [_message(value)])
    if not value:
        raise BadRequest("Invalid 'input': expected at least one message.", param="input")
    for index, item in enumerate(value):
        _check(bytes(item), f"input[{index}]")
    return Said(frame.previous_response_id, frame.input, value)


def _message(text: str) -> Raw:
    return Raw(_ENCODER.encode({"type": "message", "role": "user", "content": text}))


def _check(raw: bytes, at: str) -> None:
    try:
        _MESSAGE.decode(raw)
    except msgspec.MsgspecError as error:
        raise bad_request(error, at=at) from error
    view = Item.parse(raw, at=at).view
    assert isinstance(view, Message)
    if isinstance(view.content, str):
        return
    for index, part in enumerate(view.content):
        if part.type not in _PARTS:
            known = ", ".join(sorted(_PARTS))
            raise BadRequest(f"Invalid '{at}.content[{index}].type': expected one of {known}.", param=f"{at}.content")


def in_front(said: Sequence[Said], fields: dict[str, Raw]) -> dict[str, Raw]:
    """The fields of a create call with these words in front of its input; as they are if that is no input at all."""
    given = bytes(fields.get("input", Raw(b"[]")))
    try:
        value = _INPUT.decode(given) if given != b"null" else []
    except msgspec.MsgspecError:
        return fields
    own = [_message(value)] if isinstance(value, str) else value
    items = [item for one in said for item in one.items]
    return {**fields, "input": Raw(_ENCODER.encode([*items, *own]))}

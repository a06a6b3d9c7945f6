"""Refusals of a provider that speaks this API itself, as text for a client that drops refusal parts (codex.md §4)."""

from collections.abc import Callable

import msgspec
from msgspec import Raw

Fields = dict[str, Raw]
"""A JSON object whose values are as they came."""


def spelled_out(fields: Fields) -> Fields:
    """The event, or whole response, with what was refused as its text. Raises msgspec.MsgspecError for what makes no
    sense."""
    match bytes(fields.get("type", _NULL)):
        case b'"response.refusal.delta"':
            return {**fields, "type": _raw("response.output_text.delta"), "logprobs": _NONE}
        case b'"response.refusal.done"':
            said = {**fields, "type": _raw("response.output_text.done"), "logprobs": _NONE}
            said["text"] = said.pop("refusal", _NO_TEXT)
            return said
        case _:
            return _spelled(fields, {"part": _part, "item": _item, "response": _response, "output": _items})


Change = Callable[[Raw], Raw]


def _spelled(fields: Fields, changes: dict[str, Change]) -> Fields:
    return {name: changes[name](value) if name in changes else value for name, value in fields.items()}


def _response(raw: Raw) -> Raw:
    return _raw(_spelled(_FIELDS.decode(raw), {"output": _items}))


def _items(raw: Raw) -> Raw:
    return _raw([_item(item) for item in _LIST.decode(raw) or ()])


def _item(raw: Raw) -> Raw:
    return _raw(_spelled(_FIELDS.decode(raw), {"content": _parts}))


def _parts(raw: Raw) -> Raw:
    return _raw([_part(part) for part in _LIST.decode(raw) or ()])


def _part(raw: Raw) -> Raw:
    part = _FIELDS.decode(raw)
    if bytes(part.get("type", _NULL)) != b'"refusal"':
        return raw
    text = part.get("refusal", _NO_TEXT)
    return _raw({"type": "output_text", "text": text, "annotations": [], "logprobs": []})


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder()
_FIELDS = msgspec.json.Decoder(Fields)
_LIST = msgspec.json.Decoder(list[Raw] | None)
_NULL = Raw(b"null")
_NONE = Raw(b"[]")
_NO_TEXT = Raw(b'""')

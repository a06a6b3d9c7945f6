"""How an item is shown in a list: without what has to be asked for by `include` (objects.md §1.1), and its images with
the `detail` that is optional in a request and promised in a list (objects.md §5)."""

from collections.abc import Callable, Mapping, Set

import msgspec
from msgspec import Raw

Fields = dict[str, Raw]


class _Head(msgspec.Struct):
    type: str


_HEAD = msgspec.json.Decoder(_Head)
_FIELDS = msgspec.json.Decoder(Fields)
_LIST = msgspec.json.Decoder(list[Fields])
_ENCODER = msgspec.json.Encoder()
_NULL = Raw(b"null")
_IMAGE = Raw(b'"input_image"')
_AUTO = Raw(b'"auto"')


def shown(raw: bytes, include: Set[str]) -> bytes:
    """An item of a list. Reasoning is always whole: newer guides return it by default."""
    hide = _HIDES.get(_HEAD.decode(raw).type)
    if hide is None:
        return raw
    fields = _FIELDS.decode(raw)
    return _ENCODER.encode(fields) if hide(fields, include) else raw


def _field(name: str, asked: str) -> Callable[[Fields, Set[str]], bool]:
    """Hides one field of an item."""

    def hide(fields: Fields, include: Set[str]) -> bool:
        return asked not in include and _emptied(fields, name, _NULL)

    return hide


def _message(fields: Fields, include: Set[str]) -> bool:
    parts = _LIST.decode(fields["content"])
    changed = _detailed(parts)
    if "message.input_image.image_url" not in include:
        changed += sum(_emptied(part, "image_url", _NULL) for part in parts)
    if "message.output_text.logprobs" not in include:
        changed += sum(_emptied(part, "logprobs", Raw(b"[]")) for part in parts)
    if changed:
        fields["content"] = Raw(_ENCODER.encode(parts))
    return changed > 0


def _output(fields: Fields, include: Set[str]) -> bool:
    if not bytes(fields["output"]).startswith(b"["):
        return False
    parts = _LIST.decode(fields["output"])
    changed = _detailed(parts) > 0
    if changed:
        fields["output"] = Raw(_ENCODER.encode(parts))
    return changed


def _detailed(parts: list[Fields]) -> int:
    """How many images get a word about their detail."""
    bare = [part for part in parts if part.get("type") == _IMAGE and bytes(part.get("detail", _NULL)) == b"null"]
    for part in bare:
        part["detail"] = _AUTO
    return len(bare)


def _within(name: str, inner: str, asked: str) -> Callable[[Fields, Set[str]], bool]:
    """Hides a field of an object that is a field of an item."""

    def hide(fields: Fields, include: Set[str]) -> bool:
        if asked in include or not bytes(fields.get(name, _NULL)).startswith(b"{"):
            return False
        within = _FIELDS.decode(fields[name])
        if not _emptied(within, inner, _NULL):
            return False
        fields[name] = Raw(_ENCODER.encode(within))
        return True

    return hide


def _emptied(fields: Fields, name: str, empty: Raw) -> bool:
    """Whether there was something under this name; it is gone then."""
    if name not in fields or bytes(fields[name]) in (b"null", bytes(empty)):
        return False
    fields[name] = empty
    return True


_HIDES: Mapping[str, Callable[[Fields, Set[str]], bool]] = {
    "code_interpreter_call": _field("outputs", "code_interpreter_call.outputs"),
    "computer_call_output": _within("output", "image_url", "computer_call_output.output.image_url"),
    "custom_tool_call_output": _output,
    "file_search_call": _field("results", "file_search_call.results"),
    "function_call_output": _output,
    "message": _message,
    "web_search_call": _within("action", "sources", "web_search_call.action.sources"),
}

"""Entries of a list that a stream sent in fragments, put together again.

What a provider wants back is the list it would have given in a whole answer (provider-chat.md §6): sending a hundred
fragments back would be another conversation, and a signature apart from its text signs nothing.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct


class _Key(Struct, frozen=True):
    """What makes fragments parts of one entry. Entries of different types may share an index."""

    type: str
    index: int
    id: str | None = None


class _Texts(Struct):
    text: str | None = None
    summary: str | None = None


class _Chunk(Struct):
    type: str
    thinking: list[Raw] | str


class _Piece(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str


_KEY = msgspec.json.Decoder(_Key)
_TEXTS = msgspec.json.Decoder(_Texts)
_CHUNK = msgspec.json.Decoder(_Chunk)
_PIECE = msgspec.json.Decoder(_Piece)
_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ENCODER = msgspec.json.Encoder()


def shown(detail: Raw) -> str:
    """What an entry of `reasoning_details` says to people."""
    try:
        texts = _TEXTS.decode(detail)
    except msgspec.MsgspecError:
        return ""
    return texts.text or texts.summary or ""


def joined_details(fragments: Iterable[Raw]) -> list[Raw]:
    """`reasoning_details`: fragments of the same type and index are one entry. Text grows, anything else is what came
    last; a signature may come alone. What has no index is an entry of its own."""
    entries: list[list[Raw]] = []
    open_entries: dict[tuple[str, int], tuple[str | None, list[Raw]]] = {}
    for fragment in fragments:
        try:
            key = _KEY.decode(fragment)
        except msgspec.MsgspecError:
            entries.append([fragment])
            continue
        known = open_entries.get((key.type, key.index))
        if known is None or (key.id is not None and known[0] is not None and key.id != known[0]):
            entry: list[Raw] = []
            entries.append(entry)
            known = key.id, entry
            open_entries[key.type, key.index] = known
        known[1].append(fragment)
    return [_joined(entry) for entry in entries]


def _joined(entry: list[Raw]) -> Raw:
    if len(entry) == 1:
        return entry[0]
    fields: dict[str, Raw] = {}
    texts: dict[str, list[str]] = {"text": [], "summary": []}
    for fragment in entry:
        fields.update({name: raw for name, raw in _FIELDS.decode(fragment).items() if bytes(raw) != b"null"})
        said = _TEXTS.decode(fragment)
        texts["text"].append(said.text or "")
        texts["summary"].append(said.summary or "")
    for name, pieces in texts.items():
        if name in fields:
            fields[name] = _raw("".join(pieces))
    return _raw(fields)


def joined_chunks(fragments: Iterable[Raw]) -> list[Raw]:
    """Mistral's `thinking` chunks: neighbours are one chunk, and neighbouring texts inside it are one text."""
    fields: dict[str, Raw] = {}
    inner: list[Raw] = []
    texts: list[str] = []

    def end_text() -> None:
        if texts:
            inner.append(_raw(_Piece("".join(texts))))
            texts.clear()

    for fragment in fragments:
        fields.update(_FIELDS.decode(fragment))
        said = _CHUNK.decode(fragment).thinking
        for piece in [_raw(_Piece(said))] if isinstance(said, str) else said:
            try:
                texts.append(_PIECE.decode(piece).text)
            except msgspec.MsgspecError:
                end_text()
                inner.append(piece)
    end_text()
    return [_raw({**fields, "thinking": inner})] if fields else []


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))

"""What an envelope holds for Gemini, and what the reader and the writer of contents must agree on (mapping.md §5, rows
G; provider-gemini.md §5).

An envelope's `parts` are in the order of the answer, each of them one of

- a part of the answer as it came: thoughts, code that ran, calls of Google's tools, an empty text with a signature;
- `said`: how the message before was cut into parts, and which of them were signed. The text itself is in the message;
- `picture`: the picture before was signed. The picture itself is in its item;
- `continuation`: the answer goes on in another request.

`calls` holds a `Signed` for a call of a function, by its call id. A call without one is like the call before it: it was
not signed, and had an id from Gemini if that one had it. Before the first one that is: no id.
"""

from typing import TypeAlias

import msgspec
from msgspec import Raw, Struct

Piece: TypeAlias = tuple[int, str | None]
"""Code points, and the signature of the part they were."""


class Picture(Struct, frozen=True):
    signature: str | None


class Continuation(Struct, frozen=True):
    """`token` is Gemini's; `since` is the number of items of the request that is to be sent again with it."""

    token: str
    since: int


class Entry(Struct, frozen=True, omit_defaults=True):
    """One of the three that are no parts of their own; all empty for a part of the answer."""

    said: list[Piece] | None = None
    picture: Picture | None = None
    continuation: Continuation | None = None


class Signed(Struct, frozen=True, omit_defaults=True):
    """`id` is Gemini's own, and `place` how many calls of the answer came before this one."""

    signature: str | None = None
    id: str | None = None
    place: int = 0


ENTRY = msgspec.json.Decoder(Entry)
SIGNED = msgspec.json.Decoder(Signed)


def raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_ENCODER = msgspec.json.Encoder()

"""One request and the bytes it was answered with, as the provider remembers them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.sent import SentRequest

T = TypeVar("T")


@dataclass(slots=True)
class Exchange:
    """`said` grows before the bytes go out, so a provider always knows what its client may have read."""

    sent: SentRequest
    said: bytearray = field(default_factory=bytearray)
    _values: list[Json] = field(default_factory=list)
    _read: int = -1
    _asked: dict[str, Json] | None = None
    _learned: tuple[int, object] = (-1, None)

    @property
    def asked(self) -> dict[str, Json]:
        """The body of the request."""
        if self._asked is None:
            self._asked = json.loads(self.sent.body)
        return self._asked

    @property
    def values(self) -> list[Json]:
        """The JSON values of the answer: of every data line, of a whole array, or of the one body. Nonsense is none."""
        if self._read != len(self.said):
            self._read = len(self.said)
            self._values = _values(bytes(self.said))
        return self._values

    def learned(self, learn: Callable[["Exchange"], T]) -> T:
        """What a provider learns from it. A provider has one way to, and looks again only when more was said: it does
        so for every request, and there may be many."""
        if self._learned[0] != len(self.said):
            self._learned = (len(self.said), learn(self))
        return cast(T, self._learned[1])  # what is kept here came from the one way there is


def _values(said: bytes) -> list[Json]:
    if said[:1] in (b"{", b"["):
        whole = _value(said)
        return whole if isinstance(whole, list) else [whole]
    lines = (line for line in said.split(b"\n") if line.startswith(b"data:"))
    return [value for line in lines if (value := _value(line[5:])) is not None]


def _value(text: bytes) -> Json:
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value

"""What went over the wire while a rule was looked at, and the excerpt of it that a report shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

_EXCHANGES = 3
_SENT = 1500
_RECEIVED = 4000
_BEFORE = 600
"""Characters: the most an excerpt has of what was sent and of what was received, and those before the place shown."""


@dataclass(slots=True)
class Exchange:
    """A request and what came of it, or a frame of a WebSocket and the frames until the next one was sent."""

    asked: str
    sent: bytes
    answered: str = "no answer"
    pieces: list[bytes] = field(default_factory=list)

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)


class Passage(msgspec.Struct, frozen=True):
    """An exchange as it is shown. `mark` is the part of `received` that shows what is wrong, if one part does."""

    sent: str
    received: str
    mark: str = ""


def excerpt(exchanges: Sequence[Exchange], at: bytes) -> list[Passage]:
    """The exchange that holds `at`, or the last one, and a few before it."""
    end = next((place for place in range(len(exchanges), 0, -1) if at in exchanges[place - 1].received), len(exchanges))
    return [_passage(exchange, at) for exchange in exchanges[max(0, end - _EXCHANGES) : end]]


def _passage(exchange: Exchange, at: bytes) -> Passage:
    text, mark = _marked(exchange.received, at)
    received = _cut(text, _RECEIVED, text.find(mark) if mark else None)
    return Passage(
        f"{exchange.asked}\n{_cut(_indented(exchange.sent), _SENT, None)}".rstrip(),
        f"{exchange.answered}\n{received}".rstrip(),
        mark[: _RECEIVED // 4],
    )


def _marked(body: bytes, at: bytes) -> tuple[str, str]:
    """The text of a body, and the part of it that is `at`. What is shown as a whole has no such part."""
    if at not in body or at in (b"", body):
        return _indented(body), ""
    around = body.replace(at, _PLACE, 1)
    try:
        whole = msgspec.json.format(around, indent=2).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body.decode(errors="replace"), at.decode(errors="replace")
    line = next((line for line in whole.split("\n") if _PLACE.decode() in line), "")
    mark = _indented(at).replace("\n", f"\n{line[: len(line) - len(line.lstrip())]}")
    return whole.replace(_PLACE.decode(), mark), mark


_PLACE = b'"\xee\x80\x80"'
"""A value of JSON that nobody sends, so that a body can be indented around the part that matters."""


def _indented(body: bytes) -> str:
    try:
        return msgspec.json.format(body, indent=2).decode(errors="replace")
    except (msgspec.MsgspecError, RecursionError):
        return body.decode(errors="replace")


def _cut(text: str, most: int, place: int | None) -> str:
    """At most that many characters, from shortly before the place on, or of both ends."""
    if len(text) <= most:
        return text
    if place is None:
        return f"{text[: most * 2 // 3]}\n[… {len(text) - most} characters]\n{text[-most // 3 :]}"
    start = min(max(0, place - _BEFORE), len(text) - most)
    before, after = start, len(text) - start - most
    return "".join(
        [
            f"[… {before} characters]\n" if before else "",
            text[start : start + most],
            f"\n[… {after} characters]" if after else "",
        ]
    )

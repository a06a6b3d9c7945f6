"""Server-sent events: bytes to frames for what upstreams send, events to bytes for what we send (events.md §1)."""

import codecs
from functools import cache
from typing import NamedTuple

from rejoinder.wire.errors import BadFrame
from rejoinder.wire.events import Event, Relayed, encode

MAX_LINE = 16 * 2**20
"""Bytes of one line, and of the data lines of one event together (reliability.md F7)."""


class Frame(NamedTuple):
    """One event: its `event:` field, empty when there was none, and its `data:` lines joined by newlines."""

    event: str
    data: bytes


class Decoder:
    """Turns bytes, cut anywhere, into frames by the rules of the server-sent event format.

    Lines end in LF, CRLF or CR; a byte order mark at the start, comments, `id` and `retry` are skipped; a frame
    without data is none. Work is linear in the bytes received however they are cut (reliability.md S13).
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # an unfinished line
        self._at_start = True
        self._after_cr = False  # the last line ended in CR: a LF that follows belongs to it
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0  # of the data lines

    def feed(self, data: bytes) -> list[Frame]:
        """The frames these bytes complete. Raises BadFrame for a line over the limit."""
        if _LF not in data and _CR not in data and not self._after_cr:
            # The usual case for bytes that come in crumbs, and so the one whose cost counts.
            rest = self._rest
            rest += data
            if len(rest) > MAX_LINE:
                raise _too_long()
            return []
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if _CR in data:
            self._after_cr = data.endswith(b"\r")
            lines = data.splitlines()
            last = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        else:
            *lines, last = data.split(b"\n")
        frames: list[Frame] = []
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        for line in lines:
            self._line(line, frames)
        self._rest += last
        if len(self._rest) > MAX_LINE:
            raise _too_long()
        return frames

    def close(self) -> list[Frame]:
        """What the end of the bytes completes: some servers leave out the last blank line (provider-chat.md §7)."""
        frames: list[Frame] = []
        if self._rest:
            self._line(bytes(self._rest), frames)
            self._rest.clear()
        self._line(b"", frames)
        return frames

    def _line(self, line: bytes, frames: list[Frame]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line:
            if self._data:
                frames.append(Frame(self._event, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
                self._data = []
                self._size = 0
            self._event = ""
            return
        if line.startswith(b"data:") or line == b"data":
            self._size += len(line)
            if self._size > MAX_LINE:
                raise _too_long()
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"event:") or line == b"event":
            self._event = line[6:].removeprefix(b" ").decode("utf-8", "replace")


def _too_long() -> BadFrame:
    return BadFrame(f"a line of the event stream is longer than {MAX_LINE} bytes")


_LF, _CR = b"\n\r"


def frame(event: Event) -> bytes:
    """One event as it goes out, whole, with LF (events.md §1)."""
    kind = event.__class__
    head = _head(kind) if kind is not Relayed else f"event: {event.type}\ndata: ".encode()
    return head + encode(event) + b"\n\n"


@cache
def _head(event: type[Event]) -> bytes:
    return f"event: {event.__struct_config__.tag}\ndata: ".encode()


COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

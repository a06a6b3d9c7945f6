"""Server-sent events: bytes to frames for what upstreams send, events to bytes for what we send (events.md §1)."""

from typing import NamedTuple

from rejoinder.wire.errors import BadFrame
from rejoinder.wire.events import Event, encode

MAX_LINE = 16 * 2**20
"""Bytes of one line (reliability.md F7)."""


class Frame(NamedTuple):
    """One event: its `event:` field, empty when there was none, and its `data:` lines joined by newlines."""

    event: str
    data: bytes


class Decoder:
    """Turns bytes, cut anywhere, into frames by the rules of the server-sent event format.

    Lines end in LF, CRLF or CR; comments, `id` and `retry` are skipped; a frame without data is none. Work is linear
    in the bytes received however they are cut (reliability.md S13).
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # an unfinished line, in pieces
        self._length = 0
        self._after_cr = False  # the last line ended in CR: a LF that follows belongs to it
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[Frame]:
        """The frames these bytes complete. Raises BadFrame for a line over the limit."""
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        frames: list[Frame] = []
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._length = 0
        for line in lines:
            self._line(line, frames)
        if rest:
            self._pieces.append(rest)
            self._length += len(rest)
            if self._length > MAX_LINE:
                raise BadFrame(f"a line of the event stream is longer than {MAX_LINE} bytes")
        return frames

    def close(self) -> list[Frame]:
        """What the end of the bytes completes: some servers leave out the last blank line (provider-chat.md §7)."""
        frames: list[Frame] = []
        if self._pieces:
            self._line(b"".join(self._pieces), frames)
            self._pieces.clear()
            self._length = 0
        self._line(b"", frames)
        return frames

    def _line(self, line: bytes, frames: list[Frame]) -> None:
        if not line:
            if self._data:
                frames.append(Frame(self._event, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
                self._data = []
            self._event = ""
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"event:"):
            self._event = line[6:].strip().decode("utf-8", "replace")
        elif line == b"data":
            self._data.append(b"")


def frame(event: Event) -> bytes:
    """One event as it goes out, whole, with LF (events.md §1)."""
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), encode(event))


COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

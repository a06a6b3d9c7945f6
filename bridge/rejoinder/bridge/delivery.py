"""How an answer is delivered: as server-sent events, or as one body where a stream was asked for (or not).

The content type does not say it reliably (provider-chat.md §7, provider-responses.md §8), the first character does.
"""

import msgspec

from rejoinder.bridge.errors import BrokenStream
from rejoinder.wire import sse

MAX_BODY = 64 * 2**20
"""Bytes of a whole JSON answer."""

MAKES_NO_SENSE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading bytes raises that are no part of any answer."""


class Delivery:
    """The frames of an answer whose bytes are cut anywhere, or else the one body it is."""

    def __init__(self) -> None:
        self._stream: sse.Decoder | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_body = False

    def feed(self, data: bytes) -> list[sse.Frame]:
        """The frames these bytes complete. Raises BrokenStream for a body over the limit, BadFrame for a line."""
        if self._stream is not None:
            return self._stream.feed(data)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_BODY:
            raise BrokenStream(f"the answer is larger than {MAX_BODY} bytes")
        if self._is_body or not (start := data.lstrip()):
            return []
        if start.startswith((b"{", b"[", b"<")):
            self._is_body = True
            return []
        self._stream = sse.Decoder()
        self._pieces.clear()
        return self._stream.feed(start)

    def close(self) -> list[sse.Frame]:
        """What the end of the bytes completes."""
        return self._stream.close() if self._stream is not None else []

    @property
    def body(self) -> bytes:
        """Everything that came, where it was no stream; else nothing."""
        return b"".join(self._pieces)

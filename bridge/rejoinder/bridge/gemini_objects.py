"""A JSON array while it arrives: what a stream of Gemini's is without `alt=sse` (provider-gemini.md §8)."""

import re

from rejoinder.bridge.errors import BrokenStream

MAX_OBJECT = 64 * 2**20
"""Bytes of one object."""


class Objects:
    """The objects of a JSON array, or one that stands alone, out of bytes that are cut anywhere.

    Work is linear in the bytes received however they are cut.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._depth = 0
        self._in_text = False
        self._after_backslash = False

    def feed(self, data: bytes) -> list[bytes]:
        """The objects these bytes complete. Raises BrokenStream for what is neither, or without end."""
        found: list[bytes] = []
        start = at = 0
        while at < len(data):
            if self._depth == 0:
                start = at = _BETWEEN.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
                if at < len(data):
                    self._begin(data[at])
                    at += 1
            elif self._after_backslash:
                self._after_backslash = False
                at += 1
            else:
                at = self._mark(data, at)
                if self._depth == 0:
                    found.append(b"".join((*self._pieces, data[start:at])))
                    self._pieces, self._size = [], 0
        if self._depth:
            self._pieces.append(data[start:])
            self._size += len(data) - start
            if self._size > MAX_OBJECT:
                raise BrokenStream(f"an object of the answer is larger than {MAX_OBJECT} bytes")
        return found

    def _begin(self, mark: int) -> None:
        if mark != _OPEN:
            raise BrokenStream("the provider sent something that is no list of objects")
        self._depth = 1

    def _mark(self, data: bytes, at: int) -> int:
        """Read up to the next character that means something here; returns the place after it."""
        match = (_IN_TEXT if self._in_text else _OUTSIDE).search(data, at)
        if match is None:
            return len(data)
        mark = match[0]
        if mark == b"\\":
            self._after_backslash = True
        elif mark == b'"':
            self._in_text = not self._in_text
        else:
            self._depth += 1 if mark in b"{[" else -1
        return match.end()


_BETWEEN = re.compile(rb"[\s,\[\]]*")
_IN_TEXT = re.compile(rb'["\\]')
_OUTSIDE = re.compile(rb'["{}\[\]]')
_OPEN = ord("{")

"""An answer whose bytes come in other pieces than they were written in."""

from collections.abc import Iterator
from dataclasses import dataclass

from rejoinder.conformance.upstreams.script import Action, Asked, Pause, Step

_CHARACTER = range(0x80, 0xC0)
"""The bytes that go on with a character of UTF-8."""


@dataclass(frozen=True, slots=True)
class Recut:
    """A few bytes at a time: lines and words are cut in two, and so is every character that has two bytes or more."""

    step: Step[Asked]
    size: int = 7

    def actions(self, request: Asked) -> Iterator[Action]:
        for action in self.step.actions(request):
            if isinstance(action, bytes):
                yield from self._cut(action)
            else:
                yield action

    def _cut(self, piece: bytes) -> Iterator[Action]:
        start = 0
        for place in range(1, len(piece) + 1):
            in_two = place < len(piece) and piece[place] in _CHARACTER and piece[place - 1] not in _CHARACTER
            if in_two or place - start == self.size or place == len(piece):
                yield piece[start:place]
                # Long enough to be read by itself: what is written at once may be read at once.
                yield Pause(0.002 if in_two else 0)
                start = place

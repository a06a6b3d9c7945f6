"""What is told while rules are looked at."""

from typing import TextIO

from rejoinder.conformance.rule import Rule
from rejoinder.conformance.table import line
from rejoinder.conformance.verdict import Verdict

_CLEAR = "\r\x1b[2K"


class Progress:
    """On a terminal one line that changes, elsewhere one line for each rule."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._done = 0
        self._broken = 0
        self._in_place = stream.isatty()

    def begin(self, rule: Rule) -> None:
        if self._in_place:
            broken = f", {self._broken} broken" if self._broken else ""
            # Short enough for 80 columns: a longer line would not be cleared.
            self._tell(f"{_CLEAR}{self._done + 1}/{self._total}{broken}: {rule.id[:50]}")

    def end(self, verdict: Verdict) -> None:
        self._done += 1
        self._broken += verdict.outcome == "broken"
        if not self._in_place:
            self._tell(f"{line(verdict)}\n")
        elif self._done == self._total:
            self._tell(_CLEAR)

    def _tell(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

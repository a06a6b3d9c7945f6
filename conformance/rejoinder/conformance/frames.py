"""A stream of server-sent events, taken apart (events.md §1).

`frames` reads as leniently as the standard of server-sent events allows, so that one broken rule of framing hides
nothing else; the rules themselves are looked at in `about_streams`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

DONE = "[DONE]"

_LINES = re.compile(r"\r\n|\n|\r")


_ENDS = re.compile(rb"\n\n|\r\n\r\n|\r\r")


@dataclass(frozen=True, slots=True)
class Frame:
    """One event. `lines` are its lines as they came; `data` is None when there was no data line."""

    lines: Sequence[str]
    event: str | None
    data: str | None


def frames(body: bytes) -> list[Frame]:
    """The frames of a body, comments not counted. A tail without its empty line is a frame too."""
    found: list[Frame] = []
    lines: list[str] = []
    for line in [*_LINES.split(body.decode(errors="replace")), ""]:
        if line:
            if not line.startswith(":"):
                lines.append(line)
        elif lines:
            found.append(_frame(lines))
            lines = []
    return found


def whole_frames(body: bytes) -> tuple[bytes, int]:
    """The part of a body up to the end of its last whole frame, and how many frames that are."""
    ends = [end.end() for end in _ENDS.finditer(body)]
    return body[: ends[-1] if ends else 0], len(ends)


def _frame(lines: Sequence[str]) -> Frame:
    fields = [line.partition(":") for line in lines]
    data = [value.removeprefix(" ") for name, _, value in fields if name == "data"]
    events = [value.removeprefix(" ") for name, _, value in fields if name == "event"]
    return Frame(list(lines), events[-1] if events else None, "\n".join(data) if data else None)

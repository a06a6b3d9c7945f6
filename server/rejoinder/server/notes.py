"""The debug header: what a response does without, and why (mapping.md §0, Warn)."""

from collections.abc import Sequence

import msgspec

NAME = "x-rejoinder-notes"

_MAX = 4000
"""Characters; clients and proxies bound their headers (http.md §4)."""

_LONGEST = 200
"""Characters of one note: a note may quote a client's text (reliability.md S10)."""


def header(notes: Sequence[str]) -> dict[str, str]:
    """The header for these notes, a JSON list in ASCII; none when there is nothing to say."""
    if not notes:
        return {}
    shown = list(dict.fromkeys(note[:_LONGEST] for note in notes))
    while len(encoded := _ascii(shown)) > _MAX:
        del shown[len(shown) // 2 :]
        shown.append("further notes are in the server's log")
    return {NAME: encoded}


def _ascii(notes: Sequence[str]) -> str:
    text = msgspec.json.encode(notes).decode()
    return "".join(
        char if " " <= char <= "~" else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else "?" for char in text
    )

"""The debug headers: what a response does without, and why (mapping.md §0, Warn)."""

from collections.abc import Sequence

import msgspec

from rejoinder.bridge.losses import Loss

NAME = "x-rejoinder-notes"
"""Parameters without effect, in words: a JSON list of strings."""

LOSSES = "x-rejoinder-losses"
"""What of the conversation the upstream did not get: a JSON list of objects (`rejoinder.bridge.losses.Loss`)."""

_MAX = 4000
"""Characters of one header; clients and proxies bound their headers (http.md §4)."""

_LONGEST = 200
"""Characters of one note, or of an item's id: they may quote a client's text (reliability.md S10)."""


def headers(notes: Sequence[str], losses: Sequence[Loss]) -> dict[str, str]:
    """The headers for these, JSON lists in ASCII; none for which there is nothing to say."""
    found = {}
    if notes:
        found[NAME] = _bounded([note[:_LONGEST] for note in notes], "further notes are in the server's log")
    if losses:
        found[LOSSES] = _bounded([_cut(loss) for loss in losses], _FURTHER)
    return found


_FURTHER = Loss("further losses are in the server's log", None, "removed", "no_words")


def _cut(loss: Loss) -> Loss:
    if loss.id is None or len(loss.id) <= _LONGEST:
        return loss
    return msgspec.structs.replace(loss, id=loss.id[:_LONGEST])


def _bounded(all_of_it: Sequence[str | Loss], rest: str | Loss) -> str:
    shown = list(dict.fromkeys(all_of_it))
    while len(encoded := _ascii(shown)) > _MAX:
        del shown[len(shown) // 2 :]
        shown.append(rest)
    return encoded


def _ascii(said: Sequence[str | Loss]) -> str:
    text = msgspec.json.encode(said).decode()
    return "".join(
        char if " " <= char <= "~" else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else "?" for char in text
    )

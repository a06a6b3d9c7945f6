"""The text inside the arguments of a free-form call, while the arguments arrive in pieces (mapping.md §3).

The arguments should be `{"input": "…"}`. As soon as that beginning is there, the string is decoded as it comes;
escapes and surrogate pairs cut in two wait for their other half. Anything else is kept until the end: an object with
another key first is then parsed as a whole, and what is no such object is the text itself.
"""

import re

from rejoinder.bridge.arguments import free_text

_EXPECTED = '{"input":"'
_PATIENCE = 256  # characters, white space included, in which the beginning must come
_BEGINNING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_PLAIN = re.compile(r'[^"\\]+')
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class FreeText:
    """`feed` and `close` return the text that became certain; `value` is all of it."""

    def __init__(self) -> None:
        self._waiting = ""  # not decoded yet
        self._other: list[str] = []  # everything, once it is certain that it does not begin as it should
        self._inside = False
        self._over = False
        self._pieces: list[str] = []

    @property
    def value(self) -> str:
        return "".join(self._pieces)

    def feed(self, delta: str) -> str:
        if self._over:
            return ""
        if self._other:
            self._other.append(delta)
            return ""
        self._waiting += delta
        if not self._inside and not self._begins():
            return ""
        return self._keep(self._decoded())

    def close(self) -> str:
        if self._inside:
            return ""
        return self._keep(free_text("".join(self._other) or self._waiting))

    def _begins(self) -> bool:
        beginning = _BEGINNING.match(self._waiting)
        if beginning is not None:
            self._inside = True
            self._waiting = self._waiting[beginning.end() :]
        elif not _EXPECTED.startswith("".join(self._waiting.split())) or len(self._waiting) > _PATIENCE:
            self._other.append(self._waiting)
        return self._inside

    def _keep(self, text: str) -> str:
        if text:
            self._pieces.append(text)
        return text

    def _decoded(self) -> str:
        out: list[str] = []
        text, at = self._waiting, 0
        while at < len(text):
            if plain := _PLAIN.match(text, at):
                out.append(plain[0])
                at = plain.end()
            elif text[at] == '"':
                self._over = True
                at = len(text)
            else:
                decoded, width = _escape(text, at)
                if not width:
                    break
                out.append(decoded)
                at += width
        self._waiting = text[at:]
        return "".join(out)


def _escape(text: str, at: int) -> tuple[str, int]:
    """The character an escape stands for and its width; width 0 while the escape is not all there."""
    if at + 1 >= len(text):
        return "", 0
    if text[at + 1] != "u":
        return _ESCAPES.get(text[at + 1], text[at + 1]), 2
    if at + 6 > len(text):
        return "", 0
    unit = _unit(text, at)
    if not 0xD800 <= unit <= 0xDBFF:
        # A half of a pair on its own is no character; the replacement keeps the rest readable and encodable.
        return ("\ufffd" if 0xDC00 <= unit <= 0xDFFF else chr(unit)), 6
    rest = text[at + 6 : at + 12]
    if len(rest) < 6 and (rest[:2] == "\\u" or "\\u".startswith(rest)):
        return "", 0
    low = _unit(text, at + 6) if rest.startswith("\\u") else 0
    if 0xDC00 <= low <= 0xDFFF:
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)), 12
    return "\ufffd", 6


def _unit(text: str, at: int) -> int:
    digits = text[at + 2 : at + 6]
    return int(digits, 16) if _HEX.fullmatch(digits) else 0xFFFD


_HEX = re.compile(r"[0-9a-fA-F]{4}")

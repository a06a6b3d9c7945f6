"""Reasoning that a server leaves inside the answer, between `<think>` and `</think>` (provider-chat.md §6)."""

from collections.abc import Iterator

_OPEN = ("<think>", "<thought>")
_CLOSE = {"<think>": "</think>", "<thought>": "</thought>"}
_LONGEST = max(map(len, _OPEN))


class ThinkTags:
    """Splits a text that arrives in pieces into reasoning and answer.

    Only an answer that starts with the tag is split (white space may come first); a tag later on is part of the text.
    Without a closing tag everything is reasoning; line breaks after one belong to neither. `prefilled`: the template
    wrote the opening tag itself.
    """

    def __init__(self, *, prefilled: bool = False) -> None:
        self._close = "</think>" if prefilled else ""
        self._waiting = ""
        self._undecided = not prefilled
        self._after_tag = False  # nothing but line breaks came since the closing tag

    def feed(self, delta: str) -> Iterator[tuple[bool, str]]:
        """Pairs of (is it reasoning, text) that are certain now."""
        if not self._undecided and not self._close:
            yield from self._answer(delta)
            return
        text = self._waiting + delta
        self._waiting = ""
        if self._undecided:
            start = text.lstrip()
            if tag := next((tag for tag in _OPEN if start.startswith(tag)), None):
                self._undecided = False
                self._close = _CLOSE[tag]
                text = start[len(tag) :]
            elif len(start) < _LONGEST and any(tag.startswith(start) for tag in _OPEN):
                self._waiting = text
                return
            else:
                self._undecided = False
                yield False, text
                return
        yield from self._inside(text)

    def close(self) -> Iterator[tuple[bool, str]]:
        """What was held back for a tag that never became whole."""
        text, self._waiting = self._waiting, ""
        if text:
            yield not self._undecided, text

    def _inside(self, text: str) -> Iterator[tuple[bool, str]]:
        before, tag, after = text.partition(self._close)
        if tag:
            self._close = ""
            self._after_tag = True
            if before:
                yield True, before
            yield from self._answer(after)
            return
        held = _overlap(text, self._close)
        self._waiting = text[len(text) - held :]
        if certain := text[: len(text) - held]:
            yield True, certain

    def _answer(self, text: str) -> Iterator[tuple[bool, str]]:
        # vLLM sends the line breaks by themselves; alone before a call they would be a message of nothing.
        if self._after_tag:
            text = text.lstrip("\n")
            self._after_tag = not text
        if text:
            yield False, text


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:size])), 0)

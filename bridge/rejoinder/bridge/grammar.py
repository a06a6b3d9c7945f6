"""Whether the text of a free-form call matches the grammar its tool declares (mapping.md §3).

llguidance reads the same dialect of Lark and the same regular expressions as the provider whose API this is. Its
automata are linear in the text, whatever a client writes as a pattern (reliability.md S13).
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from rejoinder.wire.tools import Grammar

if TYPE_CHECKING:
    from llguidance import LLTokenizer

Mode = Literal["pass", "check", "repair"]
"""`pass`: the text goes to the client as it is. `check`: also, with a note when it does not match. `repair`: it is held
back until it is whole, and one that does not match goes back to the model once, with what is wrong."""

MAX_TEXT = 256 * 1024
"""Bytes that are matched; some ten milliseconds of everybody's time for the longest."""


def flaw(grammar: Grammar) -> str | None:
    """What is wrong with the grammar itself, or None."""
    try:
        _compiled(grammar.syntax or "", grammar.definition or "")
    except ValueError as error:
        return str(error)
    return None


def mismatch(grammar: Grammar, text: str) -> str | None:
    """Where the text leaves the grammar, in words for the model, or None when it matches."""
    from llguidance import LLMatcher  # only where a setting asks for it: it takes its time

    said = text.encode()
    if len(said) > MAX_TEXT:
        return f"it is longer than {MAX_TEXT} bytes, which is more than can be matched"
    matcher = LLMatcher(_tokenizer(), _compiled(grammar.syntax or "", grammar.definition or ""))
    matched = matcher.try_consume_tokens([*said])
    if matched < len(said):
        before = said[:matched].decode("utf-8", "ignore")
        line = before.count("\n") + 1
        rest = said[matched:].decode("utf-8", "replace").split("\n", 1)[0][:80]
        return f"line {line} leaves the grammar at {rest!r}"
    return None if matcher.is_accepting() else "it ends before the grammar does"


@lru_cache(maxsize=64)
def _compiled(syntax: str, definition: str) -> str:
    from llguidance import LLMatcher

    read = LLMatcher.grammar_from_regex if syntax == "regex" else LLMatcher.grammar_from_lark
    grammar = read(definition)
    if wrong := LLMatcher.validate_grammar(grammar):
        raise ValueError(wrong.strip().split("\n", 1)[0][:300])
    return grammar


@lru_cache(maxsize=1)
def _tokenizer() -> "LLTokenizer":
    from llguidance import LLTokenizer

    return LLTokenizer("byte")

"""What is said to a model in words, where a protocol has no other place for it; in every dialect the same."""

from rejoinder.bridge.turns import Piece, Result

JSON_ONLY = "Answer with one JSON object and nothing else."
"""For `json_object`, where nothing else says it, or where the word is wanted beside the parameter (provider-chat.md
§9)."""


def of_the_system(text: str) -> str:
    """A later system message as a user's words, for those who take none inside a conversation (mapping.md §2)."""
    return f"<system>\n{text}\n</system>"


def named(text: str, name: str | None) -> str:
    """The text of a file, under its name."""
    return f"{name}:\n{text}" if name else text


def shown_later(piece: Piece) -> str:
    """Stands in a result for what a result cannot hold, and a user shows after it (provider-chat.md §3)."""
    return f"[{type(piece).__name__.lower()} output, shown in the next message]"


def output_of(result: Result) -> str:
    """Goes before what is shown so."""
    return f"[output of call {result.call_id}]"

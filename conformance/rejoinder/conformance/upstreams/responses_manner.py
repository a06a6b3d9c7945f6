"""How one server of the Responses API differs from the next on the wire (provider-responses.md §6, §9)."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Manner:
    """The default is OpenAI's own."""

    event_line: Literal["first", "last", "none"] = "first"
    """Where a block names its event: before its data, after it (Bedrock), or not at all (OpenRouter)."""

    done: bool = False
    """A `[DONE]` ends the stream."""

    comments: bool = False
    """A comment comes before the first event."""

    rotating_ids: bool = False
    """An item has another id in every event (Copilot)."""

    complete: bool = True
    """The terminal event repeats the output; else its list is empty."""

    flat_errors: bool = False
    """Error events as the types have them, not as the wire has them."""

    obfuscation: bool = True
    created_at: int | float = 1_700_000_000


OPENAI = Manner()
COPILOT = Manner(rotating_ids=True)
OPENROUTER = Manner(event_line="none", done=True, comments=True, obfuscation=False)
BEDROCK = Manner(event_line="last", created_at=1_700_000_000.5)
FORGETFUL = Manner(complete=False)
"""Its terminal event has an empty output."""

"""The bodies of the conversation endpoints and of compaction (http.md §1 and §2.2), as they travel."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct, field

from rejoinder.wire.request import Metadata
from rejoinder.wire.responses import Usage

MAX_ADDED = 20
"""Items that one call may add to a conversation (http.md §1)."""

Added = Annotated[list[Raw], Meta(max_length=MAX_ADDED)]


class ConversationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What a conversation begins with."""

    items: Added | None = None
    metadata: Metadata | None = None


class ConversationUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """Replaces the metadata; null leaves none."""

    metadata: Metadata | None


class ItemsBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Items to put at the end of a conversation, in this order."""

    items: Added


class Conversation(Struct, kw_only=True):
    """A conversation without its items. `created_at` is in unix seconds."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str] = field(default_factory=dict)


class ConversationDeleted(Struct, kw_only=True):
    """Says that the conversation is gone; the responses that were made in it stay."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool = True


class CompactedResponse(Struct, kw_only=True):
    """The user messages that were kept and, as the last item, what stands for everything else. `output` is the `input`
    of the next call; `id` is none that could be continued."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[Raw]
    usage: Usage

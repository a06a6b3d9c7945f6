"""What of a conversation an upstream does not get, or not as it was: the loss report of a hop (mapping.md §0, §5).

A parameter that has no effect is a note, in words. An item that is left out or changed is a loss, in fields a program
can read: conversations move between providers, and whoever moves one must be able to see what stayed behind.
"""

from typing import Literal

from msgspec import Struct

Reason = Literal[
    "model_mismatch",
    "organization_mismatch",
    "end_user_mismatch",
    "prefix_mismatch",
    "not_sealed",
    "no_words",
]
"""Why. The first four are those of `input_transformations` (objects.md §2): sealed for another model or provider, for
another account, for another key holder (or with a key nobody has any more), for another beginning of the conversation.
`not_sealed`: reasoning that came without its state. `no_words`: the upstream's protocol cannot say it."""


class Loss(Struct, frozen=True, omit_defaults=True):
    """`type` is that of the item or part, `id` the item's own where it has one, `issuer` who made it where that is
    known."""

    type: str
    id: str | None
    action: Literal["removed", "rewritten"]
    reason: Reason
    issuer: str = ""

"""`truncation: "auto"`: the conversation without its oldest turns (mapping.md §1, semantics.md §8)."""

import dataclasses
from collections.abc import Iterator, Sequence

from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.turns import OUTPUTS, call_id_of
from rejoinder.wire.items import AdditionalTools, ConfigurationUpdate, Item, Message


def shortened(prompt: Prompt) -> Prompt | None:
    """The prompt with the older half of its turns left out, or None when only the last one is there.

    A cut is made before a user message where no call is open, so calls keep their outputs; leading instructions and
    what a turn added to the tools or the settings stay. What was left out is noted.
    """
    items = prompt.items
    beginnings = list(_beginnings(items))
    if len(beginnings) < 2:
        return None
    cut = beginnings[(len(beginnings) + 1) // 2]
    first = beginnings[0]
    stays = [item for item in items[first:cut] if isinstance(item.view, AdditionalTools | ConfigurationUpdate)]
    kept = [*items[:first], *stays, *items[cut:]]
    prompt.note(f"truncation: the {len(items) - len(kept)} oldest items did not fit and were left out")
    return dataclasses.replace(prompt, items=kept)


def _beginnings(items: Sequence[Item]) -> Iterator[int]:
    unanswered: set[str | None] = set()
    for index, item in enumerate(items):
        if item.type in OUTPUTS:
            unanswered.discard(call_id_of(item))
        elif (call_id := call_id_of(item)) is not None:
            unanswered.add(call_id)
        elif not unanswered and _is_user(item):
            yield index


def _is_user(item: Item) -> bool:
    return isinstance(item.view, Message) and item.view.role == "user"

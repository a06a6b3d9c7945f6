"""What the little server keeps: responses, conversations and their items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.conformance.little_exchange import NOW, Json, Numbers, Refused
from tests.conformance.little_model import begun

PICTURED = "message.input_image.image_url"


@dataclass(slots=True)
class Conversation:
    """`told` is the conversation object."""

    told: Json
    items: list[Json] = field(default_factory=list)

    def found(self, item_id: str) -> Json:
        for item in self.items:
            if item["id"] == item_id:
                return item
        raise Refused("no such item", status=404)


@dataclass(slots=True)
class Kept:
    """A response with its own input and everything the model saw before it.

    `ahead` are the states it will be found in before its end: each question for it is a step. `place` is the
    conversation it is made in, as long as that waits for it.
    """

    response: Json
    given: list[Json]
    before: list[Json]
    events: list[Json] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    place: Conversation | None = None

    @property
    def history(self) -> list[Json]:
        return [*self.before, *self.given, *self.response["output"]]

    def told(self) -> Json:
        """The response as it is now."""
        if self.ahead:
            return begun(self.response, self.ahead.pop(0))
        self.finish()
        return self.response

    def finish(self) -> None:
        if self.place is not None:
            self.place.items += [*self.given, *self.response["output"]]
            self.place = None

    def cancel(self) -> Json:
        if not self.response["background"]:
            raise Refused("not in the background")
        if self.ahead:
            self.response = begun(self.response, "cancelled")
            self.ahead, self.place = [], None
        return self.response


class Store:
    """What belongs to one key."""

    def __init__(self, new: Numbers) -> None:
        self.responses: dict[str, Kept] = {}
        self.passing: dict[str, Kept] = {}
        """Those that can be asked for, though they are not stored."""
        self._conversations: dict[str, Conversation] = {}
        self._new = new

    def found(self, response_id: str) -> Kept:
        if (kept := self.responses.get(response_id) or self.passing.get(response_id)) is None:
            raise Refused("no such response", status=404)
        return kept

    def parent(self, response_id: str, local: Mapping[str, Json]) -> Kept:
        known = {**self.responses, **local}
        if response_id not in known:
            raise Refused("no such response", "previous_response_id", "previous_response_not_found")
        kept: Kept = known[response_id]
        return kept

    def delete(self, response_id: str) -> Json:
        self.found(response_id)
        self.responses.pop(response_id, None)
        self.passing.pop(response_id, None)
        return {"id": response_id, "object": "response", "deleted": True}

    def item(self, item: Json) -> Json:
        """The item as it is kept: whole, and with an id."""
        if item["type"] == "item_reference" or (item["type"] == "reasoning" and not item.get("encrypted_content")):
            items = [one for kept in self.responses.values() for one in (*kept.given, *kept.response["output"])]
            found = [one for one in items if one["id"] == item.get("id")]
            if not found:
                raise Refused("no such item", "input")
            return found[0]
        content = item.get("content")
        if isinstance(content, str):
            kind = "output_text" if item["role"] == "assistant" else "input_text"
            content = [{"type": kind, "text": content}]
        if isinstance(content, list):
            content = [{"detail": "auto", **part} if part["type"] == "input_image" else part for part in content]
            item = {**item, "content": content}
        return {"status": "completed", "id": self._new("msg"), **item}

    # Conversations.

    def converse(self, metadata: Json, items: Sequence[Json]) -> Json:
        made: Json = {"id": self._new("conv"), "object": "conversation", "created_at": NOW, "metadata": metadata or {}}
        self._conversations[made["id"]] = Conversation(made, [self.item(item) for item in items])
        return made

    def conversation(self, conversation_id: str) -> Conversation:
        if conversation_id not in self._conversations:
            raise Refused("no such conversation", status=404)
        return self._conversations[conversation_id]

    def forget(self, conversation_id: str) -> Json:
        self.conversation(conversation_id)
        del self._conversations[conversation_id]
        return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}

    def entered(self, named: Json) -> Conversation:
        """The conversation that a create call names, if nothing is made in it at the moment."""
        place = self.conversation(str(named["id"] if isinstance(named, dict) else named))
        if any(kept.place is place for kept in self.responses.values()):
            raise Refused("not now", "conversation", "conversation_locked")
        return place


def page_of(items: Sequence[Json], query: Mapping[str, str], included: Sequence[str] = (PICTURED,)) -> Json:
    """A page of items. Without a word of it, an image is listed without its URL."""
    limit, order = query.get("limit", "20"), query.get("order", "desc")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        raise Refused("wrong", "limit", "invalid_value")
    if order not in ("asc", "desc"):
        raise Refused("wrong", "order", "invalid_value")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    start = ids.index(query["after"]) + 1 if "after" in query else 0
    shown = ordered[start : start + int(limit)]
    if PICTURED not in included:
        shown = [_without_urls(item) for item in shown]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(ordered) > start + len(shown),
    }


def _without_urls(item: Json) -> Json:
    parts = item.get("content")
    if not isinstance(parts, list):
        return item
    return {**item, "content": [{name: value for name, value in part.items() if name != "image_url"} for part in parts]}

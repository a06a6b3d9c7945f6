"""Recorded conversations with chat providers, led through the bridge."""

import json
from collections.abc import Callable

import msgspec
from msgspec import Raw

from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.profile import ChatProfile
from tests.bridge.chat_reading import said
from tests.bridge.chat_recordings import asked, profile_of
from tests.bridge.recordings import Asked, Json, Object, Recording, objects
from tests.bridge.replay import NOBODY, Conversation, Listener, prompt_of


class ChatConversation(Conversation):
    """One with a chat provider."""

    def __init__(self, profile: ChatProfile) -> None:
        super().__init__(lambda extra: _dialect(profile, extra))

    def read(self, message: Object) -> list[Object]:
        """The items of an assistant message that a provider once gave as an answer."""
        names = dict.fromkeys(objects([call["function"]])[0]["name"] for call in objects(message.get("tool_calls", [])))
        offered: Json = [{"type": "function", "name": name} for name in names]
        choice: Json = [{"index": 0, "message": message, "finish_reason": "stop"}]
        request = Asked({"model": "model", "tools": offered}, [], {})
        return self.answer(request, [NOBODY], json.dumps({"choices": choice}).encode())


def _dialect(profile: ChatProfile, extra: Object) -> ChatDialect:
    raws = {name: Raw(json.dumps(value).encode()) for name, value in extra.items()}
    return ChatDialect(msgspec.structs.replace(profile, extra=raws))


def listeners(exchange: Recording) -> Callable[[], Listener]:
    """Makes listeners for the answer of a recording, with the tools that were on offer, or else those it calls."""
    if exchange.request is not None:
        request = asked(exchange.said, lambda message: [])
    else:
        names = dict.fromkeys(call.name for call in said(exchange).calls)
        offered: Json = [{"type": "function", "name": name} for name in names]
        request = Asked({"model": "model", "tools": offered}, [], {})
    dialect = ChatDialect(profile_of(exchange))
    prompt = prompt_of(dialect, request, [NOBODY])
    return lambda: Listener(dialect, prompt)

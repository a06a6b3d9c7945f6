"""Recorded conversations with Gemini, led through the bridge."""

import json
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw

from rejoinder.bridge.gemini import GeminiDialect
from rejoinder.bridge.gemini_profile import GeminiProfile
from tests.bridge.gemini_reading import said
from tests.bridge.gemini_recordings import model_of, parameters_of, profile_of
from tests.bridge.recordings import Asked, Json, Object, Recording, objects
from tests.bridge.replay import NOBODY, Conversation, Listener, prompt_of


class GeminiConversation(Conversation):
    """One with Gemini."""

    def __init__(self, profile: GeminiProfile) -> None:
        super().__init__(lambda extra: _dialect(profile, extra))

    def read(self, content: Object) -> list[Object]:
        """The items of a content that the model once gave as an answer."""
        if content["parts"] == [{"text": ""}]:
            return []  # an empty message is none
        called = objects([part["functionCall"] for part in objects(content["parts"]) if "functionCall" in part])
        request = Asked({"model": "gemini", "tools": _declared(str(call["name"]) for call in called)}, [], {})
        body = {"candidates": [{"content": content, "finishReason": "STOP"}]}
        return self.answer(request, [NOBODY], json.dumps(body).encode())


def _declared(names: Iterable[str]) -> Json:
    return [{"type": "function", "name": name} for name in dict.fromkeys(names)]


def _dialect(profile: GeminiProfile, extra: Object) -> GeminiDialect:
    raws = {name: Raw(json.dumps(value).encode()) for name, value in extra.items() if name != "tools"}
    tools = tuple(Raw(json.dumps(tool).encode()) for tool in objects(extra.get("tools", [])))
    return GeminiDialect(msgspec.structs.replace(profile, extra=raws, tools=tools))


def request_of(exchange: Recording) -> Asked:
    """What was asked, without the conversation: with the tools that were on offer, or else those the answer calls."""
    if exchange.request is not None:
        return parameters_of(exchange)
    return Asked({"model": model_of(exchange), "tools": _declared(call.name for call in said(exchange).calls)}, [], {})


def listeners(exchange: Recording) -> Callable[[], Listener]:
    """Makes listeners for the answer of a recording."""
    request = request_of(exchange)
    dialect = _dialect(profile_of(exchange), request.extra)
    prompt = prompt_of(dialect, request, [NOBODY])
    return lambda: Listener(dialect, prompt)

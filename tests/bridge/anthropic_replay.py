"""Recorded conversations with Anthropic and servers that speak like it, led through the bridge."""

import json
from collections.abc import Callable

import msgspec
from msgspec import Raw

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from tests.bridge.anthropic_reading import said
from tests.bridge.anthropic_recordings import asked
from tests.bridge.recordings import Asked, Json, Object, Recording, objects
from tests.bridge.replay import NOBODY, Conversation, Listener, prompt_of


def profile_of(exchange: Recording) -> AnthropicProfile:
    """The settings of the server that was asked: Anthropic's own, or those of Ollama, which caches nothing."""
    return AnthropicProfile(caching="none") if exchange.host.startswith("localhost") else AnthropicProfile()


class AnthropicConversation(Conversation):
    def __init__(self, profile: AnthropicProfile) -> None:
        super().__init__(lambda extra: dialect(profile, extra))

    def read(self, blocks: list[Object]) -> list[Object]:
        """The items of an assistant message that the provider once gave as an answer."""
        answer: Object = {"type": "message", "content": [*blocks], "stop_reason": "end_turn"}
        return self.answer(_offering(blocks), [NOBODY], json.dumps(answer).encode())


def dialect(profile: AnthropicProfile, extra: Object) -> AnthropicDialect:
    """One whose requests all have the same further fields and server tools."""
    raws = {name: Raw(json.dumps(value).encode()) for name, value in extra.items() if name != "server_tools"}
    tools = tuple(Raw(json.dumps(tool).encode()) for tool in objects(extra.get("server_tools", [])))
    return AnthropicDialect(msgspec.structs.replace(profile, extra=raws, server_tools=tools))


def _offering(blocks: list[Object]) -> Asked:
    names = dict.fromkeys(block["name"] for block in blocks if block["type"] == "tool_use")
    offered: Json = [{"type": "function", "name": name} for name in names]
    return Asked({"model": "model", "tools": offered}, [], {})


def listeners(exchange: Recording) -> Callable[[], Listener]:
    """Makes listeners for the answer of a recording, with the tools that were on offer, or else those it calls."""
    request = _offering(said(exchange).blocks)
    if exchange.request is not None:
        request = asked(exchange.said, lambda blocks: [])
    speaker = dialect(profile_of(exchange), request.extra)
    prompt = prompt_of(speaker, request, [NOBODY])
    return lambda: Listener(speaker, prompt)

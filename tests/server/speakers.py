"""The four kinds of providers, and what each of them says in bytes that no script has a word for.

A stream here is broken on purpose in the middle of a frame, or says one thing too many. Whole answers and refusals are
written by the scripted providers themselves.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.responses import ResponsesUpstream

Upstream: TypeAlias = ChatUpstream | AnthropicUpstream | GeminiUpstream | ResponsesUpstream


@dataclass(frozen=True, slots=True)
class Speaker:
    """A provider of one dialect. `frame` writes one event, `said` and `wrong` are events: a piece of text, an error."""

    dialect: Literal["chat", "anthropic", "gemini", "responses"]
    provider: type[Upstream]
    model: str
    frame: Callable[[Json], bytes]
    opening: tuple[Json, ...]
    said: Callable[[str], Json]
    wrong: Callable[[str], Json]
    unsaid: tuple[Json, ...]
    """The events of an answer that is over before anything was said."""

    @property
    def hello(self) -> bytes:
        """A stream up to its first piece of text, `Hel`."""
        return b"".join(self.frame(event) for event in (*self.opening, self.said("Hel")))

    def open_frame(self, text: bytes) -> bytes:
        """A frame that says this text, as JSON has it, and stops inside of it."""
        before, _, _ = self.frame(self.said("#")).partition(b"#")
        return before + text

    def failing(self, message: str) -> bytes:
        return self.frame(self.wrong(message))

    @property
    def silent(self) -> bytes:
        return b"".join(self.frame(event) for event in self.unsaid)


def _data(event: Json) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _named(event: Json) -> bytes:
    assert isinstance(event, dict)
    return f"event: {event['type']}\n".encode() + _data(event)


def _google(event: Json) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\r\n\r\n"


def _candidate(text: str) -> Json:
    return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}]}


_PLACE: dict[str, Json] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
_RESPONSE: dict[str, Json] = {"id": "resp_1", "object": "response", "output": []}
_MESSAGE: Json = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}

CHAT = Speaker(
    "chat",
    ChatUpstream,
    "test-model",
    frame=_data,
    opening=(),
    said=lambda text: {"choices": [{"delta": {"content": text}}]},
    wrong=lambda message: {"error": {"message": message, "code": message, "param": message}},
    unsaid=({"choices": [{"delta": {}, "finish_reason": "stop"}]},),
)

ANTHROPIC = Speaker(
    "anthropic",
    AnthropicUpstream,
    "claude-sonnet-4-5",
    frame=_named,
    opening=(
        {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ),
    said=lambda text: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
    wrong=lambda message: {"type": "error", "error": {"type": message, "message": message}, "request_id": message},
    unsaid=({"type": "message_start", "message": {"content": []}}, {"type": "message_stop"}),
)

GEMINI = Speaker(
    "gemini",
    GeminiUpstream,
    "gemini-3-flash",
    frame=_google,
    opening=(),
    said=_candidate,
    wrong=lambda message: {"error": {"code": 500, "message": message, "status": message}},
    unsaid=({"candidates": [{"content": {}, "finishReason": "STOP", "index": 0}]},),
)

RESPONSES = Speaker(
    "responses",
    ResponsesUpstream,
    "gpt-5.4",
    frame=_named,
    opening=(
        {"type": "response.created", "response": {**_RESPONSE, "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": _MESSAGE},
        {
            "type": "response.content_part.added",
            **_PLACE,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
    ),
    said=lambda text: {"type": "response.output_text.delta", **_PLACE, "delta": text},
    wrong=lambda message: {"type": "error", "error": {"type": message, "code": message, "message": message}},
    unsaid=({"type": "response.completed", "response": {**_RESPONSE, "status": "completed"}},),
)

SPEAKERS: Mapping[str, Speaker] = {speaker.dialect: speaker for speaker in (CHAT, ANTHROPIC, GEMINI, RESPONSES)}

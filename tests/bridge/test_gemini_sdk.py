"""Google's own SDK accepts what we send: its request models know every name in our bodies, and the types it sends and
reads are those we read and send."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel

from rejoinder.bridge.gemini_profile import GeminiProfile
from tests.bridge.gemini_recordings import asked, camel, in_lower_case, method_of, profile_of
from tests.bridge.gemini_replay import GeminiConversation
from tests.bridge.recordings import Asked, Json, Object, Recording, needs_recordings, objects, recordings

pytestmark = needs_recordings

REQUESTS = [one for one in recordings("gemini") if "enerateContent" in method_of(one)]

SCHEMA: Object = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
PICTURE = "data:image/png;base64,aGk="


def everything(model: str) -> Asked:
    """A request that needs every word we have."""
    tools: Json = [
        {"type": "web_search"},
        {"type": "function", "name": "f", "description": "Does f.", "parameters": SCHEMA, "strict": True},
        {"type": "custom", "name": "free"},
        {"type": "apply_patch"},
    ]
    shown: Json = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PICTURE}]
    parameters: Object = {
        "model": model,
        "instructions": "Be brief.",
        "tools": tools,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 4000,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "top_logprobs": 2,
        "reasoning": {"effort": "low", "summary": "auto"},
        "service_tier": "flex",
        "user": "u",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
    }
    items: list[Object] = [
        {
            "type": "message",
            "role": "user",
            "content": [*objects(shown), {"type": "input_file", "file_url": "gs://b/x.pdf"}],
        },
        {"type": "message", "role": "assistant", "content": "Well."},
        {"type": "message", "role": "developer", "content": "Hurry."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":"b"}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "free", "input": "text"},
        {"type": "function_call_output", "call_id": "c1", "output": shown},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "boom", "status": "incomplete"},
    ]
    return Asked(parameters, items, {})


PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("systemInstruction", types.Content),
    ("toolConfig", types.ToolConfig),
    ("generationConfig", types.GenerateContentConfig),
)
LISTS: tuple[tuple[str, type[BaseModel]], ...] = (("contents", types.Content), ("tools", types.Tool))
OTHERS = ("labels", "serviceTier", "safetySettings", "cachedContent")
"""Names of GenerateContentConfig that stand beside its others on the wire."""

UNKNOWN = ("modelArmorConfig",)
"""What clients of Vertex send that the types of version 3.4 do not have."""


def accepted(body: Object) -> None:
    """Raises ValidationError for a name the types do not know: they forbid what they have no field for."""
    for name, kind in PARTS:
        if name in body:
            kind.model_validate(body[name])
    for name, kind in LISTS:
        for one in objects(body.get(name, [])):
            kind.model_validate(one)
    rest = {name: body[name] for name in body if name in OTHERS}
    types.GenerateContentConfig.model_validate(rest)
    known = {*OTHERS, *(name for name, _ in (*PARTS, *LISTS))}
    assert body.keys() - known <= {*UNKNOWN}


@pytest.mark.parametrize("exchange", REQUESTS, ids=[one.name for one in REQUESTS])
def test_every_recorded_request_as_we_say_it_is_one_of_the_sdks(exchange: Recording) -> None:
    conversation = GeminiConversation(profile_of(exchange))
    request = asked(exchange, conversation.read)

    [body] = objects([json.loads(conversation.call(request).body)])

    accepted(body)


@pytest.mark.parametrize("model", ["gemini-2.0-flash", "gemini-2.5-pro", "gemini-3-flash-preview"])
def test_every_word_we_have_is_one_of_the_sdks(model: str) -> None:
    conversation = GeminiConversation(GeminiProfile(logprobs=True, labels=True))

    [body] = objects([json.loads(conversation.call(everything(model)).body)])

    accepted(body)


def test_the_types_would_object_to_a_name_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="thoughtSign"):
        accepted({"contents": [{"role": "user", "parts": [{"text": "a", "thoughtSign": "b"}]}]})


# The SDK's own client, on a real socket.

ANSWER = (
    b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"Hel"}]}}]}\r\n\r\n'
    b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"lo"}]},"finishReason":"STOP"}]}\r\n\r\n'
)


class _Server(ThreadingHTTPServer):
    """Answers everything with one stream, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sent: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.sent.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("model", ["gemini-2.0-flash", "gemini-2.5-pro", "gemini-3-flash-preview"])
def test_the_sdk_sends_what_we_send(model: str) -> None:
    call = GeminiConversation(GeminiProfile(logprobs=True)).call(everything(model))
    [ours] = objects([json.loads(call.body)])
    config = {name: value for name, value in ours.items() if name not in ("contents", "generationConfig")}
    [generation] = objects([ours["generationConfig"]])

    with serving() as server:
        client = genai.Client(api_key="key", http_options=types.HttpOptions(base_url=server.url, api_version="v1beta"))
        stream = client.models.generate_content_stream(
            model=model,
            contents=[types.Content.model_validate(content) for content in objects(ours["contents"])],
            config=types.GenerateContentConfig.model_validate({**config, **generation}),
        )
        text = "".join(chunk.text or "" for chunk in stream)
        client.close()

    [(path, body)] = server.sent
    [theirs] = objects([json.loads(body)])
    assert path == f"/v1beta{call.path}"
    # Both cases of a name, and of a type, are one to the API (§2).
    assert in_lower_case(camel(theirs)) == in_lower_case(ours)
    assert text == "Hello"

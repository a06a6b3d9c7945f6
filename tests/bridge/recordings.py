"""Real exchanges with chat providers, read where they lie, and what a client of ours would have asked.

A recording is one request and its answer (see the README of the recordings). Requests are in the provider's words;
`asked` turns one into the body of a create call, so that the bridge can be asked to say it again. That translation
shares no code with the bridge, with one exception: opaque state of reasoning has a meaning to the bridge alone, so an
assistant message that carries some is handed to `read`, which makes items of it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.profile import ChatProfile
from rejoinder.server.vendors import BY_NAME, guess

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "recordings" / "chat"
"""`../shared/recordings/chat`, seen from the project."""

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Object: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange. `conversation` is the source it was cut from and `turn` its place in there, from 1; `host` is empty
    and `request` None where the source kept no request."""

    name: str
    conversation: str
    turn: int
    host: str
    request: bytes | None
    status: int
    headers: Mapping[str, str]
    is_stream: bool
    body: bytes

    @property
    def said(self) -> Object:
        """The request as JSON."""
        assert self.request is not None
        return objects([json.loads(self.request)])[0]

    @property
    def vendor(self) -> str:
        """The row of the vendor table this provider belongs to; empty for those without one."""
        host, _, port = self.host.partition(":")
        found = guess(host, int(port) if port else None, loopback=host == "localhost")
        return found.name if found is not None else _VENDORS.get(self.host or self.name, "")

    @property
    def profile(self) -> ChatProfile:
        return BY_NAME[self.vendor].profile if self.vendor else ChatProfile()


_VENDORS = {
    "localhost:8000": "vllm",
    "ollama.com": "ollama",
    # Fixtures without an address.
    "alibaba-reasoning-ver": "qwen",
    "azure-model-router-1-stream-ver": "azure",
    "compat-xai-tool-call-stream-ver": "xai",
    "deepseek-tool-call-stream-ver": "deepseek",
    "mistral-incremental-tool-call-stream-ver": "mistral",
    "moonshotai-reasoning-ver": "moonshot",
    "moonshotai-stream-stream-ver": "moonshot",
    "perplexity-citations-stream-ver": "perplexity",
    "reasoning-model-legacy-parameter-error-ver": "openai",
    "xai-tool-call-stream-ver": "xai",
}


class _Answer(Struct):
    status: int
    content_type: str
    body: str
    headers: dict[str, str] = {}


class _File(Struct):
    source: str
    request: Raw
    response: _Answer
    url: str | None = None


@cache
def recordings() -> tuple[Recording, ...]:
    """All of them, in the order of their names; none where the folder is missing."""
    return tuple(_recording(path) for path in sorted(FOLDER.glob("*.json")))


def recording(name: str) -> Recording:
    """The one whose file name begins so."""
    [found] = [recording for recording in recordings() if recording.name.startswith(name)]
    return found


def conversations() -> list[tuple[Recording, ...]]:
    """Those that follow one another in their source, each list in the order of their turns."""
    grouped: dict[str, list[Recording]] = {}
    for one in recordings():
        grouped.setdefault(one.conversation, []).append(one)
    ordered = [tuple(sorted(group, key=lambda one: one.turn)) for group in grouped.values()]
    return [group for group in ordered if len(group) > 1]


def _recording(path: Path) -> Recording:
    file = _FILE.decode(path.read_bytes())
    source = _SOURCE.fullmatch(file.source)
    assert source is not None, file.source
    request = bytes(file.request)
    return Recording(
        name=path.stem,
        conversation=source["path"],
        turn=int(source["turn"] or 1),
        host=urlsplit(file.url or "").netloc,
        request=request if request != b"null" else None,
        status=file.response.status,
        headers=file.response.headers,
        is_stream=file.response.content_type == "text/event-stream",
        body=file.response.body.encode(),
    )


_FILE = msgspec.json.Decoder(_File)
_SOURCE = re.compile(r"(?P<path>.*)@[0-9a-f]+(?: \(interaction (?P<turn>\d+) of \d+\))?")


Read: TypeAlias = Callable[[Object], list[Object]]
"""Makes items of an assistant message that carries reasoning."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A recorded request as a create call: its parameters without `input`, the input, and the parameters the API has
    no word for. Those are settings of an upstream (mapping.md §1, last row)."""

    parameters: Object
    items: list[Object]
    extra: Object

    def body(self, items: Sequence[Object] | None = None) -> bytes:
        """The body of the call, with other items if there are some."""
        return json.dumps({**self.parameters, "input": list(items if items is not None else self.items)}).encode()


_SAME = ("model", "stream", "temperature", "top_p", "presence_penalty", "frequency_penalty", "parallel_tool_calls",
         "prompt_cache_key", "prompt_cache_options")  # fmt: skip
_OURS = ("messages", "n", "stream_options")
"""The conversation, and what a bridge decides: one choice, and usage with every stream."""

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def asked(request: Object, read: Read) -> Asked:
    """What a client would send for this request."""
    parameters: Object = {}
    extra: Object = {}
    for name, value in request.items():
        if value is None or name in _OURS:
            continue
        match name, value:
            case "max_tokens" | "max_completion_tokens", _:
                parameters["max_output_tokens"] = value
            case "tools", list() if all("function" in tool for tool in objects(value)):
                parameters["tools"] = [{**_object(tool["function"]), "type": "function"} for tool in objects(value)]
            case "tool_choice", {"type": "function", "function": {"name": function}}:
                parameters["tool_choice"] = {"type": "function", "name": function}
            case "tool_choice", _:
                parameters["tool_choice"] = value
            case "response_format", {"type": "json_schema", "json_schema": schema}:
                # The API wants a name, some providers do not.
                parameters["text"] = {"format": {"name": "result", **_object(schema), "type": "json_schema"}}
            case "response_format", _:
                parameters["text"] = {"format": value}
            case "reasoning_effort", str() if value in _EFFORTS and "thinking" not in request:
                parameters["reasoning"] = {"effort": value}
            case "reasoning", {"effort": effort, **rest} if not rest:
                parameters["reasoning"] = {"effort": effort}
            case _ if name in _SAME:
                parameters[name] = value
            case _:
                extra[name] = value
    return Asked(parameters, list(said_in(objects(request["messages"]), read)), extra)


def said_in(messages: Sequence[Object], read: Read) -> Iterator[Object]:
    """The items of some messages."""
    for message in messages:
        match message["role"]:
            case "assistant" if message.keys() - {"role", "content", "tool_calls"}:
                yield from read(message)
            case "assistant":
                yield from _assistant(message)
            case "tool":
                yield {
                    "type": "function_call_output",
                    "call_id": message["tool_call_id"],
                    "output": message["content"],
                }
            case role:
                yield {"type": "message", "role": role, "content": _content(message["content"])}


def _assistant(message: Object) -> Iterator[Object]:
    if message.get("content"):
        yield {"type": "message", "role": "assistant", "content": message["content"]}
    for call in objects(message.get("tool_calls") or []):
        function = _object(call["function"])
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": function["arguments"],
        }


def _content(content: Json) -> Json:
    return [_part(part) for part in objects(content)] if isinstance(content, list) else content


def _part(part: Object) -> Object:
    match part:
        case {"type": "text", "text": text, "prompt_cache_breakpoint": mark}:
            return {"type": "input_text", "text": text, "prompt_cache_breakpoint": mark}
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": url}} | {"type": "image_url", "image_url": str(url)}:
            return {"type": "input_image", "image_url": url}
        case {"type": "file", "file": {"file_data": data, "filename": name}}:
            return {"type": "input_file", "file_data": data, "filename": name}
        case {"type": "input_audio", "input_audio": audio}:
            return {"type": "input_audio", "input_audio": audio}
        case _:
            raise AssertionError(f"a content part of a kind no recording had: {part}")


def objects(value: Json) -> list[Object]:
    """The elements of a list of objects."""
    assert isinstance(value, list), value
    return [_object(element) for element in value]


def _object(value: Json) -> Object:
    assert isinstance(value, dict), value
    return value

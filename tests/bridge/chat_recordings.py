"""What a client of ours would have asked, for a recorded request in the words of Chat Completions.

The translation shares no code with the bridge, with one exception: opaque state of reasoning has a meaning to the
bridge alone, so an assistant message that carries some is handed to `read`, which makes items of it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from rejoinder.bridge.profile import ChatProfile
from rejoinder.server.vendors import guess, known
from tests.bridge.recordings import Asked, Json, Object, Recording, objects


def vendor_of(exchange: Recording) -> str:
    """The row of the vendor table this provider belongs to; empty for those without one."""
    host, _, port = exchange.host.partition(":")
    found = guess(host, int(port) if port else None, loopback=host == "localhost")
    return found.name if found is not None else _VENDORS.get(exchange.host or exchange.name, "")


def profile_of(exchange: Recording) -> ChatProfile:
    """How that vendor is asked, and how an unknown one is."""
    name = vendor_of(exchange)
    profile = known()[name].endpoint("chat", "").profile if name else ChatProfile()
    assert isinstance(profile, ChatProfile)
    return profile


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


Read: TypeAlias = Callable[[Object], list[Object]]
"""Makes items of an assistant message that carries reasoning."""


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
                parameters["tools"] = [{**_one(tool["function"]), "type": "function"} for tool in objects(value)]
            case "tool_choice", {"type": "function", "function": {"name": function}}:
                parameters["tool_choice"] = {"type": "function", "name": function}
            case "tool_choice", _:
                parameters["tool_choice"] = value
            case "response_format", {"type": "json_schema", "json_schema": schema}:
                # The API wants a name, some providers do not.
                parameters["text"] = {"format": {"name": "result", **_one(schema), "type": "json_schema"}}
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
        function = _one(call["function"])
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


def _one(value: Json) -> Object:
    [found] = objects([value])
    return found

"""How the little bridge reads a request, and how it tells it to a provider of Chat Completions."""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

Json = Any  # JSON as dicts and lists: faults reach for it at every depth


class Bad(Exception):
    """Raised when a request is none."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "input": (str, list),
    "tools": list,
    "instructions": (str, type(None)),
    "previous_response_id": (str, type(None)),
}


def check(asked: Json) -> None:
    """Raises Bad when a field is of another kind than it should be."""
    for name, kind in _KINDS.items():
        if name in asked and not isinstance(asked[name], kind):
            raise Bad(f"'{name}' is wrong", name)


def items_of(given: Json) -> list[Json]:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return [{"type": "message", **item} for item in given]


_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def check_pairs(items: Sequence[Json]) -> None:
    """Raises Bad unless every call has its output behind it, and every output its call."""
    waiting: list[str] = []
    for item in items:
        if item["type"] in _CALLS:
            waiting.append(item["call_id"])
        elif item["type"] in _OUTPUTS:
            if item["call_id"] not in waiting:
                raise Bad(f"No tool call found for function call output with call_id {item['call_id']}.", "input")
            waiting.remove(item["call_id"])
    if waiting:
        raise Bad(f"No tool output found for function call {waiting[0]}.", "input")


def seal(fields: Json) -> str:
    """The reasoning of an assistant message, as a client keeps it."""
    return b64encode(msgspec.json.encode(fields)).decode()


def unseal(sealed: str) -> Json:
    return msgspec.json.decode(b64decode(sealed))


def body_of(asked: Json, items: Sequence[Json]) -> Json:
    """The body for the provider. The same items are the same bytes again: nothing in them hangs on the time."""
    tools = [_tool(tool) for tool in asked.get("tools", [])]
    body: Json = {"model": "test-model", "tools": tools, "messages": list(messages_of(asked, items))}
    if tools:
        body["tool_choice"] = _choice(asked.get("tool_choice", "auto"))
        body["parallel_tool_calls"] = asked.get("parallel_tool_calls", True)
    form = asked.get("text", {}).get("format", {"type": "text"})
    if form["type"] == "json_schema":
        nested = {name: form[name] for name in ("name", "schema", "strict")}
        body["response_format"] = {"type": "json_schema", "json_schema": nested}
    body |= {
        "max_tokens": asked.get("max_output_tokens"),
        "temperature": asked.get("temperature"),
        "top_p": asked.get("top_p"),
        "reasoning_effort": asked.get("reasoning", {}).get("effort"),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return {name: value for name, value in body.items() if value not in (None, [])}


def _tool(tool: Json) -> Json:
    text = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    empty = {"type": "object", "properties": {}}
    parameters = text if tool["type"] == "custom" else tool.get("parameters") or empty
    return {
        "type": "function",
        "function": {"name": tool["name"], "description": tool.get("description", ""), "parameters": parameters},
    }


def _choice(choice: Json) -> Json:
    return choice if isinstance(choice, str) else {"type": "function", "function": {"name": choice["name"]}}


def messages_of(asked: Json, items: Sequence[Json]) -> Iterator[Json]:
    """The messages: what the assistant says, thinks and calls in a row is one."""
    if asked.get("instructions"):
        yield {"role": "system", "content": asked["instructions"]}
    turn: Json = None
    for item in items:
        is_assistant = item["type"] in (*_CALLS, "reasoning") or item.get("role") == "assistant"
        if turn is not None and not is_assistant:
            yield turn
            turn = None
        if is_assistant:
            turn = turn or {"role": "assistant", "content": None}
            _add(turn, item)
        else:
            yield _message(item)
    if turn is not None:
        yield turn


def _add(turn: Json, item: Json) -> None:
    match item["type"]:
        case "reasoning":
            turn |= unseal(item["encrypted_content"])
        case "message":
            turn["content"] = (turn["content"] or "") + _text(item["content"])
        case "function_call":
            _call(turn, item, item["arguments"])
        case _:
            _call(turn, item, msgspec.json.encode({"input": item["input"]}).decode())


def _call(turn: Json, item: Json, arguments: str) -> None:
    function = {"name": item["name"], "arguments": arguments}
    turn.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})


def _message(item: Json) -> Json:
    if item["type"] in _OUTPUTS:
        return {"role": "tool", "tool_call_id": item["call_id"], "content": _text(item["output"])}
    if item["type"] == "compaction":
        return {"role": "system", "content": unseal(item["encrypted_content"])["summary"]}
    role = "system" if item["role"] == "developer" else item["role"]
    content = item["content"]
    return {"role": role, "content": content if isinstance(content, str) else [_part(part) for part in content]}


def _part(part: Json) -> Json:
    match part["type"]:
        case "input_image":
            return {"type": "image_url", "image_url": {"url": part["image_url"]}}
        case "input_file":
            return {"type": "file", "file": {"filename": part["filename"], "file_data": part["file_data"]}}
        case _:
            return {"type": "text", "text": part["text"]}


def _text(content: Json) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)

"""What a client of ours would have asked, for a recorded request in the words of Anthropic's Messages.

The translation shares no code with the bridge, with one exception: blocks the provider wants back as they came have a
meaning to the bridge alone, so an assistant message that holds some is handed to `read`, which makes items of it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from tests.bridge.recordings import Asked, Json, Object, Recording, objects

Read: TypeAlias = Callable[[list[Object]], list[Object]]
"""Makes items of the blocks of an assistant message."""

EFFORTS: dict[Json, str] = {1024: "minimal"}
"""Budgets of thinking that an effort stands for (provider-anthropic.md §5)."""


def is_count(exchange: Recording) -> bool:
    """Whether tokens were counted, and nothing answered."""
    return "/count_tokens" in exchange.url


def asked(request: Object, read: Read) -> Asked:
    """What a client would send for this request."""
    parameters: Object = {}
    extra: Object = {}
    leading: list[Object] = []
    for name, value in request.items():
        match name, value:
            case _, None:
                pass
            case (("model" | "stream" | "temperature" | "top_p"), _):
                parameters[name] = value
            case "max_tokens", _:
                parameters["max_output_tokens"] = value
            case "system", str():
                parameters["instructions"] = value
            case "system", _:
                leading = [_message("developer", [_part(block)]) for block in objects(value)]
            case "tools", _:
                _tools(objects(value), parameters, extra)
            case "tool_choice", dict():
                _choice(value, parameters)
            case "thinking", {"type": "enabled", "budget_tokens": tokens, "display": "summarized"} if tokens in EFFORTS:
                parameters["reasoning"] = {"effort": EFFORTS[tokens], "summary": "auto"}
            case "thinking", {"type": "enabled", "budget_tokens": tokens} if tokens in EFFORTS:
                parameters["reasoning"] = {"effort": EFFORTS[tokens]}
            case "thinking", {"type": "adaptive", "display": "summarized"}:
                parameters["reasoning"] = {**_reasoning(parameters), "summary": "auto"}
            case "output_config", {"effort": effort}:
                parameters["reasoning"] = {**_reasoning(parameters), "effort": effort}
            case "output_config", {"format": {"schema": schema}}:
                # The API wants a name, the provider does not.
                parameters["text"] = {"format": {"type": "json_schema", "name": "result", "schema": schema}}
            case "cache_control", {"type": "ephemeral", "ttl": "5m"}:
                pass  # what is done anyway
            case "messages", _:
                pass
            case _:
                extra[name] = value
    _room_for_thinking(request, parameters)
    if "effort" in _reasoning(parameters) and request.get("thinking") == {"type": "adaptive"}:
        del extra["thinking"]
    return Asked(parameters, [*leading, *said_in(objects(request["messages"]), read)], extra)


def _reasoning(parameters: Object) -> Object:
    [reasoning] = objects([parameters.get("reasoning", {})])
    return reasoning


def _room_for_thinking(request: Object, parameters: Object) -> None:
    """A budget is part of the provider's limit, and beside ours."""
    match request:
        case {"thinking": {"budget_tokens": int(tokens)}, "max_tokens": int(most)} if tokens in EFFORTS:
            parameters["max_output_tokens"] = most - tokens


def _tools(tools: Sequence[Object], parameters: Object, extra: Object) -> None:
    declared: list[Json] = []
    others: list[Json] = []
    for tool in tools:
        match tool:
            case {"type": "web_search_20250305", "allowed_domains": list(domains)}:
                declared.append({"type": "web_search", "filters": {"allowed_domains": domains}})
            case {"type": "web_search_20250305"}:
                declared.append({"type": "web_search"})
            case {"input_schema": schema, "name": name}:
                function: Object = {"type": "function", "name": name, "parameters": schema}
                function.update({key: tool[key] for key in ("description", "strict") if key in tool})
                declared.append(function)
            case _:
                others.append(tool)
    if declared:
        parameters["tools"] = declared
    if others:
        extra["server_tools"] = others


def _choice(choice: Object, parameters: Object) -> None:
    choices: dict[Json, Json] = {"auto": "auto", "any": "required", "none": "none"}
    if choice["type"] == "tool":
        parameters["tool_choice"] = {"type": "function", "name": choice["name"]}
    else:
        parameters["tool_choice"] = choices[choice["type"]]
    if choice.get("disable_parallel_tool_use"):
        parameters["parallel_tool_calls"] = False


def said_in(messages: Sequence[Object], read: Read) -> Iterator[Object]:
    """The items of some messages."""
    for message in messages:
        match message:
            case {"role": "assistant", "content": list(content)}:
                yield from _assistant(objects(content), read)
            case {"role": "system", "content": list(content)}:
                if said := [_part(block) for block in objects(content) if block["type"] == "text"]:
                    yield _message("developer", [*said])
            case {"role": role, "content": str(text)}:
                yield _message(role, text)
            case {"role": role, "content": list(content)}:
                yield from _user(role, objects(content))


def _assistant(blocks: list[Object], read: Read) -> Iterator[Object]:
    if any(block["type"] not in ("text", "tool_use") for block in blocks):
        yield from read(blocks)
        return
    for block in blocks:
        if block["type"] == "text":
            yield _message("assistant", block["text"])
        else:
            arguments = json.dumps(block["input"])
            call = {"call_id": block["id"], "name": block["name"], "arguments": arguments}
            yield {"type": "function_call", **call}


def _user(role: Json, blocks: Sequence[Object]) -> Iterator[Object]:
    said: list[Json] = []
    for block in blocks:
        if block["type"] == "tool_result":
            content = block["content"]
            output: Json = content if isinstance(content, str) else [_part(inner) for inner in objects(content)]
            status = {"status": "incomplete"} if block.get("is_error") else {}
            yield {"type": "function_call_output", "call_id": block["tool_use_id"], "output": output, **status}
        else:
            said.append(_part(block))
    if said:
        yield _message(role, said)


def _message(role: Json, content: Json) -> Object:
    return {"type": "message", "role": role, "content": content}


def _part(block: Object) -> Object:
    match block:
        case {"type": "text", "text": text, "cache_control": _}:
            return {"type": "input_text", "text": text, "prompt_cache_breakpoint": {"mode": "explicit"}}
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case {"type": "image", "source": {"media_type": kind, "data": data}}:
            return {"type": "input_image", "image_url": f"data:{kind};base64,{data}"}
        case {"type": "document", "source": {"type": "base64", "data": data}, **rest}:
            return {"type": "input_file", "file_data": f"data:application/pdf;base64,{data}", **_named(rest)}
        case {"type": "document", "source": {"type": "text", "data": data}, **rest}:
            return {"type": "input_file", "file_data": f"data:text/plain,{data}", **_named(rest)}
        case {"type": "search_result" | "tool_reference"}:
            # There is no such part; what it says is text.
            return {"type": "input_text", "text": json.dumps(block)}
        case _:
            raise AssertionError(f"a block of a kind no recording had: {block}")


def _named(document: Object) -> Object:
    return {"filename": document["title"]} if "title" in document else {}

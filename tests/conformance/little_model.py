"""What the little server says, in place of a model, and how it is told."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from tests.conformance import little_codex
from tests.conformance.little_exchange import MODEL, NOW, Json, Numbers

_LONG = " and so on" * 30
_SEALED = "sealed"
_WORD = re.compile(rb"\w+")


def words(*values: Json) -> int:
    """How many tokens these are."""
    return len(_WORD.findall(msgspec.json.encode(values)))


def compaction(new: Numbers) -> Json:
    return {"type": "compaction", "id": new("cmp"), "encrypted_content": _SEALED, "status": "completed"}


def output_of(asked: Json, given: Sequence[Json], taken: int, new: Numbers) -> list[Json]:
    """The items that a request is answered with; `taken` are the tokens of all that is read."""
    if given and given[-1]["type"] == "compaction_trigger":
        return [compaction(new)]
    if called := _called(asked):
        return [little_codex.call(tool, new) for tool in called]
    text = _text(asked)
    limit = asked.get("max_output_tokens", 1000)
    said = text.split()
    part = {
        "type": "output_text",
        "text": " ".join(said[:limit]),
        "annotations": [],
        "logprobs": _logprobs(asked, said),
    }
    status = "completed" if len(said) <= limit else "incomplete"
    message = {"type": "message", "id": new("msg"), "role": "assistant", "status": status, "content": [part]}
    thresholds = [rule.get("compact_threshold", 0) for rule in asked.get("context_management", [])]
    return [_thought(new), message, *(compaction(new) for threshold in thresholds if taken > threshold)]


def _thought(new: Numbers) -> Json:
    summary = [{"type": "summary_text", "text": "Hm."}]
    thought = {"type": "reasoning", "id": new("rs"), "summary": summary, "status": "completed"}
    return {**thought, "encrypted_content": _SEALED}


def _called(asked: Json) -> list[Json]:
    tools = asked.get("tools", [])
    match asked.get("tool_choice", "auto"):
        case "required":
            return list(tools[:1])
        case {"type": "function" | "custom", "name": name}:
            return [tool for tool in tools if tool.get("name") == name]
        case {"type": "allowed_tools", "mode": "required", "tools": [{"name": name}]}:
            return [tool for tool in tools if tool.get("name") == name]
        case _:
            return []


def _text(asked: Json) -> str:
    match asked.get("text", {}).get("format", {}):
        case {"type": "json_schema", "schema": {"properties": properties}}:
            return msgspec.json.encode({name: _example(schema) for name, schema in properties.items()}).decode()
        case {"type": "json_object"}:
            return '{"hello": "world"}'
        case _:
            long = any(word in str(asked["input"]) for word in ("Count", "two thousand"))
            return "Hello, I am little" + (_LONG if long else ".")


def _example(schema: Json) -> Json:
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"type": "integer"}:
            return 36
        case _:
            return "Ada"


def _logprobs(asked: Json, said: Sequence[str]) -> list[Json]:
    if "message.output_text.logprobs" not in asked.get("include", ()):
        return []
    alternatives = [{"token": "Oh", "logprob": -2.0, "bytes": [79, 104]}] * asked.get("top_logprobs", 0)
    return [
        {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": alternatives} for word in said
    ]


def response_of(asked: Json, response_id: str, output: list[Json], taken: int) -> Json:
    """The response object, at its end."""
    status = output[-1].get("status", "completed")
    spoken = min(words(output), asked.get("max_output_tokens", 100_000))
    conversation = asked.get("conversation")
    return {
        "id": response_id,
        "object": "response",
        "created_at": NOW,
        "completed_at": NOW + 1 if status == "completed" else None,
        "status": status,
        "background": asked.get("background", False),
        "error": None,
        "incomplete_details": None if status == "completed" else {"reason": "max_output_tokens"},
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "max_tool_calls": asked.get("max_tool_calls"),
        "metadata": asked.get("metadata", {}),
        "model": MODEL,
        "output": output,
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": asked.get("previous_response_id"),
        "conversation": {"id": conversation} if isinstance(conversation, str) else conversation,
        "prompt_cache_key": asked.get("prompt_cache_key"),
        "reasoning": {"effort": asked.get("reasoning", {}).get("effort"), "summary": None},
        "safety_identifier": asked.get("safety_identifier"),
        "service_tier": "default",
        "store": asked.get("store", True),
        "temperature": asked.get("temperature", 1.0),
        "top_p": asked.get("top_p", 1.0),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "text": {"format": asked.get("text", {}).get("format", {"type": "text"})},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": [_echo(tool) for tool in asked.get("tools", [])],
        "top_logprobs": asked.get("top_logprobs", 0),
        "truncation": asked.get("truncation", "disabled"),
        "usage": usage(taken, spoken),
    }


def usage(taken: int, spoken: int) -> Json:
    return {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": spoken,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": taken + spoken,
    }


def _echo(tool: Json) -> Json:
    return {"description": None, "strict": False, "parameters": None, **tool} if tool["type"] == "function" else tool


def begun(response: Json, status: str) -> Json:
    """The response before its end."""
    unknown: Json = {"output": [], "usage": None, "completed_at": None, "incomplete_details": None}
    return {**response, **unknown, "status": status}


def events_of(response: Json) -> Iterator[Json]:
    """The events that tell of a response, numbered."""
    return ({**event, "sequence_number": number} for number, event in enumerate(_unnumbered(response)))


def _unnumbered(response: Json) -> Iterator[Json]:
    queued = ["queued"] if response["background"] else []
    yield {"type": "response.created", "response": begun(response, "queued" if queued else "in_progress")}
    for status in [*queued, "in_progress"]:
        yield {"type": f"response.{status}", "response": begun(response, status)}
    for index, item in enumerate(response["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty = {"content": [], "summary": [], "arguments": "", "input": ""}
        added = {name: empty.get(name, value) for name, value in item.items()} | {"status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": added}
        match item["type"]:
            case "message":
                yield from _of_part(place, item["content"][0])
            case "reasoning":
                yield from _of_summary(place, item["summary"][0])
            case _:
                yield from little_codex.events_of_a_call(place, item)
        yield {"type": "response.output_item.done", "output_index": index, "item": dict(item)}
    yield {"type": f"response.{response['status']}", "response": response}


def _of_part(place: Json, part: Json) -> Iterator[Json]:
    at = {**place, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": "", "logprobs": []}}
    for word in re.findall(r"\s*\S+", part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}


def _of_summary(place: Json, part: Json) -> Iterator[Json]:
    at = {**place, "summary_index": 0}
    yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
    yield {"type": "response.reasoning_summary_text.delta", **at, "delta": part["text"]}
    yield {"type": "response.reasoning_summary_text.done", **at, "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", **at, "part": part}


def framed(event: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))

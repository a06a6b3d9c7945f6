"""An answer in the form of Chat Completions (provider-chat.md §5, §7, §8)."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rejoinder.conformance.upstreams.delivery import at_once, in_pieces, refusal_of
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.script import (
    CREATED,
    Action,
    Answer,
    Calls,
    CallStyle,
    HttpError,
    LegacyCall,
    Native,
    Part,
    Refusal,
    Text,
    Thought,
    ToolCall,
    Unsayable,
    Usage,
)

_ERROR: Json = {
    "error": {"message": "The server had an error", "type": "server_error", "code": "server_error"},
}


def answered(answer: Answer, *, model: str, stream: bool, include_usage: bool) -> Iterator[Action]:
    common: dict[str, Json] = {"id": "chatcmpl-1", "created": CREATED, "model": model}
    if answer.always_json or not stream:
        yield from at_once(json.dumps(_whole(answer, common)).encode(), answer.trouble, json.dumps(_ERROR).encode())
        return
    yield from in_pieces(
        (_frame(common | chunk) for chunk in _chunks(answer, include_usage)),
        answer,
        end=b"data: [DONE]\n\n" if answer.done else b"",
        error=_frame(_ERROR),
        broken=b'data: {"choices": [{"delta": {"content": \n\n' + b"data: [DONE]\n\n",
    )


def refused(error: HttpError) -> Iterator[Action]:
    kind = error.type or "invalid_request_error"
    envelope: Json = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return refusal_of(error, {"error": envelope})


def _frame(value: Json) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _usage(usage: Usage) -> Json:
    written = {"cache_write_tokens": usage.written} if usage.written else {}
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, **written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _whole(answer: Answer, common: dict[str, Json]) -> Json:
    choice: Json = {"index": 0, "message": _message(answer.parts), "finish_reason": answer.finish_reason}
    usage: dict[str, Json] = {} if answer.usage_place == "never" else {"usage": _usage(answer.usage)}
    return {**common, "object": "chat.completion", "choices": [choice], **usage}


def _chunks(answer: Answer, include_usage: bool) -> Iterator[dict[str, Json]]:
    """The chunks without what is the same on all of them."""
    usage: dict[str, Json] = {"usage": _usage(answer.usage)}
    everywhere = usage if answer.usage_place == "every" else {}
    first: dict[str, Json] = {"role": "assistant", "content": ""}
    for delta in (first, *_deltas(answer.parts)):
        yield _chunk({"index": 0, "delta": delta, "finish_reason": None}) | everywhere
    last: dict[str, Json] = {"index": 0, "delta": {}, "finish_reason": answer.finish_reason}
    if answer.usage_place == "choice":
        last |= usage
    yield _chunk(last) | (usage if answer.usage_place in ("finish", "every") else {})
    if answer.usage_place == "after" and include_usage:
        yield {"object": "chat.completion.chunk", "choices": [], **usage}


def _chunk(choice: dict[str, Json]) -> dict[str, Json]:
    return {"object": "chat.completion.chunk", "choices": [choice]}


def _deltas(parts: Iterable[Part]) -> Iterator[Mapping[str, Json]]:
    for part in parts:
        match part:
            case Text(pieces=pieces):
                yield from ({"content": piece} for piece in pieces)
            case Refusal(pieces=pieces):
                yield from ({"refusal": piece} for piece in pieces)
            case Thought(place="reasoning_details"):
                yield from ({"reasoning_details": [one]} for one in _details(part))
            case Thought(pieces=pieces, place=place):
                yield from ({str(place): piece} for piece in pieces)
            case Calls(calls=calls, style=style):
                yield from ({"tool_calls": fragments} for fragments in _call_deltas(calls, style))
            case LegacyCall(name=name, fragments=fragments):
                yield {"function_call": {"name": name, "arguments": ""}}
                yield from ({"function_call": {"arguments": piece}} for piece in fragments)
            case Native():
                raise Unsayable("Chat Completions", part)


def _details(part: Thought) -> Iterator[dict[str, Json]]:
    common: dict[str, Json] = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    for piece in part.pieces:
        yield common | {"text": piece}
    if part.signature is not None:
        yield common | {"signature": part.signature}


def _call_deltas(calls: Sequence[ToolCall], style: CallStyle) -> Iterator[list[Json]]:
    """The arrays of `delta.tool_calls`, one per chunk."""
    each = [_fragments(one, style, position) for position, one in enumerate(calls)]
    if style == "together":
        yield [fragment for fragments in each for fragment in fragments]
    elif style == "interleaved":
        for round_ in range(max(len(fragments) for fragments in each)):
            yield from ([fragments[round_]] for fragments in each if round_ < len(fragments))
    else:
        yield from ([fragment] for fragments in each for fragment in fragments)


def _fragments(one: ToolCall, style: CallStyle, position: int) -> list[Json]:
    indexes = {"same_index": 0, "from_one": position + 1, "gaps": position * 2}
    index: dict[str, Json] = {} if style == "no_index" else {"index": indexes.get(style, position)}
    ids: dict[str, dict[str, Json]] = {"no_id": {}, "empty_id": {"id": ""}}
    head: dict[str, Json] = {**index, **ids.get(style, {"id": one.id}), "type": "function"}
    match style:
        case "whole" | "together":
            return [head | {"function": {"name": one.name, "arguments": one.arguments}}]
        case "object":
            return [head | {"function": {"name": one.name, "arguments": json.loads(one.arguments)}}]
        case "no_arguments":
            return [head | {"function": {"name": one.name}}]
        case "id_everywhere":
            return [head | {"function": {"name": one.name, "arguments": piece}} for piece in one.fragments]
        case "late_name":
            start: list[Json] = [head | {"function": {"arguments": piece}} for piece in one.fragments]
            return [*start, index | {"function": {"name": one.name, "arguments": ""}}]
        case _:
            rest: list[Json] = [index | {"function": {"arguments": piece}} for piece in one.fragments]
            return [head | {"function": {"name": one.name, "arguments": ""}}, *rest]


def _message(parts: Iterable[Part]) -> Json:
    """The message of an answer that is not streamed."""
    message: dict[str, Json] = {"role": "assistant", "content": None}
    for part in parts:
        match part:
            case Text(pieces=pieces):
                before = message["content"]
                message["content"] = (before if isinstance(before, str) else "") + "".join(pieces)
            case Refusal(pieces=pieces):
                message["refusal"] = "".join(pieces)
            case Thought(place="reasoning_details", pieces=pieces):
                entry: dict[str, Json] = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
                entry |= {"text": "".join(pieces), "signature": part.signature}
                message |= {"reasoning": "".join(pieces), "reasoning_details": [entry]}
            case Thought(place=place, pieces=pieces):
                message[place] = "".join(pieces)
            case Calls(calls=calls, style=style):
                message["tool_calls"] = [_whole_call(one, style) for one in calls]
            case LegacyCall(name=name, fragments=fragments):
                message["function_call"] = {"name": name, "arguments": "".join(fragments)}
            case Native():
                raise Unsayable("Chat Completions", part)
    return message


def _whole_call(one: ToolCall, style: CallStyle) -> Json:
    function: dict[str, Json] = {"name": one.name}
    if style != "no_arguments":
        function["arguments"] = json.loads(one.arguments) if style == "object" else one.arguments
    ids: dict[str, dict[str, Json]] = {"no_id": {}, "empty_id": {"id": ""}}
    return {**ids.get(style, {"id": one.id}), "type": "function", "function": function}

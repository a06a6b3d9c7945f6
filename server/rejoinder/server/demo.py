"""A provider inside the process, so that Codex and the SDKs can be tried without a key.

It speaks Chat Completions (provider-chat.md §2–§8) in front of the demo model, refuses histories that a strict server
would refuse, and overlooks fields it does not know. The same request gives the same bytes: ids are made of a hash of
the body, and `created` is 0 because there is no clock. A token is a word.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256

import msgspec

from rejoinder.bridge.dialect import Call
from rejoinder.server.demo_model import Choice, Reply, Request, Wanted, reply_to
from rejoinder.server.upstream import Answer

MODEL = "demo"


class DemoUpstream:
    """The demo model behind the same seam as any provider. It holds nothing, so there is nothing to close."""

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        yield _answer(call)

    async def close(self) -> None:
        return None


def _answer(call: Call) -> Answer:
    match call.path.strip("/"):
        case "models":
            models = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "demo"}]}
            return _json(200, models)
        case "chat/completions":
            try:
                request = msgspec.json.decode(call.body, type=Request)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                return _refused(str(error))
            if (wrong := _objection(request)) is not None:
                return _refused(wrong)
            reply = _shortened(reply_to(request), request.max_completion_tokens or request.max_tokens)
            digest = sha256(call.body).hexdigest()
            if request.stream:
                frames = _frames(request, reply, digest)
                return Answer(200, {"content-type": "text/event-stream"}, _chunks(frames))
            return _json(200, _completion(request, reply, digest))
        case path:
            return _refused(f"unknown path {path!r}", 404)


def _json(status: int, value: Mapping[str, object]) -> Answer:
    return Answer(status, {"content-type": "application/json"}, _chunks([msgspec.json.encode(value)]))


def _refused(message: str, status: int = 400) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return _json(status, {"error": error})


async def _chunks(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _objection(request: Request) -> str | None:
    """Why a strict provider would refuse the request, or None (provider-chat.md §3 Ordering, §4)."""
    names = [tool.function.name for tool in request.tools or []]
    if len({*names}) < len(names):
        return "tool names must be unique"
    if not names and (request.tool_choice is not None or request.parallel_tool_calls is not None):
        return "'tool_choice' and 'parallel_tool_calls' are only allowed when 'tools' are specified"
    if isinstance(request.tool_choice, Choice) and request.tool_choice.function.name not in names:
        return f"expected 'tool_choice' to name a declared tool, got {request.tool_choice.function.name!r}"
    waiting: list[str] = []
    for message in request.messages:
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            waiting.remove(message.tool_call_id)
            continue
        if waiting:
            break
        if message.content is None and not message.refusal and (message.role != "assistant" or not message.tool_calls):
            return f"expected content in a message with role {message.role!r}, got null"
        waiting = [call.id for call in message.tool_calls or []]
        if len({*waiting}) < len(waiting):
            return "the ids of one message's 'tool_calls' must differ"
    if waiting:
        return f"no tool message answers the tool calls {', '.join(waiting)}"
    return None


_WORD = re.compile(r"\s*\S+")


def _shortened(reply: Reply, limit: int | None) -> Reply:
    """At most `limit` words of a reply: thoughts first, then text, then arguments."""
    if limit is None or _length(reply) <= limit:
        return reply
    thought, left = _cut(reply.thought, limit)
    text, left = _cut(reply.text, left)
    calls: list[Wanted] = []
    for wanted in reply.calls:
        if left:
            arguments, left = _cut(wanted.arguments, left)
            calls.append(replace(wanted, arguments=arguments))
    return Reply(text, thought, tuple(calls), "length")


def _cut(text: str, limit: int) -> tuple[str, int]:
    words = _WORD.findall(text)[:limit]
    return "".join(words), limit - len(words)


def _count(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def _length(reply: Reply) -> int:
    return _count(reply.thought, reply.text, *(call.arguments for call in reply.calls))


def _usage(request: Request, reply: Reply) -> Mapping[str, object]:
    arguments = [call.function.arguments for message in request.messages for call in message.tool_calls or []]
    prompt, completion = _count(*(message.text for message in request.messages), *arguments), _length(reply)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": _count(reply.thought)},
    }


def _called(reply: Reply, digest: str) -> list[Mapping[str, object]]:
    return [
        {
            "id": f"call_{digest[:20]}{number}",
            "type": "function",
            "function": {"name": wanted.name, "arguments": wanted.arguments},
        }
        for number, wanted in enumerate(reply.calls)
    ]


def _completion(request: Request, reply: Reply, digest: str) -> Mapping[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": reply.text or None}
    if reply.thought:
        message["reasoning_content"] = reply.thought
    if reply.calls:
        message["tool_calls"] = _called(reply, digest)
    return {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
        "usage": _usage(request, reply),
    }


def _frames(request: Request, reply: Reply, digest: str) -> Iterator[bytes]:
    chunk = {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": request.model,
    }
    for delta in _deltas(reply, digest):
        yield _frame({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _frame({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]})
    if request.stream_options.include_usage:
        yield _frame({**chunk, "choices": [], "usage": _usage(request, reply)})
    yield b"data: [DONE]\n\n"


def _frame(value: Mapping[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _deltas(reply: Reply, digest: str) -> Iterator[Mapping[str, object]]:
    yield {"role": "assistant", "content": ""}
    yield from ({"reasoning_content": piece} for piece in _pieces(reply.thought))
    yield from ({"content": piece} for piece in _pieces(reply.text))
    for index, call in enumerate(_called(reply, digest)):
        arguments = reply.calls[index].arguments
        head = {**call, "index": index, "function": {"name": reply.calls[index].name, "arguments": ""}}
        yield {"tool_calls": [head]}
        for start in range(0, len(arguments), 12):
            fragment = {"index": index, "function": {"arguments": arguments[start : start + 12]}}
            yield {"tool_calls": [fragment]}


def _pieces(text: str) -> Iterator[str]:
    """The text, a few words at a time."""
    words = re.findall(r"\s*\S+|\s+$", text)
    for start in range(0, len(words), 3):
        yield "".join(words[start : start + 3])

"""An answer in the form of OpenAI Responses (provider-responses.md §5, §6, §8)."""

import itertools
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from rejoinder.conformance.upstreams.delivery import at_once, in_pieces, refusal_of
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.responses_manner import Manner
from rejoinder.conformance.upstreams.responses_script import CustomCall, Event, Failure, Item, Message, RawThought
from rejoinder.conformance.upstreams.script import (
    Action,
    Answer,
    Calls,
    HttpError,
    Part,
    Refusal,
    Text,
    Thought,
    ToolCall,
    Unsayable,
    Usage,
)

_ERROR = Failure("server_error", "The server had an error while processing your request.", True)

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}

_PREFIXES = {"compaction": "cmp", "web_search_call": "ws", "file_search_call": "fs", "code_interpreter_call": "ci"}

_SETTINGS: Mapping[str, Json] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": "medium", "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
"""What a response repeats of its request, and what it says where the request said nothing (§5)."""

Object = Mapping[str, Json]


def answered(answer: Answer, asked: Object, manner: Manner, *, number: int = 1) -> Iterator[Action]:
    include = asked.get("include")
    logged = isinstance(include, list) and "message.output_text.logprobs" in include
    said = _said(answer, number, logged)
    frame = _Frames(asked, manner, number)
    if answer.always_json or asked.get("stream") is not True:
        error = {"message": _ERROR.message, "type": "server_error", "param": None, "code": _ERROR.code}
        body = json.dumps(frame.ended(answer, _items(said))).encode()
        yield from at_once(body, answer.trouble, json.dumps({"error": error}).encode())
        return
    pieces = frame.pieces(answer, said)
    reached = sum(map(len, pieces[: answer.trouble.after])) if answer.trouble else 0
    yield from in_pieces(
        frame.blocks(pieces),
        answer,
        end=b"data: [DONE]\n\n" if manner.done and answer.done else b"",
        error=frame.lost(reached),
        broken=b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta": \n\n',
    )


def refused(error: HttpError) -> Iterator[Action]:
    kind = error.type or ("server_error" if error.status >= 500 else "invalid_request_error")
    envelope: Json = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return refusal_of(error, {"error": envelope})


def _incomplete(answer: Answer) -> str | None:
    """Why the response is incomplete, if it is."""
    return None if answer.finish in (None, "stop", "tool_calls") else _REASONS.get(answer.finish, answer.finish)


def _failure(answer: Answer) -> Failure | None:
    return next((part for part in answer.parts if isinstance(part, Failure)), None)


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def _tools(asked: Json) -> list[Json]:
    """The tools of a request as a response tells them: what a function does not say is told too."""
    tools = asked if isinstance(asked, list) else []
    unsaid: Object = {"description": None, "parameters": None, "strict": False}
    return [
        {**unsaid, **tool} if isinstance(tool, Mapping) and tool.get("type") == "function" else tool for tool in tools
    ]


class _Frames:
    """The events of one response, and the response they tell of."""

    def __init__(self, asked: Object, manner: Manner, number: int) -> None:
        self._manner = manner
        self._ids = itertools.count()
        options = asked.get("stream_options")
        obfuscated = not (isinstance(options, Mapping) and options.get("include_obfuscation") is False)
        self._obfuscated = manner.obfuscation and obfuscated
        self._response: Object = {
            "id": f"resp_{number}",
            "object": "response",
            "created_at": manner.created_at,
            "status": "in_progress",
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            **{name: asked.get(name, default) for name, default in _SETTINGS.items()},
            "model": asked.get("model"),
            "tools": _tools(asked.get("tools")),
            "output": [],
            "usage": None,
        }

    def ended(self, answer: Answer, output: Sequence[Object]) -> Object:
        usage = None if answer.usage_place == "never" else _usage(answer.usage)
        whole: Object = {**self._response, "output": output, "usage": usage}
        if failure := _failure(answer):
            return {**whole, "status": "failed", "error": {"code": failure.code, "message": failure.message}}
        if reason := _incomplete(answer):
            return {**whole, "status": "incomplete", "incomplete_details": {"reason": reason}}
        return {**whole, "status": "completed", "completed_at": self._manner.created_at}

    def pieces(self, answer: Answer, said: Sequence[Sequence["_Said"]]) -> list[list[Object]]:
        """The events, cut where a script counts: the opening, every piece of a part, and the end.

        What closes an item goes with the piece after it. `said` has the items of every part.
        """
        pieces: list[list[Object]] = [
            [{"type": kind, "response": self._response} for kind in ("response.created", "response.in_progress")]
        ]
        waiting: list[Object] = []
        indexes = itertools.count()
        for part, items in zip(answer.parts, said, strict=True):
            if isinstance(part, Event):
                pieces.append([*waiting, part.value])
                waiting = []
            for one, index in zip(items, indexes, strict=False):
                at: Object = {"output_index": index}
                start: Object = {"type": "response.output_item.added", "item": one.start}
                waiting += [{**event, **at} for event in (start, *one.opening)]
                for piece in one.pieces:
                    pieces.append([*waiting, *([{**piece, **at}] if piece else [])])
                    waiting = []
                end: Object = {"type": "response.output_item.done", "item": one.item}
                waiting += [{**event, **at} for event in (*one.closing, end)]
        ended = self.ended(answer, _items(said) if self._manner.complete else [])
        failure = _failure(answer)
        if failure and failure.told:
            waiting.append(self._error(failure))
        pieces.append([*waiting, {"type": f"response.{ended['status']}", "response": ended}])
        return pieces

    def blocks(self, pieces: Iterable[Sequence[Object]]) -> Iterator[bytes]:
        numbers = itertools.count()
        comment = b": OPENROUTER PROCESSING\n\n" if self._manner.comments else b""
        for piece in pieces:
            yield comment + b"".join(self._block(event, next(numbers)) for event in piece)
            comment = b""

    def lost(self, number: int) -> bytes:
        """An error event in the middle, and the end that follows it."""
        failed = {**self._response, "status": "failed", "error": {"code": _ERROR.code, "message": _ERROR.message}}
        end: Object = {"type": "response.failed", "response": failed}
        return self._block(self._error(_ERROR), number) + self._block(end, number + 1)

    def _error(self, failure: Failure) -> Object:
        told: Object = {"code": failure.code, "message": failure.message, "param": None}
        if self._manner.flat_errors:
            return {"type": "error", **told}
        return {"type": "error", "error": {"type": failure.code, **told}}

    def _block(self, event: Object, number: int) -> bytes:
        event = {**event, "sequence_number": number}
        if self._obfuscated and str(event["type"]).endswith(".delta"):
            event["obfuscation"] = "x" * (number % 16)
        if self._manner.rotating_ids:
            event = self._rotated(event)
        data = f"data: {json.dumps(event, separators=(',', ':'), ensure_ascii=False)}\n"
        name = f"event: {event['type']}\n"
        match self._manner.event_line:
            case "first":
                return f"{name}{data}\n".encode()
            case "last":
                return f"{data}{name}\n".encode()
            case "none":
                return f"{data}\n".encode()

    def _rotated(self, event: dict[str, Json]) -> dict[str, Json]:
        if "item_id" in event:
            event["item_id"] = f"{event['item_id']}_{next(self._ids)}"
        if isinstance(item := event.get("item"), Mapping):
            event["item"] = {**item, "id": f"{item['id']}_{next(self._ids)}"}
        return event


@dataclass(frozen=True, slots=True)
class _Said:
    """An item, and the events between its first and its last. They name everything but the output index."""

    item: Object
    start: Object
    opening: Sequence[Object] = ()
    pieces: Sequence[Object] = ()
    """What the script counts: deltas, and for a call its start, which is an event of nothing."""

    closing: Sequence[Object] = ()


def _items(said: Iterable[Iterable[_Said]]) -> list[Object]:
    return [one.item for items in said for one in items]


def _said(answer: Answer, number: int, logged: bool) -> list[list[_Said]]:
    """The items of every part. The last one is broken off when the response is incomplete."""
    places = itertools.count()
    said = [list(_said_by(part, (f"{number}_{place}" for place in places), logged)) for part in answer.parts]
    if _incomplete(answer) and (last := next((items for items in reversed(said) if items), None)):
        item = last[-1].item
        last[-1] = replace(last[-1], item={**item, "status": "incomplete"} if "status" in item else item)
    return said


def _said_by(part: Part, places: Iterator[str], logged: bool) -> Iterator[_Said]:
    match part:
        case Text(pieces=pieces):
            yield _message(pieces, f"msg_{next(places)}", logged=logged)
        case Message(pieces=pieces, phase=phase, annotations=annotations):
            yield _message(pieces, f"msg_{next(places)}", phase, annotations, logged=logged)
        case Refusal(pieces=pieces):
            yield _refusal(pieces, f"msg_{next(places)}")
        case Thought():
            yield _reasoning(part, f"rs_{next(places)}")
        case RawThought(pieces=pieces):
            yield _raw_reasoning(pieces, f"rs_{next(places)}")
        case Calls(calls=calls, style=style):
            yield from (_call(one, style, f"fc_{next(places)}") for one in calls)
        case CustomCall():
            yield _custom_call(part, f"ctc_{next(places)}")
        case Item(value=value):
            prefix = _PREFIXES.get(str(value.get("type")), "item")
            item: Object = {"id": f"{prefix}_{next(places)}", **value}
            yield _Said(item, item)
        case Event() | Failure():
            pass
        case _:
            raise Unsayable("Responses", part)


def _message(
    pieces: tuple[str, ...],
    id: str,
    phase: str | None = None,
    annotations: Sequence[Object] = (),
    *,
    logged: bool,
) -> _Said:
    at: Object = {"item_id": id, "content_index": 0}
    text = "".join(pieces)
    part: Object = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    whole: Object = {**part, "annotations": annotations, "logprobs": _logprobs(pieces, logged), "text": text}
    item: dict[str, Json] = {"id": id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
    if phase is not None:
        item["phase"] = phase
    cited: list[Object] = [
        {"type": "response.output_text.annotation.added", **at, "annotation_index": place, "annotation": one}
        for place, one in enumerate(annotations)
    ]
    return _Said(
        {**item, "status": "completed", "content": [whole]},
        item,
        [{"type": "response.content_part.added", **at, "part": part}],
        [
            {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": _logprobs((piece,), logged)}
            for piece in pieces
        ],
        [
            *cited,
            {"type": "response.output_text.done", **at, "text": text, "logprobs": whole["logprobs"]},
            {"type": "response.content_part.done", **at, "part": whole},
        ],
    )


def _logprobs(pieces: Iterable[str], logged: bool) -> list[Json]:
    """How likely the pieces were, when somebody wants to know: every one is a token."""
    return [
        {"token": piece, "logprob": -0.5, "bytes": list(piece.encode()), "top_logprobs": []}
        for piece in pieces
        if logged
    ]


def _refusal(pieces: tuple[str, ...], id: str) -> _Said:
    at: Object = {"item_id": id, "content_index": 0}
    text = "".join(pieces)
    item: Object = {"id": id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
    whole: Object = {"type": "refusal", "refusal": text}
    return _Said(
        {**item, "status": "completed", "content": [whole]},
        item,
        [{"type": "response.content_part.added", **at, "part": {"type": "refusal", "refusal": ""}}],
        [{"type": "response.refusal.delta", **at, "delta": piece} for piece in pieces],
        [
            {"type": "response.refusal.done", **at, "refusal": text},
            {"type": "response.content_part.done", **at, "part": whole},
        ],
    )


def _reasoning(thought: Thought, id: str) -> _Said:
    """What an item seals is not complete before its end (§4)."""
    sealed = thought.signature
    if sealed is None:
        sealed = "gAAAA" + urlsafe_b64encode(sha256("".join(thought.pieces).encode()).digest()).decode()
    text = "".join(thought.pieces)
    at: Object = {"item_id": id, "summary_index": 0}
    part: Object = {"type": "summary_text", "text": text}
    item: Object = {"id": id, "type": "reasoning", "content": [], "summary": []}
    whole: Object = {**item, "encrypted_content": sealed or None, "summary": [part] if thought.pieces else []}
    start: Object = {**item, "encrypted_content": sealed[: len(sealed) // 2] or None}
    if not thought.pieces:
        return _Said(whole, start)
    return _Said(
        whole,
        start,
        [{"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}],
        [{"type": "response.reasoning_summary_text.delta", **at, "delta": piece} for piece in thought.pieces],
        [
            {"type": "response.reasoning_summary_text.done", **at, "text": text},
            {"type": "response.reasoning_summary_part.done", **at, "part": part},
        ],
    )


def _raw_reasoning(pieces: tuple[str, ...], id: str) -> _Said:
    at: Object = {"item_id": id, "content_index": 0}
    part: Object = {"type": "reasoning_text", "text": "".join(pieces)}
    item: Object = {"id": id, "type": "reasoning", "content": [], "summary": [], "status": "in_progress"}
    return _Said(
        {**item, "content": [part], "status": "completed"},
        item,
        [{"type": "response.content_part.added", **at, "part": {**part, "text": ""}}],
        [{"type": "response.reasoning_text.delta", **at, "delta": piece} for piece in pieces],
        [
            {"type": "response.reasoning_text.done", **at, "text": part["text"]},
            {"type": "response.content_part.done", **at, "part": part},
        ],
    )


def _call(one: ToolCall, style: str, id: str) -> _Said:
    if style not in ("fragments", "whole", "done_only"):
        raise Unsayable("Responses", style)
    fragments = {"fragments": one.fragments, "whole": (one.arguments,), "done_only": ()}[style]
    item: Object = {"id": id, "type": "function_call", "status": "in_progress", "arguments": ""}
    item = {**item, "call_id": one.id, "name": one.name}
    kind = "response.function_call_arguments"
    return _Said(
        {**item, "status": "completed", "arguments": one.arguments},
        item,
        [],
        [{}, *({"type": f"{kind}.delta", "item_id": id, "delta": piece} for piece in fragments)],
        [{"type": f"{kind}.done", "item_id": id, "arguments": one.arguments}],
    )


def _custom_call(one: CustomCall, id: str) -> _Said:
    item: Object = {"id": id, "type": "custom_tool_call", "call_id": one.id, "name": one.name, "input": ""}
    kind = "response.custom_tool_call_input"
    text = "".join(one.pieces)
    return _Said(
        {**item, "input": text},
        item,
        [],
        [{}, *({"type": f"{kind}.delta", "item_id": id, "delta": piece} for piece in one.pieces)],
        [{"type": f"{kind}.done", "item_id": id, "input": text}],
    )

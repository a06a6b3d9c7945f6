"""An answer in the form of Gemini's generateContent (provider-gemini.md §7 to §9)."""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from rejoinder.conformance.upstreams.delivery import at_once, in_pieces, refusal_of
from rejoinder.conformance.upstreams.gemini_model import GeminiModel
from rejoinder.conformance.upstreams.gemini_script import Blocked, Grounding, SignedText, Whole
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.script import (
    Action,
    Answer,
    Calls,
    Head,
    HttpError,
    Part,
    Text,
    Thought,
    ToolCall,
    Unsayable,
    Usage,
)

STOPS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_OVERLOADED: Json = {
    "error": {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}
}

JsonPart = Mapping[str, Json]


def answered(answer: Answer, *, model: str, stream: bool, sse: bool, number: int = 1) -> Iterator[Action]:
    common: dict[str, Json] = {"modelVersion": model, "responseId": f"response-{number}"}
    if answer.always_json or not stream:
        body = json.dumps(_whole(answer, GeminiModel.of(model)) | common, indent=2).encode()
        yield from at_once(body, answer.trouble, json.dumps(_OVERLOADED).encode())
        return
    chunks = [chunk | common for chunk in _chunks(answer, GeminiModel.of(model))]
    if sse:
        yield from in_pieces(
            # There is no opening: the first thing that comes is the first part.
            [b"", *(_frame(chunk) for chunk in chunks)],
            answer,
            error=_frame(_OVERLOADED),
            broken=b'data: {"candidates": [{"content": {"parts": [{"text": \r\n\r\n',
        )
        return
    first, *others = [json.dumps(chunk, indent=2).encode() for chunk in chunks]
    begun = answer.trouble is not None and answer.trouble.after > 1
    yield from in_pieces(
        [b"[", first + b"\n", *(b",\r\n" + chunk + b"\n" for chunk in others)],
        answer,
        end=b"]",
        error=(b",\r\n" if begun else b"") + json.dumps(_OVERLOADED).encode() + b"\n]",
        broken=b'{"candidates": [{"content": \n]',
        head=Head(200, {"content-type": "application/json; charset=UTF-8"}),
    )


def refused(error: HttpError) -> Iterator[Action]:
    """Gemini says in the body, not in a header, when to come again (§9)."""
    detail: dict[str, Json] = {
        "code": error.status,
        "message": error.message,
        "status": error.type or STATUSES.get(error.status, "UNKNOWN"),
    }
    headers = dict(error.headers)
    details: list[Json] = []
    if error.code is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.code})
    if (seconds := headers.pop("retry-after", None)) is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"})
    if details:
        detail["details"] = details
    return refusal_of(replace(error, headers=headers), {"error": detail})


def _frame(value: Json) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\r\n\r\n"


def _usage(usage: Usage, *, ended: bool) -> dict[str, Json]:
    """Counts of 0 are left out, and thoughts are not among the candidates' tokens (§7)."""
    told: dict[str, Json] = {"promptTokenCount": usage.prompt}
    if usage.cached:
        told["cachedContentTokenCount"] = usage.cached
    if ended and usage.completion - usage.reasoning:
        told["candidatesTokenCount"] = usage.completion - usage.reasoning
    told["totalTokenCount"] = usage.prompt + (usage.completion if ended else 0)
    told["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.prompt}]
    if ended and usage.reasoning:
        told["thoughtsTokenCount"] = usage.reasoning
    return told


def _whole(answer: Answer, model: GeminiModel) -> dict[str, Json]:
    usage: dict[str, Json] = {}
    if answer.usage_place != "never":
        usage["usageMetadata"] = _usage(answer.usage, ended=True)
    if refusal := _feedback(answer):
        return refusal | usage
    glued = replace(answer, parts=tuple(_in_one_piece(part) for part in answer.parts))
    parts = [part for candidate in _candidates(glued, model) for part in candidate.parts]
    # In one body, what a stream says with an empty last part stands on the last text.
    closing = _closing(answer)
    if "thoughtSignature" in closing and parts and "text" in parts[-1] and "thoughtSignature" not in parts[-1]:
        parts[-1] = {**parts[-1], **closing, "text": parts[-1]["text"]}
    elif "thoughtSignature" in closing:
        parts.append(closing)
    content: dict[str, Json] = {"parts": parts, "role": "model"} if parts else {"role": "model"}
    return {"candidates": [{"content": content, **_end(answer), **_grounding(answer.parts)}], **usage}


def _chunks(answer: Answer, model: GeminiModel) -> Iterator[dict[str, Json]]:
    running: dict[str, Json] = {"usageMetadata": _usage(answer.usage, ended=False)}
    last: dict[str, Json] = {"usageMetadata": _usage(answer.usage, ended=True)}
    if answer.usage_place in ("never", "finish"):
        running = {}
    if answer.usage_place == "never":
        last = {}
    if refusal := _feedback(answer):
        yield refusal | last
        return
    for candidate in _candidates(answer, model):
        content: Json = {"parts": candidate.parts, "role": "model"}
        yield {"candidates": [{"content": content, "index": 0, **candidate.grounding}], **running}
    content = {"parts": [_closing(answer)], "role": "model"}
    late = _grounding(part for part in answer.parts if isinstance(part, Grounding) and not part.early)
    yield {"candidates": [{"content": content, **_end(answer), **late}], **last}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What one chunk says."""

    parts: list[JsonPart]
    grounding: Mapping[str, Json] = field(default_factory=dict)


def _candidates(answer: Answer, model: GeminiModel) -> Iterator[_Candidate]:
    waiting: str | None = None
    for part in answer.parts:
        match part:
            case Thought(pieces=pieces, signature=signature):
                waiting = signature
                yield from (_Candidate([{"text": piece, "thought": True}]) for piece in pieces)
            case Text(pieces=pieces):
                yield from (_Candidate([{"text": piece}]) for piece in pieces)
            case SignedText(pieces=pieces, signature=signature):
                yield from (_Candidate([{"text": piece}]) for piece in pieces[:-1])
                yield _Candidate([{"text": pieces[-1], "thoughtSignature": signature}])
            case Calls(style=style):
                calls = _calls(part, waiting, model)
                waiting = None
                yield from [_Candidate(calls)] if style == "together" else (_Candidate([one]) for one in calls)
            case Whole(part=value):
                yield _Candidate([value])
            case Grounding(early=True):
                yield _Candidate([{"text": ""}], _grounding([part]))
            case Grounding() | Blocked():
                pass
            case _:
                raise Unsayable("Gemini", part)


def _in_one_piece(part: Part) -> Part:
    match part:
        case Text(pieces=pieces) | Thought(pieces=pieces) if pieces:
            return replace(part, pieces=("".join(pieces),))
        case SignedText(pieces=pieces):
            return replace(part, pieces=("".join(pieces),))
        case _:
            return part


def _closing(answer: Answer) -> JsonPart:
    """The empty part of the last chunk. The signature of a thought is on it when no call came to carry it (§5)."""
    waiting: str | None = None
    for part in answer.parts:
        if isinstance(part, Thought | Calls):
            waiting = part.signature if isinstance(part, Thought) else None
    return {"text": "", "thoughtSignature": waiting} if waiting else {"text": ""}


def _feedback(answer: Answer) -> dict[str, Json]:
    for part in answer.parts:
        if isinstance(part, Blocked):
            message: dict[str, Json] = {} if part.message is None else {"blockReasonMessage": part.message}
            return {"promptFeedback": {"blockReason": part.reason, **message}}
    return {}


def _grounding(parts: Iterable[Part]) -> dict[str, Json]:
    found = [part.metadata for part in parts if isinstance(part, Grounding)]
    return {"groundingMetadata": found[-1]} if found else {}


def _end(answer: Answer) -> dict[str, Json]:
    """What the last chunk says of its candidate."""
    reason = "STOP" if answer.finish is None else STOPS.get(answer.finish, answer.finish)
    calling = any(isinstance(part, Calls) for part in answer.parts)
    message: dict[str, Json] = {"finishMessage": "Model generated function call(s)."}
    return {"finishReason": reason, "index": 0, **(message if calling and reason == "STOP" else {})}


def _calls(calls: Calls, signature: str | None, model: GeminiModel) -> list[JsonPart]:
    """The calls of a step: the first one is signed, and Gemini 3 signs it whether the script does or not (§5)."""
    if calls.style not in ("fragments", "whole", "together", "no_id", "no_arguments"):
        raise Unsayable("Gemini", calls.style)
    parts: list[JsonPart] = []
    for one in calls.calls:
        call: dict[str, Json] = {"name": one.name}
        if calls.style != "no_arguments":
            call["args"] = json.loads(one.arguments)
        if model.thinks_in_levels and calls.style != "no_id":
            call["id"] = one.id
        parts.append({"functionCall": call})
    if signature is None and model.thinks_in_levels:
        signature = _made_up(calls.calls[0])
    return [{**parts[0], "thoughtSignature": signature}, *parts[1:]] if signature else parts


def _made_up(call: ToolCall) -> str:
    return b64encode(sha256(f"{call.id} {call.name} {call.arguments}".encode()).digest()).decode()

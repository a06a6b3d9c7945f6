"""An answer in the form of Anthropic Messages (provider-anthropic.md §8, §10, §11)."""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

from rejoinder.conformance.upstreams.anthropic_script import Block, Citation, Cited, Event, Redacted, ServerCall
from rejoinder.conformance.upstreams.delivery import at_once, in_pieces, refusal_of
from rejoinder.conformance.upstreams.objection import Json
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
)

STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def answered(
    answer: Answer, *, model: str, stream: bool, stop_sequences: Sequence[str] = (), number: int = 1
) -> Iterator[Action]:
    message: dict[str, Json] = {
        "model": model,
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }
    end: dict[str, Json] = {
        "stop_reason": _stop_reason(answer),
        "stop_sequence": next(iter(stop_sequences), None) if answer.finish == "stop_sequence" else None,
        "stop_details": _stop_details(answer),
    }
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": None}
    if answer.always_json or not stream:
        whole = {**message, **end, "content": [block for part in answer.parts for block in _blocks(part)]}
        if answer.usage_place != "never":
            whole["usage"] = {**_input(answer), **_output(answer)}
        yield from at_once(json.dumps(whole).encode(), answer.trouble, json.dumps(error).encode())
        return
    yield from in_pieces(
        _pieces(answer, message, end),
        answer,
        error=_event(error),
        broken=b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type": \n\n',
    )


def refused(error: HttpError) -> Iterator[Action]:
    detail = {"type": error.type or TYPES.get(error.status, "api_error"), "message": error.message}
    return refusal_of(error, {"type": "error", "error": detail, "request_id": "req_1"})


def _stop_reason(answer: Answer) -> str:
    if answer.finish is not None:
        return STOPS.get(answer.finish, answer.finish)
    kinds = [type(part) for part in answer.parts]
    return "refusal" if Refusal in kinds else "tool_use" if Calls in kinds else "end_turn"


def _stop_details(answer: Answer) -> Json:
    if _stop_reason(answer) != "refusal":
        return None
    words = "".join(piece for part in answer.parts if isinstance(part, Refusal) for piece in part.pieces)
    return {"type": "refusal", "category": "cyber", "explanation": words or None, "recommended_model": None}


def _input(answer: Answer) -> dict[str, Json]:
    return {
        # What the cache has to do with is not in input_tokens, unlike OpenAI's count (§8).
        "input_tokens": answer.usage.prompt - answer.usage.cached - answer.usage.written,
        "cache_creation_input_tokens": answer.usage.written,
        "cache_read_input_tokens": answer.usage.cached,
    }


def _output(answer: Answer) -> dict[str, Json]:
    told: dict[str, Json] = {
        "output_tokens": answer.usage.completion,
        "output_tokens_details": {"thinking_tokens": answer.usage.reasoning},
    }
    searches = sum(isinstance(part, ServerCall) and part.name == "web_search" for part in answer.parts)
    if searches:
        told["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": 0}
    return told


def _event(value: Mapping[str, Json]) -> bytes:
    """An event, padded with spaces as the real ones are: nobody shall rely on how long a line is."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    padding = " " * (len(text) * 7 % 16)
    return f"event: {value['type']}\ndata: {text[:-1]}{padding}}}\n\n".encode()


def _pieces(answer: Answer, message: dict[str, Json], end: dict[str, Json]) -> Iterator[bytes]:
    """The stream, cut where a script counts: the opening, every piece of a part, and the end.

    The end of a block goes with the piece after it, so what stands between two pieces is never lost to a cut.
    """
    started = {**_input(answer), "output_tokens": 1, "service_tier": "standard"}
    if answer.usage_place == "never":
        yield _event({"type": "message_start", "message": message})
    elif answer.usage_place == "finish":
        yield _event({"type": "message_start", "message": {**message, "usage": {"output_tokens": 0}}})
    else:
        yield _event({"type": "message_start", "message": {**message, "usage": started}})
    before = _PING
    index = 0
    for part in answer.parts:
        if isinstance(part, Event):
            yield before + f"event: {part.name}\ndata: {json.dumps(part.value)}\n\n".encode()
            before = b""
            continue
        for start, deltas, last in _streams(part):
            before += _event({"type": "content_block_start", "index": index, "content_block": start})
            for delta in deltas:
                yield before + _delta(index, delta)
                before = b""
            before += b"".join(_delta(index, one) for one in last)
            before += _event({"type": "content_block_stop", "index": index})
            index += 1
    ending: dict[str, Json] = {"type": "message_delta", "delta": end}
    if answer.usage_place != "never":
        ending["usage"] = {**_input(answer), **_output(answer)}
    yield before + _event(ending) + (_event({"type": "message_stop"}) if answer.done else b"")


def _delta(index: int, delta: Mapping[str, Json]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


Streamed = tuple[Mapping[str, Json], Iterable[Mapping[str, Json]], Iterable[Mapping[str, Json]]]
"""A block as it starts, its deltas that are pieces of the script, and those that come with its end."""


def _streams(part: Part) -> Iterator[Streamed]:
    match part:
        case Text(pieces=pieces):
            yield {"type": "text", "text": ""}, [_text(piece) for piece in pieces], ()
        case Thought():
            signature = _signature(part)
            start: dict[str, Json] = {"type": "thinking", "thinking": ""}
            if not signature:  # a compatible server (§5.7)
                yield start, [_thinking(piece) for piece in part.pieces], ()
                return
            signed = [{"type": "signature_delta", "signature": signature}]
            yield start | {"signature": ""}, [_thinking(piece) for piece in part.pieces or ("",)], signed
        case Calls(calls=calls, style=style):
            for one in calls:
                yield _calling(one, style)
        case ServerCall(name=name, fragments=fragments, id=id):
            start = {"type": "server_tool_use", "id": id, "name": name, "input": {}}
            yield start, [_json(piece) for piece in ("", *fragments)], ()
        case Cited(pieces=pieces, citations=citations):
            cites: list[Mapping[str, Json]] = [
                {"type": "citations_delta", "citation": _citation(one)} for one in citations
            ]
            yield {"citations": [], "type": "text", "text": ""}, [*cites, *(_text(piece) for piece in pieces)], ()
        case Redacted(data=data):
            yield {"type": "redacted_thinking", "data": data}, (), ()
        case Block(value=value):
            yield value, (), ()
        case Refusal():
            pass  # it is told in `stop_details`
        case _:
            raise Unsayable("Anthropic Messages", part)


def _calling(one: ToolCall, style: str) -> Streamed:
    start: dict[str, Json] = {"type": "tool_use", "id": one.id, "name": one.name, "input": {}}
    start["caller"] = {"type": "direct"}
    match style:
        case "fragments":
            return start, [_json(piece) for piece in ("", *one.fragments)], ()
        case "whole":
            return start, [_json(one.arguments)], ()
        case "no_arguments":
            return start, [_json("")], ()
        case "object":  # some proxies send the whole input at once (§10)
            return start | {"input": json.loads(one.arguments)}, (), ()
        case _:
            raise Unsayable("Anthropic Messages", style)


def _blocks(part: Part) -> Iterator[Mapping[str, Json]]:
    """The blocks of a part in a JSON body."""
    match part:
        case Text(pieces=pieces):
            yield {"type": "text", "text": "".join(pieces)}
        case Thought(pieces=pieces):
            signature = _signature(part)
            whole: dict[str, Json] = {"type": "thinking", "thinking": "".join(pieces)}
            yield whole | ({"signature": signature} if signature else {})
        case Calls(calls=calls, style=style):
            for one in calls:
                start, _, _ = _calling(one, style)
                yield {**start, "input": {} if style == "no_arguments" else json.loads(one.arguments)}
        case ServerCall(name=name, fragments=fragments, id=id):
            yield {"type": "server_tool_use", "id": id, "name": name, "input": json.loads("".join(fragments))}
        case Cited(pieces=pieces, citations=citations):
            told = [_citation(one) for one in citations]
            yield {"citations": told, "type": "text", "text": "".join(pieces)}
        case Redacted(data=data):
            yield {"type": "redacted_thinking", "data": data}
        case Block(value=value):
            yield value
        case Refusal() | Event():
            pass
        case _:
            raise Unsayable("Anthropic Messages", part)


def _signature(part: Thought) -> str:
    """The signature of a thought; one that hangs on the words when the script has none."""
    if part.signature is not None:
        return part.signature
    return b64encode(sha256("".join(part.pieces).encode()).digest()).decode()


def _text(piece: str) -> Mapping[str, Json]:
    return {"type": "text_delta", "text": piece}


def _thinking(piece: str) -> Mapping[str, Json]:
    return {"type": "thinking_delta", "thinking": piece}


def _json(piece: str) -> Mapping[str, Json]:
    return {"type": "input_json_delta", "partial_json": piece}


def _citation(one: Citation | Mapping[str, Json]) -> Mapping[str, Json]:
    return one.json() if isinstance(one, Citation) else one

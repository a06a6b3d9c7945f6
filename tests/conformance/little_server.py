"""A little server that speaks the Responses API in front of no model at all, and can be made to break one rule.

It keeps every rule of the suite unless a fault says otherwise. A fault looks at an exchange before it is served, after
it, or at the bytes of a stream:

    Fault(told=lambda it: [response.pop("usage") for response in it.responses])
"""

import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = Any  # JSON as the standard library reads it: faults reach for it at every depth

MODEL = "little"
NOW = 1_795_000_000


@dataclass(slots=True)
class Exchange:
    """`asked` is the body of the request, `told` that of the answer, or `events` if the answer is a stream.

    `key` is the Authorization header.
    """

    method: str
    path: str
    query: dict[str, str]
    asked: Json
    key: str | None = None
    over_a_socket: bool = False
    status: int = 200
    told: Json = None
    events: list[Json] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Json:
        """The body of the request if it is an object, or an empty one."""
        return self.asked if isinstance(self.asked, dict) else {}

    @property
    def plain(self) -> list[Json]:
        """The response object in the answer to a create call that is no stream, if it is one."""
        return [self.told] if self.method == "POST" and self.status == 200 and not self.events else []

    @property
    def kept(self) -> list[Json]:
        """The response object in the answer to a question for it, if it is one."""
        return [self.told] if self.method == "GET" and "output" in (self.told or ()) else []

    @property
    def responses(self) -> list[Json]:
        """All response objects in the answer, those of events included."""
        return [*self.plain, *self.kept, *(event["response"] for event in self.events if "response" in event)]

    @property
    def listed(self) -> list[Json]:
        """The page of input items in the answer, if it is one."""
        return [self.told] if self.path.endswith("/input_items") and self.status == 200 else []

    @property
    def error(self) -> list[Json]:
        """The error in the answer, if it is one."""
        return [self.told["error"]] if self.status >= 400 else []

    def of(self, *kinds: str) -> list[Json]:
        """The events of these types."""
        return [event for event in self.events if event["type"].removeprefix("response.") in kinds]


def _nothing(it: Exchange) -> None:
    pass


def _as_they_are(chunks: list[bytes]) -> list[bytes]:
    return chunks


@dataclass(frozen=True, slots=True)
class Fault:
    asked: Callable[[Exchange], object] = _nothing
    told: Callable[[Exchange], object] = _nothing
    sent: Callable[[list[bytes]], list[bytes]] = _as_they_are


class Refused(Exception):
    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored response with its own input and everything the model saw before it."""

    response: Json
    given: list[Json]
    before: list[Json]


_NUMBER = (int, float)
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "input": (str, list),
    "instructions": str,
    "previous_response_id": str,
    "stream": bool,
    "store": bool,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "max_output_tokens": int,
    "top_logprobs": int,
    "truncation": str,
    "metadata": dict,
    "text": dict,
    "reasoning": dict,
    "tools": list,
    "tool_choice": (str, dict),
    "parallel_tool_calls": bool,
}
_RANGES: Mapping[str, Callable[[Json], bool]] = {
    "previous_response_id": lambda value: re.fullmatch(r"[A-Za-z0-9_-]+", value) is not None,
    "temperature": lambda value: 0 <= value <= 2,
    "top_p": lambda value: 0 <= value <= 1,
    "max_output_tokens": lambda value: value >= 16,
    "top_logprobs": lambda value: 0 <= value <= 20,
    "truncation": lambda value: value in ("auto", "disabled"),
    "tool_choice": lambda value: isinstance(value, dict) or value in ("none", "auto", "required"),
    "text": lambda value: value.get("format", {}).get("type", "text") in ("text", "json_object", "json_schema"),
    "tools": lambda value: all(isinstance(tool["name"], str) for tool in value),
    "metadata": lambda value: (
        len(value) <= 16
        and all(len(key) <= 64 and isinstance(one, str) and len(one) <= 512 for key, one in value.items())
    ),
}
_WITHIN = {"tools": "tools[0].name"}
_LONG = " and so on" * 30


class LittleServer:
    """What is honest of it: `serve` fills in an exchange, whatever its fault does before and after."""

    def __init__(
        self,
        fault: Fault | None = None,
        *,
        key: str | None = None,
        refuses: str | None = None,
        sockets: bool = True,
    ) -> None:
        self._fault = fault or Fault()
        self._key = key
        self._refuses = refuses
        self._sockets = sockets
        self._kept: dict[str, Kept] = {}
        self._numbers = itertools.count(1)
        self._requests = itertools.count(1)
        self.crashes: list[Exception] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The handler of every path."""
        try:
            if self._sockets and request.headers.get("upgrade", "").lower() == "websocket":
                return await self._over_a_socket(request)
            return await self._over_http(request)
        except Exception as crash:
            self.crashes.append(crash)
            raise

    async def _over_http(self, request: web.Request) -> web.StreamResponse:
        it = _exchange(request, await request.read())
        it.headers["x-request-id"] = f"req_{next(self._requests)}"
        self._fill_in(it)
        if not it.events:
            headers = {"content-type": "application/json"} | it.headers
            return web.Response(body=json.dumps(it.told).encode(), status=it.status, headers=headers)
        stream = web.StreamResponse(headers={"content-type": "text/event-stream", **it.headers})
        await stream.prepare(request)
        for chunk in self._fault.sent([*map(framed, it.events), b"data: [DONE]\n\n"]):
            await stream.write(chunk)
        await stream.write_eof()
        return stream

    async def _over_a_socket(self, request: web.Request) -> web.StreamResponse:
        """A frame is a create call, an event of its stream is a frame."""
        opening = _exchange(request, b"")
        self._fault.asked(opening)
        if (refused := self._unauthorized(opening)) is not None:
            return web.json_response({"error": refused.error}, status=refused.status)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            it = _exchange(request, str(message.data).encode())
            it.method, it.over_a_socket = "POST", True
            self._fill_in(it)
            for event in it.events or [{"type": "error", "status": it.status, **it.told}]:
                await socket.send_str(json.dumps(event))
        return socket

    def _fill_in(self, it: Exchange) -> None:
        try:
            if it.method == "POST":
                it.asked = _parsed(it.asked)
            if it.over_a_socket:
                it.asked["stream"] = True
            self._fault.asked(it)
            if (refused := self._unauthorized(it)) is not None:
                raise refused
            self.serve(it)
        except Refused as refused:
            it.status, it.told, it.events = refused.status, {"error": refused.error}, []
        self._fault.told(it)

    def _unauthorized(self, it: Exchange) -> "Refused | None":
        if self._key is None or it.key == f"Bearer {self._key}":
            return None
        return Refused("wrong key", code="invalid_api_key", status=401)

    def serve(self, it: Exchange) -> None:
        match it.method, it.path.strip("/").split("/"):
            case "POST", ["responses"]:
                self._create(it)
            case "GET", ["responses", response_id]:
                it.told = _copy(self._found(response_id).response)
            case "DELETE", ["responses", response_id]:
                self._found(response_id)
                del self._kept[response_id]
                it.told = {"id": response_id, "object": "response", "deleted": True}
            case "GET", ["responses", response_id, "input_items"]:
                it.told = _page(_copy(self._found(response_id).given), it.query)
            case "GET", ["models"]:
                it.told = {"object": "list", "data": [_model()]}
            case "GET", ["models", name] if name == MODEL:
                it.told = _model()
            case _:
                raise Refused("nothing there", status=404)

    def _found(self, response_id: str) -> Kept:
        if response_id not in self._kept:
            raise Refused("no such response", status=404)
        return self._kept[response_id]

    def _new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):032}"

    def _create(self, it: Exchange) -> None:
        asked = {name: value for name, value in it.asked.items() if value is not None}
        _check(asked, self._refuses)
        before: list[Json] = []
        if (previous := asked.get("previous_response_id")) is not None:
            if previous not in self._kept:
                raise Refused("no such response", "previous_response_id", "previous_response_not_found")
            kept = self._kept[previous]
            before = [*kept.before, *kept.given, *kept.response["output"]]
        given = [self._item(item) for item in _items(asked["input"])]
        _pair([*before, *given])
        output = self._output(asked)
        words = len(json.dumps([asked.get("instructions"), before, given]).split())
        response = _response(asked, self._new("resp"), output, words)
        if asked.get("store", True):
            self._kept[response["id"]] = Kept(response, given, before)
        it.told = _copy(response)
        if asked.get("stream"):
            it.events = _copy(list(_events(it.told)))
            it.told = None

    def _item(self, item: Json) -> Json:
        """The item as it is kept: whole, and with an id."""
        if item.get("type") == "item_reference":
            kept = [old for one in self._kept.values() for old in (*one.given, *one.response["output"])]
            found = [old for old in kept if old["id"] == item["id"]]
            if not found:
                raise Refused("no such item", "input")
            return found[0]
        if isinstance(content := item.get("content"), str):
            kind = "output_text" if item["role"] == "assistant" else "input_text"
            item = {**item, "content": [{"type": kind, "text": content}]}
        return {"type": "message", "status": "completed", "id": self._new("msg"), **item}

    def _output(self, asked: Json) -> list[Json]:
        if called := _called(asked):
            return [
                {
                    "type": "function_call",
                    "id": self._new("fc"),
                    "call_id": self._new("call"),
                    "name": tool["name"],
                    "arguments": json.dumps(dict.fromkeys(tool["parameters"].get("required", []), "Oslo")),
                    "status": "completed",
                }
                for tool in called
            ]
        text = _text(asked)
        limit = asked.get("max_output_tokens", 1000)
        part = {"type": "output_text", "text": " ".join(text.split()[:limit]), "annotations": [], "logprobs": []}
        status = "completed" if len(text.split()) <= limit else "incomplete"
        message = {"type": "message", "id": self._new("msg"), "role": "assistant", "status": status, "content": [part]}
        thought = {"type": "reasoning", "id": self._new("rs"), "summary": [{"type": "summary_text", "text": "Hm."}]}
        return [thought, message]


def _exchange(request: web.Request, body: bytes) -> Exchange:
    path = request.path.removeprefix("/v1")
    return Exchange(request.method, path, dict(request.query), body, request.headers.get("authorization"))


def _copy(value: Json) -> Json:
    """A copy that shares nothing, also not within itself: a fault changes one place only."""
    return json.loads(json.dumps(value))


def _parsed(body: bytes) -> Json:
    try:
        asked = json.loads(body)
    except ValueError:
        raise Refused("no JSON") from None
    if not isinstance(asked, dict):
        raise Refused("no object")
    return asked


def _check(asked: Json, refuses: str | None) -> None:
    if "model" not in asked:
        raise Refused("missing", "model", "missing_required_parameter")
    if asked["model"] != MODEL:
        raise Refused("no such model", "model", "model_not_found")
    if "input" not in asked:
        raise Refused("missing", "input", "missing_required_parameter")
    if refuses in asked:
        raise Refused("not served here", refuses, "unsupported_parameter")
    for name, value in asked.items():
        if not isinstance(value, _KINDS.get(name, object)) or not _RANGES.get(name, lambda _: True)(value):
            raise Refused("wrong", _WITHIN.get(name, name) if isinstance(value, list) else name, "invalid_value")


def _items(given: Json) -> Iterator[Json]:
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    for place, item in enumerate(given):
        if not isinstance(item, dict) or item.get("role", "user") not in ("user", "assistant", "system", "developer"):
            raise Refused("wrong", f"input[{place}]", "invalid_type")
        parts = item.get("content")
        for index, part in enumerate(parts if isinstance(parts, list) else []):
            if not isinstance(part.get("text", ""), str):
                raise Refused("wrong", f"input[{place}].content[{index}].text", "invalid_type")
        yield item


def _pair(items: Sequence[Json]) -> None:
    calls = {item["call_id"] for item in items if item["type"] == "function_call"}
    outputs = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    if calls != outputs:
        raise Refused("calls and outputs do not pair", "input")


def _called(asked: Json) -> list[Json]:
    tools = asked.get("tools", [])
    match asked.get("tool_choice", "auto"):
        case "required":
            return list(tools[:1])
        case {"type": "function", "name": name}:
            return [tool for tool in tools if tool["name"] == name]
        case {"type": "allowed_tools", "tools": [{"name": name}]}:
            return [tool for tool in tools if tool["name"] == name]
        case _:
            return []


def _text(asked: Json) -> str:
    match asked.get("text", {}).get("format", {}):
        case {"type": "json_schema"}:
            return '{"name": "Ada", "age": 36, "colour": "red"}'
        case {"type": "json_object"}:
            return '{"hello": "world"}'
        case _:
            return "Hello, I am little" + (_LONG if "Count" in json.dumps(asked["input"]) else ".")


def _response(asked: Json, response_id: str, output: list[Json], words: int) -> Json:
    status = output[-1]["status"]
    spoken = len(json.dumps(output).split())
    return {
        "id": response_id,
        "object": "response",
        "created_at": NOW,
        "completed_at": NOW + 1 if status == "completed" else None,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None if status == "completed" else {"reason": "max_output_tokens"},
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "max_tool_calls": None,
        "metadata": asked.get("metadata", {}),
        "model": MODEL,
        "output": output,
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": asked.get("previous_response_id"),
        "conversation": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": asked.get("store", True),
        "temperature": asked.get("temperature", 1.0),
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": [{"description": None, "strict": False, **tool} for tool in asked.get("tools", [])],
        "top_logprobs": 0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": words,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": min(spoken, asked.get("max_output_tokens", spoken)),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": words + min(spoken, asked.get("max_output_tokens", spoken)),
        },
    }


def _events(response: Json) -> Iterator[Json]:
    """The events that tell of a response, numbered."""
    return ({**event, "sequence_number": number} for number, event in enumerate(_unnumbered(response)))


def _unnumbered(response: Json) -> Iterator[Json]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    begun["incomplete_details"] = None
    yield {"type": "response.created", "response": dict(begun)}
    yield {"type": "response.in_progress", "response": dict(begun)}
    for index, item in enumerate(response["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty = {"content": [], "summary": [], "arguments": ""}
        added = {name: empty.get(name, value) for name, value in item.items()} | {"status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": added}
        match item["type"]:
            case "message":
                yield from _of_part(place, item["content"][0])
            case "reasoning":
                yield from _of_summary(place, item["summary"][0])
            case _:
                stem = "response.function_call_arguments"
                yield {"type": f"{stem}.delta", **place, "delta": item["arguments"]}
                yield {"type": f"{stem}.done", **place, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": dict(item)}
    yield {"type": f"response.{response['status']}", "response": response}


def _of_part(place: Json, part: Json) -> Iterator[Json]:
    at = {**place, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
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
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _model() -> Json:
    return {"id": MODEL, "object": "model", "created": NOW, "owned_by": "nobody"}


def _page(items: Sequence[Json], query: Mapping[str, str]) -> Json:
    limit, order = query.get("limit", "20"), query.get("order", "desc")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        raise Refused("wrong", "limit", "invalid_value")
    if order not in ("asc", "desc"):
        raise Refused("wrong", "order", "invalid_value")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    start = ids.index(query["after"]) + 1 if "after" in query else 0
    shown = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"],
        "last_id": shown[-1]["id"],
        "has_more": len(ordered) > start + len(shown),
    }


@asynccontextmanager
async def serving(server: LittleServer) -> AsyncIterator[str]:
    """The server at a port of its own; gives its base URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()

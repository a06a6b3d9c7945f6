"""What a scripted provider answers, down to the wire (provider-chat.md §5, §7, §8).

Every step becomes a list of actions (`Head`, `bytes`, `Pause`, `Stall`, `Cut`, `Reset`), so a test that needs a fault
nobody has thought of writes the actions itself, in a `Wire`. Most tests need only the small functions in the middle of
this file: `answer` with `text`, `thought`, `refusal` and `calls`, and `HttpError`, `silence`, `death`, `raw`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tests.upstreams.sent import SentChat
from tests.upstreams.strictness import Json

CREATED = 1_700_000_000
"""The `created` of every answer: a script has no clock."""


@dataclass(frozen=True, slots=True)
class Head:
    """The status line and headers. Without a content-length the body is sent in chunks."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more, until the client leaves or the provider is closed."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed, without the end of the body (or of the head)."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset."""


Action = Head | bytes | Pause | Stall | Cut | Reset


class Step(Protocol):
    """One answer of the script."""

    def actions(self, request: SentChat) -> Iterable[Action]: ...


@dataclass(frozen=True, slots=True)
class Text:
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning in one of its three places (§6); a signature comes in a fragment of its own."""

    pieces: tuple[str, ...]
    place: Literal["reasoning_content", "reasoning", "reasoning_details"] = "reasoning_content"
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call; `fragments` are its arguments, cut as they will be streamed."""

    name: str
    fragments: tuple[str, ...]
    id: str

    @property
    def arguments(self) -> str:
        return "".join(self.fragments)


CallStyle = Literal[
    "fragments",  # id and name first, then the arguments piece by piece, call after call
    "interleaved",  # the fragments of parallel calls alternate
    "whole",  # one delta per call
    "together",  # all calls whole in one chunk
    "id_everywhere",  # id and name on every fragment
    "no_id",  # no id at all
    "empty_id",  # id ""
    "same_index",  # index 0 for every call
    "from_one",  # indexes start at 1
    "gaps",  # indexes 0, 2, 4 …
    "no_index",  # no index at all
    "object",  # arguments as an object
    "no_arguments",  # arguments left out
    "late_name",  # the name on the last fragment
]


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of one turn and the way their deltas come (§7)."""

    calls: tuple[ToolCall, ...]
    style: CallStyle = "fragments"


@dataclass(frozen=True, slots=True)
class LegacyCall:
    """`function_call`, from before there were tools."""

    name: str
    fragments: tuple[str, ...]


Part = Text | Refusal | Thought | Calls | LegacyCall


@dataclass(frozen=True, slots=True)
class Usage:
    prompt: int = 11
    completion: int = 7
    cached: int = 0
    reasoning: int = 0

    def json(self) -> dict[str, Json]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


UsagePlace = Literal[
    "after",  # a chunk of its own without choices, only when asked for (OpenAI)
    "finish",  # on the chunk with the finish reason
    "every",  # on every chunk
    "choice",  # inside the choice of the last chunk (Moonshot)
    "never",
]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong after `after` chunks, the role chunk included. `end` is a body that simply stops (§7)."""

    kind: Literal["cut", "reset", "stall", "end", "error", "bad_json"]
    after: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant message, streamed when that was asked for and one JSON object otherwise."""

    parts: tuple[Part, ...]
    finish: str | None = None
    usage: Usage = Usage()
    usage_place: UsagePlace = "after"
    done: bool = True
    delay: float = 0
    """Seconds before the head."""

    gap: float = 0
    """Seconds before every chunk but the first."""

    trouble: Trouble | None = None
    always_json: bool = False
    """Answer with a JSON body even when a stream was asked for (§7)."""

    @property
    def finish_reason(self) -> str:
        if self.finish is not None:
            return self.finish
        if any(isinstance(part, Calls) for part in self.parts):
            return "tool_calls"
        return "function_call" if any(isinstance(part, LegacyCall) for part in self.parts) else "stop"

    def actions(self, request: SentChat) -> Iterator[Action]:
        if self.delay:
            yield Pause(self.delay)
        if self.always_json or not request.stream:
            yield from self._whole(request)
        else:
            yield Head()
            yield from self._streamed(request)

    def _whole(self, request: SentChat) -> Iterator[Action]:
        choice: Json = {"index": 0, "message": _message(self.parts), "finish_reason": self.finish_reason}
        whole: dict[str, Json] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": CREATED,
            "model": request.model,
            "choices": [choice],
        }
        if self.usage_place != "never":
            whole["usage"] = self.usage.json()
        body = json.dumps(whole).encode()
        head = Head(200, {"content-type": "application/json", "content-length": str(len(body))})
        match self.trouble:
            case None:
                yield from (head, body)
            case Trouble(kind="cut" | "end"):
                yield from (head, body[: len(body) // 2], Cut())
            case Trouble(kind="reset"):
                yield from (head, body[: len(body) // 2], Reset())
            case Trouble(kind="stall"):
                yield from (head, body[: len(body) // 2], Stall())
            case Trouble(kind="bad_json"):
                yield from (head, b"x" * len(body))
            case Trouble(kind="error"):
                body = json.dumps({"error": _PROVIDER_ERROR}).encode()
                yield from (Head(200, {"content-type": "application/json"}), body)

    def _streamed(self, request: SentChat) -> Iterator[Action]:
        for number, chunk in enumerate(self._chunks(request)):
            if self.trouble and number == self.trouble.after:
                yield from _TROUBLES[self.trouble.kind]
                return
            if number and self.gap:
                yield Pause(self.gap)
            yield _frame({"id": "chatcmpl-1", "created": CREATED, "model": request.model, **chunk})
        if self.done:
            yield b"data: [DONE]\n\n"

    def _chunks(self, request: SentChat) -> Iterator[dict[str, Json]]:
        """The chunks without what is the same on all of them."""
        usage: dict[str, Json] = {"usage": self.usage.json()}
        everywhere = usage if self.usage_place == "every" else {}
        first: dict[str, Json] = {"role": "assistant", "content": ""}
        for delta in (first, *_deltas(self.parts)):
            yield _chunk({"index": 0, "delta": delta, "finish_reason": None}) | everywhere
        last: dict[str, Json] = {"index": 0, "delta": {}, "finish_reason": self.finish_reason}
        if self.usage_place == "choice":
            last |= usage
        yield _chunk(last) | (usage if self.usage_place in ("finish", "every") else {})
        if self.usage_place == "after" and request.stream_options.include_usage:
            yield {"object": "chat.completion.chunk", "choices": [], **usage}


@dataclass(frozen=True, slots=True)
class HttpError:
    """An error before the first byte of an answer. `raw` replaces the envelope (§8 lists the variants)."""

    status: int
    message: str = "something is wrong"
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def actions(self, request: SentChat) -> Iterator[Action]:
        yield Head(self.status, {"content-type": "application/json", **self.headers})
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        yield json.dumps({"error": error}).encode() if self.raw is None else self.raw


@dataclass(frozen=True, slots=True)
class Wire:
    """Exactly these actions, whatever was asked for."""

    script: tuple[Action, ...]

    def actions(self, request: SentChat) -> Iterable[Action]:
        return self.script


def answer(
    *parts: Part,
    finish: str | None = None,
    usage: Usage | None = None,
    usage_place: UsagePlace = "after",
    done: bool = True,
    delay: float = 0,
    gap: float = 0,
    trouble: Trouble | None = None,
    always_json: bool = False,
) -> Answer:
    return Answer(parts, finish, usage or Usage(), usage_place, done, delay, gap, trouble, always_json)


def text(*pieces: str) -> Text:
    return Text(pieces)


def refusal(*pieces: str) -> Refusal:
    return Refusal(pieces)


def thought(
    *pieces: str,
    place: Literal["reasoning_content", "reasoning", "reasoning_details"] = "reasoning_content",
    signature: str | None = None,
) -> Thought:
    return Thought(pieces, place, signature)


def call(name: str, *fragments: str, id: str | None = None) -> ToolCall:
    """A tool call with its arguments cut into `fragments`; the id is made of the name when none is given."""
    return ToolCall(name, fragments or ("{}",), id or f"call_{name}")


def calls(*calls: ToolCall, style: CallStyle = "fragments") -> Calls:
    return Calls(calls, style)


def silence(*, after_head: bool = False) -> Wire:
    """Nothing comes: not even a head, or a head and then nothing."""
    return Wire((Head(), Stall()) if after_head else (Stall(),))


def death(moment: Literal["before_head", "in_head", "after_head"], *, reset: bool = False) -> Wire:
    """The provider's process is gone before the first byte of the body."""
    start: dict[str, tuple[Action, ...]] = {
        "before_head": (),
        "in_head": (b"HTTP/1.1 200 OK\r\nContent-Ty",),
        "after_head": (Head(),),
    }
    return Wire((*start[moment], Reset() if reset else Cut()))


def raw(*pieces: bytes, status: int = 200, content_type: str = "text/event-stream", gap: float = 0) -> Wire:
    """These bytes as the body, each piece its own write, `gap` seconds apart."""
    paced: list[Action] = []
    for piece in pieces:
        paced += [piece, Pause(gap)] if gap else [piece]
    return Wire((Head(status, {"content-type": content_type}), *paced))


_PROVIDER_ERROR: dict[str, Json] = {
    "message": "The server had an error",
    "type": "server_error",
    "code": "server_error",
}


def _frame(value: Json) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


_TROUBLES: Mapping[str, tuple[Action, ...]] = {
    "cut": (Cut(),),
    "reset": (Reset(),),
    "stall": (Stall(),),
    "end": (),
    "error": (_frame({"error": _PROVIDER_ERROR}),),
    "bad_json": (b'data: {"choices": [{"delta": {"content": \n\n', b"data: [DONE]\n\n"),
}


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
    return message


def _whole_call(one: ToolCall, style: CallStyle) -> Json:
    function: dict[str, Json] = {"name": one.name}
    if style != "no_arguments":
        function["arguments"] = json.loads(one.arguments) if style == "object" else one.arguments
    ids: dict[str, dict[str, Json]] = {"no_id": {}, "empty_id": {"id": ""}}
    return {**ids.get(style, {"id": one.id}), "type": "function", "function": function}

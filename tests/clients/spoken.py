"""What a provider was told, in words that are the same for every protocol, so that one test can look at all of them.

Only what a conversation is made of is here, in the order in which it was sent; neighbours of one role are joined,
because how often a speaker begins anew is each protocol's own affair.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
from msgspec import Raw

from rejoinder.conformance.upstreams.anthropic_sent import AnthropicBlock
from rejoinder.conformance.upstreams.gemini_sent import GeminiPart
from rejoinder.conformance.upstreams.responses_sent import ResponsesPart
from rejoinder.conformance.upstreams.sent import SentMessage, SentRequest

Dialect = Literal["chat", "anthropic", "gemini", "responses"]

Kind = Literal[
    "system",
    "user",
    "assistant",
    "state",  # reasoning, as the provider wants it back
    "call",
    "result",
    "image",
    "search",  # a search of the provider's own, or what it found
    "compaction",
]

_JOINED = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Spoken:
    """`text` is what was said, the arguments of a call as JSON, the output of a tool, the base64 of an image, or what
    is sealed. `name` and `id` are those of a call; a namespace stands in front of the name, as `namespace__name`."""

    kind: Kind
    text: str = ""
    name: str = ""
    id: str = ""


def spoken(request: SentRequest, dialect: Dialect) -> list[Spoken]:
    """The conversation, oldest first."""
    joined: list[Spoken] = []
    for one in _READERS[dialect](request):
        if joined and one.kind in _JOINED and joined[-1].kind == one.kind:
            joined[-1] = replace(one, text=f"{joined[-1].text}\n{one.text}")
        else:
            joined.append(one)
    return joined


def offered(request: SentRequest, dialect: Dialect) -> list[str]:
    """The names of the tools a model may call. A tool that the provider runs goes by its type."""
    match dialect:
        case "chat":
            return [tool.function.name for tool in request.chat.tools]
        case "anthropic":
            return [tool.type or tool.name for tool in request.anthropic.tools]
        case "gemini":
            own = [name for tool in request.gemini.tools for name in ("googleSearch",) if tool.google_search != _NULL]
            return [*own, *(function.name for function in request.gemini.functions)]
        case "responses":
            body = msgspec.json.decode(request.body, type=_Tools)
            added = [tool for item in body.input for tool in item.tools if item.type == "additional_tools"]
            return [*_names(body.tools), *_names(added)]


_NULL = Raw(b"null")


class _Tool(msgspec.Struct):
    type: str
    name: str = ""
    tools: "list[_Tool]" = []


class _Item(msgspec.Struct):
    type: str = "message"
    tools: list[_Tool] = []


class _Tools(msgspec.Struct):
    tools: list[_Tool] = []
    input: list[_Item] = []


def _names(tools: Iterable[_Tool], namespace: str | None = None) -> Iterator[str]:
    for tool in tools:
        if tool.type == "namespace":
            yield from _names(tool.tools, tool.name)
        else:
            yield _flat(tool.name or tool.type, namespace)


def _flat(name: str, namespace: str | None) -> str:
    return name if namespace in (None, "functions") else f"{namespace}__{name}"


def _picture(url: str | None) -> Spoken:
    assert url is not None
    return Spoken("image", url.partition(";base64,")[2])


def _chat(request: SentRequest) -> Iterator[Spoken]:
    for message in request.chat.messages:
        if message.reasoning_content is not None:
            yield Spoken("state", message.reasoning_content)
        yield from _chat_content(message)
        for call in message.tool_calls:
            yield Spoken("call", call.function.arguments, call.function.name, call.id)


_CHAT_ROLES: Mapping[str, Kind] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "result"}


def _chat_content(message: SentMessage) -> Iterator[Spoken]:
    kind = _CHAT_ROLES[message.role]
    if not isinstance(message.content, list):
        if message.content is not None:
            yield Spoken(kind, message.content, id=message.tool_call_id or "")
        return
    for part in message.content:
        yield _picture(part.image_url.url) if part.image_url is not None else Spoken(kind, part.text)


def _anthropic(request: SentRequest) -> Iterator[Spoken]:
    sent = request.anthropic
    yield Spoken("system", sent.instructions)
    for message in sent.messages:
        for block in message.blocks:
            yield from _block(block, _CHAT_ROLES[message.role])


def _block(block: AnthropicBlock, kind: Kind) -> Iterator[Spoken]:
    match block.type:
        case "text":
            yield Spoken(kind, block.text)
        case "thinking":
            yield Spoken("state", block.signature or "")
        case "tool_use":
            yield Spoken("call", bytes(block.input).decode(), block.name or "", block.id or "")
        case "tool_result":
            yield Spoken("result", block.result, id=block.tool_use_id or "")
            for inner in block.content if isinstance(block.content, list) else ():
                if inner.type != "text":
                    yield from _block(inner, kind)
        case "image":
            assert block.source is not None
            yield Spoken("image", block.source.data or "")
        case "server_tool_use" | "web_search_tool_result":
            yield Spoken("search", id=block.id or block.tool_use_id or "")
        case unexpected:
            raise AssertionError(f"nobody said what a block of type {unexpected!r} is")


def _gemini(request: SentRequest) -> Iterator[Spoken]:
    sent = request.gemini
    yield Spoken("system", sent.instructions)
    raws = msgspec.json.decode(request.fields["contents"], type=list[_Contents])
    for content, raw in zip(sent.contents, raws, strict=True):
        for part, whole in zip(content.parts, raw.parts, strict=True):
            yield from _part(part, whole, "assistant" if content.role == "model" else "user")


class _Contents(msgspec.Struct):
    parts: list[dict[str, Raw]]


def _part(part: GeminiPart, whole: Mapping[str, Raw], kind: Kind) -> Iterator[Spoken]:
    if part.thought_signature is not None:
        yield Spoken("state", part.thought_signature)
    if part.text is not None:
        if part.text and not part.thought:
            yield Spoken(kind, part.text)
    elif (call := part.function_call) is not None:
        yield Spoken("call", bytes(call.args).decode(), call.name, call.id or "")
    elif (result := part.function_response) is not None:
        yield Spoken("result", bytes(result.response).decode(), result.name, result.id or "")
        yield from (Spoken("image", inner.inline_data.data or "") for inner in result.parts if inner.inline_data)
    elif part.inline_data is not None:
        yield Spoken("image", part.inline_data.data or "")
    else:
        assert whole.keys() & {"toolCall", "toolResponse"}, [*whole]
        yield Spoken("search")


_RESPONSES_ROLES: Mapping[str | None, Kind] = {"developer": "system", "user": "user", "assistant": "assistant"}


def _responses(request: SentRequest) -> Iterator[Spoken]:
    raws = msgspec.json.decode(request.fields["input"], type=list[Raw])
    for item, raw in zip(request.responses.items, raws, strict=True):
        id_ = item.call_id or ""
        match item.type:
            case "message":
                assert isinstance(item.content, list)
                yield from _said(item.content, _RESPONSES_ROLES[item.role])
            case "reasoning":
                yield Spoken("state", item.encrypted_content or "")
            case "function_call":
                arguments = msgspec.json.decode(item.arguments, type=str)
                yield Spoken("call", arguments, _flat(item.name or "", item.namespace), id_)
            case "custom_tool_call":
                arguments = msgspec.json.encode({"input": item.input}).decode()
                yield Spoken("call", arguments, _flat(item.name or "", item.namespace), id_)
            case "tool_search_call":
                yield Spoken("call", bytes(item.arguments).decode(), "tool_search", id_)
            case "function_call_output" | "custom_tool_call_output":
                yield Spoken("result", item.result, id=id_)
                if bytes(item.output).startswith(b"["):
                    parts = msgspec.json.decode(item.output, type=list[ResponsesPart])
                    yield from (_picture(part.image_url) for part in parts if part.type == "input_image")
            case "tool_search_output":
                yield Spoken("result", bytes(raw).decode(), id=id_)
            case "web_search_call":
                yield Spoken("search")
            case "compaction":
                yield Spoken("compaction", item.encrypted_content or "")
            case "additional_tools" | "compaction_trigger":
                pass
            case unexpected:
                raise AssertionError(f"nobody said what an item of type {unexpected!r} is")


def _said(parts: Iterable[ResponsesPart], kind: Kind) -> Iterator[Spoken]:
    for part in parts:
        yield _picture(part.image_url) if part.type == "input_image" else Spoken(kind, part.text)


_READERS: Mapping[Dialect, Callable[[SentRequest], Iterator[Spoken]]] = {
    "chat": _chat,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "responses": _responses,
}

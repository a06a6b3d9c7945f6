"""A provider inside the process: a deterministic little model, so that Codex and the SDKs can be tried without a key.

It speaks Chat Completions like a strict server (provider-chat.md §2–§8) and answers from the conversation alone: what
was said first, last or how often, a name it was told, the results of tools. It calls a declared tool when the user asks
for it by name, runs a command in backticks with a shell-like tool, and fills a JSON schema with a small valid instance
(patterns aside). The same request gives the same bytes: ids are made of a hash of the body, `created` is 0 because
there is no clock, and a token is a word.
"""

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from rejoinder.bridge.dialect import Call
from rejoinder.server.upstream import Answer

MODEL = "demo"

_Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
_CallId = Annotated[str, Meta(min_length=1, max_length=64)]


class _Schema(Struct):
    type: str | list[str] = ""
    properties: dict[str, "_Schema | bool"] = {}
    required: list[str] = []
    items: "_Schema | bool" = True
    enum: list[Raw] = []
    const: Raw = Raw()
    any_of: list["_Schema"] = msgspec.field(default_factory=list, name="anyOf")
    one_of: list["_Schema"] = msgspec.field(default_factory=list, name="oneOf")
    all_of: list["_Schema"] = msgspec.field(default_factory=list, name="allOf")
    ref: str = msgspec.field(default="", name="$ref")
    defs: dict[str, "_Schema"] = msgspec.field(default_factory=dict, name="$defs")
    format: str = ""
    min_items: int = msgspec.field(default=0, name="minItems")
    min_length: int = msgspec.field(default=0, name="minLength")
    max_length: int | None = msgspec.field(default=None, name="maxLength")
    minimum: float | None = None
    maximum: float | None = None


class _Function(Struct):
    name: _Name
    parameters: _Schema = _Schema(type="object")


class _Tool(Struct):
    type: Literal["function"]
    function: _Function


class _CalledFunction(Struct):
    name: _Name
    arguments: str


class _ToolCall(Struct):
    id: _CallId
    type: Literal["function"]
    function: _CalledFunction


class _Part(Struct):
    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str = ""


class _Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: Annotated[list[_ToolCall], Meta(min_length=1)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def attachments(self) -> int:
        parts = self.content if isinstance(self.content, list) else []
        return sum(part.type in ("image_url", "input_audio", "file") for part in parts)


class _NamedSchema(Struct):
    schema: _Schema = _Schema(type="object")


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _NamedSchema = _NamedSchema()


class _NamedFunction(Struct):
    name: str


class _Choice(Struct):
    type: Literal["function"]
    function: _NamedFunction


class _StreamOptions(Struct):
    include_usage: bool = False


class _Request(Struct):
    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    tools: Annotated[list[_Tool], Meta(min_length=1)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice = "auto"
    parallel_tool_calls: bool = True
    response_format: _Format = _Format("text")
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A call the model makes: the tool's name and its arguments, as JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class _Reply:
    text: str = ""
    thought: str = ""
    calls: tuple[_Wanted, ...] = ()
    finish: Literal["stop", "tool_calls", "length"] = "stop"


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
                request = msgspec.json.decode(call.body, type=_Request)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                return _refused(str(error), None)
            if (wrong := _objection(request)) is not None:
                return _refused(wrong, "messages")
            reply = _shortened(_reply(request), request.limit)
            digest = sha256(call.body).hexdigest()
            if request.stream:
                frames = _frames(request, reply, digest)
                return Answer(200, {"content-type": "text/event-stream"}, _chunks(frames))
            return _json(200, _completion(request, reply, digest))
        case path:
            return _json(404, {"error": {"message": f"unknown path {path!r}", "type": "invalid_request_error"}})


def _json(status: int, value: Mapping[str, object]) -> Answer:
    return Answer(status, {"content-type": "application/json"}, _chunks([msgspec.json.encode(value)]))


def _refused(message: str, param: str | None) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return _json(400, {"error": error})


async def _chunks(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _objection(request: _Request) -> str | None:
    """What is wrong with the history, or None (provider-chat.md §3 Ordering)."""
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


# What it says.

_TAGGED = re.compile(r"(?:\s*<([A-Za-z][\w-]*)[^>]*>.*?</\1>)+\s*", re.DOTALL)
_COMPACTION = "You are performing a CONTEXT CHECKPOINT COMPACTION"
_HANDED_OVER = "Another language model started to solve this problem"
_WORD = re.compile(r"\s*\S+")


def _spoken(messages: Iterable[_Message]) -> list[str]:
    """The user's own words. Codex puts its notes to the model into user messages too, as blocks of tags (codex.md §3)
    or as a summary (§8)."""
    texts = [_TAGGED.sub("", message.text, count=1) for message in messages if message.role == "user"]
    return [text.strip() for text in texts if text.strip() and not text.startswith((_COMPACTION, _HANDED_OVER))]


def _reply(request: _Request) -> _Reply:
    said = _spoken(request.messages)
    last = said[-1] if said else ""
    thought = f"The user said {_excerpt(last)!r}. I will answer in one go." if "think" in last.lower() else ""
    if calls := _calls(request, last):
        return _Reply(thought=thought, calls=calls, finish="tool_calls")
    match request.response_format.type:
        case "json_schema":
            schema = request.response_format.json_schema.schema
            return _Reply(_encoded(_example(schema, schema, iter(()))), thought)
        case "json_object":
            return _Reply(_encoded({"answer": _text(request.messages, said)}), thought)
        case _:
            return _Reply(_text(request.messages, said), thought)


def _text(messages: Sequence[_Message], said: Sequence[str]) -> str:
    final = messages[-1]
    if final.role == "tool":
        return " ".join(_told(messages))
    if final.text.startswith(_COMPACTION):
        return f"The user said, in order: {'; '.join(map(_excerpt, said))}."
    if final.text.startswith(_HANDED_OVER):
        return f"I go on from the summary. It ends: {final.text[-200:]}"
    if not said:
        return "Hello! Say something, and I will remember it."
    return _recalled(said) or _echo(said[-1], final.attachments)


def _told(messages: Sequence[_Message]) -> Iterator[str]:
    """One sentence for each result of the last calls."""
    names = {call.id: call.function.name for message in messages for call in message.tool_calls or []}
    first = max(index for index, message in enumerate(messages) if message.tool_calls)
    for message in messages[first + 1 :]:
        yield f"The tool {names[message.tool_call_id or '']} answered: {_excerpt(message.text)}"


def _recalled(said: Sequence[str]) -> str | None:
    question = said[-1].lower()
    if re.search(r"what (did i say|was) first|first thing i said", question):
        return f'The first thing you said was: "{said[0]}"'
    if re.search(r"what did i (just )?say( last| before| previously)?\b", question):
        return f'Before that you said: "{said[-2]}"' if len(said) > 1 else "This is the first thing you say to me."
    if "how many messages" in question:
        return f"You have sent {len(said)} {'message' if len(said) == 1 else 'messages'} so far."
    if re.search(r"what('s| is) my name|who am i", question):
        names = re.findall(r"(?i:my name is) (\w[\w'-]*(?: [A-Z][\w'-]*)*)", "\n".join(said))
        return f"Your name is {names[-1]}." if names else "You have not told me your name."
    return None


def _echo(text: str, attachments: int) -> str:
    seen = f" You also attached {attachments} file{'s' if attachments > 1 else ''}, which I cannot see." * bool(attachments)
    return (
        f'You said: "{text}".{seen} I am the demo model of this server. I remember our conversation, I call a tool '
        'when you name it (for example: call get_weather with {"city": "Oslo"}), and I fill in a JSON schema. '
        "Name a real provider in the settings to talk to a real model."
    )


def _excerpt(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


# What it calls.

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_ASKING = re.compile(r"\b(call|use|run|invoke|execute|try)\b", re.IGNORECASE)
_QUOTED = re.compile(r"```(?:\w*\n)?(.*?)```|`([^`]+)`|\"([^\"]+)\"|“([^”]+)”", re.DOTALL)
_SHELLS = ("exec_command", "shell", "local_shell", "shell_command")


def _calls(request: _Request, text: str) -> tuple[_Wanted, ...]:
    tools = {tool.function.name: tool.function for tool in request.tools or []}
    if request.tool_choice == "none":
        return ()
    if isinstance(request.tool_choice, _Choice):
        name = request.tool_choice.function.name
        tools = {name: tools[name]} if name in tools else {}
    answered = request.messages[-1].role == "tool" or not request.messages[-1].text.rstrip().endswith(text)
    wanted = () if answered else tuple(dict.fromkeys(_asked(tools, text)))
    if not wanted and request.tool_choice != "auto":
        wanted = tuple(_Wanted(tool.name, _arguments(tool, text)) for tool in [*tools.values()][:1])
    return wanted if request.parallel_tool_calls else wanted[:1]


def _asked(tools: Mapping[str, _Function], text: str) -> Iterator[_Wanted]:
    """The tools a text asks for, in the order it names them: by the whole name, or without the namespace it was
    flattened with (mapping.md §3). A JSON object between one name and the next holds the arguments."""
    if not tools or not _ASKING.search(text):
        return
    bare = {name.rsplit("__", 1)[-1]: name for name in tools}
    found = [(token, tools.get(token[0]) or tools.get(bare.get(token[0], ""))) for token in _TOKEN.finditer(text)]
    named = [(token, tool) for token, tool in found if tool]
    end = 0
    for (token, tool), stop in zip(named, [*(token.start() for token, _ in named[1:]), len(text)], strict=True):
        if token.start() < end:
            continue
        arguments, end = _object(text, token.end(), stop)
        yield _Wanted(tool.name, arguments or _arguments(tool, text[token.end() :]))
    shell = next((tools[name] for name in map(lambda name: bare.get(name, ""), _SHELLS) if name in tools), None)
    command = re.search(r"\brun `([^`]+)`", text, re.IGNORECASE)
    if not named and shell and command:
        yield _Wanted(shell.name, _arguments(shell, command[0]))

"""A deterministic little model that answers from the conversation alone.

It tells what was said first, last or how often, a name it was told, and what tools answered. It calls a declared tool
when the user asks for it by name, runs a command in backticks with a shell-like tool, and fills in a JSON schema.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from rejoinder.server.schema_example import Schema, example, schema_of

_Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
_CallId = Annotated[str, Meta(min_length=1, max_length=64)]


class _Function(Struct, frozen=True):
    name: _Name
    parameters: Raw = Raw(b'{"type": "object"}')


class _Tool(Struct, frozen=True):
    type: Literal["function"]
    function: _Function


class _CalledFunction(Struct, frozen=True):
    name: _Name
    arguments: str


class _ToolCall(Struct, frozen=True):
    id: _CallId
    type: Literal["function"]
    function: _CalledFunction


class _Part(Struct, frozen=True):
    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str = ""


class Message(Struct, frozen=True):
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


class _NamedSchema(Struct, frozen=True):
    schema: Raw = Raw(b'{"type": "object"}')


class _Format(Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _NamedSchema = _NamedSchema()


class _NamedFunction(Struct, frozen=True):
    name: str


class Choice(Struct, frozen=True):
    type: Literal["function"]
    function: _NamedFunction


class _StreamOptions(Struct, frozen=True):
    include_usage: bool = False


class Request(Struct, frozen=True):
    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: Annotated[list[_Tool], Meta(min_length=1)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format = _Format("text")
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call the model makes: the tool's name and its arguments, as JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    text: str = ""
    thought: str = ""
    calls: tuple[Wanted, ...] = ()
    finish: Literal["stop", "tool_calls", "length"] = "stop"


_TAGGED = re.compile(
    r"(?:# AGENTS\.md instructions[^\n]*)?(?:\s*<([A-Za-z][\w-]*)(?:\s[^>]*)?>.*?</\1>)+\s*", re.DOTALL
)
_COMPACTION = "You are performing a CONTEXT CHECKPOINT COMPACTION"
_SUMMARY = "Another language model started to solve this problem"


def _words_of(message: Message) -> str:
    """The user's own words in a message, "" if there are none. Codex puts notes to the model into user messages too:
    blocks of tags in front (codex.md §3), the first with a heading, and both halves of a compaction (§8)."""
    if message.role != "user" or message.text.startswith((_COMPACTION, _SUMMARY)):
        return ""
    tags = _TAGGED.match(message.text)
    return message.text[tags.end() if tags else 0 :].strip()


def _final(messages: Sequence[Message]) -> Message:
    """The message to answer: the last one that is no instruction and no mere note."""
    for message in reversed(messages):
        note = message.role == "user" and not _words_of(message) and _TAGGED.match(message.text)
        if message.role not in ("system", "developer") and not note:
            return message
    return messages[-1]


def reply_to(request: Request) -> Reply:
    """The reply to a request whose history is in order and whose tool choice names a declared tool."""
    said = [words for message in request.messages if (words := _words_of(message))]
    last = said[-1] if said else ""
    thought = f"The user said: {_excerpt(last)} Let me see what I can do." if "think" in last.lower() else ""
    if calls := _calls(request, last):
        return Reply(thought=thought, calls=calls, finish="tool_calls")
    wanted = request.response_format
    if wanted.type == "json_schema":
        return Reply(example(schema_of(wanted.json_schema.schema)), thought)
    text = _text(request.messages, said)
    return Reply(_json({"answer": text}) if wanted.type == "json_object" else text, thought)


def _text(messages: Sequence[Message], said: Sequence[str]) -> str:
    final = _final(messages)
    if final.role == "tool":
        return " ".join(_told(messages))
    if final.text.startswith(_COMPACTION):
        return f"The user said, in this order: {'; '.join(map(_excerpt, said))}"
    if final.text.startswith(_SUMMARY):
        return f"I go on from the summary, which ends: {final.text[-300:]}"
    if not said:
        return "Hello! Say something, and I will remember it."
    return _recalled(messages, said) or _echo(said[-1], final.attachments)


def _told(messages: Sequence[Message]) -> Iterator[str]:
    """One sentence for each result of the last calls."""
    names = {call.id: call.function.name for message in messages for call in message.tool_calls or []}
    calling = max(index for index, message in enumerate(messages) if message.tool_calls)
    for message in messages[calling + 1 :]:
        if message.role == "tool" and message.tool_call_id:
            yield f"The tool {names[message.tool_call_id]} answered: {_excerpt(message.text)}"


def _recalled(messages: Sequence[Message], said: Sequence[str]) -> str | None:
    question = said[-1].lower()
    if re.search(r"what did i say first|first thing i said", question):
        return f'The first thing you said was: "{said[0]}"'
    if re.search(r"what did i (just )?say( last| before| previously)?\b", question):
        return f'Before that you said: "{said[-2]}"' if len(said) > 1 else "This is the first thing you say to me."
    if "what did you say" in question:
        mine = [message.text for message in messages if message.role == "assistant" and message.text]
        return f'I said: "{mine[-1]}"' if mine else "I have not said anything yet."
    if "how many messages" in question:
        return f"Counting this one, you have sent me {len(said)}."
    if re.search(r"what('s| is) my name|who am i", question):
        names = re.findall(r"(?i:my name is) (\w[\w'-]*(?: [A-Z][\w'-]*)*)", "\n".join(said))
        return f"Your name is {names[-1]}." if names else "You have not told me your name."
    return None


def _echo(text: str, attachments: int) -> str:
    seen = f" You attached {attachments} more that I cannot see." if attachments else ""
    return (
        f'You said: "{text}"{seen} I am the demo model of this server: I remember our conversation, I call a tool '
        'when you name it (try: call get_weather with {"city": "Oslo"}), and I fill in a JSON schema. Name a provider '
        "in the settings to talk to a real model."
    )


def _excerpt(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"


_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_ASKING = re.compile(r"\b(call|use|run|invoke|execute|try)\b", re.IGNORECASE)
_COMMAND = re.compile(r"\brun `([^`]+)`", re.IGNORECASE)
_QUOTED = re.compile(r"```(?:\w*\n)?(.*?)```|`([^`]+)`|\"([^\"]+)\"|“([^”]+)”", re.DOTALL)
_SHELLS = ("exec_command", "shell_command", "local_shell", "shell")


def _calls(request: Request, said: str) -> tuple[Wanted, ...]:
    """The calls of this turn; `said` is what the user said last, which may have been answered already."""
    tools = {tool.function.name: tool.function for tool in request.tools or []}
    choice = request.tool_choice
    if choice == "none":
        return ()
    if isinstance(choice, Choice):
        tools = {choice.function.name: tools[choice.function.name]}
    wanted = tuple(dict.fromkeys(_asked(tools, _words_of(_final(request.messages)))))
    if not wanted and choice not in (None, "auto"):
        wanted = tuple(Wanted(tool.name, _arguments(tool, said)) for tool in [*tools.values()][:1])
    return wanted[:1] if request.parallel_tool_calls is False else wanted


def _asked(tools: Mapping[str, _Function], text: str) -> Iterator[Wanted]:
    """The calls a text asks for, in its order. A tool is named in full, or without the namespace it was flattened with
    (mapping.md §3); a JSON object between one name and the next holds the arguments."""
    if not _ASKING.search(text):
        return
    bare = {name.rsplit("__", 1)[-1]: tool for name, tool in tools.items()} | dict(tools)
    named = [token for token in _TOKEN.finditer(text) if token[0] in bare]
    stops = [*(token.start() for token in named[1:]), len(text)]
    after = 0
    for token, stop in zip(named, stops, strict=False):
        if token.start() >= after:  # else the name stands inside the arguments of the call before
            given, after = _given(text, token.end(), stop)
            # The name may be quoted itself; what follows its closing mark is what counts.
            rest = text[token.end() : stop].removeprefix("`").removeprefix('"')
            yield Wanted(bare[token[0]].name, given or _arguments(bare[token[0]], rest))
    command = _COMMAND.search(text)
    shell = next((bare[name] for name in _SHELLS if name in bare), None)
    if command and shell and not named:
        yield Wanted(shell.name, _shell_arguments(shell, command[1]))


_BEGINNINGS = 100


def _given(text: str, start: int, stop: int) -> tuple[str, int]:
    """The first JSON object that begins between `start` and `stop`, and where it ends."""
    # One that is no object may be looked at to its end, so a text of nothing but beginnings is not looked through.
    for brace in islice(re.compile(r"\{").finditer(text, start, stop), _BEGINNINGS):
        try:
            _, end = json.JSONDecoder().raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        return text[brace.start() : end], end
    return "", start


def _arguments(tool: _Function, text: str) -> str:
    """Arguments for the required properties, made of the values quoted in `text` as far as they reach."""
    quoted = [next(filter(None, groups)) for groups in _QUOTED.findall(text)]
    return example(schema_of(tool.parameters), quoted)


def _shell_arguments(tool: _Function, command: str) -> str:
    properties = schema_of(tool.parameters).properties
    if "cmd" in properties:
        return _json({"cmd": command})
    if "commands" in properties:
        return _json({"commands": [command]})
    single = properties.get("command")
    listed = isinstance(single, Schema) and single.type == "array"
    return _json({"command": ["sh", "-c", command] if listed else command})


def _json(value: Mapping[str, object]) -> str:
    return msgspec.json.encode(value).decode()

"""Chat Completions: how a conversation is asked (provider-chat.md §2 to §4, §9; mapping.md columns C).

The body is written in an order that keeps it byte-stable: everything that stays the same from turn to turn first, the
messages last. For an unchanged history the next request begins with the bytes of this one, up to the end of the last
message (mapping.md §0.2).

Parameters this dialect has no word for are left out and noted: `reasoning.context`, `reasoning.mode`, and the options
a server's profile does not list.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from rejoinder.bridge.arguments import as_object, free_text
from rejoinder.bridge.chat_reader import ChatReader, ReasoningState
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.data_url import DataUrl
from rejoinder.bridge.dialect import Call, Count, Prompt
from rejoinder.bridge.errors import Unsupported, UpstreamError, cannot_take
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.offer import LIST_MODELS, listed
from rejoinder.bridge.phrases import JSON_ONLY, named, of_the_system, output_of, shown_later
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.rejection import rejection
from rejoinder.bridge.toolbox import Function
from rejoinder.bridge.turns import (
    Audio,
    CallPart,
    File,
    Image,
    Piece,
    Refusal,
    Result,
    Text,
    Thought,
    Turn,
    leading,
    mark_of,
    turns,
)
from rejoinder.wire.formats import TextFormat
from rejoinder.wire.items import CacheBreakpoint
from rejoinder.wire.tools import NamedTool


class ChatDialect:
    """Chat Completions as one server speaks it."""

    native = False
    compacts = False
    hosted: frozenset[str] = frozenset()

    def __init__(self, profile: ChatProfile) -> None:
        self._profile = profile

    def call(self, prompt: Prompt) -> Call:
        stream = prompt.request.stream
        head = _ENCODER.encode({**self._settings(prompt), **self._tools(prompt)})
        messages = b",".join(self._messages(prompt))
        if not messages:
            raise Unsupported("the conversation is empty", param="input")
        return Call("/chat/completions", b'%b,"messages":[%b]}' % (head[:-1], messages), stream)

    def reader(self, prompt: Prompt, out: Composer) -> ChatReader:
        return ChatReader(out, self._profile)

    def rejection(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return rejection(status, headers, body)

    def relent(self, prompt: Prompt, error: UpstreamError) -> Prompt | None:
        return None

    def models(self) -> Call:
        return LIST_MODELS

    def offered(self, body: bytes) -> list[str]:
        return listed(body)

    def count(self, prompt: Prompt) -> Count | None:
        return None  # the protocol has no such request

    def _settings(self, prompt: Prompt) -> dict[str, object]:
        """Everything but tools and messages, in a fixed order."""
        fields, profile = prompt.request.fields, self._profile
        body: dict[str, object] = {"model": prompt.model, **profile.extra}
        if prompt.request.stream:
            body["stream"] = True
            if profile.stream_usage:
                body["stream_options"] = {"include_usage": True}
        for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
            if (value := getattr(fields, name)) is not None:
                body[name] = value
        if fields.max_output_tokens is not None:
            body[profile.max_tokens] = fields.max_output_tokens
        options: dict[str, object] = {
            "prompt_cache_key": fields.prompt_cache_key,
            "prompt_cache_options": fields.prompt_cache_options,
            "prompt_cache_retention": fields.prompt_cache_retention,
            "safety_identifier": fields.safety_identifier,
            "user": fields.user,
            # "auto" and "default" ask for nothing special (mapping.md §1: never fail on them, nor speak of them).
            "service_tier": None if fields.service_tier in ("auto", "default") else fields.service_tier,
            "verbosity": fields.text.verbosity if fields.text is not None else None,
        }
        for name, value in options.items():
            if value is None:
                continue
            if name in profile.options:
                body[name] = value
            else:
                prompt.ignore({"text.verbosity" if name == "verbosity" else name: value})
        if prompt.wants_logprobs:
            if "logprobs" not in profile.options:
                raise prompt.without_logprobs()
            body["logprobs"] = True
            if fields.top_logprobs:
                body["top_logprobs"] = fields.top_logprobs
        self._effort(prompt, body)
        if (wanted := prompt.format) is not None:
            self._format(wanted, body)
        return body

    def _effort(self, prompt: Prompt, body: dict[str, object]) -> None:
        prompt.ignore(prompt.ways_of_thinking)
        effort = prompt.effort
        if effort is None:
            return
        spelled = self._profile.effort_values.get(effort, effort)
        match self._profile.effort:
            case "none":
                prompt.ignore({"reasoning.effort": effort})
            case "reasoning_effort":
                body["reasoning_effort"] = spelled
            case "reasoning_object":
                body["reasoning"] = {"effort": spelled}
            case "thinking":
                body["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
                if effort in self._profile.effort_values:
                    body["reasoning_effort"] = spelled
                elif effort != "none":
                    prompt.note("reasoning.effort: this upstream thinks or does not, it knows no degrees")
            case "enable_thinking":  # pragma: no branch  # nothing else is left
                body["enable_thinking"] = effort != "none"

    def _format(self, wanted: TextFormat, body: dict[str, object]) -> None:
        if wanted.type == "json_object" or (wanted.type == "json_schema" and self._profile.json_schema == "object"):
            body["response_format"] = {"type": "json_object"}
        elif wanted.type == "json_schema" and self._profile.json_schema == "native":
            schema: dict[str, object] = {"name": wanted.name, "schema": wanted.schema}
            if wanted.description is not None:
                schema["description"] = wanted.description
            if wanted.strict is not None:
                schema["strict"] = wanted.strict
            body["response_format"] = {"type": "json_schema", "json_schema": schema}

    def _tools(self, prompt: Prompt) -> dict[str, object]:
        """Without tools there is no key at all: an empty list, or a choice without tools, is a 400 (§4)."""
        toolbox, profile = prompt.toolbox, self._profile
        if not toolbox.functions:
            if toolbox.choice == "required":
                raise Unsupported("tool choice 'required' needs at least one tool", param="tool_choice")
            if isinstance(toolbox.choice, NamedTool):
                toolbox.named(toolbox.choice)
            return {}
        body: dict[str, object] = {"tools": [self._tool(function) for function in toolbox.functions]}
        choice = toolbox.choice
        if isinstance(choice, NamedTool):
            function = toolbox.named(choice)
            body["tool_choice"] = self._named(function)
        elif choice != "auto":
            body["tool_choice"] = "any" if choice == "required" and profile.tool_choice == "any" else choice
        if profile.tool_choice == "auto" and body.get("tool_choice") not in (None, "none"):
            del body["tool_choice"]
            prompt.note("tool_choice: this upstream decides itself whether to call a tool")
        if prompt.request.fields.parallel_tool_calls is False and "parallel_tool_calls" in profile.options:
            body["parallel_tool_calls"] = False
        return body

    def _tool(self, function: Function) -> object:
        if function.custom is not None and self._profile.native_custom_tools:
            return _custom_tool(function)
        declared: dict[str, object] = {"name": function.name}
        if function.description:
            declared["description"] = function.description
        declared["parameters"] = Raw(function.parameters)
        if function.strict:
            declared["strict"] = True
        return {"type": "function", "function": declared}

    def _named(self, function: Function) -> object:
        if function.custom is not None and self._profile.native_custom_tools:
            return {"type": "custom", "custom": {"name": function.name}}
        return {"type": "function", "function": {"name": function.name}}

    def _messages(self, prompt: Prompt) -> Iterator[bytes]:
        conversation = turns(prompt.items, prompt.toolbox, prompt.opened)
        if any(_marked_elsewhere(turn) for turn in conversation):
            prompt.note("input: prompt_cache_breakpoint has an effect in user messages alone")
        start = leading(conversation)
        instructions = [*self._instructions(prompt), *(turn.text for turn in conversation[:start])]
        if text := "\n\n".join(filter(None, instructions)):
            # Clients send several in a row; templates of local models take one, and only at the start (§3).
            yield _ENCODER.encode(_System(self._profile.instructions_role, text))
        yield from self._conversation(conversation[start:], prompt)

    def _instructions(self, prompt: Prompt) -> Iterator[str]:
        fields = prompt.request.fields
        if fields.instructions:
            yield fields.instructions
        wanted = prompt.format
        if wanted is None or wanted.type == "text":
            return
        if wanted.type == "json_object":
            # Several servers refuse json_object unless the word is in the prompt (§9).
            yield JSON_ONLY
        elif self._profile.json_schema != "native":
            schema = bytes(wanted.schema).decode()
            yield f"Answer with JSON that matches this JSON schema and nothing else:\n{schema}"

    def _conversation(self, conversation: Sequence[Turn], prompt: Prompt) -> Iterator[bytes]:
        users: list[Piece] = []
        for turn in conversation:
            if users and turn.role != "user":
                yield _ENCODER.encode(self._user(users, prompt))
                users = []
            match turn.role:
                case "user":
                    if users and not self._profile.merge_turns:
                        yield _ENCODER.encode(self._user(users, prompt))
                        users = []
                    users.extend(turn.pieces)
                case "system" if self._profile.system_position == "first":
                    users.append(Text(of_the_system(turn.text)))
                case "system":
                    yield _ENCODER.encode(_System("system", turn.text))
                case "assistant":
                    if (message := self._assistant(turn, prompt)) is not None:
                        yield _ENCODER.encode(message)
                case "tool":  # pragma: no branch  # nothing else is left
                    for part in turn.parts:
                        assert isinstance(part, Result)
                        yield _ENCODER.encode(_Tool(self._call_id(part.call_id), _result_text(part)))
                        users.extend(_attachments(part))
        if users:
            yield _ENCODER.encode(self._user(users, prompt))

    def _user(self, pieces: Sequence[Piece], prompt: Prompt) -> "_User":
        parts = [self._marked(piece, prompt) for piece in pieces]
        match parts:
            case [_TextPart(text=text, prompt_cache_breakpoint=msgspec.UNSET)]:
                return _User(text)
            case _:
                return _User(parts)

    def _marked(self, piece: Piece, prompt: Prompt) -> "_UserPart":
        """The part, with the mark of what is worth caching where the server reads such marks (§2, OpenAI)."""
        part = self._user_part(piece)
        mark = mark_of(piece)
        if mark is None:
            return part
        if "prompt_cache_options" in self._profile.options and not isinstance(part, _AudioPart):
            return msgspec.structs.replace(part, prompt_cache_breakpoint=mark)
        prompt.note("input: prompt_cache_breakpoint is not understood by this upstream")
        return part

    def _user_part(self, piece: Piece) -> "_UserPart":
        profile = self._profile
        match piece:
            case Text(text=text) | Refusal(text=text):
                return _TextPart(text)
            case Image(url=str(url), detail=detail) if profile.images:
                if detail == "original" and not profile.image_detail_original:
                    detail = "high"
                return _ImagePart(_ImageUrl(url, detail or UNSET))
            case Image(url=None):
                raise cannot_take("an image by 'file_id'", "there is no file store here; send it as a data URL")
            case Image():
                raise cannot_take("images", "it takes text only")
            case Audio(data=data, format=format_) if profile.audio:
                return _AudioPart(_AudioData(data, format_))
            case Audio():
                raise cannot_take("audio", "it has no input for it")
            case File(data=str(data), name=name):
                if (plain := _plain_text(data)) is not None:
                    return _TextPart(named(plain, name))
                if profile.files:
                    return _FilePart(_FileData(data, name or "file"))
                raise cannot_take("files", "it takes text files and images only")
            case File():  # pragma: no branch  # nothing else is left
                raise cannot_take("a file by 'file_id' or 'file_url'", "it is not fetched here; send it as 'file_data'")

    def _assistant(self, turn: Turn, prompt: Prompt) -> "_Assistant | None":
        texts: list[str] = []
        calls: list[_Call] = []
        state = ReasoningState()
        for part in turn.parts:
            assert not isinstance(part, Result), "results are turns of their own"
            match part:
                case Thought(envelope=envelope):
                    if envelope is not None:
                        state.add(envelope)
                case CallPart():
                    calls.append(self._tool_call(part, prompt, state))
                case Text() | Refusal():
                    texts.append(part.text)
                case Image() | File() | Audio():  # pragma: no branch  # nothing else is left
                    raise cannot_take("images, files or audio in an assistant message", "only users may send them")
        if not texts and not calls:
            ours = any(isinstance(part, Thought) and part.envelope is not None for part in turn.parts)
            if ours and self._profile.reasoning_replay == "always":
                # An answer that ended after thinking: no message may be empty, and a thought is a field of one.
                prompt.lose(Loss("reasoning", None, "removed", "no_words"))
            return None
        content: str | list[Raw] | None = "\n\n".join(texts) if texts else None
        if content is None and self._profile.empty_content == "empty":
            content = ""
        message = _Assistant(content)
        if calls:
            message.tool_calls = calls
        self._recall(message, state, bool(calls))
        return message

    def _recall(self, message: "_Assistant", state: ReasoningState, with_calls: bool) -> None:
        """Put the reasoning back where this server gave it (§6)."""
        replay = self._profile.reasoning_replay
        if replay == "never" or (replay == "tools" and not with_calls):
            return
        if state.details:
            message.reasoning_details = state.details
        if state.content:
            said = [Raw(_ENCODER.encode(_TextPart(message.content)))] if isinstance(message.content, str) else []
            message.content = [*state.content, *said]
        message.extra_content = state.extra_content
        if state.field == "reasoning_content":
            message.reasoning_content = state.text
        elif state.field == "reasoning":
            message.reasoning = state.text
        elif replay == "tools":
            # Without it the whole conversation is refused for ever after (§6, DeepSeek and Moonshot).
            message.reasoning_content = ""

    def _tool_call(self, part: CallPart, prompt: Prompt, state: ReasoningState) -> "_Call":
        call_id = self._call_id(part.call_id)
        function = prompt.toolbox.function(part.name)
        extra = state.of_call(part.call_id)
        if function is not None and function.custom is not None and self._profile.native_custom_tools:
            return _Call(
                call_id, "custom", custom=_CustomInput(part.name, free_text(part.arguments)), extra_content=extra
            )
        arguments, _ = as_object(part.arguments)
        return _Call(call_id, "function", function=_FunctionInput(part.name, arguments), extra_content=extra)

    def _call_id(self, call_id: str) -> str:
        if self._profile.call_ids == "free" or (len(call_id) == 9 and call_id.isascii() and call_id.isalnum()):
            return call_id
        # The same id every time, so that calls and results pair and the prefix stays what it was.
        number = int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:8], "big")
        digits = []
        for _ in range(9):
            number, digit = divmod(number, len(_BASE62))
            digits.append(_BASE62[digit])
        return "".join(digits)


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class _System(Struct):
    role: Literal["system", "developer"]
    content: str


class _TextPart(Struct, tag_field="type", tag="text"):
    text: str
    prompt_cache_breakpoint: CacheBreakpoint | UnsetType = UNSET


class _ImageUrl(Struct, omit_defaults=True):
    url: str
    detail: str | UnsetType = UNSET


class _ImagePart(Struct, tag_field="type", tag="image_url"):
    image_url: _ImageUrl
    prompt_cache_breakpoint: CacheBreakpoint | UnsetType = UNSET


class _AudioData(Struct):
    data: str
    format: str


class _AudioPart(Struct, tag_field="type", tag="input_audio"):
    input_audio: _AudioData


class _FileData(Struct):
    file_data: str
    filename: str


class _FilePart(Struct, tag_field="type", tag="file"):
    file: _FileData
    prompt_cache_breakpoint: CacheBreakpoint | UnsetType = UNSET


_UserPart = _TextPart | _ImagePart | _AudioPart | _FilePart


class _User(Struct, tag_field="role", tag="user"):
    content: str | list[_UserPart]


class _FunctionInput(Struct):
    name: str
    arguments: str


class _CustomInput(Struct):
    name: str
    input: str


class _Call(Struct):
    id: str
    type: Literal["function", "custom"]
    function: _FunctionInput | UnsetType = UNSET
    custom: _CustomInput | UnsetType = UNSET
    extra_content: Raw | UnsetType = UNSET


class _Assistant(Struct, tag_field="role", tag="assistant"):
    content: str | list[Raw] | None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_details: list[Raw] | UnsetType = UNSET
    extra_content: Raw | UnsetType = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET


class _Tool(Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str


def _custom_tool(function: Function) -> object:
    tool = function.custom
    assert tool is not None
    declared: dict[str, object] = {"name": function.name}
    if tool.description:
        declared["description"] = tool.description
    if tool.format is not None:
        # The grammar is nested here and flat in Responses (§4).
        grammar = {"definition": tool.format.definition, "syntax": tool.format.syntax}
        declared["format"] = {"type": "text"} if tool.format.type == "text" else {"type": "grammar", "grammar": grammar}
    return {"type": "custom", "custom": declared}


def _marked_elsewhere(turn: Turn) -> bool:
    """Whether something outside of user messages is marked as worth caching; there it is text and nothing else."""
    if turn.role == "user":
        return False
    said = [piece for part in turn.parts for piece in (part.pieces if isinstance(part, Result) else (part,))]
    return any(mark_of(piece) is not None for piece in said)


def _result_text(result: Result) -> str:
    """Tool messages hold text only; what else there is follows in a user message (§3)."""
    texts = [piece.text for piece in result.pieces if isinstance(piece, Text | Refusal)]
    others = {shown_later(piece) for piece in result.pieces if not isinstance(piece, Text | Refusal)}
    return "\n".join([*texts, *sorted(others)])


def _attachments(result: Result) -> list[Piece]:
    others: list[Piece] = [piece for piece in result.pieces if not isinstance(piece, Text | Refusal)]
    return [Text(output_of(result)), *others] if others else []


def _plain_text(data_url: str) -> str | None:
    """The text of a data URL of a text type, or None for any other, and for what the server may make sense of."""
    try:
        url = DataUrl.parse(data_url)
        return url.data.decode() if url.is_text else None
    except (Unsupported, UnicodeDecodeError):
        return None


_ENCODER = msgspec.json.Encoder()

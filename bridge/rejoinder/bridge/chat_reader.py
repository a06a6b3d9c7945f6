"""Chat Completions: how an answer is read (provider-chat.md §5 to §8, §10).

One reader takes whatever comes: server-sent chunks, or one JSON body where a stream was asked for (or not). What the
servers disagree on, and what is done about it, stands where it is done.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.delivery import MAKES_NO_SENSE, Delivery
from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.errors import BrokenStream
from rejoinder.bridge.fragments import joined_chunks, joined_details, shown
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.rejection import stream_error
from rejoinder.bridge.think_tags import ThinkTags
from rejoinder.wire import sse
from rejoinder.wire.responses import InputDetails, ItemStatus, OutputDetails, UrlCitation, Usage


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Raw] | None = None


class _Custom(Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _ToolCall(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None
    extra_content: Raw = Raw()


class _Delta(Struct, gc=False):
    """A delta of a stream, and just as well the message of a whole answer."""

    content: str | list[Raw] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Raw] | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    annotations: list[Raw] | None = None
    extra_content: Raw = Raw()


class _Token(Struct):
    """Chat's `bytes` is null for a token that has none, and some servers leave it out; Responses demands a list
    (objects.md §5)."""

    token: str
    logprob: float
    bytes: list[int] | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if not isinstance(self.bytes, list):
            self.bytes = [*self.token.encode()] if self.bytes is UNSET else []


class _Logprob(_Token):
    top_logprobs: list[_Token] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.top_logprobs = self.top_logprobs or []


class _Logprobs(Struct, gc=False):
    content: list[Raw] | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    usage: Raw = Raw()


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Raw = Raw()
    error: Raw = Raw()


class _TokenDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None
    completion_tokens_details: _TokenDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None


class _CitedUrl(Struct):
    url: str
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class _Annotation(Struct):
    type: str
    url_citation: _CitedUrl | None = None


class _ContentPart(Struct):
    """Mistral's content lists: `text`, or `thinking` with a list of texts."""

    type: str
    text: str | None = None
    thinking: list["_ContentPart"] | str | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_USAGE = msgspec.json.Decoder(_Usage)
_ANNOTATION = msgspec.json.Decoder(_Annotation)
_LOGPROB = msgspec.json.Decoder(_Logprob)
_PART = msgspec.json.Decoder(_ContentPart)
_ENCODER = msgspec.json.Encoder()

_STATUS: dict[str, tuple[Literal["completed", "incomplete"], str | None]] = {
    "length": ("incomplete", "max_output_tokens"),
    "model_length": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
    "sensitive": ("incomplete", "content_filter"),
}
"""What a finish reason means; every other one, known or not, is an ordinary end (provider-chat.md §5)."""

_FAILED = frozenset(("error", "insufficient_system_resource"))


class _Part(Struct, omit_defaults=True):
    """What an envelope keeps of one run of reasoning, in the form it came in."""

    field: str | None = None
    text: str | None = None
    details: list[Raw] | None = None
    content: list[Raw] | None = None
    extra_content: Raw | msgspec.UnsetType = msgspec.UNSET


_STATE = msgspec.json.Decoder(_Part)


class ReasoningState:
    """What the reasoning items of one assistant turn say about the form in which the reasoning goes back."""

    def __init__(self) -> None:
        self.field: str | None = None
        self.text = ""
        self.details: list[Raw] = []
        self.content: list[Raw] = []
        self.extra_content: Raw | msgspec.UnsetType = msgspec.UNSET
        self._calls: dict[str, Raw] = {}

    def add(self, envelope: Envelope) -> None:
        for raw in envelope.parts:
            part = _STATE.decode(raw)
            if part.text is not None:
                self.field = part.field
                self.text += part.text
            self.details.extend(part.details or ())
            self.content.extend(part.content or ())
            if part.extra_content is not msgspec.UNSET:
                self.extra_content = part.extra_content
        self._calls.update(envelope.calls)

    def of_call(self, call_id: str) -> Raw | msgspec.UnsetType:
        return self._calls.get(call_id, msgspec.UNSET)


class ChatReader:
    """Reads one answer and reports it to the composer."""

    def __init__(self, out: Composer, profile: ChatProfile) -> None:
        self._out = out
        self._delivery = Delivery()
        self._tags = ThinkTags(prefilled=profile.prefilled_think) if profile.think_tags else None
        self._calls = _Calls(out)
        self._thinking = _Thinking(out)
        self._finish: str | None = None
        self._usage: Raw | None = None
        self._is_whole = False
        self.is_over = False

    def feed(self, data: bytes) -> None:
        if not self.is_over:
            self._read(self._delivery.feed(data))

    def close(self, at: int) -> None:
        if not self.is_over:
            self._read(self._delivery.close())
            if body := self._delivery.body:
                self._whole(body)
        if self._finish is None and not self.is_over:
            raise BrokenStream("the stream ended before the answer did")
        if self._finish in _FAILED:
            raise BrokenStream(f"the provider ended the answer with '{self._finish}'")
        status, reason = _STATUS.get(self._finish or "", ("completed", None))
        self._flush()
        self._thinking.end(status=status)
        self._calls.end()
        self._out.finish(status, usage=usage_of(self._usage), at=at, reason=reason)

    def _whole(self, body: bytes) -> None:
        self._is_whole = True
        self._thinking.is_whole = True
        self._calls.is_whole = True
        self._chunk(body)
        self.is_over = True

    def _read(self, frames: list[sse.Frame]) -> None:
        for frame in frames:
            if frame.data.startswith(b"[DONE]"):
                self.is_over = True
                return
            self._chunk(frame.data)

    def _chunk(self, data: bytes) -> None:
        try:
            if not data.isascii():
                data.decode()  # msgspec takes what it hands on as it is for UTF-8
            chunk = _CHUNK.decode(data)
        except MAKES_NO_SENSE as error:
            raise BrokenStream(f"the provider sent something that is no chunk of an answer: {error}") from error
        if len(chunk.error) > 4:  # neither left out nor null
            raise stream_error(data)
        if len(chunk.usage) > 4:
            self._usage = chunk.usage  # wherever it comes, and the last one counts (§7)
        for choice in chunk.choices or ():
            if choice.index == 0:  # more than one is never asked for
                self._choice(choice)

    def _choice(self, choice: _Choice) -> None:
        # Perplexity sends both: in a stream the message is all of it so far, in a body the delta is empty.
        delta = (choice.message or choice.delta) if self._is_whole else (choice.delta or choice.message)
        if delta is not None:
            self._delta(delta, choice.logprobs)
        if choice.finish_reason:
            self._finish = choice.finish_reason
        if len(choice.usage) > 4:
            self._usage = choice.usage  # Moonshot puts it here

    def _delta(self, delta: _Delta, logprobs: _Logprobs | None) -> None:
        if delta.reasoning_content:
            self._thinking.text("reasoning_content", delta.reasoning_content)
        elif delta.reasoning:
            # OpenRouter sends the same text here and in its details.
            self._thinking.text("reasoning", delta.reasoning)
        elif delta.reasoning_details:
            # Snowflake sends it in the details alone.
            for text in filter(None, map(shown, delta.reasoning_details)):
                self._thinking.text("reasoning", text)
        if delta.reasoning_details:
            self._thinking.details(delta.reasoning_details)
        if len(delta.extra_content) > 4:
            self._thinking.signature(delta.extra_content)
        if delta.content:
            if isinstance(delta.content, str):
                self._content(delta.content, logprobs)
            else:
                for part in delta.content:
                    self._part(part)
        if delta.refusal:
            self._thinking.end()
            self._out.refusal(delta.refusal)
        if delta.annotations:
            self._annotations(delta.annotations)
        if delta.tool_calls:
            self._flush()
            for call in delta.tool_calls:
                self._call(call)
        if delta.function_call is not None and delta.function_call.name != "":
            self._flush()
            self._call(_ToolCall(0, None, delta.function_call))

    def _content(self, text: str, logprobs: _Logprobs | None) -> None:
        if self._tags is None:
            self._text(text, logprobs)
            return
        for is_reasoning, piece in self._tags.feed(text):
            if is_reasoning:
                self._thinking.text("think", piece)
            else:
                self._text(piece, logprobs)

    def _text(self, text: str, logprobs: _Logprobs | None = None) -> None:
        if self._thinking.is_open and not self._out.in_message:
            # Details that come late, with the text, wait for its end: they are no reason to cut a message in two.
            self._thinking.end()
        self._out.text(text, [*self._logprobs(logprobs.content)] if logprobs is not None and logprobs.content else None)

    def _logprobs(self, tokens: list[Raw]) -> Iterator[Raw]:
        for raw in tokens:
            try:
                yield Raw(_ENCODER.encode(_LOGPROB.decode(raw)))
            except msgspec.MsgspecError:
                self._out.note("logprobs: a token without a probability was left out")

    def _part(self, raw: Raw) -> None:
        try:
            part = _PART.decode(raw)
        except msgspec.MsgspecError as error:
            raise BrokenStream(f"the provider sent a content part that makes no sense: {error}") from error
        if part.type == "thinking":
            inner = part.thinking
            text = inner if isinstance(inner, str) else "".join(piece.text or "" for piece in inner or ())
            self._thinking.part(raw, text)
        elif part.text:
            self._text(part.text)

    def _annotations(self, annotations: list[Raw]) -> None:
        for raw in annotations:
            try:
                cited = _ANNOTATION.decode(raw).url_citation
            except msgspec.MsgspecError:
                cited = None
            if cited is not None and cited.start_index is not None and cited.end_index is not None:
                self._out.annotation(
                    UrlCitation(cited.url, cited.title or cited.url, cited.start_index, cited.end_index)
                )
            else:
                # A source without a position is no annotation (§10).
                self._out.note("annotations: a source without a position was left out")

    def _call(self, call: _ToolCall) -> None:
        self._thinking.end()
        self._calls.add(call, self._thinking)

    def _flush(self) -> None:
        if self._tags is not None:
            for is_reasoning, piece in self._tags.close():
                if is_reasoning:
                    self._thinking.text("think", piece)
                else:
                    self._text(piece)


class _Thinking:
    """One run of reasoning, and what of it must go back (mapping.md §5)."""

    def __init__(self, out: Composer) -> None:
        self._out = out
        self._field = ""
        self._pieces: list[str] = []
        self._details: list[Raw] = []
        self._parts: list[Raw] = []
        self._extra: Raw | msgspec.UnsetType = msgspec.UNSET
        self.is_open = False
        self.is_whole = False
        """Whether the answer is one body, where nothing is a fragment of anything."""

    def text(self, field: str, text: str) -> None:
        self.is_open = True
        self._field = field
        self._pieces.append(text)
        self._out.reasoning(text)

    def details(self, details: list[Raw]) -> None:
        """OpenRouter's own record: it goes back unchanged and in order (§6)."""
        self.is_open = True
        self._details.extend(details)

    def part(self, raw: Raw, text: str) -> None:
        self.is_open = True
        self._parts.append(raw)
        self._out.reasoning(text)

    def signature(self, raw: Raw) -> None:
        """A signature of the message itself (§6, Gemini)."""
        self.is_open = True
        self._extra = raw

    def end(self, calls: dict[str, Raw] | None = None, status: ItemStatus = "completed") -> None:
        if not self.is_open and not calls:
            return
        self.is_open = False
        state: list[Raw] = []
        # Details and lists say it themselves; the same text twice would be read, and paid for, twice.
        if self._pieces and not self._parts and not (self._details and self._field == "reasoning"):
            state.append(_raw(_Part(field=self._field, text="".join(self._pieces))))
        if self._details:
            state.append(_raw(_Part(details=self._details if self.is_whole else joined_details(self._details))))
        if self._parts:
            state.append(_raw(_Part(content=self._parts if self.is_whole else joined_chunks(self._parts))))
        if self._extra is not msgspec.UNSET:
            state.append(_raw(_Part(extra_content=self._extra)))
        self._pieces, self._details, self._parts, self._extra = [], [], [], msgspec.UNSET
        self._out.end_reasoning(state, calls, status)


class _Calls:
    """Which call a fragment belongs to.

    A call is identified by its index; but some servers give every parallel call the same index with a new id, use an
    index again, leave it out, or send the id with every fragment (provider-chat.md §7, rules 1 to 4).
    """

    def __init__(self, out: Composer) -> None:
        self._out = out
        self._count = 0
        self._current: dict[int, _Open] = {}
        self._last: _Open | None = None
        self._all: list[_Open] = []
        self.is_whole = False

    def add(self, fragment: _ToolCall, thinking: _Thinking) -> None:
        call = self._of(fragment)
        function = fragment.function or _Function()
        if fragment.custom is not None:
            function = _Function(fragment.custom.name, call.as_arguments(fragment.custom.input or ""))
        if not call.name and function.name:
            call.name = function.name
            self._open(call, fragment, thinking)
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = _ENCODER.encode(arguments).decode()
        if arguments:
            if call.is_open:
                self._out.arguments(call.key, arguments)
            else:
                call.early.append(arguments)

    def end(self) -> None:
        """Raises BrokenStream for a call that never said which tool it means."""
        if any(not call.is_open for call in self._all):
            raise BrokenStream("the provider sent a tool call without a name")

    def _of(self, fragment: _ToolCall) -> "_Open":
        index = fragment.index
        known = self._last if index is None else self._current.get(index)
        if self.is_whole:
            known = None  # nothing comes in fragments, and an id may be there twice (reliability.md F28)
        if known is not None and index is None and _name(fragment) and not (fragment.id and fragment.id == known.id):
            known = None  # without an index a name is what begins a call
        if known is not None and fragment.id and known.id and fragment.id != known.id:
            known = None
        if known is None:
            known = _Open(f"call-{self._count}")
            self._count += 1
            self._all.append(known)
            if index is not None:
                self._current[index] = known
        known.id = known.id or fragment.id or ""
        self._last = known
        return known

    def _open(self, call: "_Open", fragment: _ToolCall, thinking: _Thinking) -> None:
        call_id = self._out.reserve(call.id)
        if len(fragment.extra_content) > 4:
            # A signature that must go back with this very call (§6, Gemini): it travels in a reasoning item before it.
            thinking.end({call_id: fragment.extra_content})
        self._out.call(call.key, call.name, call_id)
        call.is_open = True
        for early in call.early:
            self._out.arguments(call.key, early)
        call.early.clear()


class _Open:
    def __init__(self, key: str) -> None:
        self.key = key
        self.id = ""
        self.name = ""
        self.is_open = False
        self.early: list[str] = []
        self._begun = False

    def as_arguments(self, text: str) -> str:
        """The text of a native free-form call as a piece of the arguments an emulated one would have."""
        start = "" if self._begun else '{"input":"'
        self._begun = True
        return start + _ENCODER.encode(text).decode()[1:-1]


def _name(fragment: _ToolCall) -> str | None:
    part = fragment.function or fragment.custom
    return part.name if part is not None else None


def usage_of(raw: Raw | None) -> Usage:
    """Tokens in our terms, each part inside its whole (mapping.md §6 Usage). Without any the answer is all zeros."""
    if raw is None:
        return Usage()
    try:
        said = _USAGE.decode(raw)
    except msgspec.MsgspecError:
        return Usage()
    prompt = said.prompt_tokens_details or _TokenDetails()
    completion = said.completion_tokens_details or _TokenDetails()
    input_tokens = max(said.prompt_tokens or 0, 0)
    output_tokens = max(said.completion_tokens or 0, 0)
    reasoning = max(completion.reasoning_tokens or 0, 0)
    if reasoning and said.total_tokens == input_tokens + output_tokens + reasoning:
        output_tokens += reasoning  # xAI counts them outside
    cached = prompt.cached_tokens or said.prompt_cache_hit_tokens or said.cached_tokens or 0
    cached = min(max(cached, 0), input_tokens)
    written = min(max(prompt.cache_write_tokens or 0, 0), input_tokens - cached)
    return Usage(
        input_tokens=input_tokens,
        input_tokens_details=InputDetails(cached, written),
        output_tokens=output_tokens,
        output_tokens_details=OutputDetails(min(reasoning, output_tokens)),
        total_tokens=input_tokens + output_tokens,
    )


def _raw(value: Struct) -> Raw:
    return Raw(_ENCODER.encode(value))

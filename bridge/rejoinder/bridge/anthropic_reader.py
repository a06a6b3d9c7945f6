"""Anthropic Messages: how an answer is read (provider-anthropic.md §5, §7, §8, §10, §11).

One reader takes whatever comes: server-sent events, or one JSON body. An answer is a list of blocks; ours is a list of
items. Text blocks that follow one another are one message. What the provider wants back and no item of ours can say
(thinking with its signature, searches with what they found, citations, blocks of kinds that have no item) is kept as
the raw blocks, and travels in the next reasoning item: that of the thinking that follows, else an empty one in front of
the message or call that follows, or behind the last message.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.arguments import as_object
from rejoinder.bridge.composer import Composer
from rejoinder.bridge.delivery import MAKES_NO_SENSE, Delivery
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.rejection import rejection
from rejoinder.wire import sse
from rejoinder.wire.responses import (
    Citation,
    FileCitation,
    InputDetails,
    ItemStatus,
    OutputDetails,
    UrlCitation,
    Usage,
)


class _Delta(Struct, gc=False):
    """The delta of a block, and just as well that of the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    content: str | None = None
    citation: Raw = Raw()
    stop_reason: str | None = None
    stop_details: Raw = Raw()


class _Event(Struct, gc=False):
    """An event of a stream, and just as well a whole answer."""

    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: Raw = Raw()
    message: Raw = Raw()
    content: list[Raw] | None = None
    usage: Raw = Raw()
    stop_reason: str | None = None
    stop_details: Raw = Raw()
    error: Raw = Raw()


class _Block(Struct):
    """A block as it begins, or as a whole answer has it."""

    type: str
    id: str = ""
    name: str = ""
    text: str | None = None
    thinking: str | None = None
    input: Raw = Raw()
    citations: list[Raw] | None = None
    tool_use_id: str = ""
    content: Raw = Raw()


class _Query(Struct):
    query: str = ""


class _Source(Struct):
    url: str | None = None


class _Message(Struct):
    usage: Raw = Raw()


class _Details(Struct):
    explanation: str | None = None


class _Citation(Struct):
    """The union of all kinds of citations (§7)."""

    type: str
    url: str | None = None
    title: str | None = None
    source: str | None = None
    file_id: str | None = None
    document_index: int = 0
    document_title: str | None = None


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class _Counts(Struct):
    type: str = "message"
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None
    iterations: list["_Counts"] | None = None


_EVENT = msgspec.json.Decoder(_Event)
_BLOCK = msgspec.json.Decoder(_Block)
_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_CITATION = msgspec.json.Decoder(_Citation)
_QUERY = msgspec.json.Decoder(_Query)
_SOURCES = msgspec.json.Decoder(list[_Source])
_MESSAGE = msgspec.json.Decoder(_Message)
_DETAILS = msgspec.json.Decoder(_Details)
_COUNTS = msgspec.json.Decoder(_Counts)
_ENCODER = msgspec.json.Encoder()

_CUT = frozenset(("max_tokens", "model_context_window_exceeded"))
"""Stop reasons of an answer that is not whole; most others, known, unknown or null, are an ordinary end (§8, §11)."""

REFUSED = Raw(b'{"type":"refused"}')
"""Stands in the sealed state behind the turn of a model that refused: nothing of it is said again (§8)."""

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What an error inside an answer would have been as a status (§11)."""


class _Error(Struct):
    type: str = ""


class _ErrorEvent(Struct):
    error: _Error


_ERROR = msgspec.json.Decoder(_ErrorEvent)


def stream_error(body: bytes) -> UpstreamError:
    """The error an event inside an answer describes."""
    try:
        kind = _ERROR.decode(body).error.type
    except msgspec.MsgspecError:
        kind = ""
    error = refusal(_STATUS.get(kind, 502), {}, body)
    # An answer has begun: only a provider that says it has no room is believed to have generated nothing.
    error.transient = error.transient and kind in ("overloaded_error", "rate_limit_error")
    return error


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error an answer with this status describes. `headers` have lower-case names."""
    error = rejection(status, headers, body)
    if status == 529:
        error.code = "server_is_overloaded"
    elif status == 400 and "credit balance" in str(error):
        error.code = "insufficient_quota"  # an empty account has no status of its own (§11)
    return error


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a reader must know of what was asked.

    `answer_tool` is the tool whose arguments are the answer itself, where the model knows no other way to write JSON.
    `sources`: the client wants to know what a search found. `prefix` names the conversation that thinking is bound to;
    None where it is bound to none.
    """

    answer_tool: str | None = None
    sources: bool = False
    prefix: Callable[[], str] | None = None


class Prefix(Struct, tag_field="type", tag="prefix"):
    """Stands in front of thinking that is bound to the conversation it came from (§5.5)."""

    sha256: str


class AnthropicReader:
    """Reads one answer; implements dialect.Reader."""

    def __init__(self, out: Composer, hearing: Hearing) -> None:
        self._out = out
        self._hearing = hearing
        self._delivery = Delivery()
        self.is_over = False
        self._counts = _Counts()
        self._stop: str | None = None
        self._details = Raw()
        self._blocks: dict[int, _Open] = {}
        self._answer = _Answer(out, hearing)

    def feed(self, data: bytes) -> None:
        if not self.is_over:
            self._read(self._delivery.feed(data))

    def close(self, at: int) -> None:
        if not self.is_over:
            self._read(self._delivery.close())
            if body := self._delivery.body:
                self._whole(body)
        if not self.is_over:
            raise BrokenStream("the stream ended before the answer did")
        self._end(at)

    def _end(self, at: int) -> None:
        out, answer, usage = self._out, self._answer, usage_of(self._counts)
        for block in self._blocks.values():
            if self._stop in _CUT:
                answer.cut(block)
            else:
                answer.stop(block)
        if self._stop == "pause_turn":
            answer.end("completed")
            out.pause(usage)
        elif self._stop == "refusal" and answer.has_calls:
            # Half a turn is not to be carried out: a call may be cut off, or be what was refused.
            answer.end("incomplete")
            out.finish("incomplete", usage=usage, at=at, reason="content_filter")
        elif self._stop == "refusal":
            answer.refuse(_explanation(self._details))
            out.finish("completed", usage=usage, at=at)
        elif self._stop in _CUT:
            answer.end("incomplete")
            out.finish("incomplete", usage=usage, at=at, reason="max_output_tokens")
        else:
            answer.end("completed")
            if out.is_empty and self._stop is not None:
                # It says on purpose that there is nothing to say, after the results of tools for example (§8).
                out.text("")
            out.finish("completed", usage=usage, at=at)

    def _whole(self, body: bytes) -> None:
        message = _event(body)
        if message.type == "error":
            raise stream_error(body)
        if message.content is None:
            raise BrokenStream("the provider sent something that is no message")
        for index, raw in enumerate(message.content):
            self._start(index, raw)
            self._stop_block(index)
        self._count(message.usage)
        self._stop, self._details = message.stop_reason, message.stop_details
        self.is_over = True

    def _read(self, frames: list[sse.Frame]) -> None:
        for frame in frames:
            self._event(_event(frame.data), frame.data)
            if self.is_over:
                return

    def _event(self, event: _Event, data: bytes) -> None:
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    block = self._blocks.get(event.index)
                    if block is None:
                        raise BrokenStream("the provider added to a block that is not open")
                    self._answer.add(block, event.delta)
            case "content_block_start":
                self._start(event.index, event.content_block)
            case "content_block_stop":
                self._stop_block(event.index)
            case "ping":
                pass
            case "message_start":
                self._begin(event.message)
            case "message_delta":
                if event.delta is not None:
                    self._stop = event.delta.stop_reason or self._stop
                    self._details = event.delta.stop_details or self._details
                self._count(event.usage)
            case "message_stop":
                self.is_over = True
            case "error":
                raise stream_error(data)
            case kind:
                self._out.note(f"an event of the unknown type '{kind}' was left out")

    def _begin(self, message: Raw) -> None:
        if self._answer.is_shown:
            # A proxy in between asked again; what was shown cannot be unsaid (§10).
            raise BrokenStream("the provider started over in the middle of its answer")
        self._blocks.clear()
        self._answer = _Answer(self._out, self._hearing)
        self._counts = _Counts()
        if message:
            self._count(_decoded(_MESSAGE, message).usage)

    def _start(self, index: int, raw: Raw) -> None:
        block = _Open(_decoded(_BLOCK, raw), raw)
        self._blocks[index] = block
        self._answer.start(block)

    def _stop_block(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is not None:
            self._answer.stop(block)

    def _count(self, raw: Raw) -> None:
        """The last count of each kind is the one that counts, and each event names only some (§10)."""
        if len(raw) <= 4:  # neither left out nor null
            return
        try:
            said = _COUNTS.decode(raw)
        except msgspec.MsgspecError:
            return
        counts = self._counts
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"):
            # Compatible servers send zeros for what they do not count again; but where there are iterations, each
            # total is that of the last ones alone.
            count = getattr(said, name)
            if count or (count is not None and said.iterations):
                setattr(counts, name, count)
        counts.output_tokens_details = said.output_tokens_details or counts.output_tokens_details
        counts.iterations = said.iterations or counts.iterations


class _Open:
    """A block while it is written. `pieces` are those of its text, of whatever kind that is."""

    def __init__(self, head: _Block, raw: Raw) -> None:
        self.kind = head.type
        self.head = head
        self.raw = raw
        self.key = ""
        self.pieces: list[str] = []
        self.signature: list[str] = []
        self.citations: list[Raw] = []
        self.start = 0

    def whole(self) -> Raw:
        """The block as a whole answer would have it: as it came, where nothing was added to it."""
        text, signature = "".join(self.pieces), "".join(self.signature)
        if not text and not signature and not self.citations:
            return self.raw
        fields = _FIELDS.decode(self.raw)
        match self.kind:
            case "text" | "thinking":
                fields[self.kind] = _raw(text)
            case "compaction":
                fields["content"] = _raw(text)
            case _:
                # Of a call that ran at the provider, which wants it back as JSON.
                arguments, _ = as_object(text)
                fields["input"] = Raw(arguments.encode())
        if signature:
            fields["signature"] = _raw(signature)
        if self.citations:
            fields["citations"] = _raw(self.citations)
        return _raw(fields)


class _Answer:
    """What the blocks come to. `state` are the raw blocks that no item carries yet."""

    def __init__(self, out: Composer, hearing: Hearing) -> None:
        self._out = out
        self._hearing = hearing
        self._state: list[Raw] = []
        self._sealed: dict[str, Raw] = {}
        self._has_thought = False
        self._run: list[Raw] = []
        self._run_matters = False
        self._length = 0
        self._searches: dict[str, _Open] = {}
        self._blocks = 0
        self.has_calls = False
        self.is_shown = False

    def start(self, block: _Open) -> None:
        self._blocks += 1
        block.key = f"block-{self._blocks}"
        head = block.head
        if block.kind != "text":
            self._end_run()
        if block.kind == "text":
            self._settle()
            block.start = self._length if self._out.in_message and not self._state else 0
            self._length = block.start
            if head.text:
                self._say(block, head.text)
            block.citations.extend(head.citations or ())
            return
        match block.kind:
            case "thinking":
                self._settle()
                if head.thinking:
                    self._think(block, head.thinking)
            case "tool_use" if head.name == self._hearing.answer_tool:
                self._settle()
            case "tool_use":
                self._call(block)
            case "server_tool_use" if head.name == "web_search":
                self._settle()
                self._search(block)
            case _:
                self._settle()

    def add(self, block: _Open, delta: _Delta) -> None:
        match delta.type:
            case "text_delta":
                if delta.text:
                    self._say(block, delta.text)
            case "thinking_delta":
                if delta.thinking:
                    self._think(block, delta.thinking)
            case "input_json_delta":
                if delta.partial_json:
                    self._argue(block, delta.partial_json)
            case "signature_delta":
                block.signature.append(delta.signature or "")
            case "citations_delta":
                block.citations.append(delta.citation)
            case "compaction_delta":
                block.pieces.append(delta.content or "")
            case kind:
                self._out.note(f"a delta of the unknown type '{kind}' was left out")

    def stop(self, block: _Open) -> None:
        match block.kind:
            case "text":
                self._end_text(block)
            case "thinking":
                self._keep_thought(block.whole())
            case "redacted_thinking":
                self._keep_thought(block.raw)
            case "tool_use":
                self._end_call(block)
            case "server_tool_use" if block.head.name == "web_search":
                self._state.append(block.whole())
            case "web_search_tool_result":
                self._found(block)
            case kind:
                self._state.append(block.whole())
                self._out.note(f"content: '{kind}' has no item here; it goes back to its provider as it came")

    def cut(self, block: _Open) -> None:
        """The answer ends inside this block: of what was not shown nothing is kept."""
        match block.kind:
            case "text":
                self._end_text(block)
            case "thinking":
                self._has_thought = self._has_thought or bool(block.pieces)

    def refuse(self, explanation: str) -> None:
        """The model refuses. What it said before is shown already; nothing of it is ever said again (§8)."""
        self._settle()
        self._out.refusal(explanation)
        self._out.end_reasoning([REFUSED])

    def end(self, status: ItemStatus) -> None:
        """The answer is over, or was cut off."""
        if not (status == "incomplete" and self._out.in_message):
            # What was cut must be the last item, and the message is it; it goes back as its text then.
            self._end_run()
        self._settle(status)
        self._flush(status)

    # Text.

    def _say(self, block: _Open, text: str) -> None:
        if block.kind != "text":
            raise BrokenStream(f"the provider sent text in a block of type '{block.kind}'")
        if self._state:
            self._flush()
        self.is_shown = True
        block.pieces.append(text)
        self._length += len(text)
        self._out.text(text)

    def _end_text(self, block: _Open) -> None:
        if not block.pieces:
            if block.citations:
                self._out.note("annotations: a citation of no text was left out")
            return
        for raw in block.citations:
            citation = _cited(raw, block.start, self._length)
            if citation is not None:
                self._out.annotation(citation)
            else:
                self._out.note("annotations: a citation of an unknown kind is kept for the provider alone")
        self._run_matters = self._run_matters or bool(self._run) or bool(block.citations)
        self._run.append(block.whole())

    def _end_run(self) -> None:
        """No more text for now. Where the blocks say more than their text, they go back as they came (§7)."""
        if self._run_matters:
            self._state.extend(self._run)
        self._run, self._run_matters = [], False

    # Thinking.

    def _think(self, block: _Open, text: str) -> None:
        if block.kind != "thinking":
            raise BrokenStream(f"the provider sent thinking in a block of type '{block.kind}'")
        self.is_shown = True
        block.pieces.append(text)
        self._out.reasoning(text)

    def _keep_thought(self, raw: Raw) -> None:
        if self._hearing.prefix is not None:
            self._state.append(_raw(Prefix(self._hearing.prefix())))
        self._state.append(raw)
        self._has_thought = True

    def _settle(self, status: ItemStatus = "completed") -> None:
        """A thought is over once something follows it: only then it is known not to be what was cut off."""
        if self._has_thought:
            self._seal(status)

    def _flush(self, status: ItemStatus = "completed") -> None:
        """State that waited for thinking to carry it goes in an item of its own."""
        if self._state:
            self._seal(status)

    def _seal(self, status: ItemStatus) -> None:
        self.is_shown = True
        if status == "incomplete":
            self._out.reasoning("")  # so that there is an item that can be cut off, if there is none yet
        self._out.end_reasoning(self._state, self._sealed, status)
        self._state, self._sealed, self._has_thought = [], {}, False

    # Calls.

    def _call(self, block: _Open) -> None:
        call_id = self._out.reserve(block.head.id)
        if others := _others(block.raw):
            self._sealed[call_id] = _raw(others)
            self._seal("completed")
        else:
            self._settle()
            self._flush()
        self.is_shown = self.has_calls = True
        self._out.call(block.key, block.head.name, call_id)

    def _argue(self, block: _Open, text: str) -> None:
        if block.kind in ("text", "thinking"):
            raise BrokenStream(f"the provider sent arguments in a block of type '{block.kind}'")
        block.pieces.append(text)
        if block.kind != "tool_use":
            return
        if block.head.name == self._hearing.answer_tool:
            self._answered(text)
        else:
            self._out.arguments(block.key, text)

    def _end_call(self, block: _Open) -> None:
        given = bytes(block.head.input)
        if block.pieces or given in (b"", b"{}", b"null"):
            return
        # A whole answer, and some proxies in a stream, give the arguments at once (§10).
        self._argue(block, given.decode())

    def _answered(self, text: str) -> None:
        self._flush()
        self.is_shown = True
        self._out.text(text)

    # Searches.

    def _search(self, block: _Open) -> None:
        self.is_shown = True
        self._sealed[self._out.search(block.key)] = _EMPTY
        self._searches[block.head.id] = block

    def _found(self, block: _Open) -> None:
        search = self._searches.pop(block.head.tool_use_id, None)
        key, queries = block.key, []
        if search is None:
            # It was begun in the request that this one goes on from.
            self._settle()
            self.is_shown = True
            self._sealed[self._out.search(key)] = _EMPTY
        else:
            key = search.key
            queries = _queries(search)
        found = bytes(block.head.content)
        sources = [*_urls(found)] if self._hearing.sources else None
        self._out.searched(key, queries, sources, failed=not found.startswith(b"["))
        self._state.append(block.raw)


def usage_of(counts: _Counts) -> Usage:
    """Tokens in our terms, each part inside its whole: the provider counts what it read from and wrote to its cache
    beside the input (§8), and beside the totals iterations that are no part of the answer (a compaction)."""
    every = [counts, *(one for one in counts.iterations or () if one.type != "message")]
    read = sum(max(one.cache_read_input_tokens or 0, 0) for one in every)
    written = sum(max(one.cache_creation_input_tokens or 0, 0) for one in every)
    inputs = sum(max(one.input_tokens or 0, 0) for one in every) + read + written
    outputs = sum(max(one.output_tokens or 0, 0) for one in every)
    details = counts.output_tokens_details
    thought = min(max((details.thinking_tokens if details is not None else 0) or 0, 0), outputs)
    return Usage(
        input_tokens=inputs,
        input_tokens_details=InputDetails(read, written),
        output_tokens=outputs,
        output_tokens_details=OutputDetails(thought),
        total_tokens=inputs + outputs,
    )


def _cited(raw: Raw, start: int, end: int) -> Citation | None:
    """A citation of the text from `start` to `end`, in code points (mapping.md §6, annotations)."""
    try:
        said = _CITATION.decode(raw)
    except msgspec.MsgspecError:
        return None
    url = said.url or (said.source if (said.source or "").startswith(("http://", "https://")) else None)
    if url:
        return UrlCitation(url, said.title or url, start, end)
    if said.type == "search_result_location":
        name = said.source or said.title or ""
        return FileCitation(name, said.title or name, end)
    if said.type in ("char_location", "page_location", "content_block_location"):
        name = f"document_{said.document_index}"
        return FileCitation(said.file_id or name, said.document_title or name, end)
    return None


_PLAIN = frozenset(("type", "id", "name", "input"))
_DIRECT = b'{"type":"direct"}'


def _others(raw: Raw) -> dict[str, Raw]:
    """What a call says beside its name and arguments: who called (`caller`), or which tool set it is from (§4). That
    the model itself called is what leaving it out says as well."""
    fields = {name: value for name, value in _FIELDS.decode(raw).items() if name not in _PLAIN}
    if "caller" in fields and b"".join(bytes(fields["caller"]).split()) == _DIRECT:
        del fields["caller"]
    return {name: value for name, value in fields.items() if bytes(value) != b"null"}


def _queries(search: _Open) -> list[str]:
    text = "".join(search.pieces).encode() or bytes(search.head.input)
    try:
        query = _QUERY.decode(text).query
    except msgspec.MsgspecError:
        return []
    return [query] if query else []


def _urls(found: bytes) -> Iterator[str]:
    try:
        sources = _SOURCES.decode(found)
    except msgspec.MsgspecError:
        return  # an error in the place of results
    for source in sources:
        if source.url:
            yield source.url


def _explanation(details: Raw) -> str:
    try:
        said = _DETAILS.decode(details).explanation if len(details) > 4 else None
    except msgspec.MsgspecError:
        said = None
    return said or "The model refused to answer."


def _event(data: bytes) -> _Event:
    return _decoded(_EVENT, data)


_Read = TypeVar("_Read")


def _decoded(decoder: msgspec.json.Decoder[_Read], data: bytes | Raw) -> _Read:
    try:
        if not bytes(data).isascii():
            bytes(data).decode()  # msgspec takes what it hands on as it is for UTF-8
        return decoder.decode(data)
    except MAKES_NO_SENSE as error:
        raise BrokenStream(f"the provider sent something that is no part of an answer: {error}") from error


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


_EMPTY = Raw(b"{}")

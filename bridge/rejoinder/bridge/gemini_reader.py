"""generateContent: how an answer is read (provider-gemini.md §5, §7, §8; mapping.md §5 and §6).

One reader takes whatever comes: server-sent chunks, one JSON body, or the array a stream is without `alt=sse`. Every
chunk is a whole response object, and its parts are increments.

What has to go back as it came and has no item of its own is sealed. It travels in a reasoning item that is closed
before whatever follows it, so that its place in the order of items is its place in the answer; the signatures of a text
come after its message, since most of them are known only then (`gemini_state`).

A search the model made is announced when its call is seen. Models before generation 3 say only afterwards, with their
sources, what they looked for: then it comes before the message if none has begun (in an answer that comes whole), and
else after it, because a place in the output that was given away cannot be given to anything else.
"""

from collections.abc import Iterator
from itertools import accumulate

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.delivery import MAKES_NO_SENSE
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.gemini_arguments import Arguments, PartialArgument
from rejoinder.bridge.gemini_names import Names
from rejoinder.bridge.gemini_objects import Objects
from rejoinder.bridge.gemini_rejection import stream_error
from rejoinder.bridge.gemini_state import Continuation, Entry, Picture, Piece, Signed, raw
from rejoinder.wire import sse
from rejoinder.wire.responses import InputDetails, ItemStatus, OutputDetails, UrlCitation, Usage


class _FunctionCall(Struct, gc=False, rename="camel"):
    name: str = ""
    args: Raw = Raw()
    id: str | None = None
    partial_args: list[PartialArgument] = []
    will_continue: bool = False


class _Blob(Struct, gc=False, rename="camel"):
    mime_type: str
    data: str


class _Queries(Struct):
    queries: list[str] = []


class _ToolCall(Struct, rename="camel"):
    id: str = ""
    tool_type: str = ""
    args: Raw = Raw()


class _Part(Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None
    tool_call: _ToolCall | None = None
    tool_response: _ToolCall | None = None


class _Content(Struct, gc=False):
    parts: list[_Part] | None = None


class _Web(Struct):
    uri: str = ""
    title: str = ""


class _GroundingChunk(Struct):
    web: _Web | None = None


class _Segment(Struct, frozen=True, rename="camel"):
    start_index: int = 0
    end_index: int = 0
    text: str | None = None


class _Support(Struct, rename="camel"):
    segment: _Segment = _Segment()
    grounding_chunk_indices: list[int] = []


class _Grounding(Struct, rename="camel"):
    web_search_queries: list[str] = []
    grounding_chunks: list[_GroundingChunk] = []
    grounding_supports: list[_Support] = []


class _Token(Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _Alternatives(Struct):
    candidates: list[_Token] = []


class _Logprobs(Struct, rename="camel"):
    chosen_candidates: list[_Token] = []
    top_candidates: list[_Alternatives] = []


class _Candidate(Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str = ""
    index: int = 0
    grounding_metadata: Raw = Raw()
    logprobs_result: Raw = Raw()
    continuation_token: str | None = None


class _Usage(Struct, gc=False, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str = ""


class _Chunk(Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    error: Raw = Raw()


class _RawContent(Struct, frozen=True):
    parts: list[Raw] = []


class _RawCandidate(Struct):
    content: _RawContent = _RawContent()
    index: int = 0


class _RawChunk(Struct):
    """A chunk with its parts as they came, for the few that are not only read."""

    candidates: list[_RawCandidate] = []


_CHUNK = msgspec.json.Decoder(_Chunk)
_RAW_CHUNK = msgspec.json.Decoder(_RawChunk)
_GROUNDING = msgspec.json.Decoder(_Grounding)
_LOGPROBS = msgspec.json.Decoder(_Logprobs)
_QUERIES = msgspec.json.Decoder(_Queries)
_FIELDS = msgspec.json.Decoder(dict[str, Raw])

_CUT = frozenset(("MAX_TOKENS",))
_FILTERED = frozenset(
    (
        "BLOCKLIST",
        "ESCALATION",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "LANGUAGE",
        "MODEL_ARMOR",
        "PROHIBITED_CONTENT",
        "PUP_LIMITED_DISABLED",
        "RECITATION",
        "SAFETY",
        "SPII",
    )
)
_FAILED = frozenset(
    (
        "IMAGE_OTHER",
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
        "OTHER",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    )
)
"""What finish reasons mean (§7); every other one, known or not, is an ordinary end."""

_SEARCHES = "GOOGLE_SEARCH"
"""How the types of Google's search tools begin."""


class GeminiReader:
    """Reads one answer and reports it to the composer.

    `final` is the function whose call is the answer itself, `sources` whether the client wants to know where a search
    looked, and `since` the number of items that were asked with (gemini_state).
    """

    is_over = False
    """No chunk is the last one: after the finish reason more may come, such as sources and the last count of tokens
    (provider-gemini.md §7, §8), and no mark says that nothing will."""

    def __init__(self, out: Composer, *, names: Names, final: str | None, sources: bool, since: int) -> None:
        self._out = out
        self._since = since
        self._frames: sse.Decoder | None = None
        self._objects: Objects | None = None
        self._start = b""
        self._state = _State(out)
        self._text = _Message(out, self._state)
        self._calls = _Calls(out, self._state, self._text, names, final)
        self._searches = _Searches(out, self._state, sources)
        self._usage = _Usage()
        self._finish: str | None = None
        self._finish_message = ""
        self._token: str | None = None
        self._blocked: _Feedback | None = None

    def feed(self, data: bytes) -> None:
        if self._frames is not None:
            self._read(self._frames.feed(data))
        elif self._objects is not None:
            for piece in self._objects.feed(data):
                self._chunk(piece)
        else:
            self._sniff(data)

    def close(self, at: int) -> None:
        if self._frames is not None:
            self._read(self._frames.close())
        if self._finish is None and self._blocked is None:
            raise BrokenStream("the stream ended before the answer did")
        usage = self._counted()
        if self._finish in _FAILED:
            raise self._failure(usage)
        if self._finish == "CONTINUATION":
            self._pause(usage)
            return
        incomplete = self._finish in _CUT or self._finish in _FILTERED or self._finish is None
        self._end("incomplete" if incomplete else "completed")
        if not incomplete:
            self._out.finish("completed", usage=usage, at=at)
            return
        reason = "max_output_tokens" if self._finish in _CUT else "content_filter"
        self._out.finish("incomplete", usage=usage, at=at, reason=reason)

    def _sniff(self, data: bytes) -> None:
        """A stream, an array, or one body? The first character says it."""
        self._start = (self._start + data).lstrip()
        if not self._start:
            return
        if self._start.startswith((b"{", b"[")):
            self._objects = Objects()
        elif self._start.startswith(b"<"):
            raise BrokenStream("the provider sent a page where an answer was expected")
        else:
            self._frames = sse.Decoder()
        start, self._start = self._start, b""
        self.feed(start)

    def _read(self, frames: list[sse.Frame]) -> None:
        for frame in frames:
            if frame.data != b"[DONE]":  # which only something in between would add
                self._chunk(frame.data)

    def _chunk(self, data: bytes) -> None:
        try:
            if not data.isascii():
                data.decode()  # msgspec takes what it hands on as it is for UTF-8
            chunk = _CHUNK.decode(data)
            if len(chunk.error) > len("null"):
                raise stream_error(data)
            if chunk.usage_metadata is not None:
                self._count(chunk.usage_metadata)
            if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
                self._block(chunk.prompt_feedback)
            for candidate in chunk.candidates or ():
                if candidate.index == 0:  # more than one is never asked for
                    self._candidate(candidate, data)
                    break
        except MAKES_NO_SENSE as error:
            raise BrokenStream(f"the provider sent something that is no chunk of an answer: {error}") from error

    def _candidate(self, candidate: _Candidate, data: bytes) -> None:
        logprobs: list[Raw] | None = None
        if len(candidate.grounding_metadata) > len("null"):
            grounding = _GROUNDING.decode(candidate.grounding_metadata)
            self._text.ground(grounding)
            self._searches.ground(grounding)
        if len(candidate.logprobs_result) > len("null"):
            logprobs = [*_logprobs(candidate.logprobs_result)]
        if candidate.content is not None and candidate.content.parts:
            for place, part in enumerate(candidate.content.parts):
                if part.text is not None:
                    if part.thought:
                        self._thought(part.text, part.thought_signature)
                    elif part.text or part.thought_signature is not None:
                        self._said(part.text, part.thought_signature, logprobs)
                        logprobs = None
                elif part.function_call is not None:
                    if candidate.finish_reason not in _FAILED:  # what is called a mistake is not run (§7)
                        self._call(part.function_call, part.thought_signature)
                else:
                    self._other(part, _as_it_came(data, place))
        if candidate.finish_reason is not None:
            self._finish = candidate.finish_reason
            self._finish_message = candidate.finish_message
            self._token = candidate.continuation_token

    def _said(self, text: str, signature: str | None, logprobs: list[Raw] | None) -> None:
        if self._calls.is_open:
            self._calls.end()
        if not self._text.is_open:
            if not text:
                # A signature on nothing, with nothing before it that it could be told apart from (§5).
                self._state.keep(raw({"text": "", "thoughtSignature": signature}))
                return
            self._state.seal()
            self._searches.announce()
        self._text.add(text, signature, logprobs)

    def _thought(self, text: str, signature: str | None) -> None:
        self._calls.end()
        if text or signature is not None:
            self._text.end()
            self._state.think(text, signature)

    def _call(self, call: _FunctionCall, signature: str | None) -> None:
        if call.name:
            self._text.end()
            self._calls.begin(call, signature)
        else:
            self._calls.go_on(call)
            if signature is not None:
                self._out.note("thoughtSignature: one that came after the beginning of its call was left out")

    def _other(self, part: _Part, data: Raw) -> None:
        """A part for which there is no item, or one that must also go back as it came."""
        self._calls.end()
        self._text.end()
        if part.inline_data is not None and part.inline_data.mime_type.startswith("image/") and not part.thought:
            self._state.seal()
            self._out.image(part.inline_data.data, part.inline_data.mime_type.removeprefix("image/"))
            self._state.keep(raw(Entry(picture=Picture(part.thought_signature))))
        elif part.tool_call is not None and part.tool_call.tool_type.startswith(_SEARCHES):
            self._state.seal()
            self._searches.begin(part.tool_call)
            self._state.keep(data)
        elif part.tool_response is not None and part.tool_response.tool_type.startswith(_SEARCHES):
            self._state.keep(data)
            self._searches.answered(part.tool_response)
        else:
            self._state.keep(data)
            kinds = _FIELDS.decode(data).keys() - {"thought", "thoughtSignature", "partMetadata"}
            for kind in sorted(kinds):
                self._out.note(f"{kind}: has no item here, and is kept for this provider alone")

    def _end(self, status: ItemStatus) -> None:
        self._calls.end()
        self._text.end(status)
        self._state.seal(self._searches.unanswered, status)
        self._searches.end(status)

    def _pause(self, usage: Usage) -> None:
        if self._token is None:
            raise BrokenStream("the provider stopped to go on, and did not say how")
        self._end("completed")
        self._state.keep(raw(Entry(continuation=Continuation(self._token, self._since))))
        self._state.seal()
        self._out.pause(usage)

    def _failure(self, usage: Usage) -> UpstreamError:
        """The tokens are paid for all the same. A malformed call is worth another try, if nobody saw anything (§7)."""
        self._out.spend(usage)
        message = f": {self._finish_message}" if self._finish_message else ""
        return BrokenStream(
            f"the provider ended the answer with '{self._finish}'{message}",
            transient=self._finish == "MALFORMED_FUNCTION_CALL",
        )

    def _block(self, feedback: _Feedback) -> None:
        self._blocked = feedback
        self._out.note(f"the prompt was blocked: {feedback.block_reason} {feedback.block_reason_message}".rstrip())

    def _count(self, usage: _Usage) -> None:
        """Every chunk counts from the beginning; one that says less than an earlier one takes nothing back (§8)."""
        known = self._usage
        if usage.prompt_token_count is not None:
            known.prompt_token_count = usage.prompt_token_count
        if usage.candidates_token_count is not None:
            known.candidates_token_count = usage.candidates_token_count
        if usage.thoughts_token_count is not None:
            known.thoughts_token_count = usage.thoughts_token_count
        if usage.tool_use_prompt_token_count is not None:
            known.tool_use_prompt_token_count = usage.tool_use_prompt_token_count
        if usage.cached_content_token_count is not None:
            known.cached_content_token_count = usage.cached_content_token_count

    def _counted(self) -> Usage:
        """In our terms (mapping.md §6 Usage): thoughts are beside the candidates' tokens there, and part of the output
        here."""
        said = self._usage
        prompt = max(said.prompt_token_count or 0, 0)
        thoughts = max(said.thoughts_token_count or 0, 0)
        given = prompt + max(said.tool_use_prompt_token_count or 0, 0)
        output = max(said.candidates_token_count or 0, 0) + thoughts
        cached = min(max(said.cached_content_token_count or 0, 0), given)
        return Usage(given, InputDetails(cached), output, OutputDetails(thoughts), given + output)


class _State:
    """What is sealed next: thoughts, and parts that go back as they came, in their order."""

    def __init__(self, out: Composer) -> None:
        self._out = out
        self._parts: list[Raw] = []
        self._thought: list[str] = []

    def think(self, text: str, signature: str | None) -> None:
        """More of a thought. A signature ends the part it belongs to, and stands on nothing else."""
        if signature is not None and self._thought:
            self._close_thought()
        self._thought.append(text)
        if text:
            self._out.reasoning(text)
        if signature is not None:
            self._close_thought(signature)

    def keep(self, part: Raw) -> None:
        self._close_thought()
        self._parts.append(part)

    def seal(self, calls: dict[str, Raw] | None = None, status: ItemStatus = "completed") -> None:
        """What follows is something else."""
        self._close_thought()
        if self._parts or calls:
            self._out.end_reasoning(self._parts, calls, status)
            self._parts = []

    def _close_thought(self, signature: str | None = None) -> None:
        if self._thought:
            part: dict[str, object] = {"text": "".join(self._thought), "thought": True}
            if signature is not None:
                part["thoughtSignature"] = signature
            self._parts.append(raw(part))
            self._thought = []


class _Message:
    """The text while it comes: what was signed of it, and what it cites."""

    def __init__(self, out: Composer, state: _State) -> None:
        self._out = out
        self._state = state
        self._pieces: list[tuple[str, str | None]] = []
        self._grounding: _Grounding | None = None
        self._before = b""  # the texts of earlier messages of this answer
        self.is_open = False

    def add(self, text: str, signature: str | None, logprobs: list[Raw] | None) -> None:
        self.is_open = True
        self._pieces.append((text, signature))
        if text:
            self._out.text(text, logprobs)

    def ground(self, grounding: _Grounding) -> None:
        """Sources; a later, empty object takes nothing back (§7)."""
        if grounding.grounding_supports:
            self._grounding = grounding

    def end(self, status: ItemStatus = "completed") -> None:
        """Something else begins. Until then citations may come, and signatures."""
        if not self.is_open:
            return
        self.is_open = False
        if self._grounding is not None:
            self._cite(self._grounding)
        self._before += self._bytes()
        if status == "completed" and any(signature is not None for _, signature in self._pieces):
            # After a message that was cut off nothing may come (open-responses.md §2), and its signature is no duty.
            self._state.keep(raw(Entry(said=_joined(self._pieces))))
        self._pieces = []

    def _bytes(self) -> bytes:
        return "".join([piece for piece, _ in self._pieces]).encode()

    def _cite(self, grounding: _Grounding) -> None:
        text = self._bytes()
        sources = [chunk.web for chunk in grounding.grounding_chunks]
        for support in grounding.grounding_supports:
            place = self._place(support.segment, text)
            for number in support.grounding_chunk_indices:
                web = sources[number] if 0 <= number < len(sources) else None
                if place is not None and web is not None and web.uri:
                    self._out.annotation(UrlCitation(web.uri, web.title or web.uri, *place))
                else:
                    self._out.note("annotations: a source without an address or a place was left out")

    def _place(self, segment: _Segment, text: bytes) -> tuple[int, int] | None:
        """Where in this message (code points) a segment is. Its offsets are bytes: of the part it is in, or of all
        the text of the answer, which the words it repeats decide (§7)."""
        starts = accumulate(len(piece.encode()) for piece, _ in self._pieces) if segment.text is not None else ()
        for base in (0, -len(self._before), *starts):
            start, end = base + segment.start_index, base + segment.end_index
            if not 0 <= start < end <= len(text):
                continue
            if segment.text is None or text[start:end] == segment.text.encode():
                return len(text[:start].decode(errors="ignore")), len(text[:end].decode(errors="ignore"))
        return None


def _joined(pieces: list[tuple[str, str | None]]) -> list[Piece]:
    """Unsigned pieces that follow one another are one part; a signed one is a part of its own (§5)."""
    joined: list[Piece] = []
    for text, signature in pieces:
        if signature is None and joined and joined[-1][1] is None:
            joined[-1] = (joined[-1][0] + len(text), None)
        else:
            joined.append((len(text), signature))
    return joined


class _Calls:
    """Calls of functions. All calls of an answer are one step."""

    def __init__(self, out: Composer, state: _State, text: _Message, names: Names, final: str | None) -> None:
        self._out = out
        self._state = state
        self._text = text
        self._names = names
        self._final = final
        self._count = 0
        self._ids_came = False
        self._open: Arguments | None = None
        self._answering = False
        self._key = ""

    @property
    def is_open(self) -> bool:
        return self._open is not None

    def begin(self, call: _FunctionCall, signature: str | None) -> None:
        self.end()
        if call.name == self._final:
            self._answering = True
            self._state.seal()
        else:
            self._announce(call, signature)
        self._open = Arguments()
        self.go_on(call)

    def _announce(self, call: _FunctionCall, signature: str | None) -> None:
        call_id = self._out.reserve(call.id)
        as_expected = call.id == (call_id if self._ids_came else None)
        if signature is not None or not as_expected:
            self._state.seal({call_id: raw(Signed(signature, call.id, self._count))})
            self._ids_came = call.id == call_id
        else:
            self._state.seal()
        self._key = f"call-{self._count}"
        self._count += 1
        self._out.call(self._key, self._names.from_wire(call.name), call_id)

    def go_on(self, call: _FunctionCall) -> None:
        """More of the call that is open. One that is not whole yet says so; its last piece may never come (§8)."""
        if self._open is None:
            return
        if len(call.args) > len("null"):
            self._open.whole(call.args)
        for argument in call.partial_args:
            self._open.add(argument)
        if not call.will_continue:
            self.end()

    def end(self) -> None:
        """The arguments are all there: they go on as one."""
        if self._open is None:
            return
        arguments, self._open = self._open.json(), None
        if self._answering:
            self._answering = False
            self._text.add(arguments, None, None)
        else:
            self._out.arguments(self._key, arguments)


class _Running(Struct, frozen=True):
    """A search that was not answered yet, under the key the composer knows it by."""

    key: str
    item_id: str
    queries: list[str]


class _Searches:
    """Searches the model makes on Google's side."""

    def __init__(self, out: Composer, state: _State, sources: bool) -> None:
        self._out = out
        self._state = state
        self._wants_sources = sources
        self._running: dict[str, _Running] = {}
        self._waiting: dict[str, list[str]] = {}
        self._queries: list[str] = []
        self._sources: list[str] = []
        self._count = 0

    def ground(self, grounding: _Grounding) -> None:
        self._queries = grounding.web_search_queries or self._queries
        self._sources = [chunk.web.uri for chunk in grounding.grounding_chunks if chunk.web] or self._sources

    def begin(self, call: _ToolCall) -> None:
        key = f"search-{self._count}"
        self._count += 1
        try:
            queries = _QUERIES.decode(call.args).queries
        except msgspec.MsgspecError:
            queries = []  # another tool's
        self._running[call.id] = _Running(key, self._out.search(key), queries)

    def answered(self, response: _ToolCall) -> None:
        if (running := self._running.pop(response.id, None)) is None:
            return
        if self._wants_sources:
            self._waiting[running.key] = running.queries  # they come with the text, if at all
        else:
            self._out.searched(running.key, running.queries)
        self._state.seal({running.item_id: raw({})})

    def announce(self) -> None:
        """A search that is known only by what it found."""
        if self._queries and not self._count:
            self._count += 1
            self._out.search("grounding")
            self._out.searched("grounding", self._queries, self._found())

    @property
    def unanswered(self) -> dict[str, Raw]:
        """The items of searches that were called and did not answer: their calls go back all the same."""
        return {running.item_id: raw({}) for running in self._running.values()}

    def end(self, status: ItemStatus) -> None:
        if status == "completed":  # after a message that was cut off nothing may come (open-responses.md §2)
            self.announce()
        for place, (key, queries) in enumerate(self._waiting.items(), 1):
            # Which search found what is not said, so the last one has it all.
            self._out.searched(key, queries, self._found() if place == len(self._waiting) else [])
        for running in self._running.values():
            self._out.searched(running.key, running.queries, failed=True)

    def _found(self) -> list[str] | None:
        return self._sources if self._wants_sources else None


def _as_it_came(data: bytes, place: int) -> Raw:
    """A part of the first candidate of a chunk."""
    candidates = _RAW_CHUNK.decode(data).candidates
    first = next(candidate for candidate in candidates if candidate.index == 0)
    return first.content.parts[place]


def _logprobs(result: Raw) -> Iterator[Raw]:
    """One entry for each token, in the form of the API (objects.md §5)."""
    said = _LOGPROBS.decode(result)
    for place, chosen in enumerate(said.chosen_candidates):
        others = said.top_candidates[place].candidates if place < len(said.top_candidates) else []
        yield raw({**_token(chosen), "top_logprobs": [_token(other) for other in others]})


def _token(token: _Token) -> dict[str, object]:
    return {"token": token.token, "logprob": token.log_probability, "bytes": [*token.token.encode()]}

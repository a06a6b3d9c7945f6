"""The words of a script: what a provider answers, whatever protocol it speaks.

Every step becomes a list of actions (`Head`, `bytes`, `Pause`, `Stall`, `Cut`, `Reset`), so a test that needs a fault
nobody has thought of writes the actions itself, in a `Wire`. Most tests need only the small functions at the end of
this file: `answer` with `text`, `thought`, `refusal` and `calls`, and `HttpError`, `silence`, `death`, `raw`. The
request knows the wire form of an answer to it, so one script serves every protocol.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from rejoinder.conformance.upstreams.seen import Seen
    from rejoinder.conformance.upstreams.sent import SentChat

CREATED = 1_700_000_000
"""When every answer was made: a script has no clock."""


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


class Asked(Protocol):
    """A request that knows what it says, and how its provider writes an answer to it."""

    @property
    def seen(self) -> "Seen": ...

    def answered(self, answer: "Answer") -> Iterable[Action]: ...

    def refused(self, error: "HttpError") -> Iterable[Action]: ...


Request = TypeVar("Request", bound=Asked, contravariant=True, default="SentChat")


class Step(Protocol[Request]):
    """One answer of the script."""

    def actions(self, request: Request) -> Iterable[Action]: ...


@dataclass(frozen=True, slots=True)
class Text:
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning. Without pieces it is not shown, and only its signature comes.

    `place` is the field of Chat Completions it comes in (provider-chat.md §6). `signature` is what the provider wants
    back byte for byte: Anthropic's `signature`, Gemini's `thoughtSignature`, the `encrypted_content` of Responses.
    Providers that always sign make one up when there is none; `""` is none at all, as a compatible server has it.
    """

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
    "done_only",  # no delta, the arguments come with the end of the item (Responses)
]


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of one turn and the way their deltas come (provider-chat.md §7).

    Most ways are those of compatible Chat Completions servers; a provider refuses to play a way it does not have.
    """

    calls: tuple[ToolCall, ...]
    style: CallStyle = "fragments"


@dataclass(frozen=True, slots=True)
class LegacyCall:
    """`function_call`, from before there were tools."""

    name: str
    fragments: tuple[str, ...]


class Native:
    """A word that one protocol alone has; it is defined where that protocol is written."""

    __slots__ = ()


Part = Text | Refusal | Thought | Calls | LegacyCall | Native


class Unsayable(Exception):
    """Raised when a script has a word that the protocol of its provider lacks."""

    def __init__(self, protocol: str, word: object) -> None:
        super().__init__(f"{protocol} has no form for {word!r}")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as OpenAI counts them: `cached` and `written` are among the `prompt`, `reasoning` among the `completion`.

    `cached` were read from the cache, `written` into it, by the providers that count them.
    """

    prompt: int = 11
    completion: int = 7
    cached: int = 0
    reasoning: int = 0
    written: int = 0


UsagePlace = Literal[
    "after",  # a chunk of its own without choices, only when asked for (OpenAI)
    "finish",  # on the chunk with the finish reason
    "every",  # on every chunk
    "choice",  # inside the choice of the last chunk (Moonshot)
    "never",
]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong after `after` pieces. `end` is a body that simply stops (provider-chat.md §7).

    The first piece is the opening (the role chunk, `message_start`, `response.created`; nothing at all with Gemini),
    and then every piece of text, thought and argument is one: the same moment in every protocol, as far as they have
    it.
    """

    kind: Literal["cut", "reset", "stall", "end", "error", "bad_json"]
    after: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant message, streamed when that was asked for and one JSON object otherwise."""

    parts: tuple[Part, ...]
    finish: str | None = None
    """Why it ends: a `finish_reason` of Chat Completions, which every provider translates, or a word of its own."""

    usage: Usage = Usage()
    usage_place: UsagePlace = "after"
    done: bool = True
    """Say that this is the end: `[DONE]`, or `message_stop`. Other protocols have no such word."""

    delay: float = 0
    """Seconds before the head."""

    gap: float = 0
    """Seconds before every piece but the first."""

    trouble: Trouble | None = None
    always_json: bool = False
    """Answer with a JSON body even when a stream was asked for (provider-chat.md §7)."""

    @property
    def finish_reason(self) -> str:
        if self.finish is not None:
            return self.finish
        if any(isinstance(part, Calls) for part in self.parts):
            return "tool_calls"
        return "function_call" if any(isinstance(part, LegacyCall) for part in self.parts) else "stop"

    def actions(self, request: Asked) -> Iterator[Action]:
        if self.delay:
            yield Pause(self.delay)
        yield from request.answered(self)


@dataclass(frozen=True, slots=True)
class HttpError:
    """An error before the first byte of an answer, in the provider's envelope. `raw` replaces the envelope.

    `type`, `code` and `param` appear where the envelope has a place for them; without a `type` the status tells it.
    """

    status: int
    message: str = "something is wrong"
    type: str | None = None
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def actions(self, request: Asked) -> Iterable[Action]:
        return request.refused(self)


@dataclass(frozen=True, slots=True)
class Wire:
    """Exactly these actions, whatever was asked for."""

    script: tuple[Action, ...]

    def actions(self, request: Asked) -> Iterable[Action]:
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

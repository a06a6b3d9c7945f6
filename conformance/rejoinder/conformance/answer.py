"""What rules read of an answer.

These structs ask for as little as they can: what an answer has to look like is said in `shape`, once, and a rule that
speaks of something else does not stumble over it.
"""

import re
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from rejoinder.conformance.errors import Broken, NotApplicable
from rejoinder.conformance.server import Json, Reply, Server

T = TypeVar("T")


class Part(Struct):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class Item(Struct):
    type: str | None = None
    id: str | None = None
    status: str | None = None
    role: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: object = None
    input: object = None
    content: list[Part] | str | None = None
    summary: list[Part] | None = None

    @property
    def identity(self) -> tuple[str | None, str | None, str | None]:
        return self.type, self.id, self.call_id

    @property
    def parts(self) -> list[Part]:
        """The parts of its content; a mere text is one part."""
        return self.content if isinstance(self.content, list) else [Part(text=self.content)]

    @property
    def text(self) -> str:
        return "".join(part.text or "" for part in self.parts)


class CachedTokens(Struct, frozen=True):
    cached_tokens: int = 0


class ReasoningTokens(Struct, frozen=True):
    reasoning_tokens: int = 0


class Usage(Struct):
    input_tokens: int = 0
    input_tokens_details: CachedTokens = CachedTokens()
    output_tokens: int = 0
    output_tokens_details: ReasoningTokens = ReasoningTokens()
    total_tokens: int = 0


class Tool(Struct):
    name: str | None = None


class Why(Struct):
    """Why a response is incomplete."""

    reason: str | None = None


class Answer(Struct):
    """A response object."""

    id: str
    output: list[Item]
    status: str | None = None
    previous_response_id: str | None = None
    instructions: object = None
    metadata: object = None
    tools: list[Tool] | None = None
    usage: Usage | None = None
    incomplete_details: Why | None = None

    @property
    def incomplete_reason(self) -> str | None:
        return self.incomplete_details.reason if self.incomplete_details else None

    @property
    def calls(self) -> list[Item]:
        return [item for item in self.output if item.type == "function_call"]

    @property
    def text(self) -> str:
        return "".join(item.text for item in self.output if item.type == "message")


class Refusal(Struct):
    message: str = ""
    param: str | None = None
    code: str | None = None


class _Envelope(Struct):
    error: Refusal


class Page(Struct):
    """A page of items. The items are also kept as they came, for those who look at their fields."""

    data: list[Item]
    has_more: bool | None = None
    first_id: str | None = None
    last_id: str | None = None


def read(kind: type[T], body: bytes | Raw, what: str) -> T:
    """A value of that kind, `what` names it. Raises Broken when it does not look like one."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Broken(f"{what} of the right shape", str(error), at=bytes(body)) from error


def answer_in(reply: Reply) -> Answer:
    return read(Answer, reply.expect(200).body, "a response")


def usage_of(answer: Answer) -> Usage:
    """What an answer took. Raises Broken when it does not say."""
    if answer.usage is None:
        raise Broken("usage at the end of a response", "null")
    return answer.usage


def input_tokens_of(answer: Answer) -> int:
    """The tokens that went in. Raises NotApplicable where they are not counted."""
    tokens = usage_of(answer).input_tokens
    if tokens == 0:
        raise NotApplicable("the server counts no input tokens")
    return tokens


async def create(server: Server, *, optional: tuple[str, ...] = (), **fields: Json) -> Answer:
    """The answer to a create call.

    `optional` are parameters that a server may do without, if it says so: the rule does not apply then.
    """
    reply = await server.post(**fields)
    skip_if_refused(reply, optional)
    return answer_in(reply)


def skip_if_refused(reply: Reply, optional: tuple[str, ...]) -> None:
    """Raises NotApplicable when the reply refuses one of these parameters by its name.

    That `param` has the name is another rule's to ask for: where there is none, it may be the first that is named in
    what is said. A word that is only used there names nothing.
    """
    if reply.status not in (400, 422) or not optional:
        return
    error = _error_in(reply)
    named = error.param if error.param is not None else _first_named(error.message)
    if _names(named, *optional):
        raise NotApplicable(f"the server refuses '{named}': {error.message[:120]}")


_NAMED = re.compile(r"""['"`](\w+)['"`]|\b(\w+)(?=[=.\[])""")
_PARAMETERS = frozenset(
    [
        "background",
        "context_management",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
        "generate",
        "stream_id",
        "starting_after",
    ]
)
"""Of a create call, and what only a socket or a stream that is followed has beside them."""


def _first_named(message: str) -> str | None:
    """The parameter that is named first: in quotes, or with a value or a place within it."""
    names = (quoted or followed for quoted, followed in _NAMED.findall(message))
    return next((name for name in names if name in _PARAMETERS), None)


def _error_in(reply: Reply) -> Refusal:
    try:
        return msgspec.json.decode(reply.body, type=_Envelope).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Refusal(reply.body.decode(errors="replace"))


def refusal_in(reply: Reply, *statuses: int, param: str | None = None, code: str | None = None) -> Refusal:
    """The error in a reply.

    It has one of the statuses, 400 if none is named. With `param` it names that parameter or a place within it, with
    `code` it carries that code. Raises Broken otherwise. What an error looks like is one rule's to say.
    """
    reply.expect(*(statuses or (400,)))
    error = _error_in(reply)
    if param is not None and not _names(error.param, param):
        raise Broken(f"an error whose param is '{param}' or within it", reply.excerpt, at=reply.body)
    if code is not None and error.code != code:
        raise Broken(f"an error whose code is '{code}'", reply.excerpt, at=reply.body)
    return error


def _names(param: str | None, *names: str) -> bool:
    """Whether a param like `input[0].content` is one of these, or a place within it."""
    return param is not None and any(param == name or param.startswith((f"{name}.", f"{name}[")) for name in names)

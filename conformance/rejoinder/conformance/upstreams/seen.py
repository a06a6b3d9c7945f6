"""What a provider was asked, whatever protocol it speaks.

A prompt is read into the same words for every one of them, so that one rule, and one obliging model, serve all four:

    assert seen.outline == ["user Is it late?", "call clock {}", "result 12:00"]
    assert seen.reasoned == ["user Is it late?", "seal EqQB", "call clock {}", "result 12:00"]
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["text", "media", "seal", "call", "result"]


WORD = re.compile(r"\W*\w+\W*|\W+")
"""A word, with what stands around it: together they are the text."""


@dataclass(frozen=True, slots=True)
class Said:
    """One thing of a conversation, in its place.

    `text` is what was said: words, the base64 or the address of a medium, the arguments of a call, the output of a
    result. A seal is what the provider wants back of its own reasoning, byte for byte: a signature, encrypted content,
    or with Chat Completions the reasoning itself.
    """

    kind: Kind
    role: Role
    text: str = ""
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool. `schema` is what its arguments have to be, in JSON.

    Not every protocol has more than functions: a custom tool takes a text, a search for tools is the client's to do.
    """

    name: str
    description: str = ""
    schema: bytes = b""
    kind: Literal["function", "custom", "search"] = "function"
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be called: `names` are the tools that may be, all of them if there are none."""

    mode: Literal["auto", "none", "required"] = "auto"
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """What the text of the answer has to be."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    schema: bytes = b""


@dataclass(frozen=True, slots=True)
class Seen:
    """A whole request. `effort` is how much is to be thought, in words of the protocol, and empty when it is not said.

    None is what the request does not say.
    """

    said: Sequence[Said]
    tools: Sequence[Offered] = ()
    choice: Choice = Choice()
    parallel: bool | None = None
    limit: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    effort: str = ""
    form: Form = Form()
    compacts: bool = False
    """The provider is to compact the context, and nothing else."""

    compacts_too: bool = False
    """It is to do that beside its answer: the context has grown that long."""

    @property
    def tokens(self) -> int:
        """How many words it has, its tools counted."""
        tools = (f"{tool.name} {tool.description} {tool.schema.decode()}" for tool in self.tools)
        return sum(len(WORD.findall(text)) for text in (*(one.text for one in self.said), *tools))

    @property
    def outline(self) -> list[str]:
        """What the user, the assistant and the tools say, in lines. Words of one role in a row are one."""
        return _lines(one for one in self.said if one.role != "system" and one.kind != "seal")

    @property
    def reasoned(self) -> list[str]:
        """The same with the seals of the reasoning in their places."""
        return _lines(one for one in self.said if one.role != "system")

    @property
    def system(self) -> str:
        """What the system says, wherever it stands."""
        return "\n".join(one.text for one in self.of("text", "system"))

    @property
    def seals(self) -> list[str]:
        return [one.text for one in self.of("seal")]

    @property
    def calls(self) -> list[Said]:
        return list(self.of("call"))

    @property
    def media(self) -> list[str]:
        return [one.text for one in self.of("media")]

    @property
    def asked(self) -> str:
        """The last words of the user."""
        return next((one.text for one in reversed(self.said) if (one.kind, one.role) == ("text", "user")), "")

    def of(self, kind: Kind, *roles: Role) -> Iterator[Said]:
        return (one for one in self.said if one.kind == kind and (not roles or one.role in roles))


def _lines(said: Iterable[Said]) -> list[str]:
    lines: list[str] = []
    before: Said | None = None
    for one in said:
        if one.kind == "text" and before is not None and (before.kind, before.role) == ("text", one.role):
            lines[-1] += one.text
        else:
            lines.append(_line(one))
        before = one
    return lines


def _line(one: Said) -> str:
    match one.kind:
        case "text":
            return f"{one.role} {one.text}"
        case "call":
            return f"call {one.name} {one.text}"
        case kind:
            return f"{kind} {one.text}"


def compact(value: msgspec.Raw | bytes | str) -> str:
    """A text of JSON without spaces, its names in order: two that mean the same are the same. Nonsense stays."""
    try:
        return msgspec.json.encode(msgspec.json.decode(value), order="sorted").decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return value if isinstance(value, str) else bytes(value).decode(errors="replace")


def words(text: object, role: Role) -> Iterator[Said]:
    """A text that may not be there, or may be empty."""
    if isinstance(text, str) and text:
        yield Said("text", role, text)


def given(*values: msgspec.Raw) -> bytes:
    """The first of these values that is one, as JSON; nothing when none is."""
    return next((found for value in values if (found := bytes(value)) not in (b"null", b"")), b"")

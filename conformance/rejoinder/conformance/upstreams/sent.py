"""A request as it arrived at a scripted provider, and a Chat Completions request (provider-chat.md §2, §3)."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from rejoinder.conformance.upstreams import chat_wire
from rejoinder.conformance.upstreams.anthropic_sent import SentAnthropic
from rejoinder.conformance.upstreams.gemini_sent import SentGemini
from rejoinder.conformance.upstreams.objection import Objection
from rejoinder.conformance.upstreams.responses_sent import SentResponses
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError
from rejoinder.conformance.upstreams.seen import Choice, Form, Offered, Role, Said, Seen, compact, given, words


class SentFunction(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: str = ""
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None


class SentCall(msgspec.Struct, frozen=True):
    id: str
    type: str
    function: SentFunction = SentFunction()

    @property
    def said(self) -> Said:
        return Said("call", "assistant", compact(self.function.arguments), self.id, self.function.name)


class SentTool(msgspec.Struct, frozen=True):
    type: str
    function: SentFunction = SentFunction()


class SentUrl(msgspec.Struct, frozen=True):
    url: str
    detail: str | None = None


class SentFile(msgspec.Struct, frozen=True):
    file_data: str = ""


class SentPart(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    image_url: SentUrl | None = None
    file: SentFile | None = None
    refusal: str = ""

    def said(self, role: Role) -> Said:
        if self.image_url is not None:
            return Said("media", role, _data(self.image_url.url))
        if self.file is not None:
            return Said("media", role, _data(self.file.file_data))
        return Said("text", role, self.text or self.refusal)


class SentDetail(msgspec.Struct, frozen=True):
    """An entry of `reasoning_details`."""

    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None

    @property
    def seal(self) -> str:
        return self.signature or self.data or self.summary or self.text or ""


class SentMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | list[SentPart] | None = None
    tool_calls: list[SentCall] = []
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def text(self) -> str:
        """The content as one string, its text parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def said(self) -> Iterator[Said]:
        if self.role == "tool":
            yield Said("result", "tool", self.text, self.tool_call_id or "")
            return
        role = _ROLES[self.role]
        yield from (Said("seal", role, seal) for seal in self._seals)
        if isinstance(self.content, list):
            yield from (part.said(role) for part in self.content)
        else:
            yield from words(self.content, role)
        yield from words(self.refusal, role)
        yield from (call.said for call in self.tool_calls)

    @property
    def _seals(self) -> list[str]:
        """What an answer brought with its reasoning: the details say it best, the text is beside them."""
        if details := msgspec.json.decode(self.reasoning_details, type=list[SentDetail] | None):
            return [detail.seal for detail in details]
        return [text for text in (self.reasoning_content or self.reasoning,) if text]


_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _data(url: str) -> str:
    """The base64 of a data URL, or the address."""
    return url.partition(";base64,")[2] or url


class SentStreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class SentNamed(msgspec.Struct, frozen=True):
    """A tool choice that names a function."""

    function: SentFunction = SentFunction()


class SentSchema(msgspec.Struct, frozen=True):
    schema: msgspec.Raw = msgspec.Raw(b"null")


class SentFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: SentSchema = SentSchema()


class SentChat(msgspec.Struct, frozen=True):
    """The fields of a request that tests look at most; the rest is in `SentRequest.body`."""

    model: str
    messages: list[SentMessage]
    stream: bool = False
    stream_options: SentStreamOptions = SentStreamOptions()
    tools: list[SentTool] = []
    tool_choice: msgspec.Raw = msgspec.Raw(b"null")
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    response_format: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def seen(self) -> Seen:
        form = msgspec.json.decode(self.response_format, type=SentFormat | None) or SentFormat()
        return Seen(
            [said for message in self.messages for said in message.said],
            [
                Offered(tool.function.name, tool.function.description or "", given(tool.function.parameters))
                for tool in self.tools
            ],
            self._choice,
            self.parallel_tool_calls,
            self.max_completion_tokens or self.max_tokens,
            self.temperature,
            self.top_p,
            self.reasoning_effort or "",
            Form(form.type, given(form.json_schema.schema)),
        )

    @property
    def _choice(self) -> Choice:
        match msgspec.json.decode(self.tool_choice, type=str | SentNamed | None):
            case SentNamed(function=function):
                return Choice("required", [function.name])
            case "none":
                return Choice("none")
            case "required" | "any":
                return Choice("required")
            case _:
                return Choice()

    def answered(self, answer: Answer) -> Iterable[Action]:
        usage = self.stream_options.include_usage
        return chat_wire.answered(answer, model=self.model, stream=self.stream, include_usage=usage)

    def refused(self, error: HttpError) -> Iterable[Action]:
        return chat_wire.refused(error)


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request as it arrived. `headers` have lower-case names; `at` is on the monotonic clock, in seconds."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    objection: Objection | None
    query: Mapping[str, str] = field(default_factory=dict)
    number: int = 1
    """Its place among the requests of its provider, from 1."""

    left: threading.Event = field(default_factory=threading.Event)
    """Set when the client goes away before the answer is out, or the provider is closed before that."""

    @property
    def chat(self) -> SentChat:
        return msgspec.json.decode(self._said, type=SentChat)

    @property
    def anthropic(self) -> SentAnthropic:
        request = msgspec.json.decode(self._said, type=SentAnthropic)
        return msgspec.structs.replace(request, number=self.number)

    @property
    def gemini(self) -> SentGemini:
        request = msgspec.json.decode(self._said, type=SentGemini)
        model, _, method = self.path.rpartition("/")[2].partition(":")
        stream = method == "streamGenerateContent"
        sse = self.query.get("alt") == "sse"
        return msgspec.structs.replace(request, model=model, stream=stream, sse=sse, number=self.number)

    @property
    def responses(self) -> SentResponses:
        request = msgspec.json.decode(self._said, type=SentResponses)
        return msgspec.structs.replace(request, body=self.body, number=self.number)

    @property
    def _said(self) -> bytes:
        """The body without the fields that are null: they are as good as left out."""
        return msgspec.json.encode({name: value for name, value in self.fields.items() if bytes(value) != b"null"})

    @property
    def fields(self) -> Mapping[str, msgspec.Raw]:
        """The top-level fields, each as the bytes it was sent in."""
        return msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])

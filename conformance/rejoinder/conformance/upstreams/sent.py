"""A request as it arrived at a scripted provider, and a Chat Completions request (provider-chat.md §2, §3)."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from rejoinder.conformance.upstreams import chat_wire
from rejoinder.conformance.upstreams.anthropic_sent import SentAnthropic
from rejoinder.conformance.upstreams.gemini_sent import SentGemini
from rejoinder.conformance.upstreams.objection import Objection
from rejoinder.conformance.upstreams.responses_sent import SentResponses
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError


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


class SentTool(msgspec.Struct, frozen=True):
    type: str
    function: SentFunction = SentFunction()


class SentUrl(msgspec.Struct, frozen=True):
    url: str
    detail: str | None = None


class SentPart(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    image_url: SentUrl | None = None


class SentMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | list[SentPart] | None = None
    tool_calls: list[SentCall] = []
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def text(self) -> str:
        """The content as one string, its text parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class SentStreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


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
    reasoning_effort: str | None = None
    response_format: msgspec.Raw = msgspec.Raw(b"null")

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
        return msgspec.json.decode(self.body, type=SentChat)

    @property
    def anthropic(self) -> SentAnthropic:
        request = msgspec.json.decode(self.body, type=SentAnthropic)
        return msgspec.structs.replace(request, number=self.number)

    @property
    def gemini(self) -> SentGemini:
        request = msgspec.json.decode(self.body, type=SentGemini)
        model, _, method = self.path.rpartition("/")[2].partition(":")
        stream = method == "streamGenerateContent"
        sse = self.query.get("alt") == "sse"
        return msgspec.structs.replace(request, model=model, stream=stream, sse=sse, number=self.number)

    @property
    def responses(self) -> SentResponses:
        request = msgspec.json.decode(self.body, type=SentResponses)
        return msgspec.structs.replace(request, body=self.body, number=self.number)

    @property
    def fields(self) -> Mapping[str, msgspec.Raw]:
        """The top-level fields, each as the bytes it was sent in."""
        return msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])

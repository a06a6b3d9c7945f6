"""An OpenAI Responses request as it arrived at a scripted provider (provider-responses.md §2, §3)."""

import json
from collections.abc import Iterable

import msgspec

from rejoinder.conformance.upstreams import responses_wire
from rejoinder.conformance.upstreams.responses_manner import OPENAI, Manner
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError

_NULL = msgspec.Raw(b"null")


class ResponsesPart(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    refusal: str | None = None
    image_url: str | None = None
    file_data: str | None = None


class ResponsesItem(msgspec.Struct, frozen=True):
    """`output` is a string or a list, so it is as it was sent; `result` is its text."""

    type: str = "message"
    role: str | None = None
    id: str | None = None
    content: str | list[ResponsesPart] | None = None
    phase: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = _NULL
    input: str | None = None
    output: msgspec.Raw = _NULL
    summary: list[ResponsesPart] = []
    encrypted_content: str | None = None
    namespace: str | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def result(self) -> str:
        output = msgspec.json.decode(self.output, type=str | list[ResponsesPart])
        return output if isinstance(output, str) else "".join(part.text for part in output)


class ResponsesTool(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = _NULL
    strict: bool | None = None
    format: msgspec.Raw = _NULL


class ResponsesReasoning(msgspec.Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None


class SentResponses(msgspec.Struct, frozen=True):
    """The fields of a request that tests look at most; the rest is in `SentRequest.body`.

    `body`, `number` and `manner` are not fields of it: they are the whole request, its place among those of its
    provider, which names the answer, and how that provider talks.
    """

    model: str | None = None
    input: str | list[ResponsesItem] = ""
    instructions: str | None = None
    stream: bool = False
    store: bool | None = None
    previous_response_id: str | None = None
    include: list[str] = []
    tools: list[ResponsesTool] = []
    tool_choice: msgspec.Raw = _NULL
    parallel_tool_calls: bool | None = None
    reasoning: ResponsesReasoning | None = None
    text: msgspec.Raw = _NULL
    temperature: float | None = None
    max_output_tokens: int | None = None
    metadata: msgspec.Raw = _NULL
    body: bytes = b"{}"
    number: int = 1
    manner: Manner = OPENAI

    @property
    def items(self) -> list[ResponsesItem]:
        if isinstance(self.input, str):
            return [ResponsesItem(role="user", content=self.input)]
        return self.input

    @property
    def types(self) -> list[str]:
        return [item.type for item in self.items]

    def answered(self, answer: Answer) -> Iterable[Action]:
        return responses_wire.answered(answer, json.loads(self.body), self.manner, number=self.number)

    def refused(self, error: HttpError) -> Iterable[Action]:
        return responses_wire.refused(error)

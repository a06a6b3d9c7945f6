"""An OpenAI Responses request as it arrived at a scripted provider (provider-responses.md §2, §3)."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from rejoinder.conformance.upstreams import responses_wire
from rejoinder.conformance.upstreams.responses_manner import OPENAI, Manner
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError
from rejoinder.conformance.upstreams.seen import Choice, Form, Offered, Role, Said, Seen, compact, given, words

_NULL = msgspec.Raw(b"null")


class ResponsesPart(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    refusal: str | None = None
    image_url: str | None = None
    file_data: str | None = None

    def said(self, role: Role) -> Said:
        if url := self.image_url or self.file_data:
            return Said("media", role, url.partition(";base64,")[2] or url)
        return Said("text", role, self.text or self.refusal or "")


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

    @property
    def said(self) -> Iterator[Said]:
        match self.type:
            case "message":
                role = _ROLES[self.role or ""]
                if isinstance(self.content, list):
                    yield from (part.said(role) for part in self.content)
                else:
                    yield from words(self.content, role)
            case "reasoning" | "compaction":
                yield Said("seal", "assistant", self.encrypted_content or "".join(part.text for part in self.summary))
            case "function_call":
                arguments = msgspec.json.decode(self.arguments, type=str)
                yield Said("call", "assistant", compact(arguments), self.call_id or "", self.name or "")
            case "custom_tool_call":
                yield Said("call", "assistant", self.input or "", self.call_id or "", self.name or "")
            case "function_call_output" | "custom_tool_call_output":
                yield Said("result", "tool", self.result, self.call_id or "")
                output = msgspec.json.decode(self.output, type=str | list[ResponsesPart])
                parts = output if isinstance(output, list) else []
                yield from (said for part in parts if (said := part.said("tool")).kind == "media")


_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class ResponsesTool(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = _NULL
    strict: bool | None = None
    format: msgspec.Raw = _NULL
    execution: str | None = None
    tools: "list[ResponsesTool] | None" = None
    """Those of a namespace."""

    @property
    def offered(self) -> list[Offered]:
        """What of it the model may call itself, as far as the client answers."""
        tool = Offered(self.name or self.type, self.description or "", given(self.parameters))
        match self.type:
            case "function":
                return [tool]
            case "custom":
                return [replace(tool, kind="custom")]
            case "tool_search" if self.execution == "client":
                return [replace(tool, kind="search")]
            case "namespace":
                inner = [one for tool in self.tools or [] for one in tool.offered]
                return [replace(one, namespace=self.name or "") for one in inner]
            case _:
                return []


class ResponsesReasoning(msgspec.Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None


class ResponsesFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    schema: msgspec.Raw = _NULL


class ResponsesText(msgspec.Struct, frozen=True):
    format: ResponsesFormat = ResponsesFormat()


class ResponsesChoice(msgspec.Struct, frozen=True):
    """A tool choice that names tools."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: "Sequence[ResponsesChoice]" = ()


class ResponsesManagement(msgspec.Struct, frozen=True):
    """A rule of `context_management`."""

    type: str
    compact_threshold: int = 0


class SentResponses(msgspec.Struct, frozen=True):
    """The fields of a request that tests look at most; the rest is in `SentRequest.body`.

    `body`, `number`, `manner` and `before` are not fields of it: they are the whole request, its place among those of
    its provider, which names the answer, how that provider talks, and the conversation that it has stored and goes on
    with.
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
    top_p: float | None = None
    max_output_tokens: int | None = None
    metadata: msgspec.Raw = _NULL
    context_management: list[ResponsesManagement] | None = None
    body: bytes = b"{}"
    number: int = 1
    manner: Manner = OPENAI
    before: Sequence[ResponsesItem] = ()

    @property
    def seen(self) -> Seen:
        reasoning = self.reasoning or ResponsesReasoning()
        form = (msgspec.json.decode(self.text, type=ResponsesText | None) or ResponsesText()).format
        seen = Seen(
            [
                *words(self.instructions, "system"),
                *(said for item in (*self.before, *self.items) for said in item.said),
            ],
            [one for tool in self.tools for one in tool.offered],
            self._choice,
            self.parallel_tool_calls,
            self.max_output_tokens,
            self.temperature,
            self.top_p,
            reasoning.effort or "",
            Form(form.type, given(form.schema)),
        )
        thresholds = [rule.compact_threshold for rule in self.context_management or []]
        return replace(
            seen,
            compacts=self.types[-1:] == ["compaction_trigger"],
            compacts_too=any(seen.tokens > threshold for threshold in thresholds),
        )

    @property
    def _choice(self) -> Choice:
        match msgspec.json.decode(self.tool_choice, type=str | ResponsesChoice | None):
            case ResponsesChoice(type="allowed_tools", mode=mode, tools=tools):
                return Choice(mode, [tool.name for tool in tools if tool.name])
            case ResponsesChoice(name=str(name)):
                return Choice("required", [name])
            case "none":
                return Choice("none")
            case "required":
                return Choice("required")
            case _:
                return Choice()

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

"""An Anthropic Messages request as it arrived at a scripted provider (provider-anthropic.md §2 to §5)."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from rejoinder.conformance.upstreams import anthropic_wire
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError
from rejoinder.conformance.upstreams.seen import Choice, Form, Offered, Role, Said, Seen, compact, given, words

_NULL = msgspec.Raw(b"null")


class AnthropicSource(msgspec.Struct, frozen=True):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class AnthropicBlock(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NULL
    tool_use_id: str | None = None
    content: "str | list[AnthropicBlock] | None" = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    source: AnthropicSource | None = None
    citations: msgspec.Raw = _NULL
    cache_control: msgspec.Raw = _NULL
    caller: msgspec.Raw = _NULL
    title: str | None = None

    @property
    def result(self) -> str:
        """The content of a tool result as one string."""
        return _joined(self.content)

    def said(self, role: Role) -> Iterator[Said]:
        match self.type:
            case "thinking" | "redacted_thinking":
                yield Said("seal", role, self.signature or self.data or self.thinking or "")
            case "tool_use":
                yield Said("call", role, compact(self.input), self.id or "", self.name or "")
            case "tool_result":
                yield Said("result", "tool", self.result, self.tool_use_id or "")
                inner = self.content if isinstance(self.content, list) else []
                yield from (said for block in inner if block.source for said in block.said("tool"))
            case _ if self.source is not None:
                yield Said("media", role, self.source.data or self.source.url or "")
            case _:
                yield from words(self.text, role)


class AnthropicMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | list[AnthropicBlock]

    @property
    def text(self) -> str:
        """Its text blocks joined."""
        return _joined(self.content)

    @property
    def blocks(self) -> list[AnthropicBlock]:
        return [AnthropicBlock("text", self.content)] if isinstance(self.content, str) else self.content

    @property
    def types(self) -> list[str]:
        return [block.type for block in self.blocks]


class AnthropicTool(msgspec.Struct, frozen=True):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = _NULL
    strict: bool | None = None
    cache_control: msgspec.Raw = _NULL


class AnthropicToolChoice(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class AnthropicThinking(msgspec.Struct, frozen=True):
    type: str
    budget_tokens: int | None = None
    display: str | None = None
    block_binding: msgspec.Raw = _NULL


class AnthropicFormat(msgspec.Struct, frozen=True):
    schema: msgspec.Raw = _NULL


class AnthropicOutputConfig(msgspec.Struct, frozen=True):
    effort: str | None = None
    format: msgspec.Raw = _NULL

    @property
    def form(self) -> Form:
        form = msgspec.json.decode(self.format, type=AnthropicFormat | None)
        return Form("json_schema", given(form.schema)) if form else Form()


class SentAnthropic(msgspec.Struct, frozen=True):
    """The fields of a request that tests look at most; the rest is in `SentRequest.body`.

    `number` is not in the body: it is the place of the request among those of its provider, and names the answer.
    """

    model: str
    messages: list[AnthropicMessage]
    max_tokens: int | None = None
    system: str | list[AnthropicBlock] = ""
    stream: bool = False
    tools: list[AnthropicTool] = []
    tool_choice: AnthropicToolChoice | None = None
    thinking: AnthropicThinking | None = None
    output_config: AnthropicOutputConfig | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] = []
    metadata: msgspec.Raw = _NULL
    cache_control: msgspec.Raw = _NULL
    service_tier: str | None = None
    number: int = 1

    @property
    def instructions(self) -> str:
        """The system prompt as one string."""
        return _joined(self.system)

    @property
    def seen(self) -> Seen:
        system = [AnthropicBlock("text", self.system)] if isinstance(self.system, str) else self.system
        said = [one for block in system for one in block.said("system")]
        for message in self.messages:
            said += [one for block in message.blocks for one in block.said(_ROLES[message.role])]
        output = self.output_config or AnthropicOutputConfig()
        thinking = self.thinking or AnthropicThinking("")
        return Seen(
            said,
            [Offered(tool.name, tool.description or "", given(tool.input_schema)) for tool in self.tools],
            self._choice,
            not self.tool_choice.disable_parallel_tool_use if self.tool_choice else None,
            self.max_tokens,
            self.temperature,
            self.top_p,
            " ".join(str(word) for word in (thinking.type, thinking.budget_tokens, output.effort) if word),
            output.form,
        )

    @property
    def _choice(self) -> Choice:
        match self.tool_choice:
            case AnthropicToolChoice(type="tool", name=str(name)):
                return Choice("required", [name])
            case AnthropicToolChoice(type="any"):
                return Choice("required")
            case AnthropicToolChoice(type="none"):
                return Choice("none")
            case _:
                return Choice()

    def answered(self, answer: Answer) -> Iterable[Action]:
        return anthropic_wire.answered(
            answer, model=self.model, stream=self.stream, stop_sequences=self.stop_sequences, number=self.number
        )

    def refused(self, error: HttpError) -> Iterable[Action]:
        return anthropic_wire.refused(error)


_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


def _joined(content: str | list[AnthropicBlock] | None) -> str:
    if isinstance(content, list):
        return "".join(block.text for block in content)
    return content or ""

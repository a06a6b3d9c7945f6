"""An Anthropic Messages request as it arrived at a scripted provider (provider-anthropic.md §2 to §5)."""

from collections.abc import Iterable

import msgspec

from rejoinder.conformance.upstreams import anthropic_wire
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError

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


class AnthropicOutputConfig(msgspec.Struct, frozen=True):
    effort: str | None = None
    format: msgspec.Raw = _NULL


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

    def answered(self, answer: Answer) -> Iterable[Action]:
        return anthropic_wire.answered(
            answer, model=self.model, stream=self.stream, stop_sequences=self.stop_sequences, number=self.number
        )

    def refused(self, error: HttpError) -> Iterable[Action]:
        return anthropic_wire.refused(error)


def _joined(content: str | list[AnthropicBlock] | None) -> str:
    if isinstance(content, list):
        return "".join(block.text for block in content)
    return content or ""

"""A Gemini request as it arrived at a scripted provider (provider-gemini.md §2, §3)."""

from collections.abc import Iterable

import msgspec

from rejoinder.conformance.upstreams import gemini_wire
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError

_NULL = msgspec.Raw(b"null")


class GeminiBlob(msgspec.Struct, frozen=True, rename="camel"):
    mime_type: str | None = None
    data: str | None = None
    file_uri: str | None = None


class GeminiCall(msgspec.Struct, frozen=True):
    name: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None


class GeminiResult(msgspec.Struct, frozen=True):
    name: str
    response: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    parts: "list[GeminiPart]" = []


class GeminiPart(msgspec.Struct, frozen=True, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: GeminiCall | None = None
    function_response: GeminiResult | None = None
    inline_data: GeminiBlob | None = None
    file_data: GeminiBlob | None = None


class GeminiContent(msgspec.Struct, frozen=True):
    parts: list[GeminiPart] = []
    role: str | None = None

    @property
    def text(self) -> str:
        """Its text parts joined, thoughts left out."""
        return "".join(part.text or "" for part in self.parts if not part.thought)

    @property
    def calls(self) -> list[GeminiCall]:
        return [part.function_call for part in self.parts if part.function_call]

    @property
    def results(self) -> list[GeminiResult]:
        return [part.function_response for part in self.parts if part.function_response]


class GeminiFunction(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = _NULL
    parameters_json_schema: msgspec.Raw = _NULL


class GeminiTool(msgspec.Struct, frozen=True, rename="camel"):
    function_declarations: list[GeminiFunction] = []
    google_search: msgspec.Raw = _NULL
    code_execution: msgspec.Raw = _NULL
    url_context: msgspec.Raw = _NULL


class GeminiCallingConfig(msgspec.Struct, frozen=True, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] = []


class GeminiToolConfig(msgspec.Struct, frozen=True, rename="camel"):
    function_calling_config: GeminiCallingConfig = GeminiCallingConfig()
    include_server_side_tool_invocations: bool | None = None


class GeminiThinking(msgspec.Struct, frozen=True, rename="camel"):
    include_thoughts: bool | None = None
    thinking_level: str | None = None
    thinking_budget: int | None = None


class GeminiGeneration(msgspec.Struct, frozen=True, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] = []
    response_mime_type: str | None = None
    response_schema: msgspec.Raw = _NULL
    response_json_schema: msgspec.Raw = _NULL
    thinking_config: GeminiThinking = GeminiThinking()


class SentGemini(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of a request that tests look at most; the rest is in `SentRequest.body`.

    `model`, `stream`, `sse` and `number` are not in the body: the first three are in the address, and `number` is the
    place of the request among those of its provider, and names the answer.
    """

    contents: list[GeminiContent] = []
    system_instruction: GeminiContent = GeminiContent()
    tools: list[GeminiTool] = []
    tool_config: GeminiToolConfig = GeminiToolConfig()
    generation_config: GeminiGeneration = GeminiGeneration()
    safety_settings: msgspec.Raw = _NULL
    cached_content: str | None = None
    service_tier: str | None = None
    model: str = ""
    stream: bool = False
    sse: bool = False
    number: int = 1

    @property
    def instructions(self) -> str:
        return self.system_instruction.text

    @property
    def functions(self) -> list[GeminiFunction]:
        return [function for tool in self.tools for function in tool.function_declarations]

    def answered(self, answer: Answer) -> Iterable[Action]:
        return gemini_wire.answered(answer, model=self.model, stream=self.stream, sse=self.sse, number=self.number)

    def refused(self, error: HttpError) -> Iterable[Action]:
        return gemini_wire.refused(error)

"""A Gemini request as it arrived at a scripted provider (provider-gemini.md §2, §3)."""

from collections.abc import Iterable, Iterator

import msgspec

from rejoinder.conformance.upstreams import gemini_wire
from rejoinder.conformance.upstreams.script import Action, Answer, HttpError
from rejoinder.conformance.upstreams.seen import Choice, Form, Offered, Role, Said, Seen, compact, given, words

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

    @property
    def text(self) -> str:
        """What the tool said: the one text in the object, or the whole of it."""
        match msgspec.json.decode(self.response):
            case {"output": str(text)} | {"result": str(text)} | {"error": str(text)}:
                return text
            case _:
                return compact(self.response)


class GeminiPart(msgspec.Struct, frozen=True, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: GeminiCall | None = None
    function_response: GeminiResult | None = None
    inline_data: GeminiBlob | None = None
    file_data: GeminiBlob | None = None

    def said(self, role: Role) -> Iterator[Said]:
        """A signature comes before the call that carries it, and behind a text."""
        seal = [Said("seal", role, self.thought_signature)] if self.thought_signature else []
        if self.function_call is not None:
            call = self.function_call
            yield from seal
            yield Said("call", role, compact(call.args), call.id or "", call.name)
            return
        if self.function_response is not None:
            result = self.function_response
            yield Said("result", "tool", result.text, result.id or "", result.name)
            yield from (said for part in result.parts for said in part.said("tool"))
        for blob in (self.inline_data, self.file_data):
            if blob is not None:
                yield Said("media", role, blob.data or blob.file_uri or "")
        if not self.thought:
            yield from words(self.text, role)
        yield from seal


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
    def seen(self) -> Seen:
        said = [one for part in self.system_instruction.parts for one in part.said("system")]
        for content in self.contents:
            role: Role = "assistant" if content.role == "model" else "user"
            said += [one for part in content.parts for one in part.said(role)]
        how = self.generation_config
        thinking = how.thinking_config
        return Seen(
            said,
            [
                Offered(one.name, one.description or "", given(one.parameters_json_schema, one.parameters))
                for one in self.functions
            ],
            self._choice,
            None,
            how.max_output_tokens,
            how.temperature,
            how.top_p,
            " ".join(str(word) for word in (thinking.thinking_level, thinking.thinking_budget) if word is not None),
            self._form,
        )

    @property
    def _choice(self) -> Choice:
        calling = self.tool_config.function_calling_config
        match (calling.mode or "").upper():
            case "ANY":
                return Choice("required", tuple(calling.allowed_function_names))
            case "NONE":
                return Choice("none")
            case _:
                return Choice("auto", tuple(calling.allowed_function_names))

    @property
    def _form(self) -> Form:
        how = self.generation_config
        schema = given(how.response_json_schema, how.response_schema)
        if schema:
            return Form("json_schema", schema)
        return Form("json_object" if how.response_mime_type == "application/json" else "text")

    @property
    def functions(self) -> list[GeminiFunction]:
        return [function for tool in self.tools for function in tool.function_declarations]

    def answered(self, answer: Answer) -> Iterable[Action]:
        return gemini_wire.answered(answer, model=self.model, stream=self.stream, sse=self.sse, number=self.number)

    def refused(self, error: HttpError) -> Iterable[Action]:
        return gemini_wire.refused(error)

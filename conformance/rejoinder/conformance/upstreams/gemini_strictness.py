"""What Gemini refuses, and in which words (provider-gemini.md, mapping.md §8).

A refusal is here when the contract says that the provider answers 400. What a model of one generation takes and one of
another does not is told by its name.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from rejoinder.conformance.upstreams.gemini_memory import Memory, unsigned
from rejoinder.conformance.upstreams.gemini_model import GeminiModel
from rejoinder.conformance.upstreams.gemini_schema import check_json_schema, check_subset
from rejoinder.conformance.upstreams.gemini_values import (
    InvalidArgument,
    Object,
    invalid,
    is_one_of,
    list_of,
    message_of,
    number_of,
    refused,
    text_of,
)
from rejoinder.conformance.upstreams.objection import Json, parsed


@dataclass(frozen=True, slots=True)
class GeminiStrictness:
    """The default is the Gemini API."""

    own_signatures: bool = True
    """Signatures must be those that this provider gave, each in the part it came with (§5)."""

    ids_for_all: bool = True
    """Calls may carry ids of anybody's making, on every model; Vertex knows ids on Gemini 3 only (§4)."""


GEMINI = GeminiStrictness()
VERTEX = GeminiStrictness(ids_for_all=False)

STAND_INS = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
"""What may stand for a signature that is lost (§5)."""

_REQUEST = frozenset(
    {
        "contents",
        "systemInstruction",
        "tools",
        "toolConfig",
        "generationConfig",
        "safetySettings",
        "cachedContent",
        "labels",
        "serviceTier",
        "store",
        "modelArmorConfig",
    }
)

_KINDS = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)

_PART = frozenset({*_KINDS, "thought", "thoughtSignature", "mediaResolution", "videoMetadata", "partMetadata"})

_BUILT_IN = frozenset(
    {"googleSearch", "urlContext", "codeExecution", "fileSearch", "googleMaps", "computerUse", "mcpServers"}
)

_GENERATION = frozenset(
    {
        "temperature",
        "topP",
        "topK",
        "candidateCount",
        "maxOutputTokens",
        "stopSequences",
        "seed",
        "presencePenalty",
        "frequencyPenalty",
        "responseLogprobs",
        "logprobs",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseModalities",
        "thinkingConfig",
        "mediaResolution",
        "speechConfig",
        "imageConfig",
    }
)

_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")

_PICTURES = ("image/jpeg", "image/png", "image/webp", "image/heic", "image/heif")

_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")


def check(
    body: bytes,
    model_name: str,
    strictness: GeminiStrictness = GEMINI,
    memory: Memory | None = None,
    *,
    counting: bool = False,
) -> None:
    """Raise InvalidArgument when Gemini would answer 400. `counting` is for a request that counts tokens."""
    try:
        request = parsed(body)
    except ValueError as error:
        raise refused("", f"Invalid JSON payload received. {error}") from None
    model = GeminiModel.of(model_name)
    if counting:
        read = message_of(request, ("contents", "generateContentRequest"), "")
        if "generateContentRequest" not in read:
            _check_contents(read, model, strictness, memory)
            return
        path = "generate_content_request"
        asked = message_of(read["generateContentRequest"], _REQUEST | {"model"}, path)
        if asked.pop("model", None) != f"models/{model_name}":
            raise refused(f"{path}.model", f"{path}.model must be models/{model_name}")
    else:
        asked = message_of(request, _REQUEST, "")
    tools = _check_tools(asked, model)
    _check_generation(asked, model, tools)
    _check_system(asked)
    if asked.get("cachedContent") is not None and any(
        asked.get(name) for name in ("systemInstruction", "tools", "toolConfig")
    ):
        message = (
            "CachedContent can not be used with GenerateContent request setting system_instruction, tools or "
            "tool_config."
        )
        raise refused("cached_content", message)
    _check_contents(asked, model, strictness, memory)


@dataclass(frozen=True, slots=True)
class _Tools:
    functions: bool = False
    built_in: frozenset[str] = frozenset()


def _check_tools(request: Object, model: GeminiModel) -> _Tools:
    functions = False
    built_in: set[str] = set()
    for index, one in enumerate(list_of(request.get("tools"), "tools")):
        tool = message_of(one, _BUILT_IN | {"functionDeclarations"}, f"tools[{index}]")
        built_in |= tool.keys() & _BUILT_IN
        for place, declared in enumerate(list_of(tool.get("functionDeclarations"), f"tools[{index}]")):
            functions = True
            _check_declaration(declared, f"tools[{index}].function_declarations[{place}]")
    config = message_of(
        request.get("toolConfig") or {},
        ("functionCallingConfig", "includeServerSideToolInvocations", "retrievalConfig"),
        "tool_config",
    )
    path = "tool_config.function_calling_config"
    calling = message_of(
        config.get("functionCallingConfig") or {},
        ("mode", "allowedFunctionNames", "streamFunctionCallArguments"),
        path,
    )
    if calling.get("mode") is not None and not is_one_of(calling["mode"], ("AUTO", "ANY", "NONE", "VALIDATED")):
        raise invalid(calling["mode"], f"{path}.mode", "TYPE_ENUM")
    if functions and built_in and model.is_old:
        raise refused("tools", "Tool use with function calling is unsupported")
    if functions and built_in and config.get("includeServerSideToolInvocations") is not True:
        message = (
            "Please enable tool_config.include_server_side_tool_invocations to use Built-in tools with Function "
            "calling."
        )
        raise refused("tool_config", message)
    return _Tools(functions, frozenset(built_in))


def _check_declaration(value: Json, path: str) -> None:
    known = ("name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema", "behavior")
    declared = message_of(value, known, path)
    name = declared.get("name")
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        message = (
            "Invalid function name. Must start with a letter or an underscore. Must be alphanumeric (a-z, A-Z, 0-9), "
            "underscores (_), dots (.), colons (:), or dashes (-), with a maximum length of 128."
        )
        raise refused(f"{path}.name", message)
    if declared.get("description") is not None:
        text_of(declared["description"], f"{path}.description")
    if "parameters" in declared and "parametersJsonSchema" in declared:
        raise refused(path, "parameters and parameters_json_schema cannot both be set.")
    if declared.get("parameters") is not None:
        check_subset(declared["parameters"], f"{path}.parameters")
    if declared.get("parametersJsonSchema") is not None:
        check_json_schema(declared["parametersJsonSchema"], f"{path}.parameters_json_schema")


def _check_generation(request: Object, model: GeminiModel, tools: _Tools) -> None:
    path = "generation_config"
    config = message_of(request.get("generationConfig") or {}, _GENERATION, path)
    temperature = config.get("temperature")
    if temperature is not None and not 0 <= number_of(temperature, f"{path}.temperature") <= 2:
        message = f"temperature must be in the range [0.0, 2.0], but is {temperature}."
        raise refused(f"{path}.temperature", message)
    limit = config.get("maxOutputTokens")
    if limit is not None and number_of(limit, f"{path}.max_output_tokens") < 1:
        raise refused(f"{path}.max_output_tokens", "max_output_tokens must be positive.")
    if len(list_of(config.get("stopSequences"), f"{path}.stop_sequences")) > 5:
        raise refused(f"{path}.stop_sequences", "at most 5 stop sequences are supported.")
    _check_thinking(config, model)
    structured = config.get("responseSchema") is not None or config.get("responseJsonSchema") is not None
    if config.get("responseSchema") is not None and config.get("responseJsonSchema") is not None:
        raise refused(path, "response_schema and response_json_schema cannot both be set.")
    if config.get("responseSchema") is not None:
        check_subset(config["responseSchema"], f"{path}.response_schema")
    if config.get("responseJsonSchema") is not None:
        check_json_schema(config["responseJsonSchema"], f"{path}.response_json_schema")
    mime = config.get("responseMimeType")
    if structured and mime not in ("application/json", "text/x.enum"):
        raise refused(f"{path}.response_mime_type", "response_schema needs a response_mime_type of application/json.")
    if mime == "application/json" and model.is_old:
        if tools.functions:
            message = "Function calling with a response mime type: 'application/json' is unsupported"
            raise refused(f"{path}.response_mime_type", message)
        if "googleSearch" in tools.built_in:
            message = "Tool use with a response mime type: 'application/json' is unsupported"
            raise refused(f"{path}.response_mime_type", message)


def _check_thinking(generation: Object, model: GeminiModel) -> None:
    path = "generation_config.thinking_config"
    known = ("includeThoughts", "thinkingBudget", "thinkingLevel")
    config = message_of(generation.get("thinkingConfig") or {}, known, path)
    budget, level = config.get("thinkingBudget"), config.get("thinkingLevel")
    if budget is not None and level is not None:
        raise refused(path, "You can only set only one of thinking budget and thinking level.")
    if level is not None:
        _check_level(level, model, f"{path}.thinking_level")
    if budget is not None:
        _check_budget(number_of(budget, f"{path}.thinking_budget"), model, f"{path}.thinking_budget")


def _check_level(level: Json, model: GeminiModel, path: str) -> None:
    if not is_one_of(level, _LEVELS):
        raise invalid(level, path, "TYPE_ENUM")
    if model.is_old:
        raise refused(path, "Thinking level is not supported for this model.")
    if str(level).upper() not in model.levels:
        raise refused(path, f"Thinking level {str(level).upper()} is not supported for this model.")


def _check_budget(budget: int | float, model: GeminiModel, path: str) -> None:
    if model.thinks_in_levels and budget == 0:
        raise refused(path)
    if model.thinks_in_budgets and budget != -1:
        least, most = (128, 32768) if model.is_pro else (0, 24576)
        if not least <= budget <= most:
            message = f"The thinking budget {budget} is invalid. Please choose a value between {least} and {most}."
            raise refused(path, message)


def _check_system(request: Object) -> None:
    if request.get("systemInstruction") is None:
        return
    content = message_of(request["systemInstruction"], ("role", "parts"), "system_instruction")
    for index, one in enumerate(list_of(content.get("parts"), "system_instruction.parts")):
        path = f"system_instruction.parts[{index}]"
        if "text" not in message_of(one, _PART, path):
            raise refused(path, "system_instruction must be text only.")


@dataclass(frozen=True, slots=True)
class _Content:
    """One content as the rules of turns see it."""

    path: str
    role: Json
    parts: list[dict[str, Json]]
    calls: list[Object]
    responses: list[Object]


def _check_contents(request: Object, model: GeminiModel, strictness: GeminiStrictness, memory: Memory | None) -> None:
    contents = [_content(one, index) for index, one in enumerate(list_of(request.get("contents"), "contents"))]
    if not contents:
        raise refused("contents", "* GenerateContentRequest.contents: contents is not specified\n")
    for content in contents:
        for place, part in enumerate(content.parts):
            _check_part(part, f"{content.path}.parts[{place}]", model, strictness)
        if content.responses and len(content.responses) < len(content.parts) and model.thinks_in_levels:
            raise refused(content.path)
    _check_steps(contents)
    if model.thinks_in_levels:
        _check_signed(contents)
    if strictness.own_signatures and memory is not None:
        _check_signatures(contents, memory)


def _content(value: Json, index: int) -> _Content:
    path = f"contents[{index}]"
    content = message_of(value, ("role", "parts"), path)
    if content.get("role", "user") not in ("user", "model"):
        raise refused(f"{path}.role", "Please use a valid role: user, model.")
    parts = [
        message_of(one, _PART, f"{path}.parts[{place}]")
        for place, one in enumerate(list_of(content.get("parts"), f"{path}.parts"))
    ]
    if not parts:
        message = (
            "Unable to submit request because it must include at least one parts field, which describes the prompt "
            "input."
        )
        raise refused(f"{path}.parts", message)
    calls = [_call(part, path) for part in parts if "functionCall" in part]
    responses = [_response(part, path) for part in parts if "functionResponse" in part]
    return _Content(path, content.get("role", "user"), parts, calls, responses)


def _call(part: Object, path: str) -> Object:
    call = message_of(part["functionCall"], ("name", "args", "id"), f"{path}.function_call")
    text_of(call.get("name"), f"{path}.function_call.name")
    if call.get("args") is not None and not isinstance(call["args"], dict):
        raise invalid(call["args"], f"{path}.function_call.args", "an object")
    return call


def _response(part: Object, path: str) -> Object:
    known = ("name", "response", "id", "parts", "willContinue", "scheduling")
    response = message_of(part["functionResponse"], known, f"{path}.function_response")
    text_of(response.get("name"), f"{path}.function_response.name")
    if not isinstance(response.get("response"), dict):
        raise invalid(response.get("response"), f"{path}.function_response.response", "an object")
    return response


def _check_part(part: Object, path: str, model: GeminiModel, strictness: GeminiStrictness) -> None:
    kinds = [kind for kind in _KINDS if kind in part]
    if len(kinds) > 1:
        message = f"Invalid value at '{path}' (oneof), oneof field 'data' is already set. Cannot set '{kinds[1]}'"
        raise refused(path, message)
    if not kinds:
        raise refused(
            path, f"* GenerateContentRequest.{path}.data: required oneof field 'data' must have one initialized field\n"
        )
    kind = kinds[0]
    if kind == "text":
        text_of(part["text"], f"{path}.text")
    if kind == "inlineData":
        blob = message_of(part["inlineData"], ("mimeType", "data", "displayName"), f"{path}.inline_data")
        mime = text_of(blob.get("mimeType"), f"{path}.inline_data.mime_type")
        text_of(blob.get("data"), f"{path}.inline_data.data")
        if mime.startswith("image/") and mime not in _PICTURES:
            raise refused(f"{path}.inline_data.mime_type", f"Unsupported MIME type: {mime}")
    if kind == "fileData":
        blob = message_of(part["fileData"], ("fileUri", "mimeType", "displayName"), f"{path}.file_data")
        text_of(blob.get("fileUri"), f"{path}.file_data.file_uri")
    if kind in ("functionCall", "functionResponse") and not strictness.ids_for_all and model.is_old:
        value = part[kind]
        if isinstance(value, dict) and "id" in value:
            raise refused(
                f"{path}.id", f"Invalid JSON payload received. Unknown name \"id\" at '{path}': Cannot find field."
            )


def _check_steps(contents: list[_Content]) -> None:
    """Calls come after the user or after results, and their results, all of them, in the very next content (§3)."""
    nothing = _Content("contents", "model", [], [], [])
    for before, content in pairwise([nothing, *contents]):
        if content.calls and before.role == "model":
            message = (
                "Please ensure that function call turn comes immediately after a user turn or after a function "
                "response turn."
            )
            raise refused(content.path, message)
        if len(content.responses) != len(before.calls):
            raise _uneven(content if content.responses else before)
        for call, response in zip(before.calls, content.responses, strict=True):
            if call.get("id") is not None and response.get("id") not in [one.get("id") for one in before.calls]:
                message = f"The function response of `{response['name']}` must have the id of its function call."
                raise refused(content.path, message)
    if contents[-1].calls:
        raise _uneven(contents[-1])


def _uneven(content: _Content) -> InvalidArgument:
    message = (
        "Please ensure that the number of function response parts is equal to the number of function call parts of "
        "the function call turn."
    )
    return refused(content.path, message)


def _check_signed(contents: list[_Content]) -> None:
    """In the current turn the first call of every step has its signature (§5)."""
    start = 0
    for index, content in enumerate(contents):
        if content.role == "user" and len(content.responses) < len(content.parts):
            start = index
    for index, content in enumerate(contents[start:], start):
        if not content.calls:
            continue
        first = next(part for part in content.parts if "functionCall" in part)
        if not first.get("thoughtSignature"):
            message = (
                f"Function call `{content.calls[0]['name']}` in the {index + 1}. content block is missing a "
                "`thought_signature`."
            )
            raise refused(content.path, message)


def _check_signatures(contents: list[_Content], memory: Memory) -> None:
    used: dict[str, Counter[str]] = {}
    for content in contents:
        for place, part in enumerate(content.parts):
            signature = part.get("thoughtSignature")
            if not isinstance(signature, str) or signature in STAND_INS:
                continue
            path = f"{content.path}.parts[{place}].thought_signature"
            if signature not in memory:
                raise refused(path, "Corrupted thought signature.")
            uses = used.setdefault(signature, Counter())
            uses[unsigned(part)] += 1
            if uses[unsigned(part)] > memory[signature][unsigned(part)]:
                raise refused(path, "Thought signature does not belong to this part.")

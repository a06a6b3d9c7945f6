"""What OpenAI refuses in the Responses API, and in which words (provider-responses.md, mapping.md §8).

A refusal is here when the contract says that the provider answers 400 or 404. Item types and tools that nobody knows
are taken as they are: a provider may be newer than this file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rejoinder.conformance.upstreams.objection import Json, Objection
from rejoinder.conformance.upstreams.openai_values import (
    an_object,
    body_of,
    expect,
    name_of,
    only_known,
    text_of,
    wrong_type,
)
from rejoinder.conformance.upstreams.responses_memory import Item, Memory, items_of

Use = Literal["create", "count", "compact"]

FIELDS = frozenset(
    {
        "model",
        "input",
        "instructions",
        "previous_response_id",
        "conversation",
        "prompt",
        "store",
        "stream",
        "stream_options",
        "background",
        "include",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "temperature",
        "top_p",
        "top_logprobs",
        "text",
        "reasoning",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "truncation",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "user",
        "context_management",
        "moderation",
        "image",
        "access_programs",
    }
)

_COUNTED = frozenset(
    {
        "model",
        "input",
        "previous_response_id",
        "tools",
        "text",
        "reasoning",
        "truncation",
        "instructions",
        "personality",
        "conversation",
        "tool_choice",
        "parallel_tool_calls",
    }
)

_COMPACTED = frozenset(
    {
        "model",
        "input",
        "previous_response_id",
        "instructions",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "service_tier",
    }
)

_TYPES: Mapping[str, tuple[type, ...]] = {
    "model": (str,),
    "instructions": (str, type(None)),
    "previous_response_id": (str, type(None)),
    "store": (bool, type(None)),
    "stream": (bool, type(None)),
    "background": (bool, type(None)),
    "include": (list, type(None)),
    "max_output_tokens": (int, type(None)),
    "max_tool_calls": (int, type(None)),
    "metadata": (dict, type(None)),
    "temperature": (int, float, type(None)),
    "top_p": (int, float, type(None)),
    "top_logprobs": (int, type(None)),
    "text": (dict, type(None)),
    "reasoning": (dict, type(None)),
    "tools": (list, type(None)),
    "tool_choice": (str, dict, type(None)),
    "parallel_tool_calls": (bool, type(None)),
    "input": (str, list, type(None)),
}

_INCLUDED = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "compaction": "cmp",
    "web_search_call": "ws",
}

_OUTPUTS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "local_shell_call": "local_shell_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "computer_call": "computer_call_output",
}
"""The calls that a client answers, and their answers."""

_ITEMS = (
    "message",
    "reasoning",
    "item_reference",
    *_OUTPUTS,
    *_OUTPUTS.values(),
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_list_tools",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "tool_search_call",
    "tool_search_output",
    "compaction",
    "compaction_trigger",
    "additional_tools",
    "agent_message",
    "configuration_update",
    "program",
    "program_output",
)
"""The types of items that may be sent (§3)."""

_TOOLS = (
    "function",
    "custom",
    "namespace",
    "web_search",
    "web_search_preview",
    "file_search",
    "code_interpreter",
    "image_generation",
    "computer",
    "computer_use_preview",
    "mcp",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
    "programmatic_tool_calling",
)
"""The types of tools there are."""

_CALLS = {output: call for call, output in _OUTPUTS.items()}

_REQUIRED = {
    "reasoning": ("summary",),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "item_reference": ("id",),
    "compaction": ("encrypted_content",),
}

_PARTS = {
    "user": ("input_text", "input_image", "input_file", "input_audio"),
    "system": ("input_text", "input_image", "input_file"),
    "developer": ("input_text", "input_image", "input_file"),
    "assistant": ("output_text", "refusal"),
}

_THINKS = re.compile(r"o\d|gpt-5(?!-chat)")


@dataclass(frozen=True, slots=True)
class ResponsesStrictness:
    """One server's rules. The default is OpenAI's own."""

    fields: frozenset[str] = FIELDS
    own_items: bool = True
    """What is sealed must be sealed by this provider, and what is named by its id must be stored here (§4)."""

    prefixes: bool = True
    """An item's id begins with the letters of its type."""

    seals: bool = True
    """It takes `encrypted_content` at all; vLLM does not (§4)."""

    follows: bool = True
    """Reasoning must come with the item it led to, and that item with its reasoning (§3)."""

    known_only: bool = False
    """Types of items and of tools must be those that there are: a server of today, and not of tomorrow."""

    interleaves: bool = True
    """Something may stand between a call and its output; not with DeepSeek (§3)."""


OPENAI = ResponsesStrictness()
OPENAI_TODAY = ResponsesStrictness(known_only=True)

_STATEFUL = {"store", "previous_response_id", "conversation", "background"}

COMPATIBLE = ResponsesStrictness(fields=FIELDS - _STATEFUL, own_items=False, prefixes=False, follows=False)
"""A stateless server: Ollama, llama.cpp (§6, §9)."""

VLLM = ResponsesStrictness(fields=FIELDS - _STATEFUL, own_items=False, prefixes=False, follows=False, seals=False)
DEEPSEEK = ResponsesStrictness(own_items=False, prefixes=False, follows=False, interleaves=False)


class NotFound(Objection):
    """Raised when a request names an item that is not kept."""

    status = 404


def check(
    body: bytes,
    strictness: ResponsesStrictness = OPENAI,
    memory: Memory | None = None,
    *,
    use: Use = "create",
) -> None:
    """Raise Objection when a server with these rules would refuse this body."""
    request = body_of(body)
    fields = {"create": strictness.fields, "count": _COUNTED, "compact": _COMPACTED}[use]
    for name in request:
        if name not in fields:
            raise Objection(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name, types in _TYPES.items():
        if name in request:
            expect(request[name], types, name)
    _check_presence(request, use)
    _check_limits(request)
    _check_sampling(request)
    _check_tools(request, strictness)
    _check_conversation(request, strictness, memory or Memory())


def _missing(path: str) -> Objection:
    return Objection(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")


def _unsupported(value: Json, words: Sequence[str], path: str) -> Objection:
    quoted = [f"'{word}'" for word in words]
    message = f"Invalid value: '{value}'. Supported values are: {', '.join(quoted[:-1])}, and {quoted[-1]}."
    return Objection(message, path, "invalid_value")


def _check_presence(request: Item, use: str) -> None:
    if "model" not in request and request.get("prompt") is None and use != "count":
        raise _missing("model")
    sources = ("input", "previous_response_id", "prompt", "conversation")
    if use == "create" and all(request.get(name) is None for name in sources):
        message = "One of 'input', 'previous_response_id', 'prompt' or 'conversation' must be provided."
        raise Objection(message, "input", "missing_required_parameter")
    if request.get("previous_response_id") is not None and request.get("conversation") is not None:
        message = (
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Ensure you are only providing "
            "one of them."
        )
        raise Objection(message, "previous_response_id", "mutually_exclusive_parameters")


def _check_limits(request: Item) -> None:
    limit = request.get("max_output_tokens")
    if isinstance(limit, int) and limit < 16:
        message = (
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got "
            f"{limit} instead."
        )
        raise Objection(message, "max_output_tokens", "integer_below_min_value")
    metadata = an_object(request.get("metadata") or {}, "metadata")
    if len(metadata) > 16:
        message = (
            f"Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got "
            f"{len(metadata)} instead."
        )
        raise Objection(message, "metadata", "object_above_max_properties")
    for name, value in metadata.items():
        _at_most(64, name, f"metadata.{name}")
        _at_most(512, text_of(value, f"metadata.{name}"), f"metadata.{name}")
    include = request.get("include")
    for index, one in enumerate(include if isinstance(include, list) else []):
        if one not in _INCLUDED:
            raise _unsupported(one, _INCLUDED, f"include[{index}]")
    effort = an_object(request.get("reasoning") or {}, "reasoning").get("effort")
    if effort is not None and effort not in _EFFORTS:
        raise _unsupported(effort, _EFFORTS, "reasoning.effort")


def _at_most(length: int, text: str, path: str) -> None:
    if len(text) > length:
        message = (
            f"Invalid '{path}': string too long. Expected a string with maximum length {length}, but got a string "
            f"with length {len(text)} instead."
        )
        raise Objection(message, path, "string_above_max_length")


def _check_sampling(request: Item) -> None:
    model = str(request.get("model"))
    effort = an_object(request.get("reasoning") or {}, "reasoning").get("effort")
    if not _THINKS.match(model) or (model.startswith("gpt-5.6") and effort == "none"):
        return
    for name in ("temperature", "top_p"):
        if request.get(name) is not None:
            raise Objection(f"Unsupported parameter: '{name}' is not supported with this model.", name)


def _check_tools(request: Item, strictness: ResponsesStrictness) -> None:
    declared: set[tuple[Json, Json]] = set()
    tools = request.get("tools")
    for index, one in enumerate(tools if isinstance(tools, list) else []):
        path = f"tools[{index}]"
        tool = an_object(one, path)
        if "type" not in tool:
            raise _missing(f"{path}.type")
        if strictness.known_only and tool["type"] not in _TOOLS:
            raise _unsupported(tool["type"], _TOOLS, f"{path}.type")
        if tool["type"] in ("function", "custom"):
            if "name" not in tool:
                raise _missing(f"{path}.name")
            declared.add((tool["type"], name_of(tool["name"], f"{path}.name")))
        if tool["type"] == "function":
            _check_function(tool, path)
        if tool["type"] == "custom":
            _check_grammar(tool, path)
    choice = request.get("tool_choice")
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise _unsupported(choice, ("none", "auto", "required"), "tool_choice")
    named = choice if isinstance(choice, Mapping) else {}
    if named.get("type") in ("function", "custom") and (named["type"], named.get("name")) not in declared:
        raise Objection(f"Tool choice '{named.get('name')}' not found in 'tools' parameter.", "tool_choice")
    allowed = named.get("tools") if named.get("type") == "allowed_tools" else None
    for index, one in enumerate(allowed if isinstance(allowed, list) else []):
        tool = an_object(one, f"tool_choice.tools[{index}]")
        if tool.get("type") in ("function", "custom") and (tool["type"], tool.get("name")) not in declared:
            message = f"Tool choice '{tool.get('name')}' not found in 'tools' parameter."
            raise Objection(message, f"tool_choice.tools[{index}]")


def _check_function(tool: Item, path: str) -> None:
    expect(tool.get("description"), (str, type(None)), f"{path}.description")
    expect(tool.get("strict"), (bool, type(None)), f"{path}.strict")
    schema = an_object(tool.get("parameters") or {"type": "object", "properties": {}}, f"{path}.parameters")
    if schema.get("type") != "object":
        message = (
            f"Invalid schema for function '{tool['name']}': schema must be a JSON Schema of 'type: \"object\"', got "
            f"'type: \"{schema.get('type')}\"'."
        )
        raise Objection(message, f"{path}.parameters", "invalid_function_parameters")
    if tool.get("strict") is True:
        properties = an_object(schema.get("properties") or {}, f"{path}.parameters.properties")
        required = schema.get("required") or []
        if set(properties) != {*(required if isinstance(required, list) else ())}:
            message = f"Invalid schema for function '{tool['name']}': 'required' must name every key in properties."
            raise Objection(message, f"{path}.parameters", "invalid_function_parameters")
        if schema.get("additionalProperties") is not False:
            message = (
                f"Invalid schema for function '{tool['name']}': 'additionalProperties' is required to be supplied "
                "and to be false."
            )
            raise Objection(message, f"{path}.parameters", "invalid_function_parameters")


def _check_grammar(tool: Item, path: str) -> None:
    """The grammar of a custom tool is flat here, unlike in Chat Completions (§3)."""
    form = an_object(tool.get("format") or {"type": "text"}, f"{path}.format")
    if form.get("type") != "grammar":
        return
    only_known(form, frozenset({"type", "syntax", "definition"}), f"{path}.format")
    for name in ("syntax", "definition"):
        if name not in form:
            raise _missing(f"{path}.format.{name}")
    if form["syntax"] not in ("lark", "regex"):
        raise _unsupported(form["syntax"], ("lark", "regex"), f"{path}.format.syntax")


def _check_conversation(request: Item, strictness: ResponsesStrictness, memory: Memory) -> None:
    previous = request.get("previous_response_id")
    if strictness.own_items and isinstance(previous, str) and previous not in memory.responses:
        message = f"Previous response with id '{previous}' not found."
        raise Objection(message, "previous_response_id", "previous_response_not_found")
    given = request.get("input")
    if isinstance(given, list):
        for index, one in enumerate(given):
            _check_item(an_object(one, f"input[{index}]"), f"input[{index}]", strictness, memory)
            if one_type(one) == "compaction_trigger" and index < len(given) - 1:
                raise Objection("'compaction_trigger' must be the last input item.", f"input[{index}]", None)
    _check_doubles(items_of(request))
    items = [*memory.before(request), *(_resolved(item, memory) for item in items_of(request))]
    known = previous is None or previous in memory.responses
    _check_pairs(items, strictness, whole=known and request.get("conversation") is None)
    if strictness.follows:
        _check_reasoning(items, memory)


def one_type(item: Json) -> str:
    """An item without a type is a message."""
    return str(item.get("type", "message")) if isinstance(item, Mapping) else ""


def _check_item(item: Item, path: str, strictness: ResponsesStrictness, memory: Memory) -> None:
    kind = one_type(item)
    if strictness.known_only and kind not in _ITEMS:
        raise _unsupported(kind, _ITEMS, f"{path}.type")
    for name in _REQUIRED.get(kind, ()):
        if name not in item:
            raise _missing(f"{path}.{name}")
    if kind == "message":
        _check_message(item, path)
    if kind in ("function_call", "custom_tool_call"):
        for name in _REQUIRED[kind]:
            text_of(item[name], f"{path}.{name}")
    if isinstance(call_id := item.get("call_id"), str):
        _at_most(64, call_id, f"{path}.call_id")
    id, prefix = item.get("id"), _PREFIXES.get(kind)
    if strictness.prefixes and prefix and isinstance(id, str) and not id.startswith(prefix):
        message = f"Invalid '{path}.id': '{id}'. Expected an ID that begins with '{prefix}'."
        raise Objection(message, f"{path}.id", "invalid_value")
    _check_seal(item, path, strictness, memory)
    by_id = kind == "item_reference" or (kind == "reasoning" and not item.get("encrypted_content") and id)
    if by_id and strictness.own_items and id not in memory.stored:
        message = (
            f"Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with "
            "`store` set to true, or remove this item from your input."
        )
        raise NotFound(message, "input")


def _check_message(item: Item, path: str) -> None:
    role = item.get("role")
    if not isinstance(role, str) or role not in _PARTS:
        raise _unsupported(role, sorted(_PARTS), f"{path}.role")
    content = item.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise wrong_type(content, (str, list), f"{path}.content")
    for index, one in enumerate(content):
        where = f"{path}.content[{index}]"
        part = an_object(one, where)
        if part.get("type") not in _PARTS[role]:
            raise _unsupported(part.get("type"), _PARTS[role], f"{where}.type")
        if part["type"] in ("input_text", "output_text"):
            text_of(part.get("text"), f"{where}.text")


def _check_seal(item: Item, path: str, strictness: ResponsesStrictness, memory: Memory) -> None:
    sealed = item.get("encrypted_content")
    if sealed is None:
        return
    path = f"{path}.encrypted_content"
    if not strictness.seals:
        raise Objection("Encrypted content is not supported.", path)
    text = text_of(sealed, path)
    # An envelope of the bridge is nothing that any provider could read (§4).
    if text.startswith("brg1.") or (strictness.own_items and text not in memory.sealed):
        message = (
            f"The encrypted content for item {item.get('id')} could not be verified. Reason: Encrypted content could "
            "not be decrypted or parsed."
        )
        raise Objection(message, path, "invalid_encrypted_content")


def _resolved(item: Item, memory: Memory) -> Item:
    if one_type(item) in ("item_reference", "reasoning") and isinstance(id := item.get("id"), str):
        return memory.stored.get(id, item)
    return item


def _check_doubles(items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        id = item.get("id")
        # The output of a local shell has the id of its call (§3).
        if isinstance(id, str) and one_type(item) != "local_shell_call_output":
            if id in seen:
                message = f"Duplicate item found with id {id}. Remove duplicate items from your input and try again."
                raise Objection(message, "input")
            seen.add(id)


def _check_pairs(items: Sequence[Item], strictness: ResponsesStrictness, *, whole: bool) -> None:
    """Every call has its output, and every output its call: the nearest open one of that id (§3).

    `whole` says that the conversation is known from its start.
    """
    waiting: list[tuple[str, Json]] = []
    searches: set[Json] = set()
    for item in items:
        kind = one_type(item)
        # Older clients name the call of a local shell by its item id (§3).
        call = item.get("call_id") or item.get("id")
        if kind in _OUTPUTS and item.get("async") is not True:
            waiting.append((kind, call))
        elif kind == "tool_search_call":  # a client may answer it as it answers a function, or not at all [R 304]
            searches.add(call)
        elif kind in _CALLS:
            if (_CALLS[kind], call) in waiting:
                waiting.remove((_CALLS[kind], call))
            elif whole and call not in searches:
                words = kind.replace("_", " ").removesuffix(" output")
                raise Objection(f"No tool call found for {words} output with call_id {call}.", "input")
        elif waiting and not strictness.interleaves:
            raise Objection(f"No tool output found for tool call {waiting[0][1]}.", None, "invalid_request_error")
    if waiting:
        kind, call = waiting[0]
        raise Objection(f"No tool output found for {kind.replace('_', ' ')} {call}.", "input")


def _check_reasoning(items: Sequence[Item], memory: Memory) -> None:
    there = {item.get("id") for item in items}
    for index, item in enumerate(items):
        id = item.get("id")
        if one_type(item) == "reasoning":
            later = (one for one in items[index + 1 :] if one_type(one) != "reasoning")
            if not _was_led_to(next(later, {"role": "user"}), id, memory):
                message = f"Item '{id}' of type 'reasoning' was provided without its required following item."
                raise Objection(message, "input")
        elif isinstance(id, str) and (needed := memory.led_to_by.get(id)) is not None and needed not in there:
            message = (
                f"Item '{id}' of type '{one_type(item)}' was provided without its required 'reasoning' item: "
                f"'{needed}'."
            )
            raise Objection(message, "input")


def _was_led_to(item: Item, by: Json, memory: Memory) -> bool:
    """Is this what that reasoning led to? Under its id it leads to an item with an id, under none to anything said."""
    if by in memory.led_to_by.values():
        return memory.led_to_by.get(str(item.get("id"))) == by
    kind = one_type(item)
    said = item.get("role") == "assistant" if kind == "message" else not kind.endswith("_output")
    return said and (by is None or "id" in item)

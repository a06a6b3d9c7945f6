"""What the little server refuses, and by which name."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.conformance.little_exchange import MODEL, Json, Refused

_NUMBER = (int, float)
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "input": (str, list),
    "instructions": str,
    "previous_response_id": str,
    "conversation": (str, dict),
    "stream": bool,
    "store": bool,
    "background": bool,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "max_output_tokens": int,
    "max_tool_calls": int,
    "top_logprobs": int,
    "truncation": str,
    "metadata": dict,
    "text": dict,
    "reasoning": dict,
    "include": list,
    "context_management": list,
    "tools": list,
    "tool_choice": (str, dict),
    "parallel_tool_calls": bool,
    "safety_identifier": str,
    "service_tier": str,
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
_EFFORTS = (None, "none", "minimal", "low", "medium", "high", "xhigh", "max")


def _is_metadata(value: Json) -> bool:
    return len(value) <= 16 and all(
        len(key) <= 64 and isinstance(one, str) and len(one) <= 512 for key, one in value.items()
    )


def _is_management(value: Json) -> bool:
    return bool(value) and all(
        one.get("type") == "compaction" and one.get("compact_threshold", 1000) >= 1000 for one in value
    )


def _is_format(value: Json) -> bool:
    match value:
        case {"type": "text" | "json_object"}:
            return True
        case {"type": "json_schema", "name": name, "schema": dict()}:
            return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) is not None
        case _:
            return False


_RANGES: Mapping[str, Callable[[Json], bool]] = {
    "previous_response_id": lambda value: re.fullmatch(r"[A-Za-z0-9_-]+", value) is not None,
    "temperature": lambda value: 0 <= value <= 2,
    "top_p": lambda value: 0 <= value <= 1,
    "max_output_tokens": lambda value: value >= 16,
    "top_logprobs": lambda value: 0 <= value <= 20,
    "truncation": lambda value: value in ("auto", "disabled"),
    "tool_choice": lambda value: isinstance(value, dict) or value in ("none", "auto", "required"),
    "text": lambda value: (
        _is_format(value.get("format", {"type": "text"})) and value.get("verbosity") in (None, "low", "medium", "high")
    ),
    "reasoning": lambda value: value.get("effort") in _EFFORTS,
    "include": lambda value: all(name in _INCLUDED for name in value),
    "context_management": _is_management,
    "metadata": _is_metadata,
    "safety_identifier": lambda value: len(value) <= 128,
    "service_tier": lambda value: value in ("auto", "default", "flex", "priority"),
}
_TOOLS = ("function", "custom", "namespace", "tool_search", "web_search", "local_shell", "shell", "apply_patch")


def check(asked: Json, refuses: str | None) -> None:
    """Raises Refused when a request is none."""
    check_model(asked)
    if "input" not in asked:
        raise Refused("missing", "input", "missing_required_parameter")
    if refuses in asked:
        raise Refused("not served here", refuses, "unsupported_parameter")
    for name, value in asked.items():
        if not isinstance(value, _KINDS.get(name, object)) or not _RANGES.get(name, lambda _: True)(value):
            raise Refused("wrong", name, "invalid_value")
    tools = asked.get("tools", [])
    for place, tool in enumerate(tools):
        _check_tool(tool, f"tools[{place}]")
    _check_choice(asked.get("tool_choice"), tools)


def check_model(asked: Json) -> None:
    if "model" not in asked:
        raise Refused("missing", "model", "missing_required_parameter")
    if asked["model"] != MODEL:
        raise Refused("no such model", "model", "model_not_found")


def _check_tool(tool: Json, place: str) -> None:
    if tool.get("type") not in _TOOLS:
        raise Refused("no such tool", f"{place}.type", "invalid_value")
    if tool["type"] == "function" and not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", str(tool.get("name", ""))):
        raise Refused("wrong", f"{place}.name", "invalid_value")
    if not isinstance(tool.get("name", ""), str):
        raise Refused("wrong", f"{place}.name", "invalid_type")


def _check_choice(choice: Json, tools: Sequence[Json]) -> None:
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        names = {tool.get("name") for tool in tools}
        if any(tool.get("name") not in names for tool in choice["tools"]):
            raise Refused("no such tool", "tool_choice", "invalid_value")


def check_metadata(value: Json) -> None:
    if value is not None and not _is_metadata(value):
        raise Refused("wrong", "metadata", "invalid_value")


def check_included(query: Mapping[str, str]) -> list[str]:
    """What is to be included."""
    names = query.get("include[]", query.get("include", ""))
    included = names.split(",") if names else []
    for name in included:
        if name not in _INCLUDED:
            raise Refused("no such thing", "include", "invalid_value")
    return included


_FIELDS: Mapping[str, Sequence[str]] = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "reasoning": ("summary",),
    "compaction": ("encrypted_content",),
    "item_reference": ("id",),
}
"""The fields an item has at least. Those that only Codex sends are taken as they are."""
_OTHERS = (
    "compaction_trigger",
    "additional_tools",
    "configuration_update",
    "tool_search_call",
    "tool_search_output",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "web_search_call",
    "image_generation_call",
    "agent_message",
)
_PARTS = ("input_text", "input_image", "input_file", "output_text", "refusal")


def items_of(given: Json) -> Iterator[Json]:
    """The items of an input. Raises Refused at the first that is none."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    for place, item in enumerate(given):
        at = f"input[{place}]"
        if not isinstance(item, dict):
            raise Refused("wrong", at, "invalid_type")
        item = {**item, "type": item.get("type", "message")}
        _check_item(item, at)
        if item["type"] == "compaction_trigger" and place != len(given) - 1:
            raise Refused("not the last item", at, "invalid_value")
        yield item


def _check_item(item: Json, at: str) -> None:
    kind = item["type"]
    if kind not in _FIELDS and kind not in _OTHERS:
        raise Refused("no such item", at, "invalid_value")
    for name in _FIELDS.get(kind, ()):
        if name not in item:
            raise Refused("missing", f"{at}.{name}", "missing_required_parameter")
    if item.get("role", "user") not in ("user", "assistant", "system", "developer"):
        raise Refused("wrong", f"{at}.role", "invalid_value")
    if kind in ("function_call", "function_call_output") and not 1 <= len(item["call_id"]) <= 64:
        raise Refused("wrong", f"{at}.call_id", "string_above_max_length")
    parts = item.get("content") if kind == "message" else []
    for index, part in enumerate(parts if isinstance(parts, list) else []):
        place = f"{at}.content[{index}]"
        if part.get("type") not in _PARTS:
            raise Refused("no such part", f"{place}.type", "invalid_value")
        for name in ("text", "image_url"):
            if not isinstance(part.get(name, ""), str):
                raise Refused("wrong", f"{place}.{name}", "invalid_type")


_CALLS = ("function_call", "custom_tool_call")


def check_pairs(items: Sequence[Json]) -> None:
    """Raises Refused unless every call has its output, and every output its call."""
    calls = {item["call_id"] for item in items if item["type"] in _CALLS}
    outputs = {item["call_id"] for item in items if item["type"] in [f"{kind}_output" for kind in _CALLS]}
    if calls != outputs:
        raise Refused("calls and outputs do not pair", "input")

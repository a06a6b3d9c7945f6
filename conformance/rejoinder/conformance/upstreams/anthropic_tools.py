"""What Anthropic refuses about tools and the choice of them (provider-anthropic.md §4)."""

import re

from rejoinder.conformance.upstreams.anthropic_memory import blocks_of
from rejoinder.conformance.upstreams.anthropic_model import AnthropicModel
from rejoinder.conformance.upstreams.anthropic_schema import wrong_in
from rejoinder.conformance.upstreams.anthropic_settings import thinks_by_budget
from rejoinder.conformance.upstreams.anthropic_values import (
    InvalidRequest,
    Object,
    a_list,
    a_text,
    an_object,
    kind_of,
    messages_of,
    one_of,
    only,
    wrong,
)

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")

_TOOL_FIELDS = (
    "name",
    "type",
    "description",
    "input_schema",
    "strict",
    "cache_control",
    "defer_loading",
    "eager_input_streaming",
    "allowed_callers",
    "input_examples",
)


def check_tools(request: Object, model: AnthropicModel | None) -> None:
    names: set[str] = set()
    for index, one in enumerate(a_list(request.get("tools") or [], "tools")):
        tool = an_object(one, f"tools.{index}")
        if tool.get("type") in (None, "custom"):
            _check_tool(tool, f"tools.{index}.custom", model)
        if "name" in tool:
            name = str(tool["name"])
            if name in names:
                raise InvalidRequest("tools: Tool names must be unique.", f"tools.{index}.name")
            names.add(name)
    _check_choice(request, names, model)
    if not request.get("tools") and not request.get("mcp_servers"):
        for message in messages_of(request):
            if any(kind_of(block) in ("tool_use", "tool_result") for block in blocks_of(message)):
                raise InvalidRequest(
                    "Requests which include `tool_use` or `tool_result` blocks must define tools.", "tools"
                )


def _check_tool(tool: Object, path: str, model: AnthropicModel | None) -> None:
    only(tool, _TOOL_FIELDS, path)
    if not _TOOL_NAME.fullmatch(a_text(tool.get("name"), f"{path}.name")):
        raise wrong(f"{path}.name", "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
    if tool.get("description") is not None:
        a_text(tool["description"], f"{path}.description")
    if "input_schema" not in tool:
        raise wrong(f"{path}.input_schema", "Field required")
    schema = an_object(tool["input_schema"], f"{path}.input_schema")
    if schema.get("type") != "object":
        what = "Input should be 'object'" if "type" in schema else "Field required"
        raise wrong(f"{path}.input_schema.type", what)
    if any(name in schema for name in ("oneOf", "allOf", "anyOf")):
        raise wrong(
            f"{path}.input_schema",
            "input_schema does not support oneOf, allOf, or anyOf at the top level",
        )
    if tool.get("strict") is True:
        if model and not model.structures:
            raise InvalidRequest("strict tools are not supported for this model.", f"{path}.strict")
        if flaw := wrong_in(schema):
            raise wrong(f"{path}.input_schema", flaw)


def _check_choice(request: Object, names: set[str], model: AnthropicModel | None) -> None:
    if request.get("tool_choice") is None:
        return
    choice = an_object(request["tool_choice"], "tool_choice")
    kind = one_of(choice.get("type"), ("auto", "any", "tool", "none"), "tool_choice.type")
    fields = {"tool": ("type", "name", "disable_parallel_tool_use"), "none": ("type",)}
    only(choice, fields.get(kind, ("type", "disable_parallel_tool_use")), f"tool_choice.{kind}")
    if not request.get("tools") and not request.get("mcp_servers"):
        raise InvalidRequest("tool_choice may only be specified while providing tools.", "tool_choice")
    if kind == "tool" and choice.get("name") not in names:
        raise InvalidRequest(f"Tool '{choice.get('name')}' not found in provided tools", "tool_choice.name")
    if kind not in ("any", "tool"):
        return
    if thinks_by_budget(request):
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.", "tool_choice")
    if model and not model.can_be_forced:
        raise InvalidRequest(f"tool_choice.type '{kind}' is not supported for this model.", "tool_choice")

"""What a strict Chat Completions provider refuses, and in which words (provider-chat.md §2–§4, mapping.md §8).

It reads JSON values rather than structs, because most of what it looks for is the wrong type in the right place.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rejoinder.conformance.upstreams.objection import Json as Json  # the word is at home there, and known from here
from rejoinder.conformance.upstreams.objection import Objection as Objection
from rejoinder.conformance.upstreams.openai_values import (
    an_array,
    an_object,
    body_of,
    expect,
    name_of,
    only_known,
    text_of,
)

FIELDS = frozenset(
    {
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "n",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "stream",
        "stream_options",
    }
)
"""What nearly every compatible server reads."""

OPENAI_FIELDS = FIELDS | {
    "verbosity",
    "service_tier",
    "store",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "web_search_options",
    "prediction",
    "modalities",
    "audio",
    "moderation",
}

REASONING_FIELDS = frozenset({"reasoning_content", "reasoning", "reasoning_details"})

_MESSAGE_FIELDS = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "tool_calls", "audio"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}

_PART_KINDS = {
    "system": frozenset({"text"}),
    "developer": frozenset({"text"}),
    "user": frozenset({"text", "image_url", "input_audio", "file"}),
    "assistant": frozenset({"text", "refusal"}),
    "tool": frozenset({"text"}),
}

_PART_BODIES = {"text": str, "refusal": str, "image_url": dict, "input_audio": dict, "file": dict, "thinking": list}

_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "temperature": (int, float),
    "top_p": (int, float),
    "presence_penalty": (int, float),
    "frequency_penalty": (int, float),
    "seed": (int,),
    "n": (int,),
    "logprobs": (bool,),
    "top_logprobs": (int,),
    "parallel_tool_calls": (bool,),
    "reasoning_effort": (str,),
    "verbosity": (str,),
    "stream": (bool,),
    "stream_options": (dict,),
    "response_format": (dict,),
    "tools": (list,),
    "tool_choice": (str, dict),
    "metadata": (dict,),
    "store": (bool,),
    "user": (str,),
    "thinking": (dict,),
}


@dataclass(frozen=True, slots=True)
class Strictness:
    """One provider's rules. The default is a compatible server that knows no vendor's extras but reads reasoning."""

    fields: frozenset[str] = FIELDS
    """The top-level fields it knows; any other is an error."""

    assistant_fields: frozenset[str] = REASONING_FIELDS
    """Fields an assistant message may carry beyond the standard ones (§6)."""

    roles: frozenset[str] = frozenset({"system", "user", "assistant", "tool"})
    call_id: re.Pattern[str] = re.compile(r".{1,64}")
    required_word: str = "required"
    call_content: Literal["null", "empty", "either"] = "null"
    """The content of an assistant message that only calls tools (§3)."""

    system_first: bool = False
    alternation: bool = False
    """Two neighbouring messages of the user are an error (§3)."""

    reasoning_required: bool = False
    """Every assistant message with tool calls carries `reasoning_content`, unless thinking is disabled (§6)."""

    custom_tools: bool = False
    thinking_parts: bool = False
    """Assistant content may hold `thinking` parts (§6, Mistral)."""

    forgiving: bool = False
    """Members of tools, messages and calls that nobody knows are passed over, what is said of tools where there are
    none, and arguments that are no JSON, as many servers do."""

    def check_known(self, fields: Mapping[str, Json], known: frozenset[str], path: str) -> None:
        """Raises Objection for a member that is none of these."""
        if not self.forgiving:
            only_known(fields, known, path)


COMPATIBLE = Strictness()
OPENAI = Strictness(
    fields=OPENAI_FIELDS,
    assistant_fields=frozenset(),
    roles=frozenset({"system", "developer", "user", "assistant", "tool"}),
    call_content="either",
    custom_tools=True,
)
MISTRAL = Strictness(
    fields=FIELDS - {"stream_options", "logit_bias", "logprobs", "top_logprobs", "max_completion_tokens", "seed"},
    assistant_fields=frozenset(),
    call_id=re.compile(r"[A-Za-z0-9]{9}"),
    required_word="any",
    call_content="either",
    system_first=True,
    thinking_parts=True,
)
DEEPSEEK = Strictness(
    fields=FIELDS | {"thinking"},
    assistant_fields=frozenset({"reasoning_content"}),
    call_content="either",
    reasoning_required=True,
)


def check(body: bytes, strictness: Strictness) -> None:
    """Raise Objection when a provider with these rules would answer 400 to this body."""
    request = body_of(body)
    for name in request:
        if name not in strictness.fields:
            raise Objection(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in ("model", "messages"):
        if name not in request:
            raise Objection(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if not isinstance(request["model"], str) or not request["model"]:
        raise Objection("you must provide a model parameter", None)
    for name, types in _FIELD_TYPES.items():
        if name in request:
            expect(request[name], types, name)
    _check_limits(request)
    _check_tools(request, strictness)
    _check_format(request.get("response_format"))
    _check_messages(request, strictness)


def _check_limits(request: Mapping[str, Json]) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        limit = request.get(name)
        if isinstance(limit, int) and limit < 1:
            message = f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {limit} instead."
            raise Objection(message, name, "integer_below_min_value")
    if "stream_options" in request and request.get("stream") is not True:
        raise Objection("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")


def _check_tools(request: Mapping[str, Json], strictness: Strictness) -> None:
    if "tools" not in request or (strictness.forgiving and not request["tools"]):
        for name in () if strictness.forgiving else ("tool_choice", "parallel_tool_calls"):
            if name in request:
                message = f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
                raise Objection(message, name)
        return
    declared: set[str] = set()
    for index, one in enumerate(an_array(request["tools"], "tools")):
        path = f"tools[{index}]"
        tool = an_object(one, path)
        kind = text_of(tool.get("type"), f"{path}.type")
        if kind != "function" and not (kind == "custom" and strictness.custom_tools):
            message = f"Invalid value: '{kind}'. Supported values are: 'function'."
            raise Objection(message, f"{path}.type", "invalid_value")
        strictness.check_known(tool, frozenset({"type", kind}), path)
        path = f"{path}.{kind}"
        definition = an_object(tool.get(kind), path)
        name = name_of(definition.get("name"), f"{path}.name")
        if name in declared:
            raise Objection(f"Tool names must be unique, but '{name}' is declared twice.", f"{path}.name")
        declared.add(name)
        if kind == "function":
            _check_function(definition, path, strictness)
    _check_tool_choice(request.get("tool_choice", "auto"), declared, strictness)


def _check_function(function: Mapping[str, Json], path: str, strictness: Strictness) -> None:
    strictness.check_known(function, frozenset({"name", "description", "parameters", "strict"}), path)
    if "description" in function:
        expect(function["description"], (str,), f"{path}.description")
    if "strict" in function:
        expect(function["strict"], (bool, type(None)), f"{path}.strict")
    schema = an_object(function.get("parameters", {"type": "object", "properties": {}}), f"{path}.parameters")
    if schema.get("type") != "object":
        message = (
            f"Invalid schema for function '{function['name']}': schema must be a JSON Schema of 'type: \"object\"'."
        )
        raise Objection(message, f"{path}.parameters", "invalid_function_parameters")
    if function.get("strict") is True:
        properties = an_object(schema.get("properties", {}), f"{path}.parameters.properties")
        required = schema.get("required", [])
        complete = isinstance(required, list) and {*properties} == {one for one in required if isinstance(one, str)}
        if not complete or schema.get("additionalProperties") is not False:
            message = f"Invalid schema for function '{function['name']}': strict needs every property required."
            raise Objection(message, f"{path}.parameters", "invalid_function_parameters")


def _check_tool_choice(choice: Json, declared: set[str], strictness: Strictness) -> None:
    if isinstance(choice, str):
        words = ("none", "auto", strictness.required_word)
        if choice not in words:
            values = ", ".join(f"'{word}'" for word in words)
            message = f"Invalid value: '{choice}'. Supported values are: {values}."
            raise Objection(message, "tool_choice", "invalid_value")
        return
    named = an_object(choice, "tool_choice")
    kind = text_of(named.get("type"), "tool_choice.type")
    name = an_object(named.get(kind), f"tool_choice.{kind}").get("name")
    if name not in declared:
        message = f"Invalid value for 'tool_choice': no function named {name} was specified in the 'tools' parameter."
        raise Objection(message, "tool_choice")


def _check_format(value: Json) -> None:
    if value is None:
        return
    form = an_object(value, "response_format")
    kind = form.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        message = f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        raise Objection(message, "response_format.type", "invalid_value")
    if kind == "json_schema":
        schema = an_object(form.get("json_schema"), "response_format.json_schema")
        only_known(schema, frozenset({"name", "schema", "strict", "description"}), "response_format.json_schema")
        name_of(schema.get("name"), "response_format.json_schema.name")
        an_object(schema.get("schema", {}), "response_format.json_schema.schema")


def _check_messages(request: Mapping[str, Json], strictness: Strictness) -> None:
    thinking = request.get("thinking")
    disabled = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    waiting: list[str] = []
    before = ""
    for index, one in enumerate(an_array(request["messages"], "messages")):
        path = f"messages[{index}]"
        message = an_object(one, path)
        role = text_of(message.get("role"), f"{path}.role")
        if role not in strictness.roles:
            values = ", ".join(f"'{known}'" for known in sorted(strictness.roles))
            text = f"Invalid value: '{role}'. Supported values are: {values}."
            raise Objection(text, f"{path}.role", "invalid_value")
        if waiting and role != "tool":
            raise _unanswered(waiting, index)
        if strictness.system_first and role == "system" and index and before != "system":
            raise Objection(f"Expected last role User or Tool before a turn, but got role 'system' at {index}", path)
        if strictness.alternation and role == before == "user":
            raise Objection("Conversation roles must alternate user/assistant/user/assistant/...", f"{path}.role")
        extra = strictness.assistant_fields if role == "assistant" else frozenset()
        strictness.check_known(message, _MESSAGE_FIELDS[role] | extra, path)
        calls = _calls(message, path, strictness) if role == "assistant" else []
        _check_content(message, role, path, strictness, calling=bool(calls))
        if role == "tool":
            _take(waiting, message, index)
        if calls and strictness.reasoning_required and not disabled and "reasoning_content" not in message:
            text = "The `reasoning_content` in the thinking mode must be passed back to the API."
            raise Objection(text, None, "invalid_request_error")
        waiting += calls
        before = role
    if waiting:
        raise _unanswered(waiting, index + 1)


def _unanswered(waiting: list[str], index: int) -> Objection:
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(waiting)}"
    )
    return Objection(message, f"messages.[{index}].role")


def _take(waiting: list[str], message: Mapping[str, Json], index: int) -> None:
    call_id = text_of(message.get("tool_call_id"), f"messages[{index}].tool_call_id")
    if call_id not in waiting:
        text = (
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
        )
        raise Objection(text, f"messages.[{index}].role")
    waiting.remove(call_id)


def _calls(message: Mapping[str, Json], path: str, strictness: Strictness) -> list[str]:
    """The ids of an assistant message's calls, all of them well-formed and different."""
    if "tool_calls" not in message:
        return []
    ids: list[str] = []
    for index, one in enumerate(an_array(message["tool_calls"], f"{path}.tool_calls")):
        where = f"{path}.tool_calls[{index}]"
        call = an_object(one, where)
        call_id = text_of(call.get("id"), f"{where}.id")
        if not strictness.call_id.fullmatch(call_id):
            text = f"Invalid '{where}.id': '{call_id}' does not match the pattern '{strictness.call_id.pattern}'."
            raise Objection(text, f"{where}.id", "string_above_max_length" if len(call_id) > 64 else "invalid_value")
        if call_id in ids:
            raise Objection(f"Duplicate value for 'tool_call_id' of '{call_id}' found in '{path}'.", path)
        ids.append(call_id)
        kind = text_of(call.get("type"), f"{where}.type")
        strictness.check_known(call, frozenset({"id", "type", kind}), where)
        body = an_object(call.get(kind), f"{where}.{kind}")
        name_of(body.get("name"), f"{where}.{kind}.name")
        if kind == "custom" and strictness.custom_tools:
            text_of(body.get("input"), f"{where}.custom.input")
        elif kind == "function":
            arguments = text_of(body.get("arguments"), f"{where}.function.arguments")
            if not strictness.forgiving:
                _check_arguments(arguments, where)
        else:
            raise Objection(f"Invalid value: '{kind}'. Supported values are: 'function'.", f"{where}.type")
    return ids


def _check_arguments(arguments: str, where: str) -> None:
    try:
        json.loads(arguments)
    except ValueError:
        text = f"Invalid '{where}.function.arguments': expected a string with valid JSON."
        raise Objection(text, f"{where}.function.arguments", "invalid_value") from None


def _check_content(message: Mapping[str, Json], role: str, path: str, strictness: Strictness, *, calling: bool) -> None:
    content = message.get("content")
    where = f"{path}.content"
    if calling and content in (None, ""):
        wrong = "" if strictness.call_content == "null" else None
        if strictness.call_content != "either" and content == wrong:
            raise Objection(
                f"Invalid value for 'content': expected {strictness.call_content} beside tool calls.", where
            )
    elif isinstance(content, str):
        # A tool may well print nothing; a turn that says nothing is a mistake of whoever built it.
        if not content and role != "tool":
            raise Objection(f"Invalid '{where}': expected a string that is not empty.", where, "invalid_value")
    elif content is None:
        if not (role == "assistant" and message.get("refusal")):
            raise Objection("Invalid value for 'content': expected a string, got null.", where)
    else:
        thinking = role == "assistant" and strictness.thinking_parts
        kinds = _PART_KINDS[role] | (frozenset({"thinking"}) if thinking else frozenset())
        for index, one in enumerate(an_array(content, where)):
            _check_part(an_object(one, f"{where}[{index}]"), kinds, f"{where}[{index}]")


def _check_part(part: Mapping[str, Json], kinds: frozenset[str], path: str) -> None:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        values = ", ".join(f"'{known}'" for known in sorted(kinds))
        raise Objection(f"Invalid value: '{kind}'. Supported values are: {values}.", path, "invalid_value")
    expect(part.get(kind), (_PART_BODIES[kind],), f"{path}.{kind}")
    if kind in ("text", "refusal") and not part[kind]:
        raise Objection(f"Invalid '{path}.{kind}': expected a string that is not empty.", path, "invalid_value")
    if kind == "image_url":
        url = text_of(an_object(part["image_url"], path).get("url"), f"{path}.image_url.url")
        if not re.match(r"https?://|data:image/[a-z+.-]+;base64,", url):
            raise Objection(f"Invalid '{path}.image_url.url': expected a URL or a data URL.", path, "invalid_image_url")

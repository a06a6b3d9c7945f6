"""What a client of ours would have asked, for a recorded request in the words of generateContent.

The translation shares no code with the bridge, with one exception: what a model said may carry state that has a meaning
to the bridge alone, so a model's content is handed to `read`, which makes items of it.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

from rejoinder.bridge.gemini_profile import GeminiProfile
from tests.bridge.recordings import Asked, Json, Object, Recording, objects

VERTEX = GeminiProfile(count="plain", labels=True, service_tier=False, server_side_tools=False, logprobs=True)
"""Vertex AI, by settings alone."""

_PATH = re.compile(r"/models/(?P<model>[^:]+):(?P<method>\w+)$")


def profile_of(exchange: Recording) -> GeminiProfile:
    return VERTEX if "aiplatform" in exchange.host else GeminiProfile()


def method_of(exchange: Recording) -> str:
    """`generateContent`, `countTokens`, …; empty where the source kept no address, or for a list of models."""
    found = _PATH.search(urlsplit(exchange.url).path)
    return found["method"] if found is not None else ""


def model_of(exchange: Recording) -> str:
    found = _PATH.search(urlsplit(exchange.url).path)
    return found["model"] if found is not None else "gemini-3-flash-preview"


Read: TypeAlias = Callable[[Object], list[Object]]
"""Makes items of a content of the model."""


def asked(exchange: Recording, read: Read) -> Asked:
    """What a client would send for this request."""
    bare = parameters_of(exchange)
    contents = objects(camel(exchange.said)["contents"])
    return Asked(bare.parameters, list(items_of(contents, read)), bare.extra)


def parameters_of(exchange: Recording) -> Asked:
    """The same without the conversation."""
    parameters: Object = {"model": model_of(exchange)}
    extra: Object = {}
    # Tools first: what is said of their choice is said of them here.
    for name, value in sorted(camel(exchange.said).items(), key=lambda field: field[0] == "toolConfig"):
        match name, value:
            case "contents", _:
                pass
            case "systemInstruction", {"parts": [{"text": text}]}:
                parameters["instructions"] = text
            case "tools", list():
                for tool in objects(value):
                    _tool(tool, parameters, extra)
            case "toolConfig", {"functionCallingConfig": {"mode": str(mode)}}:
                _choose(mode, parameters)
            case "toolConfig", {"includeServerSideToolInvocations": True}:
                pass
            case "generationConfig", dict():
                _configure(value, parameters)
            case _:
                extra[name] = value
    return Asked(parameters, [], extra)


def _tool(tool: Object, parameters: Object, extra: Object) -> None:
    tools = parameters.setdefault("tools", [])
    assert isinstance(tools, list)
    match tool:
        case {"googleSearch": dict()}:
            tools.append({"type": "web_search"})
        case {"functionDeclarations": list() as functions}:
            tools.extend(_function(one) for one in objects(functions))
        case _:
            others = extra.setdefault("tools", [])
            assert isinstance(others, list)
            others.append(tool)


def _function(declared: Object) -> Object:
    schema = declared.get("parametersJsonSchema") or declared.get("parameters")
    return {
        "type": "function",
        "name": declared["name"],
        "description": declared.get("description"),
        "parameters": in_lower_case(schema),
    }


def in_lower_case(schema: Json) -> Json:
    """A schema as clients write it: types in lower case, and the order of properties is the order of the text."""
    match schema:
        case dict():
            return {
                name: value.lower() if name == "type" and isinstance(value, str) else in_lower_case(value)
                for name, value in schema.items()
                if name != "propertyOrdering"
            }
        case list():
            return [in_lower_case(value) for value in schema]
        case _:
            return schema


def _choose(mode: str, parameters: Object) -> None:
    match mode.upper():
        case "ANY":
            parameters["tool_choice"] = "required"
        case "NONE":
            parameters["tool_choice"] = "none"
        case "VALIDATED":
            for tool in objects(parameters["tools"]):
                tool["strict"] = True
        case other:
            assert other == "AUTO"


_SETTINGS = {"temperature": "temperature", "topP": "top_p", "maxOutputTokens": "max_output_tokens",
             "logprobs": "top_logprobs"}  # fmt: skip
_EFFORTS = {"low": "low"}


def _configure(config: Object, parameters: Object) -> None:
    for name, value in config.items():
        match name, value:
            case _ if name in _SETTINGS:
                parameters[_SETTINGS[name]] = value
            case (("responseSchema" | "responseJsonSchema"), dict()):
                schema = in_lower_case(value)
                parameters["text"] = {"format": {"type": "json_schema", "name": "result", "schema": schema}}
            case "thinkingConfig", dict():
                _think(value, parameters)
            case _:
                assert name in ("responseMimeType", "responseLogprobs", "responseModalities"), name


def _think(config: Object, parameters: Object) -> None:
    reasoning: Object = {}
    if config.get("includeThoughts"):
        reasoning["summary"] = "auto"
    if (budget := config.get("thinkingBudget")) is not None:
        assert budget == 0
        reasoning["effort"] = "none"
    if isinstance(level := config.get("thinkingLevel"), str):
        reasoning["effort"] = _EFFORTS[level]
    if reasoning:
        parameters["reasoning"] = reasoning


def items_of(contents: Sequence[Object], read: Read) -> Iterator[Object]:
    """The items of some contents. Responses without an id belong to the calls before them, in their order."""
    waiting: list[str] = []
    for content in contents:
        if content.get("role") == "model":
            said = read(_without_made_ids(content))
            waiting = [str(item["call_id"]) for item in said if item["type"] == "function_call"]
            yield from said
            continue
        parts = objects(content["parts"])
        yield from (output_of(part, waiting.pop(0)) for part in parts if "functionResponse" in part)
        said_parts: Json = [_part(part) for part in parts if "functionResponse" not in part]
        if said_parts:
            yield {"type": "message", "role": "user", "content": said_parts}


_MADE = re.compile(r"pyd_ai_[0-9a-f]{32}|call_[0-9a-f]{32}")
"""Ids the recorded clients made up, for calls that came without."""


def _without_made_ids(content: Object) -> Object:
    parts = []
    for part in objects(content["parts"]):
        if isinstance(call := part.get("functionCall"), dict) and _MADE.fullmatch(str(call.get("id", ""))):
            part = {**part, "functionCall": {name: value for name, value in call.items() if name != "id"}}
        parts.append(part)
    return {**content, "parts": list(parts)}


def output_of(part: Object, call_id: str) -> Object:
    [response] = objects([part["functionResponse"]])
    [said] = objects([response["response"]])
    output: Object = {"type": "function_call_output", "call_id": call_id, "output": text_of(said)}
    if "parts" in response:
        output["output"] = [{"type": "input_text", "text": text_of(said)}, *map(_part, objects(response["parts"]))]
    if "error" in said:
        output["status"] = "incomplete"
    return output


def text_of(response: Json) -> str:
    """The result inside the wrapping of the recorded client, as text."""
    match response:
        case {"return_value": str(text)} | {"error": str(text)} | {"output": str(text)}:
            return text
        case {"content": [{"text": str(text)}]}:
            return text
        case {"output": output}:
            return json.dumps(output)
        case _:
            assert response == {}
            return ""


def _part(part: Object) -> Object:
    match part:
        case {"text": text}:
            return {"type": "input_text", "text": text}
        case {"inlineData": {"mimeType": str(kind), "data": data}} if kind.startswith("image/"):
            return {"type": "input_image", "image_url": f"data:{kind};base64,{data}"}
        case {"inlineData": {"mimeType": kind, "data": data}}:
            return {"type": "input_file", "file_data": f"data:{kind};base64,{data}"}
        case {"fileData": {"fileUri": uri, "mimeType": str(kind)}} if kind.startswith("image/"):
            return {"type": "input_image", "image_url": uri}
        case {"fileData": {"fileUri": uri, "mimeType": "application/pdf"}}:
            return {"type": "input_file", "file_url": uri, "filename": "file.pdf"}
        case _:
            raise AssertionError(f"a part of a kind no recording had: {part}")


def camel(request: Object) -> Object:
    """The request with the protocol's own names, which may also be written in snake case. What clients and models named
    themselves stays."""
    [said] = objects([_camel(request)])
    return said


def _camel(value: Json, *, named: bool = False) -> Json:
    match value:
        case dict():
            return {
                name if named else _SNAKE.sub(lambda found: found[1].upper(), name): (
                    inner if name in ("args", "response") and not named else _camel(inner, named=name == "properties")
                )
                for name, inner in value.items()
            }
        case list():
            return [_camel(inner) for inner in value]
        case _:
            return value


_SNAKE = re.compile(r"_([a-z])")

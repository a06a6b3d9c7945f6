"""What the bridge says otherwise than the clients of Gemini that were recorded, rule by rule, and why."""

import re
from collections.abc import Iterator

from tests.bridge.gemini_recordings import camel, in_lower_case, model_of, text_of
from tests.bridge.recordings import Json, Object, Recording, objects
from tests.bridge.rules import Rule, reworded


def _camel_case(request: Object, exchange: Recording) -> None:
    said = camel(request)
    request.clear()
    request.update(said)


def _nothing_for_nothing(request: Object, exchange: Recording) -> None:
    if request.get("generationConfig") == {}:
        del request["generationConfig"]
    for function in _functions(request):
        if not function.get("description"):
            function.pop("description", None)


def _text_is_what_comes(request: Object, exchange: Recording) -> None:
    config = _inner(request, "generationConfig")
    if "responseModalities" in config:
        assert config.pop("responseModalities") == ["TEXT"]
        if not config:
            del request["generationConfig"]


def _no_role_for_the_system(request: Object, exchange: Recording) -> None:
    _inner(request, "systemInstruction").pop("role", None)


def _no_thoughts_is_the_default(request: Object, exchange: Recording) -> None:
    if _inner(request, "generationConfig", "thinkingConfig") == {"includeThoughts": False}:
        del request["generationConfig"]


def _levels_are_capital(request: Object, exchange: Recording) -> None:
    thinking = _inner(request, "generationConfig", "thinkingConfig")
    if isinstance(level := thinking.get("thinkingLevel"), str):
        thinking["thinkingLevel"] = level.upper()


def _no_budget_for_levels(request: Object, exchange: Recording) -> None:
    thinking = _inner(request, "generationConfig", "thinkingConfig")
    if "thinkingBudget" in thinking and "gemini-3" in model_of(exchange):
        assert thinking.pop("thinkingBudget") == 0
        thinking["thinkingLevel"] = "MINIMAL"


def _modes_are_capital(request: Object, exchange: Recording) -> None:
    calling = _inner(request, "toolConfig", "functionCallingConfig")
    if isinstance(mode := calling.get("mode"), str):
        calling["mode"] = mode.upper()


def _auto_goes_without_saying(request: Object, exchange: Recording) -> None:
    if _inner(request, "toolConfig", "functionCallingConfig") == {"mode": "AUTO"}:
        del request["toolConfig"]


def _all_is_any(request: Object, exchange: Recording) -> None:
    calling = _inner(request, "toolConfig", "functionCallingConfig")
    if "allowedFunctionNames" in calling:
        assert calling.pop("allowedFunctionNames") == [function["name"] for function in _functions(request)]


def _invocations_beside_functions(request: Object, exchange: Recording) -> None:
    if "includeServerSideToolInvocations" in _inner(request, "toolConfig") and not [*_functions(request)]:
        del request["toolConfig"]


def _older(exchange: Recording) -> bool:
    return re.search(r"gemini-(1|2\.0)", model_of(exchange)) is not None


def _json_schemas(request: Object, exchange: Recording) -> None:
    if _older(exchange):
        return
    for function in _functions(request):
        if "parameters" in function:
            function["parametersJsonSchema"] = in_lower_case(function.pop("parameters"))
    config = _inner(request, "generationConfig")
    if "responseSchema" in config:
        config["responseJsonSchema"] = in_lower_case(config.pop("responseSchema"))


def _subset(request: Object, exchange: Recording) -> None:
    if not _older(exchange):
        return
    for function in _functions(request):
        schema = function.pop("parametersJsonSchema", None) or function.pop("parameters")
        function["parameters"] = _without_extras(in_lower_case(schema))
    config = _inner(request, "generationConfig")
    if "responseSchema" in config:
        config["responseSchema"] = _in_order(in_lower_case(config["responseSchema"]))


def _without_extras(schema: Json) -> Json:
    match schema:
        case dict():
            return {name: _without_extras(value) for name, value in schema.items() if name != "additionalProperties"}
        case _:
            return schema


def _in_order(schema: Json) -> Json:
    """With the order of properties said, since those models do not keep to the one they see."""
    match schema:
        case dict():
            inner: Object = {name: _in_order(value) for name, value in schema.items()}
            if isinstance(properties := schema.get("properties"), dict):
                inner["properties"] = {name: _in_order(value) for name, value in properties.items()}
                inner["propertyOrdering"] = list(properties)
            return inner
        case list():
            return [_in_order(value) for value in schema]
        case _:
            return schema


def _no_parameters(request: Object, exchange: Recording) -> None:
    for function in _functions(request):
        for name in ("parameters", "parametersJsonSchema"):
            if isinstance(schema := function.get(name), dict) and not schema.get("properties"):
                del function[name]


def _results_in_one_wrapping(request: Object, exchange: Recording) -> None:
    for part in _parts(request):
        if isinstance(response := part.get("functionResponse"), dict):
            said = response["response"]
            failed = isinstance(said, dict) and "error" in said
            response["response"] = {"error" if failed else "output": text_of(said)}


_MADE = re.compile(r"pyd_ai_[0-9a-f]{32}|call_[0-9a-f]{32}")


def _no_made_ids(request: Object, exchange: Recording) -> None:
    for part in _parts(request):
        for name in ("functionCall", "functionResponse"):
            if isinstance(said := part.get(name), dict) and _MADE.fullmatch(str(said.get("id"))):
                del said["id"]


def _no_empty_message(request: Object, exchange: Recording) -> None:
    """Of the model's; and the users around it are one."""
    contents: list[Object] = []
    for content in objects(request["contents"]):
        if content.get("role") == "model" and content["parts"] == [{"text": ""}]:
            continue
        if contents and contents[-1]["role"] == content["role"] and "functionResponse" not in _first(contents[-1]):
            contents[-1] = {**content, "parts": [*objects(contents[-1]["parts"]), *objects(content["parts"])]}
        else:
            contents.append(content)
    request["contents"] = list(contents)


def _only_users_and_models(request: Object, exchange: Recording) -> None:
    for content in objects(request["contents"]):
        if content["role"] not in ("user", "model"):
            content["role"] = "user"


def _inner(holder: Object, *names: str) -> Object:
    """An object inside others; an empty one of nobody's where it is missing."""
    for name in names:
        [holder] = objects([holder.get(name, {})])
    return holder


def _first(content: Object) -> Object:
    return objects(content["parts"])[0]


def _functions(request: Object) -> Iterator[Object]:
    for tool in objects(request.get("tools", [])):
        yield from objects(tool.get("functionDeclarations", []))


def _parts(request: Object) -> Iterator[Object]:
    for content in objects(request["contents"]):
        yield from objects(content["parts"])


RULES = (
    Rule("names are written in one case, the protocol's own (§2)", _camel_case),
    Rule("an empty configuration, or description, says nothing", _nothing_for_nothing),
    Rule("text is what these models answer with anyway", _text_is_what_comes),
    Rule("the role of a system instruction is ignored (§2)", _no_role_for_the_system),
    Rule("thoughts are shown only when asked for", _no_thoughts_is_the_default),
    Rule("levels are written as the types have them (§5)", _levels_are_capital),
    Rule("a budget is refused from generation 3 on; the least level stands for none (§5)", _no_budget_for_levels),
    Rule("modes are written as the types have them (§4)", _modes_are_capital),
    Rule("AUTO is what a model does anyway", _auto_goes_without_saying),
    Rule("to allow all functions is to allow any", _all_is_any),
    Rule("calls of Google's tools are asked for where functions stand beside them (§4)", _invocations_beside_functions),
    Rule("schemas are JSON schemas from 2.5 on (§4)", _json_schemas),
    Rule("schemas are in the subset before (§4)", _subset),
    Rule("a function without arguments declares none (§4)", _no_parameters),
    Rule("a result stands under one of the two known keys (§4)", _results_in_one_wrapping),
    Rule("where no id came, none is sent (§4)", _no_made_ids),
    Rule("a message without text is none, and users' turns are merged (§3)", _no_empty_message),
    Rule("there are two roles; a third has no words in the API", _only_users_and_models),
)
"""In this order. Sections are those of provider-gemini.md."""


def as_we_say_it(exchange: Recording) -> Object:
    """The recorded request, changed by every rule."""
    return reworded(exchange, RULES)

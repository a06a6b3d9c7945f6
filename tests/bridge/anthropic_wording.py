"""What the bridge says otherwise to Anthropic than the clients that were recorded, rule by rule, and why."""

import json
from collections.abc import Iterator

from tests.bridge.anthropic_recordings import is_count
from tests.bridge.recordings import Object, Recording, objects
from tests.bridge.rules import Rule, reworded


def _nothing_for_null(request: Object, exchange: Recording) -> None:
    # What else runs at the provider is a setting, and goes as it is set.
    searches = [tool for tool in objects(request.get("tools", [])) if tool.get("type") == "web_search_20250305"]
    for holder in (request, *searches):
        for name in [name for name, value in holder.items() if value is None]:
            del holder[name]


def _always_a_stream(request: Object, exchange: Recording) -> None:
    if not is_count(exchange):
        request["stream"] = True


def _kept_in_the_cache(request: Object, exchange: Recording) -> None:
    if not exchange.host.startswith("localhost") and not is_count(exchange):
        request["cache_control"] = {"type": "ephemeral"}


def _lists_of_blocks(request: Object, exchange: Recording) -> None:
    for holder, name in (*((message, "content") for message in _messages(request)), (request, "system")):
        if isinstance(text := holder.get(name), str):
            holder[name] = [{"type": "text", "text": text}]


def _one_text_is_the_result(request: Object, exchange: Recording) -> None:
    for result in _results(request):
        match result["content"]:
            case [{"type": "text", "text": text}]:
                result["content"] = text


def _other_blocks_are_text(request: Object, exchange: Recording) -> None:
    for result in _results(request):
        match result["content"]:
            case [{"type": "search_result" | "tool_reference"} as block]:
                result["content"] = json.dumps(block)


def _success_is_not_said(request: Object, exchange: Recording) -> None:
    for result in _results(request):
        if result.get("is_error") is False:
            del result["is_error"]


def _free_choice_is_not_said(request: Object, exchange: Recording) -> None:
    if request.get("tool_choice") == {"type": "auto"}:
        del request["tool_choice"]


def _no_deferred_tools(request: Object, exchange: Recording) -> None:
    for tool in objects(request.get("tools", [])):
        tool.pop("defer_loading", None)


def _no_tools_in_messages(request: Object, exchange: Recording) -> None:
    messages = []
    for message in _messages(request):
        blocks = [block for block in objects(message["content"]) if block["type"] != "tool_addition"]
        if blocks:
            message["content"] = [*blocks]
            messages.append(message)
    request["messages"] = [*messages]


def _functions_are_plain(request: Object, exchange: Recording) -> None:
    for tool in objects(request.get("tools", [])):
        if tool.get("type") == "custom":
            del tool["type"]
        if tool.get("description") == "":
            del tool["description"]


def _no_citations_of_documents(request: Object, exchange: Recording) -> None:
    for message in _messages(request):
        for block in objects(message["content"]):
            if block["type"] == "document":
                block.pop("citations", None)


def _thinking_with_effort(request: Object, exchange: Recording) -> None:
    match request:
        case {"output_config": {"effort": _}}:
            request.setdefault("thinking", {"type": "adaptive"})


def _a_level_the_model_has(request: Object, exchange: Recording) -> None:
    match request:
        case {"model": "claude-opus-4-6", "output_config": {"effort": "xhigh"}}:
            request["output_config"] = {"effort": "max"}


def _temperature_alone(request: Object, exchange: Recording) -> None:
    if "temperature" in request:
        request.pop("top_p", None)


def _messages(request: Object) -> list[Object]:
    return objects(request["messages"])


def _results(request: Object) -> Iterator[Object]:
    for message in _messages(request):
        for block in objects(message["content"]):
            if block["type"] == "tool_result":
                yield block


RULES = (
    Rule("null means left out", _nothing_for_null),
    Rule("always a stream is asked for (§2)", _always_a_stream),
    Rule("the prompt is kept in the cache, for as long as it costs nothing to say so (§9)", _kept_in_the_cache),
    Rule(
        "content is a list of blocks, so that a message can grow without changing (mapping.md §0.2)", _lists_of_blocks
    ),
    Rule("a result of one text is that text", _one_text_is_the_result),
    Rule("the API has no parts for search results and references, they go as what they say", _other_blocks_are_text),
    Rule("a result is a success unless it says otherwise", _success_is_not_said),
    Rule("the model chooses itself unless it is told otherwise", _free_choice_is_not_said),
    Rule("every tool is offered from the start (mapping.md §3, tool_search)", _no_deferred_tools),
    Rule("tools that join later join the others (mapping.md §2, additional_tools)", _no_tools_in_messages),
    Rule("a function has no type and no empty description", _functions_are_plain),
    Rule("the API has no word for citing documents", _no_citations_of_documents),
    Rule("where there is an effort the kind of thinking is said with it (§5)", _thinking_with_effort),
    Rule("Opus 4.6 has no `xhigh`: the recorded answer is a 400, the next level is `max` (§5)", _a_level_the_model_has),
    Rule("one of temperature and top_p: the recorded answer is a 400 (§1)", _temperature_alone),
)
"""In this order. Sections are those of provider-anthropic.md."""


def as_we_say_it(exchange: Recording) -> Object:
    """The recorded request, changed by every rule."""
    return reworded(exchange, RULES)

"""What the bridge says otherwise than the clients that were recorded, rule by rule, and why."""

from tests.bridge.chat_recordings import profile_of, vendor_of
from tests.bridge.recordings import Object, Recording, objects
from tests.bridge.rules import Rule, reworded


def _nothing_for_null(request: Object, exchange: Recording) -> None:
    for name in [name for name, value in request.items() if value is None]:
        del request[name]
    for message in objects(request["messages"]):
        for name in [name for name, value in message.items() if value is None and name != "content"]:
            del message[name]


def _nothing_for_defaults(request: Object, exchange: Recording) -> None:
    defaults: Object = {"stream": False, "n": 1, "tool_choice": "auto", "tools": []}
    for name, value in defaults.items():
        if name in request and request[name] == value:
            del request[name]


def _one_choice(request: Object, exchange: Recording) -> None:
    request.pop("n", None)


def _usage_with_every_stream(request: Object, exchange: Recording) -> None:
    request.pop("stream_options", None)
    if "stream" in request and profile_of(exchange).stream_usage:
        request["stream_options"] = {"include_usage": True}


def _limit_by_its_name(request: Object, exchange: Recording) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        if name in request:
            request[profile_of(exchange).max_tokens] = request.pop(name)


def _effort_as_the_vendor_spells_it(request: Object, exchange: Recording) -> None:
    profile = profile_of(exchange)
    effort = request.get("reasoning_effort")
    if isinstance(effort, str) and profile.effort == "thinking" and "thinking" not in request:
        request["thinking"] = {"type": "enabled"}
        request["reasoning_effort"] = profile.effort_values[effort]


def _effort_by_the_common_name(request: Object, exchange: Recording) -> None:
    reasoning = request.get("reasoning")
    if vendor_of(exchange) == "" and isinstance(reasoning, dict):
        request["reasoning_effort"] = reasoning["effort"]
        del request["reasoning"]


def _choice_left_to_the_model(request: Object, exchange: Recording) -> None:
    if profile_of(exchange).tool_choice == "auto" and request.get("tool_choice") == "required":
        del request["tool_choice"]


def _functions_are_called_functions(request: Object, exchange: Recording) -> None:
    for tool in objects(request.get("tools", [])):
        if "function" in tool:
            tool.setdefault("type", "function")


def _no_empty_description(request: Object, exchange: Recording) -> None:
    for tool in objects(request.get("tools", [])):
        if isinstance(function := tool.get("function"), dict) and function.get("description") == "":
            del function["description"]


def _schema_with_a_name(request: Object, exchange: Recording) -> None:
    match request.get("response_format"):
        case {"json_schema": dict() as schema}:
            schema.setdefault("name", "result")


def _no_cache_control(request: Object, exchange: Recording) -> None:
    _without_mark(request, "cache_control")


def _without_mark(request: Object, name: str) -> None:
    parts = [part for message in _listed(request) for part in objects(message["content"])]
    for marked in (*parts, *objects(request.get("tools", []))):
        marked.pop(name, None)


def _plain_text(request: Object, exchange: Recording) -> None:
    for message in _listed(request):
        match message["content"]:
            case [{"type": "text", "text": text}]:
                message["content"] = text


def _one_system_message(request: Object, exchange: Recording) -> None:
    messages = objects(request["messages"])
    leading = 0
    while messages[leading]["role"] in ("system", "developer"):
        leading += 1
    texts = [str(message["content"]) for message in messages[:leading]]
    if texts:
        first: Object = {"role": profile_of(exchange).instructions_role, "content": "\n\n".join(texts)}
        request["messages"] = [first, *messages[leading:]]


def _the_word_json(request: Object, exchange: Recording) -> None:
    if request.get("response_format") != {"type": "json_object"}:
        return
    word = "Answer with one JSON object and nothing else."
    messages = objects(request["messages"])
    if messages[0]["role"] == "system":
        messages[0]["content"] = f"{word}\n\n{messages[0]['content']}"
    else:
        request["messages"] = [{"role": "system", "content": word}, *messages]


def _no_content_is_null(request: Object, exchange: Recording) -> None:
    for message in objects(request["messages"]):
        if "tool_calls" in message and not message.get("content"):
            message["content"] = None


def _one_name_for_reasoning(request: Object, exchange: Recording) -> None:
    for message in objects(request["messages"]):
        if "reasoning_content" in message:
            message.pop("reasoning", None)


def _reasoning_with_calls_alone(request: Object, exchange: Recording) -> None:
    for message in objects(request["messages"]):
        if profile_of(exchange).reasoning_replay == "tools" and "tool_calls" not in message:
            message.pop("reasoning_content", None)


def _image_in_an_object(request: Object, exchange: Recording) -> None:
    for message in _listed(request):
        for part in objects(message["content"]):
            if isinstance(url := part.get("image_url"), str):
                part["image_url"] = {"url": url}


def _listed(request: Object) -> list[Object]:
    """The messages whose content is a list."""
    return [message for message in objects(request["messages"]) if isinstance(message.get("content"), list)]


RULES = (
    Rule("null means left out", _nothing_for_null),
    Rule("what a server does anyway is not said, and no tools at all is no key (§4)", _nothing_for_defaults),
    Rule("the API has one answer, so one choice is asked for", _one_choice),
    Rule(
        "every response has usage, so every stream is asked for it, where that is no 400 (§2)", _usage_with_every_stream
    ),
    Rule("the output limit goes by the name the vendor knows (§2)", _limit_by_its_name),
    Rule("DeepSeek has a switch beside the effort, and its own table of efforts (§6)", _effort_as_the_vendor_spells_it),
    Rule("a server without a row is asked by the common name (§6)", _effort_by_the_common_name),
    Rule("DeepSeek's thinking mode answers 400 to a required call (§4)", _choice_left_to_the_model),
    Rule("a function says that it is one; Mistral lets it be left out", _functions_are_called_functions),
    Rule("an empty description describes nothing", _no_empty_description),
    Rule("the API wants a schema named; Perplexity and vLLM do not", _schema_with_a_name),
    Rule("`cache_control` is Anthropic's word, and the API has none for it", _no_cache_control),
    Rule("a list of one text is that text, which every server takes", _plain_text),
    Rule("templates take one system message, in the role the vendor knows (§3)", _one_system_message),
    Rule("several servers refuse json_object without the word (§9)", _the_word_json),
    Rule("beside calls no text is null, not an empty string and not nothing (§3)", _no_content_is_null),
    Rule("reasoning goes back under the name it came with, not under two (§6)", _one_name_for_reasoning),
    Rule("DeepSeek ignores reasoning of turns without calls (§6)", _reasoning_with_calls_alone),
    Rule("Mistral takes a bare string and the standard object", _image_in_an_object),
)
"""In this order. Sections are those of provider-chat.md."""


def as_we_say_it(exchange: Recording) -> Object:
    """The recorded request, changed by every rule."""
    return reworded(exchange, RULES)

from collections.abc import Callable

from rejoinder.conformance.about_errors import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import KEY, Mutants, bending, broken, every, ids, refusing, verdicts
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer


def in_errors(change: Callable[[Json], object]) -> Fault:
    def told(it: Exchange) -> None:
        for error in it.error:
            change(error)

    return Fault(told=told)


def html(it: Exchange) -> None:
    if it.path == "/no-such-path":
        it.headers["content-type"] = "text/html"


def failing_on_null(it: Exchange) -> None:
    if it.asked == b"null":
        it.status = 500


def unnamed_model(it: Exchange) -> None:
    for error in it.error:
        if it.path == "/responses" and it.body and "model" not in it.body:
            error["param"] = None


def default_input(it: Exchange) -> None:
    if "model" in it.body:
        it.body.setdefault("input", "Say hello.")


def any_model(it: Exchange) -> None:
    if isinstance(it.body.get("model"), str):
        it.body["model"] = MODEL


def warm(it: Exchange) -> None:
    if it.body.get("temperature") == "warm":
        it.body["temperature"] = 1


def bounded(it: Exchange) -> None:
    if it.body.get("temperature") == 2.5:
        it.body["temperature"] = 2


def anybody(it: Exchange) -> None:
    given = it.body.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and item.get("role") == "nobody":
            item["role"] = "user"


def cut_metadata(it: Exchange) -> None:
    if it.path == "/responses" and isinstance(it.body.get("metadata"), dict):
        it.body["metadata"] = dict(list(it.body["metadata"].items())[:16])


def open_to_all(it: Exchange) -> None:
    if it.key is None and it.path == "/models":
        trusting(it)


def trusting(it: Exchange) -> None:
    it.key = f"Bearer {KEY}"


def everything_is_there(it: Exchange) -> None:
    if it.path == "/no-such-path":
        it.status, it.told = 200, {}


def uncoded(it: Exchange) -> None:
    for error in it.error:
        if error["code"] == "invalid_api_key":
            error["code"] = None


def any_scheme(it: Exchange) -> None:
    if str(it.key).startswith("Basic"):
        trusting(it)


def any_of_two(it: Exchange) -> None:
    if "," in str(it.key):
        trusting(it)


def only_models_are_locked(it: Exchange) -> None:
    if it.key is None and it.path != "/models":
        trusting(it)


def ignoring(name: str, value: Json) -> Fault:
    """Drops this value of this parameter."""
    return bending(lambda body: body.pop(name) if body.get(name) == value else None)


def without_verbosity(body: Json) -> None:
    if isinstance(body.get("text"), dict):
        body["text"].pop("verbosity", None)


def items(body: Json) -> list[Json]:
    given = body.get("input")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def without_strange_items(body: Json) -> None:
    if any(item.get("type") == "no_such_item" for item in items(body)):
        body["input"] = [item for item in body["input"] if item.get("type") != "no_such_item"] or "Say hello."


def reading_any_part(body: Json) -> None:
    for item in items(body):
        content = item.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "no_such_part":
                part["type"] = "input_text"
            if part.get("image_url") == 7:
                part["image_url"] = ""


def reading_parts(body: Json) -> None:
    if "no_such_part" in str(body.get("input")):
        reading_any_part(body)


def reading_images(body: Json) -> None:
    if "input_image" in str(body.get("input")):
        reading_any_part(body)


def filling_in(body: Json) -> None:
    for item in items(body):
        if item.get("type") == "function_call_output":
            item.setdefault("output", "")


def shortening_ids(body: Json) -> None:
    for item in items(body):
        if len(str(item.get("call_id"))) == 65:
            item["call_id"] = item["call_id"][:64]


def naming_tools(body: Json) -> None:
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if tool["type"] == "function":
            tool.setdefault("name", "nameless")


def renaming_tools(body: Json) -> None:
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if tool.get("name") == "":
            tool["name"] = "nameless"


def forgetting_strange_tools(body: Json) -> None:
    if body.get("tools") == [{"type": "no_such_tool"}]:
        body.pop("tools")


def allowing_anything(body: Json) -> None:
    if "no_such_tool" in str(body.get("tool_choice")):
        body.pop("tool_choice")


def naming_formats(body: Json) -> None:
    if isinstance(body.get("text"), dict):
        body["text"].get("format", {}).setdefault("name", "nameless")


MUTANTS: Mutants = {
    "a wrong key has no code": (Fault(told=uncoded), {"errors.a-wrong-key-is-refused"}),
    "any scheme will do": (Fault(asked=any_scheme), {"errors.another-scheme-is-no-key"}),
    "one of two keys will do": (Fault(asked=any_of_two), {"errors.two-keys-are-none"}),
    "only the models ask for a key": (Fault(asked=only_models_are_locked), {"errors.every-path-asks-for-the-key"}),
    "a word is false": (ignoring("parallel_tool_calls", "yes"), {"errors.a-switch-is-true-or-false"}),
    "a word is no number": (ignoring("max_tool_calls", "many"), {"errors.a-number-is-no-text"}),
    "little is too little": (
        refusing(lambda it: it.said == GREETING and it.body.get("max_output_tokens") == 16, "max_output_tokens"),
        {"errors.an-answer-may-be-limited-to-sixteen-tokens"},
    ),
    "a model is never warm": (
        refusing(lambda it: it.body.get("temperature") == 2),
        {"errors.the-ends-of-a-range-are-in-it"},
    ),
    "a verbosity is whatever it is": (bending(without_verbosity), {"errors.an-unknown-word-is-named"}),
    "anything is included": (ignoring("include", ["no.such.thing"]), {"errors.an-unknown-include-is-named"}),
    "a text is no list": (ignoring("tools", "a text"), {"errors.a-list-is-no-text"}),
    "an identifier may be long": (
        ignoring("safety_identifier", "s" * 129),
        {"errors.a-long-identifier-is-refused"},
    ),
    "an unknown item is left out": (bending(without_strange_items), {"errors.an-unknown-item-is-refused"}),
    "an unknown part is a text": (bending(reading_parts), {"errors.an-unknown-part-is-refused"}),
    "an output that is missing is empty": (bending(filling_in), {"errors.a-missing-field-of-an-item-is-named"}),
    "a call_id is cut": (bending(shortening_ids), {"errors.a-call-id-has-limits"}),
    "an image is anything": (bending(reading_images), {"errors.an-image-is-named-by-a-text"}),
    "a tool needs no name": (bending(naming_tools), {"errors.a-tool-needs-a-name"}),
    "a tool is named by the server": (bending(renaming_tools), {"errors.the-name-of-a-tool-is-not-empty"}),
    "an unknown tool is left out": (bending(forgetting_strange_tools), {"errors.an-unknown-tool-is-refused"}),
    "anything is allowed": (bending(allowing_anything), {"errors.allowed-tools-are-among-the-tools"}),
    "a format needs no name": (bending(naming_formats), {"errors.a-format-needs-a-name-and-a-schema"}),
    "an error has no type": (in_errors(lambda error: error.pop("type")), {"errors.an-error-has-one-envelope"}),
    "an error is called HTML": (Fault(told=html), {"errors.an-error-has-one-envelope"}),
    "null is too much": (Fault(told=failing_on_null), {"errors.a-body-that-is-no-object-is-refused"}),
    "a missing model is not named": (Fault(told=unnamed_model), {"errors.a-missing-model-is-named"}),
    "a missing input is made up": (Fault(asked=default_input), {"errors.a-missing-input-is-named"}),
    "another model answers": (Fault(asked=any_model), {"errors.an-unknown-model-is-refused"}),
    "a wrong type is bent": (Fault(asked=warm), {"errors.a-wrong-type-is-named"}),
    "a value out of range is bent": (Fault(asked=bounded), {"errors.a-value-out-of-range-is-named"}),
    "anybody may speak": (Fault(asked=anybody), {"errors.an-unknown-role-is-refused"}),
    "metadata is cut": (Fault(asked=cut_metadata), {"errors.metadata-has-limits"}),
    "every path is there": (Fault(told=everything_is_there), {"errors.an-unknown-path-is-not-found"}),
    "nobody asks for a key": (Fault(asked=open_to_all), {"errors.a-request-without-its-key-is-refused"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_without_a_key_nothing_is_said_of_keys() -> None:
    assert ids("not_applicable", await verdicts(LittleServer(), rules=list(chapter))) == {
        "errors.a-request-without-its-key-is-refused",
        "errors.a-wrong-key-is-refused",
        "errors.another-scheme-is-no-key",
        "errors.two-keys-are-none",
        "errors.every-path-asks-for-the-key",
    }

from collections.abc import Callable

from aiohttp import web

from rejoinder.conformance.about_prompts import chapter
from rejoinder.conformance.paired import Provider
from rejoinder.conformance.samples import UNKNOWN
from rejoinder.conformance.verdict import judge
from tests.conformance.bridged import Mutants, broken, every, in_messages, verdicts
from tests.conformance.little_bridge import Fault, Json
from tests.conformance.little_prompt import Bad, seal, unseal
from tests.conformance.test_server import at


def stripped(message: Json) -> None:
    if message["role"] == "user" and isinstance(message["content"], str):
        message["content"] = message["content"].strip()


def the_first_of_three(message: Json) -> None:
    if isinstance(message["content"], list) and len(message["content"]) == 3:
        del message["content"][1:]


def everything_by_users(message: Json) -> None:
    if message["role"] == "assistant" and message["content"] == "You are Ada.":
        message["role"] = "user"


def systems_first(body: Json) -> None:
    body["messages"].sort(key=lambda message: message["role"] != "system")


def systems_stripped(message: Json) -> None:
    if message["role"] == "system":
        message["content"] = message["content"].strip()


def keeping_instructions() -> Fault:
    said: list[str] = []

    def asked(body: Json) -> None:
        if body.get("instructions"):
            said.append(body["instructions"])
        elif body.get("previous_response_id"):
            body["instructions"] = said[-1] if said else None

    return Fault(asked=asked)


def shrunk(message: Json) -> None:
    for part in message["content"] if isinstance(message["content"], list) else ():
        if part["type"] == "image_url":
            part["image_url"]["url"] = part["image_url"]["url"][:-8]


def without_files(message: Json) -> None:
    if isinstance(message["content"], list):
        message["content"] = [part for part in message["content"] if part["type"] != "file"]


def without_descriptions(body: Json) -> None:
    for tool in body.get("tools", []):
        tool["function"]["description"] = ""


def anything_required(body: Json) -> None:
    if isinstance(body.get("tool_choice"), dict):
        body["tool_choice"] = "required"


def outputs_by_their_place(body: Json) -> None:
    given = body["input"]
    if body.get("previous_response_id") and isinstance(given, list):
        outputs = [item for item in given if item.get("type") == "function_call_output"]
        for item, call_id in zip(outputs, sorted(output["call_id"] for output in outputs), strict=True):
            item["call_id"] = call_id


def one_call_less(body: Json) -> None:
    """Of two calls in a history of the client's own one is left out, with its result."""
    given = body["input"] if isinstance(body["input"], list) else []
    calls = [item for item in given if item.get("type") == "function_call"]
    if len(calls) == 2 and given[1:3] == calls:
        body["input"] = [item for item in given if item.get("call_id") != calls[1]["call_id"]]


def the_first_part(body: Json) -> None:
    for item in body["input"] if isinstance(body["input"], list) else ():
        if isinstance(item.get("output"), list):
            del item["output"][1:]


def dropping(call_id: str) -> Callable[[Json], None]:
    """Drops what belongs to this call silently."""

    def asked(body: Json) -> None:
        if isinstance(body["input"], list):
            body["input"] = [item for item in body["input"] if item.get("call_id") != call_id]

    return asked


def without_an_unknown_past(body: Json) -> None:
    if body.get("previous_response_id") == UNKNOWN:
        del body["previous_response_id"]


def whatever_it_is(body: Json) -> None:
    if isinstance(body["input"], int):
        body["input"] = str(body["input"])


def said(item: Json) -> Json:
    return item.get("content") if item["type"] == "message" else None


def the_last_two_turns(past: list[Json]) -> None:
    if len(past) == 6 and said(past[0]) == "Question 0.":
        del past[:2]


def siblings_too() -> Fault:
    forks: list[Json] = []

    def past(items: list[Json]) -> None:
        if len(items) == 2 and said(items[0]) == "Root.":
            items += forks
            forks.append({"type": "message", "role": "user", "content": "Left."})

    return Fault(past=past)


def numbered() -> Fault:
    """The system says how often it was asked."""
    asked: list[Json] = []

    def prompted(body: Json) -> None:
        asked.append(body)
        if body["messages"][0]["role"] == "system":
            body["messages"][0]["content"] += f" ({len(asked)})"

    return Fault(prompted=prompted)


def drier(past: list[Json]) -> None:
    for item in past:
        if item.get("output") == "Wet.":
            item["output"] = "Dry."


def without(name: str) -> Fault:
    return Fault(prompted=lambda body: body.pop(name, None))


def without_thoughts(past: list[Json]) -> None:
    past[:] = [
        item for item in past if item["type"] != "reasoning" or "reasoning_details" in unseal(item["encrypted_content"])
    ]


def without_thoughts_of_clients(body: Json) -> None:
    if isinstance(body["input"], list):
        body["input"] = [item for item in body["input"] if item.get("type") != "reasoning"]


def without_formats(past: list[Json]) -> None:
    for item in past:
        if item["type"] == "reasoning":
            fields = unseal(item["encrypted_content"])
            for detail in fields.get("reasoning_details", []):
                del detail["format"]
            item["encrypted_content"] = seal(fields)


def without_custom_results(body: Json) -> None:
    for item in body["input"] if isinstance(body["input"], list) else ():
        if item.get("type") == "custom_tool_call_output":
            item["output"] = ""


def the_newest_first(past: list[Json]) -> None:
    if len(past) == 3 and said(past[1]) == "Question 1.":
        past.reverse()


def without_compactions(body: Json) -> None:
    if isinstance(body["input"], list):
        body["input"] = [item for item in body["input"] if item.get("type") != "compaction"]


def without_warm_ups(past: list[Json]) -> None:
    if len(past) == 1 and said(past[0]) == "My name is Ada.":
        past.clear()


MUTANTS: Mutants = {
    "what users say is stripped": (in_messages(stripped), {"prompts.a-text-is-what-the-user-says"}),
    "a message has one part": (in_messages(the_first_of_three), {"prompts.parts-of-a-message-are-all-sent"}),
    "everything is said by users": (in_messages(everything_by_users), {"prompts.a-history-is-sent-in-its-roles"}),
    "what the system says comes first": (
        Fault(prompted=systems_first),
        {"prompts.what-the-developer-says-is-kept-in-place"},
    ),
    "instructions are stripped": (
        in_messages(systems_stripped),
        {"prompts.instructions-are-what-the-system-says"},
    ),
    "instructions are kept": (keeping_instructions(), {"prompts.instructions-are-of-one-turn"}),
    "an image is cut off": (in_messages(shrunk), {"prompts.an-image-reaches-the-provider"}),
    "files are left out": (in_messages(without_files), {"prompts.a-file-reaches-the-provider"}),
    "tools have no description": (Fault(prompted=without_descriptions), {"prompts.tools-are-declared-whole"}),
    "any tool may be called": (Fault(prompted=anything_required), {"prompts.a-tool-choice-reaches-the-provider"}),
    "outputs belong to calls by their place": (
        Fault(asked=outputs_by_their_place),
        {"prompts.results-follow-their-calls"},
    ),
    "a call of a client is left out": (Fault(asked=one_call_less), {"prompts.a-history-of-calls-is-sent-whole"}),
    "an output has one part": (Fault(asked=the_first_part), {"prompts.an-output-of-parts-is-sent-whole"}),
    "an open call is dropped": (Fault(asked=dropping("call_open")), {"prompts.an-open-call-is-not-sent"}),
    "a stray output is dropped": (Fault(asked=dropping("call_stray")), {"prompts.a-stray-output-is-not-sent"}),
    "an unknown past is dropped": (
        Fault(asked=without_an_unknown_past),
        {"prompts.nothing-is-sent-of-an-unknown-past"},
    ),
    "an input is whatever it is": (Fault(asked=whatever_it_is), {"prompts.what-is-refused-is-not-sent"}),
    "only two turns are remembered": (Fault(past=the_last_two_turns), {"prompts.a-chain-is-sent-in-order"}),
    "siblings are told, too": (siblings_too(), {"prompts.forks-share-nothing"}),
    "the system counts": (numbered(), {"prompts.a-prompt-begins-with-the-one-before"}),
    "what is remembered is another thing": (Fault(past=drier), {"prompts.either-way-of-going-on-is-the-same"}),
    "temperature is lost": (without("temperature"), {"prompts.sampling-reaches-the-provider"}),
    "the limit is lost": (without("max_tokens"), {"prompts.a-limit-reaches-the-provider"}),
    "the schema is lost": (without("response_format"), {"prompts.a-schema-reaches-the-provider"}),
    "the effort is lost": (without("reasoning_effort"), {"prompts.an-effort-reaches-the-provider"}),
    "reasoning is not kept": (Fault(past=without_thoughts), {"prompts.reasoning-goes-back-to-its-issuer"}),
    "reasoning of clients is left out": (
        Fault(asked=without_thoughts_of_clients),
        {"prompts.reasoning-comes-back-by-the-client"},
    ),
    "details of reasoning lose a field": (
        Fault(past=without_formats),
        {"prompts.reasoning-details-go-back-unchanged"},
    ),
    "results of custom tools are lost": (
        Fault(asked=without_custom_results),
        {"prompts.a-custom-result-goes-back"},
    ),
    "a conversation is told backwards": (Fault(past=the_newest_first), {"prompts.a-conversation-is-sent-in-order"}),
    "compactions are left out": (
        Fault(asked=without_compactions),
        {"prompts.a-compaction-stands-for-what-it-was-made-of"},
    ),
    "warm-ups are forgotten": (Fault(past=without_warm_ups), {"prompts.a-warm-up-is-read-before-what-follows"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault, breaks) == breaks


async def test_what_is_refused_by_its_name_is_not_lost() -> None:
    def refuse(asked: Json) -> None:
        for name in {"temperature", "top_p"} & asked.keys():
            raise Bad("not here", name)

    rule = "prompts.sampling-reaches-the-provider"
    [found] = await verdicts(Fault(asked=refuse), rules=[one for one in chapter if one.id == rule])
    assert found.outcome == "kept"


async def test_what_is_said_to_have_no_effect_is_not_looked_for() -> None:
    async def answered(request: web.Request) -> web.Response:
        return web.json_response({"id": "resp_1", "output": []}, headers={"x-note": "reasoning.effort is left out"})

    [rule] = [one for one in chapter if one.id == "prompts.an-effort-reaches-the-provider"]
    with Provider.listening("chat", 0) as provider:
        async with at(answered, provider=provider) as server:
            found = await judge(rule, server)
    assert (found.outcome, found.reason) == ("not_applicable", "the server says that an effort has no effect")

from tests.conformance.judging import Mutants, broken, every, in_responses
from tests.conformance.little_server import NOW, Exchange, Fault


def null_phase(it: Exchange) -> None:
    items = [item for response in it.responses for item in response["output"]]
    for item in [*items, *(event["item"] for event in it.of("output_item.done"))]:
        if item["type"] == "message":
            item["phase"] = None


def without_annotations(it: Exchange) -> None:
    items = [item for response in it.responses for item in response["output"]]
    for item in [*items, *(event["item"] for event in it.of("output_item.done"))]:
        for part in item.get("content", []):
            part.pop("annotations")


def in_events_only(it: Exchange) -> None:
    for response in it.responses:
        if it.events or response["id"] in STREAMED:
            STREAMED.add(response["id"])
            response["extra"] = 1


STREAMED: set[str] = set()


def calls_without_a_key(it: Exchange) -> None:
    for response in it.plain:
        if response["output"][-1]["type"] == "function_call":
            response.pop("prompt_cache_key")


def calls_without_a_status(it: Exchange) -> None:
    for response in it.plain:
        for item in response["output"]:
            if item["type"] == "function_call":
                item.pop("status")


MUTANTS: Mutants = {
    "a key is missing where there is a call": (
        Fault(told=calls_without_a_key),
        {"objects.a-response-has-every-key"},
    ),
    "a call has no status": (Fault(told=calls_without_a_status), {"objects.output-items-have-their-fields"}),
    "a key is missing": (
        in_responses(lambda response: response.pop("prompt_cache_key")),
        {"objects.a-response-has-every-key", "streams.events-carry-whole-responses"},
    ),
    "a key of Open Responses is missing": (
        in_responses(lambda response: response.pop("presence_penalty")),
        {"objects.a-response-fits-open-responses"},
    ),
    "a default is null": (
        in_responses(lambda response: response.update(service_tier=None)),
        {"objects.a-response-fits-open-responses"},
    ),
    "the end is before the beginning": (
        in_responses(lambda response: response["completed_at"] and response.update(completed_at=NOW - 1)),
        {"objects.a-completed-answer-says-when-and-no-error"},
    ),
    "a text has no annotations": (
        Fault(told=without_annotations),
        {"objects.output-items-have-their-fields", "streams.streamed-items-have-their-fields"},
    ),
    "an item has a null": (Fault(told=null_phase), {"objects.items-leave-out-what-they-lack"}),
    "the sum is wrong": (
        in_responses(lambda response: response["usage"] and response["usage"].update(total_tokens=0)),
        {"objects.usage-adds-up"},
    ),
    "more is cached than was given": (
        in_responses(
            lambda response: response["usage"] and response["usage"]["input_tokens_details"].update(cached_tokens=10**6)
        ),
        {"objects.usage-adds-up"},
    ),
    "streams have a key of their own": (Fault(told=in_events_only), {"objects.plain-and-streamed-are-the-same-object"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks

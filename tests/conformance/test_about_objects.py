from rejoinder.conformance.about_objects import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import Mutants, bending, broken, every, ids, in_responses, keeping, telling, verdicts
from tests.conformance.little_server import NOW, Exchange, Fault, Json, LittleServer


def null_namespace(it: Exchange) -> None:
    items = [item for response in it.responses for item in response["output"]]
    for item in [*items, *(event["item"] for event in it.of("output_item.done"))]:
        if item["type"] == "function_call":
            item.setdefault("namespace", None)


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
    for response in [*it.plain, *it.kept]:
        if response["output"] and response["output"][-1]["type"] == "function_call":
            response.pop("prompt_cache_key")


def calls_without_a_status(it: Exchange) -> None:
    for response in [*it.plain, *it.kept]:
        for item in response["output"]:
            if item["type"] == "function_call":
                item.pop("status")


def is_plain(it: Exchange) -> bool:
    """Whether it is a greeting and nothing else."""
    return it.body.keys() == {"model", "input"} and it.said == GREETING


def is_cut(it: Exchange) -> bool:
    return it.body.get("max_output_tokens") == 16 and not it.body.get("stream") and it.said != GREETING


def in_thousandths(response: Json) -> None:
    for name in ("created_at", "completed_at"):
        response[name] = response[name] and response[name] * 1000


def sharing_an_id(response: Json) -> None:
    response["output"][1]["id"] = response["output"][0]["id"]


def under_way(response: Json) -> None:
    response["output"][1]["status"] = "in_progress"


def incomplete_first(response: Json) -> None:
    response["output"][0]["status"] = "incomplete"


def without_alternatives(response: Json) -> None:
    for part in response["output"][-1]["content"]:
        for logprob in part["logprobs"]:
            logprob.pop("top_logprobs")


def with_log_probabilities(response: Json) -> None:
    response["output"][1]["content"][0]["logprobs"] = [{"token": "Hello"}]


def short(body: Json) -> None:
    if body.get("max_output_tokens") == 16:
        body["input"] = GREETING


MUTANTS: Mutants = {
    "times are in thousandths of seconds": (in_responses(in_thousandths), {"objects.times-are-in-seconds"}),
    "items share an id": (keeping(is_plain, sharing_an_id, at_once=True), {"objects.items-have-ids-of-their-own"}),
    "an item goes on": (
        keeping(is_plain, under_way, at_once=True),
        {"objects.items-of-a-completed-response-are-complete"},
    ),
    "the first item is incomplete": (
        keeping(is_cut, incomplete_first, at_once=True),
        {"objects.an-incomplete-item-is-the-last"},
    ),
    "a cut answer lacks a key": (
        keeping(is_cut, lambda response: response.pop("tools"), at_once=True),
        {"objects.a-cut-answer-looks-as-any"},
    ),
    "log probabilities have no alternatives": (
        telling(lambda it: "top_logprobs" in it.body and "include" in it.body, without_alternatives),
        {"objects.log-probabilities-are-told"},
    ),
    "log probabilities are told unasked": (
        keeping(is_plain, with_log_probabilities, at_once=True),
        {"objects.log-probabilities-are-not-told-unasked"},
    ),
    "a key is missing where there is a call": (
        Fault(told=calls_without_a_key),
        {"objects.a-response-has-every-key"},
    ),
    "a call has no status": (Fault(told=calls_without_a_status), {"objects.output-items-have-their-fields"}),
    "a key is missing": (
        in_responses(lambda response: response.pop("prompt_cache_key")),
        {
            "create.keys-are-echoed",
            "objects.a-response-has-every-key",
            "objects.a-cut-answer-looks-as-any",
            "streams.events-carry-whole-responses",
            "background.a-response-under-way-has-every-key",
            "background.its-end-looks-as-any-answer",
        },
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
        {
            "objects.output-items-have-their-fields",
            "objects.a-cut-answer-looks-as-any",
            "streams.streamed-items-have-their-fields",
            "streams.a-part-that-is-done-is-that-of-the-item",
            "background.its-end-looks-as-any-answer",
        },
    ),
    "an item has a null": (Fault(told=null_namespace), {"objects.items-leave-out-what-they-lack"}),
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


async def test_an_answer_that_was_not_cut_says_nothing() -> None:
    found = await verdicts(LittleServer(bending(short)), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {"objects.an-incomplete-item-is-the-last"}


async def test_a_model_without_log_probabilities_is_not_asked_for_them() -> None:
    found = await verdicts(LittleServer(refuses="top_logprobs"), rules=list(chapter))
    assert ids("not_applicable", found) == {"objects.log-probabilities-are-told"}

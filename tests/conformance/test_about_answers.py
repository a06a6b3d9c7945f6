import pytest

from rejoinder.conformance.about_answers import theme
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import failed, in_responses, named, verdicts
from tests.conformance.little_server import NOW, Exchange, Fault, Json, LittleServer


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


def empty_success(it: Exchange) -> None:
    if it.body == {"model": "little", "input": GREETING}:
        for response in it.plain:
            response["output"] = []


def mixed_up(response: Json) -> None:
    if response["instructions"] == "request 3":
        response["instructions"] = "request 4"


def one_request_id(it: Exchange) -> None:
    it.headers["x-request-id"] = "req_1"


def plain_text(it: Exchange) -> None:
    if it.plain:
        it.headers["content-type"] = "text/plain"


def bare_tools(response: Json) -> None:
    for tool in response["tools"]:
        tool.pop("strict")


FAULTS = {
    "a key is missing": (
        in_responses(lambda response: response.pop("prompt_cache_key")),
        {"a-response-has-every-key", "events-carry-whole-responses"},
    ),
    "a key of Open Responses is missing": (
        in_responses(lambda response: response.pop("presence_penalty")),
        {"a-response-fits-open-responses"},
    ),
    "a default is null": (
        in_responses(lambda response: response.update(service_tier=None)),
        {"a-response-fits-open-responses"},
    ),
    "the content type is text": (Fault(told=plain_text), {"a-plain-answer-is-json"}),
    "a success is empty": (
        Fault(told=empty_success),
        {"an-answer-is-completed-and-not-empty", "a-response-is-kept-as-it-was-answered"},
    ),
    "the end is before the beginning": (
        in_responses(lambda response: response["completed_at"] and response.update(completed_at=NOW - 1)),
        {"a-completed-answer-says-when-and-no-error"},
    ),
    "a text has no annotations": (
        Fault(told=without_annotations),
        {"output-items-have-their-fields", "streamed-items-have-their-fields"},
    ),
    "an item has a null": (Fault(told=null_phase), {"items-leave-out-what-they-lack"}),
    "the sum is wrong": (
        in_responses(lambda response: response["usage"] and response["usage"].update(total_tokens=0)),
        {"usage-adds-up"},
    ),
    "more is cached than was given": (
        in_responses(
            lambda response: response["usage"] and response["usage"]["input_tokens_details"].update(cached_tokens=10**6)
        ),
        {"usage-adds-up"},
    ),
    "streams have a key of their own": (Fault(told=in_events_only), {"plain-and-streamed-are-the-same-object"}),
    "a setting is not echoed": (
        in_responses(lambda response: response.update(temperature=1.0)),
        {"settings-are-echoed"},
    ),
    "metadata is lost": (in_responses(lambda response: response.update(metadata={})), {"metadata-is-echoed"}),
    "metadata is invented": (
        in_responses(lambda response: response["metadata"].update(by="us")),
        {"metadata-is-echoed", "settings-are-not-inherited"},
    ),
    "tools are echoed as they came": (in_responses(bare_tools), {"tools-are-echoed-whole"}),
    "there is no request id": (
        Fault(told=lambda it: it.headers.pop("x-request-id")),
        {"every-answer-has-a-request-id"},
    ),
    "all request ids are the same": (Fault(told=one_request_id), {"every-answer-has-a-request-id"}),
    "answers are mixed up": (in_responses(mixed_up), {"ten-requests-at-once-are-answered"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_fails_its_cases_alone(name: str) -> None:
    fault, expected = FAULTS[name]
    assert await failed(fault) == expected


async def test_a_server_that_keeps_the_rules_passes() -> None:
    assert named("pass", await verdicts(LittleServer(), cases=list(theme))) == {case.name for case in theme}


def test_every_case_can_fail() -> None:
    assert {case.name for case in theme} <= set().union(*(expected for _, expected in FAULTS.values()))


async def test_a_server_without_tools_or_temperature_is_not_asked_about_them() -> None:
    found = await verdicts(LittleServer(refuses="tools"), cases=list(theme))
    assert named("fail", found) == set()
    assert named("skip", found) == {"tools-are-echoed-whole"}
    found = await verdicts(LittleServer(refuses="temperature"), cases=list(theme))
    assert named("skip", found) == {"settings-are-echoed"}

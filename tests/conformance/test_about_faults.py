import re

from aiohttp import web

from rejoinder.conformance.about_faults import chapter
from rejoinder.conformance.paired import Provider
from rejoinder.conformance.verdict import judge
from tests.conformance.bridged import FLOOD, Mutants, broken, every, having, verdicts
from tests.conformance.little_bridge import THEIR_KEY, Fault, Json, Refused
from tests.conformance.test_server import at


def streamed(asked: Json) -> bool:
    return bool(asked.get("stream"))


def whole(asked: Json) -> bool:
    return not streamed(asked)


def empty_when_failed(event: Json) -> None:
    if event["type"] == "response.failed":
        event["response"]["output"] = []


def done_when_half(event: Json) -> None:
    item = event.get("item", {})
    if event["type"] == "response.output_item.done" and item.get("type") == "function_call":
        item["status"] = "completed"


def failed_as_complete(response: Json) -> None:
    response["status"] = "completed"


MUTANTS: Mutants = {
    "too much is a failure": (Fault(statuses={413: 502}), {"faults.a-refused-request-is-refused"}),
    "nobody says when to come again": (
        Fault(headers=lambda headers: headers.pop("retry-after", None)),
        {"faults.a-rate-limit-says-when-to-come-again"},
    ),
    "codes are forgotten": (having("forgets codes"), {"faults.too-long-a-context-is-called-that"}),
    "the provider's 401 is passed on": (
        Fault(statuses={401: 401}),
        {"faults.a-refused-key-is-no-fault-of-the-clients"},
    ),
    "the provider's words are passed on, without its key": (
        Fault(worded=lambda text: text.replace(THEIR_KEY, "[the key]")),
        {"faults.a-secret-is-not-passed-on"},
    ),
    "the provider's words are passed on, without what looks like a key": (
        Fault(worded=lambda text: re.sub(r"sk-[\w-]+", "[a key]", text)),
        {"faults.the-key-is-told-nobody"},
    ),
    "an overload is the client's fault": (Fault(statuses={503: 400}), {"faults.a-failure-stays-a-failure"}),
    "no answer is the client's fault": (Fault(statuses={0: 400}), {"faults.a-lost-connection-is-a-failure"}),
    "a stream begins before the provider answers": (
        having("begins early", when=streamed),
        {"faults.a-stream-is-refused-before-it-begins"},
    ),
    "a reset is believed to be the end": (having("believes a reset"), {"faults.a-broken-stream-fails"}),
    "the end of the body is believed to be the end": (
        having("believes the end", when=streamed),
        {"faults.a-stream-without-an-end-fails"},
    ),
    "nonsense is believed to be the end": (
        having("skips nonsense", when=streamed),
        {"faults.nonsense-in-a-stream-fails"},
    ),
    "an error is believed to be the end": (
        having("skips errors", when=streamed),
        {"faults.an-error-in-a-stream-fails"},
    ),
    "silence is believed to be an answer": (having("believes silence"), {"faults.no-answer-at-all-fails"}),
    "half an answer in one piece is believed": (
        having("is patient with halves", when=whole),
        {"faults.a-broken-answer-is-no-success"},
    ),
    "a failed response is empty": (Fault(told=empty_when_failed), {"faults.what-came-is-in-the-failed-response"}),
    "half a call is complete": (Fault(told=done_when_half), {"faults.half-a-call-is-not-to-be-made"}),
    "the provider is asked again": (having("asks again"), {"faults.nothing-is-asked-twice-once-it-was-shown"}),
    "the last word is waited for": (having("needs the last word"), {"faults.the-last-word-may-be-missing"}),
    "what failed is kept as complete": (
        Fault(kept=failed_as_complete),
        {"faults.what-failed-is-not-kept-as-complete"},
    ),
    "a turn goes on without its stream": (having("stays"), {"faults.who-leaves-a-stream-ends-it"}),
    "a turn goes on without its client": (having("waits"), {"faults.who-leaves-without-an-answer-ends-it"}),
    "what is not read is piled up": (having("reads ahead", when=streamed), {FLOOD}),
    "a failure hurts": (having("is hurt"), {"faults.the-next-answer-is-as-good-as-ever"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault, breaks) == breaks


async def test_what_failed_may_be_found_nowhere() -> None:
    def lost(told: Json) -> None:
        if told["status"] == "failed":
            raise Refused(404, "nothing there")

    rule = "faults.what-failed-is-not-kept-as-complete"
    [found] = await verdicts(Fault(kept=lost), rules=[one for one in chapter if one.id == rule])
    assert found.outcome == "kept"


async def test_without_a_key_there_is_none_to_tell() -> None:
    async def answered(request: web.Request) -> web.Response:
        return web.json_response({"id": "resp_1", "output": []})

    [rule] = [one for one in chapter if one.id == "faults.the-key-is-told-nobody"]
    with Provider.listening("chat", 0) as provider:
        async with at(answered, provider=provider) as server:
            found = await judge(rule, server)
    assert (found.outcome, found.reason) == ("not_applicable", "the server has no key for its provider")

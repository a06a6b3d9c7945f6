from collections.abc import Callable

import pytest

from rejoinder.conformance.about_steering import chapter
from rejoinder.conformance.samples import UNKNOWN
from tests.conformance.judging import Mutants, broken, every, judged
from tests.conformance.little_server import Exchange, Fault, Json
from tests.conformance.spoken import Change, connections, deaf, hearing, responses, saying

WORDS = "Stop there, and say hello."


def steers(*codes: str, change: Change) -> Fault:
    """Changes what is said to steers that were refused with these codes; or to those that were accepted."""

    def said(it: Exchange) -> None:
        if it.method == "STEER" and it.events[0].get("error", {}).get("code", "") in (codes or ("",)):
            change(it)

    return Fault(said=said)


def refused(*codes: str, change: Change) -> Fault:
    return steers(*(codes or ("response_not_found",)), change=change)


def in_error(**fields: str) -> Change:
    return lambda it: it.events[0]["error"].update(fields)


def as_a_text(it: Exchange) -> None:
    it.events[0]["steer"]["input"] = WORDS


def accepted(it: Exchange) -> None:
    steer = {"id": "steer_0", "previous_response_id": it.body["previous_response_id"]}
    it.events = [{"type": "response.steer.accepted", "sequence_number": 0, "steer": steer}]


def before(name: str | None) -> Callable[[Json], object]:
    """Names another response before it."""
    return lambda response: response.update(previous_response_id=name)


def hanging_on() -> Fault:
    """What was said in vain is the beginning of what is asked next."""
    notes = connections()

    def said(it: Exchange) -> None:
        if it.method == "STEER" and it.events[0]["type"] == "response.steer.failed":
            notes(it).add(it.body["previous_response_id"])
        elif it.method == "POST" and it.made and it.body.get("store") is False:
            for name in notes(it) - {UNKNOWN}:
                responses(before(name))(it)

    return Fault(said=said)


def is_next(it: Exchange) -> bool:
    """Whether nobody asked for it."""
    return it.method == "POST" and it.body.get("input") == [{"role": "user", "content": WORDS}]


def has_results(it: Exchange) -> bool:
    return "function_call_output" in str(it.body.get("input")) and "store" not in it.body and it.made is not None


def stopped(it: Exchange) -> None:
    for response in (event["response"] for event in it.events if event["type"] == "response.incomplete"):
        response["incomplete_details"] = {"reason": "stopped"}


def pending(change: Change) -> Fault:
    def said(it: Exchange) -> None:
        if it.method == "PENDING":
            change(it)

    return Fault(said=said)


MUTANTS: Mutants = {
    "a refusal has another type": (refused(change=in_error(type="error")), {"steering.a-refused-steer-says-why"}),
    "a refusal has no message": (refused(change=in_error(message="")), {"steering.a-refused-steer-says-why"}),
    "words come back in another form": (refused(change=as_a_text), {"steering.a-refused-steer-is-given-back"}),
    "a response that is nowhere is no longer active": (
        refused(change=in_error(code="response_not_active")),
        {"steering.a-response-that-is-nowhere-cannot-be-steered"},
    ),
    "words for what is over are accepted": (
        refused("response_already_completed", change=accepted),
        {"steering.a-response-that-is-over-cannot-be-steered"},
    ),
    "words for what is over are refused for another reason": (
        refused("response_already_completed", change=in_error(code="invalid_input")),
        {"steering.a-response-that-is-over-cannot-be-steered"},
    ),
    "anything is accepted": (
        refused("invalid_input", change=accepted),
        {"steering.nothing-but-words-of-a-user-can-be-said"},
    ),
    "words in vain are the beginning of something": (hanging_on(), {"steering.a-refused-steer-changes-nothing"}),
    "a steer has no id": (
        steers(change=lambda it: it.events[0]["steer"].pop("id")),
        {"steering.an-accepted-steer-has-an-id"},
    ),
    "a steer is for nothing": (
        steers(change=lambda it: it.events[0]["steer"].update(previous_response_id="resp_0")),
        {"steering.an-accepted-steer-has-an-id"},
    ),
    "a response ends for another reason": (
        saying(lambda it: True, stopped),
        {"steering.a-steered-response-ends-as-steered-or-as-ever"},
    ),
    "the next response names none before it": (
        saying(is_next, responses(before(None))),
        {"steering.words-begin-the-next-response"},
    ),
    "the next response has other settings": (
        saying(is_next, responses(lambda response: response.update(instructions=None))),
        {"steering.the-next-response-has-the-same-settings"},
    ),
    "the next response has other words": (
        hearing(is_next, lambda it: it.body.update(input=[{"role": "user", "content": "Hm."}])),
        {"steering.words-are-the-input-of-the-next-response"},
    ),
    "a steer leaves its lane": (
        steers(change=lambda it: it.events[0].pop("stream_id", None)),
        {"steering.a-steer-stays-in-its-lane"},
    ),
    "words wait for something else": (
        pending(lambda it: it.events[0].update(reason="waiting")),
        {"steering.words-wait-for-the-results-of-tools"},
    ),
    "what is required is not told": (
        pending(lambda it: it.events[0].update(required_input=[])),
        {"steering.words-wait-for-the-results-of-tools"},
    ),
    "results are not answered": (
        saying(has_results, responses(lambda response: response.update(status="in_progress"))),
        {"steering.results-go-on-with-the-words-that-wait"},
    ),
    "results come first": (
        saying(has_results, lambda it: it.made.given.reverse()),
        {"steering.words-that-wait-come-before-the-results"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


CAUGHT = {
    "steering.an-accepted-steer-has-an-id",
    "steering.a-steered-response-ends-as-steered-or-as-ever",
    "steering.words-begin-the-next-response",
    "steering.the-next-response-has-the-same-settings",
    "steering.words-are-the-input-of-the-next-response",
    "steering.a-steer-stays-in-its-lane",
}
WAITING = {
    "steering.words-wait-for-the-results-of-tools",
    "steering.results-go-on-with-the-words-that-wait",
    "steering.words-that-wait-come-before-the-results",
}


def never(it: Exchange) -> None:
    """It is known, and not supported."""
    given = {"input": it.body["input"], "previous_response_id": it.body["previous_response_id"]}
    error = {"type": "invalid_request_error", "code": "steering_not_supported", "message": "no"}
    it.events = [{"type": "response.steer.failed", "sequence_number": 0, "error": error, "steer": given}]


async def test_who_does_not_support_steering_says_so() -> None:
    codes = ("response_not_found", "response_already_completed", "invalid_input", "")
    nowhere = "steering.a-response-that-is-nowhere-cannot-be-steered"
    assert await judged(chapter, steers(*codes, change=never)) == (set(), CAUGHT | WAITING | {nowhere})


async def test_a_response_that_is_over_too_soon_breaks_nothing() -> None:
    fault = hearing(lambda it: "lowly" in str(it.body.get("input")), lambda it: it.body.update(input="Say hello."))
    assert await judged(chapter, fault) == (set(), CAUGHT | WAITING)


async def test_without_tools_or_calls_nothing_has_to_wait() -> None:
    assert await judged(chapter, Fault(), refuses="tools") == (set(), WAITING)
    calmly = hearing(lambda it: "tool_choice" in it.body, lambda it: it.body.update(tool_choice="none"))
    assert await judged(chapter, calmly) == (set(), WAITING)


async def test_nothing_waits_for_a_call_that_was_cut() -> None:
    def cut(it: Exchange) -> None:
        it.events[-1]["type"] = "response.incomplete"

    fault = saying(lambda it: "tool_choice" in it.body and it.made, cut)
    assert await judged(chapter, fault) == (set(), WAITING)


async def test_who_does_not_know_it_lacks_it() -> None:
    fault = deaf(lambda it: it.body.get("type") == "response.steer")
    assert await judged(chapter, fault) == (set(), {rule.id for rule in chapter})


async def test_an_error_is_no_answer_to_words_that_come_in_time() -> None:
    def said(it: Exchange) -> None:
        if it.method == "STEER" and it.events[0]["type"] == "response.steer.accepted":
            it.events = [{"type": "error", "status": 400, "error": {"code": "oh", "message": "oh"}}]

    found, _ = await judged(chapter, Fault(said=said))
    assert found == CAUGHT | WAITING


def completed(it: Exchange) -> None:
    """It ends as ever, and words come with its end."""
    for event in it.events:
        if event["type"] == "response.incomplete":
            event["type"] = "response.completed"
            event["response"].update(status="completed", incomplete_details=None)


async def test_a_steered_response_may_end_as_ever() -> None:
    assert await judged(chapter, saying(lambda it: True, completed)) == (set(), set())


@pytest.mark.parametrize("mark", ["[DONE]", '{"note": 1}'])
async def test_marks_between_turns_are_overlooked(mark: str) -> None:
    assert await judged(chapter, saying(lambda it: True, lambda it: it.events.append(mark))) == (set(), set())

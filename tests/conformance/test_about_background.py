from collections.abc import Callable

from rejoinder.conformance.about_background import chapter
from rejoinder.conformance.samples import GREETING, UNKNOWN
from tests.conformance.judging import (
    KEY,
    Mutants,
    broken,
    every,
    ids,
    keeping,
    refusing,
    telling,
    verdicts,
)
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def begun(it: Exchange) -> bool:
    """The background request that most rules look at."""
    body = it.body
    plainly = not (body.keys() - {"model", "input", "background"})
    return body.get("background") is True and it.said == GREETING and plainly


def streamed(it: Exchange) -> bool:
    return it.body.get("background") is True and it.body.get("stream") is True


def saying(said: str) -> Callable[[Exchange], bool]:
    return lambda it: it.body.get("background") is True and it.said == said


def asked_of_streams(change: Callable[[Exchange], object]) -> Fault:
    """Changes the questions for events."""
    return Fault(asked=lambda it: change(it) if it.query.get("stream") == "true" else None)


def in_background_streams(change: Callable[[Exchange], object]) -> Fault:
    def told(it: Exchange) -> None:
        if it.events and (it.body.get("background") or it.query.get("stream")):
            change(it)

    return Fault(told=told)


def a_field_less(it: Exchange) -> None:
    for event in it.of("output_text.delta"):
        event.pop("logprobs")


def said_differently(it: Exchange) -> None:
    if it.events and it.query == {"stream": "true"}:
        it.of("output_text.delta")[0]["delta"] = "Bye"


def padded(it: Exchange) -> None:
    if "include_obfuscation" in it.query:
        for event in it.of("output_text.delta"):
            event["obfuscation"] = "xx"


def changing_its_end() -> Fault:
    asked: set[str] = set()

    def told(it: Exchange) -> None:
        for response in it.kept:
            if response["background"] and response["status"] == "completed":
                if response["id"] in asked:
                    response["metadata"] = {"asked": "again"}
                asked.add(response["id"])

    return Fault(told=told)


def listing_nothing() -> Fault:
    made: set[str] = set()

    def told(it: Exchange) -> None:
        if begun(it):
            made.update(response["id"] for response in it.plain)
        for page in it.listed:
            if it.place[1] in made:
                page["data"] = []

    return Fault(told=told)


def forgetting_what_is_not_stored() -> Fault:
    made: set[str] = set()

    def asked(it: Exchange) -> None:
        if it.place[-1] in made:
            raise Refused("not here", status=404)

    def told(it: Exchange) -> None:
        made.update(response["id"] for response in it.plain if response["background"] and not response["store"])

    return Fault(asked=asked, told=told)


def telling_the_deleted() -> Fault:
    known: dict[str, list[Json]] = {}

    def told(it: Exchange) -> None:
        if streamed(it) and it.said == "Say hello and vanish.":
            known[it.events[0]["response"]["id"]] = it.events
        if it.query == {"stream": "true"} and it.place[-1] in known:
            it.status, it.told, it.events = 200, None, known[it.place[-1]]

    return Fault(told=told)


def losing_an_event_of_the_third() -> Fault:
    followers: list[str] = []
    followed: set[str] = set()

    def told(it: Exchange) -> None:
        if streamed(it) and it.said == "Say hello to all of us.":
            followed.add(it.events[0]["response"]["id"])
        if it.query == {"stream": "true"} and it.place[-1] in followed:
            followers.append(it.path)
            if len(followers) == 3:
                del it.events[4]

    return Fault(told=told)


def a_second_cancel_is_an_error() -> Fault:
    cancelled: set[str] = set()

    def asked(it: Exchange) -> None:
        if it.place[-1] == "cancel" and it.path in cancelled:
            raise Refused("it is cancelled")

    def told(it: Exchange) -> None:
        if it.cancelled:
            cancelled.add(it.path)

    return Fault(asked=asked, told=told)


def in_cancels(change: Callable[[Json], object]) -> Fault:
    def told(it: Exchange) -> None:
        for response in it.cancelled:
            change(response)

    return Fault(told=told)


def going_on(response: Json) -> None:
    if response["status"] == "cancelled":
        response["status"] = "in_progress"


def failing(it: Exchange) -> None:
    for response in it.kept:
        if response["status"] == "cancelled":
            response["status"] = "failed"


def large_at_its_end(response: Json) -> None:
    if response["status"] == "completed":
        response["model"] = "large"


def in_the_end(change: Callable[[Json], object]) -> Callable[[Json], object]:
    return lambda response: change(response) if response["status"] == "completed" else None


def cancelling_anything(it: Exchange) -> None:
    if it.place[-1] == "cancel" and it.status == 400:
        it.status = 200


def unknown_is_wrong(it: Exchange) -> None:
    if it.place[-1] == "cancel" and UNKNOWN in it.path and it.key == f"Bearer {KEY}":
        it.status = 400


def from_the_first(it: Exchange) -> None:
    if it.query["stream"] == "true" and it.query.get("starting_after") == "0":
        it.query.pop("starting_after")


def behind_the_next(it: Exchange) -> None:
    if it.query.get("starting_after") == "1":
        it.query["starting_after"] = "2"


def ignoring_words(it: Exchange) -> None:
    if it.query.get("starting_after") == "many":
        it.query.pop("starting_after")


def bent(it: Exchange) -> None:
    if it.body.get("background") is True and it.body["input"] == 7:
        it.body["input"] = "7"


MUTANTS: Mutants = {
    "it waits for the end": (
        telling(begun, lambda response: response.update(status="completed")),
        {"background.it-is-answered-at-once"},
    ),
    "it has an output before its end": (
        telling(begun, lambda response: response.update(output=[{}])),
        {"background.a-response-under-way-is-empty"},
    ),
    "it lacks a key before its end": (
        telling(begun, lambda response: response.pop("tools")),
        {"background.a-response-under-way-has-every-key"},
    ),
    "instructions are told at the end alone": (
        telling(lambda it: it.body.get("background"), lambda response: response.update(instructions=None)),
        {"background.a-response-under-way-tells-what-was-asked"},
    ),
    "it is no background response any more": (
        keeping(begun, in_the_end(lambda response: response.update(background=False))),
        {"background.it-says-that-it-is-one"},
    ),
    "it ends with nothing": (
        keeping(begun, in_the_end(lambda response: response.update(output=[]))),
        {"background.it-ends-with-an-answer"},
    ),
    "its end changes": (changing_its_end(), {"background.an-end-is-one"}),
    "its end lacks a key": (
        keeping(begun, in_the_end(lambda response: response.pop("tools"))),
        {"background.its-end-looks-as-any-answer"},
    ),
    "it forgets what it continued": (
        keeping(lambda it: it.body.get("background"), lambda response: response.update(previous_response_id=None)),
        {"background.it-continues-another"},
    ),
    "it cannot be continued": (
        refusing(lambda it: it.said == "Once more.", "previous_response_id"),
        {"background.it-can-be-continued"},
    ),
    "its input is not listed": (listing_nothing(), {"background.its-input-is-listed"}),
    "a call is lost": (
        keeping(
            lambda it: it.body.get("background") and "tools" in it.body, lambda response: response["output"].clear()
        ),
        {"background.it-may-end-with-a-call"},
    ),
    "what is not stored is gone at once": (
        forgetting_what_is_not_stored(),
        {"background.what-is-not-stored-can-be-waited-for"},
    ),
    "a wrong request is begun": (Fault(asked=bent), {"background.a-wrong-request-is-refused-at-once"}),
    "an event lacks a field": (
        in_background_streams(a_field_less),
        {"background.a-background-stream-keeps-the-grammar"},
    ),
    "another response is kept": (
        keeping(streamed, large_at_its_end),
        {"background.the-last-event-is-what-is-kept"},
    ),
    "events are told differently": (Fault(told=said_differently), {"background.a-stream-can-be-read-again"}),
    "0 is no number": (asked_of_streams(from_the_first), {"background.a-stream-goes-on-behind-a-number"}),
    "a word is the first number": (asked_of_streams(ignoring_words), {"background.a-wrong-number-is-refused"}),
    "an event is lost with the connection": (
        asked_of_streams(behind_the_next),
        {"background.a-lost-stream-is-picked-up"},
    ),
    "it fails when nobody listens": (
        keeping(saying("Say hello to nobody."), lambda response: response.update(status="failed")),
        {"background.nobody-has-to-listen"},
    ),
    "the third one misses an event": (losing_an_event_of_the_third(), {"background.several-can-follow"}),
    "padding is told anyway": (Fault(told=padded), {"background.what-is-followed-may-leave-out-its-padding"}),
    "events outlive a response": (telling_the_deleted(), {"background.what-was-deleted-cannot-be-followed"}),
    "a cancel has to be waited for": (in_cancels(going_on), {"background.a-cancel-ends-it"}),
    "a cancelled response fails": (
        Fault(told=failing),
        {"background.a-cancelled-response-stays-cancelled"},
    ),
    "a second cancel is an error": (a_second_cancel_is_an_error(), {"background.cancelling-twice-changes-nothing"}),
    "a cancel changes what is over": (
        in_cancels(large_at_its_end),
        {"background.a-response-that-is-over-is-not-cancelled"},
    ),
    "anything can be cancelled": (
        Fault(told=cancelling_anything),
        {"background.only-what-is-in-the-background-can-be-cancelled"},
    ),
    "what is unknown is a wrong request": (
        Fault(told=unknown_is_wrong),
        {"background.what-is-unknown-cannot-be-cancelled"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


def over_before_it_was_cancelled(it: Exchange) -> None:
    for response in it.cancelled:
        if response["status"] == "cancelled":
            response["status"] = "completed"


async def test_what_is_over_before_it_is_cancelled_says_nothing_of_cancels() -> None:
    found = await verdicts(LittleServer(Fault(told=over_before_it_was_cancelled)), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {
        "background.a-cancel-ends-it",
        "background.a-cancelled-response-stays-cancelled",
        "background.cancelling-twice-changes-nothing",
    }


async def test_what_is_answered_at_its_end_need_not_be_empty() -> None:
    fault = telling(begun, lambda response: response.update(status="completed", output=[{}]))
    found = await verdicts(LittleServer(fault), rules=list(chapter))
    assert ids("broken", found) == {"background.it-is-answered-at-once"}


async def test_a_server_without_a_background_has_nothing_to_show() -> None:
    found = await verdicts(LittleServer(refuses="background"), rules=list(chapter))
    assert ids("not_applicable", found) == {rule.id for rule in chapter}

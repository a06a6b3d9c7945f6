import time

from rejoinder.conformance.about_lanes import chapter
from tests.conformance.judging import Mutants, broken, every, judged
from tests.conformance.little_server import Exchange, Fault, Json, Refused
from tests.conformance.spoken import (
    Change,
    Meant,
    a_gap,
    connections,
    deaf,
    errors,
    events,
    hearing,
    responses,
    saying,
    tokens,
)


def lane(name: str) -> Meant:
    return lambda it: it.body.get("stream_id") == name


def previous(it: Exchange) -> Json:
    return it.body.get("previous_response_id")


def nameless(event: Json) -> None:
    event.pop("stream_id", None)


def always_named() -> Fault:
    """A lane has the last word after it was named."""
    notes = connections()

    def said(it: Exchange) -> None:
        if it.body.get("stream_id") == "a-lane":
            notes(it).add("named")
        elif "named" in notes(it):
            events("output_text.delta", change=lambda event: event.update(stream_id="a-lane"))(it)

    return Fault(said=said)


def named(name: str) -> Change:
    """Waits in a lane of another name."""

    def change(it: Exchange) -> None:
        it.lane = name

    return change


def repeated(it: Exchange) -> None:
    it.events[0]["stream_id"] = it.body["stream_id"]


def too_busy(it: Exchange) -> None:
    error = {"type": "too_many", "code": "too_many", "message": "no", "param": None}
    it.events = [{"type": "error", "status": 429, "error": error, "stream_id": it.body["stream_id"]}]


def counting_all() -> Fault:
    """The lane without a name is one of those that are counted."""
    notes = connections()

    def heard(it: Exchange) -> None:
        if "stream_id" in it.body:
            notes(it).add(it.body["stream_id"])
        elif "lane-31" in notes(it):
            raise Refused("too many", "stream_id", "websocket_stream_limit_reached")

    return Fault(heard=heard)


def counting_for_all() -> Fault:
    """Names are those of all connections."""
    names: set[str] = set()

    def heard(it: Exchange) -> None:
        if it.body.get("stream_id") == "lane-too-many":
            if not it.local:
                raise Refused("too many", "stream_id", "websocket_stream_limit_reached")
            names.add("lane-too-many")

    return Fault(heard=heard)


def turned(response: Json) -> None:
    """The first two of a lane are told the other way round."""
    numbers = {"number 0": "number 1", "number 1": "number 0"}
    response["instructions"] = numbers.get(response["instructions"], response["instructions"])


def in_one_lane(*, slowly: bool) -> Fault:
    def is_one(it: Exchange) -> bool:
        return it.body.get("stream_id") in ("long", "short")

    def wait(it: Exchange) -> None:
        time.sleep(0.05 if slowly else 0)

    return Fault(heard=hearing(is_one, named("one")).heard, said=saying(is_one, wait).said)


def spoiled() -> Fault:
    """What failed in a lane is its end."""
    notes = connections()

    def heard(it: Exchange) -> None:
        if it.body.get("stream_id") == "bad":
            if "bad" in notes(it):
                raise Refused("spoiled")
            notes(it).add("bad")

    return Fault(heard=heard)


def forgetting_others(it: Exchange) -> None:
    for name in it.local.keys() - {it.made.response["id"]}:
        del it.local[name]


def one_conversation() -> Fault:
    """A lane remembers what was said in it."""
    notes = connections()

    def said(it: Exchange) -> None:
        if it.body.get("stream_id") == "b" and "said" in notes(it) and not previous(it):
            tokens(1000)(it)
        if "word word" in str(it.body.get("input")):
            notes(it).add("said")

    return Fault(said=said)


def without_a_lane() -> Fault:
    """What was said without a lane is not known in one."""
    made: set[str] = set()

    def heard(it: Exchange) -> None:
        if previous(it) in made and "stream_id" in it.body:
            raise Refused("no such response", "previous_response_id", "previous_response_not_found")

    def said(it: Exchange) -> None:
        if it.made and "stream_id" not in it.body:
            made.add(it.made.response["id"])

    return Fault(heard=heard, said=said)


def forgiving() -> Fault:
    """A failure leaves the parent where it was."""
    known: dict[str, Json] = {}

    def said(it: Exchange) -> None:
        if it.made:
            known[it.made.response["id"]] = it.made
        elif it.body.get("stream_id") == "a" and previous(it) in known:
            it.local[previous(it)] = known[previous(it)]

    return Fault(said=said)


def greeted(name: str) -> Meant:
    return lambda it: it.body.get("stream_id") == name and it.body["input"] == "Say hello." and previous(it)


MUTANTS: Mutants = {
    "a delta names no lane": (
        saying(lane("a-lane"), events("output_text.delta", change=nameless)),
        {"lanes.every-event-names-its-lane"},
    ),
    "events name the lane of others": (always_named(), {"lanes.events-without-a-lane-name-none"}),
    "errors name no lane": (saying(lane("a-lane"), errors(nameless)), {"lanes.an-error-names-its-lane"}),
    "names are short": (
        deaf(lambda it: len(it.body.get("stream_id") or "") == 256, "invalid_stream_id"),
        {"lanes.a-name-may-be-long-and-of-many-kinds"},
    ),
    "a slash is accepted": (hearing(lane("a/lane"), named("a-lane")), {"lanes.a-wrong-name-is-refused"}),
    "a wrong name is repeated": (saying(lane("a lane"), repeated), {"lanes.a-wrong-name-is-not-repeated"}),
    "some requests are too many": (
        saying(lane("lane-20"), too_busy),
        {"lanes.more-requests-than-are-served-at-once-wait"},
    ),
    "lanes are not counted": (
        hearing(lane("lane-too-many"), named("lane-0")),
        {"lanes.one-lane-too-many-is-refused"},
    ),
    "the lane too many is not named": (
        saying(lane("lane-too-many"), errors(nameless)),
        {"lanes.the-lane-that-is-too-many-is-named"},
    ),
    "old lanes are not served": (
        deaf(lambda it: it.body.get("stream_id") == "lane-0" and "instructions" not in it.body),
        {"lanes.an-old-lane-is-served-when-no-new-one-is"},
    ),
    "the lane without a name counts": (counting_all(), {"lanes.the-lane-without-a-name-does-not-count"}),
    "names are those of all connections": (counting_for_all(), {"lanes.every-connection-counts-its-own-lanes"}),
    "a lane is told in another order": (
        saying(lane("long"), responses(turned)),
        {"lanes.a-lane-answers-in-its-order"},
    ),
    "a lane is told all at once": (
        hearing(lane("long"), lambda it: named(it.body["instructions"].replace(" ", "-"))(it)),
        {"lanes.a-lane-answers-in-its-order", "lanes.lanes-count-their-events-apart"},
    ),
    "there is one lane": (in_one_lane(slowly=True), {"lanes.lanes-do-not-wait-for-each-other"}),
    "a number is left out": (saying(lane("short"), a_gap), {"lanes.lanes-count-their-events-apart"}),
    "an error ends its lane": (spoiled(), {"lanes.an-error-leaves-other-lanes-alone"}),
    "one lane is remembered": (
        saying(lane("c"), forgetting_others),
        {"lanes.each-lane-remembers-its-latest-response"},
    ),
    "a lane is a conversation": (one_conversation(), {"lanes.a-lane-is-no-conversation"}),
    "no lane can be forked": (deaf(greeted("b")), {"lanes.a-lane-continues-what-another-said"}),
    "what has no lane stays without": (without_a_lane(), {"lanes.a-lane-continues-what-was-said-without-one"}),
    "a fork that fails forgets its parent": (
        saying(lambda it: lane("b")(it) and not it.made, lambda it: it.local.pop(previous(it), None)),
        {"lanes.a-fork-that-fails-forgets-nothing"},
    ),
    "a failure forgets nothing": (forgiving(), {"lanes.a-failure-in-its-own-lane-forgets-the-parent"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_who_answers_at_once_cannot_be_seen_to_wait() -> None:
    assert await judged(chapter, in_one_lane(slowly=False)) == (set(), {"lanes.lanes-do-not-wait-for-each-other"})


async def test_who_counts_no_tokens_is_not_asked_what_the_model_saw() -> None:
    assert await judged(chapter, saying(lambda it: True, tokens(0))) == (set(), {"lanes.a-lane-is-no-conversation"})

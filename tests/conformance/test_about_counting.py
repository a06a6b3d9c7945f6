from collections.abc import Callable

from rejoinder.conformance.about_counting import chapter
from rejoinder.conformance.samples import UNKNOWN
from tests.conformance.judging import KEY, Mutants, broken, every, ids, in_responses, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def counted(is_meant: Callable[[Exchange], object], change: Callable[[Json], object]) -> Fault:
    """Changes counts."""

    def told(it: Exchange) -> None:
        for count in it.counted if is_meant(it) else ():
            change(count)

    return Fault(told=told)


def counting(change: Callable[[Exchange], object]) -> Fault:
    """Changes what is to be counted."""
    return Fault(asked=lambda it: change(it) if it.path == "/responses/input_tokens" else None)


def without(name: str) -> Fault:
    return counting(lambda it: it.body.pop(name, None))


def forgetting(it: Exchange) -> None:
    if it.body.get("previous_response_id") != UNKNOWN and it.key == f"Bearer {KEY}":
        it.body.pop("previous_response_id", None)


def reading_nulls(it: Exchange) -> None:
    if None in it.body.values():
        raise Refused("null", "tools")


def bent(it: Exchange) -> None:
    if it.body.get("input") == 7:
        it.body["input"] = "7"


def adding_what_is_counted() -> Fault:
    counted: set[str] = set()

    def told(it: Exchange) -> None:
        for _ in it.counted:
            counted.add(str(it.body.get("conversation")))
        for page in it.spoken if counted & {*it.place} else ():
            page["data"] *= 2

    return Fault(told=told)


def uncounted(response: Json) -> None:
    if response["usage"]:
        response["usage"].update(input_tokens=0, total_tokens=response["usage"]["output_tokens"])


MUTANTS: Mutants = {
    "a count does not say that it is one": (
        counted(lambda it: True, lambda count: count.pop("object")),
        {"counting.a-count-is-an-object"},
    ),
    "a long text is not counted": (
        counted(lambda it: it.said.startswith("Say hello. word"), lambda count: count.update(input_tokens=5)),
        {"counting.more-is-counted-as-more"},
    ),
    "a message is more than its text": (
        counted(lambda it: isinstance(it.body.get("input"), list), lambda count: count.update(input_tokens=99)),
        {"counting.a-text-is-one-message"},
    ),
    "instructions are not counted": (without("instructions"), {"counting.instructions-are-counted"}),
    "tools are not counted": (without("tools"), {"counting.tools-are-counted"}),
    "what was said before is not counted": (counting(forgetting), {"counting.what-was-said-before-is-counted"}),
    "a conversation is not counted": (without("conversation"), {"counting.a-conversation-is-counted"}),
    "counts are too high": (
        counted(lambda it: it.said.startswith("Answer"), lambda count: count.update(input_tokens=4000)),
        {"counting.a-count-is-what-a-response-takes"},
    ),
    "null is something": (counting(reading_nulls), {"counting.null-means-left-out"}),
    "a wrong input is bent": (counting(bent), {"counting.a-wrong-request-is-refused"}),
    "what is counted is said": (adding_what_is_counted(), {"counting.counting-adds-nothing"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_server_that_reports_no_tokens_is_not_compared_with_its_counts() -> None:
    found = await verdicts(LittleServer(in_responses(uncounted)), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {"counting.a-count-is-what-a-response-takes"}

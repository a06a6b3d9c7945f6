from collections.abc import Callable

from rejoinder.conformance.about_isolation import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import KEY, OTHER_KEY, Mutants, broken, every, ids, refusing, telling, verdicts
from tests.conformance.little_server import Exchange, Fault, LittleServer

FIRST, OTHER = f"Bearer {KEY}", f"Bearer {OTHER_KEY}"


def seeing(sees: Callable[[Exchange], object]) -> Fault:
    """Somebody else's requests of this kind, for something that is not theirs, are served as if it were."""
    owned: set[str] = set()

    def asked(it: Exchange) -> None:
        if it.key == OTHER and any(name in f"{it.path} {it.asked}" for name in owned) and sees(it):
            it.key = FIRST

    def told(it: Exchange) -> None:
        if it.key == FIRST and it.said == GREETING:
            owned.update(response["id"] for response in it.responses)
            owned.update(item["id"] for response in it.plain for item in response["output"])
        if it.key == FIRST and (it.method, it.path) == ("POST", "/conversations"):
            owned.update(conversation["id"] for conversation in it.conversation)

    return Fault(asked=asked, told=told)


def at(method: str, *place: str, stream: str | None = None) -> Callable[[Exchange], bool]:
    """Requests of this kind; the place has a `*` where an id stands."""

    def is_meant(it: Exchange) -> bool:
        named = len(it.place) == len(place) and all(one in ("*", it.place[at]) for at, one in enumerate(place))
        return it.method == method and named and it.query.get("stream") == stream

    return is_meant


def creating(name: str) -> Callable[[Exchange], object]:
    return lambda it: it.path == "/responses" and it.body.get(name)


def told_to_be_foreign() -> Fault:
    owned: set[str] = set()

    def told(it: Exchange) -> None:
        if it.key == FIRST and it.said == "This is mine.":
            owned.update(response["id"] for response in it.plain)
        if it.key == OTHER and owned & {*it.place}:
            for error in it.error:
                error["message"] = "not yours"

    return Fault(told=told)


MUTANTS: Mutants = {
    "responses are seen": (seeing(at("GET", "responses", "*")), {"isolation.a-response-is-seen-by-its-owner-alone"}),
    "input items are seen": (
        seeing(at("GET", "responses", "*", "input_items")),
        {"isolation.input-items-are-seen-by-their-owner-alone"},
    ),
    "responses are deleted": (
        seeing(at("DELETE", "responses", "*")),
        {"isolation.a-response-is-deleted-by-its-owner-alone"},
    ),
    "responses are cancelled": (
        seeing(at("POST", "responses", "*", "cancel")),
        {"isolation.a-response-is-cancelled-by-its-owner-alone"},
    ),
    "streams are followed": (
        seeing(at("GET", "responses", "*", stream="true")),
        {"isolation.a-stream-is-followed-by-its-owner-alone"},
    ),
    "responses are continued": (
        seeing(creating("previous_response_id")),
        {"isolation.a-response-is-continued-by-its-owner-alone"},
    ),
    "items are referred to": (
        seeing(lambda it: "item_reference" in str(it.asked)),
        {"isolation.an-item-is-referred-to-by-its-owner-alone"},
    ),
    "conversations are seen": (
        seeing(at("GET", "conversations", "*", "items")),
        {"isolation.a-conversation-is-seen-by-its-owner-alone"},
    ),
    "conversations are changed": (
        seeing(at("POST", "conversations", "*")),
        {"isolation.a-conversation-is-changed-by-its-owner-alone"},
    ),
    "conversations are continued": (
        seeing(creating("conversation")),
        {"isolation.a-conversation-is-continued-by-its-owner-alone"},
    ),
    "responses are compacted": (
        seeing(at("POST", "responses", "compact")),
        {"isolation.a-response-is-compacted-by-its-owner-alone"},
    ),
    "responses are counted": (
        seeing(at("POST", "responses", "input_tokens")),
        {"isolation.a-response-is-counted-by-its-owner-alone"},
    ),
    "what is foreign is called that": (told_to_be_foreign(), {"isolation.what-is-foreign-is-as-what-is-unknown"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_without_references_or_items_there_is_nothing_to_refer_to() -> None:
    rule = "isolation.an-item-is-referred-to-by-its-owner-alone"
    for fault in (
        refusing(lambda it: "item_reference" in str(it.asked), "input[0]"),
        telling(lambda it: True, lambda response: response["output"].clear()),
    ):
        little = LittleServer(fault, key=KEY, other_key=OTHER_KEY)
        found = await verdicts(little, key=KEY, other_key=OTHER_KEY, rules=list(chapter))
        assert rule in ids("not_applicable", found)


async def test_without_another_key_nothing_is_said_of_isolation() -> None:
    found = await verdicts(LittleServer(key=KEY), key=KEY, rules=list(chapter))
    assert ids("not_applicable", found) == {rule.id for rule in chapter}

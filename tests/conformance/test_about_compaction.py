from collections.abc import Callable

from rejoinder.conformance.about_compaction import chapter
from rejoinder.conformance.samples import UNKNOWN
from tests.conformance.judging import Mutants, bending, broken, every, ids, refusing, telling, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer

TRIGGER = {"type": "compaction_trigger"}


def compacted(change: Callable[[Json], object]) -> Fault:
    """Changes what compacting is answered with."""

    def told(it: Exchange) -> None:
        for compacted in it.compacted:
            change(compacted)

    return Fault(told=told)


def compacting(change: Callable[[Json], object]) -> Fault:
    """Changes what is to be compacted."""
    return Fault(asked=lambda it: change(it.body) if it.path == "/responses/compact" else None)


def refusing_to_compact(is_refused: Callable[[Json], object]) -> Fault:
    return refusing(lambda it: it.path == "/responses/compact" and is_refused(it.body))


def kinds(it: Exchange) -> list[str]:
    """The types of the items of an input."""
    given = it.body.get("input")
    items = given if isinstance(given, list) else []
    return [item.get("type", "message") for item in items if isinstance(item, dict)]


def triggered(it: Exchange) -> bool:
    return kinds(it)[-1:] == ["compaction_trigger"]


def compaction_first(told: Json) -> None:
    told["output"].insert(0, told["output"].pop())


def with_null(told: Json) -> None:
    told["output"][-1]["created_by"] = None


def without_status(told: Json) -> None:
    for item in told["output"][:-1]:
        item.pop("status")


def continuing_what_was_compacted() -> Fault:
    known: set[str] = set()

    def asked(it: Exchange) -> None:
        if it.body.get("previous_response_id") in known:
            it.body.pop("previous_response_id")

    def told(it: Exchange) -> None:
        known.update(told["id"] for told in it.compacted)

    return Fault(asked=asked, told=told)


def ignoring_the_unknown(body: Json) -> None:
    if body.get("previous_response_id") == UNKNOWN:
        body.pop("previous_response_id")


def twice(response: Json) -> None:
    response["output"] *= 2


def losing_early_triggers(body: Json) -> None:
    if isinstance(body.get("input"), list) and body["input"][-1:] != [TRIGGER]:
        body["input"] = [item for item in body["input"] if item != TRIGGER]


def unsealed(it: Exchange) -> None:
    if triggered(it) and it.body.get("stream"):
        for item in [
            *(event["item"] for event in it.of("output_item.done")),
            *(item for event in it.of("completed") for item in event["response"]["output"]),
        ]:
            item["encrypted_content"] = ""


def unmanaged(body: Json) -> None:
    if isinstance(body.get("input"), list):
        body.pop("context_management", None)


def generous(body: Json) -> None:
    for rule in body.get("context_management") or ():
        rule["compact_threshold"] = max(1000, rule.get("compact_threshold", 0))


def too_early(response: Json) -> None:
    response["output"].append({"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"})


MUTANTS: Mutants = {
    "a compacted response has no time": (
        compacted(lambda told: told.pop("created_at")),
        {"compaction.a-compacted-response-has-its-fields"},
    ),
    "the compaction comes first": (compacted(compaction_first), {"compaction.one-compaction-is-the-last-item"}),
    "a compaction has a null": (compacted(with_null), {"compaction.a-compaction-has-its-fields"}),
    "messages have no status": (compacted(without_status), {"compaction.what-users-said-stays"}),
    "a text cannot be compacted": (
        refusing_to_compact(lambda body: isinstance(body.get("input"), str) and "instructions" in body),
        {"compaction.a-text-can-be-compacted"},
    ),
    "no model is needed": (
        compacting(lambda body: body.setdefault("model", "little")),
        {"compaction.compacting-needs-a-model"},
    ),
    "what was compacted cannot go on": (
        refusing(lambda it: kinds(it) == ["message", "message", "compaction", "message"]),
        {"compaction.what-was-compacted-goes-on"},
    ),
    "nothing is compacted twice": (
        refusing_to_compact(lambda body: "compaction" in str(body.get("input"))),
        {"compaction.what-goes-on-can-be-compacted-again"},
    ),
    "what was compacted can be continued": (
        continuing_what_was_compacted(),
        {"compaction.what-was-compacted-is-no-previous-response"},
    ),
    "a stored response cannot be compacted": (
        refusing_to_compact(lambda body: "previous_response_id" in body and "input" not in body),
        {"compaction.a-stored-response-can-be-compacted"},
    ),
    "what is unknown is ignored": (
        compacting(ignoring_the_unknown),
        {"compaction.what-is-unknown-cannot-be-compacted"},
    ),
    "usage does not add up": (
        compacted(lambda told: told["usage"].update(total_tokens=0)),
        {"compaction.the-usage-of-compacting-adds-up"},
    ),
    "a trigger compacts twice": (
        telling(lambda it: triggered(it) and not it.body.get("stream"), twice),
        {"compaction.a-trigger-compacts-now"},
    ),
    "a trigger may be anywhere": (bending(losing_early_triggers), {"compaction.a-trigger-is-the-last-item"}),
    "what a trigger made cannot go on": (
        refusing(lambda it: kinds(it) == ["compaction", "message"]),
        {"compaction.what-a-trigger-made-goes-on"},
    ),
    "a compaction is not sealed in events": (
        Fault(told=unsealed),
        {"compaction.a-triggered-compaction-can-be-streamed"},
    ),
    "the context is not managed": (bending(unmanaged), {"compaction.a-long-context-is-compacted"}),
    "everything is compacted": (
        telling(lambda it: it.said and "context_management" in it.body, too_early),
        {"compaction.a-short-context-is-not-compacted"},
    ),
    "a threshold is raised": (bending(generous), {"compaction.a-threshold-has-a-lowest-value"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_server_that_compacts_nowhere_breaks_no_rule() -> None:
    def lacking(it: Exchange) -> bool:
        return it.path == "/responses/compact"

    def told(it: Exchange) -> None:
        if lacking(it):
            it.status, it.told = 404, {"error": {"message": "nothing there"}}

    refused = refusing(lambda it: triggered(it) or "context_management" in it.body, "input")
    managed = Fault(asked=refused.asked, told=told)
    found = await verdicts(LittleServer(managed), rules=list(chapter))
    assert ids("not_applicable", found) | ids("broken", found) == {rule.id for rule in chapter}

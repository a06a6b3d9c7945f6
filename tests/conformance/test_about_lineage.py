import re
from collections.abc import Callable

from rejoinder.conformance.about_lineage import chapter
from rejoinder.conformance.samples import GREETING, UNKNOWN
from tests.conformance.judging import KEY, Mutants, broken, every, ids, in_responses, refusing, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused


def ignoring(is_ignored: Callable[[Exchange, str], object]) -> Callable[[Exchange], None]:
    """Drops the previous response silently when it is one of these."""

    def asked(it: Exchange) -> None:
        previous = it.body.get("previous_response_id")
        if isinstance(previous, str) and is_ignored(it, previous):
            it.body.pop("previous_response_id")

    return asked


def is_bare(it: Exchange) -> bool:
    """Whether a greeting continues something and says nothing else."""
    named = it.body.keys() == {"model", "input", "previous_response_id"}
    return it.path == "/responses" and named and it.said == GREETING and it.key == f"Bearer {KEY}"


def forgetting_unstored() -> Fault:
    unstored: set[str] = set()

    def told(it: Exchange) -> None:
        unstored.update(response["id"] for response in it.plain if not response["store"])

    return Fault(asked=ignoring(lambda _, previous: previous in unstored), told=told)


def forgetting_deleted() -> Fault:
    deleted: set[str] = set()

    def told(it: Exchange) -> None:
        if it.method == "DELETE" and it.status == 200:
            deleted.add(it.path.rpartition("/")[2])

    return Fault(asked=ignoring(lambda _, previous: previous in deleted), told=told)


def reading_one_response_back() -> Fault:
    """The context is the previous response and nothing before it."""
    children: set[str] = set()

    def told(it: Exchange) -> None:
        for response in it.plain:
            if (previous := response["previous_response_id"]) is not None:
                children.add(response["id"])
                if previous in children:
                    response["usage"].update(input_tokens=10, total_tokens=10 + response["usage"]["output_tokens"])

    return Fault(told=told)


def counting_its_children() -> Fault:
    children: list[str] = []

    def told(it: Exchange) -> None:
        if it.said == "Say no.":
            children.extend(response["previous_response_id"] for response in it.plain)
        for response in it.kept:
            if count := children.count(response["id"]):
                response["metadata"] = {"children": str(count)}

    return Fault(told=told)


def inheriting(name: str) -> Fault:
    known: dict[str, Json] = {}

    def told(it: Exchange) -> None:
        for response in it.plain:
            if inherited := known.get(response["previous_response_id"]):
                response[name] = inherited
            known[response["id"]] = response[name]

    return Fault(told=told)


def keeping_instructions() -> Fault:
    """The instructions of the previous response stay in the context."""
    known: dict[str, int] = {}

    def told(it: Exchange) -> None:
        for response in it.plain:
            words = len((response["instructions"] or "").split())
            inherited = known.get(response["previous_response_id"], 0)
            known[response["id"]] = words
            usage = response["usage"] or {"input_tokens": 0, "output_tokens": 0}
            usage.update(input_tokens=usage["input_tokens"] + inherited)
            usage.update(total_tokens=usage["input_tokens"] + usage["output_tokens"])

    return Fault(told=told)


def alone(response: Json) -> None:
    if response["usage"] and response["previous_response_id"]:
        response["usage"].update(input_tokens=8, total_tokens=8 + response["usage"]["output_tokens"])


def uncounted(response: Json) -> None:
    if response["usage"]:
        response["usage"].update(input_tokens=0, total_tokens=response["usage"]["output_tokens"])


def nameless(response: Json) -> None:
    response["usage"] = None


def streamed_alone(it: Exchange) -> None:
    for response in it.responses if it.events else ():
        response["previous_response_id"] = None


def without_parents(it: Exchange) -> None:
    for response in it.plain:
        response["previous_response_id"] = None


def same_ids(it: Exchange) -> None:
    for response in it.plain:
        if response["output"] and (response["previous_response_id"] or len(str(it.body["input"])) > 1000):
            response["output"][0]["id"] = "rs_same"


def without_references(it: Exchange) -> None:
    given = it.body.get("input")
    if isinstance(given, list):
        it.body["input"] = [item for item in given if item != {"type": "item_reference", "id": "msg_" + "0" * 32}]


def coded(it: Exchange) -> None:
    for error in it.error:
        if error["code"] == "previous_response_not_found":
            error["code"] = "not_found"


def no_references(it: Exchange) -> None:
    if "item_reference" in str(it.body.get("input")):
        raise Refused("no references", "input[0]")


def empty(it: Exchange) -> None:
    for response in it.plain:
        response["output"] = []


def naming_only_streams() -> Fault:
    """A response does not name the one before if both came in one piece, and the child was greeted."""
    streamed: set[str] = set()

    def told(it: Exchange) -> None:
        streamed.update(event["response"]["id"] for event in it.of("completed"))
        for response in it.plain:
            is_greeted = it.said == GREETING and not it.body.get("background")
            if is_greeted and response["previous_response_id"] not in streamed:
                response["previous_response_id"] = None

    return Fault(told=told)


def seeing_little() -> Fault:
    """The context grows by five tokens with every response, however long that is."""
    depths: dict[str | None, int] = {}

    def told(it: Exchange) -> None:
        for response in it.plain:
            depths[response["id"]] = depth = depths.get(response["previous_response_id"], 0) + 1
            if depth > 1 and response["usage"]:
                tokens = 5 * depth
                response["usage"].update(input_tokens=tokens, total_tokens=tokens + response["usage"]["output_tokens"])

    return Fault(told=told)


def telling_siblings() -> Fault:
    """A third child reads what the second one was told."""
    children: list[str] = []

    def told(it: Exchange) -> None:
        for response in it.plain:
            children.append(response["previous_response_id"])
            if it.said == GREETING and children.count(response["previous_response_id"]) == 3:
                tokens = response["usage"]["input_tokens"] + 400
                response["usage"].update(input_tokens=tokens, total_tokens=tokens + response["usage"]["output_tokens"])

    return Fault(told=told)


def keeping_children() -> Fault:
    known: dict[str, Json] = {}

    def told(it: Exchange) -> None:
        known.update((response["id"], response) for response in it.plain if it.said == "Once, and no more.")
        if it.method == "GET" and it.place[-1] in known:
            it.status, it.told = 200, known[it.place[-1]]

    return Fault(told=told)


MUTANTS: Mutants = {
    "a limit is inherited": (inheriting("max_output_tokens"), {"lineage.limits-and-choices-are-not-inherited"}),
    "siblings are read": (telling_siblings(), {"lineage.siblings-do-not-see-each-other"}),
    "a child is kept though it need not be": (keeping_children(), {"lineage.a-continuation-need-not-be-stored"}),
    "a continuation is a message of the user": (
        refusing(lambda it: it.body.get("previous_response_id") and "'developer'" in str(it.body.get("input"))),
        {"lineage.a-continuation-may-have-items"},
    ),
    "a greeted child does not name its parent": (naming_only_streams(), {"lineage.a-response-continues-another"}),
    "the context is a summary": (seeing_little(), {"lineage.the-model-sees-what-was-said-before"}),
    "the parent is not named": (
        Fault(told=without_parents),
        {
            "lineage.a-response-continues-another",
            "lineage.a-response-can-be-continued-twice",
            "lineage.a-stream-continues-another",
            "lineage.a-continuation-may-have-items",
            "lineage.a-continuation-need-not-be-stored",
            "storage.a-deletion-leaves-what-came-before",
            "background.it-can-be-continued",
            "background.it-continues-another",
        },
    ),
    "the context is empty": (
        in_responses(alone),
        {"lineage.the-model-sees-what-was-said-before", "lineage.a-chain-remembers-its-beginning"},
    ),
    "the context is one response long": (reading_one_response_back(), {"lineage.a-chain-remembers-its-beginning"}),
    "a parent is changed by its children": (counting_its_children(), {"lineage.a-response-can-be-continued-twice"}),
    "a stream does not name its parent": (Fault(told=streamed_alone), {"lineage.a-stream-continues-another"}),
    "tools are inherited": (inheriting("tools"), {"lineage.settings-are-not-inherited"}),
    "instructions are inherited": (inheriting("instructions"), {"lineage.settings-are-not-inherited"}),
    "instructions stay in the context": (keeping_instructions(), {"lineage.instructions-leave-the-context"}),
    "an unknown response is ignored": (
        Fault(asked=ignoring(lambda it, previous: previous == UNKNOWN and is_bare(it))),
        {"lineage.an-unknown-previous-response-is-refused"},
    ),
    "the code is another one": (
        Fault(told=coded),
        {
            "lineage.an-unknown-previous-response-is-refused",
            "isolation.a-response-is-continued-by-its-owner-alone",
        },
    ),
    "a malformed id is ignored": (
        Fault(asked=ignoring(lambda _, previous: not re.fullmatch(r"[A-Za-z0-9_-]+", previous))),
        {"lineage.a-malformed-previous-response-is-refused"},
    ),
    "what is not stored is ignored": (forgetting_unstored(), {"lineage.what-is-not-stored-cannot-be-continued"}),
    "what was deleted is ignored": (forgetting_deleted(), {"lineage.what-was-deleted-cannot-be-continued"}),
    "items of two responses share an id": (Fault(told=same_ids), {"lineage.ids-are-unique-over-a-chain"}),
    "an unknown reference is ignored": (Fault(asked=without_references), {"lineage.a-stored-item-can-be-referred-to"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_server_that_counts_no_tokens_is_not_asked_what_it_read() -> None:
    found = await verdicts(LittleServer(in_responses(uncounted)), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {
        "lineage.the-model-sees-what-was-said-before",
        "lineage.a-chain-remembers-its-beginning",
        "lineage.instructions-leave-the-context",
        "lineage.siblings-do-not-see-each-other",
    }


async def test_a_server_that_reports_no_usage_fails() -> None:
    found = await verdicts(LittleServer(in_responses(nameless)), rules=list(chapter))
    assert "lineage.the-model-sees-what-was-said-before" in ids("broken", found)


async def test_without_references_or_items_there_is_nothing_to_refer_to() -> None:
    for fault in (Fault(asked=no_references), Fault(told=empty)):
        found = await verdicts(LittleServer(fault), rules=list(chapter))
        assert "lineage.a-stored-item-can-be-referred-to" in ids("not_applicable", found)

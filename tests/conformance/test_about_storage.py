import itertools

from rejoinder.conformance.about_storage import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import (
    KEY,
    Mutants,
    broken,
    every,
    ids,
    in_responses,
    is_nobodys,
    keeping,
    refusing,
    telling,
    verdicts,
)
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused

FIRST = f"Bearer {KEY}"


def is_first(it: Exchange) -> bool:
    """Whether it is a greeting and nothing else."""
    return it.body.keys() == {"model", "input"} and it.said == GREETING


def large(response: Json) -> None:
    response["model"] = "large"


def remembering_what_is_not_stored() -> Fault:
    known: dict[str, Json] = {}

    def told(it: Exchange) -> None:
        if it.body.keys() == {"model", "input", "store"}:
            known.update((response["id"], response) for response in it.plain if not response["store"])
        if it.method == "GET" and (response := known.get(it.path.rpartition("/")[2])):
            it.status, it.told = 200, response

    return Fault(told=told)


def unknown_is_wrong(it: Exchange) -> None:
    is_meant = it.method == "DELETE" and it.place[0] == "responses" and is_nobodys(it.path)
    if is_meant and it.key == FIRST:
        it.status = 400


def half_deleted(it: Exchange) -> None:
    if it.method == "DELETE" and it.status == 200 and it.place[0] == "responses":
        it.told.pop("deleted")


def deleting_twice(it: Exchange) -> None:
    is_known = it.place[0] == "responses" and not is_nobodys(it.path)
    if it.method == "DELETE" and it.status == 404 and is_known and it.key == FIRST:
        it.status, it.told = 200, {}


def deleting_children() -> Fault:
    parents: dict[str, str] = {}
    deleted: set[str] = set()

    def told(it: Exchange) -> None:
        parents.update((response["id"], response["previous_response_id"]) for response in it.plain)
        if it.method == "DELETE":
            deleted.add(it.path.rpartition("/")[2])
        for response in it.kept:
            if parents.get(response["id"]) in deleted:
                it.status, it.told = 404, {"error": {"message": "gone"}}

    return Fault(told=told)


def first_found_differently() -> Fault:
    """The third time it is asked for; before that it is only asked whether it is there."""
    made: set[str] = set()
    times = itertools.count(1)

    def told(it: Exchange) -> None:
        if is_first(it):
            made.update(response["id"] for response in it.plain)
        for response in it.kept if not it.query else ():
            if response["id"] in made and next(times) == 3:
                large(response)

    return Fault(told=told)


def including_nothing(it: Exchange) -> None:
    if it.query.get("include[]") == "no.such.thing" and len(it.place) == 2:
        it.query.clear()


def deleting_parents() -> Fault:
    parents: dict[str, str] = {}
    gone: set[str] = set()

    def asked(it: Exchange) -> None:
        if it.method == "GET" and it.place[-1] in gone:
            gone.clear()
            raise Refused("gone", status=404)

    def told(it: Exchange) -> None:
        if it.said == "Say that you go.":
            parents.update((response["id"], response["previous_response_id"]) for response in it.plain)
        if it.method == "DELETE" and it.place[-1] in parents:
            gone.add(parents[it.place[-1]])

    return Fault(asked=asked, told=told)


def losing_the_first() -> Fault:
    """The answer to the first greeting is not found again."""
    lost: set[str] = set()

    def asked(it: Exchange) -> None:
        if (it.method, it.place[0]) == ("GET", "responses") and len(it.place) == 2 and it.place[1] in lost:
            raise Refused("nowhere", status=404)

    def told(it: Exchange) -> None:
        if is_first(it) and not lost:
            lost.update(response["id"] for response in it.plain)

    return Fault(asked=asked, told=told)


MUTANTS: Mutants = {
    "a response is lost": (losing_the_first(), {"storage.what-is-stored-can-be-asked-for"}),
    "another response is kept": (
        telling(is_first, large),
        {"storage.a-response-is-kept-as-it-was-answered", "compaction.a-stored-response-can-be-compacted"},
    ),
    "another response is found": (first_found_differently(), {"storage.a-response-is-kept-as-it-was-answered"}),
    "everything says that it is stored": (
        telling(lambda it: it.body.keys() == {"model", "input", "store"}, lambda response: response.update(store=True)),
        {"storage.storing-is-what-happens-unasked"},
    ),
    "metadata is not kept": (
        keeping(lambda it: "metadata" in it.body and "tools" in it.body, lambda response: response.update(metadata={})),
        {"storage.what-was-asked-is-kept-with-it"},
    ),
    "another call is kept": (
        keeping(lambda it: it.body.get("tool_choice") == "required", large),
        {"storage.a-call-is-kept-as-it-was-made"},
    ),
    "another cut answer is kept": (
        keeping(lambda it: it.body.get("max_output_tokens") == 16, large),
        {"storage.a-cut-answer-is-kept"},
    ),
    "nothing is included later": (
        refusing(lambda it: it.query.get("include[]") == "message.output_text.logprobs" and len(it.place) == 2),
        {"storage.more-can-be-included-later"},
    ),
    "anything is included": (Fault(asked=including_nothing), {"storage.an-unknown-include-is-refused"}),
    "parents go with their child": (deleting_parents(), {"storage.a-deletion-leaves-what-came-before"}),
    "everything is stored": (remembering_what_is_not_stored(), {"storage.what-is-not-stored-is-not-found"}),
    "what is unknown is a wrong request": (Fault(told=unknown_is_wrong), {"storage.an-unknown-response-is-not-found"}),
    "a deletion does not say so": (Fault(told=half_deleted), {"storage.a-deletion-says-what-was-deleted"}),
    "a response can be deleted twice": (Fault(told=deleting_twice), {"storage.what-was-deleted-is-not-found"}),
    "children go with their parent": (deleting_children(), {"storage.a-deletion-leaves-what-followed"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_server_that_stores_nothing_is_not_asked_for_what_it_stored() -> None:
    found = await verdicts(LittleServer(in_responses(unstored)), rules=list(chapter))
    assert ids("not_applicable", found) == {rule.id for rule in chapter}


def unstored(response: Json) -> None:
    response["store"] = False


async def test_without_tools_there_are_no_calls_to_keep() -> None:
    found = await verdicts(LittleServer(refuses="tools"), rules=list(chapter))
    assert ids("not_applicable", found) == {
        "storage.what-was-asked-is-kept-with-it",
        "storage.a-call-is-kept-as-it-was-made",
    }

from rejoinder.conformance.samples import UNKNOWN
from tests.conformance.judging import Mutants, broken, every
from tests.conformance.little_server import Exchange, Fault, Json


def another_model(it: Exchange) -> None:
    for response in it.plain:
        response["model"] = "large"


def remembering_what_is_not_stored() -> Fault:
    known: dict[str, Json] = {}

    def told(it: Exchange) -> None:
        known.update((response["id"], response) for response in it.plain if not response["store"])
        if it.method == "GET" and (response := known.get(it.path.rpartition("/")[2])):
            it.status, it.told = 200, response

    return Fault(told=told)


def unknown_is_wrong(it: Exchange) -> None:
    if it.method == "DELETE" and it.path.endswith(UNKNOWN):
        it.status = 400


def half_deleted(it: Exchange) -> None:
    if it.method == "DELETE" and it.status == 200:
        it.told.pop("deleted")


def deleting_twice(it: Exchange) -> None:
    if it.method == "DELETE" and it.status == 404 and not it.path.endswith(UNKNOWN):
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


MUTANTS: Mutants = {
    "another response is kept": (Fault(told=another_model), {"storage.a-response-is-kept-as-it-was-answered"}),
    "everything is stored": (remembering_what_is_not_stored(), {"storage.what-is-not-stored-is-not-found"}),
    "what is unknown is a wrong request": (Fault(told=unknown_is_wrong), {"storage.an-unknown-response-is-not-found"}),
    "a deletion does not say so": (Fault(told=half_deleted), {"storage.a-deletion-says-what-was-deleted"}),
    "a response can be deleted twice": (Fault(told=deleting_twice), {"storage.what-was-deleted-is-not-found"}),
    "children go with their parent": (deleting_children(), {"storage.a-deletion-leaves-what-followed"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks

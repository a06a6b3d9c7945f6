from collections.abc import Callable

from tests.conformance.judging import Mutants, broken, every
from tests.conformance.little_server import Exchange, Fault, Json


def in_pages(change: Callable[[Exchange, Json], object]) -> Fault:
    def told(it: Exchange) -> None:
        for page in it.listed:
            change(it, page)

    return Fault(told=told)


def asked(change: Callable[[dict[str, str]], object]) -> Fault:
    return Fault(asked=lambda it: change(it.query))


def without_status(it: Exchange, page: Json) -> None:
    for item in page["data"]:
        item.pop("status")


def with_the_answer(it: Exchange, page: Json) -> None:
    if it.query == {"order": "asc"}:
        page["data"].append({"type": "message", "id": "msg_answer", "status": "completed", "content": "Hello."})


def others(it: Exchange, page: Json) -> None:
    if it.query == {"limit": "1"}:
        page["data"][0]["content"][0]["text"] = "first"


def bounded(query: dict[str, str]) -> None:
    if query.get("limit") == "101":
        query["limit"] = "100"


def ownerless(it: Exchange) -> None:
    if it.path == "/models" and it.status == 200:
        it.told["data"][0].pop("owned_by")


def unasked(it: Exchange) -> None:
    if it.path.startswith("/models/"):
        it.status = 404


MUTANTS: Mutants = {
    "a list does not say that it is one": (
        in_pages(lambda it, page: page.pop("object")),
        {"lists.input-items-are-a-list"},
    ),
    "items have no status": (in_pages(without_status), {"lists.listed-items-have-an-id"}),
    "the answer is listed too": (in_pages(with_the_answer), {"lists.input-items-are-what-was-sent"}),
    "the oldest comes first": (
        asked(lambda query: query.setdefault("order", "asc")),
        {"lists.the-newest-item-comes-first"},
    ),
    "every page is the first": (asked(lambda query: query.pop("after", "")), {"lists.pages-join-to-the-list"}),
    "there is never more": (
        in_pages(lambda it, page: page.update(has_more=False)),
        {"lists.pages-join-to-the-list"},
    ),
    "a page names other ends": (
        in_pages(lambda it, page: page.update(last_id=page["first_id"])),
        {"lists.a-page-names-its-ends"},
    ),
    "a limit is bent": (asked(bounded), {"lists.a-wrong-page-is-refused"}),
    "a child lists something else": (in_pages(others), {"lists.a-child-lists-what-it-was-sent"}),
    "models belong to nobody": (Fault(told=ownerless), {"lists.models-are-a-list"}),
    "a model cannot be asked for": (Fault(told=unasked), {"lists.a-model-can-be-asked-for"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks

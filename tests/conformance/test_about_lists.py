import itertools
from collections.abc import Callable

from rejoinder.conformance.about_lists import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import Mutants, broken, every, ids, refusing, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer


def in_pages(change: Callable[[Exchange, Json], object]) -> Fault:
    def told(it: Exchange) -> None:
        for page in it.listed:
            change(it, page)

    return Fault(told=told)


def asked(change: Callable[[dict[str, str]], object]) -> Fault:
    return Fault(asked=lambda it: change(it.query) if it.place[-1] == "input_items" else None)


def without_status(it: Exchange, page: Json) -> None:
    for item in page["data"] if "fifth" in str(page["data"]) else ():
        item.pop("status")


def with_the_answer(it: Exchange, page: Json) -> None:
    if it.query == {"order": "asc"} and "fifth" in str(page["data"]):
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


def a_hundred(query: dict[str, str]) -> None:
    if query.get("limit") == "100":
        query["limit"] = "24"


def with_other_ids() -> Fault:
    numbers = itertools.count()

    def told(it: Exchange) -> None:
        for page in it.listed if not it.query else ():
            for item in page["data"]:
                item["id"] = f"msg_{next(numbers)}"

    return Fault(told=told)


def mere_texts(it: Exchange, page: Json) -> None:
    if [item["content"][0].get("text") for item in page["data"] if "content" in item] == [GREETING]:
        page["data"][0]["content"][0]["type"] = "text"


def all_by_users(it: Exchange, page: Json) -> None:
    for item in page["data"]:
        if not it.query and item.get("role") == "assistant":
            item["content"][0]["type"] = "input_text"


def with_instructions(it: Exchange, page: Json) -> None:
    if "You are polite." in str(page["data"]):
        page["data"].append({"type": "message", "role": "system", "content": "Be brief."})


def without_phases(it: Exchange, page: Json) -> None:
    for item in page["data"]:
        item.pop("phase", None)


def outputs_without_status(it: Exchange, page: Json) -> None:
    for item in page["data"]:
        if item["type"] == "function_call_output":
            item.pop("status")


def in_pictures(change: Callable[[Json], object]) -> Fault:
    def told(it: Exchange) -> None:
        for page in it.listed:
            for item in page["data"]:
                for part in item.get("content", ()):
                    if part["type"] == "input_image":
                        change(part)

    return Fault(told=told)


MUTANTS: Mutants = {
    "a page has more items": (asked(lambda query: query.setdefault("limit", "30")), {"lists.a-page-has-twenty-items"}),
    "a hundred items are too many": (asked(a_hundred), {"lists.a-page-may-have-a-hundred-items"}),
    "ids are new each time": (with_other_ids(), {"lists.listed-items-keep-their-ids"}),
    "a text is a part of its own kind": (in_pages(mere_texts), {"lists.a-text-is-listed-as-a-message"}),
    "everything is input": (in_pages(all_by_users), {"lists.messages-have-the-parts-of-their-role"}),
    "instructions are listed": (in_pages(with_instructions), {"lists.instructions-are-not-listed"}),
    "phases are lost": (in_pages(without_phases), {"lists.a-phase-is-kept"}),
    "outputs have no status": (in_pages(outputs_without_status), {"lists.calls-and-outputs-are-listed"}),
    "an image has no detail": (
        in_pictures(lambda part: part.pop("detail")),
        {"lists.an-image-is-listed-with-its-detail"},
    ),
    "an image has no URL": (
        in_pictures(lambda part: part.pop("image_url", None)),
        {"lists.the-url-of-an-image-can-be-included"},
    ),
    "anything is included": (
        asked(lambda query: query.pop("include[]", "") if query.get("include[]") == "no.such.thing" else None),
        {"lists.an-unknown-include-is-refused"},
    ),
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
        {"lists.pages-join-to-the-list", "lists.a-page-has-twenty-items"},
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


async def test_without_images_or_tools_there_is_nothing_to_list() -> None:
    blind = refusing(lambda it: "input_image" in str(it.body.get("input")) or "tools" in it.body, "input")
    found = await verdicts(LittleServer(blind), rules=list(chapter))
    assert ids("not_applicable", found) >= {
        "lists.an-image-is-listed-with-its-detail",
        "lists.the-url-of-an-image-can-be-included",
    }

from collections.abc import Callable

import pytest

from rejoinder.conformance.about_lists import theme
from tests.conformance.judging import failed, named, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer


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
    if it.path == "/models":
        it.told["data"][0].pop("owned_by")


def unasked(it: Exchange) -> None:
    if it.path.startswith("/models/"):
        it.status = 404


FAULTS = {
    "a list does not say that it is one": (
        in_pages(lambda it, page: page.pop("object")),
        {"input-items-are-a-list", "listed-items-have-an-id"},
    ),
    "items have no status": (in_pages(without_status), {"listed-items-have-an-id"}),
    "the answer is listed too": (in_pages(with_the_answer), {"input-items-are-what-was-sent"}),
    "the oldest comes first": (
        asked(lambda query: query.setdefault("order", "asc")),
        {"the-newest-item-comes-first"},
    ),
    "every page is the first": (asked(lambda query: query.pop("after", "")), {"pages-join-to-the-list"}),
    "there is never more": (
        in_pages(lambda it, page: page.update(has_more=False)),
        {"pages-join-to-the-list"},
    ),
    "a page names other ends": (
        in_pages(lambda it, page: page.update(last_id=page["first_id"])),
        {"a-page-names-its-ends"},
    ),
    "a limit is bent": (asked(bounded), {"a-wrong-page-is-refused"}),
    "a child lists something else": (in_pages(others), {"a-child-lists-what-it-was-sent"}),
    "models belong to nobody": (Fault(told=ownerless), {"models-are-a-list"}),
    "a model cannot be asked for": (Fault(told=unasked), {"a-model-can-be-asked-for"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_fails_its_cases_alone(name: str) -> None:
    fault, expected = FAULTS[name]
    assert await failed(fault) == expected


async def test_a_server_that_keeps_the_rules_passes() -> None:
    assert named("pass", await verdicts(LittleServer(), cases=list(theme))) == {case.name for case in theme}


def test_every_case_can_fail() -> None:
    assert {case.name for case in theme} <= set().union(*(expected for _, expected in FAULTS.values()))

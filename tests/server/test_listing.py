import json

import msgspec
import pytest

from rejoinder.server.errors import InvalidRequest
from rejoinder.server.listing import ItemList, Page, page

NOTHING: frozenset[str] = frozenset()
ITEMS = [json.dumps({"id": f"msg_{number}", "type": "function_call", "n": number}).encode() for number in range(5)]


def ids(found: ItemList) -> list[str]:
    return [json.loads(bytes(raw))["id"] for raw in found.data]


def test_the_newest_item_comes_first_unless_asked_otherwise() -> None:
    assert Page.of({}) == Page(limit=20, order="desc", after=None)
    assert ids(page(ITEMS, Page.of({}), NOTHING)) == ["msg_4", "msg_3", "msg_2", "msg_1", "msg_0"]
    assert ids(page(ITEMS, Page.of({"order": "asc"}), NOTHING)) == ["msg_0", "msg_1", "msg_2", "msg_3", "msg_4"]


@pytest.mark.parametrize("limit", ["1", "100", "007"])
def test_a_limit_may_be_from_1_to_100(limit: str) -> None:
    assert Page.of({"limit": limit}).limit == int(limit)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "", "ten", "١", "9" * 5000])
def test_any_other_limit_is_an_error_that_names_it(limit: str) -> None:
    with pytest.raises(InvalidRequest, match="expected an integer from 1 to 100") as caught:
        Page.of({"limit": limit})
    assert (caught.value.param, caught.value.code) == ("limit", "invalid_value")
    assert len(str(caught.value)) < 120


def test_an_order_that_is_none_is_an_error_that_names_both() -> None:
    with pytest.raises(InvalidRequest, match=r"'upwards'\. Supported values are: 'asc' and 'desc'") as caught:
        Page.of({"order": "upwards"})
    assert (caught.value.param, caught.value.code) == ("order", "invalid_value")


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_pages_follow_one_another_without_a_gap_or_an_overlap(order: str, limit: int) -> None:
    found: list[str] = []
    query = {"order": order, "limit": str(limit)}
    while True:
        one = page(ITEMS, Page.of(query), NOTHING)
        assert (one.first_id, one.last_id) == (ids(one)[0], ids(one)[-1])
        found += ids(one)
        if not one.has_more:
            break
        assert len(one.data) == limit
        query["after"] = ids(one)[-1]
    forwards = [f"msg_{number}" for number in range(5)]
    assert found == (forwards if order == "asc" else forwards[::-1])


def test_after_the_last_item_there_is_an_empty_page() -> None:
    one = page(ITEMS, Page.of({"order": "asc", "after": "msg_4"}), NOTHING)
    assert msgspec.json.encode(one) == (b'{"data":[],"first_id":null,"last_id":null,"has_more":false,"object":"list"}')


def test_an_after_that_is_not_in_the_list_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidRequest, match="no item with this id") as caught:
        page(ITEMS, Page(after="msg_9"), NOTHING)
    assert caught.value.param == "after"


def test_items_are_listed_as_the_bytes_they_are() -> None:
    odd = b'{"id": "x", "type":"function_call",  "n": 1.50, "t": "\\u00e9"}'
    assert odd in msgspec.json.encode(page([odd], Page(), NOTHING))

"""Lists: the items a response was made from, and the models."""

from urllib.parse import quote

import msgspec

from rejoinder.conformance.answer import Answer, Page, create, read, refusal_in
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.server import Server
from rejoinder.conformance.shape import ListedItem, ListShape, ModelListShape, ModelShape

chapter = Chapter("lists", "Lists and paging")

_SAID = ["first", "second", "third", "fourth", "fifth"]
_MOST_PAGES = 10


async def _listed(server: Server) -> Answer:
    """A response to five messages, by the user and the assistant in turn."""
    roles = ["user", "assistant", "user", "assistant", "user"]
    return await create(
        server, input=[{"role": role, "content": text} for role, text in zip(roles, _SAID, strict=True)]
    )


async def _page(server: Server, **query: str) -> Page:
    answer = await server.once(_listed)
    reply = await server.get(f"/responses/{answer.id}/input_items", **query)
    return read(Page, reply.expect(200).body, "a list of items")


def _texts(page: Page) -> list[str]:
    return [item.text for item in page.data]


@chapter.rule
async def input_items_are_a_list(server: Server) -> None:
    """A list says that it is one, holds data, its first and last id, and whether there is more.

    Source: API reference, List input items (http.md §3).
    """
    answer = await server.once(_listed)
    reply = (await server.get(f"/responses/{answer.id}/input_items")).expect(200)
    read(ListShape, reply.body, "a list of items")


@chapter.rule
async def listed_items_have_an_id(server: Server) -> None:
    """Every listed item has a type, an id and a status, also those that were sent without.

    Source: API reference, List input items (objects.md §6, http.md §3).
    """
    answer = await server.once(_listed)
    reply = (await server.get(f"/responses/{answer.id}/input_items")).expect(200)
    for item in read(_Data, reply.body, "a list of items").data:
        read(ListedItem, item, "a listed item")


class _Data(msgspec.Struct):
    data: list[msgspec.Raw]


@chapter.rule
async def input_items_are_what_was_sent(server: Server) -> None:
    """The input items are what the response was given: everything that was sent, and nothing of what was answered.

    Source: API reference, List input items (semantics.md §3).
    """
    answer = await server.once(_listed)
    page = await _page(server, order="asc")
    expect_equal("the texts of the items", _SAID, _texts(page))
    output = {item.id for item in answer.output}
    expect(not output & {item.id for item in page.data}, "no item of the answer in the list of its input", output)


@chapter.rule
async def the_newest_item_comes_first(server: Server) -> None:
    """Without an order, and with desc, a list begins with the newest item.

    Source: API reference, List input items (http.md §1).
    """
    expect_equal("the texts without an order", _SAID[::-1], _texts(await _page(server)))
    expect_equal("the texts in the order desc", _SAID[::-1], _texts(await _page(server, order="desc")))


@chapter.rule
async def pages_join_to_the_list(server: Server) -> None:
    """Pages of two, each after the last item of the one before, are the whole list in both orders.

    Source: API reference, List input items; openai-python's pages (http.md §3).
    """
    for order, whole in (("asc", _SAID), ("desc", _SAID[::-1])):
        found: list[str] = []
        query = {"order": order, "limit": "2"}
        for _ in range(_MOST_PAGES):
            page = await _page(server, **query)
            found.extend(_texts(page))
            ids = [item.id or "" for item in page.data]
            if not page.has_more or not ids:
                break
            expect_equal("the number of items on a page", 2, len(ids))
            query["after"] = ids[-1]
        expect_equal(f"the texts of all pages in the order {order}", whole, found)


@chapter.rule
async def a_page_names_its_ends(server: Server) -> None:
    """A page says the ids of its first and its last item: first_id and last_id.

    Source: API reference, List input items (http.md §3).
    """
    page = await _page(server, limit="3")
    ids = [item.id for item in page.data]
    expect_equal("first_id and last_id", (ids[0], ids[-1]) if ids else None, (page.first_id, page.last_id))


@chapter.rule
async def a_wrong_page_is_refused(server: Server) -> None:
    """A limit is from 1 to 100 and an order is asc or desc; anything else is status 400.

    Source: API reference, List input items (http.md §1).
    """
    answer = await server.once(_listed)
    path = f"/responses/{answer.id}/input_items"
    for limit in ("0", "101", "many"):
        refusal_in(await server.get(path, limit=limit), param="limit")
    refusal_in(await server.get(path, order="sideways"), param="order")


@chapter.rule
async def a_child_lists_what_it_was_sent(server: Server) -> None:
    """Of a response that continues another, the newest input item is the one that was sent with it.

    Source: API reference, List input items (semantics.md §3). Whether the previous response's items follow is not
    established, and not looked at.
    """
    parent = await server.once(_listed)
    child = await create(server, input="sixth", previous_response_id=parent.id)
    reply = (await server.get(f"/responses/{child.id}/input_items", limit="1")).expect(200)
    expect_equal("the newest text", ["sixth"], _texts(read(Page, reply.body, "a list of items")))


@chapter.rule
async def models_are_a_list(server: Server) -> None:
    """The models are a list of objects with id, object, created and owned_by.

    Source: API reference, List models (http.md §1).
    """
    read(ModelListShape, (await server.get("/models")).expect(200).body, "a list of models")


@chapter.rule
async def a_model_can_be_asked_for(server: Server) -> None:
    """A model that answers can be asked for by its name; one that is not there is status 404.

    Source: API reference, Retrieve model (http.md §1).
    """
    reply = (await server.get(f"/models/{quote(server.model, safe='')}")).expect(200)
    expect_equal("the id of the model", server.model, read(ModelShape, reply.body, "a model").id)
    refusal_in(await server.get("/models/no-such-model-here"), 404)

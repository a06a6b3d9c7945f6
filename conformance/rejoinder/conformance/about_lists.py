"""Lists: the items a response was made from, and the models."""

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from rejoinder.conformance.answer import Answer, Page, answer_in, create, read, refusal_in
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import INPUT_ITEMS
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, PICTURE, TOOLS, plain
from rejoinder.conformance.server import Json, Server
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


@chapter.needing(INPUT_ITEMS)
async def input_items_are_a_list(server: Server) -> None:
    """A list says that it is one, holds data, its first and last id, and whether there is more.

    Source: API reference, List input items (http.md §3).
    """
    answer = await server.once(_listed)
    reply = (await server.get(f"/responses/{answer.id}/input_items")).expect(200)
    read(ListShape, reply.body, "a list of items")


@chapter.needing(INPUT_ITEMS)
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


@chapter.needing(INPUT_ITEMS)
async def input_items_are_what_was_sent(server: Server) -> None:
    """The input items are what the response was given: everything that was sent, and nothing of what was answered.

    Source: API reference, List input items (semantics.md §3).
    """
    answer = await server.once(_listed)
    page = await _page(server, order="asc")
    expect_equal("the texts of the items", _SAID, _texts(page))
    output = {item.id for item in answer.output}
    expect(not output & {item.id for item in page.data}, "no item of the answer in the list of its input", output)


@chapter.needing(INPUT_ITEMS)
async def the_newest_item_comes_first(server: Server) -> None:
    """Without an order, and with desc, a list begins with the newest item.

    Source: API reference, List input items (http.md §1).
    """
    expect_equal("the texts without an order", _SAID[::-1], _texts(await _page(server)))
    expect_equal("the texts in the order desc", _SAID[::-1], _texts(await _page(server, order="desc")))


@chapter.needing(INPUT_ITEMS)
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


@chapter.needing(INPUT_ITEMS)
async def a_page_names_its_ends(server: Server) -> None:
    """A page says the ids of its first and its last item: first_id and last_id.

    Source: API reference, List input items (http.md §3).
    """
    page = await _page(server, limit="3")
    ids = [item.id for item in page.data]
    expect_equal("first_id and last_id", (ids[0], ids[-1]) if ids else None, (page.first_id, page.last_id))


@chapter.needing(INPUT_ITEMS)
async def a_wrong_page_is_refused(server: Server) -> None:
    """A limit is from 1 to 100 and an order is asc or desc; anything else is status 400.

    Source: API reference, List input items (http.md §1).
    """
    answer = await server.once(_listed)
    path = f"/responses/{answer.id}/input_items"
    for limit in ("0", "101", "many"):
        refusal_in(await server.get(path, limit=limit), param="limit")
    refusal_in(await server.get(path, order="sideways"), param="order")


@chapter.needing(INPUT_ITEMS)
async def a_child_lists_what_it_was_sent(server: Server) -> None:
    """Of a response that continues another, the newest input item is the one that was sent with it.

    Source: API reference, List input items (semantics.md §3). Whether the previous response's items follow is not
    established, and not looked at.
    """
    parent = await server.once(_listed)
    child = await create(server, input="sixth", previous_response_id=parent.id)
    reply = (await server.get(f"/responses/{child.id}/input_items", limit="1")).expect(200)
    expect_equal("the newest text", ["sixth"], _texts(read(Page, reply.body, "a list of items")))


_MANY = 25


async def _many(server: Server) -> Answer:
    """A response to more messages than a page has, unless it is asked for more."""
    return await create(server, input=[{"role": "user", "content": f"message {number}"} for number in range(_MANY)])


async def _page_of(server: Server, answer: Answer, **query: str) -> Page:
    reply = await server.get(f"/responses/{answer.id}/input_items", **query)
    return read(Page, reply.expect(200).body, "a list of items")


@chapter.needing(INPUT_ITEMS)
async def a_page_has_twenty_items(server: Server) -> None:
    """Without a limit a page has 20 items, and says that there are more.

    Source: API reference, List input items (http.md §1).
    """
    page = await _page_of(server, await server.once(_many))
    expect_equal("the number of items and has_more", (20, True), (len(page.data), page.has_more))


@chapter.needing(INPUT_ITEMS)
async def a_page_may_have_a_hundred_items(server: Server) -> None:
    """A limit of 100 is accepted, and a list that fits on the page has no more.

    Source: API reference, List input items (http.md §1, §3).
    """
    page = await _page_of(server, await server.once(_many), limit="100")
    expect_equal("the number of items and has_more", (_MANY, False), (len(page.data), page.has_more))


@chapter.needing(INPUT_ITEMS)
async def listed_items_keep_their_ids(server: Server) -> None:
    """The items of a list have the same ids whenever it is asked for.

    Source: API reference, List input items: an id is where the next page begins (http.md §3).
    """
    first, second = await _page(server), await _page(server)
    expect_equal("the ids", [item.id for item in first.data], [item.id for item in second.data])


@chapter.needing(INPUT_ITEMS)
async def a_text_is_listed_as_a_message(server: Server) -> None:
    """An input that is a text is listed as one message of the user, with one part input_text.

    Source: API reference, input; List input items (objects.md §1, §6.1).
    """
    page = await _page_of(server, answer_in(await server.once(plain)))
    told = [(item.type, item.role, [(part.type, part.text) for part in item.parts]) for item in page.data]
    expect_equal("the items", [("message", "user", [("input_text", GREETING)])], told)


@chapter.needing(INPUT_ITEMS)
async def messages_have_the_parts_of_their_role(server: Server) -> None:
    """A text is listed as a part: input_text in what the user said, output_text in what the assistant did.

    Source: API reference, input content (objects.md §5).
    """
    kinds = {"user": "input_text", "assistant": "output_text"}
    for item in (await _page(server)).data:
        expect_equal(
            f"the parts of what the {item.role} said", [kinds.get(item.role or "")], [part.type for part in item.parts]
        )


@chapter.needing(INPUT_ITEMS)
async def instructions_are_not_listed(server: Server) -> None:
    """Instructions are no input item; messages of the developer and the system are.

    Source: API reference, List input items (semantics.md §3).
    """
    said: list[Json] = [
        {"role": "system", "content": "You speak English."},
        {"role": "developer", "content": "You are polite."},
        {"role": "user", "content": GREETING},
    ]
    answer = await create(server, input=said, instructions="Be brief.")
    page = await _page_of(server, answer, order="asc")
    expect_equal("the texts", ["You speak English.", "You are polite.", GREETING], _texts(page))


@chapter.needing(INPUT_ITEMS)
async def a_phase_is_kept(server: Server) -> None:
    """The phase of a message of the assistant is there when it is listed.

    Source: API reference, phase: it has to be preserved (semantics.md §3, objects.md §6.1).
    """
    answer = await create(
        server,
        input=[
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Let me see.", "phase": "commentary"},
            {"role": "assistant", "content": "Hello!", "phase": "final_answer"},
            {"role": "user", "content": GREETING},
        ],
    )
    reply = await server.get(f"/responses/{answer.id}/input_items", order="asc")
    told = [read(_Phase, item, "an item").phase for item in read(_Data, reply.expect(200).body, "a list").data]
    expect_equal("the phases", [None, "commentary", "final_answer", None], told)


class _Phase(msgspec.Struct):
    phase: str | None = None


@chapter.needing(INPUT_ITEMS)
async def calls_and_outputs_are_listed(server: Server) -> None:
    """A call and its output that were sent are listed with their call_id, and with an id and a status of their own.

    Source: API reference, List input items (objects.md §6, §6.1).
    """
    answer = await create(
        server,
        optional=TOOLS,
        input=[
            {"role": "user", "content": "What time is it?"},
            {"type": "function_call", "call_id": "call_listed", "name": "current_time", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_listed", "output": "12:00"},
        ],
        tools=[CLOCK],
    )
    reply = (await server.get(f"/responses/{answer.id}/input_items", order="asc")).expect(200)
    for item in read(_Data, reply.body, "a list of items").data:
        read(ListedItem, item, "a listed item")
    told = [(item.type, item.call_id) for item in read(Page, reply.body, "a list of items").data]
    expected = [("message", None), ("function_call", "call_listed"), ("function_call_output", "call_listed")]
    expect_equal("types and call ids", expected, told)


@chapter.needing(INPUT_ITEMS)
async def an_image_is_listed_with_its_detail(server: Server) -> None:
    """An image that was sent is listed as a part with its detail, also when nothing was said of that.

    Source: API reference, input image (objects.md §5).
    """
    [image] = await server.once(_pictured)
    expect(image.detail in ("low", "high", "auto", "original"), "a detail", image.detail)


@chapter.needing(INPUT_ITEMS)
async def the_url_of_an_image_can_be_included(server: Server) -> None:
    """With message.input_image.image_url included, a listed image has the URL it was sent with.

    Source: API reference, include (objects.md §1.1).
    """
    for image in await _pictures(server, {"include[]": "message.input_image.image_url"}):
        expect_equal("the URL", PICTURE, image.image_url)


class _Image(msgspec.Struct):
    type: str | None = None
    detail: str | None = None
    image_url: str | None = None


class _Pictured(msgspec.Struct):
    content: list[_Image]


async def _asked_with_a_picture(server: Server) -> Answer:
    """A response to an image. Raises NotApplicable when there is none."""
    parts: Json = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PICTURE}]
    return await create(server, optional=("input",), input=[{"role": "user", "content": parts}])


async def _pictures(server: Server, query: Mapping[str, str]) -> list[_Image]:
    """The one image that is listed."""
    answer = await server.once(_asked_with_a_picture)
    reply = await server.send("GET", f"/responses/{answer.id}/input_items", query=query)
    items = [read(_Pictured, item, "a message") for item in read(_Data, reply.expect(200).body, "a list of items").data]
    found = [part for item in items for part in item.content if part.type == "input_image"]
    expect_equal("the number of images", 1, len(found))
    return found


async def _pictured(server: Server) -> list[_Image]:
    return await _pictures(server, {})


@chapter.needing(INPUT_ITEMS)
async def an_unknown_include_is_refused(server: Server) -> None:
    """What may be included in a list is one of a list of names; another one is status 400.

    Source: API reference, include; guide, Error codes (objects.md §1.1, http.md §6.2).
    """
    answer = await server.once(_listed)
    refusal_in(await server.send("GET", f"/responses/{answer.id}/input_items", query={"include[]": "no.such.thing"}))


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

"""Two keys: what belongs to one does not exist for the other."""

import re
from collections.abc import Awaitable, Callable
from itertools import pairwise

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, refusal_in, skip_if_refused
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect_equal
from rejoinder.conformance.need import (
    BACKGROUND,
    BACKGROUND_STREAM,
    CANCEL,
    COMPACTION,
    CONVERSATIONS,
    COUNTING,
    DELETION,
    INPUT_ITEMS,
    OTHER_KEY,
    RETRIEVAL,
    STORE,
)
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, UNKNOWN, plain
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.stream import Stream

chapter = Chapter("isolation", "Isolation", OTHER_KEY)

_ITEMS: Json = [{"role": "user", "content": "This is mine."}]


class _Id(msgspec.Struct):
    id: str


async def _response(server: Server) -> str:
    """The id of a response that belongs to the first key."""
    return answer_in(await server.once(plain)).id


async def _conversation(server: Server) -> str:
    """The id of a conversation that belongs to the first key."""
    reply = await server.send("POST", "/conversations", msgspec.json.encode({"items": _ITEMS}))
    return read(_Id, reply.expect(200).body, "a conversation").id


async def _post(server: Server, path: str, **fields: Json) -> Reply:
    return await server.send("POST", path, msgspec.json.encode({"model": server.model, **fields}))


@chapter.needing(STORE, RETRIEVAL)
async def a_response_is_seen_by_its_owner_alone(server: Server) -> None:
    """A response is not found with the key of somebody else.

    Source: API reference, Get a model response: what is stored is in the scope of its owner (semantics.md §3,
    reliability.md §1).
    """
    path = f"/responses/{await server.once(_response)}"
    refusal_in(await server.as_another().get(path), 404)
    (await server.get(path)).expect(200)


@chapter.needing(INPUT_ITEMS)
async def input_items_are_seen_by_their_owner_alone(server: Server) -> None:
    """The input items of a response are not found with the key of somebody else.

    Source: API reference, List input items (semantics.md §3, reliability.md §1).
    """
    path = f"/responses/{await server.once(_response)}/input_items"
    refusal_in(await server.as_another().get(path), 404)


@chapter.needing(DELETION, RETRIEVAL)
async def a_response_is_deleted_by_its_owner_alone(server: Server) -> None:
    """A response cannot be deleted with the key of somebody else, and stays.

    Source: API reference, Delete a model response (semantics.md §3, reliability.md §1).
    """
    path = f"/responses/{(await create(server, input=GREETING)).id}"
    refusal_in(await server.as_another().delete(path), 404)
    (await server.get(path)).expect(200)


@chapter.needing(BACKGROUND, CANCEL)
async def a_response_is_cancelled_by_its_owner_alone(server: Server) -> None:
    """A background response cannot be cancelled with the key of somebody else.

    Source: API reference, Cancel a response (semantics.md §3, reliability.md §1).
    """
    made = answer_in(await server.post(input=GREETING, background=True))
    refusal_in(await server.as_another().send("POST", f"/responses/{made.id}/cancel"), 404)


@chapter.needing(BACKGROUND, BACKGROUND_STREAM)
async def a_stream_is_followed_by_its_owner_alone(server: Server) -> None:
    """The events of a background response are not told to the key of somebody else.

    Source: API reference, Get a model response; guide, Background mode (events.md §7, reliability.md §1).
    """
    made = Stream.of(await server.post(input=GREETING, background=True, stream=True)).answer
    refusal_in(await server.as_another().get(f"/responses/{made.id}", stream="true"), 404)


@chapter.needing(STORE)
async def a_response_is_continued_by_its_owner_alone(server: Server) -> None:
    """A response of somebody else is no previous response: status 400, code previous_response_not_found.

    Source: Guide, Conversation state; guide, Error codes (http.md §6.2, reliability.md §1).
    """
    reply = await server.as_another().post(input=GREETING, previous_response_id=await server.once(_response))
    refusal_in(reply, param="previous_response_id", code="previous_response_not_found")


@chapter.needing(STORE)
async def an_item_is_referred_to_by_its_owner_alone(server: Server) -> None:
    """An item_reference to an item of somebody else is status 400.

    Source: API reference, item reference: stored items in scope (semantics.md §3, reliability.md §1).
    """
    said = answer_in(await server.once(plain)).output[-1:]
    if not said:
        raise NotApplicable("there is no stored item to refer to")
    input_: list[Json] = [{"type": "item_reference", "id": said[0].id}, {"role": "user", "content": "Go on."}]
    mine = await server.post(input=input_)
    skip_if_refused(mine, ("input",))
    refusal_in(await server.as_another().post(input=input_), param="input")


@chapter.needing(CONVERSATIONS)
async def a_conversation_is_seen_by_its_owner_alone(server: Server) -> None:
    """Neither a conversation nor its items are found with the key of somebody else.

    Source: API reference, Conversations (semantics.md §4, reliability.md §1).
    """
    path, another = f"/conversations/{await server.once(_conversation)}", server.as_another()
    refusal_in(await another.get(path), 404)
    refusal_in(await another.get(f"{path}/items"), 404)


@chapter.needing(CONVERSATIONS)
async def a_conversation_is_changed_by_its_owner_alone(server: Server) -> None:
    """A conversation cannot be changed with the key of somebody else: no metadata, no items, no deletion.

    Source: API reference, Conversations (semantics.md §4, reliability.md §1).
    """
    path, another = f"/conversations/{await server.once(_conversation)}", server.as_another()
    refusal_in(await another.send("POST", path, b'{"metadata": {"topic": "theirs"}}'), 404)
    refusal_in(await another.send("POST", f"{path}/items", msgspec.json.encode({"items": _ITEMS})), 404)
    refusal_in(await another.delete(path), 404)
    (await server.get(path)).expect(200)


@chapter.needing(CONVERSATIONS)
async def a_conversation_is_continued_by_its_owner_alone(server: Server) -> None:
    """No response is made in a conversation of somebody else: status 400 or 404, as for one that is not there.

    Source: API reference, conversation (semantics.md §4, reliability.md §1).
    """
    reply = await server.as_another().post(input=GREETING, conversation=await server.once(_conversation))
    refusal_in(reply, 400, 404)


@chapter.needing(STORE, COMPACTION)
async def a_response_is_compacted_by_its_owner_alone(server: Server) -> None:
    """Compacting from a response of somebody else is refused, with status 400 or 404.

    Source: API reference, Compact a response (http.md §2.2, reliability.md §1).
    """
    path, previous = "/responses/compact", await server.once(_response)
    refusal_in(await _post(server.as_another(), path, input=GREETING, previous_response_id=previous), 400, 404)


@chapter.needing(STORE, COUNTING)
async def a_response_is_counted_by_its_owner_alone(server: Server) -> None:
    """Counting what would follow a response of somebody else is refused, with status 400 or 404.

    Source: API reference, Get input token counts (http.md §2.1, reliability.md §1).
    """
    path, previous = "/responses/input_tokens", await server.once(_response)
    refusal_in(await _post(server.as_another(), path, input=GREETING, previous_response_id=previous), 400, 404)


@chapter.needing(STORE)
async def what_is_foreign_is_as_what_is_unknown(server: Server) -> None:
    """Nothing in an answer tells an id of somebody else from one that never was: neither status nor error.

    Source: rejoinder's own promise of isolation; what is stored is in the scope of its owner (reliability.md §1).
    """
    another, foreign = server.as_another(), (await create(server, input="This is mine.")).id
    asking: list[Callable[[str], Awaitable[Reply]]] = [
        lambda id: another.get(f"/responses/{id}"),
        lambda id: another.get(f"/responses/{id}/input_items"),
        lambda id: another.delete(f"/responses/{id}"),
        lambda id: another.send("POST", f"/responses/{id}/cancel"),
        lambda id: another.post(input=GREETING, previous_response_id=id),
    ]
    for ask in asking:
        told = [_told(await ask(id), id) for id in (foreign, UNKNOWN)]
        for one, other in pairwise(told):
            expect_equal("what is said of an unknown id:", other, one)


def _told(reply: Reply, id: str) -> tuple[int, str]:
    """What a reply says, without the id it speaks of and the ids that servers put into every error."""
    text = reply.body.decode(errors="replace").replace(id, "the id")
    return reply.status, re.sub(r"req_[A-Za-z0-9_-]+", "a request", text)

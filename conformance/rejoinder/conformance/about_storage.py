"""What is kept of a response, and until when."""

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, refusal_in, skip_if_refused
from rejoinder.conformance.expectation import expect_equal, expect_same
from rejoinder.conformance.need import DELETION, RETRIEVAL, STORE
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, called, cut, plain, unlike
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import DeletionShape

chapter = Chapter("storage", "Store and delete", STORE)


@chapter.rule
async def what_is_stored_can_be_asked_for(server: Server) -> None:
    """A response that is stored is found by its id.

    Source: API reference, Get a model response; store (http.md §1, semantics.md §2).
    """
    (await server.get(f"/responses/{answer_in(await server.once(plain)).id}")).expect(200)


@chapter.needing(RETRIEVAL)
async def a_response_is_kept_as_it_was_answered(server: Server) -> None:
    """A response can be asked for by its id, and is the same object that was answered.

    Source: API reference, Get a model response (http.md §1).
    """
    answered = await server.once(plain)
    kept = await server.get(f"/responses/{answer_in(answered).id}")
    told = read(object, answered.body, "a response")
    expect_same("the kept response to be the answer", told, read(object, kept.expect(200).body, "a response"))


@chapter.needing(RETRIEVAL)
async def what_is_not_stored_is_not_found(server: Server) -> None:
    """A response made with store false is answered and then not found, status 404.

    Source: API reference, store (semantics.md §2).
    """
    answer = await create(server, input=GREETING, store=False)
    refusal_in(await server.get(f"/responses/{answer.id}"), 404)


@chapter.rule
async def an_unknown_response_is_not_found(server: Server) -> None:
    """Getting or deleting a response that is not there, or asking for its input items, is status 404.

    Source: API reference, Get a model response (http.md §6.2).
    """
    path = f"/responses/{unlike(answer_in(await server.once(plain)).id)}"
    refusal_in(await server.get(path), 404)
    refusal_in(await server.get(f"{path}/input_items"), 404)
    refusal_in(await server.delete(path), 404)


@chapter.needing(DELETION)
async def a_deletion_says_what_was_deleted(server: Server) -> None:
    """Deleting a response answers with its id, the object "response" and deleted true.

    Source: API reference, Delete a model response (http.md §1).
    """
    answer = await create(server, input=GREETING)
    reply = (await server.delete(f"/responses/{answer.id}")).expect(200)
    expect_equal("the deleted id", answer.id, read(DeletionShape, reply.body, "a deletion").id)


@chapter.needing(DELETION)
async def what_was_deleted_is_not_found(server: Server) -> None:
    """After a response was deleted neither it nor its input items are found, and it cannot be deleted again.

    Source: API reference, Delete a model response (http.md §6.3, semantics.md §5).
    """
    answer = await create(server, input=GREETING)
    (await server.delete(f"/responses/{answer.id}")).expect(200)
    refusal_in(await server.get(f"/responses/{answer.id}"), 404)
    refusal_in(await server.get(f"/responses/{answer.id}/input_items"), 404)
    refusal_in(await server.delete(f"/responses/{answer.id}"), 404)


@chapter.needing(DELETION)
async def a_deletion_leaves_what_followed(server: Server) -> None:
    """Deleting a response leaves the ones that continue it.

    Source: API reference, Delete a model response: it deletes the response with the given id (semantics.md §5).
    """
    parent = await create(server, input=GREETING)
    child = await create(server, input=GREETING, previous_response_id=parent.id)
    (await server.delete(f"/responses/{parent.id}")).expect(200)
    (await server.get(f"/responses/{child.id}")).expect(200)


class _Store(msgspec.Struct):
    store: object = None


@chapter.rule
async def storing_is_what_happens_unasked(server: Server) -> None:
    """A response is stored unless it is asked not to be, and says so either way.

    Source: API reference, store (objects.md §1, §2).
    """
    stored = read(_Store, (await server.once(plain)).body, "a response").store
    asked = read(_Store, (await server.post(input=GREETING, store=False)).expect(200).body, "a response").store
    expect_equal("store, without a word of it and as false", (True, False), (stored, asked))


@chapter.needing(RETRIEVAL)
async def what_was_asked_is_kept_with_it(server: Server) -> None:
    """What a response tells of its request is there when it is asked for later.

    Source: API reference, Get a model response (http.md §1, objects.md §2).
    """
    settings: dict[str, Json] = {
        "instructions": "Be brief.",
        "metadata": {"colour": "blue"},
        "tools": [CLOCK],
        "tool_choice": "none",
        "max_output_tokens": 4000,
    }
    reply = await server.post(input=GREETING, **settings)
    skip_if_refused(reply, TOOLS)
    kept = await server.get(f"/responses/{answer_in(reply).id}")
    told = read(object, reply.body, "a response")
    expect_same("the kept response to be the answer", told, read(object, kept.expect(200).body, "a response"))


@chapter.needing(RETRIEVAL)
async def a_call_is_kept_as_it_was_made(server: Server) -> None:
    """A response with the call of a tool is the same object when it is asked for later.

    Source: API reference, Get a model response (http.md §1).
    """
    reply = await server.once(called)
    kept = await server.get(f"/responses/{answer_in(reply).id}")
    told = read(object, reply.body, "a response")
    expect_same("the kept response to be the answer", told, read(object, kept.expect(200).body, "a response"))


@chapter.needing(RETRIEVAL)
async def a_cut_answer_is_kept(server: Server) -> None:
    """A response that is incomplete is kept as one that is not.

    Source: API reference, Get a model response (http.md §1, semantics.md §11).
    """
    reply = await server.once(cut)
    kept = await server.get(f"/responses/{answer_in(reply).id}")
    told = read(object, reply.body, "a response")
    expect_same("the kept response to be the answer", told, read(object, kept.expect(200).body, "a response"))


@chapter.needing(RETRIEVAL)
async def more_can_be_included_later(server: Server) -> None:
    """A response may be asked for with something included, and is the same response.

    Source: API reference, Get a model response, include (http.md §1, objects.md §1.1).
    """
    answer = answer_in(await server.once(plain))
    for name in ("reasoning.encrypted_content", "message.output_text.logprobs"):
        reply = await server.send("GET", f"/responses/{answer.id}", query={"include[]": name})
        expect_equal("the id", answer.id, answer_in(reply).id)


@chapter.needing(RETRIEVAL)
async def an_unknown_include_is_refused(server: Server) -> None:
    """What may be included is one of a list of names; another one is status 400.

    Source: API reference, include; guide, Error codes (objects.md §1.1, http.md §6.2).
    """
    answer = answer_in(await server.once(plain))
    refusal_in(await server.send("GET", f"/responses/{answer.id}", query={"include[]": "no.such.thing"}))


@chapter.needing(DELETION, RETRIEVAL)
async def a_deletion_leaves_what_came_before(server: Server) -> None:
    """Deleting a response leaves the one it continued, which can be continued again.

    Source: API reference, Delete a model response: it deletes the response with the given id (semantics.md §5).
    """
    parent = answer_in(await server.once(plain))
    child = await create(server, input="Say that you go.", previous_response_id=parent.id)
    (await server.delete(f"/responses/{child.id}")).expect(200)
    (await server.get(f"/responses/{parent.id}")).expect(200)
    other = await create(server, input="Say that you stay.", previous_response_id=parent.id)
    expect_equal("previous_response_id", parent.id, other.previous_response_id)

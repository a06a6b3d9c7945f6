"""What is kept of a response, and until when."""

from rejoinder.conformance.answer import answer_in, create, read, refusal_in
from rejoinder.conformance.expectation import expect_equal, expect_same
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, UNKNOWN, plain
from rejoinder.conformance.server import Server
from rejoinder.conformance.shape import DeletionShape

chapter = Chapter("storage", "Store, cancel and delete")


@chapter.rule
async def a_response_is_kept_as_it_was_answered(server: Server) -> None:
    """A response can be asked for by its id, and is the same object that was answered.

    Source: API reference, Get a model response (http.md §1).
    """
    answered = await server.once(plain)
    kept = await server.get(f"/responses/{answer_in(answered).id}")
    told = read(object, answered.body, "a response")
    expect_same("the kept response to be the answer", told, read(object, kept.expect(200).body, "a response"))


@chapter.rule
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
    refusal_in(await server.get(f"/responses/{UNKNOWN}"), 404)
    refusal_in(await server.get(f"/responses/{UNKNOWN}/input_items"), 404)
    refusal_in(await server.delete(f"/responses/{UNKNOWN}"), 404)


@chapter.rule
async def a_deletion_says_what_was_deleted(server: Server) -> None:
    """Deleting a response answers with its id, the object "response" and deleted true.

    Source: API reference, Delete a model response (http.md §1).
    """
    answer = await create(server, input=GREETING)
    reply = (await server.delete(f"/responses/{answer.id}")).expect(200)
    expect_equal("the deleted id", answer.id, read(DeletionShape, reply.body, "a deletion").id)


@chapter.rule
async def what_was_deleted_is_not_found(server: Server) -> None:
    """After a response was deleted neither it nor its input items are found, and it cannot be deleted again.

    Source: API reference, Delete a model response (http.md §6.3, semantics.md §5).
    """
    answer = await create(server, input=GREETING)
    (await server.delete(f"/responses/{answer.id}")).expect(200)
    refusal_in(await server.get(f"/responses/{answer.id}"), 404)
    refusal_in(await server.get(f"/responses/{answer.id}/input_items"), 404)
    refusal_in(await server.delete(f"/responses/{answer.id}"), 404)


@chapter.rule
async def a_deletion_leaves_what_followed(server: Server) -> None:
    """Deleting a response leaves the ones that continue it.

    Source: API reference, Delete a model response: it deletes the response with the given id (semantics.md §5).
    """
    parent = await create(server, input=GREETING)
    child = await create(server, input=GREETING, previous_response_id=parent.id)
    (await server.delete(f"/responses/{parent.id}")).expect(200)
    (await server.get(f"/responses/{child.id}")).expect(200)

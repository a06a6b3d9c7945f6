"""Reasoning: how much of it, and that it comes back to where it was made."""

import msgspec

from rejoinder.conformance.answer import Item, answer_in, create, read, refusal_in, skip_if_refused
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.shape import output_items

chapter = Chapter("reasoning", "Reasoning")

_QUESTION = "Think about it: which is the smallest prime number above ten?"
_ENCRYPTED = ["reasoning.encrypted_content"]


async def _thought(server: Server) -> Reply:
    """An answer that is not stored, with all that is needed to send it back."""
    return (await server.post(input=_QUESTION, store=False, include=_ENCRYPTED)).expect(200)


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


@chapter.rule
async def an_effort_is_accepted_or_refused_by_name(server: Server) -> None:
    """Low, medium and high effort are answered; a server whose model does not reason says so, and names the parameter.

    Source: API reference, reasoning (objects.md §1.3).
    """
    for effort in ("low", "medium", "high"):
        answer = await create(server, optional=("reasoning",), input=GREETING, reasoning={"effort": effort})
        expect_equal("the status", "completed", answer.status)


@chapter.rule
async def what_was_not_stored_can_be_sent_back(server: Server) -> None:
    """Without storage the whole output goes back as it came, its reasoning included, and is gone on from.

    Source: Guide, Reasoning models; guide, Conversation state (semantics.md §2).
    """
    output = output_items((await server.once(_thought)).body)
    given: list[Json] = [_user(_QUESTION), *output, _user("And the next one?")]
    answer = await create(server, input=given, store=False, include=_ENCRYPTED)
    expect_equal("the status", "completed", answer.status)


_Fields = dict[str, msgspec.Raw]


@chapter.rule
async def what_is_sent_back_needs_no_ids(server: Server) -> None:
    """What goes back needs neither the ids nor the status of its items, reasoning with its encrypted content included.

    Source: Codex sends it so (objects.md §6.1, §11).
    """
    bare: list[Json] = []
    for item in output_items((await server.once(_thought)).body):
        fields = read(_Fields, item, "an item")
        if read(Item, item, "an item").type == "reasoning" and "encrypted_content" not in fields:
            raise NotApplicable("the reasoning is not encrypted, so it cannot go back without its id")
        bare.append({name: value for name, value in fields.items() if name not in ("id", "status")})
    answer = await create(server, input=[_user(_QUESTION), *bare, _user("And the next one?")], store=False)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def reasoning_before_a_call_goes_back_with_it(server: Server) -> None:
    """A call that is not stored goes back with the reasoning before it and its output behind it.

    Source: Guide, Reasoning models; guide, Function calling (semantics.md §2).
    """
    question = "Think about what time it is."
    reply = await server.post(input=question, tools=[CLOCK], tool_choice="required", store=False, include=_ENCRYPTED)
    skip_if_refused(reply, TOOLS)
    calls = answer_in(reply).calls
    if not calls:
        raise NotApplicable("there is no call to go on from")
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "12:00"} for call in calls]
    given: list[Json] = [_user(question), *output_items(reply.body), *outputs]
    answer = await create(server, input=given, tools=[CLOCK], store=False, include=_ENCRYPTED)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def an_id_alone_is_not_enough(server: Server) -> None:
    """Reasoning that comes back as a mere id, without its encrypted content, and is stored nowhere is status 400.

    Source: observed text of the API, "Item with id … not found" (semantics.md §2, http.md §6.2).
    """
    lost: Json = {"type": "reasoning", "id": "rs_" + "0" * 32, "summary": []}
    refusal_in(await server.post(input=[_user(GREETING), lost, _user("Go on.")], store=False), 400, 404, param="input")

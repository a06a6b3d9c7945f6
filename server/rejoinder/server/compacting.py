"""`POST /v1/responses/compact`: a conversation as a list that is shorter (http.md §2.2).

It is a turn like any other whose last item asks for compaction, and which is not stored: the provider compacts itself
where it can, and the model writes a summary where it cannot. Before the compaction item stands what users said, since
that is not left to a summary.
"""

import msgspec
from msgspec import Raw

from rejoinder.bridge.compaction import retained
from rejoinder.bridge.dialect import Identity
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.server import turn
from rejoinder.server.body import check_json
from rejoinder.server.conversation_types import CompactedResponse
from rejoinder.server.ids import Ids
from rejoinder.server.prompting import kept_by
from rejoinder.server.services import Services
from rejoinder.wire.errors import BadRequest, bad_request
from rejoinder.wire.items import Head, Item
from rejoinder.wire.request import CreateRequest
from rejoinder.wire.responses import Usage

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_INPUT = msgspec.json.Decoder(str | list[Raw] | None)
_ENCODER = msgspec.json.Encoder()
_NULL = Raw(b"null")
_TRIGGER = Raw(b'{"type":"compaction_trigger"}')

TAKEN = frozenset(
    (
        "client_metadata",
        "image",
        "input",
        "instructions",
        "model",
        "previous_response_id",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "tools",
        "parallel_tool_calls",
        "reasoning",
        "text",
    )
)
"""The parameters of http.md §2.2, and those that Codex sends beside them: they are of the conversation's prompt, so the
provider's cache serves it."""


class _Answer(msgspec.Struct):
    output: list[Raw]
    usage: Usage


_HEAD = msgspec.json.Decoder(Head)
_ANSWER = msgspec.json.Decoder(_Answer)


def compaction_of(body: bytes) -> bytes:
    """The create call that compacts what a body of this endpoint says. Raises BadRequest naming the parameter."""
    check_json(body)
    fields = _FIELDS.decode(body)
    try:
        said = _INPUT.decode(fields.get("input", _NULL))
    except msgspec.MsgspecError as error:
        raise bad_request(error, at="input") from error
    for name in fields:
        if name not in TAKEN:
            raise BadRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if said is None and bytes(fields.get("previous_response_id", _NULL)) == b"null":
        raise BadRequest("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    items: list[object] = [{"role": "user", "content": said}] if isinstance(said, str) else [*(said or ())]
    if not (isinstance(said, list) and said and _asks(said[-1])):
        items.append(_TRIGGER)
    return _ENCODER.encode({**fields, "input": items, "store": False, "stream": True})


def _asks(item: Raw) -> bool:
    """Whether the list ends in an order to compact it already."""
    try:
        return _HEAD.decode(item).type == "compaction_trigger"
    except msgspec.MsgspecError:
        return False  # whoever reads it says what is wrong


async def compact(
    request: CreateRequest, services: Services, *, owner: str, caller: Identity
) -> tuple[CompactedResponse, turn.Outcome]:
    """Compact what the request says. Raises as `turn.run` does."""
    services.running.admit()
    with services.running.turn() as stop:
        prepared = await turn.prepare(request, services, owner=owner, caller=caller, stop=stop)
        if len(prepared.prompt.items) == 1:
            raise Unsupported("the conversation is empty", param="input")
        outcome = await prepared.answer(turn.Discard(), None)
    answer = _ANSWER.decode(outcome.response)
    compaction = next((item for item in answer.output if Item.parse(bytes(item)).type == "compaction"), None)
    if compaction is None:
        raise UpstreamError("the provider did not compact the conversation")
    # The ids of a list that is stored nowhere are its own, but for those in the items' bytes: what was said before goes
    # by another one, which it was stored under.
    ids = Ids(services.random)
    users = [Item.parse(item.raw) for item in retained(prepared.prompt.items)]
    output = [*(Raw(kept.raw) for kept in kept_by(ids, users)), compaction]
    created_at = prepared.out.response.created_at
    return CompactedResponse(id=ids.response, created_at=created_at, output=output, usage=answer.usage), outcome

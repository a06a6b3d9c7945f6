"""What the bridge says otherwise than the clients and servers that were recorded, rule by rule, and why.

Sections are those of provider-responses.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bridge.recordings import Json, Object, Recording, objects
from tests.bridge.responses_replay import profile_of
from tests.bridge.rules import Rule, reworded


def _streamed(request: Object, exchange: Recording) -> None:
    request["stream"] = True
    if profile_of(exchange).obfuscates:
        request["stream_options"] = {"include_obfuscation": False}


def _not_stored(request: Object, exchange: Recording) -> None:
    request.pop("store", None)
    if profile_of(exchange).stores:
        request["store"] = False


def _nothing_referred_to(request: Object, exchange: Recording) -> None:
    for name in ("previous_response_id", "conversation", "background"):
        request.pop(name, None)


def _sealed_reasoning(request: Object, exchange: Recording) -> None:
    sealed = "reasoning.encrypted_content"
    asked = request.get("include") or []
    assert isinstance(asked, list)
    if profile_of(exchange).reasoning_state != "text" and sealed not in asked:
        request["include"] = [*asked, sealed]


def _input_as_items(request: Object, exchange: Recording) -> None:
    if isinstance(text := request["input"], str):
        request["input"] = [{"type": "message", "role": "user", "content": text}]


RULES = (
    Rule("every answer is a stream, without padding", _streamed),
    Rule("what is said is kept here, and there only where the server is asked to (§6)", _not_stored),
    Rule("the whole conversation is sent, so nothing is referred to (§6)", _nothing_referred_to),
    Rule("reasoning that is not stored goes back sealed, so it is asked for (§4)", _sealed_reasoning),
    Rule("a text is one message of the user", _input_as_items),
)
"""In this order."""


def as_we_say_it(exchange: Recording) -> Object:
    """The recorded request, changed by every rule."""
    return reworded(exchange, RULES)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Something we say otherwise of an answer than its server: `change` edits the recorded events into ours."""

    why: str
    change: Callable[[list[Object]], None]


def _one_id_for_an_item(events: list[Object]) -> None:
    ids: dict[Json, Json] = {}
    for event in events:
        item = event.get("item")
        if isinstance(item, dict):
            item["id"] = ids.setdefault(event["output_index"], item["id"])
        else:
            event["item_id"] = ids[event["output_index"]]


def _delta_before_the_end(events: list[Object]) -> None:
    for place, event in enumerate(events):
        if event["type"] == "response.function_call_arguments.done":
            delta: Object = {
                "type": "response.function_call_arguments.delta",
                "item_id": event["item_id"],
                "output_index": event["output_index"],
                "delta": event["arguments"],
            }
            events.insert(place, delta)
            return


def _done_in_the_end(events: list[Object]) -> None:
    done = [event["output_index"] for event in events if event["type"] == "response.output_item.done"]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    for event in added:
        if event["output_index"] not in done:
            [item] = objects([event["item"]])
            events.append(
                {"type": "response.output_item.done", "output_index": event["output_index"], "item": item["id"]}
            )


def _announced_when_done(events: list[Object]) -> None:
    [added, done] = events
    [was, is_] = objects([added["item"], done["item"]])
    was["call_id"] = is_["call_id"]
    # Put in front of the end by us, it has our order of fields.
    events[0] = {"type": added["type"], "output_index": added["output_index"], "item": was}


def _parts_from_zero(events: list[Object]) -> None:
    for event in events:
        if "content_index" in event:
            event["content_index"] = 0


REWRITES = {
    "github-copilot-id-rotation-1-stream-ver": Rewrite(
        "every event has another id: an item has that of its announcement (§6)", _one_id_for_an_item
    ),
    "lmstudio-tool-call-1-stream-ver": Rewrite(
        "arguments come at their end alone: deltas add up to them (§6)", _delta_before_the_end
    ),
    "model-mcp-list-tools-stream-backfills-missing-results-pai1760": Rewrite(
        "two items are in the last event alone: they are done before it", _done_in_the_end
    ),
    "openai-client-tool-search-1-stream-ver": Rewrite(
        "a search has another call id when it is done: it is announced with that", _announced_when_done
    ),
    "providers-bedrock-mantle-responses-chat-streams-through-the-resp-rllm3177": Rewrite(
        "the parts of a message begin at 1: they count from 0", _parts_from_zero
    ),
}
"""By the name of the recording; every other one is passed on as it is."""

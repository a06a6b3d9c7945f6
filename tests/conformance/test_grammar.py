import json
from collections.abc import Callable

import pytest

from rejoinder.conformance import grammar
from rejoinder.conformance.errors import Broken
from rejoinder.conformance.stream import Stream
from tests.conformance.judging import stream_of, told_in_events
from tests.conformance.little_server import Json

Rule = Callable[[Stream], None]


def greeting() -> list[Json]:
    """A reasoning item (2 to 7) and a message (8 to 16), then the end."""
    events: list[Json] = json.loads(json.dumps(told_in_events(input="Say hello.")))
    return events


def call() -> list[Json]:
    """A function call (2 to 5), then the end."""
    clock = {"type": "function", "name": "clock", "parameters": {}}
    events: list[Json] = json.loads(
        json.dumps(told_in_events(input="What time is it?", tools=[clock], tool_choice="required"))
    )
    return events


def custom_call() -> list[Json]:
    """The call with a custom tool in place of the function."""
    text = json.dumps(call()).replace("function_call_arguments", "custom_tool_call_input")
    events: list[Json] = json.loads(text.replace('"function_call"', '"custom_tool_call"').replace("arguments", "input"))
    return events


def refusal() -> list[Json]:
    """The greeting with a refusal instead of a text."""
    text = json.dumps(greeting()).replace("response.output_text.", "response.refusal.")
    text = text.replace('"type": "output_text", "text":', '"type": "refusal", "refusal":')
    events: list[Json] = json.loads(text)
    for event in events:
        if event["type"] == "response.refusal.done":
            event["refusal"] = event.pop("text")
    return events


def raw_reasoning(stem: str) -> list[Json]:
    """A call preceded by reasoning as the model wrote it, without parts."""
    item = {"type": "reasoning", "id": "rs_raw", "summary": []}
    done = {**item, "content": [{"type": "reasoning_text", "text": "Hm, hm."}]}
    at = {"output_index": 0, "item_id": "rs_raw", "content_index": 0}
    events = call()
    for event in events:
        if "output_index" in event:
            event["output_index"] = 1
    events[2:2] = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": f"{stem}.delta", **at, "delta": "Hm, "},
        {"type": f"{stem}.delta", **at, "delta": "hm."},
        {"type": f"{stem}.done", **at, "text": "Hm, hm."},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]
    events[-1]["response"]["output"].insert(0, done)
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def with_extensions() -> list[Json]:
    """Events and items of types that nobody here knows, and a connection kept alive."""
    events = call()
    item = {"type": "acme:note", "id": "note_1", "status": "completed", "input": {"any": "thing"}}
    events[2:2] = [
        {"type": "response.queued", "response": events[0]["response"]},
        events[1],
        {"type": "acme:trace", "anything": 1},
    ]
    events[1], events[2] = events[2], events[1]
    events[-1:-1] = [
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        {"type": "acme:progress", "output_index": 1},
        {"type": "response.output_item.done", "output_index": 1, "item": item},
    ]
    events[-1]["response"]["output"].append(item)
    events[1]["type"], events[2]["type"] = "response.queued", "response.in_progress"
    return [{**event, "sequence_number": number} for number, event in enumerate(events, 1)]


@pytest.mark.parametrize("rule", grammar.ALL)
@pytest.mark.parametrize(
    "events",
    [
        greeting(),
        call(),
        refusal(),
        custom_call(),
        raw_reasoning("response.reasoning_text"),
        raw_reasoning("response.reasoning"),
        with_extensions(),
    ],
    ids=[
        "greeting",
        "call",
        "refusal",
        "custom call",
        "raw reasoning",
        "raw reasoning of Open Responses",
        "extensions",
    ],
)
def test_a_stream_in_order_keeps_every_rule(rule: Rule, events: list[Json]) -> None:
    rule(stream_of(events))


def sealed(before: str | None, after: str | None) -> list[Json]:
    """The greeting with its reasoning sealed in one way when it is done, and in another at the end."""
    events = greeting()
    for item, state in ((events[7]["item"], before), (events[-1]["response"]["output"][0], after)):
        item["encrypted_content"] = state
        if state is None:
            item.pop("encrypted_content")
    return events


def test_reasoning_may_be_sealed_twice() -> None:
    grammar.output(stream_of(sealed("one", "other")))


@pytest.mark.parametrize(("before", "after"), [("one", None), (None, "one"), ("", "one"), ("one", "")])
def test_a_seal_may_not_come_or_go(before: str | None, after: str | None) -> None:
    with pytest.raises(Broken, match="items that were done"):
        grammar.output(stream_of(sealed(before, after)))


def set_(place: int, **fields: Json) -> Callable[[list[Json]], object]:
    return lambda events: events[place].update(fields)


def unset(place: int, field: str) -> Callable[[list[Json]], object]:
    return lambda events: events[place].pop(field)


def in_item(place: int, **fields: Json) -> Callable[[list[Json]], object]:
    return lambda events: events[place]["item"].update(fields)


def in_response(place: int, **fields: Json) -> Callable[[list[Json]], object]:
    return lambda events: events[place]["response"].update(fields)


def lose(place: int) -> Callable[[list[Json]], object]:
    return lambda events: events.pop(place)


def swap(one: int, other: int) -> Callable[[list[Json]], object]:
    def swapped(events: list[Json]) -> None:
        events[one], events[other] = events[other], events[one]

    return swapped


def repeat(place: int) -> Callable[[list[Json]], object]:
    return lambda events: events.insert(place, events[place])


BROKEN: list[tuple[Rule, Callable[[], list[Json]], Callable[[list[Json]], object], str]] = [
    (grammar.fields, call, unset(3, "delta"), "missing required field `delta`"),
    (grammar.fields, call, set_(4, arguments=None), r"got `null` - at `\$.arguments`"),
    (grammar.fields, call, unset(2, "output_index"), "missing required field `output_index`"),
    (grammar.fields, greeting, unset(-1, "response"), "missing required field `response`"),
    (grammar.fields, greeting, unset(0, "sequence_number"), "missing required field `sequence_number`"),
    (grammar.numbering, greeting, set_(0, sequence_number=2), "expected the first sequence_number to be 0, got 2"),
    (grammar.numbering, greeting, unset(0, "sequence_number"), "expected the first sequence_number to be 0, got None"),
    (grammar.numbering, greeting, set_(5, sequence_number=6), "after 4 to be one more, got 6"),
    (grammar.numbering, greeting, unset(5, "sequence_number"), "after 4 to be one more, got None"),
    (grammar.lifecycle, greeting, lose(0), "expected the stream to begin with"),
    (grammar.lifecycle, greeting, lose(1), "expected the stream to begin with"),
    (grammar.lifecycle, greeting, swap(-1, -2), "expected one terminal event, and nothing after it"),
    (grammar.lifecycle, greeting, repeat(-1), "expected one terminal event, and nothing after it"),
    (grammar.lifecycle, greeting, lose(-1), r"expected one terminal event, and nothing after it, got \[\]"),
    (grammar.lifecycle, greeting, in_response(0, id="resp_other"), "expected one response id in all events"),
    (grammar.beginnings, greeting, in_response(1, output=[{}]), "expected an empty output in 'response.in_progress'"),
    (grammar.beginnings, greeting, in_response(0, usage={}), "expected usage in 'response.created' to be b'null'"),
    (grammar.beginnings, greeting, in_response(0, completed_at=1), "expected completed_at in 'response.created'"),
    (grammar.beginnings, greeting, in_response(0, error={}), "expected error in 'response.created'"),
    (grammar.added_items, call, in_item(2, arguments="{}"), "expected the arguments of an added 'function_call' item"),
    (grammar.added_items, call, in_item(2, status="completed"), "expected the status of an added item"),
    (grammar.added_items, greeting, in_item(2, summary=[{}]), "expected the summary of an added 'reasoning' item"),
    (grammar.pairing, greeting, set_(2, output_index=1), "expected the output_index of the next item to be 0, got 1"),
    (grammar.pairing, greeting, repeat(2), "expected the output_index of the next item to be 1, got 0"),
    (grammar.pairing, greeting, lose(7), r"expected every added item to be done, got open ones at \[0\]"),
    (grammar.pairing, greeting, repeat(7), "between 'added' and 'done' of its item, got index 0"),
    (grammar.pairing, greeting, lose(2), "expected the output_index of the next item|between 'added' and 'done'"),
    (grammar.pairing, greeting, swap(6, 7), "between 'added' and 'done' of its item, got index 0"),
    (grammar.pairing, greeting, in_item(7, id="rs_other"), "expected type, id and call_id as they were added"),
    (grammar.pairing, call, in_item(5, call_id="call_other"), "expected type, id and call_id as they were added"),
    (grammar.pairing, call, set_(3, item_id="call_1"), "expected the item_id in"),
    (grammar.bodies, greeting, lose(3), "expected the events of a 'reasoning' item in order"),
    (grammar.bodies, greeting, swap(4, 5), "expected the events of a 'reasoning' item in order"),
    (grammar.bodies, greeting, lose(9), "expected the events of a 'message' item in order"),
    (grammar.bodies, call, lose(4), "expected the events of a 'function_call' item in order"),
    (grammar.bodies, call, lambda events: events.__delitem__(slice(3, 5)), "got no events"),
    (grammar.deltas, greeting, lose(4), "expected the deltas joined to be what 'done' says"),
    (grammar.deltas, greeting, lose(10), "expected the deltas joined to be what 'done' says"),
    (grammar.deltas, call, set_(4, arguments="[]"), "expected the deltas joined to be what 'done' says"),
    (grammar.deltas, call, set_(3, delta=None), "expected the deltas joined to be what 'done' says"),
    (grammar.deltas, call, in_item(5, arguments="[]"), "expected the finished item to hold what its events said"),
    (grammar.deltas, greeting, in_item(-2, content=[]), "expected the finished item to hold what its events said"),
    (grammar.deltas, refusal, in_item(-2, content=None), "expected the finished item to hold what its events said"),
    (grammar.bodies, custom_call, lose(4), "expected the events of a 'custom_tool_call' item in order"),
    (grammar.fields, custom_call, unset(4, "input"), "missing required field `input`"),
    (grammar.deltas, custom_call, in_item(5, input="[]"), "expected the finished item to hold what its events said"),
    (grammar.output, greeting, in_item(-2, extra=1), r"items that were done, at `\$\[1\]` \['extra'\], got \[\]"),
    (grammar.output, greeting, in_response(-1, output=[]), "expected the output at the end"),
    (grammar.output, greeting, lambda events: events[-1]["response"]["output"].reverse(), "items that were done"),
]


@pytest.mark.parametrize(("rule", "events", "change", "told"), BROKEN)
def test_a_stream_out_of_order_breaks_a_rule(
    rule: Rule, events: Callable[[], list[Json]], change: Callable[[list[Json]], object], told: str
) -> None:
    changed = events()
    change(changed)
    with pytest.raises(Broken, match=told):
        rule(stream_of(changed))

from collections.abc import Callable

from tests.conformance.judging import Mutants, broken, every, in_events, renumbered
from tests.conformance.little_server import Exchange, Fault, Json


def sent(change: Callable[[bytes], bytes]) -> Fault:
    """Changes the bytes of every chunk."""
    return Fault(sent=lambda chunks: [change(chunk) for chunk in chunks])


def halves(chunks: list[bytes]) -> list[bytes]:
    return [half for chunk in chunks for half in (chunk[:20], chunk[20:]) if half]


def without(*kinds: str) -> Fault:
    """Leaves out the events of these types."""
    return renumbered(
        lambda events: [event for event in events if event["type"].removeprefix("response.") not in kinds]
    )


def another_id(event: Json) -> None:
    event["response"]["id"] = "resp_other"


def a_gap(it: Exchange) -> None:
    for event in it.events[3:]:
        event["sequence_number"] += 1


def first_delta_lost(events: list[Json]) -> list[Json]:
    lost = next(place for place, event in enumerate(events) if event["type"].endswith(".delta"))
    return [*events[:lost], *events[lost + 1 :]]


def without_annotations(it: Exchange) -> None:
    for item in [
        *(event["item"] for event in it.of("output_item.done")),
        *(item for event in it.of("completed") for item in event["response"]["output"]),
    ]:
        for part in item.get("content", []):
            part.pop("annotations")


def error_in_a_stream(it: Exchange) -> None:
    if it.error and it.body.get("stream") is True:
        it.status, it.events = 200, [{"type": "error", "sequence_number": 0, **it.told["error"]}]


def not_kept(it: Exchange) -> None:
    if it.body.get("stream") is True:
        it.body["store"] = False


def calls_without_a_status(it: Exchange) -> None:
    for item in [
        *(event["item"] for event in it.of("output_item.done")),
        *(item for event in it.of("completed") for item in event["response"]["output"]),
    ]:
        if item["type"] == "function_call":
            item.pop("status")


def keeping_another() -> Fault:
    streamed: set[str] = set()

    def told(it: Exchange) -> None:
        streamed.update(event["response"]["id"] for event in it.of("completed"))
        for response in it.kept:
            if response["id"] in streamed:
                response["model"] = "large"

    return Fault(told=told)


MUTANTS: Mutants = {
    "a call at the end has no status": (
        Fault(told=calls_without_a_status),
        {"streams.streamed-items-have-their-fields"},
    ),
    "another response is kept of a stream": (keeping_another(), {"streams.a-streamed-response-is-kept"}),
    "there is an id line": (sent(lambda chunk: b"id: 1\n" + chunk), {"streams.an-event-is-two-lines"}),
    "the event line says something else": (
        sent(lambda chunk: chunk.replace(b"event: response.", b"event: ")),
        {"streams.an-event-is-two-lines"},
    ),
    "lines end with CR LF": (sent(lambda chunk: chunk.replace(b"\n", b"\r\n")), {"streams.lines-end-with-a-line-feed"}),
    "the last line is not ended": (
        Fault(sent=lambda chunks: [*chunks[:-1], chunks[-1][:-1]]),
        {"streams.lines-end-with-a-line-feed", "streams.events-come-in-one-piece"},
    ),
    "chunks end anywhere": (Fault(sent=halves), {"streams.events-come-in-one-piece"}),
    "[DONE] is missing": (Fault(sent=lambda chunks: chunks[:-1]), {"streams.the-last-data-is-done"}),
    "[DONE] comes twice": (Fault(sent=lambda chunks: [*chunks, chunks[-1]]), {"streams.the-last-data-is-done"}),
    "a sequence number is left out": (Fault(told=a_gap), {"streams.sequence-numbers-count-the-events"}),
    "a field is missing": (
        in_events("output_text.delta", change=lambda event: event.pop("logprobs")),
        {"streams.events-have-their-fields"},
    ),
    "in_progress is missing": (without("in_progress"), {"streams.a-stream-begins-and-ends-as-it-should"}),
    "events speak of another response": (
        in_events("created", change=another_id),
        {"streams.a-stream-begins-and-ends-as-it-should"},
    ),
    "the output is there from the beginning": (
        in_events("created", change=lambda event: event["response"].update(output=[{}])),
        {"streams.a-response-is-empty-until-its-end"},
    ),
    "a response in an event lacks a key": (
        in_events("created", change=lambda event: event["response"].pop("tools")),
        {"streams.events-carry-whole-responses"},
    ),
    "an item is added completed": (
        in_events("output_item.added", change=lambda event: event["item"].update(status="completed")),
        {"streams.an-added-item-is-empty"},
    ),
    "events name another item": (
        in_events("output_text.delta", change=lambda event: event.update(item_id="msg_other")),
        {"streams.items-are-added-and-done"},
    ),
    "a part is not done": (without("content_part.done"), {"streams.parts-are-added-told-and-done"}),
    "a delta is lost": (renumbered(first_delta_lost), {"streams.deltas-add-up"}),
    "a finished item says something else": (
        in_events("output_item.done", change=lambda event: event["item"].update(extra=1)),
        {"streams.the-output-is-what-was-done"},
    ),
    "a text at the end has no annotations": (
        Fault(told=without_annotations),
        {"streams.streamed-items-have-their-fields", "streams.a-streamed-response-is-kept"},
    ),
    "an error comes in a stream": (
        Fault(told=error_in_a_stream),
        {"streams.a-wrong-request-for-a-stream-is-a-plain-error"},
    ),
    "streams are not kept": (
        Fault(asked=not_kept),
        {"streams.a-streamed-response-is-kept", "lineage.a-stream-continues-another"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks

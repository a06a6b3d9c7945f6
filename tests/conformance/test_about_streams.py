from collections.abc import Callable

from rejoinder.conformance.about_streams import chapter
from rejoinder.conformance.samples import GREETING
from tests.conformance.judging import Mutants, bending, broken, every, ids, in_events, renumbered, verdicts
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer


def sent(change: Callable[[bytes], bytes]) -> Fault:
    """Changes the bytes of every chunk."""
    return Fault(sent=lambda chunks: [change(chunk) for chunk in chunks])


def halves(chunks: list[bytes]) -> list[bytes]:
    return [half for chunk in chunks for half in (chunk[:20], chunk[20:]) if half]


def is_greeted(it: Exchange) -> bool:
    """Whether it is a greeting and nothing else."""
    return it.body.keys() == {"model", "input", "stream"} and it.said == GREETING


def without(*kinds: str) -> Fault:
    """Leaves out the events of these types."""
    return renumbered(
        lambda events: [event for event in events if event["type"].removeprefix("response.") not in kinds],
        within=is_greeted,
    )


def another_id(event: Json) -> None:
    event["response"]["id"] = "resp_other"


def a_gap(it: Exchange) -> None:
    for event in it.events[3:] if is_greeted(it) else ():
        event["sequence_number"] += 1


def first_delta_lost(events: list[Json]) -> list[Json]:
    lost = next(place for place, event in enumerate(events) if event["type"].endswith(".delta"))
    return [*events[:lost], *events[lost + 1 :]]


def without_annotations(it: Exchange) -> None:
    if not is_greeted(it):
        return
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
        if is_greeted(it):
            streamed.update(event["response"]["id"] for event in it.of("completed"))
        for response in it.kept:
            if response["id"] in streamed:
                response["model"] = "large"

    return Fault(told=told)


def is_plain(it: Exchange) -> bool:
    return not it.body.get("background") and not it.query


def on_the_way(it: Exchange) -> None:
    for event in it.of("in_progress") if is_plain(it) else ():
        event["response"]["status"] = "queued"


def anonymous(event: Json) -> None:
    event["item"].pop("role", None)


def with_another_part(it: Exchange) -> None:
    for event in it.of("content_part.done"):
        event["part"]["annotations"] = [{}]


def for_another_reason(event: Json) -> None:
    event["response"]["incomplete_details"] = {"reason": "content_filter"}


def cut_in_the_middle(events: list[Json]) -> list[Json]:
    return [event for event in events if event["type"] != "response.content_part.done"]


def padded(it: Exchange) -> None:
    if "stream_options" in it.body:
        for event in it.of("output_text.delta"):
            event["obfuscation"] = "xx"


def one_id(it: Exchange) -> None:
    if it.said == "Say hello to us all.":
        for event in it.events:
            if "response" in event:
                event["response"]["id"] = "resp_1"


def short(body: Json) -> None:
    if body.get("max_output_tokens") == 16:
        body["input"] = GREETING


MUTANTS: Mutants = {
    "what is in progress is queued": (Fault(told=on_the_way), {"streams.an-event-and-its-response-agree"}),
    "an added message has no role": (
        in_events("output_item.added", change=anonymous),
        {"streams.an-added-item-says-who-it-is"},
    ),
    "a part is added with a text": (
        in_events("content_part.added", change=lambda event: event["part"].update(text="Hello")),
        {"streams.an-added-part-is-empty"},
    ),
    "a part that is done is another one": (
        Fault(told=with_another_part),
        {"streams.a-part-that-is-done-is-that-of-the-item"},
    ),
    "a cut stream has another reason": (
        in_events("incomplete", change=for_another_reason),
        {"streams.a-cut-stream-ends-incomplete"},
    ),
    "a cut stream ends in the middle of a part": (
        renumbered(cut_in_the_middle, within=lambda it: it.body.get("max_output_tokens")),
        {"streams.a-cut-stream-keeps-the-grammar"},
    ),
    "padding is told anyway": (Fault(told=padded), {"streams.padding-can-be-left-out"}),
    "streams share an id": (Fault(told=one_id), {"streams.streams-at-once-do-not-mix"}),
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
    "[DONE] comes twice": (Fault(sent=lambda chunks: [*chunks, chunks[-1]]), {"streams.the-last-data-is-done"}),
    "a sequence number is left out": (Fault(told=a_gap), {"streams.sequence-numbers-count-the-events"}),
    "a field is missing": (
        in_events("output_text.delta", change=lambda event: event.pop("logprobs"), within=is_greeted),
        {"streams.events-have-their-fields"},
    ),
    "in_progress is missing": (without("in_progress"), {"streams.a-stream-begins-and-ends-as-it-should"}),
    "events speak of another response": (
        in_events("created", change=another_id, within=is_greeted),
        {"streams.a-stream-begins-and-ends-as-it-should"},
    ),
    "the output is there from the beginning": (
        in_events("created", change=lambda event: event["response"].update(output=[{}]), within=is_greeted),
        {"streams.a-response-is-empty-until-its-end"},
    ),
    "a response in an event lacks a key": (
        in_events("created", change=lambda event: event["response"].pop("tools"), within=is_greeted),
        {"streams.events-carry-whole-responses"},
    ),
    "an item is added completed": (
        in_events(
            "output_item.added", change=lambda event: event["item"].update(status="completed"), within=is_greeted
        ),
        {"streams.an-added-item-is-empty"},
    ),
    "events name another item": (
        in_events("output_text.delta", change=lambda event: event.update(item_id="msg_other"), within=is_greeted),
        {"streams.items-are-added-and-done"},
    ),
    "a part is not done": (without("content_part.done"), {"streams.parts-are-added-told-and-done"}),
    "a delta is lost": (renumbered(first_delta_lost, within=is_greeted), {"streams.deltas-add-up"}),
    "a finished item says something else": (
        in_events("output_item.done", change=lambda event: event["item"].update(extra=1), within=is_greeted),
        {"streams.the-output-is-what-was-done"},
    ),
    "a text at the end has no annotations": (
        Fault(told=without_annotations),
        {
            "streams.streamed-items-have-their-fields",
            "streams.a-part-that-is-done-is-that-of-the-item",
            "streams.a-streamed-response-is-kept",
        },
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


async def test_a_stream_that_was_not_cut_says_nothing() -> None:
    found = await verdicts(LittleServer(bending(short)), rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {"streams.a-cut-stream-ends-incomplete"}


async def test_an_item_that_was_never_added_says_nothing_of_what_was() -> None:
    found = await verdicts(LittleServer(without("output_item.added")), rules=list(chapter))
    assert "streams.items-are-added-and-done" in ids("broken", found)
    assert "streams.an-added-item-says-who-it-is" in ids("kept", found)

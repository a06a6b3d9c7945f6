import msgspec

from rejoinder.conformance.about_websocket import chapter
from rejoinder.conformance.errors import NoAnswer
from rejoinder.conformance.rule import Rule
from rejoinder.conformance.server import Server
from rejoinder.conformance.verdict import Verdict, judge
from tests.conformance.judging import KEY, Mutants, broken, every, ids, verdicts
from tests.conformance.little_server import MODEL, Exchange, Fault, Json, LittleServer, Refused
from tests.conformance.little_session import URL, reaching
from tests.conformance.spoken import (
    a_gap,
    called,
    connections,
    deaf,
    errors,
    events,
    hearing,
    responses,
    saying,
    unnamed,
    without,
)


def a_subprotocol(it: Exchange) -> None:
    if it.method == "GET":
        it.headers["sec-websocket-protocol"] = "chat"


def no_old_beta(it: Exchange) -> None:
    if it.method == "GET" and "2025" in it.came_with.get("openai-beta", ""):
        it.key = None


def anybody(it: Exchange) -> None:
    if it.method == "GET":
        it.key = f"Bearer {KEY}"


def html(it: Exchange) -> None:
    if it.method == "GET" and it.told is not None:
        it.headers["content-type"] = "text/html"


def no_pong(it: Exchange) -> None:
    if it.method == "PING":
        it.told = None


def binary(it: Exchange) -> None:
    it.events = [msgspec.json.encode(event) for event in it.events]


def done(place: int) -> Fault:
    """Says [DONE] there."""

    def change(it: Exchange) -> None:
        it.events.insert(place if place >= 0 else len(it.events), "[DONE]")

    return saying(lambda it: "stream_id" not in it.body, change)


def counting_on() -> Fault:
    """The second response of a connection goes on counting."""
    notes = connections()

    def change(it: Exchange) -> None:
        for event in it.events if "begun" in notes(it) else ():
            event["sequence_number"] += 10
        notes(it).add("begun")

    return saying(unnamed, change)


def alike() -> Fault:
    """Items of two responses have the same id."""

    def change(it: Exchange) -> None:
        for item in it.made.response["output"][:1] if it.made else ():
            called(item["id"], "rs_same", it)

    return saying(unnamed, change)


def side_by_side() -> Fault:
    """Who comes second does not wait."""

    def change(it: Exchange) -> None:
        it.lane = it.body["instructions"]

    return hearing(lambda it: it.body.get("instructions") in ("first", "second"), change)


def uncounted(response: Json) -> None:
    if response["usage"]:
        response["usage"]["total_tokens"] += 1


def wrong(it: Exchange) -> bool:
    return it.body.get("input") == 7 and not {"stream_id", "instructions"} & it.body.keys()


def stray(it: Exchange) -> bool:
    return "call_stray" in str(it.body.get("input")) and not {"stream_id", "previous_response_id"} & it.body.keys()


def of_no_model(it: Exchange) -> bool:
    return bool(it.body.get("model") == "no-such-model-here")


def of_nothing(it: Exchange) -> bool:
    return str(it.body.get("previous_response_id")).endswith("000")


def a_failure(it: Exchange) -> None:
    error = it.events[0]["error"]
    failed = {"id": "resp_failed", "status": "failed", "output": [], "error": {"code": "oh", **error}}
    it.events = [{"type": "response.failed", "sequence_number": 0, "response": failed}]


def stuck() -> Fault:
    """After something wrong the connection is of no use."""
    notes = connections()

    def heard(it: Exchange) -> None:
        if wrong(it):
            notes(it).add("stuck")
        elif "stuck" in notes(it):
            raise Refused("stuck")

    return Fault(heard=heard)


def ignored(it: Exchange) -> None:
    it.events = []


def hanging_up(it: Exchange) -> None:
    it.events = [None]


MUTANTS: Mutants = {
    "a request ends the connection": (saying(lambda it: True, hanging_up), {"websocket.a-request-is-answered"}),
    "a subprotocol is chosen": (Fault(said=a_subprotocol), {"websocket.an-upgrade-is-all-it-takes"}),
    "an old beta header is refused": (Fault(heard=no_old_beta), {"websocket.a-beta-header-does-not-matter"}),
    "a handshake needs no key": (Fault(heard=anybody), {"websocket.a-handshake-without-its-key-is-refused"}),
    "a refused handshake is HTML": (Fault(said=html), {"websocket.a-handshake-without-its-key-is-refused"}),
    "pings are not answered": (Fault(said=no_pong), {"websocket.pings-are-answered"}),
    "frames are binary": (saying(unnamed, binary), {"websocket.frames-are-text"}),
    "[DONE] comes before the end": (done(2), {"websocket.a-frame-is-one-event"}),
    "a field is missing": (
        saying(unnamed, events("output_text.delta", change=lambda event: event.pop("logprobs"))),
        {"websocket.frames-have-the-fields-of-events"},
    ),
    "a number is left out": (saying(unnamed, a_gap), {"websocket.sequence-numbers-begin-anew"}),
    "numbers go on": (counting_on(), {"websocket.sequence-numbers-begin-anew"}),
    "in_progress is missing": (
        saying(unnamed, without("in_progress")),
        {"websocket.a-turn-begins-and-ends-as-a-stream-does"},
    ),
    "a response in an event lacks a key": (
        saying(unnamed, events("created", change=lambda event: event["response"].pop("tools"))),
        {"websocket.responses-in-frames-are-whole"},
    ),
    "an item is added completed": (
        saying(unnamed, events("output_item.added", change=lambda event: event["item"].update(status="completed"))),
        {"websocket.items-are-added-and-done-over-a-socket"},
    ),
    "a part is not done": (
        saying(unnamed, without("content_part.done")),
        {"websocket.parts-are-told-and-add-up-over-a-socket"},
    ),
    "a finished item says something else": (
        saying(unnamed, events("output_item.done", change=lambda event: event["item"].update(extra=1))),
        {"websocket.the-output-is-what-was-done-over-a-socket"},
    ),
    "usage does not add up": (saying(unnamed, responses(uncounted)), {"websocket.usage-is-told-over-a-socket"}),
    "items share an id": (alike(), {"websocket.responses-of-a-connection-are-distinct"}),
    "requests are answered side by side": (side_by_side(), {"websocket.a-second-request-waits-for-the-first"}),
    "stream is refused": (
        deaf(lambda it: it.body.get("stream") and it.body["input"] == "Say hello."),
        {"websocket.stream-may-be-said-and-changes-nothing"},
    ),
    "metadata of a client is refused": (
        deaf(lambda it: "client_metadata" in it.body and it.body["input"] == "Say hello."),
        {"websocket.metadata-of-a-client-is-taken"},
    ),
    "a large message is refused": (
        deaf(lambda it: len(it.body.get("instructions") or "") > 1_000_000, status=413),
        {"websocket.a-large-message-is-read"},
    ),
    "an error has no status": (
        saying(wrong, errors(lambda event: event.pop("status"))),
        {"websocket.an-error-has-a-status-and-a-code"},
    ),
    "an error has no code": (
        saying(stray, errors(lambda event: event["error"].update(code=None))),
        {"websocket.an-error-has-a-status-and-a-code"},
    ),
    "a refusal is a response that failed": (saying(wrong, a_failure), {"websocket.a-wrong-request-is-an-error-frame"}),
    "what is wrong is not named": (
        saying(wrong, errors(lambda event: event["error"].update(param=None))),
        {"websocket.a-wrong-value-is-named-over-a-socket"},
    ),
    "what is wrong is another status": (
        saying(wrong, errors(lambda event: event.update(status=422))),
        {"websocket.a-wrong-value-is-named-over-a-socket"},
    ),
    "an unknown model has another code": (
        saying(of_no_model, errors(lambda event: event["error"].update(code="not_found"))),
        {"websocket.an-unknown-model-is-refused-over-a-socket"},
    ),
    "an unknown response has another code": (
        saying(of_nothing, errors(lambda event: event["error"].update(code="not_found"))),
        {"websocket.an-unknown-previous-response-is-refused-over-a-socket"},
    ),
    "the model is remembered": (
        hearing(lambda it: it.body.get("type") == "response.create", lambda it: it.body.setdefault("model", MODEL)),
        {"websocket.the-model-is-named-every-time"},
    ),
    "background is ignored": (
        hearing(lambda it: "background" in it.body, lambda it: it.body.pop("background")),
        {"websocket.background-is-refused-over-a-socket"},
    ),
    "a wrong request spoils the connection": (stuck(), {"websocket.a-connection-survives-wrong-requests"}),
    "what is no object is ignored": (
        saying(lambda it: it.asked is None, ignored),
        {"websocket.what-is-no-object-is-refused-over-a-socket"},
    ),
    "an unknown type is ignored": (
        saying(lambda it: it.body.get("type") == "response.append", ignored),
        {"websocket.an-unknown-type-is-refused"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_a_mark_behind_the_end_is_tolerated() -> None:
    assert await broken(done(-1)) == set()


async def test_a_server_without_tools_is_judged_by_what_it_says() -> None:
    found = await verdicts(LittleServer(refuses="tools", key=KEY), key=KEY, rules=list(chapter))
    assert ids("kept", found) == {rule.id for rule in chapter}


def closing(it: Exchange) -> None:
    it.events = [None]


async def test_who_hangs_up_on_strange_frames_breaks_nothing() -> None:
    fault = saying(lambda it: it.asked is None or it.body.get("type") != "response.create", closing)
    found = await verdicts(LittleServer(fault, key=KEY), key=KEY, rules=list(chapter))
    assert ids("broken", found) == set()
    assert ids("not_applicable", found) == {
        "websocket.what-is-no-object-is-refused-over-a-socket",
        "websocket.an-unknown-type-is-refused",
    }


async def impatiently(rule: Rule, fault: Fault) -> Verdict:
    """The verdict of somebody who waits for a moment only."""
    return await judge(rule, Server(reaching(LittleServer(fault), timeout=0.05), URL, MODEL, key=None))


async def test_who_says_nothing_any_more_breaks_the_rule() -> None:
    [rule] = [rule for rule in chapter if rule.id == "websocket.an-unknown-type-is-refused"]
    notes = connections()

    def said(it: Exchange) -> None:
        if it.body.get("type") == "response.append":
            notes(it).add("silent")
        if "silent" in notes(it):
            it.events = []

    assert (await impatiently(rule, Fault(said=said))).reason == str(NoAnswer("a frame in time", "none"))

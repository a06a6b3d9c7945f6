"""Every recorded exchange with a server that speaks the Responses API, through the bridge: answers, tails, requests,
conversations.

What is expected comes from the recordings themselves. Where the bridge does something else on purpose, a table here or
in `responses_wording` names the recording, or the rule, and says why.
"""

import json
from collections.abc import Sequence

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.wire.events import Relayed
from rejoinder.wire.items import Item
from tests.bridge.prompts import Counter
from tests.bridge.recordings import (
    FOLDER,
    Json,
    Object,
    Recording,
    cuts,
    loaded,
    named,
    needs_recordings,
    objects,
    recording,
    recordings,
    steps,
    tails,
)
from tests.bridge.replay import Answered, assert_failed, broken_off, same_however_cut
from tests.bridge.responses_grammar import judged
from tests.bridge.responses_reading import events, said, unmarked
from tests.bridge.responses_replay import (
    PROFILES,
    QUESTION,
    as_stored,
    body,
    listener,
    listeners,
    profile_of,
    prompt,
    vendor_of,
)
from tests.bridge.responses_wording import REWRITES, RULES, as_we_say_it
from tests.bridge.rules import Rule, explains

pytestmark = [needs_recordings, pytest.mark.recorded]

OTHER_CALLS = {
    "compact-messages-pai1705": "/responses/compact is not asked here: its answer holds messages of the user",
    "compact-with-auto-previous-response-id-pai1719": "the same",
    "responses-count-tokens-pai1823": "/responses/input_tokens",
    "responses-count-tokens-with-tools-pai1824": "/responses/input_tokens",
}
"""Exchanges that are no create call."""

FAILURES = {
    "background-mode-reasoning-vcr-pai1647": ("server_error", "the provider left the answer 'queued'"),
    "background-mode-streaming-without-starting-after-vcr-pai1654": (
        "server_error",
        "the provider left the answer 'queued'",
    ),
    "background-mode-vcr-pai1657": ("server_error", "the provider left the answer 'in_progress'"),
    "openai-error-1-stream-ver": ("insufficient_quota", "You exceeded your current quota"),
    "openai-error-1-ver": ("insufficient_quota", "You exceeded your current quota"),
}
"""Answers with status 200 that are none: the code that describes it, and how the text begins."""

REJECTIONS = {
    "deepseek-responses-rejects-interleaved-function-calls-pai777": (400, "invalid_request_error", None),
    "error-handling-with-xai-grok-4-1-fast-non-reasoning-raises-appro-rllm2320": (400, "invalid_request_error", None),
    "inferred-model-name-suggestion-pai143": (400, "model_not_found", "model"),
    "real-error-scenarios-openai-gpt-5-nano-handles-context-length-ex-rllm2727": (
        400,
        "context_length_exceeded",
        "input",
    ),
    "reasoning-model-temperature-error-ver": (400, "invalid_request_error", "temperature"),
    "responses-create-api-error-content-mode0-otel5043": (400, "model_not_found", "model"),
    "temperature-with-reasoning-400-lf": (400, "invalid_request_error", "temperature"),
    "thinking-with-modified-history-pai1812": (400, "invalid_request_error", "input"),
}
"""Status, code and parameter of every recorded refusal."""

CALLS = [one for one in recordings("responses") if one.name not in OTHER_CALLS]
ANSWERS = [one for one in CALLS if one.status == 200]
WHOLE = [one for one in ANSWERS if one.name not in FAILURES]
STREAMS = [one for one in WHOLE if one.is_stream]
REQUESTS = [one for one in CALLS if one.request is not None]


def test_every_exchange_named_in_a_table_was_recorded() -> None:
    tables = (OTHER_CALLS, FAILURES, REJECTIONS, REWRITES, UNPAIRED, REFERRED)

    assert {name for table in tables for name in table} <= {one.name for one in recordings("responses")}
    assert {vendor_of(one) for one in CALLS} == PROFILES.keys()


# Answers.


@named(ANSWERS)
def test_an_answer_becomes_the_same_events_however_it_is_cut(exchange: Recording) -> None:
    whole = same_however_cut(listeners(exchange), exchange, cuts(exchange))

    judged(whole.encoded)


@named(STREAMS)
def test_every_event_of_a_stream_is_passed_on_as_it_came(exchange: Recording) -> None:
    expected = said(exchange).events
    if exchange.name in REWRITES:
        REWRITES[exchange.name].change(expected)

    heard = listeners(exchange)().hear([exchange.body])

    _created, _in_progress, *relayed, _completed = [loaded(data) for data in heard.encoded]
    if exchange.name == "model-mcp-list-tools-stream-backfills-missing-results-pai1760":
        for event in relayed[-2:]:
            [item] = objects([event["item"]])
            event["item"] = item["id"]
    # As text, for the order of fields is theirs as well.
    assert [_text(unmarked(event)) for event in relayed] == [_text(event) for event in expected]


def _text(event: Object) -> str:
    if "item" in event and not isinstance(event["item"], dict):
        return json.dumps(event, sort_keys=True)
    # Where an event is ours, and where theirs, `output_index` stands in different places.
    return json.dumps(event)


@named(WHOLE)
def test_a_response_says_what_the_provider_said(exchange: Recording) -> None:
    expected = said(exchange).response

    heard = listeners(exchange)().hear([exchange.body])

    assert heard.error is None
    last = loaded(heard.encoded[-1])
    [ours] = objects([last["response"]])
    response = judged(heard.encoded)
    assert response.status == expected.get("status", "completed")
    for name, value in expected.items():
        if value is not None and name not in OURS:
            assert ours[name] == value, name
    [usage, theirs] = objects([ours["usage"], expected["usage"]])
    for name, value in theirs.items():
        if not isinstance(value, dict):
            assert usage[name] == value, name
        else:
            [details] = objects([usage[name]])
            assert details.items() >= value.items(), name


OURS = ("background", "completed_at", "conversation", "created_at", "id", "input_transformations", "instructions",
        "metadata", "model", "object", "output", "previous_response_id", "prompt_cache_key", "status", "store",
        "usage")  # fmt: skip
"""What a response says that is not its provider's to say; `usage` and `output` are compared on their own."""


@named(WHOLE)
def test_the_output_is_that_of_the_provider_item_by_item(exchange: Recording) -> None:
    expected = said(exchange).output

    heard = listeners(exchange)().hear([exchange.body])

    items = heard.items
    for ours, theirs in zip(items, expected, strict=True):
        if exchange.is_stream and ours.get("encrypted_content"):
            # It is sealed again for every event; ours is that of `output_item.done` (§4).
            theirs["encrypted_content"] = ours["encrypted_content"]
        if exchange.name in NEW_IDS and ours["id"] != theirs.get("id"):
            theirs["id"] = ours["id"]
    assert items == expected
    assert len({str(item["id"]) for item in items}) == len(items)


NEW_IDS = {
    "github-copilot-id-rotation-1-stream-ver": "every event has another id",
    "providers-bedrock-mantle-responses-chat-calls-tools-through-the-rllm3174": "a call has no id",
    "web-search-with-xai-grok-4-3-replays-search-turns-so-the-convers-rllm2983": "two items have the same id",
}
"""Answers with items whose ids are not those of the last event."""


@named([one for one in STREAMS if one.name not in REWRITES])
def test_an_item_that_is_done_is_kept_byte_for_byte(exchange: Recording) -> None:
    lines = [line for line in exchange.body.splitlines() if line.startswith(b"data:") and b"output_item.done" in line]
    theirs = [msgspec.json.decode(line.removeprefix(b"data:"), type=dict[str, Raw]) for line in lines]

    heard = listeners(exchange)().hear([exchange.body])

    done = [bytes(event.item) for event in heard.events if isinstance(event, Relayed) and event.item is not None]
    assert done == [bytes(fields["item"]) for fields in theirs][: len(done)]
    assert len(done) == len(said(exchange).output)


@named([one for one in STREAMS if not one.name.startswith("github-copilot")])
def test_the_output_is_put_together_where_the_end_does_not_list_it(exchange: Recording) -> None:
    done = said(exchange).done

    heard = listeners(exchange)().hear([_without_output(exchange)])

    assert heard.error is None
    judged(heard.encoded)
    assert [item for item in heard.items if item in done] == done


def _without_output(exchange: Recording) -> bytes:
    """The answer as servers give it whose last event says nothing of its items."""
    lines = []
    for event in events(exchange):
        if event["type"] == "response.completed":
            event = {**event, "response": {**objects([event["response"]])[0], "output": []}}
        lines.append(f"data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


@pytest.mark.parametrize(("name", "error"), FAILURES.items())
def test_an_answer_that_is_none_is_a_failed_response(name: str, error: tuple[str, str]) -> None:
    exchange = recording("responses", name)

    heard = listeners(exchange)().hear([exchange.body])

    assert isinstance(heard.error, UpstreamError)
    assert heard.error.code == error[0]
    assert str(heard.error).startswith(error[1])
    assert judged(heard.encoded).status == "failed"


def test_every_recorded_refusal_has_its_row() -> None:
    assert {one.name for one in CALLS if one.status != 200} == REJECTIONS.keys()


@pytest.mark.parametrize(("name", "expected"), REJECTIONS.items())
def test_a_refusal_keeps_its_status_its_code_and_its_words(name: str, expected: tuple[int, str, str | None]) -> None:
    exchange = recording("responses", name)

    error = ResponsesDialect(profile_of(exchange)).rejection(exchange.status, exchange.headers, exchange.body)

    assert (error.status, error.code, error.param) == expected
    assert not error.transient
    assert str(error) == exchange.refusal


# Tails.


@named(STREAMS)
def test_an_answer_whose_tail_is_missing_fails_and_never_completes(exchange: Recording) -> None:
    data = exchange.body
    end = min(at for at in (data.find(b'"response.completed"'), data.find(b"event: response.completed")) if at >= 0)
    end = data.rindex(b"\n\n", 0, end) + 2

    for heard in broken_off(listeners(exchange), exchange, tails(exchange, end)):
        assert_failed(judged(heard.encoded))


@named(STREAMS)
def test_what_was_told_before_a_cut_stays(exchange: Recording) -> None:
    data = exchange.body
    deltas = [event for event in said(exchange).events if event["type"] == "response.output_text.delta"]
    if not deltas:
        return
    last = data.rindex(b"\n\n", 0, data.index(b"response.output_text.done"))

    heard = listeners(exchange)().hear([data[: last + 2]])

    text = "".join(str(event["delta"]) for event in deltas if event["output_index"] == deltas[0]["output_index"])
    messages = [item for item in heard.items if item["type"] == "message"]
    assert [str(objects(item["content"])[0]["text"]) for item in messages][-1] == text
    assert messages[-1]["status"] == "incomplete"


# Requests.

UNPAIRED = {
    "openai-conversation-id-tool-call-continuation-pai1686": "the call is in a conversation at OpenAI",
    "openai-previous-response-id-seed-auto-chains-through-retries-pai1698": "the call is in a response at OpenAI",
    "openai-previous-response-id-seed-auto-chains-through-retries-pai1699": "the call is in a response at OpenAI",
}
"""Requests that hold half of a pair: refused before anybody is asked (reliability.md F29)."""

REFERRED = {
    "openai-previous-response-id-seed-auto-chains-through-retries-pai1697": (),
    "openai-previous-response-id-seed-auto-chains-through-retries-pai1698": (
        "openai-previous-response-id-seed-auto-chains-through-retries-pai1697",
    ),
    "openai-previous-response-id-seed-auto-chains-through-retries-pai1699": (
        "openai-previous-response-id-seed-auto-chains-through-retries-pai1697",
        "openai-previous-response-id-seed-auto-chains-through-retries-pai1698",
    ),
}
"""Requests that go on from a response, and the recordings that come before them."""


@named([one for one in REQUESTS if one.name not in UNPAIRED])
def test_a_recorded_request_is_said_again_but_for_what_the_rules_explain(exchange: Recording) -> None:
    request = {name: value for name, value in exchange.said.items() if name not in ("background", "conversation")}

    call = ResponsesDialect(profile_of(exchange)).call(prompt(json.dumps(request).encode()))

    assert (call.method, call.path) == ("POST", "/responses")
    assert json.loads(call.body) == as_we_say_it(exchange)


@pytest.mark.parametrize("rule", RULES, ids=[rule.why for rule in RULES])
def test_a_rule_explains_a_difference_in_some_recording(rule: Rule) -> None:
    assert any(explains(rule, RULES, exchange) for exchange in REQUESTS)


@pytest.mark.parametrize(("name", "before"), REFERRED.items())
def test_a_request_that_goes_on_from_a_response_is_said_again_by_reference(name: str, before: Sequence[str]) -> None:
    exchange, past = recording("responses", name), [recording("responses", one) for one in before]
    heard = [Item.parse(json.dumps(item).encode()) for one in past for item in _turn(one)]
    parent = exchange.said["previous_response_id"]
    assert isinstance(parent, str)
    dialect = ResponsesDialect(ResponsesProfile(lineage="reference"))

    call = dialect.call(prompt(exchange.request or b"", heard, parent=parent))

    expected = as_we_say_it(exchange)
    assert json.loads(call.body) == {**expected, "store": True, "previous_response_id": parent}


def _turn(exchange: Recording) -> list[Object]:
    return [*objects(exchange.said["input"]), *said(exchange).output]


@named([recording("responses", name) for name in OTHER_CALLS if "count" in name] if FOLDER.is_dir() else [])
def test_tokens_are_counted_as_they_were_recorded(exchange: Recording) -> None:
    count = ResponsesDialect(ResponsesProfile()).count(prompt(exchange.request or b""))

    assert count is not None
    assert exchange.url.endswith(count.call.path)
    assert json.loads(count.call.body) == exchange.said
    assert count.read(exchange.body) == loaded(exchange.body)["input_tokens"]


# Conversations.

CHANGED = {
    "openai-native-tool-search-gpt-5-6-pai384": "its client sends the arguments of the search under another name",
}
"""Requests that hold something else than their provider gave."""

STEPS = [
    (before, after)
    for before, after in steps("responses")
    if before in WHOLE and after in REQUESTS and "previous_response_id" not in after.said
    and after.name not in UNPAIRED and after.name not in CHANGED
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), STEPS, ids=[after.name for _, after in STEPS])
def test_a_conversation_goes_on_as_it_was_recorded(before: Recording, after: Recording) -> None:
    profile, ids = profile_of(before), Counter()
    dialect = ResponsesDialect(profile)
    first = body(_parameters(before), _input(before))
    was = dialect.call(prompt(first)).body
    heard = listener(profile, prompt(first), ids).hear([before.body])
    assert heard.error is None
    replayed, since = _replayed(before, after, heard)

    stateless = dialect.call(prompt(body(_parameters(after), [*_input(before), *_output(heard), *since])))
    past = [*(as_stored(item) for item in prompt(first).items), *map(Item.parse, _output(heard))]
    stored = dialect.call(prompt(body(_parameters(after), since), past))

    assert stored.body == stateless.body
    if _parameters(before) == _parameters(after):
        assert stored.body.startswith(was.removesuffix(b"]}"))
    ours = objects(loaded(stored.body)["input"])
    old, answer = len(_input(before)), len(_output(heard))
    assert ours[:old] == objects(as_we_say_it(before)["input"])
    assert ours[old + answer :] == [json.loads(item) for item in since]
    answered = [item for item in ours[old : old + answer] if _kind(item) not in NOT_SENT_BACK.get(after.name, ())]
    for one, other in zip(answered, replayed, strict=True):
        _assert_holds(one, other)


NOT_SENT_BACK = {
    "providers-bedrock-mantle-responses-chat-calls-tools-through-the-rllm3175": ("reasoning",),
}
"""What the recorded client left out of an answer, and we do not."""


def _assert_holds(ours: Object, theirs: Object) -> None:
    """Everything the recorded client sent back is there; it leaves out fields of items, and we do not."""
    for name, value in theirs.items():
        match name, value:
            case "call_id" | "role", _:
                pass  # the one is paired before, the other is that of an assistant
            case "content", str():
                assert "".join(str(part["text"]) for part in objects(ours[name])) == value
            case "content", list():
                for part, other in zip(objects(ours[name]), objects(value), strict=True):
                    _assert_holds(part, other)
            case "text", str():
                # One recorder straightened quotation marks.
                assert str(ours[name]).translate(_STRAIGHT) == value.translate(_STRAIGHT)
            case _:
                assert ours.get(name) == value, name


_STRAIGHT = str.maketrans("“”’", '""\'')


def _kind(item: Object) -> str:
    return str(item.get("type", "message"))


def _parameters(exchange: Recording) -> Object:
    return {name: value for name, value in exchange.said.items() if name != "input"}


def _input(exchange: Recording) -> list[bytes]:
    [value] = [exchange.said["input"]]
    return [json.dumps(item).encode() for item in objects(value)]


def _replayed(before: Recording, after: Recording, heard: Answered) -> tuple[list[Object], list[bytes]]:
    """What the recorded client sent back of the answer, and what it added; with the call ids the answer has here."""
    items = objects(after.said["input"])[len(objects(before.said["input"])) :]
    items = [item for item in items if item.get("content") != ""]  # one client fills in empty messages
    new = 0
    while new < len(items) and (_kind(items[new]) not in _SAID_BY_CLIENTS or items[new].get("role") == "assistant"):
        new += 1
    called: list[Json] = [item["call_id"] for item in items[:new] if item.get("type") == "function_call"]
    ours: list[Json] = [item["call_id"] for item in heard.items if item["type"] == "function_call"]
    names = dict(zip(called, ours, strict=True))
    since = [{**item, "call_id": names[item["call_id"]]} if "call_id" in item else item for item in items[new:]]
    return items[:new], [json.dumps(item).encode() for item in since]


_SAID_BY_CLIENTS = ("message", "function_call_output")


def _output(heard: Answered) -> list[bytes]:
    last = msgspec.json.decode(heard.encoded[-1], type=dict[str, Raw])
    response = msgspec.json.decode(last["response"], type=dict[str, Raw])
    return [bytes(raw) for raw in msgspec.json.decode(response["output"], type=list[Raw])]


@pytest.mark.parametrize("name", ["fn-openai-gpt-5-nano-can-use-tools-with-multiturn-stream-rllm2532",
                                  "reused-tool-call-ids-stream-pai738"])  # fmt: skip
def test_fifty_turns_begin_with_the_bytes_of_the_turn_before(name: str) -> None:
    exchange = recording("responses", name)
    profile, ids = profile_of(exchange), Counter()
    dialect = ResponsesDialect(profile)
    past: list[Item] = []
    new = [QUESTION]
    before = b""
    call_ids: list[Json] = []

    for _ in range(50):
        asked = prompt(body(_parameters(exchange), new), past)
        now = dialect.call(asked).body
        assert now.startswith(before.removesuffix(b"]}"))
        before = now
        heard = listener(profile, asked, ids).hear([exchange.body])
        assert heard.error is None
        past = [*asked.items, *map(Item.parse, _output(heard))]
        calls = [item["call_id"] for item in heard.items if item["type"] == "function_call"]
        new = [
            json.dumps({"type": "function_call_output", "call_id": call_id, "output": "ok"}).encode()
            for call_id in calls
        ]
        call_ids.extend(calls)

    assert len(set(call_ids)) == 50
    sent = [item["call_id"] for item in objects(loaded(before)["input"]) if "call_id" in item]
    # The client's are unique; Bedrock is told its own again (reliability.md F28).
    assert len(set(sent)) == (1 if profile.call_ids == "own" else 49)

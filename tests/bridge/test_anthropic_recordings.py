"""Every recorded exchange with Anthropic, through the bridge: answers, tails, requests, conversations.

What is expected comes from the recordings themselves, read by `anthropic_reading` and said again by
`anthropic_recordings`; both are as plain as can be and share nothing with the bridge. Where the bridge does something
else on purpose, a table here names the recording, or the rule, and says why.
"""

import json
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.errors import BrokenStream
from tests.bridge.anthropic_reading import Said, said
from tests.bridge.anthropic_recordings import asked, is_count, said_in
from tests.bridge.anthropic_replay import AnthropicConversation, listeners, profile_of
from tests.bridge.anthropic_wording import RULES, as_we_say_it
from tests.bridge.grammar import judged
from tests.bridge.recordings import (
    Asked,
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
from tests.bridge.replay import NOBODY, assert_failed, broken_off, outputs_for, same_however_cut
from tests.bridge.rules import Rule, explains

pytestmark = [needs_recordings, pytest.mark.recorded]

ANSWERS = [one for one in recordings("anthropic") if one.status == 200 and not is_count(one)]
STREAMS = [one for one in ANSWERS if one.is_stream]
REQUESTS = [one for one in recordings("anthropic") if one.request is not None]


def test_every_exchange_named_in_a_table_here_was_recorded() -> None:
    tables = (PAUSED, RESTARTED, NOTHING_SAID, REFUSED, REJECTIONS, BROKEN_OFF)

    assert {name for table in tables for name in table} <= {one.name for one in recordings("anthropic")}
    assert len(recordings("anthropic")) == 106


# Answers.

PAUSED = ("pause-turn-web-search-streaming-vcr-pai615",)
RESTARTED = ("spliced-message-start-stream-ver",)
"""The provider starts over after it showed something: that cannot be unsaid (§10)."""

NOTHING_SAID = ("toolctl-haiku45-respects-choice-none-rllm2903",)
"""The model says on purpose that it has nothing to say, which is an empty message (§8)."""

REFUSED = ("anthropic-refusal-stream-ver", "anthropic-refusal-ver")
WHOLE = [one for one in ANSWERS if one.name not in (*PAUSED, *RESTARTED, *NOTHING_SAID, *REFUSED)]


@named(ANSWERS)
def test_an_answer_becomes_the_same_events_however_it_is_cut(exchange: Recording) -> None:
    whole = same_however_cut(listeners(exchange), exchange, cuts(exchange))

    if not whole.paused:
        judged(whole.encoded)


@named(WHOLE)
def test_an_answer_says_what_the_provider_said(exchange: Recording) -> None:
    expected = said(exchange)

    answered = listeners(exchange)().hear([exchange.body])

    assert answered.error is None
    judged(answered.encoded)
    shown = [item for item in answered.items if item["type"] != "reasoning" or item["summary"]]
    assert [item["type"] for item in shown] == expected.order
    assert [*_texts(shown, "message", "content")] == expected.texts
    assert [*_texts(shown, "reasoning", "summary")] == expected.thoughts
    calls = [item for item in shown if item["type"] == "function_call"]
    assert [(call["call_id"], call["name"], json.loads(str(call["arguments"]))) for call in calls] == [
        (call["id"], call["name"], call["input"]) for call in expected.calls
    ]
    searches = [objects([item["action"]])[0]["query"] for item in shown if item["type"] == "web_search_call"]
    assert searches == expected.searches
    assert [*_citations(shown)] == expected.cited


@named([one for one in WHOLE if said(one).searches])
def test_what_a_search_found_is_told_to_those_who_ask(exchange: Recording) -> None:
    expected = said(exchange)
    conversation = AnthropicConversation(profile_of(exchange))
    request = asked(exchange.said, lambda blocks: [])
    request.parameters["include"] = ["web_search_call.action.sources"]

    answered = conversation.listener(request, [NOBODY]).hear([exchange.body])

    told = [source for item in answered.items for source in _sources(item)]
    found = [block["content"] for block in expected.blocks if block["type"] == "web_search_tool_result"]
    assert told == [{"type": "url", "url": result["url"]} for results in found for result in objects(results)]
    assert told


def _sources(item: Object) -> list[Object]:
    match item:
        case {"type": "web_search_call", "action": {"sources": sources}}:
            return objects(sources)
        case _:
            return []


@named(WHOLE)
def test_an_answer_ends_as_the_provider_ended_it_and_counts_the_same_tokens(exchange: Recording) -> None:
    expected = said(exchange)

    response = judged(listeners(exchange)().hear([exchange.body]).encoded)

    reason = response.incomplete_details.reason if response.incomplete_details is not None else None
    assert reason == ("max_output_tokens" if expected.stop == "max_tokens" else None)
    usage = response.usage
    assert usage is not None
    details = usage.input_tokens_details
    numbers = usage.input_tokens, details.cached_tokens, details.cache_write_tokens, usage.output_tokens
    assert numbers == _numbers(expected)
    thought = expected.usage.get("output_tokens_details", {"thinking_tokens": 0})
    assert usage.output_tokens_details.reasoning_tokens == objects([thought])[0]["thinking_tokens"]
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def _numbers(expected: Said) -> tuple[int, int, int, int]:
    beside = [one for one in objects(expected.usage.get("iterations") or []) if one["type"] != "message"]

    def total(name: str) -> int:
        return sum(int(str(counts.get(name) or 0)) for counts in (expected.usage, *beside))

    read, written = total("cache_read_input_tokens"), total("cache_creation_input_tokens")
    return total("input_tokens") + read + written, read, written, total("output_tokens")


def test_a_search_beyond_one_request_pauses_the_answer_and_goes_on_from_all_of_it() -> None:
    exchange = recording("anthropic", *PAUSED)
    expected = said(exchange)
    conversation = AnthropicConversation(profile_of(exchange))
    request = asked(exchange.said, conversation.read)

    answered = conversation.listener(request).hear([exchange.body])

    assert answered.paused
    resumed = [*objects([json.loads(item.raw) for item in answered.resumed])]
    ours = loaded(conversation.call(request, [*request.items, *resumed]).body)
    # The assistant's blocks as they are and no user message behind them (§4).
    assert objects(ours["messages"])[-1] == {"role": "assistant", "content": expected.blocks}
    assert len(expected.blocks) > 20


def test_an_answer_that_starts_over_after_it_showed_something_fails() -> None:
    answered = listeners(recording("anthropic", *RESTARTED))().hear([recording("anthropic", *RESTARTED).body])

    assert isinstance(answered.error, BrokenStream)
    response = judged(answered.encoded)
    assert response.status == "failed"
    assert [item.type for item in response.output] == ["reasoning", "function_call"]


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    exchange = recording("anthropic", *NOTHING_SAID)

    answered = listeners(exchange)().hear([exchange.body])

    assert judged(answered.encoded).status == "completed"
    assert [*_texts(answered.items, "message", "content")] == [""]


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_a_message_with_the_providers_reason(name: str) -> None:
    exchange = recording("anthropic", f"{name}")

    answered = listeners(exchange)().hear([exchange.body])

    response = judged(answered.encoded)
    assert response.status == "completed"
    [details] = objects([said(exchange).details])
    parts = objects(answered.items[0]["content"])
    assert parts == [{"type": "refusal", "refusal": details["explanation"]}]


def _texts(items: Sequence[Object], kind: str, field: str) -> Iterator[str]:
    for item in items:
        if item["type"] == kind:
            yield "".join(str(part["text"]) for part in objects(item[field]))


def _citations(items: Sequence[Object]) -> Iterator[tuple[Json, ...]]:
    for item in items:
        for part in objects(item["content"]) if item["type"] == "message" else ():
            for cited in objects(part["annotations"]):
                yield tuple(cited.values())


REJECTIONS: dict[str, tuple[int, str]] = {
    "count-tokens-error-pai512": (404, "model_not_found"),
    "explicit-effort-xhigh-unsupported-model-errors-pai536": (400, "invalid_request_error"),
    "model-name-suggestion-anthropic-pai144": (404, "model_not_found"),
    "real-error-scenarios-haiku45-handles-context-length-exceeded-err-rllm2720": (400, "context_length_exceeded"),
    "temperature-and-top-p-400-lf": (400, "invalid_request_error"),
    "thinking-block-binding-400": (400, "invalid_request_error"),
}
"""Status and code of every recorded refusal."""


def test_every_recorded_refusal_has_its_row() -> None:
    assert {one.name for one in recordings("anthropic") if one.status != 200} == REJECTIONS.keys()


@pytest.mark.parametrize(("name", "expected"), REJECTIONS.items())
def test_a_refusal_keeps_its_status_its_words_and_what_can_be_done_about_it(
    name: str, expected: tuple[int, str]
) -> None:
    exchange = recording("anthropic", name)

    error = AnthropicDialect(profile_of(exchange)).rejection(exchange.status, exchange.headers, exchange.body)

    assert (error.status, error.code) == expected
    assert not error.transient
    assert str(error) == exchange.refusal


def test_a_recorded_count_is_read() -> None:
    exchange = recording("anthropic", "count-tokens-with-adaptive-thinking-and-output-tools-pai514")
    conversation = AnthropicConversation(profile_of(exchange))
    request = asked(exchange.said, conversation.read)

    count = conversation.speak(request.extra).count(conversation.prompt(request))

    assert count is not None
    assert count.call.path == "/v1/messages/count_tokens"
    assert count.read(exchange.body) == json.loads(exchange.body)["input_tokens"]


# Tails.


@named(STREAMS)
def test_an_answer_whose_tail_is_missing_fails_and_never_completes(exchange: Recording) -> None:
    end = exchange.body.rindex(b'"message_stop"')

    for answered in broken_off(listeners(exchange), exchange, tails(exchange, end)):
        assert_failed(judged(answered.encoded))


# Requests.


@named(REQUESTS)
def test_a_recorded_request_is_said_again_but_for_what_the_rules_explain(exchange: Recording) -> None:
    conversation = AnthropicConversation(profile_of(exchange))
    request = asked(exchange.said, conversation.read)

    if is_count(exchange):
        count = conversation.speak(request.extra).count(conversation.prompt(request))
        assert count is not None
        body = count.call.body
    else:
        body = conversation.call(request).body

    assert objects([json.loads(body)]) == [as_we_say_it(exchange)]


@pytest.mark.parametrize("rule", RULES, ids=[rule.why for rule in RULES])
def test_a_rule_explains_a_difference_in_some_recording(rule: Rule) -> None:
    assert any(explains(rule, RULES, exchange) for exchange in REQUESTS)


# Conversations.

BROKEN_OFF = {
    "count-tokens-with-adaptive-thinking-and-output-tools-pai514": "it only counted",
    "code-execution-tool-container-reuse-pai504": "the next request is another conversation in the same container",
    "prompt-cache-round-trip-haiku45-writes-then-reads-the-prompt-cac-rllm2714": "the next one has the same beginning",
    "thinking-block-binding-400": "the two are numbered the other way round, and have a test of their own",
}
"""Recordings that something of their source follows, but no continuation of their answer."""

STEPS = steps("anthropic", BROKEN_OFF)


@pytest.mark.parametrize(("before", "after"), STEPS, ids=[after.name for _, after in STEPS])
def test_a_conversation_goes_on_as_it_was_recorded_from_the_store_and_without(
    before: Recording, after: Recording
) -> None:
    conversation = AnthropicConversation(profile_of(before))
    first, second = (asked(one.said, conversation.read) for one in (before, after))
    was = conversation.call(first).body
    listener = conversation.listener(first)

    sent = listener.hear([before.body]).items

    since = [*said_in(_since(before, after), conversation.read)]
    now = conversation.call(second, [*first.items, *sent, *since]).body
    assert objects([json.loads(now)]) == [as_we_say_it(after)]
    stored = objects([json.loads(msgspec.json.encode(item)) for item in listener.out.response.output])
    assert conversation.call(second, [*first.items, *stored, *since]).body == now
    if before.said.get("tools") == after.said.get("tools"):
        assert now.startswith(was.removesuffix(b"]}"))


def _since(before: Recording, after: Recording) -> list[Object]:
    """The messages after the answer."""
    past, messages = objects(before.said["messages"]), objects(after.said["messages"])
    assert messages[: len(past)] == past
    return messages[len(past) + 1 :]


def test_bound_thinking_goes_back_where_it_belongs_and_nowhere_else() -> None:
    before = recording("anthropic", "sonnet-5-5-thinking-omitted-stream-pai")
    after = recording("anthropic", "thinking-block-binding-400")
    conversation = AnthropicConversation(profile_of(before))
    first, second = (asked(one.said, conversation.read) for one in (before, after))
    answer = conversation.answer(first, None, before.body)
    since = second.items[-1]

    kept = conversation.prompt(second, [*first.items, *answer, since])
    changed = conversation.prompt(second, [second.items[0], *first.items[1:], *answer, since])
    dialect = conversation.speak(second.extra)
    [same], [other] = (objects([json.loads(dialect.call(prompt).body)]) for prompt in (kept, changed))

    expected = as_we_say_it(after)
    assert other["system"] == expected["system"] != same["system"]
    assert same["messages"] == expected["messages"]
    # What was recorded of the changed system prompt is a 400.
    _, *unthought = objects(objects(expected["messages"])[1]["content"])
    objects(expected["messages"])[1]["content"] = [*unthought]
    assert other["messages"] == expected["messages"]
    assert not kept.losses
    assert [(loss.type, loss.id, loss.reason) for loss in changed.losses] == [
        ("reasoning", answer[0]["id"], "prefix_mismatch")
    ]


@named(WHOLE)
def test_what_the_provider_gave_goes_back_to_it_as_it_came(exchange: Recording) -> None:
    expected = said(exchange)
    conversation = AnthropicConversation(profile_of(exchange))
    offered: Json = [
        {"type": "function", "name": name} for name in dict.fromkeys(call["name"] for call in expected.calls)
    ]
    request = Asked({"model": "model", "tools": offered}, [NOBODY], {})

    answer = conversation.answer(request, None, exchange.body)
    ours = loaded(conversation.call(request, [NOBODY, *answer, *outputs_for(answer), NOBODY]).body)

    messages = objects(ours["messages"])
    back = objects(messages[1]["content"]) if messages[1]["role"] == "assistant" else []
    assert back == [*_as_it_may_come_back(expected.blocks)]


def _as_it_may_come_back(blocks: list[Object]) -> Iterator[Object]:
    """The blocks but for what no provider wants back: text of nothing, and thinking that nothing follows; and but for
    what says nothing: that the model itself called a tool, and that a lone text cites nothing."""
    kept = [block for block in blocks if block["type"] != "text" or str(block["text"]).strip()]
    while kept and kept[-1]["type"] in ("thinking", "redacted_thinking"):
        kept.pop()
    for place, block in enumerate(kept):
        beside = [kept[near] for near in (place - 1, place + 1) if 0 <= near < len(kept)]
        is_alone = all(near["type"] != "text" for near in beside)
        drop: tuple[str, ...] = ()
        if block["type"] == "tool_use" and block.get("caller") == {"type": "direct"}:
            drop = ("caller",)
        elif block["type"] == "text" and is_alone and not block.get("citations"):
            drop = ("citations",)
        yield {name: value for name, value in block.items() if name not in drop}


def test_every_kind_of_block_came_back_somewhere() -> None:
    kinds = {str(block["type"]) for exchange in WHOLE for block in said(exchange).blocks}

    assert kinds >= {
        "advisor_tool_result",
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "compaction",
        "mcp_tool_result",
        "mcp_tool_use",
        "redacted_thinking",
        "server_tool_use",
        "text",
        "thinking",
        "tool_search_tool_result",
        "tool_use",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }


def test_a_refused_signature_is_not_sent_again() -> None:
    before = recording("anthropic", "sonnet-5-5-thinking-omitted-stream-pai")
    conversation = AnthropicConversation(profile_of(before))
    request = asked(before.said, conversation.read)
    answer = conversation.answer(request, None, before.body)
    refusal = recording("anthropic", "thinking-block-binding-400")
    dialect = conversation.speak(request.extra)
    prompt = conversation.prompt(request, [*request.items, *answer, NOBODY])
    assert b'"thinking":""' in dialect.call(prompt).body

    error = dialect.rejection(refusal.status, refusal.headers, refusal.body)
    again = dialect.relent(prompt, error)

    assert again is not None
    assert b'"thinking"' not in dialect.call(again).body.partition(b'"messages"')[2]
    assert [loss.reason for loss in again.losses] == ["prefix_mismatch"]
    assert dialect.relent(again, error) is None


def test_an_effort_the_model_does_not_have_is_not_asked_for_again() -> None:
    refusal = recording("anthropic", "explicit-effort-xhigh-unsupported-model-errors-pai536")
    conversation = AnthropicConversation(profile_of(refusal))
    request = asked(refusal.said, conversation.read)
    dialect = conversation.speak(request.extra)
    prompt = conversation.prompt(request)
    assert b'"effort"' in dialect.call(prompt).body

    error = dialect.rejection(refusal.status, refusal.headers, refusal.body)
    again = dialect.relent(prompt, error)

    assert again is not None
    assert b'"effort"' not in dialect.call(again).body
    assert dialect.relent(again, error) is None

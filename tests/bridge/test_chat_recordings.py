"""Every recorded exchange with a chat provider, through the bridge: answers, tails, requests, conversations.

What is expected comes from the recordings themselves, read by `chat_reading` and said again by `chat_recordings`; both
are as plain as can be and share nothing with the bridge. Where the bridge does something else on purpose, a table here
names the recording, or the rule, and says why.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.errors import UpstreamError
from tests.bridge.chat_reading import Said, said
from tests.bridge.chat_recordings import asked, profile_of, said_in
from tests.bridge.chat_replay import ChatConversation, listeners
from tests.bridge.chat_wording import RULES, as_we_say_it
from tests.bridge.grammar import Item, Response, judged
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
from tests.bridge.replay import assert_failed, broken_off, outputs_for, same_however_cut
from tests.bridge.rules import Rule, explains

pytestmark = [needs_recordings, pytest.mark.recorded]

ANSWERS = [one for one in recordings("chat") if one.status == 200]
STREAMS = [one for one in ANSWERS if one.is_stream]
REQUESTS = [one for one in recordings("chat") if one.request is not None]


def test_every_exchange_named_in_a_table_here_was_recorded() -> None:
    tables = (FAILURES, NUMBERS, STATEFUL, WITHOUT_CALL_ID, REJECTIONS, NEVER_FINISHED, BROKEN_OFF)

    assert {name for table in tables for name in table} <= {one.name for one in recordings("chat")}
    assert OTHERWISE.keys() <= {after.name for _, after in STEPS}


# Answers.

FAILURES = {
    "openrouter-stream-error-pai1852": (400, "invalid_request_error", "Token limit reached"),
    "prompt-content-filtering-tl4188": (502, "invalid_prompt", "The response was filtered due to the prompt"),
    "tool-use-failed-error-streaming-pai944": (502, "server_error", "Tool call validation failed"),
}
"""Answers with status 200 that say they are errors: the status and code that describe it, and how the text begins."""

NUMBERS = {
    # Reasoning counted beside the output: 307 + 26 + 227 = 560, which is the total it gives.
    "compat-xai-tool-call-stream-ver": (307, 306, 26 + 227, 227),
    "xai-tool-call-stream-ver": (291, 290, 26 + 196, 196),
    # More tokens from the cache than in the prompt.
    "fn-azure-grok-4-1-fast-non-reasoning-can-use-parallel-tool-calls-rllm2346": (293, 293, 58, 0),
    "streaming-responses-azure-grok-4-1-fast-non-reasoning-supports-s-rllm2747": (7, 7, 8, 0),
    # `cached_tokens` beside the other numbers (provider-chat.md §5).
    "moonshotai-reasoning-ver": (20, 10, 30, 22),
}
"""Input, cached, output and reasoning tokens where they are not simply those of `usage`."""

STATEFUL = {
    "compatible-api-with-tool-calls-without-id-pai1566": ["reasoning", "function_call"],
    "compatible-api-with-tool-calls-without-id-pai1567": ["reasoning", "message"],
    "openrouter-stream-with-reasoning-pai1854": ["reasoning", "message"],
}
"""Answers that give state without a word of reasoning: an empty reasoning item carries it (mapping.md §5)."""

WITHOUT_CALL_ID = ("compatible-api-with-tool-calls-without-id-pai1566",)

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@named(ANSWERS)
def test_an_answer_becomes_the_same_events_however_it_is_cut(exchange: Recording) -> None:
    whole = same_however_cut(listeners(exchange), exchange, cuts(exchange))

    judged(whole.encoded)


@named([one for one in ANSWERS if one.name not in FAILURES])
def test_an_answer_says_what_the_provider_said(exchange: Recording) -> None:
    expected = said(exchange)

    answered = listeners(exchange)().hear([exchange.body])

    assert answered.error is None
    response = judged(answered.encoded)
    assert _text(response) == expected.text
    assert _refusal(response) == expected.refusal
    assert _reasoning(response) == expected.reasoning
    assert [item.type for item in response.output] == STATEFUL.get(exchange.name, expected.order)
    calls = [item for item in response.output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in calls] == [(call.name, call.arguments) for call in expected.calls]
    if exchange.name not in WITHOUT_CALL_ID:
        assert [call.call_id for call in calls] == [call.id for call in expected.calls]
    assert _citations(response) == [
        (cited["url"], cited["title"], cited["start_index"], cited["end_index"]) for cited in expected.cited
    ]


@named([one for one in ANSWERS if one.name not in FAILURES])
def test_an_answer_ends_as_the_provider_ended_it_and_counts_the_same_tokens(exchange: Recording) -> None:
    expected = said(exchange)

    response = judged(listeners(exchange)().hear([exchange.body]).encoded)

    reason = response.incomplete_details.reason if response.incomplete_details is not None else None
    assert reason == _INCOMPLETE.get(expected.finish or "")
    usage = response.usage
    assert usage is not None
    counted = usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens
    numbers = (*counted, usage.output_tokens_details.reasoning_tokens)
    assert numbers == NUMBERS.get(exchange.name, _numbers(expected))
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


@pytest.mark.parametrize(("name", "error"), FAILURES.items())
def test_an_error_inside_an_answer_is_a_failed_response(name: str, error: tuple[int, str, str]) -> None:
    exchange = recording("chat", name)

    answered = listeners(exchange)().hear([exchange.body])

    assert isinstance(answered.error, UpstreamError)
    assert (answered.error.status, answered.error.code) == error[:2]
    assert str(answered.error).startswith(error[2])
    response = judged(answered.encoded)
    assert response.status == "failed"
    # What came before stays (reliability.md F5).
    assert _reasoning(response) == said(exchange).reasoning


def test_only_the_first_of_several_choices_is_the_answer() -> None:
    exchange = recording("chat", "async-chat-completion-multiple-choices-streaming")

    response = judged(listeners(exchange)().hear([exchange.body]).encoded)

    assert len(response.output) == 1
    assert _text(response) == said(exchange).text
    other = exchange.body.replace(b'"index":0', b'"index":9').replace(b'"index":1', b'"index":0')
    assert _text(judged(listeners(exchange)().hear([other]).encoded)) != _text(response)


REJECTIONS = {
    "chat-reasoning-tl4163": (404, "model_not_found", None, None),
    "error-handling-with-deepseek-deepseek-chat-raises-appropriate-au-rllm2309": (401, "invalid_api_key", None, None),
    "model-name-suggestion-groq-pai147": (404, "model_not_found", None, None),
    "model-name-suggestion-openai-chat-pai148": (404, "model_not_found", None, None),
    "openai-o1-mini-system-role-developer-pai1610": (400, "invalid_request_error", "messages[0].role", None),
    "openrouter-errors-raised-pai1843": (429, "rate_limit_exceeded", None, None),
    # `retry-after-ms: 0` is more exact than the whole second beside it.
    "real-error-scenarios-azure-grok-4-1-fast-non-reasoning-handles-c-rllm2721": (429, "rate_limit_exceeded", None, 0),
    "real-error-scenarios-deepseek-deepseek-chat-handles-context-leng-rllm2724": (
        400,
        "context_length_exceeded",
        None,
        None,
    ),
    "real-error-scenarios-openrouter-haiku45-handles-context-length-e-rllm2728": (
        400,
        "context_length_exceeded",
        None,
        None,
    ),
    "reasoning-effort-with-tools-400-lf": (400, "invalid_request_error", "reasoning_effort", None),
    "reasoning-model-legacy-parameter-error-ver": (400, "invalid_request_error", "max_tokens", None),
    "tool-use-failed-error-pai941": (400, "invalid_request_error", None, None),
    "vision-tl4568": (400, "invalid_image_url", None, None),
}
"""Status, code, parameter and seconds to wait of every recorded refusal."""


def test_every_recorded_refusal_has_its_row() -> None:
    assert {one.name for one in recordings("chat") if one.status != 200} == REJECTIONS.keys()


@pytest.mark.parametrize(("name", "expected"), REJECTIONS.items())
def test_a_refusal_keeps_its_status_its_words_and_what_can_be_done_about_it(
    name: str, expected: tuple[int, str, str | None, float | None]
) -> None:
    exchange = recording("chat", name)

    error = ChatDialect(profile_of(exchange)).rejection(exchange.status, exchange.headers, exchange.body)

    assert (error.status, error.code, error.param, error.retry_after) == expected
    assert str(error) == exchange.refusal


def _text(response: Response) -> str:
    return _parts(response.output, "message", "output_text")


def _refusal(response: Response) -> str:
    parts = [part for item in response.output for part in item.content or ()]
    return "".join(part.refusal or "" for part in parts)


def _reasoning(response: Response) -> str:
    return _parts(response.output, "reasoning", "summary_text")


def _parts(items: Sequence[Item], item_type: str, part_type: str) -> str:
    chosen = [item for item in items if item.type == item_type]
    parts = [part for item in chosen for part in (*(item.content or ()), *(item.summary or ()))]
    return "".join(part.text or "" for part in parts if part.type == part_type)


def _citations(response: Response) -> list[tuple[Json, Json, Json, Json]]:
    parts = [part for item in response.output for part in item.content or ()]
    cited = [loaded(bytes(raw)) for part in parts for raw in part.annotations or ()]
    return [(one["url"], one["title"], one["start_index"], one["end_index"]) for one in cited]


def _numbers(expected: Said) -> tuple[Json, Json, Json, Json]:
    usage = expected.usage or {}

    def detail(name: str, inner: str) -> Json:
        details = usage.get(name)
        return details.get(inner) or 0 if isinstance(details, dict) else 0

    return (
        usage.get("prompt_tokens", 0),
        detail("prompt_tokens_details", "cached_tokens"),
        usage.get("completion_tokens", 0),
        detail("completion_tokens_details", "reasoning_tokens"),
    )


# Tails.

NEVER_FINISHED = {
    "snowflake-thinking-streaming-pai1880": "its finish reasons are empty, so [DONE] is its only end",
    "tool-use-failed-error-streaming-pai944": "it is an error from the first finish on",
    "openrouter-stream-error-pai1852": "an error follows the finish, and belongs to the answer",
}


@named(STREAMS)
def test_an_answer_whose_tail_is_missing_fails_and_never_completes(exchange: Recording) -> None:
    body = exchange.body
    finish = _finish(body)
    end = finish.start if finish is not None else body.index(b"event: error" if b"event: error" in body else b"[DONE]")

    for answered in broken_off(listeners(exchange), exchange, tails(exchange, end)):
        assert_failed(judged(answered.encoded))


@named([one for one in STREAMS if one.name not in NEVER_FINISHED])
def test_an_answer_that_gave_its_finish_reason_needs_no_done_after_it(exchange: Recording) -> None:
    finish = _finish(exchange.body)
    assert finish is not None

    cut = judged(listeners(exchange)().hear([exchange.body[: finish.end]]).encoded)

    whole = judged(listeners(exchange)().hear([exchange.body]).encoded)
    assert cut.status == whole.status
    assert cut.output == whole.output


@dataclass(frozen=True, slots=True)
class _Frame:
    start: int
    end: int


_FINISH = re.compile(rb'"finish_reason": ?"[a-z_]')


def _finish(body: bytes) -> _Frame | None:
    """The first frame with a finish reason of choice 0, from the line it begins on to the end of its line."""
    for match in _FINISH.finditer(body):
        start = body.rindex(b"data:", 0, match.start())
        end = body.index(b"\n", match.start())
        chunk = loaded(body[start + 5 : end])
        if objects(chunk["choices"])[0].get("index", 0) == 0:
            return _Frame(start, end)
    return None


# Requests.


@named(REQUESTS)
def test_a_recorded_request_is_said_again_but_for_what_the_rules_explain(exchange: Recording) -> None:
    conversation = ChatConversation(profile_of(exchange))
    request = asked(exchange.said, conversation.read)

    ours = loaded(conversation.call(request, request.items).body)

    assert ours == as_we_say_it(exchange)


@pytest.mark.parametrize("rule", RULES, ids=[rule.why for rule in RULES])
def test_a_rule_explains_a_difference_in_some_recording(rule: Rule) -> None:
    assert any(explains(rule, RULES, exchange) for exchange in REQUESTS)


# Conversations.

BROKEN_OFF = {
    "chat-reasoning-tl4162": "the next request is another try of the same question",
    "tool-use-failed-error-pai941": "the answer is an error, and the next request holds a call its client made up",
    "tool-use-failed-error-streaming-pai944": "the same, in a stream",
}
"""Recordings that something of their source follows, but no continuation of their answer."""

STEPS = steps("chat", BROKEN_OFF)

OTHERWISE: dict[str, tuple[str, Callable[[Object], None]]] = {
    "cerebras-zai-reasoning-replayed-as-think-tags-pai751": (
        "its client writes reasoning into the text; Cerebras takes the field it came in as well (§6)",
        lambda message: _split_think(message),
    ),
    "compatible-api-with-tool-calls-without-id-pai1567": (
        "its client lost the signature, which must go back (§6)",
        lambda message: message.update(_given("compatible-api-with-tool-calls-without-id-pai1566", "extra_content")),
    ),
    "fn-ollama-cloud-gpt-oss-120b-can-use-parallel-tool-calls-rllm2478": (
        "the field is called `reasoning` where it came from",
        lambda message: _rename(message, "reasoning_content", "reasoning"),
    ),
    "fn-ollama-qwen3-can-use-parallel-tool-calls-rllm2501": (
        "the field is called `reasoning` where it came from",
        lambda message: _rename(message, "reasoning_content", "reasoning"),
    ),
    "with-extended-thinking-openrouter-haiku45-preserves-thinking-sig-rllm3025": (
        "its client sends text and signature alone; details go back unchanged (§6)",
        lambda message: message.update(
            _given("with-extended-thinking-openrouter-haiku45-preserves-thinking-sig-rllm3024", "reasoning_details")
        ),
    ),
    "tool-use-failed-error-streaming-pai946": (
        "its client writes reasoning into the text; Groq takes the field it came in as well (§6)",
        lambda message: _split_think(message),
    ),
}
"""What we say otherwise of an answer than the recorded client, beside the rules, and why."""


def _split_think(message: Object) -> None:
    thought, _, text = str(message["content"]).removeprefix("<think>\n").partition("\n</think>")
    message.update(reasoning=thought, content=text.lstrip() or None)


def _rename(message: Object, name: str, to: str) -> None:
    message[to] = message.pop(name)


def _given(name: str, field: str) -> Object:
    return {field: said(recording("chat", name)).thoughts[field]}


@pytest.mark.parametrize(("before", "after"), STEPS, ids=[after.name for _, after in STEPS])
def test_a_conversation_goes_on_as_it_was_recorded_and_begins_with_the_bytes_it_had(
    before: Recording, after: Recording
) -> None:
    conversation = ChatConversation(profile_of(before))
    first, second = (asked(one.said, conversation.read) for one in (before, after))
    was = conversation.call(first, first.items).body

    answer = conversation.answer(first, first.items, before.body)
    since, ids = _since(before, after, answer)
    items = [*first.items, *answer, *said_in(since, conversation.read)]
    now = conversation.call(second, items).body

    expected = as_we_say_it(after)
    at = len(objects(as_we_say_it(before)["messages"]))
    message = objects(expected["messages"])[at]
    if after.name in OTHERWISE:
        OTHERWISE[after.name][1](message)
    ours = loaded(now)
    assert _with_arguments_read(ours) == _with_ids(_with_arguments_read(expected), ids)
    if before.said.get("tools") == after.said.get("tools"):
        assert now.startswith(was.removesuffix(b"]}"))


def _since(before: Recording, after: Recording, answer: Sequence[Object]) -> tuple[list[Object], dict[Json, Json]]:
    """The messages after the answer, and how the call ids of the recording are called here.

    They differ where the provider gave none and each client made its own.
    """
    past, messages = objects(before.said["messages"]), objects(after.said["messages"])
    assert messages[: len(past)] == past
    replayed, *since = messages[len(past) :]
    recorded = [call["id"] for call in objects(replayed.get("tool_calls", []))]
    ours = [item["call_id"] for item in answer if item["type"] == "function_call"]
    ids = dict(zip(recorded, ours, strict=True))
    return objects([_with_ids(message, ids) for message in since]), ids


def _with_ids(value: Json, ids: dict[Json, Json]) -> Json:
    match value:
        case dict():
            return {
                name: ids.get(inner, inner)
                if name in ("id", "tool_call_id") and isinstance(inner, str)
                else _with_ids(inner, ids)
                for name, inner in value.items()
            }
        case list():
            return [_with_ids(inner, ids) for inner in value]
        case _:
            return value


def _with_arguments_read(request: Object) -> Object:
    """Arguments as what they mean: we send the text of the model, some clients parse it and write it again."""
    for message in objects(request["messages"]):
        for call in objects(message.get("tool_calls", [])):
            [function] = objects([call["function"]])
            function["arguments"] = json.loads(str(function["arguments"]))
    return request


@named([one for one in ANSWERS if one.name not in FAILURES and said(one).thoughts])
def test_what_a_provider_thought_goes_back_to_it_in_the_form_it_came(exchange: Recording) -> None:
    expected = said(exchange)
    conversation = ChatConversation(profile_of(exchange))
    tools: Json = [{"type": "function", "name": call.name} for call in expected.calls]
    request = Asked({"model": "model", "tools": tools}, [{"role": "user", "content": "?"}], {})

    answer = conversation.answer(request, request.items, exchange.body)
    ours = loaded(conversation.call(request, [*request.items, *answer, *outputs_for(answer)]).body)

    message = objects(ours["messages"])[1]
    state = {name: message[name] for name in message.keys() - {"role", "content", "tool_calls"}}
    thoughts = dict(expected.thoughts)
    replay = profile_of(exchange).reasoning_replay
    if replay == "never" or (replay == "tools" and not expected.calls):
        assert state == {}
        assert message["content"] == (expected.text or None)
    elif "thinking" in thoughts:
        assert state == {}
        text: Json = {"type": "text", "text": expected.text}
        assert message["content"] == [*objects(thoughts["thinking"]), text]
    else:
        # OpenRouter's details hold the text that `reasoning` repeats.
        if "reasoning_details" in thoughts:
            thoughts.pop("reasoning", None)
        assert state == thoughts
        assert message["content"] == (expected.text or None)

"""Every recorded exchange with Gemini, through the bridge: answers, tails, requests, conversations.

What is expected comes from the recordings themselves, read by `gemini_reading` and said again by `gemini_recordings`;
both are as plain as can be and share nothing with the bridge. Where the bridge does something else on purpose, a table
here names the recording, or the rule, and says why.
"""

import json
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import pytest

from rejoinder.bridge.gemini import GeminiDialect
from tests.bridge.gemini_reading import chunks, said
from tests.bridge.gemini_recordings import asked, camel, items_of, method_of, parameters_of, profile_of
from tests.bridge.gemini_replay import GeminiConversation, listeners, request_of
from tests.bridge.gemini_wording import RULES, as_we_say_it
from tests.bridge.grammar import Response, judged
from tests.bridge.recordings import (
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
from tests.bridge.replay import assert_failed, broken_off, outputs_for, prompt_of, same_however_cut
from tests.bridge.rules import Rule, explains

pytestmark = [needs_recordings, pytest.mark.recorded]

LISTS = ("cli-gemini-models-llmg4925",)
COUNTS = [one for one in recordings("gemini") if method_of(one) == "countTokens"]
ANSWERS = [one for one in recordings("gemini") if one.status == 200 and one not in COUNTS and one.name not in LISTS]
REQUESTS = [one for one in recordings("gemini") if "enerateContent" in method_of(one)]


def test_every_recording_is_looked_at_and_every_one_named_here_was_made() -> None:
    names = {one.name for one in recordings("gemini")}

    assert {one.name for one in (*ANSWERS, *COUNTS)} | {*LISTS} | REJECTIONS.keys() == names
    assert FAILURES.keys() <= names
    assert OTHERWISE.keys() <= {after.name for _, after in STEPS}


# Answers.

FAILURES = {
    "mmtool-return-matrix-direct-binary-audio-vertex-pai1023": "UNEXPECTED_TOOL_CALL",
}
"""Answers that end in a mistake of the model's: failed, and a call in them is not passed on (§7)."""

REASONS = {"MAX_TOKENS": "max_output_tokens", "MODEL_ARMOR": "content_filter", "SAFETY": "content_filter"}


@named(ANSWERS)
def test_an_answer_becomes_the_same_events_however_it_is_cut(exchange: Recording) -> None:
    whole = same_however_cut(listeners(exchange), exchange, cuts(exchange, short=3_000))

    judged(whole.encoded)


@named(ANSWERS)
def test_an_answer_says_what_the_model_said(exchange: Recording) -> None:
    expected = said(exchange)

    answered = listeners(exchange)().hear([exchange.body])

    response = judged(answered.encoded)
    assert [item.type for item in response.output] == expected.order
    assert _text(response, "message") == expected.text
    assert _text(response, "reasoning") == expected.thoughts
    calls = [item for item in response.output if item.type == "function_call"]
    assert [(call.name, json.loads(str(call.arguments))) for call in calls] == [
        (call.name, call.arguments) for call in expected.calls
    ]
    assert [call.call_id for call, was in zip(calls, expected.calls, strict=True) if was.id] == [
        call.id for call in expected.calls if call.id
    ]
    assert _citations(response) == expected.cited


@named(ANSWERS)
def test_an_answer_ends_as_the_model_ended_it_and_counts_the_same_tokens(exchange: Recording) -> None:
    expected = said(exchange)

    answered = listeners(exchange)().hear([exchange.body])

    response = judged(answered.encoded)
    if exchange.name in FAILURES:
        assert response.status == "failed"
        assert FAILURES[exchange.name] in str(answered.error)
    else:
        reason = response.incomplete_details.reason if response.incomplete_details is not None else None
        assert reason == ("content_filter" if expected.blocked else REASONS.get(expected.finish or ""))
        assert answered.error is None
    used, usage = expected.usage, response.usage
    assert usage is not None
    assert usage.input_tokens == used.get("promptTokenCount", 0) + used.get("toolUsePromptTokenCount", 0)
    assert usage.input_tokens_details.cached_tokens == used.get("cachedContentTokenCount", 0)
    assert usage.output_tokens == used.get("candidatesTokenCount", 0) + used.get("thoughtsTokenCount", 0)
    assert usage.output_tokens_details.reasoning_tokens == used.get("thoughtsTokenCount", 0)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_a_search_is_announced_with_what_was_looked_for() -> None:
    exchange = recording("gemini", "native-output-with-builtin-tools-stream")

    answered = listeners(exchange)().hear([exchange.body])

    [search] = [item for item in answered.items if item["type"] == "web_search_call"]
    assert search["action"] == {
        "type": "search",
        "query": "largest city in Mexico",
        "queries": ["largest city in Mexico"],
    }


def test_log_probabilities_are_those_of_the_tokens_and_their_alternatives() -> None:
    exchange = recording("gemini", "vertex-logprobs")
    [whole] = chunks(exchange)
    [candidate] = objects(whole["candidates"])
    [recorded] = objects([candidate["logprobsResult"]])

    [message] = listeners(exchange)().hear([exchange.body]).items

    [part] = objects(message["content"])
    tokens = objects(part["logprobs"])
    assert [(token["token"], token["logprob"]) for token in tokens] == [
        (token["token"], token["logProbability"]) for token in objects(recorded["chosenCandidates"])
    ]
    assert [[other["token"] for other in objects(token["top_logprobs"])] for token in tokens] == [
        [other["token"] for other in objects(top["candidates"])] for top in objects(recorded["topCandidates"])
    ]
    assert "".join(str(token["token"]) for token in tokens) == part["text"]


def _text(response: Response, kind: str) -> str:
    chosen = [item for item in response.output if item.type == kind]
    return "".join(part.text or "" for item in chosen for part in (*(item.content or ()), *(item.summary or ())))


def _citations(response: Response) -> list[tuple[str, str]]:
    """URLs, and the words they stand for."""
    found = []
    for part in [part for item in response.output for part in item.content or ()]:
        for raw in part.annotations or ():
            cited = loaded(bytes(raw))
            start, end = cited["start_index"], cited["end_index"]
            assert isinstance(start, int)
            assert isinstance(end, int)
            found.append((str(cited["url"]), (part.text or "")[start:end]))
    return found


# Tails.


@named([one for one in ANSWERS if one.name != "armor-prompt-template-text-gets-blocked-pai800"])
def test_an_answer_whose_tail_is_missing_fails_and_never_completes(exchange: Recording) -> None:
    end = _end_of_the_last_but_one(exchange)

    for answered in broken_off(listeners(exchange), exchange, tails(exchange, end)):
        assert_failed(judged(answered.encoded))


def _end_of_the_last_but_one(exchange: Recording) -> int:
    """Where everything but the chunk with the finish reason is there; the last brace of what comes whole."""
    start = exchange.body.rfind(b"\ndata:", 0, exchange.body.index(b'"finishReason"'))
    return start + 1 if start >= 0 else exchange.body.rindex(b"}")


# Requests.


@named(REQUESTS)
def test_a_recorded_request_is_said_again_but_for_what_the_rules_explain(exchange: Recording) -> None:
    conversation = GeminiConversation(profile_of(exchange))
    request = asked(exchange, conversation.read)

    call = conversation.call(request)

    ours = loaded(call.body)
    assert ours == as_we_say_it(exchange)
    # Always a stream: it is the same answer.
    address = urlsplit(exchange.url)
    path = address.path.replace(":generateContent", ":streamGenerateContent")
    assert path.endswith(call.path.removesuffix("?alt=sse"))


@pytest.mark.parametrize("rule", RULES, ids=[rule.why for rule in RULES])
def test_a_rule_explains_a_difference_in_some_recording(rule: Rule) -> None:
    assert any(explains(rule, RULES, exchange) for exchange in REQUESTS)


@named([one for one in COUNTS if one.status == 200])
def test_tokens_are_counted_as_they_were(exchange: Recording) -> None:
    [inner] = objects([exchange.said["generateContentRequest"]])
    request = parameters_of(exchange)
    request.parameters.clear()
    request.parameters["model"] = str(inner["model"]).removeprefix("models/")
    dialect = GeminiDialect(profile_of(exchange))
    items = list(items_of(objects(inner["contents"]), lambda content: []))

    count = dialect.count(prompt_of(dialect, request, items))

    assert count is not None
    assert json.loads(count.call.body) == exchange.said
    assert exchange.url.endswith(count.call.path)
    assert count.read(exchange.body) == 8


@pytest.mark.parametrize("name", LISTS)
def test_the_models_on_offer_are_those_that_answer(name: str) -> None:
    exchange = recording("gemini", name)
    listed = loaded(exchange.body)

    offered = GeminiDialect(profile_of(exchange)).offered(exchange.body)

    assert "gemini-2.5-flash" in offered
    assert len(offered) < len(objects(listed["models"]))
    assert not any("embedding" in name or "/" in name for name in offered)


# Refusals.

REJECTIONS = {
    "error-handling-with-gemini-gemini-2-5-flash-raises-appropriate-a-rllm2310": (401, "invalid_api_key", None, False),
    "generate-content-invalid-role-otel5068": (400, "invalid_request_error", None, False),
    "google-429-retry-info-ver": (429, "rate_limit_exceeded", 34.4, True),
    "model-sees-multiple-images-vertex-pai1006": (400, "invalid_request_error", None, False),
    "real-error-scenarios-gemini-gemini-2-5-flash-handles-context-len-rllm2725": (429, "rate_limit_exceeded", 48, True),
    "testtest-count-tokens-error-pai113": (404, "model_not_found", None, False),
    "thinking-budget-zero-on-3-5-400-lf": (400, "invalid_request_error", None, False),
}
"""Status, code, seconds to wait and whether to try again of every recorded refusal."""


@pytest.mark.parametrize(("name", "expected"), REJECTIONS.items())
def test_a_refusal_keeps_its_words_and_says_what_can_be_done_about_it(
    name: str, expected: tuple[int, str, float | None, bool]
) -> None:
    exchange = recording("gemini", name)

    error = GeminiDialect(profile_of(exchange)).rejection(exchange.status, exchange.headers, exchange.body)

    assert (error.status, error.code, error.retry_after, error.transient) == expected
    assert str(error) == exchange.refusal


# Conversations.

STEPS = steps("gemini")

OTHERWISE: dict[str, tuple[str, Callable[[Object], None]]] = {
    "fn-gemini-gemini-2-5-flash-can-use-parallel-tool-calls-rllm2423": (
        "its client copied the signature to the second call, which is paid for again (§5)",
        lambda content: _part(content, 1).__delitem__("thoughtSignature"),
    ),
    "mmtool-attachments-gemini-gemini-3-flash-preview-describes-image-rllm2649": (
        "its client lost the id of the call, which its response must repeat (§4)",
        lambda content: _call(content).update(id="call_54402"),
    ),
    "tools-llmg4941": (
        "its client does not send thoughts back; a model's content is all its parts (§5)",
        lambda content: content.update(parts=[said(recording("gemini", "tools-llmg4940")).parts[0], _part(content, 0)]),
    ),
    "structured-output-pai847": (
        "its client stands in for a signature that this model neither gave nor asks for",
        lambda content: _part(content, 0).__delitem__("thoughtSignature"),
    ),
}
"""What we say otherwise of an answer than the recorded client, beside the rules, and why."""


def _part(content: Object, place: int) -> Object:
    return objects(content["parts"])[place]


def _call(content: Object) -> Object:
    [call] = objects([_part(content, 0)["functionCall"]])
    return call


@pytest.mark.parametrize(("before", "after"), STEPS, ids=[after.name for _, after in STEPS])
def test_a_conversation_goes_on_as_it_was_recorded_and_begins_with_the_bytes_it_had(
    before: Recording, after: Recording
) -> None:
    conversation = GeminiConversation(profile_of(before))
    first, second = (asked(one, conversation.read) for one in (before, after))
    was = conversation.call(first).body

    answer = conversation.answer(first, first.items, before.body)
    since = objects(camel(after.said)["contents"])[len(objects(before.said["contents"])) + 1 :]
    called: Json = [item for item in answer if item["type"] == "function_call"]
    items = [*first.items, *answer, *_later(since, [str(call["call_id"]) for call in objects(called)])]
    now = conversation.call(second, items).body

    expected = as_we_say_it(after)
    contents = objects(expected["contents"])
    replayed = contents[len(objects(as_we_say_it(before)["contents"]))]
    if after.name in OTHERWISE:
        OTHERWISE[after.name][1](replayed)
        [call] = objects([part["functionCall"] for part in objects(replayed["parts"]) if "functionCall" in part][:1])
        if "id" in call:
            [response] = objects([_part(contents[-1], 0)["functionResponse"]])
            response["id"] = call["id"]
    ours = loaded(now)
    assert _in_one_alphabet(ours) == _in_one_alphabet(expected)
    signatures = [part["thoughtSignature"] for part in said(before).parts if "thoughtSignature" in part]
    assert [part["thoughtSignature"] for part in _model_parts(ours) if "thoughtSignature" in part][
        -len(signatures) or len(now) :
    ] == signatures
    if before.said.get("tools") == after.said.get("tools"):
        assert now.startswith(was.removesuffix(b"]}"))


def _later(contents: Sequence[Object], call_ids: list[str]) -> list[Object]:
    """What the client said then; its responses belong to the calls of the answer."""
    model: Object = {"role": "model", "parts": []}
    made: list[Object] = [{"type": "function_call", "call_id": call_id} for call_id in call_ids]
    return list(items_of([model, *contents], lambda content: made))[len(made) :]


def _model_parts(request: Object) -> list[Object]:
    contents = [content for content in objects(request["contents"]) if content["role"] == "model"]
    return [part for content in contents for part in objects(content["parts"])]


def _in_one_alphabet(value: Json) -> Json:
    """Some clients read a signature as bytes and write it again, in the other alphabet of base64."""
    match value:
        case dict():
            return {
                name: inner.replace("-", "+").replace("_", "/")
                if name == "thoughtSignature" and isinstance(inner, str)
                else _in_one_alphabet(inner)
                for name, inner in value.items()
            }
        case list():
            return [_in_one_alphabet(inner) for inner in value]
        case _:
            return value


@named([one for one in ANSWERS if said(one).parts])
def test_what_a_model_said_goes_back_to_it_part_by_part(exchange: Recording) -> None:
    expected = said(exchange)
    conversation = GeminiConversation(profile_of(exchange))
    request = request_of(exchange)
    first: Object = {"type": "message", "role": "user", "content": "?"}

    answer = conversation.answer(request, [first], exchange.body)
    ours = loaded(conversation.call(request, [first, *answer, *outputs_for(answer)]).body)

    assert _model_parts(ours) == [part for part in expected.parts if part != {"text": ""}]

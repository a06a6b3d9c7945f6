import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.rejection import TRANSIENT, rejection, stream_error

ENVELOPES = [
    (  # OpenAI
        400,
        b'{"error":{"message":"Unsupported value","type":"invalid_request_error","param":"temperature",'
        b'"code":"unsupported_value","misalignment":null}}',
        ("Unsupported value", "invalid_request_error", "temperature"),
    ),
    (  # OpenRouter
        429,
        b'{"error":{"code":429,"message":"Provider returned error","metadata":{"provider_name":"x","raw":"slow"}},'
        b'"user_id":"user_1"}',
        ("Provider returned error", "rate_limit_exceeded", None),
    ),
    (  # Mistral
        400,
        b'{"object":"error","message":"Invalid role","type":"invalid_request_message_order","param":null,'
        b'"code":"3230"}',
        ("Invalid role", "invalid_request_error", None),
    ),
    (  # Mistral, validation
        422,
        b'{"object":"error","message":{"detail":[{"loc":["body"]}]},"type":"invalid_request_error"}',
        ('{"detail":[{"loc":["body"]}]}', "invalid_request_error", None),
    ),
    (422, b'{"detail":"missing"}', ("missing", "invalid_request_error", None)),
    (422, b'{"detail":[{"msg":"x"}]}', ('[{"msg":"x"}]', "invalid_request_error", None)),
    (  # Azure
        400,
        b'{"error":{"code":"content_filter","message":"The response was filtered","innererror":{"code":"x"},'
        b'"status":400}}',
        ("The response was filtered", "invalid_prompt", None),
    ),
    (401, b'{"statusCode":401,"message":"Unauthorized"}', ("Unauthorized", "invalid_api_key", None)),
    (  # vLLM, older
        404,
        b'{"object":"error","message":"no such model","type":"NotFoundError","param":null,"code":404}',
        ("no such model", "model_not_found", None),
    ),
    (500, b'{"error":"model runner has stopped"}', ("model runner has stopped", "server_error", None)),  # Ollama
    (  # llama.cpp
        400,
        b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}',
        ("too long", "context_length_exceeded", None),
    ),
    (502, b"upstream connect error\nreset", ("upstream connect error", "server_error", None)),
    (502, b"<html><h1>502</h1></html>", ("the provider answered with status 502", "server_error", None)),
    (400, b"", ("the provider answered with status 400", "invalid_request_error", None)),
    (400, b"null", ("null", "invalid_request_error", None)),
    (400, b'[{"error":{"message":"x"}}]', ("the provider answered with status 400", "invalid_request_error", None)),
    (400, b'{"error":', ("the provider answered with status 400", "invalid_request_error", None)),
    (400, b'{"error":null,"message":null}', ("the provider answered with status 400", "invalid_request_error", None)),
    (400, b'{"error":"\xff"}', ("the provider answered with status 400", "invalid_request_error", None)),
    (400, b"\xff\xfe no", ("\ufffd\ufffd no", "invalid_request_error", None)),
    (400, b'{"error":' + b"[" * 100_000, ("the provider answered with status 400", "invalid_request_error", None)),
    (400, b"x" * 3000, ("x" * 500, "invalid_request_error", None)),
]


@pytest.mark.parametrize(("status", "body", "said"), ENVELOPES)
def test_every_envelope_is_opened(status: int, body: bytes, said: tuple[str, str, str | None]) -> None:
    error = rejection(status, {}, body)
    assert (str(error), error.code, error.param) == said
    assert (error.status, error.retry_after) == (status, None)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request_error"),
        (401, "invalid_api_key"),
        (402, "insufficient_quota"),
        (403, "permission_denied"),
        (404, "model_not_found"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_exceeded"),
        *((status, "server_error") for status in (302, 409, 418, 498, 500, 502, 503, 504, 520, 524, 529)),
    ],
)
def test_a_status_alone_says_enough(status: int, code: str) -> None:
    assert rejection(status, {}, b'{"error":{"message":"no"}}').code == code


OVERFLOWS = [
    "This model's maximum context length is 8192 tokens. However, you requested 9000",
    "prompt too long; exceeded max context length by 4 tokens",
    "Prompt is too long: 210000 tokens > 200000 maximum",
    "Your input exceeds the context window of this model",
    "The input token count (9) exceeds the maximum number of tokens allowed (8)",
    "input length and `max_tokens` exceed context limit",
    "Too many tokens: 9",
    "Input is too long for requested model",
]


@pytest.mark.parametrize("text", OVERFLOWS)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_conversation_that_no_longer_fits_is_told_by_its_text(status: int, text: str) -> None:
    body = b'{"error":{"message":"%b"}}' % text.encode()
    assert rejection(status, {}, body).code == "context_length_exceeded"
    assert rejection(status, {}, text.encode()).code == "context_length_exceeded"
    assert stream_error(body).code == "context_length_exceeded"


def test_a_conversation_that_no_longer_fits_is_told_by_its_code() -> None:
    body = b'{"error":{"message":"no","code":"context_length_exceeded"}}'
    assert rejection(400, {}, body).code == "context_length_exceeded"


def test_what_a_router_passes_on_is_read_too() -> None:
    metadata = b'{"provider_name":"x","raw":"{\\"error\\":{\\"message\\":\\"maximum context length is 9\\"}}"}'
    body = b'{"error":{"code":400,"message":"Provider returned error","metadata":%b}}' % metadata
    error = rejection(400, {}, body)
    assert (str(error), error.code) == ("Provider returned error", "context_length_exceeded")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_status_that_means_something_else_is_no_overflow(status: int) -> None:
    body = b'{"error":{"message":"too many tokens per minute"}}'
    assert rejection(status, {}, body).code == rejection(status, {}, b"").code != "context_length_exceeded"


@pytest.mark.parametrize(
    "said",
    [
        b'"code":"insufficient_quota"',
        b'"type":"insufficient_quota"',
        b'"code":"credit_balance_exhausted"',
        b'"code":"project_spend_limit_exceeded"',
        b'"message":"Insufficient credits. Add more"',
        b'"message":"You exceeded your current quota"',
    ],
)
def test_a_quota_that_waiting_does_not_fill_has_its_own_code(said: bytes) -> None:
    assert rejection(429, {}, b'{"error":{%b}}' % said).code == "insufficient_quota"
    assert rejection(402, {}, b'{"error":{%b}}' % said).code == "insufficient_quota"
    assert rejection(400, {}, b'{"error":{%b}}' % said).code == "invalid_request_error"


@pytest.mark.parametrize(
    "said",
    [
        b'"code":"content_policy_violation"',
        b'"message":"content management policy"',
        b'"message":"Output blocked by content filtering policy"',
    ],
)
def test_a_prompt_against_the_rules_has_its_own_code(said: bytes) -> None:
    assert rejection(400, {}, b'{"error":{%b}}' % said).code == "invalid_prompt"
    assert stream_error(b'{"error":{%b}}' % said).code == "invalid_prompt"
    assert rejection(422, {}, b'{"error":{%b}}' % said).code == "invalid_request_error"


@pytest.mark.parametrize("code", ["invalid_image_url", "image_too_large", "bio_policy", "invalid_prompt"])
def test_a_code_that_says_what_to_change_keeps_its_name(code: str) -> None:
    assert rejection(400, {}, b'{"error":{"message":"x","code":"%b"}}' % code.encode()).code == code
    assert stream_error(b'{"error":{"message":"x","type":"%b"}}' % code.encode()).code == code


STREAMS = [
    (b'{"error":{"message":"overloaded","code":503,"type":"x"},"choices":[]}', ("overloaded", 503, "server_error")),
    (b'{"error":{"message":"slow","code":"429"}}', ("slow", 429, "rate_limit_exceeded")),
    (b'{"error":{"message":"slow","code":"rate_limit_exceeded"}}', ("slow", 502, "rate_limit_exceeded")),
    (b'{"error":{"message":"slow","type":"insufficient_quota"}}', ("slow", 502, "insufficient_quota")),
    (b'{"error":{"message":"x","code":"server_is_overloaded"}}', ("x", 502, "server_is_overloaded")),
    (b'{"error":{"message":"x","code":"tool_use_failed"}}', ("x", 502, "server_error")),
    (b'{"error":{"message":"x","code":200}}', ("x", 502, "server_error")),
    (b'{"error":{"message":"x","code":4000}}', ("x", 502, "server_error")),
    (b'{"error":{"message":"x","code":"\xd9\xa4\xd9\xa0\xd9\xa0"}}', ("x", 502, "server_error")),
    (b'{"error":"cut"}', ("cut", 502, "server_error")),
    (b'{"error":{}}', ("{}", 502, "server_error")),
    (b'{"error":{"message":""},"detail":""}', ('{"message":""}', 502, "server_error")),
    (b"{}", ("the provider reported an error without a message", 502, "server_error")),
]


@pytest.mark.parametrize(("body", "said"), STREAMS)
def test_an_error_inside_a_stream_has_no_status_but_what_it_says(body: bytes, said: tuple[str, int, str]) -> None:
    error = stream_error(body)
    assert (str(error), error.status, error.code) == said
    assert (error.param, error.retry_after) == (None, None)


@pytest.mark.parametrize("status", range(400, 600))
def test_the_same_request_may_be_sent_again_where_nothing_was_generated(status: int) -> None:
    # Behind a timeout of something in between the turn may go on, and be paid for (reliability.md S17).
    assert rejection(status, {}, b"").transient is (status in {429, 500, 502, 503, 529})
    assert {429, 500, 502, 503, 529} == TRANSIENT


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, b'"code":"insufficient_quota"'),
        (429, b'"message":"You exceeded your current quota"'),
        (502, b'"message":"prompt is too long"'),
        (502, b'"code":"content_filter"'),
        (502, b'"code":"image_too_large"'),
    ],
)
def test_what_comes_back_the_same_is_not_sent_again(status: int, said: bytes) -> None:
    assert not rejection(status, {}, b'{"error":{%b}}' % said).transient
    assert not stream_error(b'{"error":{%b}}' % said).transient


def test_a_provider_that_does_not_want_to_be_asked_again_is_not() -> None:
    assert not rejection(503, {"x-should-retry": "false"}, b"").transient
    assert rejection(503, {"x-should-retry": "true"}, b"").transient
    assert not rejection(400, {"x-should-retry": "true"}, b"").transient


@pytest.mark.parametrize(
    ("said", "transient"),
    [
        (b'"code":429', True),
        (b'"code":503', True),
        (b'"code":529', True),
        (b'"code":"rate_limit_exceeded"', True),
        (b'"code":"server_is_overloaded"', True),
        (b'"code":500', False),
        (b'"code":502', False),
        (b'"code":504', False),
        (b'"code":"server_error"', False),
        (b'"code":429,"type":"insufficient_quota"', False),
        (b'"message":"reset"', False),
    ],
)
def test_inside_an_answer_only_who_has_no_room_is_asked_again(said: bytes, transient: bool) -> None:
    assert stream_error(b'{"error":{%b}}' % said).transient is transient


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "-1"}, 0.0),
        ({"retry-after-ms": "soon"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
    ],
)
def test_a_hint_when_to_come_again_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert rejection(429, headers, b"").retry_after == seconds


def test_a_hint_may_be_a_date_to_come() -> None:
    hint = rejection(429, {"retry-after": formatdate(time.time() + 100, usegmt=True)}, b"").retry_after
    assert hint is not None
    assert 90 < hint <= 101


@given(st.binary() | st.binary().map(lambda body: b'{"error":' + body), st.text())
def test_no_answer_at_all_is_more_than_an_error(body: bytes, hint: str) -> None:
    assert rejection(400, {"retry-after": hint, "retry-after-ms": hint}, body).status == 400
    assert str(stream_error(body))

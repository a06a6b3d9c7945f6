"""http.md §6, reliability.md F4, mapping.md §6 Errors, codex.md §9."""

import io
import json
import time
from collections.abc import Iterator

import pytest
import structlog
from starlette.types import Message

from rejoinder.bridge.errors import BrokenStream, Unsupported, UpstreamError
from rejoinder.server import errors, log
from rejoinder.server.envelope import ErrorBody, answer, describe, encode, failure, frame, from_codex, head
from rejoinder.store.errors import DamagedRecord, Missing, StoreError
from rejoinder.wire.errors import BadFrame, BadRequest

SECRET = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def lines() -> Iterator[io.StringIO]:
    """What is logged meanwhile."""
    stream = io.StringIO()
    log.configure("debug", stream)
    yield stream
    structlog.reset_defaults()


def upstream(status: int, code: str = "server_error", retry_after: float | None = None) -> UpstreamError:
    return UpstreamError("it said no", status=status, code=code, param="model", retry_after=retry_after)


# The table of F4


@pytest.mark.parametrize(
    ("exc", "status", "type_", "code", "headers"),
    [
        (upstream(400, "invalid_request_error"), 400, "invalid_request_error", None, {}),
        (upstream(400, "unsupported_parameter"), 400, "invalid_request_error", "unsupported_parameter", {}),
        (upstream(400, f"no {SECRET}"), 400, "invalid_request_error", None, {}),
        (upstream(400, SECRET), 400, "invalid_request_error", None, {}),
        (upstream(404), 404, "invalid_request_error", None, {}),
        (upstream(404, "model_not_found"), 400, "invalid_request_error", "model_not_found", {}),
        (upstream(409), 409, "invalid_request_error", None, {}),
        (upstream(413, "request_too_large"), 413, "invalid_request_error", None, {}),
        (upstream(422), 422, "invalid_request_error", None, {}),
        (upstream(500, "context_length_exceeded"), 400, "invalid_request_error", "context_length_exceeded", {}),
        (upstream(403, "invalid_prompt"), 400, "invalid_request_error", "invalid_prompt", {}),
        (upstream(400, "image_too_large"), 400, "invalid_request_error", "image_too_large", {}),
        (upstream(429, "rate_limit_exceeded"), 429, "requests", "rate_limit_exceeded", {"retry-after": "1"}),
        (upstream(429, "rate_limit_exceeded", 7.2), 429, "requests", "rate_limit_exceeded", {"retry-after": "8"}),
        (upstream(429, "rate_limit_exceeded", 0), 429, "requests", "rate_limit_exceeded", {"retry-after": "1"}),
        (upstream(429), 429, "requests", "rate_limit_exceeded", {"retry-after": "1"}),
        (upstream(502, "rate_limit_exceeded"), 429, "requests", "rate_limit_exceeded", {"retry-after": "1"}),
        (
            upstream(429, "insufficient_quota", 9),
            429,
            "insufficient_quota",
            "insufficient_quota",
            {"x-should-retry": "false"},
        ),
        (upstream(402), 429, "insufficient_quota", "insufficient_quota", {"x-should-retry": "false"}),
        (upstream(401, "invalid_api_key"), 502, "server_error", "server_error", {"x-should-retry": "false"}),
        (upstream(403, "permission_denied"), 502, "server_error", "server_error", {"x-should-retry": "false"}),
        (upstream(408), 504, "server_error", "server_error", {}),
        (upstream(500), 502, "server_error", "server_error", {}),
        (upstream(502), 502, "server_error", "server_error", {}),
        (upstream(503, retry_after=3), 503, "server_error", "server_error", {"retry-after": "3"}),
        (upstream(502, "server_is_overloaded"), 503, "server_error", "server_is_overloaded", {}),
        (upstream(504), 504, "server_error", "server_error", {}),
        (upstream(524), 504, "server_error", "server_error", {}),
        (upstream(529), 503, "server_error", "server_error", {}),
        (upstream(418), 502, "server_error", "server_error", {}),
        (BrokenStream("stops short"), 502, "server_error", "server_error", {}),
    ],
)
def test_what_a_provider_says_becomes_what_sdks_understand(
    exc: UpstreamError, status: int, type_: str, code: str | None, headers: dict[str, str]
) -> None:
    body = describe(exc)
    assert (body.status, body.type, body.code, body.headers) == (status, type_, code, headers)
    assert body.param == (exc.param if type_ == "invalid_request_error" else None)


@pytest.mark.parametrize(
    ("hint", "seconds"), [(float("inf"), "86400"), (float("nan"), "1"), (-5.0, "1"), (0.2, "1"), (60.0, "60")]
)
def test_any_hint_becomes_whole_seconds(hint: float, seconds: str) -> None:
    assert describe(upstream(429, retry_after=hint)).headers == {"retry-after": seconds}


def test_our_own_bad_key_is_told_to_the_operator_and_not_blamed_on_the_client(lines: io.StringIO) -> None:
    exc = UpstreamError(f"Incorrect API key provided: {SECRET}", status=401, code="invalid_api_key")
    assert "upstream" not in describe(exc).message
    lines.truncate(lines.seek(0))
    exc.upstream = "groq"
    assert describe(exc).message == (
        "The provider refused this server's own credential of upstream 'groq'. "
        "Ask the operator to check the API key it is configured with."
    )
    line = json.loads(lines.getvalue().splitlines()[0])
    assert (line["upstream"], line["status"], line["said"]) == ("groq", 401, "Incorrect API key provided: [redacted]")
    assert SECRET not in lines.getvalue()


# What Codex gets (codex.md §9, §11.6)


@pytest.mark.parametrize(
    ("exc", "status", "headers"),
    [
        (upstream(400), 400, {}),
        (upstream(404), 400, {}),
        (upstream(404, "model_not_found"), 404, {}),
        (upstream(413), 400, {}),
        (upstream(422), 400, {}),
        (upstream(401), 400, {"x-should-retry": "false"}),
        (upstream(409), 429, {"retry-after": "1"}),
        (upstream(429, retry_after=5), 429, {"retry-after": "5"}),
        (upstream(429, "insufficient_quota"), 429, {"x-should-retry": "false"}),
        (upstream(500), 429, {"retry-after": "1"}),
        (upstream(503, retry_after=4), 429, {"retry-after": "4"}),
        (upstream(504), 429, {"retry-after": "1"}),
        (errors.Unauthorized("no"), 400, {}),
        (errors.NotFound("no"), 400, {}),
        (errors.TooSlow("no"), 429, {"retry-after": "1"}),
        (errors.TooLarge("no"), 400, {}),
        (errors.Unavailable("no", retry_after=2), 429, {"retry-after": "2"}),
        (errors.StoreFailed("no"), 400, {"x-should-retry": "false"}),
        (BadRequest("no"), 400, {}),
        (DamagedRecord("no"), 400, {"x-should-retry": "false"}),
        (StoreError("no"), 429, {"retry-after": "1"}),
        (RuntimeError("no"), 400, {}),
    ],
)
def test_codex_stops_at_once_or_waits_as_told(exc: Exception, status: int, headers: dict[str, str]) -> None:
    for_sdks, for_codex = describe(exc), describe(exc, codex=True)
    assert (for_codex.status, for_codex.headers) == (status, headers)
    assert (for_codex.type, for_codex.code, for_codex.message) == (for_sdks.type, for_sdks.code, for_sdks.message)


def test_no_error_gives_codex_a_status_it_repeats_blindly() -> None:
    for status in range(300, 600):
        for code in ("server_error", "model_not_found", "insufficient_quota", "rate_limit_exceeded"):
            body = describe(upstream(status, code), codex=True)
            assert body.status in (400, 429) or (body.status, body.code) == (404, "model_not_found")
            assert body.status != 429 or body.code == "insufficient_quota" or int(body.headers["retry-after"]) >= 1


def test_codex_says_who_it_is() -> None:
    assert from_codex([(b"host", b"a"), (b"originator", b"codex_exec")])
    assert from_codex([(b"originator", b"Codex Desktop")])
    assert not from_codex([(b"originator", b"somebody"), (b"user-agent", b"codex")])


# Our own


def test_our_errors_are_what_they_say() -> None:
    exc = errors.TooLarge("too much", param="input", code="c", headers={"a": "b"})
    assert describe(exc) == ErrorBody(413, "invalid_request_error", "input", "c", "too much", {"a": "b"})
    for blame in (BadRequest("bad", param="p", code="c"), Unsupported("bad", param="p", code="c")):
        assert describe(blame) == ErrorBody(400, "invalid_request_error", "p", "c", "bad")
    assert describe(BadFrame("no UTF-8")) == ErrorBody(
        502, "server_error", None, "server_error", "The provider's stream cannot be read: no UTF-8"
    )


@pytest.mark.parametrize(
    ("exc", "status", "level"),
    [
        (RuntimeError(SECRET), 500, "error"),
        (DamagedRecord(f"record resp_1 {SECRET}"), 500, "error"),
        (StoreError(SECRET), 503, "warning"),
        (Missing(SECRET), 503, "warning"),
    ],
)
def test_what_is_not_the_clients_business_is_logged_and_not_told(
    exc: Exception, status: int, level: str, lines: io.StringIO
) -> None:
    body = describe(exc)
    assert (body.status, body.type, body.param) == (status, "server_error", None)
    assert SECRET not in encode(body).decode()
    assert type(exc).__name__ not in encode(body).decode()
    [line] = lines.getvalue().splitlines()
    assert json.loads(line)["level"] == level
    assert type(exc).__name__ in json.loads(line)["exception"]
    assert SECRET not in line


def test_a_damaged_record_is_named_in_the_log(lines: io.StringIO) -> None:
    describe(DamagedRecord("record resp_1"))
    assert "record resp_1" in lines.getvalue()


# Inside a stream


@pytest.mark.parametrize(
    ("exc", "code", "message"),
    [
        (upstream(500), "server_error", "it said no"),
        (upstream(401), "server_error", "The provider refused this server's own credential."),
        (upstream(400), "invalid_prompt", "it said no"),
        (upstream(400, "context_length_exceeded"), "context_length_exceeded", "it said no"),
        (upstream(400, "unsupported_parameter"), "invalid_prompt", "it said no"),
        (upstream(503, "server_is_overloaded"), "server_error", "it said no"),
        (upstream(404, "model_not_found"), "model_not_found", "it said no"),
        (upstream(429, retry_after=7), "rate_limit_exceeded", "it said no Please try again in 7s."),
        (upstream(402), "insufficient_quota", "it said no"),
        (upstream(409), "server_error", "it said no"),
        (UpstreamError("Please try again in 2.5s.", status=429), "rate_limit_exceeded", "Please try again in 2.5s."),
        (BrokenStream("stops short"), "server_error", "stops short"),
        (Unsupported("cannot", param="tools"), "invalid_prompt", "cannot"),
        (errors.Unavailable("shutting down"), "server_error", "shutting down"),
        (errors.StoreFailed("generated but not stored"), "server_error", "generated but not stored"),
        (errors.TooSlow("slow"), "server_error", "slow"),
        (RuntimeError(SECRET), "server_error", "The server had an error while processing your request."),
    ],
)
def test_a_begun_stream_fails_with_a_code_that_says_what_to_do(exc: Exception, code: str, message: str) -> None:
    told = failure(exc)
    assert told[0] == code
    assert told[1].startswith(message)


# The provider's words


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Incorrect API key provided: {SECRET}.", "Incorrect API key provided: [redacted]"),
        ("See https://platform.example.com/account?x=1 for more", "See [url] for more"),
        ("Cannot connect to host llm.internal:8000 ssl:default", "Cannot connect to host [host] ssl:default"),
        ("Cannot connect to host vllm-1:8000 ssl:default", "Cannot connect to host [host] ssl:default"),
        ("refused by 10.0.0.7:443 and 192.168.1.2.", "refused by [host] and [host]."),
        ("no route to [fd00::1]:80", "no route to [host]"),
        ("no route to fd00:0:0:1:2:3:4:5", "no route to [host]"),
        ("localhost:11434 is down", "[host] is down"),
        ("api.openai.com said no", "[host] said no"),
        ("in organization org-AbCdEfGhIjKlMnOpQrStUvWx on requests", "in organization [account] on requests"),
        ("project proj_abc123 is archived", "project [account] is archived"),
        ("projects/my-project-1/locations/x", "projects/[account]/locations/x"),
        ("arn:aws:bedrock:us-east-1:123456789012:model/x denied", "[account] denied"),
        ("account 123456789012 denied", "account [account] denied"),
        ("tenant 6ba7b810-9dad-11d1-80b4-00c04fd430c8", "tenant [account]"),
    ],
)
def test_the_providers_words_lose_keys_hosts_and_accounts(text: str, clean: str) -> None:
    assert describe(UpstreamError(text, status=400)).message == clean
    assert failure(UpstreamError(text, status=400))[1] == clean


@pytest.mark.parametrize(
    "text",
    [
        "The model 'gpt-6.1-sol' does not exist.",
        "This model's maximum context length is 131072 tokens. However, you requested 140000 tokens.",
        "input[10].content[0].text: expected a string at line 3:14, code:404",
        "Unsupported parameter: 'user-specified' is not supported with llama3.3:70b.",
        "tools.0.custom.name must match ^[a-z]+$ (e.g. 'a.b')",
        "Please try again in 1.2s.",
        "The file report.v2.json has no org-wide rights at 12:30:45.",
    ],
)
def test_harmless_words_stay(text: str) -> None:
    assert describe(UpstreamError(text, status=400)).message == text


@pytest.mark.parametrize("piece", ["a.", "a", "1.", "a:", "org-", "http:/", "0:", "[", "-", "to "])
def test_long_words_are_cut_and_take_linear_time(piece: str) -> None:
    started = time.monotonic()
    message = describe(UpstreamError(piece * 1_000_000, status=400)).message
    assert time.monotonic() - started < 1
    assert len(message) < 10_000


# On the wire


def test_the_envelope_has_all_four_keys() -> None:
    assert encode(ErrorBody(400, "t", None, None, 'm"\n')) == (
        b'{"error":{"message":"m\\"\\n","type":"t","param":null,"code":null}}'
    )
    assert head(ErrorBody(429, "t", None, None, "m", {"retry-after": "1"}), b"12345") == [
        (b"content-type", b"application/json"),
        (b"content-length", b"5"),
        (b"retry-after", b"1"),
    ]


async def test_an_error_is_a_whole_answer() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    body = ErrorBody(404, "t", None, None, "m")
    content = encode(body)
    await answer({"type": "http"}, send, body)
    await answer({"type": "websocket", "extensions": {"websocket.http.response": {}}}, send, body)
    await answer({"type": "websocket"}, send, body)
    for prefix in ("", "websocket."):
        assert sent.pop(0) == {
            "type": f"{prefix}http.response.start",
            "status": 404,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))],
        }
        assert sent.pop(0) == {"type": f"{prefix}http.response.body", "body": content}
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(("headers", "more"), [({}, {}), ({"retry-after": "3"}, {"headers": {"retry-after": "3"}})])
def test_an_error_message_has_a_status_and_a_code_always(headers: dict[str, str], more: dict[str, object]) -> None:
    body = ErrorBody(401, "invalid_request_error", None, None, "No.", headers)
    kind = "invalid_request_error"
    assert json.loads(frame(body)) == {
        "type": "error",
        "status": 401,
        "error": {"type": kind, "code": kind, "message": "No.", "param": None, **more},
    }

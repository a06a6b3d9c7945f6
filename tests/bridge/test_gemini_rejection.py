import json

import pytest

from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.gemini_rejection import rejection, stream_error

RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48.9s"}


def refused(status: int, message: str = "no", *details: object, array: bool = False) -> UpstreamError:
    error = {"error": {"code": status, "message": message, "status": "X", "details": details}}
    return rejection(status, {}, json.dumps([error] if array else error, indent=1).encode())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request_error"),
        (401, "invalid_api_key"),
        (403, "permission_denied"),
        (404, "model_not_found"),
        (429, "rate_limit_exceeded"),
        (499, "server_error"),
        (500, "server_error"),
        (503, "server_error"),
        (504, "server_error"),
    ],
)
def test_a_status_has_its_code(status: int, code: str) -> None:
    error = refused(status)

    assert (error.status, error.code, str(error)) == (status, code, "no")


def test_an_error_may_be_wrapped_in_an_array() -> None:
    error = refused(404, "not found", array=True)

    assert (error.status, error.code, str(error)) == (404, "model_not_found", "not found")


def test_a_bad_key_is_no_bad_request() -> None:
    error = refused(400, "API key not valid.", {"reason": "API_KEY_INVALID", "domain": "googleapis.com"})

    assert (error.status, error.code) == (401, "invalid_api_key")


def test_the_hint_when_to_come_back_is_in_the_details() -> None:
    error = refused(429, "You exceeded your current quota", {"links": []}, RETRY)

    assert (error.code, error.retry_after, error.transient) == ("rate_limit_exceeded", 48.9, True)


def test_a_hint_in_another_form_is_none() -> None:
    assert refused(503, "later", {"retryDelay": "soon"}).retry_after is None


def test_the_quota_of_a_day_does_not_come_back_in_a_moment() -> None:
    quota = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}

    assert refused(429, "quota", quota, RETRY).transient is False


@pytest.mark.parametrize(
    "message",
    [
        "The input token count (1234567) exceeds the maximum number of tokens allowed (1048576).",
        "The input token count exceeds the maximum number of tokens allowed 1048576.",
    ],
)
def test_a_conversation_that_no_longer_fits_says_so(message: str) -> None:
    assert refused(400, message).code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b'{"error":"no"}', b"[", b"", b'[{"error":7}]'])
def test_an_error_of_something_in_between_is_one_all_the_same(body: bytes) -> None:
    error = rejection(502, {"retry-after": "3"}, body)

    assert (error.status, error.code, error.retry_after) == (502, "server_error", 3)


def test_an_error_inside_a_stream_has_its_own_status() -> None:
    body = json.dumps({"error": {"code": 429, "message": "slow down", "details": [RETRY]}}).encode()

    error = stream_error(body)

    assert (error.status, error.code, error.retry_after, error.transient) == (429, "rate_limit_exceeded", 48.9, True)

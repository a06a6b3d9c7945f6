"""What Google's errors mean (provider-gemini.md §9)."""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from rejoinder.bridge import rejection as shared
from rejoinder.bridge.errors import UpstreamError


class _Violation(Struct, rename="camel", frozen=True):
    quota_id: str = ""


class _Detail(Struct, rename="camel", frozen=True):
    reason: str = ""
    retry_delay: str = ""
    violations: list[_Violation] = []


class _Error(Struct, frozen=True):
    details: list[_Detail] = []


class _Envelope(Struct):
    error: _Error = _Error()


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")


def rejection(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error an HTTP answer describes; some routes wrap it in an array. `headers` have lower-case names."""
    body = _unwrapped(body)
    return _read(shared.rejection(status, headers, body), body)


def stream_error(body: bytes) -> UpstreamError:
    """The error an object inside a stream describes."""
    return _read(shared.stream_error(body), body)


def _unwrapped(body: bytes) -> bytes:
    stripped = body.strip()
    return stripped[1:-1] if stripped.startswith(b"[") and stripped.endswith(b"]") else body


def _read(error: UpstreamError, body: bytes) -> UpstreamError:
    """The error with what stands in its details."""
    try:
        details = _ENVELOPE.decode(body).error.details
    except msgspec.MsgspecError:
        return error  # in another form, so from something in between
    if any(detail.reason == "API_KEY_INVALID" for detail in details):
        # A bad key is a 400 here, and everywhere else a 401.
        error.status, error.code, error.transient = 401, "invalid_api_key", False
    for detail in details:
        if delay := _DELAY.fullmatch(detail.retry_delay):
            error.retry_after = float(delay[1])
    if error.status == 429:
        # The words are those of an empty account; what is meant is so many in a minute, or in a day.
        error.code = "rate_limit_exceeded"
        violations = (violation for detail in details for violation in detail.violations)
        error.transient = not any("PerDay" in violation.quota_id for violation in violations)
    return error

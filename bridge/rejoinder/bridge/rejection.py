"""What a provider's refusal means, whatever envelope it comes in (provider-chat.md §8, mapping.md §6 Errors)."""

import email.utils
import re
import time
from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.errors import UpstreamError

OVERFLOW = re.compile(
    "|".join(
        (
            r"context_length_exceeded",
            r"prompt is too long",
            r"prompt too long",
            r"maximum context length",
            r"context window",
            r"exceeds the maximum number of tokens",
            r"input length and `max_tokens` exceed",
            r"exceed_context_size",
            r"too many tokens",
            r"input is too long",
        )
    ),
    re.IGNORECASE,
)
"""Texts that mean: the conversation no longer fits (mapping.md §6)."""

_QUOTA = re.compile(
    r"insufficient_quota|credit_balance|spend_limit|insufficient credits|exceeded your current quota", re.I
)

_POLICY = re.compile(r"content_filter|content (?:management|filtering) policy|content_policy", re.IGNORECASE)

_CODES = {
    400: "invalid_request_error",
    401: "invalid_api_key",
    402: "insufficient_quota",
    403: "permission_denied",
    404: "model_not_found",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_exceeded",
}


_ERROR_STATUS = re.compile("[45][0-9][0-9]")


class _Fields(Struct):
    """The union of the envelopes seen; every field is optional and of any kind."""

    message: Raw = Raw()
    code: Raw = Raw()
    type: Raw = Raw()
    param: Raw = Raw()
    detail: Raw = Raw()
    error: Raw = Raw()
    metadata: Raw = Raw()


_DECODER = msgspec.json.Decoder(_Fields)
_STRING = msgspec.json.Decoder(str)


def rejection(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error an HTTP answer describes. `headers` have lower-case names."""
    found = _read(body)
    message = found.message or f"the provider answered with status {status}"
    code = _code(status, found)
    return UpstreamError(
        message,
        status=status,
        code=code,
        param=found.param,
        retry_after=_retry_after(headers),
        transient=_is_transient(status, code) and headers.get("x-should-retry") != "false",
    )


def stream_error(body: bytes) -> UpstreamError:
    """The error an object inside a stream, or a 200 answer, describes."""
    found = _read(body)
    status = int(found.code) if _ERROR_STATUS.fullmatch(found.code) else 502
    message = found.message or "the provider reported an error without a message"
    code = _code(status, found)
    # Inside an answer only a provider that says it has no room is believed to have generated nothing.
    transient = _is_transient(status, code) and (status in (503, 529) or code != "server_error")
    return UpstreamError(message, status=status, code=code, transient=transient)


TRANSIENT = frozenset((429, 500, 502, 503, 529))
"""Statuses after which the same request may be sent again. Not a timeout of something in between (408, 504, 524):
behind it the turn may go on and be paid for (reliability.md S17, provider-anthropic.md §11)."""


def _is_transient(status: int, code: str) -> bool:
    # An empty account stays empty, and what does not fit will not fit; the other codes say no more than the status.
    return status in TRANSIENT and code in ("rate_limit_exceeded", "server_error", "server_is_overloaded")


class _Found(Struct):
    message: str = ""
    code: str = ""
    type: str = ""
    param: str | None = None
    metadata: str = ""


def _read(body: bytes) -> _Found:
    try:
        body.decode()  # msgspec does not look at what it hands on as it is
        outer = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Plain text or a page from a proxy in between: its first line is all a person can use.
        text = body[:2000].decode("utf-8", "replace").strip()
        return _Found(message="" if text.startswith(("<", "{", "[")) else text.split("\n", 1)[0][:500])
    inner = outer
    if bytes(outer.error).startswith(b"{"):
        inner = _DECODER.decode(outer.error)
    message = _text(inner.message) or _text(outer.error) or _text(inner.detail) or _text(outer.message)
    return _Found(message, _text(inner.code), _text(inner.type), _text(inner.param) or None, _text(inner.metadata))


def _text(raw: Raw) -> str:
    data = bytes(raw)
    if data in (b"", b"null"):
        return ""
    return _STRING.decode(data) if data.startswith(b'"') else data.decode()


def _code(status: int, found: _Found) -> str:
    # OpenRouter's message says only that there was an error; what it was stands in `metadata.raw` (§8).
    said = f"{found.code} {found.type} {found.message} {found.metadata}"
    if status < 500 and status not in (401, 403, 404, 429) and OVERFLOW.search(said):
        return "context_length_exceeded"
    if status == 502 and OVERFLOW.search(said):  # inside a stream there is no status to go by
        return "context_length_exceeded"
    if status in (400, 502) and _POLICY.search(said):
        return "invalid_prompt"
    if status in (402, 429) and _QUOTA.search(said):
        return "insufficient_quota"
    named = found.code or found.type
    if status in (400, 502) and named in BLAMES_THE_INPUT:
        return named
    if status in _CODES:
        return _CODES[status]
    return named if named in _STREAM_CODES else "server_error"


_STREAM_CODES = frozenset(("rate_limit_exceeded", "insufficient_quota", "invalid_prompt", "server_is_overloaded"))

BLAMES_THE_INPUT = frozenset(
    (
        "bio_policy",
        "cyber_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_prompt",
        "misalignment_policy_violation",
        "unsupported_image_media_type",
    )
)
"""Codes of `response.error` that say what to change, and so keep their name (objects.md §3, mapping.md §6)."""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms`, or `retry-after` in seconds or as a date (provider-chat.md §8)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        said = headers.get("retry-after")
        if said is None:
            return None
        if said.strip().replace(".", "", 1).isdecimal():
            return float(said)
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None

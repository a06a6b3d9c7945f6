"""The one place that turns an exception into the error a client reads (http.md §6).

Three readers want different things of the same fault. SDKs map by status and retry 408, 409, 429 and 5xx unless
`x-should-retry` says otherwise (http.md §5). Codex prints a 400 at once, waits for a 429 with `retry-after`, and sends
anything else up to 30 times before its user sees the reason (codex.md §9, §11.6). A stream that has begun can only say
a code and a message (http.md §6.4). The tables below are all there is to it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import structlog
from starlette.types import Scope, Send

from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.rejection import BLAMES_THE_INPUT
from rejoinder.server.errors import ApiError
from rejoinder.server.log import redact
from rejoinder.store.errors import DamagedRecord, StoreError
from rejoinder.wire.errors import BadFrame, BadRequest

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INVALID = "invalid_request_error"
_SERVER = "server_error"
_NO_RETRY = {"x-should-retry": "false"}
_OUR_FAULT = "The server had an error while processing your request."
_LONGEST_WAIT = 86_400
_LONGEST_MESSAGE = 2_000


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An answer that is an error: the status line, the four members of the envelope, and headers to add."""

    status: int
    type: str
    param: str | None
    code: str | None
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


# What a provider's error means for our client (reliability.md F4, mapping.md §6 Errors).


@dataclass(frozen=True, slots=True)
class _Row:
    """`code` is what the client reads. `final`: asking again cannot help. `says` replaces the provider's text."""

    status: int
    type: str
    code: str | None = None
    final: bool = False
    says: str | None = None


_CREDENTIAL = _Row(502, _SERVER, _SERVER, final=True, says="The provider refused this server's own credential")

_BY_CODE: Mapping[str, _Row] = {
    # The code tells more than the status: some servers send an overflow with status 500.
    **{code: _Row(400, _INVALID, code) for code in ("context_length_exceeded", "model_not_found", *BLAMES_THE_INPUT)},
    # http.md §6.2: waiting does not fill an account.
    **{
        code: _Row(429, "insufficient_quota", code, final=True)
        for code in (
            "credit_balance_exhausted",
            "insufficient_quota",
            "organization_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "project_spend_limit_exceeded",
        )
    },
    "rate_limit_exceeded": _Row(429, "requests", "rate_limit_exceeded"),
    "server_is_overloaded": _Row(503, _SERVER, "server_is_overloaded"),
}

_BY_STATUS: Mapping[int, _Row] = {
    400: _Row(400, _INVALID),
    401: _CREDENTIAL,
    402: _Row(429, "insufficient_quota", "insufficient_quota", final=True),
    403: _CREDENTIAL,
    404: _Row(404, _INVALID),
    408: _Row(504, _SERVER, _SERVER),
    409: _Row(409, _INVALID),
    413: _Row(413, _INVALID),
    422: _Row(422, _INVALID),
    429: _Row(429, "requests", "rate_limit_exceeded"),
    503: _Row(503, _SERVER, _SERVER),
    504: _Row(504, _SERVER, _SERVER),
    524: _Row(504, _SERVER, _SERVER),
    529: _Row(503, _SERVER, _SERVER),
}

_OTHERWISE = _Row(502, _SERVER, _SERVER)

# What Codex gets instead of a status (codex.md §9). What is not listed becomes 400: it ends the turn and is printed.

_CODEX: Mapping[int, int] = {
    408: 429,
    409: 429,
    426: 426,  # the one answer to a handshake that makes it use HTTP silently (codex.md §7)
    429: 429,
    502: 429,
    503: 429,
    504: 429,
}


def describe(exc: BaseException, *, codex: bool = False) -> ErrorBody:
    """The answer for an exception."""
    body = _described(exc)
    return _for_codex(body) if codex else body


def failure(exc: BaseException) -> tuple[str, str]:
    """`response.error` of a `response.failed`: its code, never null, and its message.

    Codex gives up at once on `invalid_prompt`, `context_length_exceeded` and `insufficient_quota`, waits for
    `rate_limit_exceeded` as long as the message says, and asks again five times for anything else (codex.md §9), but
    for `server_is_overloaded`, which is told by a status alone.
    """
    body = _described(exc)
    if body.status == 429 and body.type != "insufficient_quota":
        wait = body.headers.get("retry-after", "1")
        hint = "" if "try again in" in body.message else f" Please try again in {wait}s."
        return "rate_limit_exceeded", body.message + hint
    if body.status != 429 and (body.status >= 500 or body.status in _CODEX):
        return _SERVER, body.message
    return body.code if body.code and body.code in _BY_CODE else "invalid_prompt", body.message


def encode(body: ErrorBody) -> bytes:
    """The envelope as JSON: all four keys, always (http.md §6.1)."""
    return _encode({"error": {"message": body.message, "type": body.type, "param": body.param, "code": body.code}})


def frame(body: ErrorBody) -> bytes:
    """The error as a message over a WebSocket: its code is never null, its status never left out (websocket.md §6)."""
    error: dict[str, object] = {
        "type": body.type,
        "code": body.code or body.type,
        "message": body.message,
        "param": body.param,
    }
    if body.headers:
        error["headers"] = body.headers
    return _encode({"type": "error", "status": body.status, "error": error})


async def answer(scope: Scope, send: Send, body: ErrorBody) -> None:
    """Sends the error as the whole answer to a request, or as the refusal of a WebSocket handshake."""
    prefix = ""
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        prefix = "websocket."
    content = encode(body)
    await send({"type": f"{prefix}http.response.start", "status": body.status, "headers": head(body, content)})
    await send({"type": f"{prefix}http.response.body", "body": content})


def head(body: ErrorBody, content: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer whose body is `content`."""
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        *((name.encode(), value.encode()) for name, value in body.headers.items()),
    ]


def from_codex(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the request says it comes from Codex: `originator: codex_exec`, `codex-tui`, … (codex.md §2)."""
    return any(name == b"originator" and value[:5].lower() == b"codex" for name, value in headers)


_encode = msgspec.json.Encoder().encode


def _described(exc: BaseException) -> ErrorBody:
    match exc:
        case ApiError():
            return ErrorBody(exc.status, exc.type, exc.param, exc.code, str(exc), exc.headers)
        case BadRequest() | Unsupported():
            return ErrorBody(400, _INVALID, exc.param, exc.code, str(exc))
        case UpstreamError():
            return _upstream_error(exc)
        case BadFrame():
            return ErrorBody(502, _SERVER, None, _SERVER, f"The provider's stream cannot be read: {exc}")
        case DamagedRecord():
            _logger.error("damaged record", exc_info=exc)
            return ErrorBody(500, _SERVER, None, _SERVER, _OUR_FAULT, _NO_RETRY)
        case StoreError():
            _logger.warning("store unavailable", exc_info=exc)
            says = "The store cannot be used at the moment. Please try again."
            return ErrorBody(503, _SERVER, None, _SERVER, says, {"retry-after": "1"})
        case _:
            _logger.error("unexpected error", exc_info=exc)
            return ErrorBody(500, _SERVER, None, _SERVER, _OUR_FAULT)


def _upstream_error(exc: UpstreamError) -> ErrorBody:
    row = _BY_CODE.get(exc.code) or _BY_STATUS.get(exc.status, _OTHERWISE)
    message = public(str(exc))
    if row.says:
        _logger.error("upstream refused our credential", upstream=exc.upstream, status=exc.status, said=message)
        of = f" of upstream '{exc.upstream}'" if exc.upstream else ""
        message = f"{row.says}{of}. Ask the operator to check the API key it is configured with."
    headers: Mapping[str, str] = {}
    if row.final:
        headers = _NO_RETRY
    elif exc.retry_after is not None or row.status == 429:
        headers = {"retry-after": _seconds(exc.retry_after or 0)}
    param = _word(exc.param) if exc.param and row.type == _INVALID else None
    code = row.code
    if code is None and row.status == 400 and exc.code not in (_INVALID, _SERVER):
        code = _word(exc.code)  # of a provider that speaks this very API (provider-responses.md §8)
    if row.code == "context_length_exceeded":
        param = param or "input"  # http.md §6.2
    return ErrorBody(row.status, row.type, param, code, message, headers)


def _word(said: str) -> str | None:
    """A provider's word for what is wrong, where it can be the path of a parameter, or a code, and nothing else."""
    return said if _PATH.fullmatch(said) and public(said) == said else None


_PATH = re.compile(r"[A-Za-z_][\w.\[\]-]{0,199}")


def _seconds(hint: float) -> str:
    """Whole seconds, at least one (http.md §5). A provider may say anything, infinity included."""
    return str(math.ceil(min(max(1.0, hint), _LONGEST_WAIT)))


def _for_codex(body: ErrorBody) -> ErrorBody:
    if body.code == "model_not_found":
        return replace(body, status=404)
    final = body.headers.get("x-should-retry") == "false"
    status = 400 if final and body.status != 429 else _CODEX.get(body.status, 400)
    if status != 429 or final:
        return replace(body, status=status)
    return replace(body, status=status, headers={"retry-after": "1", **body.headers})


# mapping.md §6: the provider's text is kept, without keys, hosts or account ids.

_PRIVATE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>)\]]+", re.I), "[url]"),
    (
        re.compile(
            r"(?<![\w.-])(?:[a-z0-9_-]{1,63}\.){1,8}"
            r"(?:ai|app|cloud|cn|co|com|corp|de|dev|eu|internal|io|lan|local|localdomain|net|org|ru|svc|uk)"
            r"(?::\d{1,5})?(?![\w-])",
            re.I,
        ),
        "[host]",
    ),
    (re.compile(r"(?<![\w.])(?:localhost|\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5})?(?![\w.]\w)", re.I), "[host]"),
    (
        re.compile(
            r"\[(?=[0-9a-f]{0,4}:[0-9a-f]{0,4}:)[0-9a-f:]{2,39}\](?::\d{1,5})?"
            r"|(?<![\w:])(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{1,4}(?![\w:])",
            re.I,
        ),
        "[host]",
    ),
    (re.compile(r"\b(host|to|at|from) [a-z][a-z0-9_-]{0,62}:\d{1,5}(?!\w)", re.I), r"\1 [host]"),
    (
        re.compile(
            r"\b(?:(?:org|proj)[-_]\w{16,64}|(?:org|proj|user|acct|account|tenant|team)[-_](?=[a-z_]{0,64}\d)\w{6,64})",
            re.I,
        ),
        "[account]",
    ),
    (re.compile(r"\barn:[\w/:.-]+"), "[account]"),
    (re.compile(r"\b(projects|organizations|accounts|tenants|subscriptions)/[\w-]+"), r"\1/[account]"),
    (re.compile(r"\b\d{12}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I), "[account]"),
)


def public(text: str) -> str:
    """What a provider said, as its user's client may read it."""
    text = redact(text[:_LONGEST_MESSAGE])
    for pattern, replacement in _PRIVATE:
        text = pattern.sub(replacement, text)
    return text

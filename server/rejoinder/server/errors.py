"""Errors that have a place in the API, and the envelope they travel in (http.md §6.1).

ApiError                  carries everything the envelope and the status line need
├── InvalidRequest        the client can mend it                                             400
├── Unauthorized          no key, or not one of ours                                         401
├── Forbidden             a foreign origin or host name reaches for an open server           403
├── NotFound              no such response, item or route for this owner                     404
├── TooSlow               the request did not arrive in time                                 408
├── Gone                  what the request waited for was deleted or cancelled by another    409
├── TooLarge              the body, before or after inflation, is over the limit             413
├── UnsupportedCoding     a content-encoding or charset we do not read                       415
├── KeyReused             an idempotency key came with two different bodies                  422
├── UpgradeRefused        WebSocket mode is switched off                                     426
├── TooMany               this owner has as much under way as one may have                   429
├── HeadTooLarge          the request line and headers are over their limits                 431
├── Unavailable           we cannot take this now: draining, or the store is not healthy     503
└── StoreFailed           the answer exists but could not be kept (reliability.md F12)       500
"""

from collections.abc import Mapping


class ApiError(Exception):
    """An answer that is an error. `type` and `code` are those of http.md §6; `headers` are added to the answer."""

    status = 500
    type = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class InvalidRequest(ApiError):
    """Raised when the client can mend the request."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(ApiError):
    """Raised when a request carries no key, or one that is not ours."""

    status = 401
    type = "invalid_request_error"


class Forbidden(ApiError):
    """Raised when a server without keys is reached by a name or from an origin other than loopback (S4)."""

    status = 403
    type = "invalid_request_error"


class NotFound(ApiError):
    """Raised when nothing of that name exists for this owner; a foreign id looks exactly like an unknown one."""

    status = 404
    type = "invalid_request_error"


class TooSlow(ApiError):
    """Raised when a request's bytes do not arrive within their deadline."""

    status = 408
    type = "invalid_request_error"


class Gone(ApiError):
    """Raised when several clients waited for one turn, and another of them put an end to it."""

    status = 409
    type = "invalid_request_error"

    def __init__(self) -> None:
        super().__init__("The response was cancelled before it was answered.")


class TooLarge(ApiError):
    """Raised when a body is larger than the limit, on the wire or after inflation."""

    status = 413
    type = "invalid_request_error"


class UnsupportedCoding(ApiError):
    """Raised for a content-encoding this server does not read."""

    status = 415
    type = "invalid_request_error"


class KeyReused(ApiError):
    """Raised when an idempotency key comes again with another body (reliability.md F14)."""

    status = 422
    type = "invalid_request_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="Idempotency-Key", code="idempotency_key_reused")


class UpgradeRefused(ApiError):
    """Raised when a client wants a WebSocket and there is none: the one refusal that makes Codex use HTTP without a
    word (codex.md §7)."""

    status = 426
    type = "invalid_request_error"

    def __init__(self) -> None:
        super().__init__("WebSocket mode is switched off on this server. Send the same request with POST.")


class TooMany(ApiError):
    """Raised when an owner has as much under way as one may have at a time."""

    status = 429
    type = "requests"

    def __init__(self, message: str, *, retry_after: int = 10) -> None:
        super().__init__(message, code="rate_limit_exceeded", headers={"retry-after": str(retry_after)})


class HeadTooLarge(ApiError):
    """Raised when the request line and the headers together are too many or too long (reliability.md S9)."""

    status = 431
    type = "invalid_request_error"


class Unavailable(ApiError):
    """Raised when new work cannot be taken now; `retry-after` says when to come again."""

    status = 503

    def __init__(self, message: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, code=code, headers={"retry-after": str(retry_after)})


class StoreFailed(ApiError):
    """Raised when an answer was generated but could not be stored; a retry would be paid for twice."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="server_error", headers={"x-should-retry": "false"})

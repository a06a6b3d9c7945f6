"""What can go wrong between our items and a provider's protocol.

BridgeError
├── Steered             the client said more, and the answer ends where it can    no error to anybody
├── Unsupported         the client asked for what this dialect cannot say        400
└── UpstreamError       the provider answered, and the answer is an error        its own status, mapped by the server
    └── BrokenStream    its bytes make no sense, or stop short                   502
"""


class BridgeError(Exception):
    """The root of this package's errors."""


class Steered(BridgeError):
    """Raised where the next item of an answer would begin, when it is to end before that (websocket.md §7)."""


class Unsupported(BridgeError):
    """Raised when a request holds something the chosen dialect has no words for (mapping.md §0.4)."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def cannot_take(what: str, why: str) -> Unsupported:
    """The error for a part of the conversation that this upstream has no place for."""
    return Unsupported(f"this upstream cannot take {what}: {why}", param="input", code="unsupported_value")


class UpstreamError(BridgeError):
    """Raised when the provider's answer is an error.

    `status` is the HTTP status that describes it: the provider's own where there was one, else 502. `code` is the
    machine code for clients (mapping.md §6 Errors), `retry_after` the provider's hint in seconds. `transient` says that
    nothing was generated and that the same request may succeed a moment later. `upstream` is the configured name of the
    provider, set by whoever asked it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        code: str = "server_error",
        param: str | None = None,
        retry_after: float | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.transient = transient
        self.upstream = ""


class BrokenStream(UpstreamError):
    """Raised when the provider's bytes make no sense, or stop before the answer does (events.md §4, mapping.md §6)."""

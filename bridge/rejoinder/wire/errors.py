"""What can be wrong with bytes that claim to be the Responses API.

WireError
├── BadRequest    a value the contract does not allow                          400
└── BadFrame      a server-sent event stream that cannot be read as one        502
"""


class WireError(Exception):
    """The root of this package's errors. The message is meant for the person who sent the bytes."""


class BadRequest(WireError):
    """Raised when a request says something the contract does not allow.

    `param` is the path of the offending value, like `input[3].content`; `code` is one of http.md §6.2 or null.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class BadFrame(WireError):
    """Raised when a stream holds a line longer than the limit, or text that is not UTF-8."""

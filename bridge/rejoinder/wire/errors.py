"""What can be wrong with bytes that claim to be the Responses API.

WireError
├── BadRequest    a value the contract does not allow                          400
└── BadFrame      a server-sent event stream that cannot be read as one        502
"""

import re

import msgspec


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
    """Raised when a stream holds a line longer than the limit."""


_SHOWN = 200
"""Characters of a reason, which may repeat what the client sent (reliability.md S10)."""

_PATH = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)


def bad_request(error: msgspec.MsgspecError, *, at: str = "") -> BadRequest:
    """The 400 for a decoding error: msgspec's own words, with its path hung under `at` (`input[3]`)."""
    match = _PATH.match(str(error))
    assert match is not None
    path = (at + (match["path"] or "")).lstrip(".")
    what = match["what"] if len(match["what"]) <= _SHOWN else f"{match['what'][:_SHOWN]}…"
    if missing := _MISSING.match(what):
        name = f"{path}.{missing[1]}".lstrip(".")
        return BadRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if unknown := _UNKNOWN.match(what):
        name = f"{path}.{unknown[1]}".lstrip(".")
        return BadRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if isinstance(error, msgspec.ValidationError):
        where = f" for '{path}'" if path else ""
        return BadRequest(f"Invalid value{where}: {what}.", param=path or None, code=_code(what))
    return BadRequest(f"The request is not valid JSON: {what}.", param=path or None)


def _code(what: str) -> str:
    """One of http.md §6.2, from msgspec's words: only a wrong type says what it got instead."""
    if ", got `" in what:
        return "invalid_type"
    return "string_above_max_length" if what.startswith("Expected `str` of length <=") else "invalid_value"


_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$")
_MISSING = re.compile(r"^Object missing required field `(.*)`$")

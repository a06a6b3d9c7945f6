"""What ends a rule before its end, and what ends a whole run.

ConformanceError
├── Broken                the server breaks the rule
│   ├── NoAnswer          it did not answer, or not to the end
│   └── UpgradeRefused    it does not speak WebSocket where it was asked to
├── NotApplicable         the rule does not apply to this server, or cannot be looked at
├── UnknownRule           somebody asked for a rule that is none
├── Unreachable           there is nobody to judge: a wrong address, key or model
└── UnusableReport        a file is no report, or cannot be one
"""


class ConformanceError(Exception):
    """Every way in which judging ends early."""


class Broken(ConformanceError):
    """Raised when the server does something else than the rule says.

    `at` is the place that shows it: what the server sent, or a part of that. A report points there.
    """

    def __init__(self, expected: str, got: str, *, at: bytes = b"") -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.at = at


class NoAnswer(Broken):
    """Raised when the server says nothing in time, breaks off, or cannot be connected to."""


class UpgradeRefused(Broken):
    """Raised when a request for a WebSocket is answered with something else; `status` says with what."""

    def __init__(self, status: int) -> None:
        super().__init__("an upgrade to WebSocket", f"status {status}")
        self.status = status


class NotApplicable(ConformanceError):
    """Raised when there is nothing to judge; the message is the reason."""


class UnknownRule(ConformanceError):
    """Raised when a name is neither a rule's nor a chapter's, and matches none of them."""


class Unreachable(ConformanceError):
    """Raised when no rule can be looked at; the message says what to do about it."""


class UnusableReport(ConformanceError):
    """Raised when a file cannot be read as a report, or a report cannot be written as that file."""

"""What ends a case before its end.

ConformanceError
├── Broken    the server breaks the rule
└── Skipped   the rule does not apply to this server, or cannot be looked at
"""


class ConformanceError(Exception):
    """Every way in which a case ends early."""


class Broken(ConformanceError):
    """Raised when the server does something else than the rule says."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")


class Skipped(ConformanceError):
    """Raised when there is nothing to judge; the message is the reason."""

"""What is told of a whole run, as the file that other programs read (README.md, Formats)."""

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from rejoinder.conformance.errors import UnusableReport
from rejoinder.conformance.verdict import Outcome, Verdict, tally

VERSION = 1
"""Of the format. Fields may be added to it; anything else makes it another version."""


class Report(msgspec.Struct, frozen=True):
    """One server, and the verdict on every rule that was looked at."""

    name: str
    url: str
    model: str
    started_at: datetime
    seconds: float
    suite: str
    rules: list[Verdict]
    counts: dict[Outcome, int]
    format: Literal["rejoinder-conformance"] = "rejoinder-conformance"
    version: int = VERSION

    @classmethod
    def of(
        cls,
        verdicts: Sequence[Verdict],
        *,
        url: str,
        model: str,
        name: str | None,
        started_at: datetime,
        seconds: float,
    ) -> "Report":
        """A report on these verdicts. What a URL says of users and passwords is not told."""
        split = urlsplit(url)
        place = split.netloc.rpartition("@")[2]
        return cls(
            name=name or place or url,
            url=urlunsplit(split._replace(netloc=place)),
            model=model,
            started_at=started_at,
            seconds=round(seconds, 1),
            suite=version("rejoinder"),
            rules=list(verdicts),
            counts=tally(verdicts),
        )

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class _Head(msgspec.Struct):
    format: Literal["rejoinder-conformance"]
    version: int


def decode(data: bytes) -> Report:
    """A report that `encode` made. Raises UnusableReport."""
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.version != VERSION:
            raise UnusableReport(
                f"it has version {head.version} of the format, and this is a program for version {VERSION}; "
                "make the report again, or compare with the program that made it"
            )
        return msgspec.json.decode(data, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnusableReport(f"it is not a report of this suite, which `--report NAME.json` makes ({error})") from None

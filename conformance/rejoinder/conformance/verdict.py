"""The verdict on one case, and how it is told."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from rejoinder.conformance.case import Case
from rejoinder.conformance.errors import Broken, Skipped
from rejoinder.conformance.server import Server

Outcome = Literal["pass", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`said` is what was expected and what came, or why the case was skipped; `seconds` is how long it took."""

    case: Case
    outcome: Outcome
    said: str
    seconds: float

    @property
    def line(self) -> str:
        if self.outcome == "pass":
            return f"pass  {self.case.name}"
        if self.outcome == "skip":
            return f"skip  {self.case.name}: {self.said}"
        return f"FAIL  {self.case.name}: {self.said} — {self.case.rule} [{self.case.source}]"


async def judge(case: Case, server: Server) -> Verdict:
    """Run one case against a server."""
    started = time.monotonic()
    outcome: Outcome = "pass"
    said = ""
    try:
        await case.check(server)
    except Broken as broken:
        outcome, said = "fail", str(broken)
    except Skipped as skipped:
        outcome, said = "skip", str(skipped)
    return Verdict(case, outcome, " ".join(said.split()), time.monotonic() - started)


def summary(verdicts: Iterable[Verdict]) -> str:
    outcomes = [verdict.outcome for verdict in verdicts]
    return f"{outcomes.count('pass')} passed, {outcomes.count('fail')} failed, {outcomes.count('skip')} skipped"


def document(verdicts: Iterable[Verdict]) -> bytes:
    """The verdicts as a list in JSON, one object for each."""
    return msgspec.json.encode(
        [
            {
                "case": verdict.case.name,
                "theme": verdict.case.theme,
                "outcome": verdict.outcome,
                "said": verdict.said,
                "rule": verdict.case.rule,
                "source": verdict.case.source,
                "seconds": round(verdict.seconds, 3),
            }
            for verdict in verdicts
        ]
    )

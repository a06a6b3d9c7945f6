"""Reports on nobody."""

from datetime import UTC, datetime

from rejoinder.conformance.report import Report
from rejoinder.conformance.transcript import Passage
from rejoinder.conformance.verdict import Outcome, Verdict

STARTED = datetime(2026, 11, 20, 10, tzinfo=UTC)

REASONS: dict[Outcome, str] = {
    "kept": "",
    "broken": "expected a greeting, got <b>nothing</b>",
    "not_applicable": "there are no <i>greetings</i>",
    "not_judged": "the suite stumbled",
}


def verdict(outcome: Outcome, name: str | None = None, chapter: str = "manners") -> Verdict:
    """A verdict, with markup in everything that a server may have said."""
    shown = outcome in ("broken", "not_judged")
    return Verdict(
        id=f"{chapter}.{name or outcome}",
        chapter=chapter,
        title=f"Good {chapter}",
        sentence=f"One is {outcome}.",
        source="grandmother",
        needs=["key"] if outcome == "broken" else [],
        outcome=outcome,
        reason=REASONS[outcome],
        seconds=0.1,
        transcript=[Passage("GET /a", '200\n<i>"a" & b</i>', '"a"' if outcome == "broken" else "")] if shown else [],
    )


def report(*verdicts: Verdict, name: str = "a server") -> Report:
    return Report.of(
        verdicts, url="http://127.0.0.1:8080/v1", model="demo", name=name, started_at=STARTED, seconds=1.23
    )

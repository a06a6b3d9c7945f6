"""The verdict on one rule."""

import time
import traceback
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from rejoinder.conformance.errors import Broken, NotApplicable
from rejoinder.conformance.need import check_needs
from rejoinder.conformance.rule import Rule
from rejoinder.conformance.server import Server
from rejoinder.conformance.transcript import Passage

Outcome = Literal["kept", "broken", "not_applicable", "not_judged"]
"""`not_judged` is a fault of the suite: a rule ended in a way nobody foresaw."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Verdict(msgspec.Struct, frozen=True):
    """One rule, and what became of it. This is also its row in a report (README.md, Formats).

    `reason` is what was expected and what came, or why the rule does not apply. `transcript` ends with what shows it;
    there is one only if the rule is broken or not judged.
    """

    id: str
    chapter: str
    title: str
    sentence: str
    source: str
    needs: list[str]
    outcome: Outcome
    reason: str = ""
    seconds: float = 0
    transcript: list[Passage] = []


async def judge(rule: Rule, server: Server) -> Verdict:
    """Look at one rule of a server."""
    witness = server.apart()
    started = time.monotonic()
    outcome: Outcome = "kept"
    reason = ""
    transcript: list[Passage] = []
    try:
        await check_needs(rule.needs, server.apart())
        await rule.check(witness)
    except NotApplicable as lacking:
        outcome, reason = "not_applicable", str(lacking)
    except Broken as broken:
        outcome, reason, transcript = "broken", str(broken), witness.excerpt(broken.at)
    except Exception as error:  # the other rules are judged all the same
        outcome, reason, transcript = "not_judged", _stumbled(error), witness.excerpt()
    return Verdict(
        id=rule.id,
        chapter=rule.chapter.name,
        title=rule.chapter.title,
        sentence=rule.sentence,
        source=rule.source,
        needs=[need.name for need in rule.needs],
        outcome=outcome,
        reason=server.discreet(" ".join(reason.split())),
        seconds=round(time.monotonic() - started, 3),
        transcript=transcript,
    )


def _stumbled(error: Exception) -> str:
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"the suite stumbled over {type(error).__name__} ({error}) at {at.filename}:{at.lineno}; please report it"


def tally(verdicts: Iterable[Verdict]) -> dict[Outcome, int]:
    """How many verdicts there are of each outcome."""
    outcomes = [verdict.outcome for verdict in verdicts]
    return {outcome: outcomes.count(outcome) for outcome in OUTCOMES}


def chapters(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """The verdicts by the titles of their chapters, in their order."""
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.title, []).append(verdict)
    return found

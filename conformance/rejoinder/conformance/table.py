"""What the command prints: a line while it runs, and a table of all rules at the end."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rejoinder.conformance.report import Report
from rejoinder.conformance.rule import Rule
from rejoinder.conformance.transcript import Passage
from rejoinder.conformance.verdict import OUTCOMES, Outcome, Verdict, chapters, tally

WORDS: dict[Outcome, str] = {
    "kept": "kept",
    "broken": "BROKEN",
    "not_applicable": "n/a",
    "not_judged": "NOT JUDGED",
}
SPOKEN: dict[Outcome, str] = {
    "kept": "kept",
    "broken": "broken",
    "not_applicable": "not applicable",
    "not_judged": "not judged",
}

_MARGIN = 14
_LINES = 6
"""Of each passage of a transcript; a report has more."""


def line(verdict: Verdict) -> str:
    """One rule in one line, as it is told while the others are still looked at."""
    reason = f": {verdict.reason}" if verdict.reason else ""
    return f"{WORDS[verdict.outcome]:<{_MARGIN}}{verdict.id}{reason}"


def table(report: Report, width: int) -> str:
    """All rules of a report, chapter by chapter."""
    lines = [f"{report.name}, model {report.model}"]
    for title, verdicts in chapters(report.rules).items():
        lines += ["", f"{title}: {spoken(tally(verdicts))}"]
        for verdict in verdicts:
            lines += _rows(verdict, width)
    return "\n".join([*lines, "", f"{spoken(report.counts)}, of {len(report.rules)} rules in {report.seconds} s"])


def spoken(counts: dict[Outcome, int]) -> str:
    """How many of each, leaving out what there is none of."""
    return ", ".join(f"{counts[outcome]} {SPOKEN[outcome]}" for outcome in OUTCOMES if counts[outcome]) or "no rules"


def listing(rules: Sequence[Rule], width: int) -> str:
    """The rules themselves."""
    lines: list[str] = []
    for title in dict.fromkeys(rule.chapter.title for rule in rules):
        of_chapter = [rule for rule in rules if rule.chapter.title == title]
        lines += [f"{title} ({of_chapter[0].chapter.name})"]
        for rule in of_chapter:
            needs = f" Needs: {', '.join(need.name for need in rule.needs)}." if rule.needs else ""
            lines += [f"  {rule.id}", *_wrapped(f"{rule.sentence} [{rule.source}]{needs}", width, 6)]
        lines += [""]
    return "\n".join([*lines, f"{len(rules)} rules"])


def _rows(verdict: Verdict, width: int) -> Iterator[str]:
    yield f"  {WORDS[verdict.outcome]:<{_MARGIN - 2}}{verdict.id}"
    if verdict.outcome == "kept":
        return
    if verdict.outcome == "not_applicable":
        yield from _wrapped(verdict.reason, width, _MARGIN)
        return
    yield from _wrapped(verdict.sentence, width, _MARGIN)
    yield from _wrapped(verdict.reason, width, _MARGIN)
    yield from _wrapped(f"[{verdict.source}]", width, _MARGIN)
    for passage in verdict.transcript[-1:]:
        yield from _shown(passage, width)


def _shown(passage: Passage, width: int) -> Iterator[str]:
    margin = " " * _MARGIN
    for sign, text in ((">", passage.sent), ("<", _around(passage))):
        wide = max(20, width - _MARGIN - 2)
        lines = [line[at : at + wide] for line in text.splitlines() for at in range(0, max(len(line), 1), wide)]
        yield from (f"{margin}{sign} {line}" for line in lines[:_LINES])
        if lines[_LINES:]:
            yield f"{margin}{sign} … {len(lines) - _LINES} more lines"


def _around(passage: Passage) -> str:
    """What was received, from the place on that shows what is wrong."""
    head, _, body = passage.received.partition("\n")
    return f"{head}\n…\n{body[body.find(passage.mark) :]}" if passage.mark else passage.received


def _wrapped(text: str, width: int, margin: int) -> Iterable[str]:
    return textwrap.wrap(text, max(width, margin + 20), initial_indent=" " * margin, subsequent_indent=" " * margin)

"""Several reports side by side: rules by servers."""

from collections.abc import Iterator, Mapping, Sequence

from rejoinder.conformance.markup import Markup, choice, document, tag
from rejoinder.conformance.page import details, facts, footer
from rejoinder.conformance.report import Report
from rejoinder.conformance.table import SPOKEN
from rejoinder.conformance.verdict import OUTCOMES, Verdict, chapters

_SIGNS = {"kept": "✓", "broken": "✗", "not_applicable": "–", "not_judged": "?"}
_NOT_RUN = "not run"

Row = Sequence[Verdict | None]
"""The verdicts on one rule, server by server; None where it was not looked at."""


def scorecard(reports: Sequence[Report]) -> bytes:
    """The whole page."""
    rules = {verdict.id: verdict for report in reports for verdict in report.rules}
    found = [{verdict.id: verdict for verdict in report.rules} for report in reports]
    rows = {id: [by_id.get(id) for by_id in found] for id in rules}
    return document(
        "Conformance, side by side",
        tag(
            "header",
            tag("h1", "Conformance, side by side"),
            tag("p", f"{len(reports)} servers and {len(rules)} rules of the Responses API.", class_="lead"),
            _sums(reports),
        ),
        tag(
            "main",
            choice(
                "Show",
                "show",
                [("all", "all rules"), ("differ", "where they differ"), ("broken", "what somebody breaks")],
            ),
            tag(
                "div",
                tag(
                    "table",
                    tag("caption", "Rules by servers. What is broken or does not apply leads to the reason."),
                    tag("thead", tag("tr", tag("th", "rule", scope="col"), [_column(report) for report in reports])),
                    _bodies(list(rules.values()), rows),
                ),
                class_="scroll",
                tabindex="0",
                role="region",
                aria_label="Rules by servers",
            ),
            [_reasons(place, report) for place, report in enumerate(reports)],
            id="rules",
            class_="scorecard",
        ),
        footer(),
    )


def _sums(reports: Sequence[Report]) -> Markup:
    return tag(
        "table",
        tag("caption", "Rules by what became of them"),
        tag(
            "thead",
            tag("tr", tag("th", "server", scope="col"), [tag("th", SPOKEN[o], scope="col") for o in OUTCOMES]),
        ),
        tag(
            "tbody",
            [
                tag(
                    "tr",
                    tag("th", report.name, scope="row"),
                    [
                        tag("td", str(report.counts[outcome]), class_=outcome if report.counts[outcome] else "none")
                        for outcome in OUTCOMES
                    ],
                )
                for report in reports
            ],
        ),
        class_="sums",
    )


def _column(report: Report) -> Markup:
    return tag("th", report.name, tag("small", report.model), scope="col")


def _bodies(rules: Sequence[Verdict], rows: Mapping[str, Row]) -> Iterator[Markup]:
    for title, of_chapter in chapters(rules).items():
        columns = zip(*(rows[rule.id] for rule in of_chapter), strict=True)
        yield tag(
            "tbody",
            tag("tr", tag("th", title, scope="rowgroup"), [tag("td", _share(row)) for row in columns], class_="title"),
            [_row(rule, rows[rule.id]) for rule in of_chapter],
        )


def _share(row: Row) -> str:
    outcomes = [verdict.outcome for verdict in row if verdict]
    judged = [outcome for outcome in outcomes if outcome != "not_applicable"]
    if judged:
        return f"{judged.count('kept')} of {len(judged)} kept"
    return SPOKEN["not_applicable"] if outcomes else _NOT_RUN


def _row(rule: Verdict, row: Row) -> Markup:
    outcomes = {verdict.outcome if verdict else None for verdict in row}
    classes = ["rule", *(["differ"] if len(outcomes) > 1 else []), *(["broken"] if "broken" in outcomes else [])]
    return tag(
        "tr",
        tag("th", rule.sentence, tag("code", rule.id), scope="row"),
        [_cell(place, verdict) for place, verdict in enumerate(row)],
        class_=" ".join(classes),
    )


def _cell(place: int, verdict: Verdict | None) -> Markup:
    if verdict is None:
        return tag("td", _NOT_RUN, class_="none")
    said = f"{_SIGNS[verdict.outcome]} {SPOKEN[verdict.outcome]}"
    if verdict.outcome == "kept":
        return tag("td", said, class_="kept")
    return tag("td", tag("a", said, href=f"#{_anchor(place, verdict)}"), class_=verdict.outcome)


def _reasons(place: int, report: Report) -> Markup:
    told = [verdict for verdict in report.rules if verdict.outcome != "kept"]
    return tag(
        "section",
        tag("h2", report.name),
        facts(report),
        tag("ul", [tag("li", details(one), class_=one.outcome, id=_anchor(place, one)) for one in told])
        if told
        else tag("p", "It keeps every rule that was looked at."),
        class_="chapter",
    )


def _anchor(place: int, verdict: Verdict) -> str:
    return f"server-{place + 1}-{verdict.id}"

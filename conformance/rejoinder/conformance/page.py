"""A report as a page to read."""

from collections.abc import Iterator, Sequence

from rejoinder.conformance.markup import Content, Markup, choice, document, tag
from rejoinder.conformance.report import Report
from rejoinder.conformance.table import SPOKEN, spoken
from rejoinder.conformance.transcript import Passage
from rejoinder.conformance.verdict import OUTCOMES, Outcome, Verdict, chapters, tally

_CHOICES: Sequence[Outcome] = ["broken", "not_judged", "not_applicable", "kept"]


def page(report: Report) -> bytes:
    """The whole page."""
    title = f"Conformance of {report.name}"
    return document(
        title,
        tag(
            "header",
            tag("h1", title),
            tag("p", "How ", tag("b", report.name), " keeps to the rules of the Responses API.", class_="lead"),
            facts(report),
            _counts(report),
        ),
        tag(
            "main",
            choice(
                "Show",
                "show",
                [("all", "all rules"), *((outcome, SPOKEN[outcome]) for outcome in _CHOICES if report.counts[outcome])],
            ),
            tag("nav", tag("ul", _contents(report)), aria_label="Chapters"),
            [
                _chapter(place, title, verdicts)
                for place, (title, verdicts) in enumerate(chapters(report.rules).items(), 1)
            ],
            id="rules",
        ),
        footer(),
    )


def facts(report: Report) -> Markup:
    """What was judged, when and by what."""
    rows = {
        "server": report.url,
        "model": report.model,
        "judged": f"{report.started_at:%Y-%m-%d %H:%M} UTC, in {report.seconds:g} s",
        "suite": f"rejoinder {report.suite}, {len(report.rules)} rules",
    }
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows.items()], class_="facts")


def footer() -> Markup:
    return tag(
        "footer",
        tag(
            "p",
            "A rule is kept, or it is broken and the transcript shows how, or it does not apply because the server "
            "says that it lacks what the rule speaks of. A rule that was not judged is a fault of the suite. "
            "Long transcripts are cut; […] says where.",
        ),
    )


def details(verdict: Verdict) -> Markup:
    """A rule, to be opened."""
    return tag(
        "details",
        tag(
            "summary",
            tag("span", SPOKEN[verdict.outcome], class_=f"badge {verdict.outcome}"),
            tag("span", verdict.sentence, class_="sentence"),
            [tag("span", verdict.reason, class_="reason")] if verdict.reason else [],
        ),
        tag(
            "div",
            tag(
                "dl",
                tag("div", tag("dt", "rule"), tag("dd", tag("code", verdict.id))),
                tag("div", tag("dt", "source"), tag("dd", verdict.source)),
                [tag("div", tag("dt", "needs"), tag("dd", ", ".join(verdict.needs)))] if verdict.needs else [],
                class_="facts",
            ),
            [_passage(passage) for passage in verdict.transcript],
            class_="inside",
        ),
    )


def _counts(report: Report) -> Markup:
    found = [outcome for outcome in OUTCOMES if report.counts[outcome]]
    return tag(
        "div",
        tag(
            "dl",
            [
                tag("div", tag("dt", SPOKEN[outcome]), tag("dd", str(report.counts[outcome])), class_=outcome)
                for outcome in OUTCOMES
                if report.counts[outcome] or outcome != "not_judged"
            ],
        ),
        tag(
            "div",
            [tag("span", class_=outcome, style=f"flex-grow: {report.counts[outcome]}") for outcome in found],
            class_="bar",
            aria_hidden="true",
        ),
        class_="counts",
    )


def _contents(report: Report) -> Iterator[Markup]:
    for place, (title, verdicts) in enumerate(chapters(report.rules).items(), 1):
        broken = tally(verdicts)["broken"]
        yield tag(
            "li",
            tag("a", title, href=f"#chapter-{place}"),
            [" ", tag("span", f"{broken} broken", class_="badge broken")] if broken else [],
        )


def _chapter(place: int, title: str, verdicts: Sequence[Verdict]) -> Markup:
    return tag(
        "section",
        tag("h2", title, id=f"chapter-{place}"),
        tag("p", spoken(tally(verdicts)), class_="sum"),
        tag("ul", [tag("li", details(verdict), class_=verdict.outcome, id=verdict.id) for verdict in verdicts]),
        class_="chapter",
        aria_labelledby=f"chapter-{place}",
    )


def _passage(passage: Passage) -> Markup:
    return tag(
        "div",
        _said("sent", passage.sent),
        _said("received", *_highlighted(passage)),
        class_="passage",
    )


def _said(by: str, *text: Content) -> Markup:
    # A scrollable region has to be reachable without a mouse.
    return tag("div", tag("b", by), tag("pre", *text, tabindex="0", role="region", aria_label=by), class_=by)


def _highlighted(passage: Passage) -> list[Content]:
    if not passage.mark:
        return [passage.received]
    before, mark, after = passage.received.partition(passage.mark)
    return [before, tag("mark", mark), after]

"""A report as the XML that CI services read: a suite for each chapter, a test for each rule."""

import xml.etree.ElementTree as ET

from rejoinder.conformance.report import Report
from rejoinder.conformance.verdict import Verdict, chapters, tally

_MARKS = {"broken": "failure", "not_judged": "error", "not_applicable": "skipped"}


def junit(report: Report) -> bytes:
    """The whole document, in UTF-8."""
    root = ET.Element("testsuites", {"name": f"conformance of {report.name}", **_totals(report.rules)})
    for title, verdicts in chapters(report.rules).items():
        suite = ET.SubElement(
            root,
            "testsuite",
            {
                "name": title,
                **_totals(verdicts),
                "timestamp": report.started_at.strftime("%Y-%m-%dT%H:%M:%S"),
                "hostname": report.name,
            },
        )
        properties = ET.SubElement(suite, "properties")
        for name in ("url", "model", "suite"):
            ET.SubElement(properties, "property", {"name": name, "value": getattr(report, name)})
        for verdict in verdicts:
            _case(suite, verdict)
    ET.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ET.tostring(root, encoding='unicode')}\n".encode()


def _totals(verdicts: list[Verdict]) -> dict[str, str]:
    counts = tally(verdicts)
    return {
        "tests": str(len(verdicts)),
        "failures": str(counts["broken"]),
        "errors": str(counts["not_judged"]),
        "skipped": str(counts["not_applicable"]),
        "time": f"{sum(verdict.seconds for verdict in verdicts):.3f}",
    }


def _case(suite: ET.Element, verdict: Verdict) -> None:
    chapter, _, name = verdict.id.partition(".")
    case = ET.SubElement(
        suite, "testcase", {"classname": f"conformance.{chapter}", "name": name, "time": f"{verdict.seconds:.3f}"}
    )
    if (mark := _MARKS.get(verdict.outcome)) is None:
        return
    element = ET.SubElement(case, mark, {"message": verdict.reason})
    if mark != "skipped":
        element.set("type", verdict.outcome)
        element.text = explained(verdict)


def explained(verdict: Verdict) -> str:
    """What is wrong, the rule, and the transcript that shows it, as plain text."""
    passages = [f"> {passage.sent}\n\n< {passage.received}" for passage in verdict.transcript]
    return "\n\n".join([verdict.reason, verdict.sentence, f"Source: {verdict.source}", *passages])

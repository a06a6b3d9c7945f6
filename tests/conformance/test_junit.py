import xml.etree.ElementTree as ET

from rejoinder.conformance.junit import explained, junit
from rejoinder.conformance.verdict import OUTCOMES
from tests.conformance.reports import report, verdict

EXPLAINED = """\
expected a greeting, got <b>nothing</b>

One is broken.

Source: grandmother

> GET /a

< 200
<i>"a" & b</i>"""


def test_a_chapter_is_a_suite_and_a_rule_a_test() -> None:
    told = junit(report(*(verdict(outcome) for outcome in OUTCOMES), verdict("kept", chapter="looks")))
    assert told.startswith(b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites ")
    root = ET.fromstring(told)
    totals = {"failures": "1", "errors": "1", "skipped": "1"}
    assert root.attrib == {"name": "conformance of a server", "tests": "5", **totals, "time": "0.500"}
    first, second = root
    assert first.attrib == {
        "name": "Good manners",
        "tests": "4",
        **totals,
        "time": "0.400",
        "timestamp": "2026-11-20T10:00:00",
        "hostname": "a server",
    }
    assert [one.get("name") for one in second.iter("testcase")] == ["kept"]
    assert {one.get("name"): one.get("value") for one in second.iter("property")} == {
        "url": "http://127.0.0.1:8080/v1",
        "model": "demo",
        "suite": report().suite,
    }


def test_what_is_not_kept_says_why() -> None:
    [suite] = ET.fromstring(junit(report(*(verdict(outcome) for outcome in OUTCOMES))))
    kept, broken, lacking, stumbled = suite.iter("testcase")
    assert kept.attrib == {"classname": "conformance.manners", "name": "kept", "time": "0.100"}
    assert list(kept) == []
    [failure] = broken
    assert (failure.tag, failure.get("type")) == ("failure", "broken")
    assert failure.get("message") == "expected a greeting, got <b>nothing</b>"
    assert failure.text == EXPLAINED == explained(verdict("broken"))
    assert [(one.tag, one.attrib, one.text) for one in lacking] == [
        ("skipped", {"message": "there are no <i>greetings</i>"}, None)
    ]
    assert [(one.tag, one.get("type")) for one in stumbled] == [("error", "not_judged")]

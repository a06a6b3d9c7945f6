import json

import pytest

from rejoinder.conformance.errors import UnusableReport
from rejoinder.conformance.report import Report, decode
from tests.conformance.reports import STARTED, report, verdict


def test_a_report_can_be_read_again() -> None:
    told = report(verdict("broken"), verdict("kept"))
    assert decode(told.encode()) == told


def test_it_says_what_it_is_in_a_way_other_programs_read() -> None:
    fields = json.loads(report(verdict("broken"), verdict("not_applicable")).encode())
    rows = fields.pop("rules")
    assert fields == {
        "format": "rejoinder-conformance",
        "version": 1,
        "name": "a server",
        "url": "http://127.0.0.1:8080/v1",
        "model": "demo",
        "started_at": "2026-11-20T10:00:00Z",
        "seconds": 1.2,
        "suite": fields["suite"],
        "counts": {"kept": 0, "broken": 1, "not_applicable": 1, "not_judged": 0},
    }
    assert rows[0] == {
        "id": "manners.broken",
        "chapter": "manners",
        "title": "Good manners",
        "sentence": "One is broken.",
        "source": "grandmother",
        "needs": ["key"],
        "outcome": "broken",
        "reason": "expected a greeting, got <b>nothing</b>",
        "seconds": 0.1,
        "transcript": [{"sent": "GET /a", "received": '200\n<i>"a" & b</i>', "mark": '"a"'}],
    }


def test_a_server_is_called_by_its_place_and_its_password_is_not_told() -> None:
    told = Report.of([], url="https://me:secret@there:8080/v1", model="demo", name=None, started_at=STARTED, seconds=1)
    assert (told.name, told.url) == ("there:8080", "https://there:8080/v1")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{}", b'{"format": "other", "version": 1}'])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(UnusableReport, match="it is not a report of this suite"):
        decode(data)


def test_a_report_of_another_version_says_what_to_do() -> None:
    other = report().encode().replace(b'"version": 1', b'"version": 2')
    with pytest.raises(UnusableReport, match=r"version 2 of the format, .* for version 1; make the report again"):
        decode(other)


def test_a_report_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(UnusableReport, match="missing required field"):
        decode(b'{"format": "rejoinder-conformance", "version": 1}')

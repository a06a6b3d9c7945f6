from rejoinder.conformance.page import page
from rejoinder.conformance.verdict import OUTCOMES
from tests.conformance.pages import check_links, parsed
from tests.conformance.reports import report, verdict


def test_a_page_tells_every_rule_by_chapter() -> None:
    root = parsed(page(report(*(verdict(outcome) for outcome in OUTCOMES), verdict("kept", chapter="looks"))))
    check_links(root)
    assert [one.text for one in root.all("h2")] == ["Good manners", "Good looks"]
    assert [one.text for one in root.all("summary")] == [
        "keptOne is kept.",
        "brokenOne is broken.expected a greeting, got <b>nothing</b>",
        "not applicableOne is not_applicable.there are no <i>greetings</i>",
        "not judgedOne is not_judged.the suite stumbled",
        "keptOne is kept.",
    ]
    manners, looks = root.all("section")
    assert manners.all("p")[0].text == "1 kept, 1 broken, 1 not applicable, 1 not judged"
    assert [one.classes for one in looks.all("li")] == [{"kept"}]


def test_a_broken_rule_has_its_source_and_its_transcript() -> None:
    [details] = parsed(page(report(verdict("broken")))).all("details")
    assert [one.text for one in details.all("dd")] == ["manners.broken", "grandmother", "key"]
    assert [one.text for one in details.all("pre")] == ["GET /a", '200\n<i>"a" & b</i>']
    assert [one.text for one in details.all("mark")] == ['"a"']
    assert [one.attributes["tabindex"] for one in details.all("pre")] == ["0", "0"]


def test_nothing_a_server_said_is_markup() -> None:
    told = page(report(verdict("broken"), verdict("not_applicable"), name="<script>")).decode()
    assert "<script" not in told
    assert "<i>" not in told
    assert "<b>nothing" not in told


def test_the_head_has_the_counts_and_the_facts() -> None:
    root = parsed(page(report(verdict("kept"), verdict("broken", "a"), verdict("broken", "b"))))
    assert root.all("h1")[0].text == root.all("title")[0].text == "Conformance of a server"
    facts, counts = root.all("header")[0].all("dl")
    assert [one.text for one in facts.all("dd")][:3] == [
        "http://127.0.0.1:8080/v1",
        "demo",
        "2026-11-20 10:00 UTC, in 1.2 s",
    ]
    assert [one.text for one in counts.all("div")] == ["kept1", "broken2", "not applicable0"]
    assert [one.text for one in root.all("nav")[0].all("li")] == ["Good manners 2 broken"]


def test_only_what_is_there_can_be_chosen() -> None:
    root = parsed(page(report(verdict("kept"), verdict("not_judged"))))
    assert [one.attributes["id"] for one in root.all("input")] == ["show-all", "show-not_judged", "show-kept"]


def test_a_page_of_nothing_is_a_page() -> None:
    assert parsed(page(report())).all("summary") == []

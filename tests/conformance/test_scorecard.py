from rejoinder.conformance.scorecard import scorecard
from tests.conformance.pages import Element, check_links, parsed
from tests.conformance.reports import report, verdict

ONE = report(verdict("kept", "a"), verdict("broken", "b"), verdict("kept", "c", "looks"), name="one")
OTHER = report(verdict("kept", "a"), verdict("not_applicable", "b"), verdict("not_judged", "d"), name="<other>")


def rows(root: Element) -> list[list[str]]:
    table = root.all("main")[0].all("table")[0]
    return [[cell.text for cell in row.inside if isinstance(cell, Element)] for row in table.all("tr")]


def test_rules_are_rows_and_servers_columns() -> None:
    root = parsed(scorecard([ONE, OTHER]))
    check_links(root)
    assert rows(root) == [
        ["rule", "onedemo", "<other>demo"],
        ["Good manners", "1 of 2 kept", "1 of 2 kept"],
        ["One is kept.manners.a", "✓ kept", "✓ kept"],
        ["One is not_applicable.manners.b", "✗ broken", "– not applicable"],
        ["One is not_judged.manners.d", "not run", "? not judged"],
        ["Good looks", "1 of 1 kept", "not run"],
        ["One is kept.looks.c", "✓ kept", "not run"],
    ]


def test_rows_say_for_the_filter_whether_servers_differ() -> None:
    marked = [one.classes for one in parsed(scorecard([ONE, OTHER])).all("main")[0].all("tr")]
    assert marked == [
        set(),
        {"title"},
        {"rule"},
        {"rule", "differ", "broken"},
        {"rule", "differ"},
        {"title"},
        {"rule", "differ"},
    ]


def test_what_is_not_kept_is_told_below() -> None:
    one, other = parsed(scorecard([ONE, OTHER])).all("section")
    assert [item.attributes["id"] for item in one.all("li")] == ["server-1-manners.b"]
    assert [item.attributes["id"] for item in other.all("li")] == ["server-2-manners.b", "server-2-manners.d"]
    assert one.all("mark")[0].text == '"a"'


def test_the_head_adds_up() -> None:
    sums = parsed(scorecard([ONE, OTHER])).all("header")[0].all("table")[0]
    assert [one.text for one in sums.all("td")] == ["2", "1", "0", "0", "1", "0", "1", "1"]


def test_a_chapter_that_does_not_apply_says_so() -> None:
    told = rows(parsed(scorecard([report(verdict("not_applicable"))])))
    assert told[1] == ["Good manners", "not applicable"]


def test_a_server_without_a_fault_is_praised() -> None:
    [section] = parsed(scorecard([report(verdict("kept"))])).all("section")
    assert section.all("p")[0].text == "It keeps every rule that was looked at."


def test_nothing_a_server_said_is_markup() -> None:
    told = scorecard([ONE, OTHER]).decode()
    assert "<other>" not in told
    assert "<b>nothing" not in told

from msgspec import structs

from rejoinder.conformance.suite import RULES
from rejoinder.conformance.table import line, listing, spoken, table
from rejoinder.conformance.transcript import Passage
from rejoinder.conformance.verdict import OUTCOMES, tally
from tests.conformance.reports import report, verdict


def test_a_rule_is_one_line_while_others_are_looked_at() -> None:
    assert [line(verdict(outcome)) for outcome in OUTCOMES] == [
        "kept          manners.kept",
        "BROKEN        manners.broken: expected a greeting, got <b>nothing</b>",
        "n/a           manners.not_applicable: there are no <i>greetings</i>",
        "NOT JUDGED    manners.not_judged: the suite stumbled",
    ]


def test_the_table_tells_every_rule_by_chapter() -> None:
    told = report(*(verdict(outcome) for outcome in OUTCOMES), verdict("kept", chapter="looks"))
    assert (
        table(told, 100)
        == """\
a server, model demo

Good manners: 1 kept, 1 broken, 1 not applicable, 1 not judged
  kept        manners.kept
  BROKEN      manners.broken
              One is broken.
              expected a greeting, got <b>nothing</b>
              [grandmother]
              > GET /a
              < 200
              < …
              < "a" & b</i>
  n/a         manners.not_applicable
              there are no <i>greetings</i>
  NOT JUDGED  manners.not_judged
              One is not_judged.
              the suite stumbled
              [grandmother]
              > GET /a
              < 200
              < <i>"a" & b</i>

Good looks: 1 kept
  kept        looks.kept

2 kept, 1 broken, 1 not applicable, 1 not judged, of 5 rules in 1.2 s"""
    )


def test_long_lines_are_wrapped_and_long_bodies_cut() -> None:
    one = verdict("broken")
    [passage] = one.transcript
    many = Passage("GET /a\n\nx", "\n".join("y" * 30 for _ in range(9)))
    told = table(report(structs.replace(one, transcript=[passage, many])), 40)
    assert "              > GET /a\n              > \n              > x\n" in told
    assert told.count("y" * 24) == 3
    assert "\n              < … 12 more lines\n" in told
    assert max(map(len, told.splitlines()[3:-2])) <= 40


def test_what_there_is_none_of_is_not_spoken_of() -> None:
    assert spoken(tally([])) == "no rules"
    assert spoken(tally([verdict("not_judged")])) == "1 not judged"


def test_rules_can_be_listed() -> None:
    lines = listing(RULES, 100).splitlines()
    assert lines[0] == "Create a response (create)"
    assert lines[1] == "  create.a-plain-answer-is-json"
    assert lines[2] == "      What is not a stream is answered with the content type application/json. [API reference,"
    assert lines[-1] == f"{len(RULES)} rules"
    assert "(http.md §6.2)] Needs: key." in " ".join(" ".join(lines).split())
    assert sum(1 for one in lines if one.startswith("  ") and not one.startswith("   ")) == len(RULES)

import io

from rejoinder.conformance.progress import Progress
from rejoinder.conformance.suite import RULES
from rejoinder.conformance.verdict import Outcome
from tests.conformance.reports import verdict


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(stream: io.StringIO) -> str:
    progress = Progress(stream, 2)
    outcomes: list[Outcome] = ["broken", "kept"]
    for rule, outcome in zip(RULES, outcomes, strict=False):
        progress.begin(rule)
        progress.end(verdict(outcome))
    return stream.getvalue()


def test_each_rule_has_its_line_in_a_file() -> None:
    assert told(io.StringIO()) == (
        "BROKEN        manners.broken: expected a greeting, got <b>nothing</b>\nkept          manners.kept\n"
    )


def test_a_terminal_has_one_line_that_goes_away() -> None:
    assert told(Terminal()).split("\r\x1b[2K") == [
        "",
        f"1/2: {RULES[0].id}",
        f"2/2, 1 broken: {RULES[1].id}",
        "",
    ]

import pytest

from rejoinder.conformance.case import Case, Theme
from rejoinder.conformance.server import Server


def test_a_function_becomes_a_case_of_its_theme() -> None:
    theme = Theme("manners")

    @theme.case
    async def one_says_hello(server: Server) -> None:
        """Who comes in
        says hello.

        Source: grandmother,
        on Sundays.
        """

    assert list(theme) == [
        Case("one-says-hello", "manners", "Who comes in says hello.", "grandmother, on Sundays", one_says_hello)
    ]


def test_a_case_says_where_its_rule_is_written() -> None:
    theme = Theme("manners")

    async def one_says_hello(server: Server) -> None:
        """Who comes in says hello."""

    with pytest.raises(AssertionError, match="'one_says_hello' does not say its rule and its source"):
        theme.case(one_says_hello)


def test_a_case_has_a_docstring() -> None:
    theme = Theme("manners")

    async def silent(server: Server) -> None:
        pass

    with pytest.raises(AssertionError, match="'silent'"):
        theme.case(silent)

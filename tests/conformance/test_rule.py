import pytest

from rejoinder.conformance.need import BACKGROUND, KEY
from rejoinder.conformance.rule import Chapter, Rule
from rejoinder.conformance.server import Server


def test_a_function_becomes_a_rule_of_its_chapter() -> None:
    chapter = Chapter("manners", "Good manners")

    @chapter.rule
    async def one_says_hello(server: Server) -> None:
        """Who comes in
        says hello.

        Source: grandmother,
        on Sundays.
        """

    sentence, source = "Who comes in says hello.", "grandmother, on Sundays"
    assert list(chapter) == [Rule("manners.one-says-hello", chapter, sentence, source, (), one_says_hello)]


def test_a_rule_needs_what_its_chapter_needs_and_more() -> None:
    chapter = Chapter("manners", "Good manners", KEY)

    @chapter.needing(BACKGROUND)
    async def one_waits(server: Server) -> None:
        """One waits.

        Source: grandmother.
        """

    assert [rule.needs for rule in chapter] == [(KEY, BACKGROUND)]


def test_a_rule_says_where_it_is_written() -> None:
    chapter = Chapter("manners", "Good manners")

    async def one_says_hello(server: Server) -> None:
        """Who comes in says hello."""

    with pytest.raises(AssertionError, match="'one_says_hello' does not say its rule and its source"):
        chapter.rule(one_says_hello)


def test_a_rule_has_a_docstring() -> None:
    chapter = Chapter("manners", "Good manners")

    async def silent(server: Server) -> None:
        pass

    with pytest.raises(AssertionError, match="'silent'"):
        chapter.rule(silent)

"""A rule: one sentence of the API, and how to see whether a server keeps it."""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from rejoinder.conformance.need import Need
from rejoinder.conformance.server import Server

Check = Callable[[Server], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`check` raises Broken or NotApplicable; the rest says what it looks at, where that is written, and what a server
    needs to have for it."""

    id: str
    chapter: "Chapter"
    sentence: str
    source: str
    needs: Sequence[Need]
    check: Check


class Chapter:
    """The rules of one file, in its order. What the chapter needs, all of its rules need.

    chapter = Chapter("streams", "Stream grammar")

    @chapter.rule
    async def the_last_data_is_done(server: Server) -> None:
        \"\"\"What the rule says, in our own words.

        Source: where it is written (the section of the contract).
        \"\"\"

    The rule is called `streams.the-last-data-is-done`, in reports too: a function keeps its name.
    """

    def __init__(self, name: str, title: str, *needs: Need) -> None:
        self.name = name
        self.title = title
        self._needs = needs
        self._rules: list[Rule] = []

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)

    def rule(self, check: Check) -> Check:
        """Make a rule of a function: its name is the rule's, its docstring the sentence and the source."""
        return self.needing()(check)

    def needing(self, *needs: Need) -> Callable[[Check], Check]:
        """The same for a rule that does not apply to servers which lack one of these."""
        return self.needing_only(*self._needs, *needs)

    def needing_only(self, *needs: Need) -> Callable[[Check], Check]:
        """The same for a rule that does not need what its chapter does: it is the one that says that this works."""

        def ruled(check: Check) -> Check:
            sentence, _, source = (inspect.getdoc(check) or "").partition("\n\nSource: ")
            name = getattr(check, "__name__", "")
            assert source, f"the docstring of {name!r} does not say its rule and its source"
            self._rules.append(
                Rule(
                    f"{self.name}.{name.replace('_', '-')}",
                    self,
                    _one_line(sentence),
                    _one_line(source).rstrip("."),
                    needs,
                    check,
                )
            )
            return check

        return ruled


def _one_line(text: str) -> str:
    return " ".join(text.split())

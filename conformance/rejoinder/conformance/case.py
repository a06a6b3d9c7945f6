"""A case: one rule, and how to see whether a server keeps it."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from rejoinder.conformance.server import Server

Check = Callable[[Server], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """`check` raises Broken or Skipped; the rest says which rule it looks at, and where that is written."""

    name: str
    theme: str
    rule: str
    source: str
    check: Check


class Theme:
    """The cases of one file, in its order.

    theme = Theme("streams")

    @theme.case
    async def the_last_data_is_done(server: Server) -> None:
        \"\"\"What the rule says, in our own words.

        Source: where it is written.
        \"\"\"
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._cases: list[Case] = []

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases)

    def case(self, check: Check) -> Check:
        """Make a case of a function: its name is the case's, its docstring the rule and its source."""
        rule, _, source = (inspect.getdoc(check) or "").partition("\n\nSource: ")
        name = getattr(check, "__name__", "")
        assert source, f"the docstring of {name!r} does not say its rule and its source"
        self._cases.append(
            Case(name.replace("_", "-"), self.name, _one_line(rule), _one_line(source).rstrip("."), check)
        )
        return check


def _one_line(text: str) -> str:
    return " ".join(text.split())

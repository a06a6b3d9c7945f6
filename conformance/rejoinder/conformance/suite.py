"""All cases."""

from collections.abc import Iterable, Sequence

from rejoinder.conformance import (
    about_answers,
    about_continuation,
    about_inputs,
    about_lists,
    about_refusals,
    about_storage,
    about_streams,
    about_tools,
)
from rejoinder.conformance.case import Case

CASES: Sequence[Case] = [
    *about_answers.theme,
    *about_streams.theme,
    *about_inputs.theme,
    *about_continuation.theme,
    *about_storage.theme,
    *about_lists.theme,
    *about_tools.theme,
    *about_refusals.theme,
]


class NoSuchCase(Exception):
    """Raised when a name is neither a case's nor a theme's."""


def chosen(names: Iterable[str]) -> list[Case]:
    """The cases of these names, where the name of a theme means all of its cases; all cases if there are no names.

    Raises NoSuchCase.
    """
    wanted = set(names)
    known = {case.name for case in CASES} | {case.theme for case in CASES}
    if unknown := wanted - known:
        raise NoSuchCase(f"expected the name of a case or a theme, got {sorted(unknown)[0]!r}")
    return [case for case in CASES if not wanted or case.name in wanted or case.theme in wanted]

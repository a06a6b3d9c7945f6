"""What a rule says when something is not as it should be.

`at` is the place that shows it, of what the server sent: a report points there.
"""

from collections.abc import Iterator, Sequence

from rejoinder.conformance.errors import Broken

_SHOWN = 200
"""Characters of a value in a message."""


def expect(truth: object, expected: str, got: object, *, at: bytes = b"") -> None:
    """Raises Broken unless the first is true."""
    if not truth:
        raise Broken(expected, str(got)[:_SHOWN], at=at)


def expect_equal(what: str, expected: object, got: object, *, at: bytes = b"") -> None:
    """Raises Broken when they differ."""
    expect(expected == got, f"{what} {expected!r}"[:_SHOWN], repr(got), at=at)


def expect_distinct(what: str, values: Sequence[str | None]) -> None:
    """Raises Broken when one of the values is missing, or two are the same."""
    expect(None not in values and len(set(values)) == len(values), f"{what}, all there and all distinct", list(values))


def expect_same(what: str, expected: object, got: object) -> None:
    """Raises Broken, with the first place where they differ, when two JSON values are not the same."""
    for at, one, other in _differences(expected, got, "$"):
        expect_equal(f"{what}, at `{at}`", one, other)


def _differences(expected: object, got: object, at: str) -> Iterator[tuple[str, object, object]]:
    match expected, got:
        case dict(), dict() if expected.keys() == got.keys():
            for name in expected:
                yield from _differences(expected[name], got[name], f"{at}.{name}")
        case dict(), dict():
            yield at, sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
        case list(), list() if len(expected) == len(got):
            for place, (one, other) in enumerate(zip(expected, got, strict=True)):
                yield from _differences(one, other, f"{at}[{place}]")
        case _ if expected != got:
            yield at, expected, got

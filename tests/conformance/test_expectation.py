import pytest

from rejoinder.conformance.errors import Broken
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal, expect_same


def test_what_is_true_is_no_reason_to_speak() -> None:
    expect(1, "one", 2)
    expect_equal("the status", "completed", "completed")
    expect_distinct("ids", ["a", "b"])
    expect_same("the kept one", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]})


def test_a_long_value_is_cut() -> None:
    with pytest.raises(Broken) as caught:
        expect(False, "something short", "x" * 1000)
    assert str(caught.value) == f"expected something short, got {'x' * 200}"


def test_values_that_differ_are_both_told() -> None:
    with pytest.raises(Broken, match="expected the status 'completed', got 'failed'"):
        expect_equal("the status", "completed", "failed")


@pytest.mark.parametrize("values", [["a", "a"], ["a", None]])
def test_values_have_to_be_there_and_differ(values: list[str | None]) -> None:
    with pytest.raises(Broken, match="expected ids, all there and all distinct, got"):
        expect_distinct("ids", values)


@pytest.mark.parametrize(
    ("expected", "got", "told"),
    [
        ({"a": [1, 2]}, {"a": [1, 3]}, "the kept one, at `$.a[1]` 2, got 3"),
        ({"a": 1, "b": 1}, {"a": 2, "b": 2}, "the kept one, at `$.a` 1, got 2"),
        ({"a": 1, "b": 1}, {"b": 1, "c": 1}, "the kept one, at `$` ['a'], got ['c']"),
        ([1], [1, 2], "the kept one, at `$` [1], got [1, 2]"),
        ({"a": {}}, {"a": []}, "the kept one, at `$.a` {}, got []"),
    ],
)
def test_the_first_difference_is_told_with_its_place(expected: object, got: object, told: str) -> None:
    with pytest.raises(Broken) as caught:
        expect_same("the kept one", expected, got)
    assert str(caught.value) == f"expected {told}"

from rejoinder.conformance.errors import Broken, ConformanceError, Skipped


def test_a_broken_rule_says_what_was_expected_and_what_came() -> None:
    assert str(Broken("status 400", "status 200")) == "expected status 400, got status 200"


def test_both_ends_of_a_case_are_its_errors() -> None:
    assert issubclass(Broken, ConformanceError)
    assert issubclass(Skipped, ConformanceError)

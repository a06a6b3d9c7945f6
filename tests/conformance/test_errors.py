from rejoinder.conformance.errors import Broken, ConformanceError, NoAnswer, NotApplicable, UpgradeRefused


def test_a_broken_rule_says_what_was_expected_and_what_came() -> None:
    broken = Broken("status 400", "status 200", at=b"{}")
    assert (str(broken), broken.at) == ("expected status 400, got status 200", b"{}")
    assert Broken("one", "two").at == b""


def test_a_refused_upgrade_says_its_status() -> None:
    assert str(UpgradeRefused(426)) == "expected an upgrade to WebSocket, got status 426"
    assert UpgradeRefused(426).status == 426


def test_both_ends_of_a_rule_are_errors_of_the_suite() -> None:
    assert issubclass(Broken, ConformanceError)
    assert issubclass(NoAnswer, Broken)
    assert issubclass(NotApplicable, ConformanceError)

import pytest

from rejoinder.bridge.errors import UpstreamError
from rejoinder.server.attempts import FIRST_WAIT, Attempts
from rejoinder.store import Attempt


def refusal(hint: float | None = None, *, transient: bool = True) -> UpstreamError:
    return UpstreamError("no", status=429, code="rate_limit_exceeded", retry_after=hint, transient=transient)


def test_the_providers_hint_is_what_is_waited() -> None:
    attempts = Attempts(2, 60)
    assert attempts.wait_after(refusal(1.23456)) == 1.23456
    assert attempts.failed == [Attempt(429, "rate_limit_exceeded", 1.235)]
    assert attempts.wait_after(refusal(0.0)) == 0.0


def test_without_a_hint_every_wait_is_about_twice_the_last() -> None:
    for _ in range(20):
        attempts = Attempts(4, 60)
        for expected in (FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT):
            wait = attempts.wait_after(refusal())
            assert wait is not None
            assert 0.75 * expected <= wait <= 1.25 * expected


def test_clients_that_were_refused_together_do_not_come_back_together() -> None:
    assert len({Attempts(1, 60).wait_after(refusal()) for _ in range(10)}) > 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_request_is_repeated_only_so_often(retries: int) -> None:
    attempts = Attempts(retries, 60)
    waits = [attempts.wait_after(refusal(0.5)) for _ in range(5)]
    assert waits == [0.5] * retries + [None] * (5 - retries)
    assert len(attempts.failed) == retries


def test_what_may_be_under_way_and_paid_for_is_not_asked_again() -> None:
    attempts = Attempts(3, 60)
    assert attempts.wait_after(refusal(1, transient=False)) is None
    assert attempts.failed == []


def test_a_wait_that_outlasts_the_budget_is_the_clients_to_decide_on() -> None:
    attempts = Attempts(9, 10)
    assert [attempts.wait_after(refusal(hint)) for hint in (11, float("inf"), 6, 6, 4, 0.1)] == [
        *[None, None, 6],
        *[None, 4],
        None,
    ]
    assert [attempt.waited for attempt in attempts.failed] == [6, 4]

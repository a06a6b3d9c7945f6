import pytest

from rejoinder.server.condition import Condition
from rejoinder.server.errors import Unavailable
from rejoinder.store import DamagedRecord, Missing, Refused, StoreError


def test_a_store_is_taken_to_work_until_it_shows_otherwise() -> None:
    condition = Condition()
    condition.admit(store=True)
    assert condition.store_works


def test_while_the_store_does_not_work_only_turns_that_need_it_are_refused() -> None:
    condition = Condition()
    condition.store_works = False
    condition.admit(store=False)
    with pytest.raises(Unavailable, match="the store does not work") as caught:
        condition.admit(store=True)
    assert (caught.value.status, caught.value.code) == (503, "server_error")
    assert caught.value.headers == {"retry-after": "5"}


@pytest.mark.parametrize("error", [StoreError("disk full"), TimeoutError()])
def test_a_write_that_failed_tells_about_the_next_ones(error: Exception) -> None:
    condition = Condition()
    condition.saw(error)
    assert not condition.store_works


@pytest.mark.parametrize("error", [Missing("gone"), Refused("taken"), DamagedRecord("torn")])
def test_a_record_that_was_not_taken_tells_nothing_about_the_next_ones(error: Exception) -> None:
    condition = Condition()
    condition.saw(error)
    assert condition.store_works

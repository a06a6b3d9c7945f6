from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rejoinder.server.conversations import Talks
from rejoinder.server.errors import InvalidRequest
from rejoinder.store import DiskBackend, Store
from tests.server.site import request_of

OWNER = "ann"


@pytest.fixture
async def talks(tmp_path: Path) -> AsyncIterator[Talks]:
    store = Store(DiskBackend(tmp_path / "store"))
    yield Talks(store)
    await store.close()


async def test_one_thing_goes_on_in_a_conversation_at_a_time(talks: Talks) -> None:
    with talks.alone("conv_1", OWNER):
        with pytest.raises(InvalidRequest) as caught, talks.alone("conv_1", OWNER):
            raise AssertionError("it is not alone")
        with talks.alone("conv_2", OWNER), talks.alone("conv_1", "bob"):
            pass  # other conversations are others, and so are those of others
        with pytest.raises(InvalidRequest), talks.alone("conv_1", OWNER):
            raise AssertionError("whoever was refused has freed nothing")
    assert str(caught.value) == (
        "Another process is currently operating on this conversation. Please retry in a few seconds."
    )
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "conversation", "conversation_locked")


async def test_a_conversation_is_free_again_however_it_was_left(talks: Talks) -> None:
    with talks.alone("conv_1", OWNER):
        pass
    with pytest.raises(ValueError, match="broken"), talks.alone("conv_1", OWNER):
        raise ValueError("broken")
    with talks.alone("conv_1", OWNER):
        pass


async def test_a_turn_is_alone_in_the_conversation_that_its_request_names(talks: Talks) -> None:
    named = request_of(input="hi", conversation={"id": "conv_1"})
    with talks.turn(named, OWNER):
        with pytest.raises(InvalidRequest), talks.alone("conv_1", OWNER):
            raise AssertionError("it is not alone")
        with pytest.raises(InvalidRequest), talks.turn(named, OWNER):
            raise AssertionError("it is not alone")
    with talks.turn(named, OWNER):
        pass


async def test_turns_without_a_conversation_do_not_wait_for_one_another(talks: Talks) -> None:
    alone = request_of(input="hi")
    with talks.turn(alone, OWNER), talks.turn(alone, OWNER), talks.alone("conv_1", OWNER):
        pass


async def test_the_conversations_are_those_of_the_store(talks: Talks) -> None:
    begun = await talks.kept.create("conv_1", owner=OWNER, created_at=1, metadata={"a": "b"}, items=None)
    assert await talks.kept.get("conv_1", owner=OWNER) == begun

from pathlib import Path

import pytest

from rejoinder.bridge.envelope import Issuer
from rejoinder.server.services import KEPT_IN_MEMORY
from rejoinder.store import Missing, Record, StoreError, VolatileBackend
from tests.server.site import NOWHERE, closing, services_in


async def test_what_must_not_be_stored_has_a_shelf_of_its_own_in_memory(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        assert services.shelf(store=True) is services.store
        memory = services.shelf(store=False)
        assert memory is services.volatile
        assert isinstance(memory.backend, VolatileBackend)
        await memory.save(Record("resp_1", None, 1, "completed", b"{}", [], []), owner="ann")
        kept = [key async for key in memory.every_key()]
        assert len(kept) == 1
        with pytest.raises(Missing):
            await services.store.get("resp_1", owner="ann")
    assert KEPT_IN_MEMORY == 600, "semantics.md §5: roughly ten minutes"


async def test_each_server_has_a_memory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        closing(services_in(tmp_path / "a", NOWHERE)) as one,
        closing(services_in(tmp_path / "b", NOWHERE)) as two,
    ):
        assert one.volatile is not two.volatile


async def test_conversations_are_those_of_the_store(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        await services.conversations.kept.create("conv_1", owner="ann", created_at=1, metadata={}, items=None)
        assert len([key async for key in services.store.every_key()]) == 1
        assert [key async for key in services.volatile.every_key()] == []


async def test_an_issuer_is_an_endpoint_and_a_model_of_its_kind(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        provider = services.providers["test"]
        assert provider.issuer("m") == Issuer("chat", provider.endpoint, "m")


async def test_services_that_are_closed_keep_nothing(tmp_path: Path) -> None:
    services = services_in(tmp_path, NOWHERE)
    await services.close()
    for store in (services.store, services.volatile):
        with pytest.raises(StoreError, match="closed"):
            await store.probe()

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from rejoinder.server import health
from rejoinder.server.health import Health
from rejoinder.server.services import Services
from rejoinder.store import StoreError
from tests.server.site import NOWHERE, Gate, Json, closing, gated, services_in


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[Services, Gate]]:
    services, gate = await gated(services_in(tmp_path, NOWHERE))
    async with closing(services):
        yield services, gate


def full() -> None:
    raise StoreError("disk full")


async def reported(services: Services) -> tuple[int, Json]:
    response = await Health(services).report(Request({"type": "http", "method": "GET", "headers": []}))
    assert response.media_type == "application/json"
    return response.status_code, json.loads(bytes(response.body))


async def test_a_look_at_a_store_that_works_keeps_it_working_and_says_nothing(watched: tuple[Services, Gate]) -> None:
    services, _ = watched
    with capture_logs() as logs:
        await Health(services).look()
    assert services.condition.store_works
    assert logs == []


async def test_a_store_that_fails_is_noticed_and_logged_once_and_so_is_its_recovery(
    watched: tuple[Services, Gate],
) -> None:
    services, gate = watched
    looking = Health(services)
    gate.on_probe = full
    with capture_logs() as logs:
        await looking.look()
        await looking.look()
        assert not services.condition.store_works
        gate.on_probe = None
        await looking.look()
        await looking.look()
    assert services.condition.store_works
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("error", "store does not work"),
        ("info", "store works again"),
    ]


async def test_a_store_that_does_not_answer_in_time_does_not_work(
    watched: tuple[Services, Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, gate = watched
    monkeypatch.setattr(health, "PROBE_TIMEOUT", 0.01)
    gate.on_probe = asyncio.Event().wait
    await Health(services).look()
    assert not services.condition.store_works


async def test_the_store_is_looked_at_again_and_again(
    watched: tuple[Services, Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, gate = watched
    monkeypatch.setattr(health, "PROBE_EVERY", 0.01)
    looks = 0
    enough = asyncio.Event()

    def count() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            enough.set()

    gate.on_probe = count
    looking = asyncio.create_task(Health(services).run())
    await asyncio.wait_for(enough.wait(), 5)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


async def test_a_healthy_server_reports_what_it_does(watched: tuple[Services, Gate]) -> None:
    services, _ = watched
    with services.running.turn():
        status, report = await reported(services)
    assert status == 200
    assert report == {"status": "ok", "version": "0.1.0", "store": "ok", "running": 1}


async def test_a_server_whose_store_failed_is_not_ready(watched: tuple[Services, Gate]) -> None:
    services, _ = watched
    services.condition.store_works = False
    status, report = await reported(services)
    assert (status, report["status"], report["store"]) == (503, "store_failed", "failed")


async def test_a_server_that_shuts_down_is_not_ready(watched: tuple[Services, Gate]) -> None:
    services, _ = watched
    services.running.draining = True
    status, report = await reported(services)
    assert (status, report["status"], report["store"]) == (503, "draining", "ok")

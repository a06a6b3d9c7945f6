import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.testing import capture_logs

from rejoinder.server.app import Faults, build_app
from rejoinder.server.errors import NotFound
from rejoinder.store import StoreError
from tests.server.site import CODEX, NOWHERE, Json, Reply, Site, services_in, site

KEY = "key-of-ann"


@pytest.fixture(scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path_factory.mktemp("app"), NOWHERE, keys={"ann": KEY})) as running:
        yield running


def error(reply: Reply) -> Json:
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"].startswith("req_")
    assert set(reply.json) == {"error"}
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    return reply.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/responses/", 404),
        ("POST", "/v1/chat/completions", 404),
        ("POST", "/v1/responses/resp_1/cancel/again", 404),
        ("GET", "/v1/responses/resp_1/input_items/", 404),
        ("GET", "//v1/responses", 404),
        ("GET", "/v1/responses", 405),
        ("PUT", "/v1/responses/resp_1", 405),
        ("POST", "/v1/models", 405),
        ("PATCH", "/v1/responses", 405),
    ],
)
async def test_a_path_or_method_nobody_serves_is_an_invalid_url(
    here: Site, method: str, path: str, status: int
) -> None:
    reply = await here.ask(method, path, key=KEY)
    assert reply.status == status
    assert error(reply) == {
        "message": f"Invalid URL ({method} {path})",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


async def test_a_long_path_is_cut_in_the_message(here: Site) -> None:
    reply = await here.ask("GET", "/" + "x" * 3000, key=KEY)
    assert (reply.status, len(error(reply)["message"])) == (404, len("Invalid URL (GET )") + 200)


async def test_an_error_has_the_status_that_makes_codex_do_the_right_thing(here: Site) -> None:
    assert (await here.ask("GET", "/v1/nothing", key=KEY, headers=CODEX)).status == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/m"),
        ("GET", "/nothing"),
        ("GET", "/health/"),
        ("GET", "//health"),
    ],
)
async def test_every_path_but_one_needs_a_key(here: Site, method: str, path: str) -> None:
    reply = await here.ask(method, path)
    assert reply.status == 401
    error(reply)


async def test_health_needs_no_key(here: Site) -> None:
    reply = await here.ask("GET", "/health")
    assert (reply.status, reply.json["status"], reply.json["store"]) == (200, "ok", "ok")
    assert reply.headers["x-request-id"].startswith("req_")


async def test_every_answer_has_a_request_id_of_its_own(here: Site) -> None:
    paths = ["/health", "/v1/models/m", "/v1/nothing", "/v1/responses/resp_1"]
    replies = [await here.ask("GET", path, key=KEY) for path in paths * 2]
    assert len({reply.headers["x-request-id"] for reply in replies}) == 8


async def test_the_services_are_closed_when_the_application_ends(tmp_path: Path) -> None:
    services = services_in(tmp_path, NOWHERE)
    async with site(services) as here:
        assert (await here.ask("GET", "/health")).status == 200
    with pytest.raises(StoreError, match="closed"):
        await services.store.probe()


async def test_what_looks_after_the_streams_and_the_store_runs_while_the_application_does(tmp_path: Path) -> None:
    messages: asyncio.Queue[Message] = asyncio.Queue()
    told: asyncio.Queue[str] = asyncio.Queue()

    async def send(message: Message) -> None:
        await told.put(message["type"])

    async def run() -> None:
        await build_app(services_in(tmp_path, NOWHERE))({"type": "lifespan"}, messages.get, send)

    before = asyncio.all_tasks()
    running = asyncio.create_task(run())
    await messages.put({"type": "lifespan.startup"})
    assert await told.get() == "lifespan.startup.complete"
    named = {task.get_name() for task in asyncio.all_tasks() - before - {running}}
    assert any(name.endswith("Pulse.run") for name in named)
    assert any(name.endswith("Health.run") for name in named)
    await messages.put({"type": "lifespan.shutdown"})
    assert await told.get() == "lifespan.shutdown.complete"
    await running
    assert not asyncio.all_tasks() - before - {running}


async def answered(app: ASGIApp, type: str = "http") -> list[Message]:
    """What is sent for a request to this application behind `Faults`."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nobody reads")

    async def send(message: Message) -> None:
        sent.append(message)

    await Faults(app)({"type": type, "method": "GET", "path": "/", "headers": []}, receive, send)
    return sent


async def test_an_error_nobody_expected_is_500_without_a_word_of_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    with capture_logs() as logs:
        start, body = await answered(app)
    assert start["status"] == 500
    assert b"secret" not in body["body"]
    assert [line["event"] for line in logs] == ["unexpected error"]


async def test_an_error_after_the_answer_began_is_only_logged() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("secret")

    with capture_logs() as logs:
        [start] = await answered(app)
    assert start["status"] == 200
    assert [line["event"] for line in logs] == ["unexpected error"]


async def test_an_error_for_a_client_that_left_is_nothing_to_speak_of() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    with capture_logs() as logs:
        assert await answered(app) == []
    assert logs == []


async def test_a_websocket_that_cannot_be_opened_is_closed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotFound("no such thing")

    assert await answered(app, "websocket") == [{"type": "websocket.close", "code": 1008}]

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from rejoinder.conformance.arrival import arrive
from rejoinder.conformance.errors import Unreachable
from rejoinder.conformance.samples import plain
from rejoinder.conformance.server import Server
from tests.conformance.little_server import MODEL, LittleServer, serving
from tests.conformance.test_server import at


@asynccontextmanager
async def little(*, key: str | None = None, asks: str | None = None, model: str = MODEL) -> AsyncIterator[Server]:
    async with serving(LittleServer(key=asks)) as url, Server.at(url, model, key=key, timeout=5) as server:
        yield server


async def told(server: Server) -> str:
    with pytest.raises(Unreachable) as caught:
        await arrive(server)
    return str(caught.value)


@asynccontextmanager
async def answering(status: int, body: object, models: object = None) -> AsyncIterator[Server]:
    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/models"):
            return web.json_response(models)
        return web.Response(status=status, body=json.dumps(body).encode())

    async with at(handler, key="sk-little") as server:
        yield server


async def test_a_server_that_answers_is_asked_once() -> None:
    async with little() as server:
        await arrive(server)
        await server.once(plain)
        assert len({id(exchange) for exchange in server.transcript}) == 1


async def test_nobody_there_is_no_broken_rule() -> None:
    async with Server.at("http://127.0.0.1:1/v1", MODEL, key=None, timeout=5) as server:
        message = await told(server)
    assert message.startswith("POST http://127.0.0.1:1/v1/responses: expected a whole answer, got ClientConnectorError")
    assert message.endswith("Is the server running, and is this its address? A slow model may need a longer --timeout.")


async def test_a_key_is_asked_for_or_not_accepted() -> None:
    async with little(asks="sk-little") as server:
        assert "name the variable that holds one with --api-key-env" in await told(server)
    async with little(asks="sk-little", key="sk-other") as server:
        assert (await told(server)).startswith("the server does not accept the key (status 401")


async def test_an_unknown_model_is_told_with_those_that_are_known() -> None:
    async with little(model="large") as server:
        message = await told(server)
    assert message.startswith("the server does not answer for the model 'large' (status 400")
    assert message.endswith("; it lists little")


@pytest.mark.parametrize(
    ("models", "listed"),
    [
        ({"data": [{"id": str(number)} for number in range(11)]}, "; it lists 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and more"),
        ({"data": []}, ""),
        ("none", ""),
    ],
)
async def test_a_model_may_be_refused_in_words_alone(models: object, listed: str) -> None:
    async with answering(404, {"detail": "The model `little` does not exist."}, models) as server:
        message = await told(server)
    assert message.endswith(f'does not exist."}}){listed}')


async def test_a_wrong_path_is_told() -> None:
    async with answering(404, {"detail": "Not Found"}) as server:
        assert (await told(server)).startswith(f"there is no {server.url}/responses (status 404: ")


@pytest.mark.parametrize(("status", "body"), [(500, "model little"), (400, "no"), (400, "little"), (200, {})])
async def test_anything_else_is_for_the_rules_to_say(status: int, body: object) -> None:
    async with answering(status, body) as server:
        await arrive(server)

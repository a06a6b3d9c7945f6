import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from rejoinder.bridge.dialect import Call
from rejoinder.bridge.errors import UpstreamError
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.server import models
from rejoinder.server.assembly import assemble
from rejoinder.server.models import Models
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from rejoinder.server.upstream import Answer
from tests.server.site import NOWHERE, Site, closing, services_in, site

SETTINGS = f"""
[server]
store = "disk:STORE"

[[upstream]]
name = "first"
base_url = "{NOWHERE}"
models = ["big", "meta-llama/Llama-3:free", "qwen*"]
aliases = {{ fast = "big" }}

[[upstream]]
name = "second"
base_url = "{NOWHERE}"
models = ["big", "small"]
"""


@pytest.fixture(scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("models")
    file = directory / "rejoinder.toml"
    file.write_text(SETTINGS.replace("STORE", str(directory / "store")))
    async with site(assemble(load(file, {}))) as running:
        yield running


async def test_the_list_names_every_model_once_with_the_upstream_that_answers(here: Site) -> None:
    reply = await here.ask("GET", "/v1/models")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json["object"] == "list"
    assert reply.json["data"] == [
        {"id": "fast", "object": "model", "created": 0, "owned_by": "first"},
        {"id": "big", "object": "model", "created": 0, "owned_by": "first"},
        {"id": "meta-llama/Llama-3:free", "object": "model", "created": 0, "owned_by": "first"},
        {"id": "small", "object": "model", "created": 0, "owned_by": "second"},
    ]


async def test_the_same_list_is_the_catalogue_codex_reads(here: Site) -> None:
    models = (await here.ask("GET", "/v1/models")).json["models"]
    assert [model["slug"] for model in models] == ["fast", "big", "meta-llama/Llama-3:free", "small"]


@pytest.mark.parametrize(
    ("path", "name", "owner"),
    [
        ("big", "big", "first"),
        ("fast", "fast", "first"),
        ("meta-llama/Llama-3:free", "meta-llama/Llama-3:free", "first"),
        ("meta-llama%2FLlama-3%3Afree", "meta-llama/Llama-3:free", "first"),
        ("qwen3-coder", "qwen3-coder", "first"),
        ("second/big", "second/big", "second"),
    ],
)
async def test_a_model_is_found_by_every_name_that_can_be_asked_for(
    here: Site, path: str, name: str, owner: str
) -> None:
    reply = await here.ask("GET", f"/v1/models/{path}")
    assert reply.json == {"id": name, "object": "model", "created": 0, "owned_by": owner}


async def test_an_unknown_model_is_not_found(here: Site) -> None:
    reply = await here.ask("GET", "/v1/models/gpt-none")
    assert reply.status == 404
    assert reply.json == {
        "error": {
            "message": "The model 'gpt-none' does not exist.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


class Shelf:
    """An upstream that is asked for its models only."""

    def __init__(self, *chunks: bytes, status: int = 200) -> None:
        self.asked: list[Call] = []
        self.trouble: Exception | None = None
        self.silent = False
        self._chunks = chunks
        self._status = status

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        self.asked.append(call)
        if self.silent:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble
        yield Answer(self._status, {}, self._body())

    async def close(self) -> None:
        pass

    async def _body(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def shelf(*names: str) -> Shelf:
    return Shelf(json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}).encode())


def upstream_is(services: Services, upstream: Shelf) -> Services:
    return replace(services, providers={"test": replace(services.providers["test"], upstream=upstream)})


async def names(models: Models) -> Sequence[str]:
    response = await models.listed(Request({"type": "http", "method": "GET", "headers": []}))
    return [model["id"] for model in json.loads(bytes(response.body))["data"]]


async def test_a_pattern_is_listed_as_what_the_upstream_has_that_it_answers_for(tmp_path: Path) -> None:
    with ChatUpstream(models=["qwen3", "big", "small", "mistral"]) as provider:
        file = tmp_path / "rejoinder.toml"
        settings = SETTINGS.replace("STORE", str(tmp_path / "store")).replace(NOWHERE, provider.base_url)
        file.write_text(f'{settings}\n[[upstream]]\nname = "third"\nbase_url = "{provider.base_url}"\nmodels = ["*"]\n')
        async with site(assemble(load(file, {}))) as here:
            reply = await here.ask("GET", "/v1/models")
    owners = {model["id"]: model["owned_by"] for model in reply.json["data"]}
    assert owners == {
        "fast": "first",
        "big": "first",
        "meta-llama/Llama-3:free": "first",
        "small": "second",
        "qwen3": "first",
        "mistral": "third",
    }
    assert [model["slug"] for model in reply.json["models"]] == list(owners)


async def test_what_an_upstream_has_is_asked_with_its_credential_and_once_in_a_while(tmp_path: Path) -> None:
    now = 0.0
    upstream = shelf("one")
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        listing = Models(upstream_is(services, upstream), lambda: now)
        assert await names(listing) == await names(listing) == ["one"]
        assert [(call.method, call.path, call.body) for call in upstream.asked] == [("GET", "/models", b"")]
        now = models.ASK_EVERY + 1
        await names(listing)
        assert len(upstream.asked) == 2


BROKEN = {
    "a refusal": Shelf(b'{"error":{"message":"no"}}', status=403),
    "no json": Shelf(b"<html>"),
    "no list": Shelf(b'{"data":{}}'),
    "no end": Shelf(*[b"x" * 2**20] * 5),
}


@pytest.mark.parametrize("upstream", BROKEN.values(), ids=BROKEN)
async def test_an_upstream_that_does_not_list_its_models_is_no_reason_not_to_list_others(
    tmp_path: Path, upstream: Shelf
) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        with capture_logs() as logs:
            assert await names(Models(upstream_is(services, upstream))) == []
    assert [(line["event"], line["upstream"]) for line in logs] == [("upstream does not list its models", "test")]


async def test_an_upstream_that_cannot_be_reached_or_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "ASK_TIMEOUT", 0.02)
    gone, silent = shelf("one"), shelf("one")
    gone.trouble = UpstreamError("the provider could not be reached")
    silent.silent = True
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        for upstream in (gone, silent):
            assert await names(Models(upstream_is(services, upstream))) == []

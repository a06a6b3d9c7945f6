import asyncio
import json
import os
import re
import resource
from pathlib import Path

import pytest
from msgspec.structs import replace

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.dialect import Dialect
from rejoinder.bridge.envelope import Envelope, Issuer, Seal
from rejoinder.bridge.gemini import GeminiDialect
from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import answer, text
from rejoinder.server.assembly import SEAL_VARIABLE, assemble, seal_keys
from rejoinder.server.demo import DemoUpstream
from rejoinder.server.services import Services
from rejoinder.server.serving import FILES_BESIDE, allow_files
from rejoinder.server.settings import SettingsError, load
from rejoinder.server.upstream import HttpUpstream
from rejoinder.store import StoreError
from tests.server.site import NOWHERE, closing, said, services_in

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hi", "annotations": []}],
}
ONE, TWO = "11" * 32, "22" * 32


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SEAL_VARIABLE, raising=False)


def assembled(directory: Path, upstreams: str, **environ: str) -> Services:
    file = directory / "rejoinder.toml"
    file.write_text(f'[server]\nstore = "disk:{directory / "store"}"\n{upstreams}')
    return assemble(load(file, environ))


def upstream(base_url: str, further: str = "") -> str:
    return f'[[upstream]]\nname = "test"\nbase_url = "{base_url}"\nmodels = ["*"]\n{further}\n'


async def test_without_an_upstream_the_demo_answers(tmp_path: Path) -> None:
    async with closing(assembled(tmp_path, "")) as services:
        assert isinstance(services.providers["demo"].upstream, DemoUpstream)
        response = await said(services, model="demo", input="hello")
        assert response["status"] == "completed"


async def test_an_upstream_is_asked_with_its_key_and_its_headers(tmp_path: Path) -> None:
    with ChatUpstream([answer(text("hi"))], key="sk-1") as provider:
        further = 'api_key_env = "KEY"\nheaders = { "x-title" = "mine" }'
        async with closing(assembled(tmp_path, upstream(provider.base_url, further), KEY="sk-1")) as services:
            await said(services, input="hello")
        [sent] = provider.requests
        assert (sent.headers["authorization"], sent.headers["x-title"]) == ("Bearer sk-1", "mine")


async def test_a_vendor_that_wants_its_key_in_a_header_of_its_own_gets_it_there(tmp_path: Path) -> None:
    with ChatUpstream([answer(text("hi"))]) as provider:
        further = 'vendor = "azure"\napi_key_env = "KEY"'
        async with closing(assembled(tmp_path, upstream(provider.base_url, further), KEY="sk-1")) as services:
            await said(services, input="hello")
        [sent] = provider.requests
        assert sent.headers["api-key"] == "sk-1"
        assert "authorization" not in sent.headers


ANSWERS = {
    "ANTHROPIC_API_KEY": (
        {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ),
    "GEMINI_API_KEY": (
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}]},
    ),
    "OPENAI_API_KEY": (
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}},
        {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE},
        {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": [MESSAGE]}},
    ),
}


@pytest.mark.parametrize(
    ("variable", "model", "line", "header"),
    [
        ("ANTHROPIC_API_KEY", "claude-sonnet-4-6", "POST /base/v1/messages HTTP/1.1", "x-api-key: sk-1"),
        (
            "GEMINI_API_KEY",
            "gemini-2.5-flash",
            "POST /base/models/gemini-2.5-flash:streamGenerateContent?alt=sse HTTP/1.1",
            "x-goog-api-key: sk-1",
        ),
        ("OPENAI_API_KEY", "gpt-5.4", "POST /base/responses HTTP/1.1", "authorization: Bearer sk-1"),
    ],
)
async def test_a_providers_key_alone_makes_a_working_server(
    tmp_path: Path, variable: str, model: str, line: str, header: str
) -> None:
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.extend((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for event in ANSWERS[variable]:
            writer.write(f"event: {event.get('type', 'message')}\ndata: {json.dumps(event)}\n\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    settings = load(None, {variable: "sk-1", "REJOINDER_STORE": f"disk:{tmp_path / 'store'}"})
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base"
    moved = tuple(replace(upstream, base_url=base_url) for upstream in settings.upstreams)
    async with server, closing(assemble(replace(settings, upstreams=moved))) as services:
        response = await said(services, model=model, input="hello")
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "hi"
    assert asked[0] == line
    assert header in asked


async def test_an_upstream_without_a_key_is_asked_without_one(tmp_path: Path) -> None:
    with ChatUpstream([answer(text("hi"))]) as provider:
        async with closing(services_in(tmp_path, provider.base_url)) as services:
            await said(services, input="hello")
        assert {"authorization", "api-key"}.isdisjoint(provider.requests[0].headers)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chat", ChatDialect),
        ("anthropic", AnthropicDialect),
        ("gemini", GeminiDialect),
        ("responses", ResponsesDialect),
    ],
)
async def test_a_provider_speaks_the_dialect_of_its_upstream(tmp_path: Path, name: str, kind: type[Dialect]) -> None:
    further = f'dialect = "{name}"' + ("" if name == "responses" else '\nreasoning = "raw"')
    async with closing(assembled(tmp_path, upstream(NOWHERE, further))) as services:
        provider = services.providers["test"]
    assert type(provider.dialect) is kind
    assert (provider.kind, provider.issuer("m").dialect) == (name, name)
    assert provider.shows_raw_reasoning is (name != "responses")


async def test_the_demo_speaks_chat_completions(tmp_path: Path) -> None:
    async with closing(assembled(tmp_path, "")) as services:
        provider = services.providers["demo"]
    assert type(provider.dialect) is ChatDialect
    assert provider.kind == "chat"
    assert not provider.shows_raw_reasoning


async def test_each_endpoint_has_a_fingerprint_that_names_neither_it_nor_its_address(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE, names=("one", "two"))) as services:
        endpoints = {provider.endpoint for provider in services.providers.values()}
        again = {provider.issuer("m").endpoint for provider in services.providers.values()}
    assert len(endpoints) == 2
    assert endpoints == again
    assert all(re.fullmatch("[0-9a-f]{16}", endpoint) for endpoint in endpoints)


async def test_closing_the_services_closes_upstreams_and_the_store(tmp_path: Path) -> None:
    with ChatUpstream([answer(text("hi"))]) as provider:
        services = services_in(tmp_path, provider.base_url)
        await said(services, input="hello")
        client = services.providers["test"].upstream
        assert isinstance(client, HttpUpstream)
        await services.close()
    with pytest.raises(StoreError, match="closed"):
        await services.store.probe()


@pytest.mark.parametrize(
    ("server", "days"), [({}, 30), ({"ttl": 86400}, 1), ({"ttl": 0}, None)], ids=["by default", "a day", "for ever"]
)
async def test_responses_are_kept_as_long_as_the_settings_say(
    tmp_path: Path, server: dict[str, object], days: int | None
) -> None:
    """semantics.md §5: 30 days at least."""
    with ChatUpstream([answer(text("hi"))]) as provider:
        async with closing(services_in(tmp_path, provider.base_url, server=server)) as services:
            response = await said(services, input="hello")
            record = await services.store.get(response["id"], owner="local")
    if days is None:
        assert record.expires_at == 0
    else:
        assert 0 <= record.expires_at - response["created_at"] - days * 86400 < 60


async def test_what_one_start_sealed_the_next_one_opens(tmp_path: Path) -> None:
    sealed = Envelope(Issuer("chat", "e", "m"), [], {})
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        text = services.seal.close(sealed, owner="ann")
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        assert services.seal.open(text, owner="ann") == sealed


async def test_sealing_keys_come_from_the_environment_before_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEAL_VARIABLE, ONE)
    sealed = Envelope(Issuer("chat", "e", "m"), [], {})
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        text = services.seal.close(sealed, owner="ann")
    assert Seal([bytes.fromhex(ONE)]).open(text, owner="ann") == sealed
    assert not (tmp_path / "store" / "seal.key").exists()


def test_the_first_start_makes_a_key_only_its_user_can_read(tmp_path: Path) -> None:
    [key] = seal_keys(tmp_path, "")
    assert len(key) == 32
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
    assert seal_keys(tmp_path, "") == [key]


def test_no_two_directories_get_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert seal_keys(tmp_path / "a", "") != seal_keys(tmp_path / "b", "")


def test_a_file_may_hold_older_keys_below_the_newest(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_text(f"{TWO}\n{ONE}\n")
    assert seal_keys(tmp_path, "") == [bytes.fromhex(TWO), bytes.fromhex(ONE)]


def test_several_keys_are_separated_by_commas(tmp_path: Path) -> None:
    assert seal_keys(tmp_path, f"{TWO}, {ONE}") == [bytes.fromhex(TWO), bytes.fromhex(ONE)]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("given", ["11" * 31, "11" * 33, "no hex", f"{ONE},", f"{ONE},{TWO}3"])
def test_a_key_that_is_none_is_an_error_that_does_not_repeat_it(tmp_path: Path, given: str) -> None:
    with pytest.raises(SettingsError, match="a sealing key is 64 hex digits") as caught:
        seal_keys(tmp_path, given)
    assert SEAL_VARIABLE in str(caught.value)
    assert given not in str(caught.value)


def test_a_file_without_a_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "seal.key").touch()
    with pytest.raises(SettingsError, match=r"seal\.key: expected at least one sealing key"):
        seal_keys(tmp_path, "")


def test_a_server_may_have_the_files_open_that_its_connections_need(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.setrlimit", lambda kind, limit: limits.append(limit))
    for soft, hard in ((1024, 4096), (1024, resource.RLIM_INFINITY), (1024, 2000), (9000, 9000)):
        monkeypatch.setattr("resource.getrlimit", lambda kind, now=(soft, hard): now)
        allow_files(1000)
    wanted = 2000 + FILES_BESIDE
    assert limits == [(wanted, 4096), (wanted, resource.RLIM_INFINITY), (2000, 2000)]

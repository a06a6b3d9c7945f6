import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping

import msgspec
import pytest

from rejoinder.server.probe import probe
from rejoinder.server.settings import Credential, UpstreamSettings, load

CANARY = "sk-canary-7f3a"


def upstream(url: str, **changes: object) -> UpstreamSettings:
    vendor = load(None, {"OPENAI_API_KEY": CANARY}).upstreams[0]
    return msgspec.structs.replace(vendor, **({"base_url": url, "models": ("m1", "g*"), "aliases": {}} | changes))


@contextlib.asynccontextmanager
async def provider(answer: bytes, seen: list[bytes]) -> AsyncIterator[str]:
    """A provider that answers every request with these bytes and closes; no bytes: it never answers."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(65536))
        writer.write(answer)
        await (writer.drain() if answer else reader.read())
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def http(status: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


MODELS = http("200 OK", b'{"object":"list","data":[{"id":"m1","object":"model"},{"id":"m2"}]}')

GEMINI_MODELS = b'{"models":[{"name":"models/m1","supportedGenerationMethods":["generateContent"]}]}'


async def test_an_upstream_that_lists_its_models_is_well() -> None:
    seen: list[bytes] = []
    async with provider(MODELS, seen) as url:
        finding = await probe(upstream(url, headers={"x-title": "mine"}))
    assert (finding.ok, finding.told) == (True, "ok, 2 models")
    assert seen[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"authorization: Bearer " + CANARY.encode() in seen[0]
    assert b"x-title: mine" in seen[0]


@pytest.mark.parametrize(
    ("variable", "dialect", "path", "header", "listed"),
    [
        ("GROQ_API_KEY", "chat", "/models", "authorization: Bearer ", b'{"data":[{"id":"m1"}]}'),
        ("OPENAI_API_KEY", "responses", "/models", "authorization: Bearer ", b'{"data":[{"id":"m1"}]}'),
        ("ANTHROPIC_API_KEY", "anthropic", "/v1/models", "x-api-key: ", b'{"data":[{"id":"m1"}],"has_more":false}'),
        ("GEMINI_API_KEY", "gemini", "/models", "x-goog-api-key: ", GEMINI_MODELS),
    ],
)
async def test_every_dialect_has_its_own_way_to_ask(
    variable: str, dialect: str, path: str, header: str, listed: bytes
) -> None:
    seen: list[bytes] = []
    async with provider(http("200 OK", listed), seen) as url:
        [found] = load(None, {variable: CANARY}).upstreams
        finding = await probe(msgspec.structs.replace(found, base_url=url, models=("m1", "m2")))
    assert found.dialect == dialect
    assert (finding.ok, finding.told) == (True, "ok, 1 models; not among them: m2")
    asked = seen[0].decode().partition("\r\n")
    assert asked[0].split(" ")[1].partition("?")[0] == f"/v1{path}"
    assert f"{header}{CANARY}\r\n" in asked[2]


async def test_a_header_of_the_settings_replaces_the_one_of_the_dialect() -> None:
    [anthropic] = load(None, {"ANTHROPIC_API_KEY": CANARY}).upstreams
    for headers, version in ({}, b"2023-06-01"), ({"anthropic-version": "2026-10-21"}, b"2026-10-21"):
        seen: list[bytes] = []
        async with provider(http("404 Not Found"), seen) as url:
            finding = await probe(msgspec.structs.replace(anthropic, base_url=url, headers=headers))
        assert re.findall(rb"anthropic-version: (.*)\r\n", seen[0]) == [version]
        assert finding.told == "404: it has no /v1/models below base_url; /v1 is added, so it does not belong there"


async def test_azure_gets_its_key_under_its_own_name() -> None:
    seen: list[bytes] = []
    async with provider(MODELS, seen) as url:
        await probe(upstream(url, auth="api-key"))
    assert b"api-key: " + CANARY.encode() in seen[0]
    assert b"uthorization" not in seen[0]


async def test_an_upstream_without_a_key_is_asked_without_one() -> None:
    seen: list[bytes] = []
    async with provider(MODELS, seen) as url:
        await probe(upstream(url, credential=Credential(None, "none")))
    assert b"uthorization" not in seen[0]


async def test_configured_models_it_does_not_have_are_told() -> None:
    async with provider(MODELS, []) as url:
        finding = await probe(upstream(url, models=("gone", "m1"), aliases={"fast": "lost"}))
    assert (finding.ok, finding.told) == (True, "ok, 2 models; not among them: gone, lost")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http("401 Unauthorized", CANARY.encode()), "401: it refuses the key of environment variable 'OPENAI_API_KEY'"),
        (http("403 Forbidden"), "403: it refuses the key"),
        (http("404 Not Found"), "404: it has no /models below base_url; many addresses end in /v1"),
        (http("307 Moved", headers={"location": "http://127.0.0.1:1/"}), "307: it redirects, which is not followed"),
        (http("503 Busy"), "503: it answers, but not with its models"),
        (
            http("200 OK", b"<html>"),
            "200, but not with a list of models; does the server at base_url speak 'responses'?",
        ),
        (http("200 OK", b'{"data":[{"id":"\xff"}]}'), "200, but not with a list of models"),
        (http("200 OK", b'{"data":[{"name":"x"}]}'), "200, but not with a list of models"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "its answer is not HTTP as expected"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "its answer is not HTTP as expected"),
    ],
)
async def test_what_is_wrong_is_told_with_what_to_do(answer: bytes, told: str) -> None:
    async with provider(answer, []) as url:
        finding = await probe(upstream(url))
    assert not finding.ok
    assert finding.told.startswith(told)
    assert CANARY not in finding.told


async def test_an_upstream_that_wants_a_key_is_told_apart_from_one_that_refuses_ours() -> None:
    async with provider(http("401 Unauthorized"), []) as url:
        finding = await probe(upstream(url, credential=Credential(None, "none")))
    assert finding.told == "401: it wants a key; name one with api_key_env"


async def test_an_upstream_that_never_answers_ends_by_the_deadline() -> None:
    async with provider(b"", []) as url:
        finding = await probe(upstream(url), timeout=0.2)
    assert finding.told.startswith("no answer within 0.2 s")


async def test_nobody_at_the_address_is_told() -> None:
    async with provider(b"", []) as url:
        pass
    finding = await probe(upstream(url))
    assert not finding.ok
    assert finding.told.startswith("nothing answers there (")


async def test_a_server_without_tls_is_told_where_https_is_spoken() -> None:
    async with provider(b"no tls here\r\n\r\n", []) as url:
        finding = await probe(upstream(url.replace("http:", "https:")))
    assert finding.told.startswith("TLS failed (")


async def test_a_demo_needs_no_question() -> None:
    finding = await probe(load(None, {}).upstreams[0])
    assert (finding.ok, finding.told) == (True, "ok, answers by itself")


def test_certificates_are_verified_by_default() -> None:
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED

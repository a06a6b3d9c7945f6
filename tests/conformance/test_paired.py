"""The suite's own provider behind a server, and what a rule can say of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from rejoinder.conformance import paired
from rejoinder.conformance.dialects import DIALECTS, Dialect
from rejoinder.conformance.errors import Broken, NoAnswer, NotApplicable, Unreachable
from rejoinder.conformance.expectation import expect
from rejoinder.conformance.paired import Provider, base_url, dialect_of, guide, only_in, playing
from rejoinder.conformance.server import Server
from rejoinder.conformance.upstreams.asking import ask
from rejoinder.conformance.upstreams.script import answer, silence, text
from tests.conformance.little_bridge import MODEL, THEIR_KEY, LittleBridge, bridging


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A bridge in front of the provider."""
    with Provider.listening("chat", 0) as provider:
        async with (
            bridging(LittleBridge(provider.upstream.base_url)) as url,
            Server.at(url, MODEL, key=None, timeout=10, provider=provider) as reached,
        ):
            yield reached


def provider_of(server: Server) -> Provider:
    assert server.provider is not None
    return server.provider


async def test_it_does_as_it_is_told_until_a_rule_says_what_to_answer(server: Server) -> None:
    assert (await server.post(input="Hello.")).expect(200).body
    async with playing(server, answer(text("One.")), lambda seen: answer(text(f"You said: {seen.asked}"))) as scene:
        bodies = [(await server.post(input=said)).body for said in ("First.", "Second.", "Third.")]
        assert [b"One." in bodies[0], b"You said: Second." in bodies[1], b"You said: Third." in bodies[2]] == [True] * 3
        assert (scene.asked, len(scene.requests), len(scene.prompts)) == (3, 3, 3)
        assert scene.prompt(3).asked == "Third."
        assert scene.prefix(1)[-1] == b'{"role":"user","content":"First."}'
        assert scene.said > 0
        scene.forget()
        assert scene.said == 0
    assert b"You said" not in (await server.post(input="Fourth.")).body


async def test_what_the_provider_was_asked_is_in_the_transcript(server: Server) -> None:
    async with playing(server, answer(text("One."))):
        await server.post(input="First.")
    [told] = [one for one in server.transcript if one.asked.startswith("the server asks the provider: POST ")]
    assert b"First." in told.sent
    assert b"One." in b"".join(told.pieces)


async def test_a_request_that_did_not_come_is_a_breach(server: Server) -> None:
    async with playing(server, answer(text("One."))) as scene:
        with pytest.raises(Broken, match="the provider to be asked, 1 times by now, got 0 times"):
            scene.request(1)


async def test_a_request_that_does_not_come_in_time_is_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "_PATIENCE", 0.02)
    async with playing(server, answer(text("One."))) as scene:
        with pytest.raises(NoAnswer, match="1 times by now, got 0 times"):
            await scene.wait()


async def test_what_another_rule_left_running_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "_LEFT_OVER", 0.02)
    async with playing(server, silence()) as scene:
        waiting = asyncio.create_task(server.post(input="Hello."))
        await scene.wait()
    async with playing(server, answer(text("One."))):
        assert (await waiting).status >= 500
        assert provider_of(server).upstream.running == 0


async def test_the_providers_own_reason_is_what_a_broken_rule_says(server: Server) -> None:
    async def broken() -> None:
        async with playing(server, answer(text("One."))) as scene:
            ask(provider_of(server).upstream, "/v1/chat/completions", _STRAY, {"authorization": f"Bearer {THEIR_KEY}"})
            assert scene.objection is not None
            expect(False, "an answer", "none")

    with pytest.raises(Broken, match=r"^expected a request that the provider takes, got its refusal: .*'tool'"):
        await broken()


_STRAY = {"model": MODEL, "messages": [{"role": "tool", "tool_call_id": "call_stray", "content": "12:00"}]}


async def test_a_rule_that_breaks_for_another_reason_keeps_it(server: Server) -> None:
    async def broken() -> None:
        async with playing(server, answer(text("One."))):
            expect(False, "an answer", "none")

    with pytest.raises(Broken, match=r"^expected an answer, got none$"):
        await broken()


async def test_without_a_provider_there_is_nothing_to_play() -> None:
    async with Server.at("http://127.0.0.1:1/v1", MODEL, key=None, timeout=1) as alone:
        for look in (lambda: dialect_of(alone), lambda: only_in(alone, "chat", because="has none")):
            with pytest.raises(NotApplicable, match="needs --paired"):
                look()
        with pytest.raises(NotApplicable, match="needs --paired"):
            async with playing(alone, answer(text("One."))):
                raise AssertionError("there is no scene")


async def test_some_things_only_some_providers_have(server: Server) -> None:
    only_in(server, "chat", "gemini", because="has none")
    with pytest.raises(NotApplicable, match=r"^Chat Completions has none$"):
        only_in(server, "anthropic", because="has none")


async def test_the_key_is_known_once_it_was_seen(server: Server) -> None:
    provider = provider_of(server)
    assert provider.key is None
    url = "/v1/chat/completions"
    hello = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}]}
    for header, value in (("authorization", "Bearer short"), ("x-none", "long-enough-4711")):
        ask(provider.upstream, url, hello, {header: value})
    assert provider.key is None, "what is that short is in every text"
    for header, value in (("authorization", "Bearer long-enough-1"), ("api-key", "long-enough-2")):
        ask(provider.upstream, url, hello, {header: value})
        assert provider.key == value.removeprefix("Bearer ")


async def test_who_asks_nobody_is_told_where_the_provider_is(server: Server) -> None:
    provider = provider_of(server)
    with pytest.raises(
        Unreachable, match=r"does not ask the provider at .*: it was asked for nothing. Give it a provider"
    ):
        provider.check_asked()
    ask(provider.upstream, "/v2/nowhere", {})
    with pytest.raises(Unreachable, match="it was asked for POST /v2/nowhere, which it does not have"):
        provider.check_asked()
    await server.post(input="Hello.")
    provider.check_asked()


def test_a_port_that_is_taken_is_told() -> None:
    with (
        Provider.listening("chat", 0) as provider,
        pytest.raises(Unreachable, match=f"cannot listen on port {provider.upstream.port} .*--provider-port"),
        Provider.listening("chat", provider.upstream.port),
    ):
        raise AssertionError("there are two on one port")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_where_it_says(dialect: Dialect) -> None:
    with Provider.listening(dialect, 0) as provider:
        assert base_url(dialect, provider.upstream.port) == provider.upstream.base_url
        assert provider.upstream.base_url in guide(dialect, provider.upstream.port)

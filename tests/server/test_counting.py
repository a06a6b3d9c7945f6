from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
import tomlkit

from rejoinder.bridge.errors import BrokenStream, Unsupported, UpstreamError
from rejoinder.server import counting
from rejoinder.server.assembly import assemble
from rejoinder.server.counting import count
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from tests.server.site import NOWHERE, WEATHER, closing, request_of, services_in, site, user
from tests.upstreams.anthropic import AnthropicUpstream
from tests.upstreams.gemini import GeminiUpstream
from tests.upstreams.provider import Reply
from tests.upstreams.responses import ResponsesUpstream
from tests.upstreams.script import answer, text

Upstream: TypeAlias = AnthropicUpstream | GeminiUpstream | ResponsesUpstream


VENDORS = {"anthropic": "anthropic", "responses": "openai"}
"""Servers nobody knows are not believed to count."""


def services(directory: Path, dialect: str, base_url: str) -> Services:
    upstream = {"name": "test", "dialect": dialect, "base_url": base_url, "models": ["*"]}
    tables = {
        "server": {"store": f"disk:{directory / 'store'}", "first_byte_timeout": 0.5},
        "upstream": [upstream | ({"vendor": VENDORS[dialect]} if dialect in VENDORS else {})],
    }
    file = directory / "rejoinder.toml"
    file.write_text(tomlkit.dumps(tables))
    return assemble(load(file, {}))


ASKED: Sequence[tuple[str, type[Upstream], str, str]] = (
    ("anthropic", AnthropicUpstream, "claude-sonnet-4-5", "/v1/messages/count_tokens"),
    ("gemini", GeminiUpstream, "gemini-3-flash", "/v1beta/models/gemini-3-flash:countTokens"),
    ("responses", ResponsesUpstream, "gpt-5.4", "/v1/responses/input_tokens"),
)


@pytest.mark.parametrize(("dialect", "kind", "model", "path"), ASKED, ids=[row[0] for row in ASKED])
async def test_the_provider_counts_what_a_turn_would_send(
    tmp_path: Path, dialect: str, kind: type[Upstream], model: str, path: str
) -> None:
    with kind([answer(text("hello there"))], models=[model]) as provider:
        async with site(services(tmp_path, dialect, provider.base_url)) as here:
            first = (await here.create(model=model, input="hello", tools=[WEATHER])).json
            reply = await here.ask(
                "POST",
                "/v1/responses/input_tokens",
                b'{"model":"%b","input":"and now?","previous_response_id":"%b"}'
                % (model.encode(), first["id"].encode()),
            )
        [sent] = provider.asides
        assert provider.objections == []
    assert reply.status == 200
    assert reply.json == {"object": "response.input_tokens", "input_tokens": reply.json["input_tokens"]}
    assert reply.json["input_tokens"] > 0
    assert sent.path == path
    for words in (b"hello", b"hello there", b"and now?"):
        assert words in sent.body


async def test_where_nobody_counts_the_request_is_refused_by_name(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as made:
        with pytest.raises(
            Unsupported, match="the protocol of upstream 'test' has no request that counts tokens"
        ) as raised:
            await count(request_of(input="hi"), made, owner="local")
    assert raised.value.param == "model"


async def test_what_the_provider_refuses_is_refused(tmp_path: Path) -> None:
    with AnthropicUpstream(models=["claude-sonnet-4-5"], key="the key") as provider:
        async with closing(services(tmp_path, "anthropic", provider.base_url)) as made:
            with pytest.raises(UpstreamError) as raised:
                await count(request_of(model="claude-sonnet-4-5", input="hi"), made, owner="local")
    assert raised.value.status == 401


async def test_a_count_that_is_none_or_does_not_come_is_the_providers_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ResponsesUpstream(models=["gpt-5.4"]) as provider:
        async with closing(services(tmp_path, "responses", provider.base_url)) as made:
            request = request_of(model="gpt-5.4", input=[user("hi")])
            monkeypatch.setattr(provider, "_answer_aside", lambda sent: Reply(200, {}))
            with pytest.raises(BrokenStream, match="makes no sense"):
                await count(request, made, owner="local")
            monkeypatch.setattr(counting, "COUNT_TIMEOUT", 0.0)
            with pytest.raises(BrokenStream, match="in time"):
                await count(request, made, owner="local")

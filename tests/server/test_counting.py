from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
import tomlkit

from rejoinder.bridge.compaction import IMAGE_TOKENS
from rejoinder.bridge.errors import BrokenStream, Unsupported, UpstreamError
from rejoinder.bridge.words import MESSAGE_TOKENS, REPLY_TOKENS
from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.provider import Reply
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.script import answer, call, calls, text
from rejoinder.server import counting
from rejoinder.server.assembly import assemble
from rejoinder.server.counting import COUNTED_BY, Counted, InputTokens, count
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from tests.server.site import NOWHERE, WEATHER, body_of, closing, output_of, request_of, services_in, site, user

Upstream: TypeAlias = AnthropicUpstream | GeminiUpstream | ResponsesUpstream


VENDORS = {"anthropic": "anthropic", "responses": "openai"}
"""Servers nobody knows are not believed to count."""


PROSE = Path(counting.__file__).read_text()


def services(directory: Path, dialect: str, base_url: str, *, profile: Mapping[str, object] | None = None) -> Services:
    upstream = {"name": "test", "dialect": dialect, "base_url": base_url, "models": ["*"]}
    tables = {
        "server": {"store": f"disk:{directory / 'store'}", "first_byte_timeout": 0.5},
        "upstream": [
            upstream
            | ({"vendor": VENDORS[dialect]} if dialect in VENDORS else {})
            | ({dialect: dict(profile)} if profile else {})
        ],
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


async def test_where_nobody_counts_a_tokenizer_does_and_says_so(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as made:
        counted = await count(request_of(input="hi"), made, owner="local")
    assert counted == Counted(InputTokens(1 + MESSAGE_TOKENS + REPLY_TOKENS), "o200k_base")


async def test_the_estimate_is_what_openai_counts_itself(tmp_path: Path) -> None:
    """The prompt of the first example in OpenAI's reference of Chat Completions, whose usage says 19."""
    async with closing(services_in(tmp_path, NOWHERE)) as made:
        asked = request_of(model="gpt-5.4", instructions="You are a helpful assistant.", input="Hello!")
        counted = await count(asked, made, owner="local")
    assert counted.answer.input_tokens == 19


async def test_the_vocabulary_is_that_of_the_model(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as made:
        asked = {model: request_of(model=model, input="お誕生日おめでとう") for model in ("gpt-4", "gpt-4o")}
        counted = {model: await count(request, made, owner="local") for model, request in asked.items()}
    assert {model: one.by for model, one in counted.items()} == {"gpt-4": "cl100k_base", "gpt-4o": "o200k_base"}
    assert counted["gpt-4"].answer.input_tokens == counted["gpt-4o"].answer.input_tokens + 1


async def test_the_estimate_grows_with_all_that_is_sent(tmp_path: Path) -> None:
    form = {"format": {"type": "json_schema", "name": "n", "schema": WEATHER["parameters"]}}
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
    growing: Sequence[dict[str, object]] = (
        {"input": "What is the weather?"},
        {"input": "What is the weather in Oslo?"},
        {"input": "What is the weather in Oslo?", "instructions": "Be brief."},
        {"input": "What is the weather in Oslo?", "tools": [WEATHER]},
        {"input": "What is the weather in Oslo?", "tools": [WEATHER], "text": form},
        {"input": [user("What is the weather in Oslo?"), {"role": "user", "content": [picture]}], "tools": [WEATHER]},
    )
    async with closing(services_in(tmp_path, NOWHERE)) as made:
        counted = [await count(request_of(**fields), made, owner="local") for fields in growing]
    numbers = [one.answer.input_tokens for one in counted]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[3] == IMAGE_TOKENS + MESSAGE_TOKENS


async def test_a_long_text_is_some_four_letters_a_token(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as made:
        counted = await count(request_of(input=PROSE), made, owner="local")
    assert 3 < len(PROSE) / counted.answer.input_tokens < 6


async def test_a_continuation_counts_its_ancestors(tmp_path: Path) -> None:
    script = [
        answer(calls(call("weather", '{"city":"Oslo"}'))),
        answer(text("Rain all day, and some wind from the west.")),
    ]
    with ChatUpstream(script) as provider:
        async with site(services_in(tmp_path, provider.base_url)) as here:
            first = (await here.create(input="What is the weather?", tools=[WEATHER])).json
            [called] = [item for item in first["output"] if item["type"] == "function_call"]
            given = [output_of(called["call_id"], "It rains.")]
            second = (await here.create(input=given, tools=[WEATHER], previous_response_id=first["id"])).json
            replies = [
                await here.ask("POST", "/v1/responses/input_tokens", body_of(tools=[WEATHER], **fields))
                for fields in (
                    {"input": "What is the weather?"},
                    {"input": given, "previous_response_id": first["id"]},
                    {"input": "And now?", "previous_response_id": second["id"]},
                )
            ]
        # The client's conversation cost the provider two turns, and counting it nothing.
        assert len(provider.requests) == 2
        assert provider.asides == []
        assert provider.objections == []
    assert [reply.status for reply in replies] == [200, 200, 200]
    numbers = [reply.json["input_tokens"] for reply in replies]
    assert replies[0].json == {"object": "response.input_tokens", "input_tokens": numbers[0]}
    assert numbers == sorted(set(numbers))


async def test_what_an_upstream_keeps_itself_is_counted_too(tmp_path: Path) -> None:
    """A call may refer to the response before it and say nothing of it; what it consumes is the same."""
    kept = {"lineage": "reference", "stores": True, "counts": False}
    with ResponsesUpstream([answer(text("hello there"))], models=["gpt-5.4"]) as provider:
        made = services(tmp_path, "responses", provider.base_url, profile=kept)
        async with site(made) as here:
            long = "Tell me about the weather. " * 50
            first = (await here.create(model="gpt-5.4", input=long)).json
            asked = request_of(model="gpt-5.4", input="and now?", previous_response_id=first["id"])
            counted = await count(asked, made, owner="local")
    assert counted.by == "o200k_base"
    assert counted.answer.input_tokens > 300


async def test_the_header_says_who_counted(tmp_path: Path) -> None:
    with AnthropicUpstream(models=["claude-sonnet-4-5"]) as provider:
        async with site(services(tmp_path, "anthropic", provider.base_url)) as here:
            asked = body_of(model="claude-sonnet-4-5", input="hi")
            told = await here.ask("POST", "/v1/responses/input_tokens", asked)
    async with site(services_in(tmp_path, NOWHERE)) as here:
        estimated = await here.ask("POST", "/v1/responses/input_tokens", body_of(input="hi"))
    assert (told.status, told.headers[COUNTED_BY]) == (200, "provider")
    assert (estimated.status, estimated.headers[COUNTED_BY]) == (200, "o200k_base")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [user("hi")], "tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "tools"),
        ({"input": []}, "input"),
        ({"input": "hi", "tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_what_could_not_be_sent_is_not_counted(tmp_path: Path, fields: dict[str, object], param: str) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as made:
        with pytest.raises(Unsupported) as raised:
            await count(request_of(**fields), made, owner="local")
    assert raised.value.param == param


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

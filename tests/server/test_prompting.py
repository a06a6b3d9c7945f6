import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tomlkit

from rejoinder.bridge.errors import Unsupported
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.script import answer, call, calls, text, thought
from rejoinder.server.assembly import assemble
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from rejoinder.wire.errors import BadRequest
from tests.server.site import NOWHERE, Json, closing, output_of, said, services_in, user

MODEL = "gpt-5.4"


@asynccontextmanager
async def referring(directory: Path) -> AsyncIterator[tuple[Services, ResponsesUpstream, ResponsesUpstream]]:
    """A server before two upstreams of this very API that keep their responses themselves."""
    with ResponsesUpstream(models=[MODEL]) as one, ResponsesUpstream(models=[MODEL]) as two:
        upstreams = [
            {"name": name, "vendor": "openai", "base_url": upstream.base_url, "models": ["*"], "responses": REFERENCE}
            for name, upstream in (("one", one), ("two", two))
        ]
        tables = {"server": {"store": f"disk:{directory / 'store'}", "retries": 0}, "upstream": upstreams}
        file = directory / "rejoinder.toml"
        file.write_text(tomlkit.dumps(tables))
        async with closing(assemble(load(file, {}))) as services:
            yield services, one, two
        assert (one.objections, two.objections) == ([], [])


REFERENCE = {"lineage": "reference"}


def sent(provider: ResponsesUpstream) -> list[tuple[str | None, int]]:
    """The response each request refers to, and how many items it brings."""
    bodies: list[Json] = [json.loads(request.body) for request in provider.requests]
    return [(body.get("previous_response_id"), len(body["input"])) for body in bodies]


async def test_what_the_upstream_keeps_is_referred_to_and_never_said_again(tmp_path: Path) -> None:
    async with referring(tmp_path) as (services, one, two):
        one.follow(
            [
                answer(thought("hm", signature="s1"), calls(call("weather", "{}", id="call_1"))),
                answer(text("Sunny.")),
                answer(text("Bye.")),
            ]
        )
        two.follow([answer(text("Rainy."))])
        tools = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}]
        first = await said(services, model=f"one/{MODEL}", input=[user("hi"), user("there")], tools=tools)
        second = await said(
            services,
            model=f"one/{MODEL}",
            input=[output_of("call_1", "sun")],
            previous_response_id=first["id"],
            tools=tools,
        )
        # At another account nobody knows the response, so it is told all of it.
        third = await said(services, model=f"two/{MODEL}", input="and?", previous_response_id=second["id"], tools=tools)
        await said(services, model=f"one/{MODEL}", input="so?", previous_response_id=third["id"], tools=tools)
        stored = await services.store.lineage(third["id"], owner="local")
    assert [record.upstream for record in stored] == ["one", "one", "two"]
    assert sent(one) == [(None, 2), (stored[0].upstream_id, 1), (None, 9)]
    assert sent(two) == [(None, 6)]
    assert stored[0].upstream_id != first["id"]


async def test_what_cannot_be_asked_is_refused_before_anybody_is(tmp_path: Path) -> None:
    async with closing(services_in(tmp_path, NOWHERE)) as services:
        with pytest.raises(Unsupported):
            await said(services, input="hi", tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}])
        with pytest.raises(BadRequest, match="moderation"):
            await said(services, input="hi", moderation={"model": "m"})
        with pytest.raises(BadRequest, match="Unknown parameter"):
            await said(services, input="hi", hologram={"a": 1})


async def test_what_is_sealed_for_an_owner_is_opened_for_nobody_else(tmp_path: Path) -> None:
    with ChatUpstream() as provider:
        provider.follow(lambda request: answer(thought("hm", place="reasoning_details"), text("hi")))
        async with closing(services_in(tmp_path, provider.base_url)) as services:
            first = await said(services, input="one", owner="ann")
            back = [user("one"), *first["output"], user("two")]
            await said(services, input=back, owner="ann")
            await said(services, input=back, owner="bob")
        assert provider.objections == []
        details = [sent.chat.messages[1].reasoning_details for sent in provider.requests[1:]]
    assert first["output"][0]["encrypted_content"].startswith("brg1.")
    assert b"hm" in bytes(details[0])
    assert bytes(details[1]) == b"null"


async def test_a_turn_that_asks_twice_opens_what_it_sealed_itself(tmp_path: Path) -> None:
    """Nothing is decrypted that was encrypted a moment ago; what goes on from it is sent whole."""
    search = [
        {"type": "tool_search"},
        {"type": "function", "name": "clock", "description": "time", "defer_loading": True},
    ]
    with ChatUpstream() as provider:
        provider.follow(
            [
                answer(thought("hm", place="reasoning_details"), calls(call("tool_search", '{"query":"time"}'))),
                answer(text("ok")),
            ]
        )
        async with closing(services_in(tmp_path, provider.base_url)) as services:
            response = await said(services, input="one", tools=search)
        assert provider.objections == []
        assert response["status"] == "completed"
        assert b"hm" in bytes(provider.requests[1].chat.messages[1].reasoning_details)


@pytest.mark.parametrize(
    ("definition", "wrong"), [("[a-c]+", False), ("[a-c", True)], ids=["one that can be read", "one that cannot"]
)
async def test_a_grammar_is_read_before_anybody_is_asked_where_texts_are_compared_with_it(
    tmp_path: Path, definition: str, wrong: bool
) -> None:
    tool = {
        "type": "custom",
        "name": "letters",
        "format": {"type": "grammar", "syntax": "regex", "definition": definition},
    }
    plain = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    with ChatUpstream() as provider:
        provider.follow(lambda request: answer(text("hi")))
        async with closing(services_in(tmp_path, provider.base_url, grammar="check")) as services:
            if wrong:
                with pytest.raises(Unsupported, match="the grammar of tool 'letters' cannot be read") as caught:
                    await said(services, input="hi", tools=[plain, tool])
                assert caught.value.param == "tools"
            else:
                await said(services, input="hi", tools=[plain, tool])
        assert len(provider.requests) == (0 if wrong else 1)


async def test_what_is_stored_of_a_turn_is_what_its_provider_is_sent_again(tmp_path: Path) -> None:
    """A provider of this very API gets an item in the same bytes from the client's request and from the store."""
    odd = [{"role": "user", "content": "é", "x": 1.50}, {"type": "message", "role": "user", "content": "b", "id": None}]
    with ResponsesUpstream(models=[MODEL]) as provider:
        provider.follow(lambda request: answer(text("hi")))
        file = tmp_path / "rejoinder.toml"
        tables = {
            "server": {"store": f"disk:{tmp_path / 'store'}"},
            "upstream": [{"name": "one", "vendor": "openai", "base_url": provider.base_url, "models": ["*"]}],
        }
        file.write_text(tomlkit.dumps(tables))
        async with closing(assemble(load(file, {}))) as services:
            first = await said(services, model=MODEL, input=odd)
            await said(services, model=MODEL, input="c", previous_response_id=first["id"])
        assert provider.objections == []
        one, two = (sent.body[sent.body.index(b'"input":[') : -2] for sent in provider.requests)
    assert two.startswith(one + b",")

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tomlkit

from rejoinder.bridge.errors import Unsupported
from rejoinder.server.assembly import assemble
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from rejoinder.wire.errors import BadRequest
from tests.server.site import NOWHERE, Json, closing, output_of, said, services_in, user
from tests.upstreams.responses import ResponsesUpstream
from tests.upstreams.script import answer, call, calls, text, thought

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

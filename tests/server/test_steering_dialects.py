"""Words said to a response, and an interruption, in front of each kind of provider (websocket.md §7, codex.md §7).

Every provider is strict about the history it is sent: what a response leaves behind that ended early has to be one it
takes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import answer, call, calls, text, thought
from tests.server.site import CODEX, WEATHER, Json, folded, output_of, services_in, site
from tests.server.sockets import talking
from tests.server.speakers import SPEAKERS, Speaker, Upstream


@pytest.fixture(params=SPEAKERS)
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return SPEAKERS[request.param]


@pytest.fixture
def provider(speaker: Speaker) -> Iterator[Upstream]:
    with speaker.provider(models=[speaker.model]) as upstream:
        yield upstream
        assert upstream.objections == []


@pytest.mark.parametrize("store", [True, False])
async def test_words_said_while_a_model_thinks_are_heard_by_every_provider(
    speaker: Speaker, provider: Upstream, tmp_path: Path, store: bool
) -> None:
    held = Held(answer(thought("let me", " see"), text("never said")), after=2)
    provider.follow([held, answer(text("as you like"))])
    fields: Json = {"model": speaker.model, "store": store, "reasoning": {"effort": "low"}}
    services = services_in(tmp_path, provider.base_url, dialect=speaker.dialect)
    async with site(services) as here, talking(here) as talk:
        await talk.create(input="think", **fields)
        begun = await talk.until("response.output_item.added")
        first = begun[0]["response"]["id"]
        await talk.send({"type": "response.steer", "previous_response_id": first, "input": "briefly"})
        heard = await talk.until("response.steer.accepted")
        assert heard[-1]["steer"]["previous_response_id"] == first
        held.release()
        ended = (await talk.answer())[-1]
        assert ended["response"]["incomplete_details"] == {"reason": "steered"}
        assert [item["type"] for item in ended["response"]["output"]] == ["reasoning"]
        response = folded(await talk.answer())
        assert response["output"][-1]["content"][0]["text"] == "as you like"
    assert len(provider.requests) == 2
    assert [b"think" in provider.requests[1].body, b"briefly" in provider.requests[1].body] == [True, True]


async def test_words_wait_for_results_in_front_of_every_provider(
    speaker: Speaker, provider: Upstream, tmp_path: Path
) -> None:
    spoken = calls(call("weather", '{"city":', '"Rome"}', id="call_1"))
    held = Held(answer(text("one moment"), spoken), after=3 if speaker.dialect != "gemini" else 2)
    provider.follow([held, answer(text("sunny"))])
    fields: Json = {"model": speaker.model, "store": False, "tools": [WEATHER]}
    services = services_in(tmp_path, provider.base_url, dialect=speaker.dialect)
    async with site(services) as here, talking(here) as talk:
        await talk.create(input="weather?", **fields)
        begun = await talk.until("response.output_text.done")
        while begun[-1].get("item", {}).get("type") != "function_call":  # some state may go in front of it
            begun += await talk.until("response.output_item.added")
        first = begun[0]["response"]["id"]
        await talk.send({"type": "response.steer", "previous_response_id": first, "input": "in French"})
        await talk.until("response.steer.accepted")
        held.release()
        heard = await talk.answer()
        made = heard[-1]["response"]["output"][-1]
        pending = await talk.next()
        assert pending["required_input"] == [
            {"type": "function_call_output", "name": "weather", "call_id": made["call_id"]}
        ]
        await talk.create(input=[output_of(made["call_id"], "sun")], previous_response_id=first, **fields)
        assert folded(await talk.answer())["output"][0]["content"][0]["text"] == "sunny"
    assert [b"sun" in provider.requests[1].body, b"in French" in provider.requests[1].body] == [True, True]


async def test_codex_goes_on_from_where_it_interrupted_every_provider(
    speaker: Speaker, provider: Upstream, tmp_path: Path
) -> None:
    held = Held(answer(thought("let me", " see"), text("half a", " sentence")), after=4)
    provider.follow([held, answer(text("as you like"))])
    fields: Json = {"model": speaker.model, "store": False, "reasoning": {"effort": "low"}}
    services = services_in(tmp_path, provider.base_url, dialect=speaker.dialect)
    async with site(services) as here, talking(here, headers=CODEX) as talk:
        await talk.create(input="go", **fields)
        begun = await talk.until("response.output_text.delta")
        first = begun[0]["response"]["id"]
        await talk.send({"type": "response.interrupt", "response_id": first, "mode": "discard_partial_items"})
        ended = (await talk.answer())[-1]["response"]
        assert ended["incomplete_details"] == {"reason": "interrupted"}
        assert [item["type"] for item in ended["output"]] == ["reasoning"]
        await talk.create(input="rather this", previous_response_id=first, **fields)
        folded(await talk.answer())
    assert b"half a" not in provider.requests[1].body

"""What this server asks a provider, asked again by that provider's own SDK: its client knows every field of it, and
puts the same JSON on the wire. (Gemini's is in `tests/bridge/test_gemini_sdk.py`.)"""

import json
from pathlib import Path

import anthropic
import openai
import pytest

from rejoinder.conformance.upstreams.script import answer, call, calls, text
from tests.server.site import Json, output_of, user
from tests.server.test_portable import Journey, Upstream, served, thinks

pytestmark = pytest.mark.clients

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LOOK: Json = {
    "type": "message",
    "role": "user",
    "content": [
        {"type": "input_text", "text": "What is it like there?", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}", "detail": "high"},
    ],
}


async def asked(directory: Path, kind: str) -> list[Json]:
    """The bodies of a conversation: a picture, thoughts, a call and its result, a developer's word, another turn."""
    bodies: list[Json] = []
    async with served(directory, kind, kind) as (services, one, _):
        one.follow(
            [
                thinks("Hm.", "state", calls(call("weather", '{"city":', '"Oslo"}', id="call_1"))),
                thinks("Well.", "more", text("Sunny.")),
                answer(text("Bye.")),
            ]
        )
        journey = Journey(services, (kind, kind), stored=True, stream=True)
        first = await journey.say(0, LOOK)
        await journey.say(0, output_of(first.calls[0]["call_id"], "sunny"))
        await journey.say(0, {"type": "message", "role": "developer", "content": "Be brief."}, user("Bye!"))
        bodies.extend(json.loads(request.body) for request in one.requests)
        await _again(kind, one, bodies)
    return bodies


async def _again(kind: str, provider: Upstream, bodies: list[Json]) -> None:
    """Ask the provider the same by its own SDK, which it remembers and so has nothing against."""
    for number, body in enumerate(bodies):
        provider.follow([answer(text("again"))])
        if kind == "anthropic":
            async with (
                anthropic.AsyncAnthropic(api_key="key", base_url=provider.base_url, max_retries=0) as claude,
                await claude.messages.create(**body) as stream,
            ):
                events = [event.type async for event in stream]
        else:
            async with (
                openai.AsyncOpenAI(api_key="key", base_url=provider.base_url, max_retries=0) as client,
                await client.responses.create(**body) as stream,
            ):
                events = [event.type async for event in stream]
        assert events[-1] in ("message_stop", "response.completed")
        assert json.loads(provider.requests[-1].body) == body, number


@pytest.mark.filterwarnings("ignore:The model 'claude:DeprecationWarning")  # the SDK has dates for its models
@pytest.mark.parametrize("kind", ["anthropic", "responses"])
async def test_the_vendors_own_client_says_the_same(tmp_path: Path, kind: str) -> None:
    bodies = await asked(tmp_path, kind)
    assert len(bodies) == 3
    assert "Oslo" in json.dumps(bodies[1])

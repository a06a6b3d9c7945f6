"""Conversations that move between providers: start on one, call tools, go on at another, and come back (mapping.md §5).

Every provider of this matrix refuses what the real one refuses: a call without its result, a signature it did not give,
a part it has no word for. What the second provider cannot have is told, item by item, with every hop.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest
import tomlkit

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.responses_script import custom_call
from rejoinder.conformance.upstreams.script import Answer, Part, ToolCall, answer, call, calls, text, thought
from rejoinder.server import turn
from rejoinder.server.assembly import assemble
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from tests.bridge import grammar, responses_grammar
from tests.server.site import Json, Listener, closing, output_of, request_of, user

Upstream: TypeAlias = ChatUpstream | AnthropicUpstream | GeminiUpstream | ResponsesUpstream

KINDS: dict[str, type[Upstream]] = {
    "chat": ChatUpstream,
    "anthropic": AnthropicUpstream,
    "gemini": GeminiUpstream,
    "responses": ResponsesUpstream,
}
MODELS = {
    "chat": "deepseek-reasoner",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-3-flash",
    "responses": "gpt-5.4",
}

WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
NOTE: Json = {"type": "custom", "name": "note", "description": "Keeps a note.", "format": {"type": "text"}}


def opened(kind: str) -> Upstream:
    return KINDS[kind](models=[MODELS[kind]])


@dataclass(slots=True)
class Journey:
    """One client of one server before two providers. `stored`: it continues by id, else it holds the history itself."""

    services: Services
    kinds: tuple[str, str]
    stored: bool
    stream: bool
    past: list[Json] = field(default_factory=list)
    previous: str | None = None

    async def say(self, where: int, *said: Json) -> "Hop":
        """One turn at a provider, which ends as it should."""
        fields: dict[str, object] = {"previous_response_id": self.previous} if self.stored else {"store": False}
        request = request_of(
            model=f"{('one', 'two')[where]}/{MODELS[self.kinds[where]]}",
            input=[*said] if self.stored else [*self.past, *said],
            tools=[WEATHER, NOTE],
            reasoning={"effort": "low", "summary": "auto"},
            stream=self.stream,
            **fields,
        )
        listener = Listener(live=self.stream)
        outcome = await turn.run(request, listener, self.services, owner="local")
        response = json.loads(bytes(outcome.response))
        assert response["status"] == "completed", response["error"]
        if self.stream:
            # What a provider of this very API says beyond the grammar is its own.
            judged = responses_grammar.judged if self.kinds[where] == "responses" else grammar.judged
            judged([json.dumps(event).encode() for event in listener.events])
        self.past += [*said, *response["output"]]
        self.previous = response["id"]
        return Hop(response, [(loss.type, loss.reason, loss.issuer) for loss in outcome.losses])


@dataclass(frozen=True, slots=True)
class Hop:
    response: Json
    losses: Sequence[tuple[str, str, str]]

    @property
    def calls(self) -> list[Json]:
        return [item for item in self.response["output"] if item["type"].endswith("_call")]

    @property
    def text(self) -> str:
        parts = [part for item in self.response["output"] for part in item.get("content") or ()]
        return "".join(part["text"] for part in parts)

    @property
    def transformed(self) -> list[tuple[str, str]]:
        return [(one["type"], one["reason"]) for one in self.response.get("input_transformations", [])]


@asynccontextmanager
async def served(
    directory: Path, start: str, other: str, *, compacts: bool = True
) -> AsyncIterator[tuple[Services, Upstream, Upstream]]:
    """A server before two scripted providers, `one` and `two`, which have no objections at the end. `compacts`: those
    of this very API summarise by themselves."""
    with ExitStack() as stack:
        one, two = opened(start), opened(other)
        stack.enter_context(one)
        stack.enter_context(two)
        tables = {
            "server": {"store": f"disk:{directory / 'store'}", "retries": 0},
            "upstream": [
                {"name": name, "dialect": kind, "base_url": upstream.base_url, "models": ["*"]}
                # As OpenAI does it: a server nobody knows is asked for no more than functions.
                | ({"vendor": "openai", "responses": {"compacts": compacts}} if kind == "responses" else {})
                for name, kind, upstream in (("one", start, one), ("two", other, two))
            ],
        }
        file = directory / "rejoinder.toml"
        file.write_text(tomlkit.dumps(tables))
        async with closing(assemble(load(file, {}))) as services:
            yield services, one, two
        assert (one.objections, two.objections) == ([], [])


def thinks(words: str, state: str, *rest: Part) -> Answer:
    return answer(thought(words, place="reasoning_details", signature=state), *rest)


def noted(kind: str, beside: ToolCall) -> Sequence[Part]:
    """A call beside one of the free-form tool, which everybody but this very API takes for a function."""
    if kind == "responses":
        return calls(beside), custom_call("note", "hm", id="call_2")
    return (calls(beside, call("note", '{"input":"hm"}', id="call_2")),)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("stored", [False, True], ids=["stateless", "stored"])
@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("start", KINDS)
async def test_a_conversation_goes_to_another_provider_in_the_middle_of_its_calls_and_comes_back(
    tmp_path: Path, start: str, other: str, stored: bool, stream: bool
) -> None:
    async with served(tmp_path, start, other) as (services, one, two):
        weather = call("weather", '{"city":', '"Oslo"}', id="call_1")
        one.follow(
            [
                thinks("Two things.", "state-of-one", *noted(start, weather)),
                thinks("Home again.", "state-again", text("Back.")),
            ]
        )
        two.follow([thinks("And Rome.", "state-of-two", calls(call("weather", '{"city":"Rome"}', id="call_3")))])
        journey = Journey(services, (start, other), stored, stream)

        first = await journey.say(0, user("What is it like in Oslo and in Rome?"))
        outputs = [
            {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": f"output of {item['name']}"}
            for item in first.calls
        ]
        assert [item["type"] for item in first.calls] == ["function_call", "custom_tool_call"]
        second = await journey.say(1, *outputs)
        [there] = second.calls
        third = await journey.say(0, output_of(there["call_id"], "output of Rome"))

    assert (there["name"], json.loads(there["arguments"])) == ("weather", {"city": "Rome"})
    assert third.text == "Back."
    away, home = two.requests[0].body, one.requests[1].body
    for said in (b"What is it like", b"Oslo", b"output of weather", b"output of note"):
        assert said in away
        assert said in home
    assert b"output of Rome" in home
    # What one provider sealed goes back to it, and to nobody else.
    assert b"state-of-one" not in away
    assert b"state-of-one" in home
    assert b"state-of-two" not in home
    reason = "organization_mismatch" if start == other else "model_mismatch"
    assert first.losses == []
    assert [(kind, why) for kind, why, _ in second.losses] == [("reasoning", reason)]
    assert [(kind, why) for kind, why, _ in third.losses] == [("reasoning", reason)]
    assert second.transformed == third.transformed == [("reasoning", reason)]


@pytest.mark.parametrize("stored", [False, True], ids=["stateless", "stored"])
@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("start", KINDS)
async def test_a_summary_one_model_wrote_is_read_by_any_other(
    tmp_path: Path, start: str, other: str, stored: bool
) -> None:
    async with served(tmp_path, start, other, compacts=False) as (services, one, two):
        weather = call("weather", '{"city":"Oslo"}', id="call_1")
        one.follow([thinks("Hm.", "state-of-one", calls(weather)), thinks("Well.", "more", text("Oslo is sunny."))])
        two.follow([thinks("Yes.", "state-of-two", text("It was Oslo."))])
        journey = Journey(services, (start, other), stored, stream=True)

        first = await journey.say(0, user("What is it like in Oslo?"))
        second = await journey.say(0, output_of(first.calls[0]["call_id"], "sunny"), {"type": "compaction_trigger"})
        journey.past = [item for item in journey.past if item["type"] != "compaction_trigger"]
        third = await journey.say(1, user("Which city was it?"))

    assert [item["type"] for item in second.response["output"]] == ["compaction"]
    assert third.text == "It was Oslo."
    asked, away = one.requests[1].body, two.requests[0].body
    assert b"write a summary of this conversation" in asked
    assert b"Oslo is sunny." in away
    assert b"What is it like in Oslo?" in away
    for gone in (b"state-of-one", b'"sunny"', b"call_1"):
        assert gone not in away


@pytest.mark.parametrize("kind", KINDS)
async def test_every_request_of_a_long_chain_begins_with_the_one_before(tmp_path: Path, kind: str) -> None:
    """What a provider's cache of prompts lives by (mapping.md §0.2): 50 turns, with thoughts, calls and results."""
    async with served(tmp_path, kind, kind) as (services, one, _):
        one.follow(
            thinks(f"Thought {turn}.", f"state-{turn}", *last)
            for turn in range(TURNS)
            for last in ([calls(call("weather", '{"city":"Oslo"}', id=f"call_{turn}"))], [text(f"Answer {turn}.")])
        )
        journey = Journey(services, (kind, kind), stored=True, stream=True)
        for turn in range(TURNS):
            asked = await journey.say(0, user(f"Question {turn}?"))
            await journey.say(0, output_of(asked.calls[0]["call_id"], f"output {turn}"))
    bodies = [request.body for request in one.requests]
    assert len(bodies) == 2 * TURNS
    for before, after in pairwise(bodies):
        # What closes the last message and the list goes, and nothing else.
        assert after.startswith(before[: -len(b"]}]}")])


TURNS = 50

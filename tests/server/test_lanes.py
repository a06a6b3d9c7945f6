import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import (
    Action,
    Answer,
    HttpError,
    Step,
    Trouble,
    answer,
    call,
    calls,
    refusal,
    silence,
    text,
    thought,
)
from rejoinder.conformance.upstreams.sent import SentChat
from rejoinder.server import lanes, sse
from rejoinder.server.lanes import Writer
from rejoinder.server.steering import MOST
from rejoinder.store import StoreError
from tests.server.site import (
    CODEX,
    MODEL,
    WEATHER,
    Json,
    Site,
    folded,
    gated,
    output_of,
    services_in,
    site,
    user,
)
from tests.server.sockets import Talk, talking


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(autouse=True)
def _echo(provider: ChatUpstream) -> Iterator[None]:
    """What the provider says unless a test wants something else; it has nothing against what it is asked."""
    provider.requests.clear()
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    yield
    assert provider.objections == []


@pytest.fixture(scope="module")
async def here(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(services_in(tmp_path_factory.mktemp("lanes"), provider.base_url)) as running:
        yield running


@pytest.fixture
async def talk(here: Site) -> AsyncIterator[Talk]:
    async with talking(here) as connected:
        yield connected


@asynccontextmanager
async def apart(tmp_path: Path, provider: ChatUpstream, **server: object) -> AsyncIterator[Site]:
    """A site of the test's own, with these settings."""
    async with site(services_in(tmp_path, provider.base_url, server=server)) as running:
        yield running


def by_text(steps: Mapping[str, Step], provider: ChatUpstream) -> None:
    """Answer whoever says one of these words last; the others hear an echo."""

    def script(request: SentChat) -> Step:
        said = request.messages[-1].text
        return steps.get(said, answer(text(f"re: {said}")))

    provider.follow(script)


def asked(provider: ChatUpstream) -> list[list[str]]:
    """What every request to the provider said, message by message."""
    return [[message.text for message in request.chat.messages] for request in provider.requests]


def id_of(events: list[Json]) -> str:
    response_id = events[-1]["response"]["id"]
    assert isinstance(response_id, str)
    return response_id


# Turns


async def test_a_turn_is_told_as_over_http_event_by_event(talk: Talk, provider: ChatUpstream) -> None:
    provider.follow([answer(thought("hm"), text("one", "two"), calls(call("weather", '{"city":', '"Rome"}')))])
    await talk.create(input="hello", tools=[WEATHER])
    events = await talk.answer()
    response = folded(events)
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call"]
    assert all("stream_id" not in event for event in events)


async def test_every_event_of_a_named_lane_says_which_and_no_other_does(talk: Talk) -> None:
    await talk.create(lane="a.B-3_", input="one")
    await talk.create(input="two")
    named, unnamed = await talk.answer("a.B-3_"), await talk.answer()
    assert folded(named)["output"][0]["content"][0]["text"] == "re: one"
    assert folded(unnamed)["output"][0]["content"][0]["text"] == "re: two"
    assert [*named[0]][:3] == ["type", "sequence_number", "response"]


async def test_what_is_left_out_is_said_with_the_first_event(talk: Talk) -> None:
    await talk.create(input="hi", seed=7, stream=True, stream_options={"include_obfuscation": False}, lane="a")
    first, second, *_ = await talk.answer("a")
    assert json.loads(first["headers"]["x-rejoinder-notes"]) == ["seed: unknown or without effect here"]
    assert first["stream_id"] == "a"
    assert "headers" not in second


async def test_turns_of_one_lane_follow_each_other_and_lanes_run_side_by_side(
    talk: Talk, provider: ChatUpstream
) -> None:
    first = Held(answer(text("slow")), after=0)
    by_text({"first": first}, provider)
    await talk.create(lane="a", input="first")
    await talk.create(lane="a", input="second")
    await talk.create(lane="b", input="third")
    assert folded(await talk.answer("b"))["status"] == "completed"
    assert asked(provider) == [["first"], ["third"]]
    first.release()
    assert folded(await talk.answer("a"))["output"][0]["content"][0]["text"] == "slow"
    assert folded(await talk.answer("a"))["output"][0]["content"][0]["text"] == "re: second"


async def test_many_turns_that_wait_for_nothing_leave_room_for_another_lane(talk: Talk) -> None:
    warm = {"type": "response.create", "model": MODEL, "generate": False, "store": False, "input": "hello"}
    many = [json.dumps({**warm, "stream_id": lane}) for lane in [*"a" * 100, "b"]]
    async with asyncio.TaskGroup() as group:
        for message in many:
            group.create_task(talk.send(message))
    assert folded(await talk.answer("b"))["status"] == "completed"
    assert sum(message["type"] == "response.completed" for message in talk.heard) < 75
    for _ in range(100):
        await talk.answer("a")


async def test_no_more_than_so_many_run_at_a_time_and_the_others_wait(talk: Talk, provider: ChatUpstream) -> None:
    held = [Held(answer(text("late"))) for _ in range(lanes.AT_ONCE + 2)]
    by_text({f"say {number}": step for number, step in enumerate(held)}, provider)
    for number in range(len(held)):
        await talk.create(lane=f"lane{number}", input=f"say {number}")
    await asyncio.to_thread(provider.wait, lanes.AT_ONCE)
    await asyncio.sleep(0.1)
    assert len(provider.requests) == lanes.AT_ONCE
    held[0].release()
    assert folded(await talk.answer("lane0"))["status"] == "completed"
    await asyncio.to_thread(provider.wait, lanes.AT_ONCE + 1)
    for step in held:
        step.release()
    for number in range(1, len(held)):
        assert folded(await talk.answer(f"lane{number}"))["status"] == "completed"


async def test_a_response_without_an_answer_can_be_continued_and_asks_nobody(
    here: Site, talk: Talk, provider: ChatUpstream
) -> None:
    for store in (False, True):
        provider.requests.clear()
        await talk.create(input=[user("you should know")], instructions="Be brief.", generate=False, store=store)
        warm = await talk.answer()
        assert [event["type"] for event in warm] == ["response.created", "response.in_progress", "response.completed"]
        response = folded(warm)
        assert (response["output"], response["usage"]["total_tokens"], provider.requests) == ([], 0, [])
        assert (await here.get(id_of(warm))).status == (200 if store else 404)
        await talk.create(input="go", previous_response_id=id_of(warm), store=store)
        folded(await talk.answer())
        # Instructions are of one turn (semantics.md §1).
        assert asked(provider) == [["you should know", "go"]]


async def test_a_warm_up_may_say_nothing_yet(talk: Talk, provider: ChatUpstream) -> None:
    await talk.create(input=[], generate=False, store=False)
    warm = await talk.answer()
    await talk.create(input="go", previous_response_id=id_of(warm), store=False)
    folded(await talk.answer())
    assert asked(provider) == [["go"]]


async def test_over_http_a_cache_can_be_warmed_but_generate_is_no_parameter(here: Site, provider: ChatUpstream) -> None:
    warm = (await here.create(input="hi", prompt_cache_options={"prewarm": True})).json
    assert (warm["status"], warm["output"], provider.requests) == ("completed", [], [])
    refused = await here.create(input="hi", generate=False)
    assert (refused.status, refused.json["error"]["param"]) == (400, "generate")


# What can be continued


async def test_what_is_not_stored_is_continued_on_its_connection_alone(
    here: Site, talk: Talk, provider: ChatUpstream
) -> None:
    await talk.create(input="one", store=False)
    first = id_of(await talk.answer())
    await talk.create(input="two", store=False, previous_response_id=first)
    second = id_of(await talk.answer())
    assert asked(provider)[-1] == ["one", "re: one", "two"]
    async with talking(here) as other:
        await other.create(input="three", store=False, previous_response_id=second)
        assert (await other.error())["error"]["code"] == "previous_response_not_found"
    await talk.create(input="three", store=False, previous_response_id=second)
    await talk.answer()
    assert asked(provider)[-1] == ["one", "re: one", "two", "re: two", "three"]


async def test_only_the_latest_of_a_lane_is_kept(talk: Talk) -> None:
    await talk.create(input="one", store=False)
    first = id_of(await talk.answer())
    await talk.create(input="else", store=False)
    await talk.answer()
    await talk.create(input="two", store=False, previous_response_id=first)
    assert await talk.error() == {
        "type": "error",
        "status": 400,
        "error": {
            "type": "invalid_request_error",
            "code": "previous_response_not_found",
            "message": f"Previous response with id '{first}' not found.",
            "param": "previous_response_id",
        },
    }


async def test_a_stored_response_takes_the_place_of_one_that_is_not(talk: Talk) -> None:
    await talk.create(input="one", store=False)
    first = id_of(await talk.answer())
    await talk.create(input="two", store=True)
    await talk.answer()
    await talk.create(input="three", store=False, previous_response_id=first)
    assert (await talk.error())["error"]["code"] == "previous_response_not_found"


async def test_another_lane_may_go_on_from_the_latest_of_this_one(talk: Talk, provider: ChatUpstream) -> None:
    await talk.create(lane="a", input="one", store=False)
    first = id_of(await talk.answer("a"))
    await talk.create(lane="b", input="fork", store=False, previous_response_id=first)
    await talk.until("response.in_progress", "b")
    await talk.create(lane="a", input="on", store=False, previous_response_id=first)
    await talk.answer("a")
    fork = id_of(await talk.answer("b"))
    await talk.create(lane="b", input="further", store=False, previous_response_id=fork)
    await talk.answer("b")
    assert asked(provider)[-1] == ["one", "re: one", "fork", "re: fork", "further"]


async def test_a_stored_response_is_continued_from_anywhere_and_as_often_as_wanted(
    here: Site, talk: Talk, provider: ChatUpstream
) -> None:
    stored = (await here.create(input="one")).json["id"]
    for lane in ("a", "b", "a"):
        await talk.create(lane=lane, input="two", store=False, previous_response_id=stored)
        folded(await talk.answer(lane))
        assert asked(provider)[-1] == ["one", "re: one", "two"]


async def test_a_stored_response_that_builds_on_one_that_is_not_holds_all_of_it(
    here: Site, provider: ChatUpstream
) -> None:
    root = (await here.create(input="root")).json["id"]
    async with talking(here) as talk:
        await talk.create(input="one", store=False, previous_response_id=root)
        unstored = id_of(await talk.answer())
        await talk.create(input="two", store=True, previous_response_id=unstored)
        stored = id_of(await talk.answer())
    assert (await here.delete(root)).status == 200
    child = await here.create(input="three", previous_response_id=stored)
    assert child.status == 200
    assert asked(provider)[-1] == ["root", "re: root", "one", "re: one", "two", "re: two", "three"]
    listed = (await here.get(f"{stored}/input_items?order=asc")).json["data"]
    assert [item["content"][0]["text"] for item in listed] == ["root", "re: root", "one", "re: one", "two"]


async def test_a_continuation_that_fails_takes_what_it_continued_with_it(talk: Talk, provider: ChatUpstream) -> None:
    provider.follow([answer(text("hi")), answer(text("hi")), HttpError(500)])
    for spoiled in (
        {"input": [output_of("call_missing", "x")]},  # refused by us
        {"input": "two"},  # refused by the provider
    ):
        await talk.create(input="one", store=False)
        first = id_of(await talk.answer())
        await talk.create(store=False, previous_response_id=first, **spoiled)
        assert (await talk.error())["status"] >= 400
        await talk.create(input="again", store=False, previous_response_id=first)
        assert (await talk.error())["error"]["code"] == "previous_response_not_found"


async def test_a_response_that_fails_takes_what_it_continued_with_it(talk: Talk, provider: ChatUpstream) -> None:
    provider.follow([answer(text("hi")), answer(text("hal", "f"), trouble=Trouble("cut", 2))])
    await talk.create(input="one", store=False)
    first = id_of(await talk.answer())
    await talk.create(input="two", store=False, previous_response_id=first)
    failed = await talk.answer()
    assert failed[-1]["type"] == "response.failed"
    for lost in (first, id_of(failed)):
        await talk.create(input="again", store=False, previous_response_id=lost)
        assert (await talk.error())["error"]["code"] == "previous_response_not_found"


async def test_a_fork_that_fails_leaves_its_parent(talk: Talk, provider: ChatUpstream) -> None:
    await talk.create(lane="a", input="one", store=False)
    first = id_of(await talk.answer("a"))
    await talk.create(lane="b", input=[output_of("call_missing", "x")], store=False, previous_response_id=first)
    assert (await talk.error("b"))["error"]["message"].startswith("No tool call found")
    await talk.create(lane="a", input="two", store=False, previous_response_id=first)
    folded(await talk.answer("a"))
    assert asked(provider)[-1] == ["one", "re: one", "two"]


async def test_calls_are_answered_in_the_next_turn(talk: Talk, provider: ChatUpstream) -> None:
    provider.follow([answer(calls(call("weather", '{"city":"Rome"}', id="call_1"))), answer(text("sunny"))])
    await talk.create(input="weather?", tools=[WEATHER], store=False)
    first = await talk.answer()
    await talk.create(
        input=[output_of("call_1", "sun")], tools=[WEATHER], store=False, previous_response_id=id_of(first)
    )
    assert folded(await talk.answer())["output"][0]["content"][0]["text"] == "sunny"


async def test_a_conversation_is_appended_to(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    conversation = (await here.ask("POST", "/v1/conversations", b"{}")).json["id"]
    for word in ("one", "two"):
        await talk.create(input=word, conversation=conversation)
        assert folded(await talk.answer())["conversation"] == {"id": conversation}
    assert asked(provider)[-1] == ["one", "re: one", "two"]


# What goes wrong


async def test_an_error_of_a_lane_says_which_and_leaves_the_others(talk: Talk, provider: ChatUpstream) -> None:
    held = Held(answer(text("a", "b")), after=2)
    by_text({"hold": held}, provider)
    await talk.create(lane="a", input="hold")
    await talk.until("response.output_text.delta", "a")
    await talk.create(lane="b", input="hi", temperature=9)
    refused = await talk.error("b")
    assert (refused["status"], refused["stream_id"], refused["error"]["param"]) == (400, "b", "temperature")
    await talk.create(lane="b", input="hi", background=True)
    assert (await talk.error("b"))["error"]["param"] == "background"
    held.release()
    assert (await talk.answer("a"))[-1]["type"] == "response.completed"
    await talk.create(lane="b", input="hi")
    assert folded(await talk.answer("b"))["status"] == "completed"


async def test_errors_come_in_their_turn(talk: Talk, provider: ChatUpstream) -> None:
    held = Held(answer(text("done")))
    by_text({"hold": held}, provider)
    await talk.create(input="hold")
    await talk.create(input="hi", temperature=9)
    begun = await talk.until("response.in_progress")
    assert await talk.silent()
    held.release()
    assert folded([*begun, *await talk.answer()])["status"] == "completed"
    assert (await talk.error())["error"]["param"] == "temperature"


async def test_an_upstream_that_refuses_is_an_error_with_a_hint(talk: Talk, provider: ChatUpstream) -> None:
    provider.follow([HttpError(429, headers={"retry-after": "3"})])
    await talk.create(input="hi")
    refused = await talk.error()
    assert (refused["status"], refused["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused["error"]["headers"] == {"retry-after": "3"}


async def test_a_fault_of_ours_ends_the_response_and_not_the_lane(tmp_path: Path, provider: ChatUpstream) -> None:
    services, gate = await gated(services_in(tmp_path, provider.base_url))

    def broken(change: object) -> None:
        gate.before = None
        raise RuntimeError("a defect")

    async with site(services) as here, talking(here) as talk:
        gate.before = broken
        await talk.create(input="hi")
        events = await talk.answer()
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] == "server_error"
        assert [event["sequence_number"] for event in events] == [*range(len(events))]
        await talk.create(input="hi")
        assert folded(await talk.answer())["status"] == "completed"


async def test_a_response_that_cannot_be_stored_has_failed(tmp_path: Path, provider: ChatUpstream) -> None:
    services, gate = await gated(services_in(tmp_path, provider.base_url))

    def full(change: object) -> None:
        raise StoreError("no space")

    async with site(services) as here, talking(here) as talk:
        gate.before = full
        await talk.create(input="hi")
        assert (await talk.answer())[-1]["type"] == "response.failed"


# Steering


async def test_words_end_a_response_before_its_next_item_and_begin_the_next_one(
    talk: Talk, provider: ChatUpstream
) -> None:
    held = Held(answer(thought("hm"), text("never")), after=2)
    by_text({"go": held}, provider)
    await talk.create(lane="a", input="go", instructions="Be brief.", store=False)
    begun = await talk.until("response.reasoning_summary_text.delta", "a")
    first = begun[0]["response"]["id"]
    await talk.send({"type": "response.steer", "previous_response_id": first, "input": "rather this"})
    accepted = await talk.next("a")
    assert accepted["type"] == "response.steer.accepted"
    assert accepted["steer"]["previous_response_id"] == first
    assert accepted["sequence_number"] == begun[-1]["sequence_number"] + 1
    held.release()
    ended = await talk.until("response.incomplete", "a")
    assert ended[-1]["response"]["incomplete_details"] == {"reason": "steered"}
    assert [item["type"] for item in ended[-1]["response"]["output"]] == ["reasoning"]
    successor = folded(await talk.answer("a"))
    assert (successor["previous_response_id"], successor["instructions"]) == (first, "Be brief.")
    assert successor["output"][0]["content"][0]["text"] == "re: rather this"
    assert asked(provider)[-1] == ["Be brief.", "go", "rather this"]


async def test_words_before_the_first_item_end_a_response_at_once(talk: Talk, provider: ChatUpstream) -> None:
    by_text({"go": silence(after_head=True)}, provider)
    await talk.create(input="go", store=False)
    begun = await talk.until("response.in_progress")
    steer: Json = {"type": "response.steer", "previous_response_id": begun[0]["response"]["id"]}
    await talk.send({**steer, "input": [{"role": "user", "content": [{"type": "input_text", "text": "rather this"}]}]})
    assert (await talk.next())["type"] == "response.steer.accepted"
    ended = await talk.next()
    assert (ended["type"], ended["response"]["output"]) == ("response.incomplete", [])
    folded(await talk.answer())
    assert asked(provider)[-1] == ["go", "rather this"]


async def test_words_said_into_a_message_follow_it(talk: Talk, provider: ChatUpstream) -> None:
    held = Held(answer(text("all ", "of it")), after=2)
    by_text({"go": held}, provider)
    await talk.create(input="go", store=True)
    begun = await talk.until("response.output_text.delta")
    for word in ("one", "two"):
        await talk.send({"type": "response.steer", "previous_response_id": begun[0]["response"]["id"], "input": word})
        assert (await talk.next())["type"] == "response.steer.accepted"
    held.release()
    ended = await talk.answer()
    assert ended[-1]["type"] == "response.completed"
    folded(await talk.answer())
    assert asked(provider)[-1] == ["go", "all of it", "one", "two"]


async def test_words_wait_for_the_results_of_tools(talk: Talk, provider: ChatUpstream) -> None:
    held = Held(answer(calls(call("weather", '{"city":', '"Rome"}', id="call_1"))), after=3)
    provider.follow([held, answer(text("sunny"))])
    await talk.create(input="weather?", tools=[WEATHER], store=False)
    begun = await talk.until("response.function_call_arguments.delta")
    first = begun[0]["response"]["id"]
    await talk.send({"type": "response.steer", "previous_response_id": first, "input": "in French"})
    assert (await talk.next())["type"] == "response.steer.accepted"
    held.release()
    completed = await talk.answer()
    pending = await talk.next()
    assert pending == {
        "type": "response.steer.pending",
        "sequence_number": completed[-1]["sequence_number"] + 1,
        "reason": "waiting_for_required_input",
        "required_input": [{"type": "function_call_output", "name": "weather", "call_id": "call_1"}],
        "steer": {"id": pending["steer"]["id"], "previous_response_id": first},
    }
    await talk.create(input=[output_of("call_1", "sun")], tools=[WEATHER], store=False, previous_response_id=first)
    folded(await talk.answer())
    assert asked(provider)[-1] == ["weather?", "", "sun", "in French"]


async def test_words_that_wait_go_back_when_their_client_goes_elsewhere(talk: Talk, provider: ChatUpstream) -> None:
    step = Held(answer(calls(call("weather", "{", "}", id="call_1"))), after=2)
    provider.follow([step, answer(text("else"))])
    await talk.create(input="weather?", tools=[WEATHER])
    begun = await talk.until("response.output_item.added")
    first = begun[0]["response"]["id"]
    await talk.send({"type": "response.steer", "previous_response_id": first, "input": "in French"})
    await talk.until("response.steer.accepted")
    step.release()
    await talk.until("response.steer.pending")
    await talk.create(input="something else")
    failed = await talk.next()
    assert (failed["type"], failed["error"]["code"]) == ("response.steer.failed", "response_not_active")
    assert (failed["steer"]["input"], failed["steer"]["previous_response_id"]) == ("in French", first)
    folded(await talk.answer())


async def test_words_whose_response_cannot_be_made_go_back(talk: Talk, provider: ChatUpstream) -> None:
    held = Held(answer(text("a", "b")), after=2)
    provider.follow([held, HttpError(400)])
    await talk.create(input="go", store=False)
    begun = await talk.until("response.output_text.delta")
    await talk.send({"type": "response.steer", "previous_response_id": begun[0]["response"]["id"], "input": "more"})
    accepted = await talk.next()
    held.release()
    await talk.answer()
    failed = await talk.next()
    assert (failed["type"], failed["error"]["code"]) == ("response.steer.failed", "successor_creation_failed")
    assert failed["steer"]["id"] == accepted["steer"]["id"]
    assert await talk.silent(), "nobody asked for the successor, so nobody hears of its error"


async def test_words_said_to_a_response_that_fails_go_back(talk: Talk, provider: ChatUpstream) -> None:
    held = Held(answer(text("a", "b", "c"), trouble=Trouble("cut", 3)), after=2)
    provider.follow([held])
    await talk.create(input="go", store=False)
    begun = await talk.until("response.output_text.delta")
    await talk.send({"type": "response.steer", "previous_response_id": begun[0]["response"]["id"], "input": "more"})
    await talk.until("response.steer.accepted")
    held.release()
    assert (await talk.answer())[-1]["type"] == "response.failed"
    failed = await talk.next()
    assert (failed["type"], failed["error"]["code"]) == ("response.steer.failed", "successor_creation_failed")


async def test_some_responses_cannot_be_steered(here: Site, talk: Talk, provider: ChatUpstream) -> None:
    conversation = (await here.ask("POST", "/v1/conversations", b"{}")).json["id"]
    for fields in (
        {"conversation": conversation},
        {"context_management": [{"type": "compaction", "compact_threshold": 100000}]},
    ):
        held = Held(answer(text("a", "b")), after=2)
        provider.follow([held])
        await talk.create(input="go", **fields)
        begun = await talk.until("response.output_text.delta")
        await talk.send({"type": "response.steer", "previous_response_id": begun[0]["response"]["id"], "input": "x"})
        failed = await talk.next()
        assert (failed["type"], failed["error"]["code"]) == ("response.steer.failed", "steering_not_supported")
        held.release()
        assert (await talk.answer())[-1]["type"] == "response.completed"


async def test_so_many_words_may_wait_and_no_more(talk: Talk, provider: ChatUpstream) -> None:
    held = Held(answer(text("a", "b")), after=2)
    by_text({"go": held}, provider)
    await talk.create(input="go", store=False)
    begun = await talk.until("response.output_text.delta")
    steer: Json = {"type": "response.steer", "previous_response_id": begun[0]["response"]["id"], "input": "x"}
    for _ in range(MOST + 1):
        await talk.send(steer)
    kinds = [(await talk.next())["type"] for _ in range(MOST + 1)]
    assert kinds == [*["response.steer.accepted"] * MOST, "response.steer.failed"]
    held.release()
    await talk.answer()
    folded(await talk.answer())
    assert asked(provider)[-1] == ["go", "ab", *["x"] * MOST]


# Interrupting


async def test_an_interrupted_response_keeps_what_is_done_and_goes_on_from_there(
    here: Site, provider: ChatUpstream
) -> None:
    held = Held(answer(thought("hm"), text("half", " a sentence")), after=3)
    by_text({"go": held}, provider)
    async with talking(here, headers=CODEX) as talk:
        await talk.create(input="go", store=False)
        begun = await talk.until("response.output_text.delta")
        first = begun[0]["response"]["id"]
        interrupt = {"type": "response.interrupt", "response_id": first, "mode": "discard_partial_items"}
        await talk.send(interrupt)
        ended = await talk.next()
        assert ended["response"]["incomplete_details"] == {"reason": "interrupted"}
        assert [item["type"] for item in ended["response"]["output"]] == ["reasoning"]
        await talk.send(interrupt)
        await talk.create(input="rather this", store=False, previous_response_id=first)
        folded(await talk.answer())
    assert asked(provider)[-1] == ["go", "rather this"]
    assert provider.requests[0].left.wait(1)


async def test_codex_is_told_refusals_as_text_and_kept_waiting_with_events(
    here: Site, provider: ChatUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.0)
    held = Held(answer(refusal("No.")), after=1)
    provider.follow([held])
    async with talking(here, headers=CODEX) as talk:
        await talk.create(lane="a", input="go", store=False)
        waited = [await talk.next("a") for _ in range(3)]
        assert [event["type"] for event in waited] == ["response.created", *["response.in_progress"] * 2]
        held.release()
        events = [*waited, *await talk.answer("a")]
        assert [event["sequence_number"] for event in events] == [*range(len(events))]
        assert events[-1]["response"]["output"][0]["content"] == [
            {"type": "output_text", "text": "No.", "annotations": [], "logprobs": []}
        ]


# Leaving


async def test_a_client_that_leaves_ends_what_is_made_for_it(here: Site, provider: ChatUpstream) -> None:
    by_text({"go": silence(after_head=True), "too": silence()}, provider)
    async with talking(here) as talk:
        for lane, word in (("a", "go"), ("b", "too"), ("a", "waits")):
            await talk.create(lane=lane, input=word)
        await talk.until("response.in_progress", "a")
        await asyncio.to_thread(provider.wait, 2)
    for sent in provider.requests:
        assert await asyncio.to_thread(sent.left.wait, 1)
    assert len(provider.requests) == 2


async def test_a_client_that_leaves_may_have_what_is_stored_finished(tmp_path: Path, provider: ChatUpstream) -> None:
    stored, unstored = Held(answer(text("a", "b")), after=2), Held(answer(text("a", "b")), after=2)
    by_text({"stored": stored, "unstored": unstored}, provider)
    async with apart(tmp_path, provider, on_disconnect="finish") as here:
        async with talking(here) as talk:
            await talk.create(lane="a", input="stored")
            await talk.create(lane="a", input="waits")
            await talk.create(lane="b", input="unstored", store=False)
            begun = await talk.until("response.output_text.delta", "a")
            await talk.until("response.output_text.delta", "b")
            await talk.send(
                {"type": "response.steer", "previous_response_id": begun[0]["response"]["id"], "input": "more"}
            )
            await talk.until("response.steer.accepted", "a")
        stored.release()
        unstored.release()
        kept = await here.get(begun[0]["response"]["id"])
        for _ in range(500):
            if kept.status == 200:
                break
            await asyncio.sleep(0.01)
            kept = await here.get(begun[0]["response"]["id"])
        assert kept.json["status"] == "completed"
        assert {tuple(said) for said in asked(provider)} == {("stored",), ("unstored",)}


async def test_a_writer_whose_client_is_gone_drops_what_is_said() -> None:
    written: list[bytes] = []

    async def write(frames: object) -> None:
        assert isinstance(frames, list)
        written.extend(frames)
        raise OSError

    writer = Writer(write)
    await writer.say(b"one")
    assert writer.is_gone
    await writer.say(b"two")
    assert written == [b"one"]


async def test_a_lane_with_much_to_tell_lets_others_have_their_turn() -> None:
    """Pieces of one lane, and of another, while the client takes one piece after the other."""
    order: list[bytes] = []

    async def write(frames: object) -> None:
        assert isinstance(frames, list)
        order.extend(frame[:1] for frame in frames)
        await asyncio.sleep(0)

    writer = Writer(write)
    loud = deque([b"l" * lanes.PIECE] * 20)
    await asyncio.gather(writer.write(loud), writer.say(b"quiet"))
    assert order.index(b"q") <= 2
    assert len(order) == 21


@dataclass
class Counted:
    """A long answer that counts the pieces it got rid of."""

    pieces: int
    answer: Answer = field(init=False)
    sent: int = 0

    def __post_init__(self) -> None:
        self.answer = answer(text(*["x" * 32_000] * self.pieces))

    def actions(self, request: SentChat) -> Iterator[Action]:
        for action in self.answer.actions(request):
            yield action
            self.sent += 1


async def test_a_client_that_stops_reading_stops_its_providers_and_nobody_else(
    here: Site, provider: ChatUpstream
) -> None:
    counted = Counted(2000)
    by_text({"much": counted}, provider)
    async with connect(
        f"ws://127.0.0.1:{here.port}/v1/responses", compression=None, max_size=None, max_queue=1, proxy=None
    ) as opened:
        talk = Talk(opened)
        await talk.create(lane="a", input="much", store=False)
        await talk.create(lane="b", input="little", store=False)
        before = -1
        while counted.sent != before:
            before = counted.sent
            await asyncio.sleep(0.5)
        # What the sockets in between hold (reliability.md F24), and far from all of it.
        assert 0 < counted.sent * 32_000 < 32_000_000
        async with talking(here) as other:
            await other.create(input="hi")
            folded(await other.answer())
        assert folded(await talk.answer("b"))["output"][0]["content"][0]["text"] == "re: little"
        loud = await talk.answer("a")
        assert len(loud[-1]["response"]["output"][0]["content"][0]["text"]) == 2000 * 32_000

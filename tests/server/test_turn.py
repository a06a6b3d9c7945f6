import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rejoinder.bridge.errors import BrokenStream, Unsupported, UpstreamError
from rejoinder.bridge.losses import Loss, Reason
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import (
    Answer,
    Head,
    HttpError,
    Pause,
    Stall,
    Step,
    Trouble,
    Wire,
    answer,
    call,
    calls,
    raw,
    refusal,
    text,
    thought,
)
from rejoinder.conformance.upstreams.sent import SentChat, SentRequest
from rejoinder.server import turn, upstream
from rejoinder.server.errors import InvalidRequest, StoreFailed, Unavailable
from rejoinder.server.services import Services
from rejoinder.store import Change, Missing, StoreError
from rejoinder.wire.events import Event
from tests.server.schema import event_violations, needs_schemas, violations
from tests.server.site import (
    MODEL,
    NOW,
    TERMINAL,
    WEATHER,
    Json,
    Listener,
    closing,
    exact,
    folded,
    gated,
    output_of,
    request_of,
    said,
    services_in,
    user,
)

KEYS = {
    "background",
    "completed_at",
    "conversation",
    "created_at",
    "error",
    "frequency_penalty",
    "id",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "object",
    "output",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "status",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "usage",
    "user",
}
"""Every key of objects.md §2 that is always present, and every one of open-responses.md §4."""

NULLABLE = {
    "completed_at",
    "conversation",
    "error",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "usage",
    "user",
}

GRAMMAR: Json = {"type": "custom", "name": "patch", "description": "Free text."}

ANSWERS: dict[str, Answer] = {
    "text": answer(text("Hel", "lo")),
    "refusal": answer(refusal("I would ", "rather not.")),
    "reasoning, text and calls": answer(
        thought("Two ", "cities."),
        text("Checking."),
        calls(call("weather", '{"city":', '"Oslo"}', id="call_1"), call("weather", '{"city":"Rome"}', id="call_2")),
    ),
    "interleaved calls": answer(
        calls(
            call("weather", '{"city":', '"Oslo"}', id="call_1"),
            call("weather", '{"city":', '"Rome"}', id="call_2"),
            style="interleaved",
        )
    ),
    "a free-form call": answer(calls(call("patch", '{"input":"a\\n', 'b"}'))),
    "cut by the limit": answer(text("Hel", "lo"), finish="length"),
}


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def services(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Services for every test that leaves them as they were; opening a store costs more than most turns."""
    async with closing(services_in(tmp_path_factory.mktemp("turn"), provider.base_url)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _accepted(provider: ChatUpstream) -> Iterator[None]:
    """Each test counts its own requests, and the strict provider has nothing against any of them."""
    provider.requests.clear()
    yield
    assert provider.objections == []


def always(step: Step) -> Callable[[SentChat], Step]:
    return lambda request: step


def roles(sent: SentRequest) -> list[str]:
    return [message.role for message in sent.chat.messages]


def nulls(value: Json, path: str = "$") -> list[str]:
    """Where a value holds null."""
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in nulls(inner, f"{path}.{name}")]
    if isinstance(value, list):
        return [found for number, inner in enumerate(value) for found in nulls(inner, f"{path}[{number}]")]
    return [path] if value is None else []


async def heard(services: Services, *, owner: str = "local", **fields: object) -> list[Json]:
    """The events of one turn that somebody reads along."""
    listener = Listener()
    await turn.run(request_of(stream=True, **fields), listener, services, owner=owner)
    return listener.events


async def raised(services: Services, kind: type[Exception], **fields: Json) -> Exception:
    with pytest.raises(kind) as caught:
        await said(services, **fields)
    return caught.value


# The response object


@pytest.mark.parametrize("step", ANSWERS.values(), ids=ANSWERS)
async def test_every_key_is_there_in_a_plain_answer_in_every_event_and_in_the_store(
    provider: ChatUpstream, services: Services, step: Answer
) -> None:
    provider.follow(always(step))
    plain = await said(services, input="hi", tools=[WEATHER, GRAMMAR])
    events = await heard(services, input="hi", tools=[WEATHER, GRAMMAR])
    responses = [plain, *(event["response"] for event in events if "response" in event)]
    for response in responses:
        assert set(response) == KEYS
        assert {name for name, value in response.items() if value is None} <= NULLABLE
        assert nulls(response["output"]) == []
    for response in responses[1:3]:
        assert (response["output"], response["usage"], response["completed_at"]) == ([], None, None)
    stored = await services.store.get(plain["id"], owner="local")
    assert json.loads(stored.response) == plain
    stored = await services.store.get(responses[-1]["id"], owner="local")
    assert json.loads(stored.response) == responses[-1]


@needs_schemas
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "tools": [WEATHER, {"type": "function", "name": "bare"}],
            "tool_choice": "auto",
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "json_object"}},
            "metadata": {"a": "b"},
        },
    ],
)
@pytest.mark.parametrize("step", [ANSWERS["text"], ANSWERS["reasoning, text and calls"], ANSWERS["cut by the limit"]])
async def test_what_is_answered_follows_the_schemas_of_open_responses(
    provider: ChatUpstream, services: Services, step: Answer, fields: Json
) -> None:
    provider.follow(always(step))
    asked = {"input": "hi", "tools": [WEATHER]} | fields
    assert violations(await said(services, **asked), "ResponseResource") == []
    for event in await heard(services, **asked):
        assert event_violations(event) == []


@needs_schemas
async def test_a_failed_response_follows_the_schemas_too(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("end", after=2))])
    events = await heard(services, input="hi")
    assert events[-1]["type"] == "response.failed"
    assert [event_violations(event) for event in events] == [[]] * len(events)


@pytest.mark.parametrize("reasoning", ["summary", "raw"])
@pytest.mark.parametrize("step", ANSWERS.values(), ids=ANSWERS)
async def test_a_plain_answer_is_what_a_client_makes_of_the_stream(
    provider: ChatUpstream, tmp_path: Path, step: Answer, reasoning: str
) -> None:
    provider.follow(always(step))
    responses = []
    for name in ("plain", "streamed"):
        (tmp_path / name).mkdir()
        services = exact(services_in(tmp_path / name, provider.base_url, reasoning=reasoning))
        async with closing(services):
            fields: Json = {"input": "hi", "tools": [WEATHER, GRAMMAR]}
            made = await said(services, **fields) if name == "plain" else folded(await heard(services, **fields))
            responses.append(made)
    assert responses[0] == responses[1]
    assert responses[0]["created_at"] == NOW


async def test_the_response_says_what_was_asked(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(text("hi"))])
    asked: Json = {
        "instructions": "Be brief.",
        "max_output_tokens": 100,
        "metadata": {"topic": "weather"},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.9,
        "tool_choice": "auto",
        "store": False,
        "truncation": "auto",
    }
    response = await said(services, input="hi", **asked)
    assert {name: response[name] for name in asked} == asked


async def test_an_alias_is_answered_under_the_name_that_was_asked_for(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow([answer(text("hi"))])
    response = await said(services, model=f"test/{MODEL}", input="hi")
    record = await services.store.get(response["id"], owner="local")
    assert response["model"] == f"test/{MODEL}"
    assert (record.model, record.upstream) == (MODEL, "test")
    assert provider.requests[0].chat.model == MODEL


# What goes out, turn after turn


async def test_a_continuation_sends_the_whole_lineage_in_order(provider: ChatUpstream, services: Services) -> None:
    provider.follow(
        [
            answer(
                thought("Two cities."),
                calls(call("weather", '{"city":"Oslo"}', id="c1"), call("weather", '{"city":"Rome"}', id="c2")),
            ),
            answer(text("Cold, and warm.")),
            answer(text("You are welcome.")),
        ]
    )
    first = await said(services, input="Oslo and Rome?", instructions="Be brief.", tools=[WEATHER])
    second = await said(
        services,
        input=[output_of("c2", "warm"), output_of("c1", "cold")],
        previous_response_id=first["id"],
        tools=[WEATHER],
    )
    third = await said(services, input="Thanks.", previous_response_id=second["id"])
    assert third["previous_response_id"] == second["id"]
    messages = provider.requests[2].chat.messages
    assert [(message.role, message.text) for message in messages] == [
        ("user", "Oslo and Rome?"),
        ("assistant", ""),
        ("tool", "warm"),
        ("tool", "cold"),
        ("assistant", "Cold, and warm."),
        ("user", "Thanks."),
    ]
    assert messages[1].reasoning_content == "Two cities."
    assert [(one.id, one.function.arguments) for one in messages[1].tool_calls] == [
        ("c1", '{"city":"Oslo"}'),
        ("c2", '{"city":"Rome"}'),
    ]
    assert [message.tool_call_id for message in messages[2:4]] == ["c2", "c1"]


async def test_instructions_and_tools_are_not_inherited(provider: ChatUpstream, services: Services) -> None:
    provider.follow(always(answer(text("hi"))))
    first = await said(services, input="one", instructions="Be brief.", tools=[WEATHER], temperature=0.5)
    second = await said(services, input="two", previous_response_id=first["id"])
    await said(services, input="three", previous_response_id=second["id"], instructions="Be long.")
    assert roles(provider.requests[1]) == ["user", "assistant", "user"]
    assert {"tools", "temperature"}.isdisjoint(provider.requests[1].fields)
    assert (second["instructions"], second["tools"], second["temperature"]) == (None, [], 1.0)
    assert provider.requests[2].chat.messages[0].text == "Be long."
    assert b"Be brief." not in provider.requests[2].body


async def test_forks_of_one_response_know_nothing_of_each_other(provider: ChatUpstream, services: Services) -> None:
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    root = await said(services, input="root")
    left, right = await asyncio.gather(
        said(services, input="left", previous_response_id=root["id"]),
        said(services, input="right", previous_response_id=root["id"]),
    )
    await said(services, input="on", previous_response_id=left["id"])
    await said(services, input="on", previous_response_id=right["id"])
    shown = [[message.text for message in sent.chat.messages] for sent in provider.requests[3:]]
    assert shown == [
        ["root", "re: root", "left", "re: left", "on"],
        ["root", "re: root", "right", "re: right", "on"],
    ]


async def test_a_child_keeps_its_whole_context_when_an_ancestor_is_deleted(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    first = await said(services, input="one")
    second = await said(services, input="two", previous_response_id=first["id"])
    await services.store.delete(first["id"], owner="local")
    await said(services, input="three", previous_response_id=second["id"])
    texts = [message.text for message in provider.requests[2].chat.messages]
    assert texts == ["one", "re: one", "two", "re: two", "three"]


async def test_an_output_that_names_its_tool_instead_of_its_call_is_paired_for_good(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow([answer(calls(call("weather", id="c1"))), answer(text("Cold.")), answer(text("Bye."))])
    named = {"type": "function_call_output", "name": "weather", "output": "cold"}
    first = await said(services, input="Oslo?", tools=[WEATHER])
    second = await said(services, input=[named], previous_response_id=first["id"])
    await said(services, input="Thanks.", previous_response_id=second["id"])
    assert provider.requests[2].chat.messages[2].tool_call_id == "c1"


@pytest.mark.parametrize("ending", ["completed", "incomplete"])
async def test_what_was_cut_by_a_limit_can_be_continued_too(
    provider: ChatUpstream, services: Services, ending: str
) -> None:
    provider.follow([answer(text("one"), finish="length" if ending == "incomplete" else None), answer(text("two"))])
    first = await said(services, input="count")
    assert first["status"] == ending
    second = await said(services, input="go on", previous_response_id=first["id"])
    assert second["status"] == "completed"


def scripted(request: SentChat) -> Step:
    """Answers that differ from turn to turn and follow from what was said, so that two conversations get the same."""
    last = request.messages[-1]
    number = sum(message.role == "user" for message in request.messages)
    if last.role == "tool":
        return answer(thought(f"I have {last.text}."), text(f"It is {last.text}, said {number} times."))
    match number % 4:
        case 0:
            return answer(thought("Both, ", "I think."), calls(*(weather(f"call_{number}_{n}") for n in range(2))))
        case 1:
            return answer(text("Let me look."), calls(weather(f"call_{number}_0"), style="whole"))
        case 2:
            return answer(thought("Easy: ünïcödé \U0001f600.", place="reasoning"), text("Just “words”."))
        case _:
            return answer(text("Just words, cut."), finish="length")


def weather(call_id: str) -> Json:
    return call("weather", '{"city": ', '"Oslo"}', id=call_id)


def next_input(response: Json, number: int) -> list[Json]:
    """What a client sends after a response: the outputs of its calls, else something new."""
    open_calls = [item["call_id"] for item in response["output"] if item["type"] == "function_call"]
    return [output_of(call_id, f"{number}°") for call_id in open_calls] or [user(f"question {number}")]


async def chained(services: Services, turns: int, **fields: Json) -> Json:
    """The last response of a chain of that many turns."""
    response = await said(services, input=[user("question 0")], tools=[WEATHER], **fields)
    for number in range(1, turns):
        response = await said(
            services,
            input=next_input(response, number),
            tools=[WEATHER],
            previous_response_id=response["id"],
            **fields,
        )
    return response


async def test_every_request_begins_with_the_bytes_of_the_one_before(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(scripted)
    await chained(services, 30, instructions="Be brief.")
    bodies = [sent.body for sent in provider.requests]
    assert len(bodies) == 30
    for before, after in pairwise(bodies):
        assert before.endswith(b"]}")
        assert after.startswith(before[:-2] + b",")
    assert set(roles(provider.requests[-1])) == {"system", "user", "assistant", "tool"}
    assert b'"reasoning_content":' in bodies[-1]


@pytest.mark.parametrize("replayed", ["as it was", "without ids and status"])
async def test_a_client_that_sends_everything_back_gets_the_same_bytes_sent(
    provider: ChatUpstream, services: Services, replayed: str
) -> None:
    provider.follow(scripted)
    await chained(services, 30)
    history = [user("question 0")]
    for number in range(1, 31):
        response = await said(services, input=history, tools=[WEATHER], store=False)
        output = response["output"]
        if replayed != "as it was":
            output = [{k: v for k, v in item.items() if k not in ("id", "status")} for item in output]
        history += [*output, *next_input(response, number)]
    bodies = [sent.body for sent in provider.requests]
    assert bodies[30:] == bodies[:30]


async def test_a_chain_goes_on_with_the_same_bytes_after_the_store_was_opened_again(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    provider.follow(scripted)
    async with closing(services_in(tmp_path, provider.base_url)) as services:
        last = await chained(services, 7)
        further: Json = {"input": next_input(last, 7), "previous_response_id": last["id"], "store": False}
        await said(services, **further)
    async with closing(services_in(tmp_path, provider.base_url)) as services:
        await said(services, **further)
    assert provider.requests[-1].body == provider.requests[-2].body


async def test_a_call_id_a_provider_uses_again_reaches_the_client_as_another(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(always(answer(calls(call("weather", id="call_0")))))
    last = await chained(services, 4)
    pairs = provider.requests[-1].chat.messages
    called = [one.id for message in pairs for one in message.tool_calls]
    assert len(set(called)) == 3
    assert called == [message.tool_call_id for message in pairs if message.role == "tool"]
    assert last["output"][0]["call_id"] not in called


# Reasoning goes back to whoever gave it, and to nobody else


async def test_reasoning_goes_back_to_the_model_that_gave_it(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow(always(answer(thought("hm"), text("hi"))))
    async with closing(services_in(tmp_path, provider.base_url, names=("one", "two"))) as services:
        first = await said(services, model="one/m", input="hi")
        await said(services, model="one/m", input=[user("hi"), *first["output"], user("on")], store=False)
    assert provider.requests[1].chat.messages[1].reasoning_content == "hm"


@pytest.mark.parametrize(
    ("model", "owner"), [("two/m", "ann"), ("one/other", "ann"), ("one/m", "bob")], ids=["upstream", "model", "owner"]
)
async def test_reasoning_of_another_is_left_out_and_noted(
    provider: ChatUpstream, tmp_path: Path, model: str, owner: str
) -> None:
    provider.follow(always(answer(thought("hm"), text("hi"))))
    async with closing(services_in(tmp_path, provider.base_url, names=("one", "two"))) as services:
        first = await said(services, owner="ann", model="one/m", input="hi")
        items = [user("hi"), *first["output"], user("on")]
        listener = Listener()
        request = request_of(model=model, input=items, stream=True)
        outcome = await turn.run(request, listener, services, owner=owner)
    message = provider.requests[1].chat.messages[1]
    assert (message.text, message.reasoning_content) == ("hi", None)
    reasoning = first["output"][0]["id"]
    issuer = "" if owner == "bob" else "chat"
    reasons: dict[str, Reason] = {"two/m": "organization_mismatch", "one/other": "model_mismatch"}
    reason = reasons.get(model, "end_user_mismatch")
    assert outcome.losses == [Loss("reasoning", reasoning, "removed", reason, issuer)]
    transformed = json.loads(bytes(outcome.response))["input_transformations"]
    assert transformed == [{"id": reasoning, "type": "reasoning", "action": "removed", "reason": reason}]


async def test_a_chain_that_changes_its_model_leaves_the_reasoning_behind_and_finds_it_again(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(lambda request: answer(thought(f"hm {request.model}"), text("hi")))
    previous: Json = {}
    for model in ("a", "b", "a"):
        response = await said(services, model=model, input="on", **previous)
        previous = {"previous_response_id": response["id"]}
    recalled = [message.reasoning_content for message in provider.requests[2].chat.messages]
    assert recalled == [None, "hm a", None, None, None]


# Stored, or not, before anybody hears of the end


async def test_a_response_that_is_not_stored_never_touches_the_disk(provider: ChatUpstream, services: Services) -> None:
    provider.follow(scripted)
    parent = await chained(services, 2)
    before = files(services.store.location)
    further: Json = {"input": next_input(parent, 1), "previous_response_id": parent["id"]}
    plain = await said(services, store=False, **further)
    events = await heard(services, store=False, **further)
    assert files(services.store.location) == before
    for response_id in (plain["id"], events[-1]["response"]["id"]):
        with pytest.raises(Missing):
            await services.store.get(response_id, owner="local")
        with pytest.raises(InvalidRequest, match="not found"):
            await said(services, input="on", previous_response_id=response_id)
    assert (plain["store"], plain["status"]) == (False, "completed")


def files(directory: Path) -> dict[str, bytes]:
    """Everything in the store but the shared memory its readers coordinate in."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}


async def test_the_last_event_waits_for_the_commit(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([answer(text("hi"))])
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    asked, allowed = asyncio.Event(), asyncio.Event()

    async def hold(change: Change) -> None:
        asked.set()
        await allowed.wait()

    async with closing(services):
        gate.before = hold
        commits: list[int] = []
        listener = Listener()
        listener.on(TERMINAL, lambda: commits.append(gate.commits))
        running = asyncio.create_task(turn.run(request_of(input="hi", stream=True), listener, services, owner="local"))
        await asyncio.wait_for(asked.wait(), 5)
        await asyncio.sleep(0.02)
        assert [event["type"] for event in listener.events][-1] == "response.output_text.delta"
        allowed.set()
        await running
    assert commits == [1]
    assert folded(listener.events)["status"] == "completed"


def disk_full(change: Change) -> None:
    raise StoreError("disk full")


async def too_slow(change: Change) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("before", [disk_full, too_slow])
async def test_what_cannot_be_stored_is_not_completed(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Callable[[Change], object]
) -> None:
    monkeypatch.setattr(turn, "STORE_TIMEOUT", 0.05)
    provider.follow(always(answer(text("hi"))))
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    async with closing(services):
        gate.before = before
        with capture_logs() as logs:
            response = folded(await heard(services, input="hi"))
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
        assert response["error"]["message"] == "The response was generated but could not be stored."
        assert (response["completed_at"], response["incomplete_details"]) == (None, None)
        assert response["output"][0]["content"][0]["text"] == "hi"
        assert response["usage"]["total_tokens"] == 18
        assert [(line["event"], line["response"]) for line in logs] == [("response not stored", response["id"])]
        assert not services.condition.store_works
        services.condition.store_works = True
        error = await raised(services, StoreFailed, input="hi")
        assert isinstance(error, StoreFailed)
        assert (error.status, error.headers) == (500, {"x-should-retry": "false"})
        with pytest.raises(Unavailable, match="the store does not work"):
            await said(services, input="hi")
        gate.before = None
        assert (await said(services, input="hi", store=False))["status"] == "completed"
    assert len(provider.requests) == 3, "a turn that cannot be stored is not paid for"


@pytest.mark.parametrize("live", [True, False])
async def test_a_parent_that_is_deleted_while_its_child_is_made_takes_the_child_with_it(
    provider: ChatUpstream, tmp_path: Path, live: bool
) -> None:
    provider.follow([answer(text("hi")), answer(text("on"))])
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    async with closing(services):
        parent = await said(services, input="hi")
        deleted = False

        async def delete_first(change: Change) -> None:
            nonlocal deleted
            if not deleted:
                deleted = True
                await services.store.delete(parent["id"], owner="local")

        gate.before = delete_first
        fields: Json = {"input": "on", "previous_response_id": parent["id"]}
        if live:
            response = folded(await heard(services, **fields))
            assert response["status"] == "failed"
            message = response["error"]["message"]
        else:
            message = str(await raised(services, StoreFailed, **fields))
        assert services.condition.store_works
    assert message == f"Previous response with id '{parent['id']}' was deleted while this response was generated."


async def test_a_failed_response_is_stored_as_one_and_nobody_goes_on_from_it(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("cut", after=2))])
    response = folded(await heard(services, input="hi"))
    record = await services.store.get(response["id"], owner="local")
    assert (record.status, json.loads(record.response)) == ("failed", response)
    error = await raised(services, InvalidRequest, input="on", previous_response_id=response["id"])
    assert isinstance(error, InvalidRequest)
    assert error.code == "previous_response_not_found"
    assert len(provider.requests) == 1


async def test_items_are_stored_with_ids_and_with_everything_nobody_here_knows(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow([answer(text("hi"))])
    item = user("hi") | {"x_extra": {"b": 1.5, "a": ["é"]}}
    response = await said(services, input=[item, user("on") | {"id": "msg_mine"}])
    record = await services.store.get(response["id"], owner="local")
    first, second = (json.loads(raw) for raw in record.input)
    assert first["x_extra"] == item["x_extra"]
    assert re.fullmatch("msg_[0-9a-f]{36}", first["id"])
    assert first["id"].startswith(f"msg_{response['id'].removeprefix('resp_')}")
    assert (first["status"], second["id"]) == ("completed", "msg_mine")


# Before the provider is asked


async def test_a_server_that_shuts_down_refuses_the_turn_before_anybody_is_asked(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    async with closing(services_in(tmp_path, provider.base_url)) as services:
        services.running.draining = True
        await raised(services, Unavailable, input="hi")
    assert provider.requests == []


async def test_a_model_nobody_serves_is_refused(provider: ChatUpstream, tmp_path: Path) -> None:
    services = services_in(tmp_path, provider.base_url)
    async with closing(services):
        error = await raised(services, InvalidRequest, model="x" * 300, input="hi")
    assert isinstance(error, InvalidRequest)
    assert (error.param, error.code) == ("model", "model_not_found")


async def test_what_the_provider_has_no_word_for_is_refused(provider: ChatUpstream, services: Services) -> None:
    error = await raised(services, Unsupported, input="hi", top_logprobs=2)
    assert isinstance(error, Unsupported)
    assert error.param == "top_logprobs"
    assert provider.requests == []


async def test_knobs_without_effect_are_noted_and_logged(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(text("hi"))])
    request = request_of(input="hi", seed=7, text={"verbosity": "low"}, tools=[{"type": "web_search"}])
    with capture_logs() as logs:
        outcome = await turn.run(request, turn.Discard(), services, owner="local")
    assert outcome.notes == [
        "seed: unknown or without effect here",
        "tools.web_search: this upstream has no web search, the tool is not offered",
        "text.verbosity: not understood by this upstream",
    ]
    assert [(line["event"], line["notes"]) for line in logs] == [("left out", outcome.notes)]


async def test_what_has_no_words_upstream_is_left_out_and_said(provider: ChatUpstream, services: Services) -> None:
    provider.follow(always(answer(text("hi"))))
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    searched = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    request = request_of(input=[{"role": "user", "content": "hi"}, thought, searched], store=False)
    outcome = await turn.run(request, turn.Discard(), services, owner="local")
    assert outcome.losses == [
        Loss("reasoning", "rs_1", "removed", "not_sealed"),
        Loss("web_search_call", "ws_1", "removed", "no_words"),
    ]


async def test_a_cache_breakpoint_the_upstream_does_not_read_is_noted(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(always(answer(text("hi"))))
    part = {"type": "input_text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}
    request = request_of(input=[{"role": "user", "content": [part]}])
    first = await turn.run(request, turn.Discard(), services, owner="local")
    assert first.notes == ["input: prompt_cache_breakpoint is not understood by this upstream"]


async def test_what_the_answer_leaves_out_is_noted_too(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(calls(call("weather", id="a"), call("weather", id="b")))])
    request = request_of(input="hi", tools=[WEATHER], parallel_tool_calls=False)
    outcome = await turn.run(request, turn.Discard(), services, owner="local")
    assert outcome.notes == ["parallel_tool_calls: a second call, of 'weather', was left out"]


# Truncation


def small_window(request: SentChat) -> Step:
    if len(request.messages) > 4:
        return HttpError(400, "This model's maximum context length is 4 messages.", code="context_length_exceeded")
    return answer(text(f"re: {request.messages[-1].text}"))


def long_talk(turns: int) -> Sequence[Json]:
    items: list[Json] = []
    for number in range(turns):
        items += [user(f"question {number}"), {"role": "assistant", "content": f"answer {number}"}]
    return [*items, user("last")]


async def test_a_talk_that_does_not_fit_is_asked_again_with_fewer_turns(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(small_window)
    request = request_of(input=long_talk(7), truncation="auto", instructions="Be brief.")
    outcome = await turn.run(request, turn.Discard(), services, owner="local")
    response = json.loads(bytes(outcome.response))
    items = await services.store.lineage(response["id"], owner="local")
    texts = [message.text for message in provider.requests[-1].chat.messages]
    assert texts == ["Be brief.", "question 6", "answer 6", "last"]
    assert response["output"][0]["content"][0]["text"] == "re: last"
    assert outcome.notes[-1].startswith("truncation: ")
    assert len(items[0].input) == 15, "what was said is kept, whatever was sent"


async def test_a_talk_that_does_not_fit_fails_where_that_is_wanted(provider: ChatUpstream, services: Services) -> None:
    provider.follow(small_window)
    error = await raised(services, UpstreamError, input=long_talk(7))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.status) == ("context_length_exceeded", 400)
    assert len(provider.requests) == 1


async def test_a_single_turn_that_does_not_fit_fails_whatever_is_wanted(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(always(HttpError(400, "prompt is too long")))
    error = await raised(services, UpstreamError, input="x", truncation="auto")
    assert isinstance(error, UpstreamError)
    assert error.code == "context_length_exceeded"
    assert len(provider.requests) == 1


async def test_a_stream_that_began_before_the_provider_refused_is_shortened_too(
    provider: ChatUpstream, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "STATUS_WAIT", 0.01)
    refused = b'{"error":{"message":"prompt is too long","code":"context_length_exceeded"}}'
    late = Wire((Pause(0.1), Head(400, {"content-type": "application/json"}), refused))
    provider.follow([late, answer(text("hi"))])
    response = folded(await heard(services, input=long_talk(1), truncation="auto"))
    assert response["status"] == "completed"


async def test_an_answer_that_has_something_to_show_is_not_asked_for_again(
    provider: ChatUpstream, services: Services
) -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    error = b'data: {"error":{"message":"prompt is too long","code":"context_length_exceeded"}}\n\n'
    provider.follow(always(raw(body, error)))
    response = folded(await heard(services, input=long_talk(1), truncation="auto"))
    assert (response["status"], response["error"]["code"]) == ("failed", "context_length_exceeded")
    assert len(provider.requests) == 1


# What a provider may do


async def test_an_error_of_the_provider_is_raised_while_nobody_has_heard_anything(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(always(HttpError(429, "slow down", headers={"retry-after": "7"})))
    for live in (True, False):
        listener = Listener(live)
        with pytest.raises(UpstreamError, match="slow down") as caught:
            await turn.run(request_of(input="hi", stream=True), listener, services, owner="local")
        assert (caught.value.status, caught.value.retry_after) == (429, 7.0)
        assert listener.sent == []


async def test_an_error_of_a_provider_names_it(provider: ChatUpstream, services: Services) -> None:
    provider.follow([HttpError(401, "Incorrect API key provided: sk-1")])
    error = await raised(services, UpstreamError, input="hi")
    assert isinstance(error, UpstreamError)
    assert (error.upstream, error.status) == ("test", 401)


async def test_an_answer_that_breaks_off_is_an_error_where_nobody_reads_along(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("cut", after=2))])
    before = files(services.store.location)
    await raised(services, BrokenStream, input="hi")
    assert files(services.store.location) == before


TROUBLES: dict[str, Step] = {
    "reset": answer(text("Hel", "lo"), trouble=Trouble("reset", after=2)),
    "end": answer(text("Hel", "lo"), trouble=Trouble("end", after=2)),
    "error": answer(text("Hel", "lo"), trouble=Trouble("error", after=2)),
    "bad json": answer(text("Hel", "lo"), trouble=Trouble("bad_json", after=2)),
    "nothing": raw(b"data: [DONE]\n\n"),
    "a tool nobody offered": answer(calls(call("unknown"))),
}


@pytest.mark.parametrize("step", TROUBLES.values(), ids=TROUBLES)
async def test_whatever_breaks_an_answer_it_ends_with_one_failure(
    provider: ChatUpstream, services: Services, step: Step
) -> None:
    provider.follow([step])
    response = folded(await heard(services, input="hi"))
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert response["usage"] is None


async def test_a_line_that_has_no_end_breaks_an_answer(
    provider: ChatUpstream, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoinder.wire.sse.MAX_LINE", 1000)
    provider.follow([raw(b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n', b"data: " + b"x" * 2000, gap=0.02)])
    response = folded(await heard(services, input="hi"))
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")


async def test_comments_of_a_provider_are_signs_of_life_and_nothing_else(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    comments: Iterable[bytes] = [b": OPENROUTER PROCESSING\n\n"] * 4
    provider.follow([raw(*comments, body, gap=0.15)])
    async with closing(services_in(tmp_path, provider.base_url, server={"stall_timeout": 0.4})) as services:
        response = folded(await heard(services, input="hi"))
    assert response["status"] == "completed"


async def test_the_body_of_a_refusal_is_read_to_a_limit(
    provider: ChatUpstream, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MAX_WHOLE", 1000)
    provider.follow([raw(b"no such thing\n", *[b"x" * 600] * 50, status=404, content_type="text/plain", gap=0.001)])
    error = await raised(services, UpstreamError, input="hi")
    assert isinstance(error, UpstreamError)
    assert (str(error), error.status) == ("no such thing", 404)


async def test_a_provider_that_holds_the_connection_after_its_answer_holds_nobody(
    provider: ChatUpstream, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "END_WAIT", 0.05)
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    provider.follow([Wire((Head(), chunk, b"data: [DONE]\n\n", Stall()))])
    response = folded(await heard(services, input="hi"))
    assert response["status"] == "completed"
    assert provider.wait(1).left.wait(1), "it is let go"


async def test_a_provider_that_does_not_answer_in_time_is_504(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow(always(answer(text("late"), delay=5)))
    async with closing(services_in(tmp_path, provider.base_url, server={"first_byte_timeout": 0.05})) as services:
        error = await raised(services, UpstreamError, input="hi")
        with pytest.raises(UpstreamError):
            await heard(services, input="hi")
    assert isinstance(error, UpstreamError)
    assert (str(error), error.status) == ("the provider did not answer in time", 504)


async def test_a_provider_that_stops_in_the_middle_fails_the_stream(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow(always(answer(text("Hel", "lo"), trouble=Trouble("stall", after=2))))
    async with closing(services_in(tmp_path, provider.base_url, server={"stall_timeout": 0.05})) as services:
        response = folded(await heard(services, input="hi"))
    assert response["error"] == {
        "code": "server_error",
        "message": "the provider stopped in the middle of its answer",
    }
    assert response["output"][0]["content"][0]["text"] == "Hel"


class Slow(Listener):
    """A client that takes its time."""

    async def send(self, events: Sequence[Event]) -> None:
        await asyncio.sleep(0.15)
        await Listener.send(self, events)


async def test_the_time_a_client_takes_is_not_the_providers(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([answer(text("Hel", "lo"), gap=0.01)])
    async with closing(services_in(tmp_path, provider.base_url, server={"stall_timeout": 0.1})) as services:
        listener = Slow()
        await turn.run(request_of(input="hi", stream=True), listener, services, owner="local")
    assert folded(listener.events)["status"] == "completed"


async def test_a_shutdown_ends_a_turn_with_a_failure_that_says_so(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("stall", after=2))])
    async with closing(services_in(tmp_path, provider.base_url)) as services:
        listener = Listener()
        listener.on({"response.output_text.delta"}, services.running.stop)
        await turn.run(request_of(input="hi", stream=True), listener, services, owner="local")
    response = folded(listener.events)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "shutting down" in response["error"]["message"]


async def test_a_silent_provider_lets_a_stream_begin_without_it_and_fail_afterwards(
    provider: ChatUpstream, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "STATUS_WAIT", 0.01)
    provider.follow(always(Wire((Pause(0.1), Head(500, {"content-type": "text/plain"}), b"oops"))))
    listener = Listener()
    outcome = await turn.run(request_of(input="hi", stream=True), listener, services, owner="local")
    assert listener.begun is outcome
    assert folded(listener.events)["error"] == {"code": "server_error", "message": "oops"}
    record = await services.store.get(outcome.response_id, owner="local")
    assert record.status == "failed"
    assert str(await raised(services, UpstreamError, input="hi")) == "oops"


async def test_a_turn_that_is_cancelled_stores_nothing_and_leaves_the_provider(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("stall", after=2))])
    before = files(services.store.location)
    begun = asyncio.Event()
    listener = Listener()
    listener.on({"response.output_text.delta"}, begun.set)
    running = asyncio.create_task(turn.run(request_of(input="hi", stream=True), listener, services, owner="local"))
    await asyncio.wait_for(begun.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert files(services.store.location) == before
    assert len(services.running) == 0
    assert await asyncio.to_thread(provider.requests[0].left.wait, 2)
    assert not {event["type"] for event in listener.events} & TERMINAL


async def test_the_clock_of_a_response_is_the_one_of_the_server(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(text("hi"))])
    times = iter([100.9, 103.2])
    response = await said(replace(services, clock=lambda: next(times)), input="hi")
    assert (response["created_at"], response["completed_at"]) == (100, 103)

"""Turns that ask their upstream more than once: patience, repairs, searches for tools, and summaries."""

import json
from asyncio import create_task, sleep
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import pytest
from anyio import to_thread

from rejoinder.bridge import compaction
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.anthropic_script import found, search_results, server_call
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import (
    Answer,
    HttpError,
    Step,
    Trouble,
    answer,
    call,
    calls,
    death,
    text,
    thought,
)
from rejoinder.server import attempts, turn
from rejoinder.server.services import Services
from rejoinder.wire.errors import BadRequest
from tests.bridge.grammar import judged
from tests.server.site import WEATHER, Json, Listener, closing, request_of, said, services_in, user

BUSY = HttpError(429, "slow down", type="requests", code="rate_limit_exceeded", headers={"retry-after-ms": "20"})


@pytest.fixture
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream
    assert upstream.objections == []


@pytest.fixture
async def services(provider: ChatUpstream, tmp_path: Path) -> AsyncIterator[Services]:
    async with closing(services_in(tmp_path, provider.base_url, server={"retries": 2, "retry_budget": 0.2})) as made:
        yield made


async def heard(services: Services, **fields: object) -> tuple[Json, Listener]:
    """The response of a streamed turn, and everything its client was told, which the grammar accepts."""
    listener = Listener()
    outcome = await turn.run(request_of(stream=True, **fields), listener, services, owner="local")
    judged([json.dumps(event).encode() for event in listener.events])
    return json.loads(bytes(outcome.response)), listener


# Patience (reliability.md S17)


@pytest.mark.parametrize("refusal", [BUSY, HttpError(503), HttpError(529), HttpError(500), HttpError(502)], ids=str)
async def test_a_provider_that_has_no_room_is_asked_again(
    provider: ChatUpstream, services: Services, monkeypatch: pytest.MonkeyPatch, refusal: HttpError
) -> None:
    monkeypatch.setattr(attempts, "FIRST_WAIT", 0.02)
    provider.follow([refusal, answer(text("hi"))])
    response, listener = await heard(services, input="hi")
    assert response["status"] == "completed"
    assert [event["type"] for event in listener.events].count("response.created") == 1
    first, second = provider.requests
    assert first.body == second.body
    record = await services.store.get(response["id"], owner="local")
    [attempt] = record.attempts
    assert attempt.status == refusal.status
    assert 0.01 < attempt.waited < 0.1
    assert second.at - first.at >= attempt.waited


async def test_the_hint_of_the_provider_is_kept_to(provider: ChatUpstream, services: Services) -> None:
    provider.follow([HttpError(429, headers={"retry-after-ms": "150"}), answer(text("hi"))])
    begun = monotonic()
    await said(services, input="hi")
    assert monotonic() - begun >= 0.15


async def test_a_wait_beyond_the_budget_is_the_clients_to_make(provider: ChatUpstream, services: Services) -> None:
    provider.follow([HttpError(429, headers={"retry-after": "1"}), answer(text("hi"))])
    with pytest.raises(UpstreamError) as raised:
        await said(services, input="hi")
    assert (raised.value.status, raised.value.retry_after) == (429, 1)
    assert len(provider.requests) == 1


async def test_patience_ends(provider: ChatUpstream, services: Services) -> None:
    provider.follow([BUSY] * 5)
    with pytest.raises(UpstreamError):
        await said(services, input="hi")
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    "step",
    [
        HttpError(400),
        HttpError(401),
        HttpError(403),
        HttpError(404),
        HttpError(504),
        HttpError(429, "You exceeded your current quota", code="insufficient_quota"),
        HttpError(503, headers={"x-should-retry": "false"}),
        death("before_head"),
        death("before_head", reset=True),
        death("in_head"),
        death("after_head"),
        answer(text("Hel", "lo"), trouble=Trouble("cut", after=2)),
        answer(text("Hel", "lo"), trouble=Trouble("error", after=2)),
        answer(trouble=Trouble("bad_json", after=0)),
    ],
    ids=str,
)
async def test_what_cannot_help_or_may_be_paid_for_is_not_asked_again(
    provider: ChatUpstream, services: Services, step: Step
) -> None:
    provider.follow([step, answer(text("hi"))])
    with pytest.raises(UpstreamError):
        await said(services, input="hi")
    assert len(provider.requests) == 1


async def test_an_upstream_that_is_not_there_yet_is_asked_again(tmp_path: Path) -> None:
    with ChatUpstream() as gone:
        address = gone.base_url
    async with closing(services_in(tmp_path, address, server={"retries": 1, "retry_budget": 1})) as services:
        begun = monotonic()
        with pytest.raises(UpstreamError) as raised:
            await said(services, input="hi")
    assert raised.value.status == 503
    assert monotonic() - begun > 0.3, "it was tried twice"


async def test_a_server_that_stops_does_not_wait_to_ask_again(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([HttpError(429, headers={"retry-after": "5"})])
    server = {"retries": 1, "retry_budget": 60}
    async with closing(services_in(tmp_path, provider.base_url, server=server)) as services:
        running = create_task(said(services, input="hi"))
        await to_thread.run_sync(provider.wait, 1)
        await sleep(0.1)
        services.running.stop()
        with pytest.raises(UpstreamError) as raised:
            await running
    assert "shutting down" in str(raised.value)


# Free-form calls and their grammar


PATCH: Json = {
    "type": "custom",
    "name": "patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a" NUMBER+ "z"\nNUMBER: /[0-9]/'},
}


def patch(content: str, id: str = "call_p") -> Answer:
    whole = json.dumps({"input": content})
    return answer(thought("hm"), calls(call("patch", whole[:7], whole[7:], id=id)))


async def test_a_text_that_does_not_match_goes_back_to_the_model_once(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([patch("axz", "call_1"), patch("a12z", "call_2")])
    async with closing(services_in(tmp_path, provider.base_url, grammar="repair")) as services:
        response, listener = await heard(services, input="hi", tools=[PATCH])
        record = await services.store.get(response["id"], owner="local")
    assert [(item["type"], item.get("input")) for item in response["output"]] == [
        ("reasoning", None),
        ("reasoning", None),
        ("custom_tool_call", "a12z"),
    ]
    assert len(record.output) == 3
    assert b"axz" not in b"".join(json.dumps(event).encode() for event in listener.events)
    [_, asked, told] = provider.requests[1].chat.messages
    assert asked.tool_calls[0].function.arguments == '{"input":"axz"}'
    assert "line 1 leaves the grammar at 'xz'" in told.text
    assert response["usage"]["output_tokens"] == 14, "both requests are paid for"


async def test_a_second_text_that_does_not_match_is_the_clients(provider: ChatUpstream, tmp_path: Path) -> None:
    provider.follow([patch("axz", "call_1"), patch("bad", "call_2")])
    async with closing(services_in(tmp_path, provider.base_url, grammar="repair")) as services:
        listener = Listener()
        outcome = await turn.run(request_of(input="hi", tools=[PATCH]), listener, services, owner="local")
    assert json.loads(bytes(outcome.response))["output"][-1]["input"] == "bad"
    assert len(outcome.notes) == 2
    assert outcome.notes[0].endswith("the model was asked once more")
    assert "'bad'" in outcome.notes[1]


@pytest.mark.parametrize("mode", ["pass", "check"])
async def test_a_text_that_does_not_match_is_streamed_and_noted_where_that_is_asked(
    provider: ChatUpstream, tmp_path: Path, mode: str
) -> None:
    provider.follow([patch("axz")])
    async with closing(services_in(tmp_path, provider.base_url, grammar=mode)) as services:
        listener = Listener()
        outcome = await turn.run(request_of(input="hi", tools=[PATCH]), listener, services, owner="local")
    assert json.loads(bytes(outcome.response))["output"][-1]["input"] == "axz"
    assert bool(outcome.notes) is (mode == "check")


async def test_a_grammar_nobody_can_read_is_refused_where_it_would_be_used(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    broken = PATCH | {"format": {"type": "grammar", "syntax": "lark", "definition": "start: missing"}}
    async with closing(services_in(tmp_path, provider.base_url, grammar="check")) as services:
        with pytest.raises(Unsupported, match="the grammar of tool 'patch' cannot be read"):
            await said(services, input="hi", tools=[broken])
    assert provider.requests == []


# Searches for tools


def tool(name: str, description: str, **more: object) -> Json:
    return {"type": "function", "name": name, "description": description, "parameters": {}, **more}


TOOLS: Json = [
    {"type": "tool_search"},
    tool("clock", "Says the time."),
    tool("find_flights", "Searches for flights between two airports.", defer_loading=True),
    tool("book_hotel", "Books a hotel room.", defer_loading=True),
]


async def test_deferred_tools_are_found_by_a_search_and_called_in_the_same_answer(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow(
        [
            answer(calls(call("tool_search", '{"query":"flight to Rome"}'))),
            answer(calls(call("find_flights", '{"to":"Rome"}'))),
            answer(text("LH 1")),
        ]
    )
    response, _ = await heard(services, input="hi", tools=TOOLS)
    searched, found, called = response["output"]
    assert (searched["type"], searched["execution"], searched["call_id"]) == ("tool_search_call", "server", None)
    assert searched["arguments"] == {"query": "flight to Rome"}
    assert [declared["name"] for declared in found["tools"]] == ["find_flights"]
    assert (called["type"], called["name"]) == ("function_call", "find_flights")
    offered = [[one.function.name for one in request.chat.tools] for request in provider.requests]
    assert offered == [["tool_search", "clock"], ["tool_search", "clock", "find_flights"]]
    output = {"type": "function_call_output", "call_id": called["call_id"], "output": "LH 1"}
    await said(services, input=[output], previous_response_id=response["id"], tools=TOOLS)
    second, third = (request.chat.messages for request in provider.requests[1:])
    assert [message.role for message in third] == ["user", "assistant", "tool", "assistant", "tool"]
    assert third[: len(second)] == second, "what was found stays found"


async def test_a_model_that_only_searches_comes_to_an_end(provider: ChatUpstream, services: Services) -> None:
    provider.follow(lambda request: answer(calls(call("tool_search", '{"query":"flights"}'))))
    response, _ = await heard(services, input="hi", tools=TOOLS)
    assert response["status"] == "completed"
    assert len(provider.requests) == 11


# Summaries


ORDER = compaction.INSTRUCTION[:40]


async def test_a_trigger_makes_exactly_one_compaction_item(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(thought("hm"), text("They said ", "hello.")), answer(text("Hello again."))])
    history = [user("hello"), {"type": "message", "role": "assistant", "content": "hi"}, {"type": "compaction_trigger"}]
    response, listener = await heard(services, input=history, tools=[WEATHER])
    [item] = response["output"]
    assert item["type"] == "compaction"
    assert "hello" not in item["encrypted_content"]
    assert [event["type"] for event in listener.events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.compaction.compacting",
        "response.output_item.done",
        "response.completed",
    ]
    assert response["usage"]["total_tokens"] > 0
    sent = provider.requests[0].chat
    assert sent.messages[-1].text.startswith(ORDER)
    assert [one.function.name for one in sent.tools] == ["weather"]
    assert bytes(sent.tool_choice) == b'"none"'
    again = [user("hello"), item, user("And now?")]
    for fields in ({"input": again}, {"input": "And now?", "previous_response_id": response["id"]}):
        provider.follow([answer(text("Hello again."))])
        await said(services, **fields)
        messages = provider.requests[-1].chat.messages
        assert [message.role for message in messages] == ["user", "system", "user"]
        assert messages[1].text == compaction.PREAMBLE + "They said hello."


async def test_a_conversation_over_its_threshold_is_compacted_and_answered(
    provider: ChatUpstream, services: Services
) -> None:
    provider.follow([answer(text("x" * 9000)), answer(text("Long xs.")), answer(text("Yes.")), answer(text("Still."))])
    first = await said(services, input="Write a lot.")
    compacting: Json = [{"type": "compaction", "compact_threshold": 1000}]
    second, _ = await heard(services, input="Did you?", previous_response_id=first["id"], context_management=compacting)
    assert [item["type"] for item in second["output"]] == ["compaction", "message"]
    asked, answered = provider.requests[1:]
    assert asked.chat.messages[-1].text.startswith(ORDER)
    assert [message.text[:20] for message in answered.chat.messages] == [
        "Write a lot.",
        "Did you?",
        compaction.PREAMBLE[:20],
    ]
    assert second["usage"]["output_tokens"] == 14
    third, _ = await heard(services, input="Still?", previous_response_id=second["id"], context_management=compacting)
    assert [item["type"] for item in third["output"]] == ["message"], "a summary is short"
    before, after = (request.body for request in provider.requests[-2:])
    assert after.startswith(before[: before.rindex(b"]}")]), "the summary is said in the same bytes"
    stored = await services.store.lineage(third["id"], owner="local")
    assert len(stored) == 3
    assert b"xxxx" in stored[0].output[0], "what was summarised stays in the store"


async def test_a_model_that_writes_no_summary_fails_the_turn(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(thought("hm"), calls(call("weather", "{}")))])
    response, _ = await heard(services, input=[user("hi"), {"type": "compaction_trigger"}], tools=[WEATHER])
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")


async def test_a_summary_that_pauses_is_written_to_its_end(tmp_path: Path) -> None:
    searching = server_call("web_search", '{"query":"hello"}')
    paused = answer(text("They said "), searching, finish="pause_turn")
    steps = [paused, answer(search_results(found("https://a.test")), text("hello.")), answer(text("Hello."))]
    with AnthropicUpstream(steps) as upstream:
        async with closing(services_in(tmp_path, upstream.base_url, dialect="anthropic")) as services:
            history = [user("hello"), {"type": "compaction_trigger"}]
            response, _ = await heard(services, input=history)
            [item] = response["output"]
            assert item["type"] == "compaction"
            assert response["usage"]["output_tokens"] == 14, "both requests are paid for"
            await said(services, input=[item, user("And now?")])
        assert upstream.objections == []
        sent = upstream.requests[-1].anthropic
        assert compaction.PREAMBLE + "They said hello." in [sent.instructions, *(one.text for one in sent.messages)]


async def test_a_summary_that_is_cut_off_is_said_to_be(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(text("They sa"), finish="length"), answer(text("Hello again."))])
    listener = Listener()
    order = request_of(input=[user("hello"), {"type": "compaction_trigger"}], stream=True)
    outcome = await turn.run(order, listener, services, owner="local")
    assert outcome.notes == ["compaction: the summary was cut off (max_output_tokens)"]
    [item] = json.loads(bytes(outcome.response))["output"]
    await said(services, input=[item, user("And now?")])
    assert provider.requests[-1].chat.messages[0].text == compaction.PREAMBLE + "They sa"


async def test_the_tools_after_a_summary_are_those_of_the_next_turn(provider: ChatUpstream, services: Services) -> None:
    provider.follow(
        [
            answer(calls(call("tool_search", '{"query":"flight"}'))),
            answer(text("x" * 9000)),
            answer(text("Long.")),
            answer(text("Yes.")),
            answer(text("Still.")),
        ]
    )
    compacting: Json = [{"type": "compaction", "compact_threshold": 1000}]
    fields = {"tools": TOOLS, "context_management": compacting}
    first = await said(services, input="hi", **fields)
    second = await said(services, input="Did you?", previous_response_id=first["id"], **fields)
    assert [item["type"] for item in second["output"]] == ["compaction", "message"]
    await said(services, input="Still?", previous_response_id=second["id"], **fields)
    before, after = (json.loads(request.body) for request in provider.requests[-2:])
    assert after["tools"] == before["tools"], "what was found is to be found again"
    assert after["messages"][: len(before["messages"])] == before["messages"]


async def test_a_summary_of_what_no_longer_fits_is_made_of_what_does(
    provider: ChatUpstream, services: Services
) -> None:
    full = HttpError(400, "too long", code="context_length_exceeded")
    provider.follow([full, answer(text("Short."))])
    history = [user("one"), user("two"), user("three"), {"type": "compaction_trigger"}]
    response, _ = await heard(services, input=history)
    assert [item["type"] for item in response["output"]] == ["compaction"]
    first, second = (len(request.chat.messages) for request in provider.requests)
    assert second < first


@pytest.mark.parametrize("blob", ["gAAAAfromOpenAI", "brg1.AAAA", ""])
async def test_a_summary_nobody_here_can_open_is_refused(provider: ChatUpstream, services: Services, blob: str) -> None:
    with pytest.raises(BadRequest) as raised:
        await said(services, input=[{"type": "compaction", "encrypted_content": blob}, user("hi")])
    assert (raised.value.param, raised.value.code) == ("input", "invalid_encrypted_content")
    assert provider.requests == []


async def test_another_key_holder_cannot_use_a_summary(provider: ChatUpstream, services: Services) -> None:
    provider.follow([answer(text("Secret."))])
    response = await said(services, owner="ann", input=[user("hi"), {"type": "compaction_trigger"}])
    with pytest.raises(BadRequest, match="another API key"):
        await said(services, owner="bob", input=[*response["output"], user("hi")])

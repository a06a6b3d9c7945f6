"""The seven WebSocket checks of the compliance suite of Open Responses, against the real server (open-responses.md §9).

Each check is a conversation, with the assertions its validators make. What it heard is held against the rules of §4 and
§5 that are written down here, and, where the schemas of the specification lie beside the project, against those too.
"""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any  # JSON as it came

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import answer, text
from tests.clients.talk import TERMINAL, Event, Talk, talking
from tests.live import LiveServer, LiveUpstream, running
from tests.server.schema import event_violations, needs_schemas, violations

pytestmark = pytest.mark.clients

KEY = "rj-ada-7f3c19d2"
CALL = "call_openresponses_missing"


@dataclass(frozen=True, slots=True)
class Runner:
    """The suite's side: a base URL, a key and a model."""

    base_url: str
    model: str

    def connect(self) -> AbstractContextManager[Talk]:
        return talking(self.base_url, KEY, {"Content-Type": "application/json"})

    def turn(self, talk: Talk, words: str | Sequence[object], **fields: object) -> list[Event]:
        """One request, and what was said to it."""
        talk.create(model=self.model, input=words, **fields)
        return talk.answer()

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.base_url}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answered:
            found = json.loads(answered.read())
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def server(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    upstreams = [
        LiveUpstream(provider.base_url, models=("test-model",)),
        LiveUpstream(name="demo", dialect="demo", models=("demo",)),
    ]
    with running(tmp_path_factory.mktemp("server"), upstreams=upstreams, keys={"ada": KEY}) as server:
        yield server


@pytest.fixture(params=["test-model", "demo"])
def runner(request: pytest.FixtureRequest, server: LiveServer, upstream: ChatUpstream) -> Runner:
    upstream.follow(lambda request: answer(text("Hello ", "there.")))
    return Runner(server.base_url, request.param)


# The checks. Each gives all it heard.


def response(runner: Runner) -> list[Event]:
    words = [{"type": "message", "role": "user", "content": "Count from 1 to 5."}]
    with runner.connect() as talk:
        events = runner.turn(talk, words)
    assert is_complete(events)
    return events


def sequential_responses(runner: Runner) -> list[Event]:
    with runner.connect() as talk:
        first = runner.turn(talk, "Say hello.", store=False)
        second = runner.turn(talk, "Say goodbye.", store=False)
    assert is_complete(first)
    assert is_complete(second)
    assert first[-1]["response"]["id"] != second[-1]["response"]["id"]
    return first + second


def continuation(runner: Runner) -> list[Event]:
    with runner.connect() as talk:
        first = runner.turn(talk, "Remember the word blue.", store=False)
        id_ = first[-1]["response"]["id"]
        second = runner.turn(talk, "Which word?", store=False, previous_response_id=id_)
    assert [event for event in first if event["type"] == "error"] == []
    assert is_complete(second)
    assert second[-1]["response"]["previous_response_id"] == id_
    return first + second


def reconnect_store_false_recovery(runner: Runner) -> list[Event]:
    with runner.connect() as talk:
        first = runner.turn(talk, "Remember the word blue.", store=False)
    with runner.connect() as talk:
        lost = runner.turn(talk, "Which?", store=False, previous_response_id=first[-1]["response"]["id"])
        fresh = runner.turn(talk, "Say hello.", store=False)
    assert code(lost) == "previous_response_not_found"
    assert is_complete(fresh)
    return first + lost + fresh


def previous_response_not_found(runner: Runner) -> list[Event]:
    with runner.connect() as talk:
        lost = runner.turn(talk, "Which?", store=False, previous_response_id="resp_openresponses_missing")
    assert code(lost) == "previous_response_not_found"
    assert lost[-1]["type"] == "error"
    return lost


def failed_continuation_evicts_cache(runner: Runner) -> list[Event]:
    with runner.connect() as talk:
        first = runner.turn(talk, "Say hello.", store=False)
        parent = first[-1]["response"]["id"]
        output = [{"type": "function_call_output", "call_id": CALL, "output": "nothing"}]
        failed = runner.turn(talk, output, store=False, previous_response_id=parent)
        again = runner.turn(talk, "Say hello again.", store=False, previous_response_id=parent)
    assert code(failed)
    assert code(again) == "previous_response_not_found"
    return first + failed + again


def compact_new_chain(runner: Runner) -> list[Event]:
    said = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Remember blue."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I will."}]},
    ]
    output = runner.post("/responses/compact", {"model": runner.model, "input": said})["output"]
    assert isinstance(output, list)
    new = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Which word?"}]}
    with runner.connect() as talk:
        events = runner.turn(talk, [*output, new], tools=[], store=False)
    assert is_complete(events)
    return events


CHECKS: Sequence[Callable[[Runner], list[Event]]] = (
    response,
    sequential_responses,
    continuation,
    reconnect_store_false_recovery,
    previous_response_not_found,
    failed_continuation_evicts_cache,
    compact_new_chain,
)

every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.replace("_", "-"))


def is_complete(events: Sequence[Event]) -> bool:
    last = events[-1]
    return (last["type"], last.get("response", {}).get("status")) == ("response.completed", "completed")


def code(events: Sequence[Event]) -> str | None:
    """The code of an error: of its message, or of the response that failed."""
    last = events[-1]
    error = last["error"] if last["type"] == "error" else last["response"]["error"]
    assert error is not None, last
    return error["code"] if isinstance(error["code"], str) else None


# The rules of §4 and §5.

KEYS = frozenset(
    {
        *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model"),
        *("previous_response_id", "instructions", "output", "error", "tools", "tool_choice", "truncation"),
        *("parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs"),
        *("temperature", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background"),
        *("service_tier", "metadata", "safety_identifier", "prompt_cache_key"),
    }
)
"""All of them are in every response, also where it has only begun."""

NEVER_NULL = ("id", "model", "status", "service_tier", "created_at", "truncation", "temperature", "top_p", "store",
              "presence_penalty", "frequency_penalty", "top_logprobs", "parallel_tool_calls", "background", "text",
              "output", "tools", "tool_choice")  # fmt: skip

EVENTS = frozenset(
    {
        *(f"response.{name}" for name in ("created", "queued", "in_progress", *(end[9:] for end in TERMINAL))),
        *(f"response.{name}.{end}" for name in ("output_item", "content_part") for end in ("added", "done")),
        *(f"response.{name}.{end}" for name in ("output_text", "refusal", "reasoning") for end in ("delta", "done")),
        *(f"response.function_call_arguments.{end}" for end in ("delta", "done")),
        *(f"response.reasoning_summary_part.{end}" for end in ("added", "done")),
        *(f"response.reasoning_summary_text.{end}" for end in ("delta", "done")),
        "response.output_text.annotation.added",
    }
)


def check_response(one: Mapping[str, Any]) -> None:
    assert one.keys() >= KEYS
    assert [name for name in NEVER_NULL if one[name] is None] == []
    assert type(one["created_at"]) is int
    assert one["completed_at"] is None or type(one["completed_at"]) is int
    for item in one["output"]:
        check_item(item)


def check_item(item: Mapping[str, Any]) -> None:
    assert item["id"]
    assert item["status"] in ("in_progress", "completed", "incomplete")
    assert [name for name, value in item.items() if value is None] == [], "what may be left out is never null"
    for part in item.get("content", ()):
        assert part["type"] != "output_text" or isinstance(part["annotations"], list)


def check_event(event: Event) -> None:
    if event["type"] == "error":
        assert type(event["status"]) is int
        assert isinstance(event["error"]["code"], str)
        assert isinstance(event["error"]["message"], str)
        return
    assert event["type"] in EVENTS
    assert type(event["sequence_number"]) is int
    assert "stream_id" not in event
    if "response" in event:
        check_response(event["response"])
    if "item" in event:
        check_item(event["item"])


@every_check
def test_the_checks_of_open_responses_pass(runner: Runner, check: Callable[[Runner], list[Event]]) -> None:
    heard = check(runner)
    for event in heard:
        check_event(event)
    # Every response begins at zero, and leaves no number out.
    expected = 0
    for event in heard:
        if event["type"] != "error":
            expected = 0 if event["type"] == "response.created" else expected
            assert event["sequence_number"] == expected
            expected += 1


@needs_schemas
@every_check
def test_all_that_is_heard_there_is_valid_by_the_schemas(
    runner: Runner, check: Callable[[Runner], list[Event]]
) -> None:
    for event in check(runner):
        if event["type"] == "error":
            assert violations(event, "WebSocketErrorEvent") == []
            continue
        assert event_violations(event) == []
        if event["type"] in TERMINAL:
            assert violations(event["response"], "ResponseResource") == []


def test_the_checks_pass_when_all_begin_at_once(runner: Runner) -> None:
    """As the suite runs them."""
    begin = threading.Barrier(2 * len(CHECKS))

    def run(check: Callable[[Runner], list[Event]]) -> int:
        begin.wait(10)
        return len(check(runner))

    with ThreadPoolExecutor(2 * len(CHECKS)) as pool:
        assert all(pool.map(run, [*CHECKS, *CHECKS]))

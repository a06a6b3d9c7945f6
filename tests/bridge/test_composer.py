import json
from collections.abc import Callable, Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.composer import MAX_CALL_ID, Composer
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.wire import events
from rejoinder.wire.responses import UrlCitation, Usage
from tests.bridge.composing import END, USAGE, composer, encoded, told
from tests.bridge.grammar import judged
from tests.bridge.prompts import Fields, function, toolbox

ADDED, DONE = "response.output_item.added", "response.output_item.done"
CITATION = UrlCitation("https://a.test", "A", 0, 2)


def ended(out: Composer, reason: str | None = None, status: Literal["completed", "incomplete"] = "completed") -> Fields:
    """The response of the last event, after the judge has heard all of them."""
    out.finish(status, usage=USAGE, at=END, reason=reason)
    heard = encoded(out)
    judged(heard)
    response: Fields = json.loads(heard[-1])["response"]
    return response


def started(out: Composer | None = None) -> Composer:
    out = out or composer()
    out.start()
    return out


def output(response: Fields) -> list[Fields]:
    items = response["output"]
    assert isinstance(items, list)
    return items


def test_a_full_answer_in_the_order_of_the_grammar() -> None:
    out = started()
    out.reasoning("Two ")
    out.reasoning("cities.")
    out.end_reasoning([Raw(b'{"sig":1}')], {"call_x": Raw(b'"s"')})
    out.text("Checking ", [Raw(b'{"token":"C"}')])
    out.text("both.")
    out.annotation(CITATION)
    out.refusal("Not ")
    out.refusal("that.")
    out.call("a", "f", "call_x")
    out.arguments("a", '{"x"')
    out.call("b", "shell", "call_y")
    out.arguments("b", '{"commands":["ls"]}')
    out.arguments("a", ":1}")
    out.finish("completed", usage=USAGE, at=END)
    message = {"type": "message", "id": "msg_2", "role": "assistant"}
    text = {
        "type": "output_text",
        "text": "Checking both.",
        "annotations": [
            {"type": "url_citation", "url": "https://a.test", "title": "A", "start_index": 0, "end_index": 2}
        ],
        "logprobs": [{"token": "C"}],
    }
    refusal = {"type": "refusal", "refusal": "Not that."}
    call = {"type": "function_call", "id": "fc_3", "call_id": "call_x", "name": "f"}
    shell = {"type": "shell_call", "id": "sh_4", "call_id": "call_y"}
    done: list[Fields] = [
        {
            "type": "reasoning", "id": "rs_1", "status": "completed",
            "summary": [{"type": "summary_text", "text": "Two cities."}],
            "encrypted_content": '[[{"sig":1}],{"call_x":"s"}]',
        },
        {**message, "status": "completed", "content": [text, refusal]},
        {**call, "status": "completed", "arguments": '{"x":1}'},
        {**shell, "status": "completed", "action": {"commands": ["ls"]}},
    ]  # fmt: skip
    rs: Fields = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    first: Fields = {"item_id": "msg_2", "output_index": 1, "content_index": 0}
    second: Fields = {"item_id": "msg_2", "output_index": 1, "content_index": 1}
    fc: Fields = {"item_id": "fc_3", "output_index": 2}
    sh: Fields = {"output_index": 3, "command_index": 0}
    summary = "response.reasoning_summary"
    assert told(out) == [
        {"type": "response.created", "response": {"status": "in_progress", "output": []}},
        {"type": "response.in_progress", "response": {"status": "in_progress", "output": []}},
        {
            "type": ADDED, "output_index": 0,
            "item": {"type": "reasoning", "id": "rs_1", "status": "in_progress", "summary": []},
        },
        {"type": f"{summary}_part.added", **rs, "part": {"type": "summary_text", "text": ""}},
        {"type": f"{summary}_text.delta", **rs, "delta": "Two "},
        {"type": f"{summary}_text.delta", **rs, "delta": "cities."},
        {"type": f"{summary}_text.done", **rs, "text": "Two cities."},
        {"type": f"{summary}_part.done", **rs, "part": {"type": "summary_text", "text": "Two cities."}},
        {"type": DONE, "output_index": 0, "item": done[0]},
        {"type": ADDED, "output_index": 1, "item": {**message, "status": "in_progress", "content": []}},
        {
            "type": "response.content_part.added", **first,
            "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
        },
        {"type": "response.output_text.delta", **first, "delta": "Checking ", "logprobs": [{"token": "C"}]},
        {"type": "response.output_text.delta", **first, "delta": "both.", "logprobs": []},
        {
            "type": "response.output_text.annotation.added", **first, "annotation_index": 0,
            "annotation": text["annotations"][0],
        },
        {"type": "response.output_text.done", **first, "text": "Checking both.", "logprobs": [{"token": "C"}]},
        {"type": "response.content_part.done", **first, "part": text},
        {"type": "response.content_part.added", **second, "part": {"type": "refusal", "refusal": ""}},
        {"type": "response.refusal.delta", **second, "delta": "Not "},
        {"type": "response.refusal.delta", **second, "delta": "that."},
        {"type": "response.refusal.done", **second, "refusal": "Not that."},
        {"type": "response.content_part.done", **second, "part": refusal},
        {"type": DONE, "output_index": 1, "item": done[1]},
        {"type": ADDED, "output_index": 2, "item": {**call, "status": "in_progress", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", **fc, "delta": '{"x"'},
        {"type": "response.function_call_arguments.delta", **fc, "delta": ":1}"},
        {"type": "response.function_call_arguments.done", **fc, "name": "f", "arguments": '{"x":1}'},
        {"type": DONE, "output_index": 2, "item": done[2]},
        {"type": ADDED, "output_index": 3, "item": {**shell, "status": "in_progress", "action": {"commands": []}}},
        {"type": "response.shell_call_command.added", **sh, "command": ""},
        {"type": "response.shell_call_command.delta", **sh, "delta": "ls"},
        {"type": "response.shell_call_command.done", **sh, "command": "ls"},
        {"type": DONE, "output_index": 3, "item": done[3]},
        {"type": "response.completed", "response": {"status": "completed", "output": done}},
    ]  # fmt: skip


def test_raw_reasoning_is_told_in_content_parts() -> None:
    out = started(composer(reasoning="raw"))
    out.reasoning("so")
    out.text("x")
    place: Fields = {"item_id": "rs_1", "output_index": 0, "content_index": 0}
    part = {"type": "reasoning_text", "text": "so"}
    assert told(out)[3:8] == [
        {"type": "response.content_part.added", **place, "part": {"type": "reasoning_text", "text": ""}},
        {"type": "response.reasoning_text.delta", **place, "delta": "so"},
        {"type": "response.reasoning_text.done", **place, "text": "so"},
        {"type": "response.content_part.done", **place, "part": part},
        {
            "type": DONE, "output_index": 0,
            "item": {"type": "reasoning", "id": "rs_1", "status": "completed", "summary": [], "content": [part]},
        },
    ]  # fmt: skip


def test_the_beginning_is_a_whole_response_without_output() -> None:
    out = composer()
    assert not out.has_started
    assert out.is_empty
    out.start()
    assert out.has_started
    created, in_progress = out.drain()
    assert isinstance(created, events.Created)
    assert isinstance(in_progress, events.InProgress)
    assert created.response == in_progress.response
    assert json.loads(bytes(created.response))["usage"] is None
    assert out.drain() == []


def test_a_keep_alive_says_nothing_new_and_comes_before_the_end_only() -> None:
    out = started()
    out.text("x")
    out.keep_alive()
    *_, alive = told(out)
    assert alive == {"type": "response.in_progress", "response": {"status": "in_progress", "output": []}}
    out.finish("completed", usage=USAGE, at=END)
    out.drain()
    out.keep_alive()
    assert out.drain() == []


def test_the_end_says_what_was_used_and_when() -> None:
    out = started()
    out.text("x")
    response = ended(out)
    assert (response["status"], response["completed_at"], response["error"]) == ("completed", END, None)
    assert response["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }


@pytest.mark.parametrize(("reason", "said"), [("content_filter", "content_filter"), (None, "max_output_tokens")])
def test_an_answer_that_was_cut_says_why(reason: str | None, said: str) -> None:
    out = started()
    out.text("x")
    response = ended(out, reason, "incomplete")
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": said}


def test_an_empty_answer_is_a_failure_unless_it_was_cut() -> None:
    out = started()
    with pytest.raises(BrokenStream, match="the model's answer is empty"):
        out.finish("completed", usage=USAGE, at=END)
    assert output(ended(out, "content_filter", "incomplete")) == []


@pytest.mark.parametrize("name", ["local_shell", "shell", "apply_patch", "tool_search"])
def test_an_answer_of_nothing_but_a_whole_call_is_not_empty(name: str) -> None:
    out = started()
    out.call("a", name, "call_x")
    assert not out.is_empty
    out.arguments("a", ARGUMENTS[name])
    assert [item["type"] for item in output(ended(out))] == [f"{name}_call"]


ARGUMENTS = {
    "f": '{"x":1}',
    "free": '{"input":"a\\nb"}',
    "files__read": "{}",
    "files__write": "bare text",
    "local_shell": '{"command":["ls"]}',
    "shell": '{"commands":["ls","pwd"]}',
    "apply_patch": '{"type":"delete_file","path":"a"}',
    "tool_search": '{"query":"x"}',
    "unknown": "{}",
}


def begin_reasoning(out: Composer) -> None:
    out.reasoning("so")


def begin_text(out: Composer) -> None:
    out.text("hi")


def begin_refusal(out: Composer) -> None:
    out.refusal("no")


def begin_call(out: Composer) -> None:
    out.call("f", "f", out.reserve("call_f"))
    out.arguments("f", '{"x"')


def begin_whole(out: Composer) -> None:
    out.call("sh", "shell", out.reserve("call_sh"))
    out.arguments("sh", '{"commands":[]}')


@pytest.mark.parametrize(
    ("steps", "statuses"),
    [
        ([begin_text], ["incomplete"]),
        ([begin_refusal], ["incomplete"]),
        ([begin_reasoning], ["incomplete"]),
        ([begin_call], ["incomplete"]),
        ([begin_whole], ["incomplete"]),
        ([begin_reasoning, begin_text], ["completed", "incomplete"]),
        ([begin_text, begin_reasoning], ["completed", "incomplete"]),
        ([begin_text, begin_call], ["completed", "incomplete"]),
        ([begin_call, begin_text], ["completed", "incomplete"]),
        ([begin_call, begin_reasoning], ["completed", "incomplete"]),
        ([begin_call, begin_whole], ["completed", "incomplete"]),
        ([begin_whole, begin_call], ["completed", "incomplete"]),
        ([begin_whole, begin_text], ["completed", "incomplete"]),
        (
            [begin_whole, begin_reasoning, begin_call, begin_refusal],
            ["completed", "completed", "completed", "incomplete"],
        ),
    ],
)
def test_only_what_was_being_written_is_cut_and_it_is_the_last(
    steps: Sequence[Callable[[Composer], None]], statuses: list[str]
) -> None:
    out = started()
    for step in steps:
        step(out)
    assert [item["status"] for item in output(ended(out, None, "incomplete"))] == statuses


def test_what_an_issuer_wants_back_late_comes_in_an_item_of_its_own() -> None:
    out = started()
    out.text("hi")
    out.end_reasoning([Raw(b"1")], status="incomplete")
    message, carrier = output(ended(out, "content_filter", "incomplete"))
    assert (message["status"], carrier["status"]) == ("completed", "completed")
    assert (carrier["summary"], carrier["encrypted_content"]) == ([], "[[1],{}]")


def test_a_call_followed_by_what_its_issuer_wants_back_is_not_the_last() -> None:
    out = started()
    begin_call(out)
    out.end_reasoning([Raw(b"1")])
    assert [item["status"] for item in output(ended(out, "content_filter", "incomplete"))] == ["completed", "completed"]


def test_reasoning_that_was_cut_says_so() -> None:
    out = started()
    out.reasoning("so")
    out.end_reasoning([], status="incomplete")
    [item] = output(ended(out, None, "incomplete"))
    assert (item["status"], item["encrypted_content"]) == ("incomplete", "[[],{}]")


def test_calls_stay_open_side_by_side() -> None:
    out = started()
    out.call("a", "f", "call_a")
    out.call("b", "free", "call_b")
    out.arguments("b", '{"input":"b')
    out.arguments("a", "{}")
    out.arguments("b", '2"}')
    first, second = output(ended(out))
    assert (first["arguments"], second["input"]) == ("{}", "b2")


def test_a_whole_call_keeps_its_place_before_what_follows_it() -> None:
    out = started()
    begin_whole(out)
    begin_call(out)
    out.text("after")
    assert [item["type"] for item in output(ended(out))] == ["shell_call", "function_call", "message"]


def test_a_whole_call_written_beside_others_comes_when_it_is_whole() -> None:
    for status, types in ("completed", ["function_call", "shell_call"]), ("incomplete", ["function_call"]):
        out = started()
        out.call("a", "shell", "call_a")
        out.arguments("a", '{"commands":')
        begin_call(out)
        out.arguments("a", "[]}")
        response = ended(out, None, "completed" if status == "completed" else "incomplete")
        assert [item["type"] for item in output(response)] == types
        assert bool(out.notes) is (status == "incomplete")


def test_one_call_at_most_where_the_client_allows_one() -> None:
    out = started(composer(parallel=False))
    out.call("a", "f", "call_a")
    out.arguments("a", "{}")
    out.call("b", "shell", "call_b")
    out.arguments("b", "nonsense")
    assert [item["call_id"] for item in output(ended(out))] == ["call_a"]
    assert out.notes == ["parallel_tool_calls: a second call, of 'shell', was left out"]


@pytest.mark.parametrize(
    ("tools", "choice", "name"),
    [
        ([], "auto", "f"),
        ([function("f")], "none", "g"),
        ([function("f"), function("g")], {"type": "allowed_tools", "mode": "auto", "tools": [function("f")]}, "g"),
    ],
)
def test_a_call_nobody_can_answer_is_an_error(tools: list[Fields], choice: object, name: str) -> None:
    out = started(composer(toolbox(tools, choice)))
    with pytest.raises(UpstreamError, match=f"the model called '{name}', but no such tool was offered"):
        out.call("a", name, "call_a")


def test_a_tool_the_client_declared_may_be_called_though_the_choice_was_none() -> None:
    out = started(composer(toolbox([function("f")], "none")))
    out.call("a", "f", "call_a")
    assert [item["name"] for item in output(ended(out))] == ["f"]


@pytest.mark.parametrize(
    ("given_id", "reserved"),
    [("call_x", "call_x"), ("x" * MAX_CALL_ID, "x" * MAX_CALL_ID), (None, "call_1"), ("", "call_1"),
     ("old", "call_1"), ("x" * (MAX_CALL_ID + 1), "call_1")],
)  # fmt: skip
def test_a_call_keeps_the_providers_id_where_it_can_serve(given_id: str | None, reserved: str) -> None:
    assert composer(taken=frozenset({"old"})).reserve(given_id) == reserved


def test_an_id_is_given_once() -> None:
    out = composer()
    assert [out.reserve("call_0") for _ in range(3)] == ["call_0", "call_1", "call_2"]
    assert out.reserve("call_1") == "call_3"


def test_a_citation_needs_text_and_a_refusal_is_none() -> None:
    out = started()
    out.annotation(CITATION)
    assert out.notes == ["annotations: https://a.test cites no text"]
    assert out.drain()[2:] == []
    out.refusal("no")
    out.annotation(CITATION)
    out.drain()
    out.finish("completed", usage=USAGE, at=END)
    [message] = told(out)[-1]["response"]["output"]  # type: ignore[index]  # what `told` makes of a response
    assert [part["type"] for part in message["content"]] == ["refusal", "output_text"]


def test_refusals_may_be_spelled_out() -> None:
    out = started()
    out.spell_out_refusals()
    out.text("Well, ")
    out.refusal("no.")
    [message] = output(ended(out))
    assert message["content"] == [{"type": "output_text", "text": "Well, no.", "annotations": [], "logprobs": []}]


def test_a_message_is_open_until_something_else_begins() -> None:
    out = started()
    assert not out.in_message
    out.text("x")
    assert out.in_message
    out.reasoning("")
    assert not out.in_message


def test_a_broken_answer_closes_what_came_and_keeps_it() -> None:
    out = started()
    out.reasoning("so")
    out.call("a", "f", "call_a")
    out.arguments("a", '{"x"')
    out.call("b", "shell", "call_b")
    out.arguments("b", "{nonsense")
    out.call("c", "free", "call_c")
    out.arguments("c", '{"input":"abc')
    out.fail("server_error", "the stream ended", usage=Usage(1, total_tokens=1))
    heard = encoded(out)
    judged(heard)
    response = json.loads(heard[-1])["response"]
    assert response["error"] == {"code": "server_error", "message": "the stream ended"}
    assert response["usage"]["total_tokens"] == 1
    assert [(item["type"], item["status"]) for item in response["output"]] == [
        ("reasoning", "completed"),
        ("function_call", "completed"),
        ("custom_tool_call", "incomplete"),
    ]


def test_a_broken_answer_leaves_out_a_last_call_that_makes_no_sense() -> None:
    out = started()
    out.text("x")
    out.call("b", "shell", "call_b")
    out.arguments("b", '{"commands":5}')
    out.fail("server_error", "broken")
    assert [item.type for item in judged(encoded(out)).output] == ["message"]


@pytest.mark.parametrize("last", [begin_call, begin_text, begin_reasoning])
def test_arguments_that_do_not_fit_break_the_answer_and_the_rest_is_closed(last: Callable[[Composer], None]) -> None:
    out = started()
    out.call("a", "shell", "call_a")
    out.arguments("a", '{"commands":5}')
    out.call("b", "shell", "call_b")
    out.arguments("b", "[]")
    last(out)
    with pytest.raises(UpstreamError, match="the model called 'shell' with arguments that do not fit the tool"):
        out.finish("completed", usage=USAGE, at=END)
    out.fail("server_error", "broken")
    response = judged(encoded(out))
    assert (response.status, len(response.output), response.completed_at) == ("failed", 1, None)


def test_a_failure_before_anything_came_has_no_output() -> None:
    out = started()
    out.fail("rate_limit_exceeded", "slow down")
    response = judged(encoded(out))
    assert (response.status, response.output, response.usage) == ("failed", [], None)


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_an_answer_that_could_not_be_kept_ends_in_failure_instead(status: Literal["completed", "incomplete"]) -> None:
    out = started()
    out.text("x")
    out.finish(status, usage=USAGE, at=END)
    heard = encoded(out)
    out.fail_unstored("the disk is full")
    [failed] = encoded(out)
    response = judged([*heard[:-1], failed])
    assert response.error is not None
    assert (response.error.code, response.error.message) == ("server_error", "the disk is full")
    assert response.usage is not None
    assert (response.usage.total_tokens, response.completed_at, response.incomplete_details) == (7, None, None)


# Any sequence of reports at all


class Reports:
    """Random reports to a composer, in any order a provider could think of."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.out = composer(
            parallel=draw(st.booleans()),
            reasoning=draw(st.sampled_from(["summary", "raw"])),
            taken=frozenset({"call_t"}),
        )
        self._left: dict[str, str] = {}
        self.texts: list[str] = []
        self.calls: dict[str, tuple[str, str]] = {}

    def text(self) -> None:
        delta = self._draw(WORDS)
        self.texts.append(delta)
        self.out.text(delta, self._draw(st.sampled_from([None, [], [Raw(b'{"token":"x"}')]])))

    def refusal(self) -> None:
        self.out.refusal(self._draw(WORDS))

    def annotation(self) -> None:
        self.out.annotation(CITATION)

    def reasoning(self) -> None:
        self.out.reasoning(self._draw(WORDS | st.just("")))

    def end_reasoning(self) -> None:
        self.out.end_reasoning(self._draw(st.sampled_from([[], [Raw(b"1")]])))

    def keep_alive(self) -> None:
        self.out.keep_alive()

    def call(self) -> None:
        name = self._draw(st.sampled_from([*ARGUMENTS]))
        call_id = self.out.reserve(self._draw(st.sampled_from([None, "", "call_t", "call_x", "y" * 65])))
        key = f"key-{len(self.calls)}"
        self.calls[key] = name, call_id
        self.out.call(key, name, call_id)
        self._left[key] = self._draw(st.sampled_from([ARGUMENTS[name]] * 3 + ["", "{nonsense"]))

    def arguments(self) -> None:
        if self._left:
            key = self._draw(st.sampled_from([*self._left]))
            cut = self._draw(st.integers(0, len(self._left[key])))
            self.out.arguments(key, self._left[key][:cut])
            self._left[key] = self._left[key][cut:]

    def rest(self) -> None:
        for key, left in self._left.items():
            self.out.arguments(key, left)
        self._left.clear()


WORDS = st.sampled_from(["a", "b c", "é\n", "😀"])
STEPS = ["text", "refusal", "annotation", "reasoning", "end_reasoning", "keep_alive", "call", "arguments", "arguments"]


@given(st.data())
@settings(max_examples=60)
def test_whatever_is_reported_the_events_keep_the_grammar(data: st.DataObject) -> None:
    reports = data.draw(st.composite(Reports)())
    out = started(reports.out)
    heard: list[bytes] = []
    for step in data.draw(st.lists(st.sampled_from(STEPS), max_size=14)):
        getattr(reports, step)()
        if data.draw(st.booleans()):
            heard.extend(encoded(out))
    end = data.draw(st.sampled_from(["completed", "incomplete", "failed", "cut"]))
    if end != "cut":
        reports.rest()
    try:
        if end == "failed":
            raise UpstreamError("broken")
        # The judge wants to see what a limit cut; here nothing may have been open when it did.
        reason = None if end == "completed" else "content_filter"
        out.finish("completed" if end == "completed" else "incomplete", usage=USAGE, at=END, reason=reason)
    except UpstreamError as error:
        out.fail(error.code, str(error))
    heard.extend(encoded(out))
    response = judged(heard)
    whole = json.loads(heard[-1])["response"]["output"]
    assert not list(nulls(whole))
    texts = [part["text"] for item in whole for part in item.get("content", []) if part["type"] == "output_text"]
    assert "".join(texts) == "".join(reports.texts)
    assert "call_t" not in {item.call_id for item in response.output}
    if response.status == "completed" and not out.notes:
        assert {item["call_id"] for item in whole if "call_id" in item} == {
            call_id for _, call_id in reports.calls.values()
        }
    for item in whole:
        if item["type"] == "function_call" and response.status == "completed":
            [name] = [name for name, call_id in reports.calls.values() if call_id == item["call_id"]]
            assert item["arguments"] in (ARGUMENTS[name], "{}", "{nonsense")


def nulls(value: object, path: str = "") -> list[str]:
    """Where there is a null; items and parts leave out what they do not have (objects.md, Sending)."""
    if value is None:
        return [path]
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in nulls(inner, f"{path}.{name}")]
    if isinstance(value, list):
        return [found for inner in value for found in nulls(inner, f"{path}[]")]
    return []

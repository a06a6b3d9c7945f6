import itertools
import json
from collections.abc import Callable, Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.composer import MAX_CALL_ID, MAX_ROUNDS, Composer
from rejoinder.bridge.errors import BrokenStream, Steered, UpstreamError
from rejoinder.bridge.relayed import RelayedItem
from rejoinder.wire import events
from rejoinder.wire.items import Compaction, HostedCall, Item, Message, Reasoning, as_sent
from rejoinder.wire.responses import FileCitation, InputDetails, OutputDetails, UrlCitation, Usage
from tests.bridge.composing import END, LETTERS, TOOLS, USAGE, composer, encoded, told
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
    "letters": '{"input":"abd"}',
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


def test_what_is_true_of_many_pieces_of_an_answer_is_noted_once() -> None:
    out = started()
    for said in ("a", "b", "a"):
        out.note(said)
    assert out.notes == ["a", "b"]


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
    out.annotation(FileCitation("file_1", "a.pdf", 2))
    assert out.notes == ["annotations: https://a.test cites no text", "annotations: a.pdf cites no text"]
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


def test_a_message_that_calls_came_after_was_not_what_broke_off() -> None:
    out = started()
    out.call("a", "shell", "call_a")
    out.call("b", "shell", "call_b")
    out.text("x")
    out.arguments("a", '{"commands":[]}')
    out.arguments("b", '{"commands":5}')
    with pytest.raises(UpstreamError):
        out.finish("completed", usage=USAGE, at=END)
    out.fail("server_error", "broken")
    output = judged(encoded(out)).output
    assert [(item.type, item.status) for item in output] == [("message", "completed"), ("shell_call", "completed")]


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


# Answers that wait, and answers that nobody wants any more


def waited(out: Composer | None = None) -> Composer:
    """A composer whose response had to wait for its turn."""
    out = out or composer()
    out.queue()
    out.proceed()
    return out


def test_a_response_that_waits_is_queued_first_and_numbered_on_from_there() -> None:
    out = composer()
    out.queue()
    assert out.has_started
    assert out.response.status == "queued"
    assert told(out) == [
        {"type": "response.created", "response": {"status": "queued", "output": []}},
        {"type": "response.queued", "response": {"status": "queued", "output": []}},
    ]
    out.keep_alive()
    assert out.drain() == [], "nothing is in progress yet"
    out.proceed()
    out.text("x")
    out.finish("completed", usage=USAGE, at=END)
    heard = out.drain()
    assert [event.sequence_number for event in heard] == list(range(2, 2 + len(heard)))
    assert isinstance(heard[0], events.InProgress)
    assert json.loads(bytes(heard[0].response))["status"] == "in_progress"


def test_all_of_a_response_that_waited_keeps_the_grammar() -> None:
    out = waited()
    out.text("x")
    assert ended(out)["status"] == "completed"


def test_who_goes_on_with_a_response_numbers_on() -> None:
    first = waited()
    before = encoded(first)
    second = composer()
    assert not second.has_started
    second.go_on(len(before))
    assert second.has_started
    second.proceed()
    second.text("x")
    second.finish("completed", usage=USAGE, at=END)
    heard = encoded(second)
    assert [json.loads(event)["sequence_number"] for event in heard] == list(range(3, 3 + len(heard)))
    judged([*before, *heard])


def test_a_response_that_is_cancelled_before_anything_came_has_no_output() -> None:
    for begin in (started, waited):
        out = begin()
        out.cancel()
        response = judged(encoded(out))
        assert (response.status, response.output, response.usage) == ("cancelled", [], None)


def test_a_response_that_is_cancelled_while_it_waits_ends_without_having_begun() -> None:
    out = composer()
    out.queue()
    out.cancel()
    heard = encoded(out)
    assert judged(heard).status == "cancelled"
    assert [json.loads(event)["type"] for event in heard] == [
        *["response.created", "response.queued"],
        "response.incomplete",
    ]


def cancelled(out: Composer) -> Fields:
    """The response of the last event, after the judge has heard all of them."""
    out.cancel()
    heard = encoded(out)
    assert judged(heard).status == "cancelled"
    last = json.loads(heard[-1])
    assert last["type"] == "response.incomplete", "events.md §2: there is no event of that name"
    response: Fields = last["response"]
    assert (response["completed_at"], response["error"], response["incomplete_details"]) == (None, None, None)
    out.keep_alive()
    assert out.drain() == [], "nothing follows the end"
    return response


def begin_spoken_refusal(out: Composer) -> None:
    out.spell_out_refusals()
    out.refusal("no")


def begin_custom(out: Composer) -> None:
    out.call("free", "free", out.reserve("call_free"))
    out.arguments("free", '{"input":"ab')


def begin_half(out: Composer) -> None:
    """A call whose item comes whole, and of which half is there."""
    out.call("half", "apply_patch", out.reserve("call_half"))
    out.arguments("half", '{"type":"delete_')


def begin_cited(out: Composer) -> None:
    out.text("hi")
    out.annotation(CITATION)


def begin_searching(out: Composer) -> None:
    out.search("s")


def begin_compacting(out: Composer) -> None:
    out.compacting()


def picture(out: Composer) -> None:
    out.image("iVBO", "png")


def sealed_thought(out: Composer) -> None:
    out.reasoning("so")
    out.end_reasoning([Raw(b"1")])


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([begin_text], [("message", "incomplete")]),
        ([begin_cited], [("message", "incomplete")]),
        ([begin_refusal], [("message", "incomplete")]),
        ([begin_spoken_refusal], [("message", "incomplete")]),
        ([begin_reasoning], [("reasoning", "incomplete")]),
        ([sealed_thought], [("reasoning", "completed")]),
        ([begin_call], [("function_call", "incomplete")]),
        ([begin_custom], [("custom_tool_call", "incomplete")]),
        ([begin_whole], [("shell_call", "incomplete")]),
        ([begin_half], []),
        ([picture], [("image_generation_call", "completed")]),
        ([begin_searching], [("web_search_call", "failed")]),
        ([begin_compacting], [("compaction", None)]),
        ([begin_text, begin_half], [("message", "completed")]),
        ([sealed_thought, begin_text], [("reasoning", "completed"), ("message", "incomplete")]),
        ([begin_text, begin_call], [("message", "completed"), ("function_call", "incomplete")]),
        ([begin_call, begin_custom], [("function_call", "completed"), ("custom_tool_call", "incomplete")]),
        ([begin_searching, begin_text], [("web_search_call", "failed"), ("message", "incomplete")]),
        ([begin_text, begin_searching], [("message", "completed"), ("web_search_call", "failed")]),
        ([begin_compacting, begin_text], [("compaction", None), ("message", "incomplete")]),
    ],
)
def test_what_is_cancelled_in_the_middle_is_closed_and_kept(
    steps: Sequence[Callable[[Composer], None]], kept: list[tuple[str, str | None]]
) -> None:
    for begin in (started, waited):
        out = begin()
        for step in steps:
            step(out)
        items = output(cancelled(out))
        assert [(item["type"], item.get("status")) for item in items] == kept


@pytest.mark.parametrize("mode", ["check", "repair"])
def test_a_text_with_a_grammar_that_is_cancelled_is_kept_as_far_as_it_came(mode: Literal["check", "repair"]) -> None:
    out = started(composer(toolbox([LETTERS]), grammar=mode))
    out.call("a", "letters", "call_a")
    out.arguments("a", '{"input":"abd')
    [item] = output(cancelled(out))
    assert (item["input"], item["status"]) == ("abd", "incomplete")
    assert out.notes == []


def test_a_search_for_tools_that_is_cancelled_does_not_go_on() -> None:
    out = started(composer(toolbox(SEARCHING)))
    out.call("a", "tool_search", "call_a")
    out.arguments("a", '{"query":"ti')
    assert output(cancelled(out)) == []
    assert not out.paused


def test_arguments_that_do_not_fit_do_not_keep_a_response_from_being_cancelled() -> None:
    out = started()
    out.call("a", "shell", "call_a")
    out.arguments("a", '{"commands":5}')
    out.call("b", "shell", "call_b")
    out.arguments("b", "[]")
    begin_text(out)
    assert [item["type"] for item in output(cancelled(out))] == ["message"]


def test_a_response_that_is_cancelled_after_a_pause_keeps_all_and_says_what_it_took() -> None:
    out = started()
    out.text("first")
    out.pause(USAGE)
    out.resume()
    begin_call(out)
    response = cancelled(out)
    assert [(item["type"], item["status"]) for item in output(response)] == [
        ("message", "completed"),
        ("function_call", "incomplete"),
    ]
    assert response["usage"]["total_tokens"] == 7  # type: ignore[index]  # an object, as the judge has seen


def test_a_cancelled_response_is_not_told_how_much_nobody_counted() -> None:
    out = started()
    begin_text(out)
    assert cancelled(out)["usage"] is None


# What runs at the provider


def test_a_search_at_the_provider_is_told_step_by_step() -> None:
    out = started()
    out.reasoning("so")
    assert out.search("s") == "ws_2"
    out.searched("s", ["cheap flights", "flights"], ["https://a.test", "https://b.test"])
    out.text("found")
    item: Fields = {"type": "web_search_call", "id": "ws_2"}
    place: Fields = {"item_id": "ws_2", "output_index": 1}
    begun: Fields = {"type": "search", "query": "", "queries": []}
    ended_: Fields = {
        "type": "search",
        "query": "cheap flights",
        "queries": ["cheap flights", "flights"],
        "sources": [{"type": "url", "url": "https://a.test"}, {"type": "url", "url": "https://b.test"}],
    }
    heard = told(out)
    assert [event["type"] for event in heard[5:8]] == [
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        DONE,
    ]
    assert heard[8:13] == [
        {"type": ADDED, "output_index": 1, "item": {**item, "status": "in_progress", "action": begun}},
        {"type": "response.web_search_call.in_progress", **place},
        {"type": "response.web_search_call.searching", **place},
        {"type": "response.web_search_call.completed", **place},
        {"type": DONE, "output_index": 1, "item": {**item, "status": "completed", "action": ended_}},
    ]


def test_searches_run_side_by_side_and_may_fail() -> None:
    out = started()
    out.text("looking")
    first, second = out.search("a"), out.search("b")
    out.searched("b", ["y"])
    out.searched("a", [], failed=True)
    _, *searches = output(ended(out))
    assert searches == [
        {"type": "web_search_call", "id": first, "status": "failed",
         "action": {"type": "search", "query": "", "queries": []}},
        {"type": "web_search_call", "id": second, "status": "completed",
         "action": {"type": "search", "query": "y", "queries": ["y"]}},
    ]  # fmt: skip


def test_a_search_goes_on_while_something_else_is_written() -> None:
    out = started()
    out.search("a")
    out.text("meanwhile")
    out.searched("a", ["x"])
    assert [item["type"] for item in output(ended(out))] == ["web_search_call", "message"]


def begin_search(out: Composer) -> None:
    out.search("s")


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_search_that_is_not_over_when_the_answer_is_has_failed(status: Literal["completed", "incomplete"]) -> None:
    out = started()
    out.text("x")
    begin_search(out)
    assert [item["status"] for item in output(ended(out, "content_filter", status))] == ["completed", "failed"]


@pytest.mark.parametrize(
    ("steps", "statuses"),
    [
        ([begin_call, begin_search], ["completed", "failed"]),
        ([begin_search, begin_call], ["failed", "incomplete"]),
        ([begin_search, begin_whole], ["failed", "incomplete"]),
        ([begin_search, begin_text], ["failed", "incomplete"]),
        ([begin_text, begin_search], ["completed", "failed"]),
        ([begin_search, begin_call, begin_reasoning], ["failed", "completed", "incomplete"]),
    ],
)
def test_beside_a_search_too_only_the_last_item_is_cut(
    steps: Sequence[Callable[[Composer], None]], statuses: list[str]
) -> None:
    out = started()
    for step in steps:
        step(out)
    assert [item["status"] for item in output(ended(out, "content_filter", "incomplete"))] == statuses


def test_a_picture_is_told_step_by_step() -> None:
    out = started()
    begin_whole(out)
    out.image("iVBO", "webp")
    item: Fields = {"type": "image_generation_call", "id": "ig_2"}
    place: Fields = {"item_id": "ig_2", "output_index": 1}
    kind = "response.image_generation_call"
    whole: Fields = {**item, "status": "completed", "result": "iVBO", "output_format": "webp"}
    assert told(out)[4:] == [
        {"type": ADDED, "output_index": 1, "item": {**item, "status": "in_progress", "result": None}},
        {"type": f"{kind}.in_progress", **place},
        {"type": f"{kind}.generating", **place},
        {"type": f"{kind}.completed", **place},
        {"type": DONE, "output_index": 1, "item": whole},
    ]
    assert output(ended(started_with(Composer.image, "iVBO", "webp")))[0]["result"] == "iVBO"


def started_with(report: Callable[..., None], *said: object) -> Composer:
    out = started()
    report(out, *said)
    return out


def test_a_summary_is_an_item_and_what_it_took_is_paid_with_the_answer() -> None:
    out = started()
    out.compacting()
    assert not out.is_empty
    out.spend(Usage(10, InputDetails(4, 2), 5, OutputDetails(3), 15))
    out.compacted("brg1.x")
    place: Fields = {"item_id": "cmp_1", "output_index": 0}
    assert told(out)[2:] == [
        {"type": ADDED, "output_index": 0, "item": {"type": "compaction", "id": "cmp_1", "encrypted_content": ""}},
        {"type": "response.compaction.compacting", **place},
        {"type": DONE, "output_index": 0, "item": {"type": "compaction", "id": "cmp_1", "encrypted_content": "brg1.x"}},
    ]
    [resumed] = out.resume()
    assert resumed.view == Compaction("brg1.x")
    assert out.is_idle
    out.text("hi")
    out.finish("completed", usage=Usage(3, InputDetails(1, 1), 4, OutputDetails(1), 7), at=END)
    response = json.loads(encoded(out)[-1])["response"]
    assert [item["type"] for item in response["output"]] == ["compaction", "message"]
    assert response["usage"] == {
        "input_tokens": 13,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 22,
    }


def test_a_summary_that_was_not_written_breaks_the_answer_off_and_closes_its_item() -> None:
    out = started()
    out.compacting()
    out.spend(Usage(10, output_tokens=5, total_tokens=15))
    out.fail("server_error", "the model wrote no summary of the conversation")
    response = judged(encoded(out))
    assert [(item.type, item.encrypted_content) for item in response.output] == [("compaction", "")]
    assert response.usage is not None
    assert response.usage.total_tokens == 15


# Answers that take several requests


def test_an_answer_that_pauses_goes_on_from_what_was_written() -> None:
    out = started()
    out.reasoning("so")
    out.end_reasoning([Raw(b"1")])
    out.search("s")
    out.searched("s", ["x"])
    out.text("first")
    assert not out.is_idle
    out.pause(USAGE)
    assert out.paused
    thought, search, message = out.resume()
    assert not out.paused
    assert out.is_idle
    assert isinstance(thought.view, Reasoning)
    assert thought.view.encrypted_content == "[[1],{}]"
    assert search.view == HostedCall("web_search_call")
    assert isinstance(message.view, Message)
    out.text("second")
    assert not out.is_idle
    out.pause(USAGE)
    [second] = out.resume()
    assert json.loads(second.raw)["content"][0]["text"] == "second"
    out.call("a", "f", out.reserve("call_x"))
    response = ended(out)
    assert [item["type"] for item in output(response)] == [
        *["reasoning", "web_search_call", "message"],
        "message",
        "function_call",
    ]
    assert [item["id"] for item in output(response)][:3] == [thought.id, search.id, message.id]
    assert response["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 21,
    }


def test_an_answer_that_adds_nothing_after_a_pause_is_over_and_not_empty() -> None:
    out = started()
    out.text("first")
    out.pause(USAGE)
    out.resume()
    assert [item["type"] for item in output(ended(out))] == ["message"]


def test_an_answer_that_is_cut_after_a_pause_is_paid_for_whole() -> None:
    out = started()
    out.text("first")
    out.pause(USAGE)
    out.resume()
    out.text("second")
    response = ended(out, None, "incomplete")
    assert [item["status"] for item in output(response)] == ["completed", "incomplete"]
    assert response["usage"]["total_tokens"] == 14  # type: ignore[index]  # an object, as the judge has seen


def test_an_answer_that_is_never_over_breaks_off_and_says_what_it_took() -> None:
    out = started()
    for number in range(MAX_ROUNDS):
        out.text(f"{number}")
        out.pause(USAGE)
        assert len(out.resume()) == 1
    with pytest.raises(UpstreamError, match=f"the answer was not over after {MAX_ROUNDS} requests"):
        out.pause(USAGE)
    out.fail("server_error", "never over")
    response = judged(encoded(out))
    assert response.usage is not None
    assert response.usage.total_tokens == (MAX_ROUNDS + 1) * 7


def test_a_search_that_a_pause_interrupts_is_closed() -> None:
    out = started()
    out.search("s")
    out.pause(USAGE)
    assert [item.type for item in out.resume()] == ["web_search_call"]
    out.text("x")
    assert [item["status"] for item in output(ended(out))] == ["failed", "completed"]


def test_what_is_asked_to_go_on_is_what_its_client_would_send_back() -> None:
    out = started()
    out.reasoning("so")
    out.image("iVBO", "png")
    out.call("a", "f", "call_a")
    out.call("b", "shell", "call_b")
    out.arguments("b", ARGUMENTS["shell"])
    out.pause(USAGE)
    resumed = out.resume()
    out.text("x")
    assert [json.loads(item.raw) for item in resumed] == output(ended(out))[:4]
    assert all(as_sent(item.raw, 0) == Item.parse(item.raw).raw for item in resumed)


# Texts with a grammar


@pytest.mark.parametrize(("text", "noted"), [("abc", False), ("abd", True)])
def test_a_text_may_be_compared_with_its_grammar(text: str, noted: bool) -> None:
    for mode in ("pass", "check"):
        out = started(composer(toolbox([LETTERS]), grammar=mode))
        out.call("a", "letters", "call_a")
        out.arguments("a", json.dumps({"input": text}))
        [item] = output(ended(out))
        assert item["input"] == text
        assert bool(out.notes) is (noted and mode == "check")


def test_a_text_that_leaves_its_grammar_goes_back_to_the_model_once() -> None:
    out = started(composer(toolbox([LETTERS]), grammar="repair"))
    out.text("Writing.")
    out.call("a", "letters", out.reserve("call_a"))
    out.arguments("a", '{"input":"abd"}')
    out.finish("completed", usage=USAGE, at=END)
    assert out.paused
    message, call, answer = (json.loads(item.raw) for item in out.resume())
    assert message["type"] == "message"
    assert (call["type"], call["call_id"], call["name"], call["input"]) == (
        *("custom_tool_call", "call_a", "letters"),
        "abd",
    )
    assert (answer["type"], answer["call_id"]) == ("custom_tool_call_output", "call_a")
    assert "line 1 leaves the grammar at 'd'" in answer["output"]
    assert out.is_idle
    # The second try is the client's, whatever it says; its id is one the first did not have.
    out.call("a", "letters", out.reserve("call_a"))
    out.arguments("a", '{"input":"e"}')
    response = ended(out)
    [_, second] = output(response)
    assert (second["input"], second["call_id"] != "call_a") == ("e", True)
    assert response["usage"]["total_tokens"] == 14  # type: ignore[index]  # an object, as the judge has seen
    assert out.notes == [
        "tools.letters: the text of a call does not match its grammar: line 1 leaves the grammar at 'd'; "
        "the model was asked once more",
        "tools.letters: the text of a call does not match its grammar: line 1 leaves the grammar at 'e'",
    ]


def test_a_text_that_matches_its_grammar_is_the_clients_at_once() -> None:
    out = started(composer(toolbox([LETTERS]), grammar="repair"))
    out.call("a", "letters", "call_a")
    out.arguments("a", '{"input":"abc"}')
    assert [item["input"] for item in output(ended(out))] == ["abc"]
    assert not out.paused


@pytest.mark.parametrize("second", ["f", "letters"])
def test_a_text_beside_other_calls_is_the_clients_as_it_is(second: str) -> None:
    out = started(composer(toolbox([*TOOLS, LETTERS]), grammar="repair"))
    out.call("a", "letters", "call_a")
    out.call("b", second, "call_b")
    out.arguments("b", "{}")
    # A provider may write its calls side by side.
    out.arguments("a", '{"input":"abd"}')
    calls = {item["call_id"]: item for item in output(ended(out))}
    assert calls["call_a"]["input"] == "abd"
    assert len(calls) == 2
    assert len(out.notes) == (1 if second == "f" else 2)


def test_a_text_with_a_grammar_that_was_cut_is_the_clients_as_far_as_it_came() -> None:
    out = started(composer(toolbox([LETTERS]), grammar="repair"))
    out.call("a", "letters", "call_a")
    out.arguments("a", '{"input":"abd')
    [item] = output(ended(out, None, "incomplete"))
    assert (item["input"], item["status"]) == ("abd", "incomplete")
    assert out.notes == []


def test_there_is_no_further_try_in_the_last_request() -> None:
    out = started(composer(toolbox([LETTERS]), grammar="repair"))
    for _ in range(MAX_ROUNDS):
        out.text("x")
        out.pause(USAGE)
        out.resume()
    out.call("a", "letters", "call_a")
    out.arguments("a", '{"input":"abd"}')
    assert output(ended(out))[-1]["input"] == "abd"


# Tools that are only to be found

CLOCK = function("clock", description="Tells the time.", defer_loading=True)
SEARCHING: Sequence[Fields] = [{"type": "tool_search"}, CLOCK, function("f")]


def test_a_model_that_looks_for_tools_goes_on_with_what_it_found() -> None:
    out = started(composer(toolbox(SEARCHING)))
    out.call("a", "tool_search", out.reserve("call_a"))
    out.arguments("a", '{"query":"time"}')
    out.finish("completed", usage=USAGE, at=END)
    assert out.paused
    asked, found = out.resume()
    assert (asked.type, found.type) == ("tool_search_call", "tool_search_output")
    assert json.loads(found.raw)["tools"] == [CLOCK]
    out.offer(toolbox(SEARCHING, history=[found]))
    out.call("b", "clock", out.reserve("call_b"))
    assert [item["type"] for item in output(ended(out))] == [
        *["tool_search_call", "tool_search_output"],
        "function_call",
    ]


def test_a_model_that_does_something_else_too_waits_for_its_client() -> None:
    out = started(composer(toolbox(SEARCHING)))
    out.call("a", "tool_search", "call_a")
    out.arguments("a", '{"query":"time"}')
    out.call("b", "f", "call_b")
    assert [item["type"] for item in output(ended(out))] == [
        *["tool_search_call", "tool_search_output"],
        "function_call",
    ]


def test_a_second_call_that_is_left_out_does_not_keep_a_search_from_going_on() -> None:
    out = started(composer(toolbox(SEARCHING), parallel=False))
    out.call("a", "tool_search", "call_a")
    out.call("b", "f", "call_b")
    out.finish("completed", usage=USAGE, at=END)
    assert out.paused
    assert len(out.resume()) == 2


def test_a_model_that_does_nothing_but_look_for_tools_comes_to_an_end() -> None:
    out = started(composer(toolbox(SEARCHING)))
    for number in range(MAX_ROUNDS + 1):
        assert not out.paused
        out.call("a", "tool_search", out.reserve(None))
        out.finish("completed", usage=USAGE, at=END)
        assert out.paused is (number < MAX_ROUNDS)
        if out.paused:
            out.resume()
    assert len(judged(encoded(out)).output) == 2 * (MAX_ROUNDS + 1)


# Any sequence of reports at all


class Reports:
    """Random reports to a composer, in any order a provider could think of."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.out = composer(
            toolbox([*TOOLS, LETTERS]),
            parallel=draw(st.booleans()),
            reasoning=draw(st.sampled_from(["summary", "raw"])),
            taken=frozenset({"call_t"}),
            grammar=draw(st.sampled_from(["pass", "check", "repair"])),
        )
        self._left: dict[str, str] = {}
        self._searches: list[str] = []
        self._numbers = itertools.count(1)
        self.resumed: list[Item] = []
        self.hidden: set[str] = set()
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

    def search(self) -> None:
        self._searches.append(f"search-{next(self._numbers)}")
        self.out.search(self._searches[-1])

    def searched(self) -> None:
        if self._searches:
            key = self._searches.pop(self._draw(st.integers(0, len(self._searches) - 1)))
            sources = self._draw(st.sampled_from([None, [], ["https://a.test"]]))
            queries = self._draw(st.lists(WORDS, max_size=2))
            self.out.searched(key, queries, sources, failed=self._draw(st.booleans()))

    def image(self) -> None:
        self.out.image("iVBO", "png")

    def compaction(self) -> None:
        self.out.compacting()
        if self._draw(st.booleans()):
            self.out.text("meanwhile")
            self.texts.append("meanwhile")
        self.out.compacted("brg1.x")

    def pause(self) -> None:
        self.rest()
        self.out.pause(USAGE)
        self.resume()

    def resume(self) -> None:
        """Another request goes on: calls and searches of the last one are over."""
        self._left.clear()
        self._searches.clear()
        resumed = self.out.resume()
        assert self.out.is_idle
        answered = {json.loads(item.raw)["call_id"] for item in resumed if item.type == "custom_tool_call_output"}
        self.hidden |= answered
        self.resumed += [item for item in resumed if json.loads(item.raw).get("call_id") not in answered]

    def rest(self) -> None:
        for key, left in self._left.items():
            self.out.arguments(key, left)
        self._left.clear()


WORDS = st.sampled_from(["a", "b c", "é\n", "😀"])
STEPS = [
    *["text", "refusal", "annotation", "reasoning", "end_reasoning", "keep_alive", "call", "arguments", "arguments"],
    *["search", "searched", "image", "compaction", "pause"],
]


@given(st.data())
@settings(max_examples=60)
def test_whatever_is_reported_the_events_keep_the_grammar(data: st.DataObject) -> None:
    reports = data.draw(st.composite(Reports)())
    out = data.draw(st.sampled_from([started, waited]))(reports.out)
    heard: list[bytes] = []
    end = data.draw(st.sampled_from(["completed", "incomplete", "failed", "cut", "cancelled"]))
    try:
        for step in data.draw(st.lists(st.sampled_from(STEPS), max_size=14)):
            getattr(reports, step)()
            if data.draw(st.booleans()):
                heard.extend(encoded(out))
        if end not in ("cut", "cancelled"):
            reports.rest()
        if end == "failed":
            raise UpstreamError("broken")
        # The judge wants to see what a limit cut; here nothing may have been open when it did.
        reason = None if end == "completed" else "content_filter"
        if end == "cancelled":
            out.cancel()
        else:
            out.finish("completed" if end == "completed" else "incomplete", usage=USAGE, at=END, reason=reason)
        if out.paused:
            reports.resume()
            out.finish("completed", usage=USAGE, at=END)
    except UpstreamError as error:
        out.fail(error.code, str(error))
    heard.extend(encoded(out))
    response = judged(heard)
    whole = json.loads(heard[-1])["response"]["output"]
    assert not list(nulls(whole))
    texts = [part["text"] for item in whole for part in item.get("content", []) if part["type"] == "output_text"]
    assert "".join(texts) == "".join(reports.texts)
    assert not {item.call_id for item in response.output} & {"call_t", *reports.hidden}
    # What an answer goes on from is what its client has of it.
    assert [json.loads(item.raw) for item in reports.resumed] == whole[: len(reports.resumed)]
    if response.status == "completed" and "left out" not in "".join(out.notes):
        assert {item["call_id"] for item in whole if "call_id" in item} == {
            call_id for _, call_id in reports.calls.values()
        } - reports.hidden
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


# Ending before the end


def steps(out: Composer) -> dict[str, Callable[[], object]]:
    """Everything that begins an item."""
    return {
        "message": lambda: out.text("b"),
        "refusal": lambda: out.refusal("b"),
        "reasoning": lambda: out.reasoning("b"),
        "call": lambda: out.call("a", "f", "call_x"),
        "search": lambda: out.search("a"),
        "image": lambda: out.image("AAAA", "png"),
        "relayed": lambda: out.begin_relayed(RelayedItem(out, "x", "x_1", Raw(b'"x_1"'), None)),
    }


@pytest.mark.parametrize("begins", steps(composer()))
@pytest.mark.parametrize("first", [True, False])
def test_an_answer_that_is_to_end_early_ends_before_its_next_item(begins: str, first: bool) -> None:
    out = started()
    if not first:
        out.reasoning("hm")
        out.end_reasoning([])
    out.end_early()
    with pytest.raises(Steered):
        steps(out)[begins]()
    out.break_off("steered")
    heard = encoded(out)
    judged(heard)
    response = json.loads(heard[-1])["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "steered"})
    assert [item["type"] for item in response["output"]] == ([] if first else ["reasoning"])


def test_what_has_begun_is_finished_first() -> None:
    out = started()
    out.text("a")
    out.end_early()
    out.text("b")
    with pytest.raises(Steered):
        out.reasoning("c")
    out.break_off("steered")
    assert json.loads(encoded(out)[-1])["response"]["output"][0]["content"][0]["text"] == "ab"


def test_an_answer_with_calls_goes_on_to_its_end() -> None:
    out = started()
    out.text("a")
    out.call("a", "f", "call_x")
    out.end_early()
    out.call("b", "f", "call_y")
    assert [item["type"] for item in output(ended(out))] == ["message", "function_call", "function_call"]


def test_an_answer_that_is_broken_off_leaves_out_what_is_not_done() -> None:
    out = started()
    out.spend(USAGE)
    out.reasoning("hm")
    out.text("half")
    out.break_off("interrupted")
    heard = [json.loads(event) for event in encoded(out)]
    assert [event["sequence_number"] for event in heard] == [*range(len(heard))]
    assert [event["item"]["type"] for event in heard if event["type"] == DONE] == ["reasoning"]
    response = heard[-1]["response"]
    assert (heard[-1]["type"], response["incomplete_details"]) == ("response.incomplete", {"reason": "interrupted"})
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert response["usage"]["total_tokens"] == USAGE.total_tokens


def test_a_response_nobody_is_asked_for_is_complete_and_empty() -> None:
    out = started()
    out.register(at=END)
    heard = encoded(out)
    judged(heard)
    response = json.loads(heard[-1])["response"]
    assert (response["status"], response["output"], response["completed_at"]) == ("completed", [], END)
    assert response["usage"]["total_tokens"] == 0


def test_an_end_that_could_not_be_told_can_be_another_one() -> None:
    out = started()
    out.text("a")
    first = out.drain()
    out.finish("completed", usage=USAGE, at=END)
    out.take_back(out.drain())
    out.fail("server_error", "a defect")
    heard = [json.loads(events.encode(event)) for event in [*first, *out.drain()]]
    assert [event["sequence_number"] for event in heard] == [*range(len(heard))]
    assert [event["type"] for event in heard][-2:] == [DONE, "response.failed"]
    assert heard[-1]["response"]["output"][0]["content"][0]["text"] == "a"

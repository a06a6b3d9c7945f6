import json

import pytest

from rejoinder.bridge.errors import BrokenStream
from tests.bridge.prompts import Counter, Fields
from tests.bridge.recordings import Object, objects
from tests.bridge.responses_answers import (
    OPENAI,
    added,
    delta,
    done,
    ended,
    event,
    heard,
    kinds,
    message,
    response,
    stream,
    told,
)
from tests.bridge.responses_replay import QUESTION, body, listener, prompt

PART: Object = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
AT = {"item_id": "msg_up", "output_index": 0, "content_index": 0}


def call(arguments: str = "", **fields: object) -> Fields:
    return {"id": "fc_up", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": arguments, **fields}


def reasoning(**fields: object) -> Fields:
    return {"id": "rs_up", "type": "reasoning", "summary": [], **fields}


def texts(item: Object, name: str = "content") -> list[object]:
    return [part["text"] for part in objects(item[name])]


# Passing on.


def test_an_item_goes_on_event_by_event() -> None:
    whole = [
        added(0, message(phase="final_answer")),
        event("content_part.added", **AT, part=PART),
        delta("Hé", novelty=1.50),
        delta("y"),
        event("output_text.done", **AT, text="Héy", logprobs=[]),
        event("content_part.done", **AT, part={**PART, "text": "Héy"}),
        done(0, message("Héy", phase="final_answer")),
    ]

    answered = heard(stream(*whole, ended(message("Héy"))))

    assert told(answered) == [
        {name: value for name, value in one.items() if name != "sequence_number"} for one in whole
    ]


def test_numbers_and_escapes_stay_what_they_were() -> None:
    item = b'{"id":"x_1","type":"hologram","depth":1.0e3,"label":"\\u00e9 \\/","deep":{"a" : [ ]}}'
    answer = b'data: {"type":"response.output_item.done","output_index":0,"item":%b}\n\n' % item + stream(ended())

    answered = heard(answer)

    assert item in answered.encoded[-2]
    assert b'"output":[%b]' % item in answered.encoded[-1]


def test_places_count_from_zero() -> None:
    answered = heard(
        stream(
            added(3, message()), delta("a", output_index=3, content_index=7), done(3, message("a")), ended(message("a"))
        )
    )

    assert kinds(answered) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert {one["output_index"] for one in told(answered)} == {0}
    assert {one.get("content_index", 0) for one in told(answered)} == {0}


def test_an_announced_item_is_empty() -> None:
    full = reasoning(summary=[{"type": "summary_text", "text": "s"}], content=[{"type": "reasoning_text", "text": "c"}])
    without = heard(stream(added(0, reasoning()), done(0, reasoning()), ended()))

    answered = heard(stream(added(0, full), done(0, full), ended(full)))

    [first] = objects([told(answered)[0]["item"]])
    assert (first["summary"], first["content"]) == ([], [])
    assert "content" not in objects([told(without)[0]["item"]])[0]


@pytest.mark.parametrize(
    ("item", "name"),
    [(call('{"a":1}'), "arguments"), ({**call(), "type": "custom_tool_call", "input": "free"}, "input")],
)
def test_a_call_that_is_announced_with_its_text_says_it_after_that(item: Fields, name: str) -> None:
    answered = heard(stream(added(0, item), done(0, item), ended(item)))

    first, piece, end, last = told(answered)
    assert objects([first["item"]])[0][name] == ""
    assert piece["delta"] == end[name] == objects([last["item"]])[0][name] == item[name]


def test_ids_and_a_status_are_given_where_there_are_none() -> None:
    bare = {name: value for name, value in message("a").items() if name not in ("id", "status")}

    answered = heard(stream(done(0, bare), ended(bare)))

    [item] = answered.items
    assert next(iter(item)) == "id"
    assert (item["id"], item["status"]) == ("msg_1", "completed")
    assert {one["item_id"] for one in told(answered) if "item_id" in one} == {"msg_1"}


def test_reasoning_keeps_having_no_status() -> None:
    assert heard(stream(added(0, reasoning()), done(0, reasoning()), ended())).items == [reasoning()]


def test_events_without_an_item_id_get_none() -> None:
    shell = {"id": "sh_1", "type": "shell_call", "status": "completed", "call_id": "call_1", "action": {"commands": []}}

    answered = heard(
        stream(added(0, shell), event("shell_call_command.delta", output_index=0, delta="ls"), done(0, shell), ended())
    )

    assert told(answered)[1] == {"type": "response.shell_call_command.delta", "output_index": 0, "delta": "ls"}


def test_of_an_unknown_item_nothing_is_known() -> None:
    hologram = {"id": "x_1", "type": "hologram", "content": [{"type": "light"}]}

    answered = heard(
        stream(
            added(0, hologram),
            event("output_text.delta", item_id="x_1", output_index=0, content_index=5, delta="a"),
            event("content_part.added", item_id="x_1", output_index=0, content_index=5, part={"type": "light"}),
            done(0, hologram),
            ended(hologram),
        )
    )

    assert kinds(answered) == ["output_item.added", "output_text.delta", "content_part.added", "output_item.done"]
    assert told(answered)[1]["content_index"] == 5


# What was not said.


def test_a_part_that_was_not_announced_is() -> None:
    answered = heard(stream(added(0, message()), delta("a"), done(0, message("a")), ended(message("a"))))

    assert told(answered)[1] == {"type": "response.content_part.added", **AT, "part": PART}


def test_text_that_is_said_at_its_end_alone_is_said_before() -> None:
    sure = [{"token": "a", "logprob": 0, "bytes": [], "top_logprobs": []}]

    answered = heard(
        stream(
            added(0, message()),
            event("content_part.added", **AT, part=PART),
            event("output_text.done", **AT, text="a", logprobs=sure),
            event("content_part.done", **AT, part={**PART, "text": "a", "logprobs": sure}),
            done(0, message(content=[{**PART, "text": "a", "logprobs": sure}], status="completed")),
            ended(),
        )
    )

    assert kinds(answered)[2:4] == ["output_text.delta", "output_text.done"]
    assert (told(answered)[2]["delta"], told(answered)[2]["logprobs"]) == ("a", sure)


@pytest.mark.parametrize("text", ["{}", ""])
def test_arguments_that_come_at_their_end_alone_are_said_before(text: str) -> None:
    end = event("function_call_arguments.done", item_id="fc_up", output_index=0, arguments=text)

    answered = heard(stream(added(0, call()), end, done(0, call(text)), ended(call(text))))

    deltas = [one["delta"] for one in told(answered) if "delta" in one]
    assert deltas == ([text] if text else [])


def test_a_call_is_ended_where_the_server_does_not() -> None:
    piece = event("function_call_arguments.delta", item_id="fc_up", output_index=0, delta="{}")

    answered = heard(stream(added(0, call()), piece, done(0, call("{}")), ended(call("{}"))))

    assert kinds(answered) == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert told(answered)[2]["name"] == "f"


def test_a_whole_item_that_holds_less_than_was_told_holds_that() -> None:
    empty = {**message(), "status": "completed"}

    answered = heard(
        stream(
            added(0, message()),
            delta("a"),
            done(0, empty),
            added(1, call()),
            event("function_call_arguments.delta", item_id="fc_up", output_index=1, delta='{"a":1}'),
            done(1, call()),
            ended(),
        )
    )

    said, called = answered.items
    assert texts(said) == ["a"]
    assert called["arguments"] == '{"a":1}'


def test_a_whole_message_is_spelled_out() -> None:
    cited: Object = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    item = message(
        content=[
            {"type": "output_text", "text": "one", "annotations": [cited]},
            {"type": "output_text", "text": "", "annotations": []},
            {"type": "refusal", "refusal": "no"},
        ],
        status="completed",
    )

    answered = heard(stream(done(0, item), ended(item)))

    assert kinds(answered) == [
        "output_item.added",
        *("content_part.added", "output_text.delta", "output_text.annotation.added", "output_text.done"),
        "content_part.done",
        *("content_part.added", "output_text.done", "content_part.done"),
        *("content_part.added", "refusal.delta", "refusal.done", "content_part.done"),
        "output_item.done",
    ]
    assert told(answered)[3] == {
        "type": "response.output_text.annotation.added",
        **AT,
        "annotation_index": 0,
        "annotation": cited,
    }
    assert [one.get("content_index") for one in told(answered)[1:-1]] == [0] * 5 + [1] * 3 + [2] * 4
    assert answered.items == [item]


def test_a_part_of_an_unknown_type_is_announced_as_it_is() -> None:
    light = {"type": "light", "lumen": 3}
    item = {**message(), "status": "completed", "content": [light]}

    events = [json.loads(data) for data in _unjudged(stream(done(0, item), ended(item)))]

    assert [one["part"] for one in events if "part" in one] == [light, light]


def test_whole_reasoning_is_spelled_out() -> None:
    item = reasoning(
        summary=[{"type": "summary_text", "text": "s"}],
        content=[{"type": "reasoning_text", "text": "c"}],
        encrypted_content="gAAAA",
    )

    answered = heard(stream(done(0, item), ended(item)))

    assert kinds(answered)[1:-1] == [
        *("reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done"),
        *("content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done"),
    ]
    assert "encrypted_content" not in objects([told(answered)[0]["item"]])[0]
    assert answered.items == [item]


def test_raw_reasoning_needs_no_parts() -> None:
    place = {"item_id": "rs_up", "output_index": 0, "content_index": 0}
    item = reasoning(content=[{"type": "reasoning_text", "text": "ab"}])

    events = [
        json.loads(data)["type"].removeprefix("response.")
        for data in _unjudged(
            stream(
                added(0, reasoning()),
                event("reasoning_text.delta", **place, delta="a"),
                event("reasoning_text.delta", **place, delta="b"),
                event("reasoning_text.done", **place, text="ab"),
                done(0, item),
                ended(item),
            )
        )
    ]

    assert events[2:-1] == [
        "output_item.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "output_item.done",
    ]


def _unjudged(answer: bytes) -> list[bytes]:
    """The events of an answer that goes beyond the grammar of ours."""
    return listener(OPENAI, prompt(body({"model": "m"}, [QUESTION])), Counter()).hear([answer]).encoded


def test_a_whole_search_for_tools_begins_without_its_arguments() -> None:
    search = {"id": "tsc_1", "type": "tool_search_call", "call_id": None, "status": "completed",
              "arguments": {"paths": ["a"]}, "execution": "server"}  # fmt: skip

    answered = heard(stream(done(0, search), ended(search)))

    assert told(answered)[0]["item"] == {**search, "arguments": {}, "status": "in_progress"}


def test_an_event_may_name_its_item_alone() -> None:
    searching = event("web_search_call.searching", item_id="ws_1")
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed"}

    events = [json.loads(data) for data in _unjudged(stream(added(0, search), searching, done(0, search), ended()))]

    assert events[3] == {**searching, "sequence_number": 3}


# What makes no sense.


@pytest.mark.parametrize(
    "item",
    [
        {"id": "fc_up", "type": "function_call", "call_id": "call_1"},
        {"id": "msg_up", "type": "message", "role": "assistant", "content": None},
        {"id": "rs_up", "type": "reasoning", "summary": None},
    ],
)
def test_an_item_no_later_turn_could_read_breaks_the_answer(item: Fields) -> None:
    answered = heard(stream(done(0, item), ended()))

    assert isinstance(answered.error, BrokenStream)
    assert str(answered.error).startswith(f"the provider sent a {item['type']} item that makes no sense")


# What was cut.


def test_a_message_that_is_cut_ends_with_what_came_of_it() -> None:
    cited = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    answered = heard(
        stream(
            added(0, message()),
            delta("😀"),
            delta(' "\n'),
            event("output_text.annotation.added", **AT, annotation_index=0, annotation=cited),
        )
    )

    assert kinds(answered)[-3:] == ["output_text.done", "content_part.done", "output_item.done"]
    [item] = answered.items
    assert item["status"] == "incomplete"
    assert objects(item["content"]) == [{**PART, "text": '😀 "\n', "annotations": [cited]}]


def test_a_part_that_was_ended_is_not_ended_again() -> None:
    answered = heard(
        stream(
            added(0, message()),
            event("content_part.added", **AT, part=PART),
            delta("a"),
            event("output_text.done", **AT, text="a", logprobs=[]),
            event("content_part.done", **AT, part={**PART, "text": "a"}),
            event("content_part.added", **{**AT, "content_index": 1}, part={"type": "refusal", "refusal": ""}),
            event("refusal.delta", **{**AT, "content_index": 1}, delta="no"),
            event("refusal.done", **{**AT, "content_index": 1}, refusal="no"),
        )
    )

    assert kinds(answered)[-3:] == ["refusal.done", "content_part.done", "output_item.done"]
    [item] = answered.items
    assert objects(item["content"])[1] == {"type": "refusal", "refusal": "no"}


def test_a_part_that_ends_before_its_text_has_it_ended() -> None:
    answered = heard(
        stream(
            added(0, message()),
            delta("a"),
            event("content_part.done", **AT, part={**PART, "text": "a"}),
            done(0, message("a")),
            ended(message("a")),
        )
    )

    assert kinds(answered)[3:5] == ["output_text.done", "content_part.done"]


def test_reasoning_that_is_cut_keeps_what_was_thought() -> None:
    summary = {"item_id": "rs_up", "output_index": 0, "summary_index": 0}
    raw = {"item_id": "rs_up", "output_index": 0, "content_index": 0}

    answered = heard(
        stream(
            added(0, reasoning()),
            event("reasoning_summary_part.added", **summary, part={"type": "summary_text", "text": ""}),
            event("reasoning_summary_text.delta", **summary, delta="s"),
            event("reasoning_summary_text.done", **summary, text="s"),
            event("reasoning_summary_part.done", **summary, part={"type": "summary_text", "text": "s"}),
            event("reasoning_part.added", **raw, part={"type": "reasoning_text", "text": ""}),
            event("reasoning_text.delta", **raw, delta="c"),
        )
    )

    assert kinds(answered)[-3:] == ["reasoning_text.done", "reasoning_part.done", "output_item.done"]
    [item] = answered.items
    assert (texts(item, "summary"), texts(item), item["status"]) == (["s"], ["c"], "incomplete")


def test_a_message_that_is_cut_before_it_says_anything_is_empty() -> None:
    [item] = heard(stream(added(0, message()))).items

    assert (item["content"], item["status"]) == ([], "incomplete")


@pytest.mark.parametrize("finished", [False, True])
def test_a_call_that_is_cut_has_the_arguments_that_came(finished: bool) -> None:
    at = {"item_id": "fc_up", "output_index": 0}
    piece = event("function_call_arguments.delta", **at, delta='{"a"')
    end = event("function_call_arguments.done", **at, arguments='{"a"')

    answered = heard(stream(added(0, call()), piece, *([end] if finished else [])))

    [item] = answered.items
    assert (item["arguments"], item["status"]) == ('{"a"', "incomplete")
    assert kinds(answered).count("function_call_arguments.done") == 1


def test_a_custom_call_that_is_cut_has_the_text_that_came() -> None:
    custom = {"id": "ctc_up", "type": "custom_tool_call", "call_id": "call_1", "name": "c", "input": ""}
    piece = event("custom_tool_call_input.delta", item_id="ctc_up", output_index=0, delta="fr")

    [item] = heard(stream(added(0, custom), piece)).items

    assert (item["input"], item["status"]) == ("fr", "incomplete")


@pytest.mark.parametrize(("announced", "expected"), [("in_progress", "incomplete"), (None, None)])
def test_another_item_that_is_cut_is_as_it_began(announced: str | None, expected: str | None) -> None:
    item = {"id": "mcpl_1", "type": "mcp_list_tools", "tools": []}
    if announced is not None:
        item["status"] = announced

    [cut] = heard(stream(added(0, item))).items

    assert cut.get("status") == expected
    assert {**cut, "status": announced} == {**item, "status": announced}


def test_an_item_that_is_open_at_the_end_of_a_whole_answer_is_complete() -> None:
    answered = heard(stream(added(0, message()), delta("a"), ended()))

    assert response(answered)["status"] == "completed"
    assert [item["status"] for item in answered.items] == ["completed"]


def test_garbage_about_an_item_is_taken_for_nothing() -> None:
    at = {"item_id": "msg_up", "output_index": 0}
    answer = stream(
        added(0, message()),
        event("output_text.delta", **at),
        event("output_text.annotation.added", **at),
        event("output_text.done", **at),
        event("content_part.done", **at),
        event("content_part.added", **at),
        event("function_call_arguments.done", **at, arguments="{}"),
        event("content_part.done", **{**at, "content_index": 9}, part={"type": "light"}),
        done(0, message()),
        ended(),
    )

    last = json.loads(_unjudged(answer)[-1])

    assert last["type"] == "response.completed"

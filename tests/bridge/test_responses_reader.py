import json

import pytest

from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.bridge.responses_profile import ResponsesProfile
from tests.bridge.composing import END, composer, encoded
from tests.bridge.prompts import Counter, Fields, assistant, call, output, user
from tests.bridge.recordings import objects
from tests.bridge.replay import Answered
from tests.bridge.responses_answers import (
    OPENAI,
    USAGE,
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

WHOLE = {"id": "resp_up", "status": "completed", "output": [message("hi")], "usage": USAGE}


def called(call_id: str | None, **fields: object) -> Fields:
    call: Fields = {"id": "fc_up", "type": "function_call", "name": "f", "arguments": "{}", "status": "completed"}
    return {**call, "call_id": call_id, **fields} if call_id is not None else {**call, **fields}


def texts(answered: Answered) -> list[object]:
    return [objects(item["content"])[0]["text"] for item in answered.items if item["type"] == "message"]


# Framing.


@pytest.mark.parametrize(
    "answer",
    [
        stream(added(0, message()), delta("hi"), done(0, message("hi")), ended(message("hi"))),
        stream(done(0, message("hi")), ended()) + b"data: [DONE]\n\n",
        b": comment\r\n\r\n" + stream(done(0, message("hi")), ended()).replace(b"\n", b"\r\n"),
        stream(done(0, message("hi")), ended()).rstrip(),
        stream(done(0, message("hi")), ended()).replace(b"data: ", b"event: nonsense\ndata: "),
        json.dumps(WHOLE).encode(),
        b"\n " + json.dumps(WHOLE, indent=2).encode().replace(b"\n", b"\r\n"),
    ],
    ids=["events", "done", "crlf", "no last line", "wrong names", "a body", "an indented body"],
)
def test_an_answer_is_read_in_whatever_form_it_comes(answer: bytes) -> None:
    answered = heard(answer)

    assert answered.error is None
    assert texts(answered) == ["hi"]
    assert response(answered)["status"] == "completed"


def test_data_on_several_lines_is_one_event() -> None:
    frame = json.dumps(done(0, message("a\n b")), indent=1).replace("\n", "\ndata: ")

    answered = heard(f"data: {frame}\n\n".encode() + stream(ended()))

    assert texts(answered) == ["a\n b"]


def test_nothing_after_the_end_belongs_to_the_answer() -> None:
    answered = heard(stream(done(0, message("hi")), ended(), done(1, message("more", id="msg_2")), ended()))

    assert texts(answered) == ["hi"]


def test_events_that_are_ours_to_send_are_not_passed_on() -> None:
    begun = {"id": "resp_up", "status": "queued", "output": []}

    answered = heard(
        stream(
            event("created", response=begun),
            event("queued", response=begun),
            event("in_progress", response=begun),
            {"type": "keepalive", "sequence_number": 3},
            done(0, message("hi")),
            ended(),
        )
    )

    assert kinds(answered)[0] == "output_item.added"
    assert [json.loads(data)["type"] for data in answered.encoded[:2]] == ["response.created", "response.in_progress"]
    assert json.loads(answered.encoded[0])["response"]["id"] == "resp_1"


def test_padding_is_left_out_and_everything_unknown_is_not() -> None:
    novelty: Fields = {"type": "response.novelty", "deep": {"a": [1.0]}, "sequence_number": 8}

    answered = heard(
        stream(novelty, added(0, message()), delta("hi", obfuscation="xxxx"), done(0, message("hi")), ended())
    )

    assert told(answered)[0] == {"type": "response.novelty", "deep": {"a": [1.0]}}
    assert all("obfuscation" not in one for one in told(answered))


def test_the_server_is_asked_again_by_the_name_it_gave_in_the_end() -> None:
    out = composer()
    reader = ResponsesDialect(OPENAI).reader(prompt(body({"model": "m"}, [QUESTION])), out)

    reader.feed(stream(event("created", response={"id": "resp_first"}), event("in_progress")))
    assert out.provider_id == "resp_first"
    reader.feed(stream(done(0, message("hi")), ended()))
    reader.close(END)

    assert out.provider_id == "resp_up"


# Which item is meant.


def test_ids_that_change_with_every_event_become_one() -> None:
    answered = heard(
        stream(
            added(0, message(id="a")),
            delta("h", item_id="b"),
            delta("i", item_id="c"),
            done(0, message("hi", id="d")),
            ended(message("hi", id="e")),
        )
    )

    assert {one.get("item_id", "a") for one in told(answered)} == {"a"}
    assert [item["id"] for item in answered.items] == ["a"]


def test_two_items_at_one_place_are_told_apart_by_their_ids() -> None:
    one = called("call_1", id="fc_1", arguments="", status="in_progress")
    two = called("call_2", id="fc_2", arguments="", status="in_progress")
    piece = event("function_call_arguments.delta", output_index=0, item_id="fc_1", delta='{"a":1}')
    other = event("function_call_arguments.delta", output_index=0, item_id="fc_2", delta='{"b":2}')

    answered = heard(
        stream(
            added(0, one),
            added(0, two),
            piece,
            other,
            done(0, called("call_1", id="fc_1", arguments='{"a":1}')),
            done(0, called("call_2", id="fc_2", arguments='{"b":2}')),
            ended(),
        )
    )

    assert [(item["id"], item["arguments"]) for item in answered.items] == [("fc_1", '{"a":1}'), ("fc_2", '{"b":2}')]


def test_an_item_of_another_type_at_the_same_place_is_another_item() -> None:
    thought: Fields = {"id": "rs_1", "type": "reasoning", "summary": []}

    answered = heard(stream(added(0, thought), done(0, thought), done(0, message("hi")), ended()))

    assert [item["type"] for item in answered.items] == ["reasoning", "message"]


def test_several_items_of_one_id_stay_several() -> None:
    def thought(text: str) -> Fields:
        return {"id": "rs_up", "type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}

    streamed = heard(
        stream(
            added(0, thought("a")), done(0, thought("a")), added(1, thought("b")), done(1, thought("b")),
            done(2, message("hi")), ended(thought("a"), thought("b"), message("hi")),
        )
    )  # fmt: skip
    whole = heard(json.dumps({**WHOLE, "output": [thought("a"), thought("b"), message("hi")]}).encode())

    for answered in (streamed, whole):
        assert [item["type"] for item in answered.items] == ["reasoning", "reasoning", "message"]
        assert [objects(item["summary"])[0]["text"] for item in answered.items[:2]] == ["a", "b"]
        assert len({item["id"] for item in answered.items}) == 3


def test_what_is_repeated_is_said_once() -> None:
    answered = heard(
        stream(added(0, message()), added(0, message()), done(0, message("hi")), done(0, message("hi")), ended())
    )

    assert kinds(answered).count("output_item.added") == kinds(answered).count("output_item.done") == 1


def test_what_is_said_of_an_item_that_is_done_is_left_out() -> None:
    answered = heard(stream(done(0, message("hi")), delta("!"), delta("!"), ended()))

    assert kinds(answered).count("output_text.delta") == 1
    assert answered.notes == ["response.output_text.delta: said of an item that was done, and left out"]


def test_a_place_for_an_item_that_never_comes_is_left_out() -> None:
    answered = heard(
        stream(
            event("output_item.added", output_index=0, item=None),
            event("output_item.done", output_index=0, item=None),
            done(1, message("hi")),
            ended(),
        )
    )

    assert {one["output_index"] for one in told(answered)} == {0}
    assert texts(answered) == ["hi"]


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (delta("hi"), "message"),
        (event("refusal.delta", item_id="x", output_index=0, content_index=0, delta="no"), "message"),
        (event("reasoning_summary_text.delta", item_id="x", output_index=0, summary_index=0, delta="hm"), "reasoning"),
        (
            event(
                "content_part.added", item_id="x", output_index=0, content_index=0,
                part={"type": "reasoning_text", "text": ""},
            ),
            "reasoning",
        ),
    ],
)  # fmt: skip
def test_an_item_that_was_not_announced_is(first: Fields, kind: str) -> None:
    answered = heard(stream(first, ended()))

    assert kinds(answered)[0] == "output_item.added"
    [item] = answered.items
    assert (item["type"], item["id"]) == (kind, first["item_id"])


def test_an_item_without_a_name_is_announced_too() -> None:
    nameless = {name: value for name, value in delta("hi").items() if name not in ("item_id", "output_index")}
    asked = prompt(body({"model": "m"}, [QUESTION]))

    events = listener(OPENAI, asked, Counter()).hear([stream(nameless, ended())]).encoded

    assert json.loads(events[2])["item"]["id"] == "msg_1"


def test_an_event_of_an_unknown_item_passes() -> None:
    asked = prompt(body({"model": "m"}, [QUESTION]))
    lost = event("web_search_call.searching", item_id="ws_1", output_index=4)

    events = listener(OPENAI, asked, Counter()).hear([stream(lost, done(0, message("hi")), ended())]).encoded

    assert json.loads(events[2]) == {**lost, "sequence_number": 2}


def test_an_item_that_the_end_alone_holds_is_done_before_it() -> None:
    answered = heard(stream(added(0, message()), delta("hi"), ended(message("hi"), called("call_1"))))

    assert kinds(answered)[-4:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert [item["type"] for item in answered.items] == ["message", "function_call"]
    assert [item["status"] for item in answered.items] == ["completed", "completed"]


def test_a_clients_search_for_tools_has_the_call_id_it_ends_with() -> None:
    search: Fields = {
        "id": "tsc_1", "type": "tool_search_call", "status": "in_progress", "arguments": {}, "execution": "client",
    }  # fmt: skip
    whole = {**search, "status": "completed", "arguments": {"q": "x"}}

    announced, ends = {**search, "call_id": "call_a"}, {**whole, "call_id": "call_b"}

    answered = heard(stream(added(0, announced), done(0, ends), ended()))

    items = [objects([one["item"]])[0] for one in told(answered)]
    assert [item["call_id"] for item in items] == ["call_b", "call_b"]


def test_a_servers_own_search_for_tools_has_none() -> None:
    search: Fields = {
        "id": "tsc_1", "type": "tool_search_call", "status": "in_progress", "arguments": {}, "execution": "server",
        "call_id": None,
    }  # fmt: skip

    answered = heard(stream(added(0, search), done(0, {**search, "status": "completed"}), ended()))

    assert kinds(answered) == ["output_item.added", "output_item.done"]
    assert answered.items[0]["call_id"] is None


# Ids.

TAKEN = [user("a"), call("call_0"), output("call_0"), {**assistant("b"), "id": "msg_up"}, user("c")]


def test_ids_the_conversation_has_already_are_replaced() -> None:
    answer = stream(done(0, message("hi")), done(1, called("call_0")), ended())

    answered = heard(answer, said=TAKEN)

    said, asked = answered.items
    assert (said["id"], asked["call_id"]) == ("msg_1", "call_2")


def test_a_server_that_counts_its_calls_anew_is_named_in_the_id() -> None:
    own = ResponsesProfile(call_ids="own")

    answered = heard(stream(done(0, called("call_0")), ended()), own, said=TAKEN)

    [item] = answered.items
    assert str(item["call_id"]).startswith("call_")
    assert str(item["call_id"]).endswith("--call_0")


@pytest.mark.parametrize("theirs", ["c" * 60, "c:0"])
def test_an_id_that_cannot_be_named_is_replaced_alone(theirs: str) -> None:
    own = ResponsesProfile(call_ids="own")
    taken = [user("a"), call(theirs), output(theirs)]

    [item] = heard(stream(done(0, called(theirs)), ended()), own, said=taken).items

    assert "--" not in str(item["call_id"])
    assert item["call_id"] != theirs


def test_an_id_that_is_there_twice_in_one_answer_is_replaced_alone() -> None:
    own = ResponsesProfile(call_ids="own")

    answered = heard(stream(done(0, called("call_0", id="fc_1")), done(1, called("call_0", id="fc_2")), ended()), own)

    first, second = [str(item["call_id"]) for item in answered.items]
    assert first == "call_0"
    assert second != "call_0"
    assert "--" not in second


@pytest.mark.parametrize("call_id", ["", "c" * 65])
def test_a_call_id_nobody_could_use_is_replaced(call_id: str) -> None:
    [item] = heard(stream(done(0, called(call_id)), ended())).items

    assert item["call_id"] == "call_1"


def test_a_call_without_an_id_gets_one() -> None:
    [item] = heard(stream(done(0, called(None)), ended())).items

    assert item["call_id"] == "call_1"


def test_what_a_server_answers_itself_goes_with_its_call() -> None:
    shell = {"id": "sh_1", "type": "shell_call", "status": "completed", "call_id": "call_0", "action": {"commands": []}}
    ran = {"id": "sho_1", "type": "shell_call_output", "status": "completed", "call_id": "call_0", "output": []}

    first, second = heard(stream(done(0, shell), done(1, ran), ended()), said=TAKEN).items

    assert first["call_id"] == second["call_id"] != "call_0"


# The end.


def test_an_incomplete_answer_is_one() -> None:
    cut = message("hi", status="incomplete")

    answered = heard(
        stream(done(0, cut), ended(cut, kind="incomplete", incomplete_details={"reason": "max_output_tokens"}))
    )

    assert answered.error is None
    assert response(answered)["status"] == "incomplete"
    assert response(answered)["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_body_without_a_status_is_complete() -> None:
    answered = heard(json.dumps({"output": [message("hi")]}).encode())

    assert response(answered)["status"] == "completed"


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (stream({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}),
         "rate_limit_exceeded", "slow"),
        (stream({"type": "error", "error": {"type": "t", "code": "insufficient_quota", "message": "empty"}}),
         "insufficient_quota", "empty"),
        (stream({"error": {"message": "Your input exceeds the context window", "code": None}}),
         "context_length_exceeded", "Your input exceeds the context window"),
        (stream(ended(kind="failed", error={"code": "invalid_prompt", "message": "bad"})), "invalid_prompt", "bad"),
        (stream(ended(kind="failed", error={"code": "vector_store_timeout", "message": "late"})),
         "server_error", "late"),
        (stream(ended(kind="cancelled")), "server_error", "the provider ended the answer as 'cancelled'"),
        (json.dumps({"error": {"message": "no", "code": "image_too_large"}}).encode(), "image_too_large", "no"),
        (json.dumps({**WHOLE, "status": "failed", "error": None}).encode(),
         "server_error", "the provider ended the answer as 'failed'"),
    ],
)  # fmt: skip
def test_an_error_in_an_answer_is_one(answer: bytes, code: str, text: str) -> None:
    answered = heard(answer)

    assert isinstance(answered.error, UpstreamError)
    assert answered.error.code == code
    assert str(answered.error).startswith(text)
    assert response(answered)["status"] == "failed"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"  ",
        stream(done(0, message("hi"))),
        stream(done(0, message("hi"))) + b"data: [DONE]\n\n",
        stream({"choices": []}),
        b"data: 1\n\n",
        b"data: {\n\n",
        b'data: {"type":"x","a":"\xff"}\n\n',
        stream(event("output_item.done", output_index=0, item=3)),
        stream(event("output_item.done", output_index="first", item=message("hi"))),
        stream(ended(kind="completed", output=3)),
        b"data: " + b'{"a":' * 4000 + b"\n\n",
        b"<html>busy</html>",
        b"[]",
        json.dumps({**WHOLE, "status": "in_progress"}).encode(),
        stream(ended()),
    ],
)
def test_bytes_that_make_no_answer_are_a_broken_stream(answer: bytes) -> None:
    answered = heard(answer)

    assert isinstance(answered.error, BrokenStream)
    assert response(answered)["status"] == "failed"


def test_no_bytes_at_all_are_a_broken_stream() -> None:
    reader = ResponsesDialect(OPENAI).reader(prompt(body({"model": "m"}, [QUESTION])), composer())

    with pytest.raises(BrokenStream, match="the stream ended before the answer did"):
        reader.close(END)


def test_a_body_may_come_in_pieces() -> None:
    whole = json.dumps(WHOLE).encode()
    asked = prompt(body({"model": "m"}, [QUESTION]))

    answered = listener(OPENAI, asked, Counter()).hear([whole[:1], whole[1:9], whole[9:]])

    assert texts(answered) == ["hi"]


def test_a_list_of_items_in_another_order_names_the_same_items() -> None:
    answered = heard(stream(done(0, called("call_1")), done(1, message("hi")), ended(message("hi"), called("call_1"))))

    assert [item["type"] for item in answered.items] == ["function_call", "message"]


@pytest.mark.parametrize("kind", ["completed", "incomplete"])
def test_an_answer_is_over_with_the_event_that_ends_it(kind: str) -> None:
    out = composer()
    reader = ResponsesDialect(OPENAI).reader(prompt(body({"model": "m"}, [QUESTION])), out)
    out.start()

    reader.feed(stream(done(0, message("hi"))))
    assert not reader.is_over
    reader.feed(stream(ended(kind=kind)))
    assert reader.is_over
    reader.feed(b"data: nonsense\n\n")
    reader.close(END)

    assert json.loads(encoded(out)[-1])["type"] == f"response.{kind}"

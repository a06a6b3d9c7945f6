import json

import pytest
from msgspec import Raw

from rejoinder.server.steering import Said, failed, in_front, read, unread
from rejoinder.wire.errors import BadRequest
from tests.server.site import Json


def frame(**fields: Json) -> bytes:
    return json.dumps({"type": "response.steer", "previous_response_id": "resp_1", **fields}).encode()


def test_a_text_is_a_message_of_the_user() -> None:
    said = read(frame(input="more"))
    assert (said.to, bytes(said.given)) == ("resp_1", b'"more"')
    assert [json.loads(bytes(item)) for item in said.items] == [{"type": "message", "role": "user", "content": "more"}]


def test_messages_are_taken_as_they_are() -> None:
    messages: Json = [
        {"role": "user", "content": "a"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "b"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                {"type": "input_file", "file_id": "file_1"},
            ],
        },
    ]
    assert [json.loads(bytes(item)) for item in read(frame(input=messages)).items] == messages


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, None),
        ({"input": None}, None),
        ({"input": "x", "stream_id": "a"}, "stream_id"),
        ({"input": "x", "previous_response_id": 7}, "previous_response_id"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "user", "content": [7]}]}, "input[1].content[0]"),
    ],
)
def test_what_is_no_message_of_a_user_is_refused_by_name(fields: Json, param: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        read(frame(**fields))
    assert caught.value.param == param


def test_what_cannot_be_read_can_still_be_given_back() -> None:
    assert unread(frame(input=[7])) == Said("resp_1", Raw(b"[7]"), [])
    assert unread(b'{"previous_response_id":7}') == Said("", Raw(b'""'), [])
    assert unread(b"{}") == Said("", Raw(b'""'), [])


def test_what_comes_to_nothing_goes_back_as_it_came() -> None:
    said = read(frame(input="more"))
    error, back = failed(said, "response_not_found", "No.")
    assert (error.code, error.message, back.previous_response_id, back.id) == (
        "response_not_found",
        "No.",
        "resp_1",
        None,
    )
    assert bytes(back.input) == b'"more"'


@pytest.mark.parametrize(
    ("given", "behind"),
    [
        ({}, []),
        ({"input": Raw(b"null")}, []),
        ({"input": Raw(b'"own"')}, [{"type": "message", "role": "user", "content": "own"}]),
        ({"input": Raw(b'[{"type":"x"}]')}, [{"type": "x"}]),
    ],
)
def test_words_go_in_front_of_what_the_client_sends_next(given: dict[str, Raw], behind: Json) -> None:
    first, second = read(frame(input="one")), read(frame(input="two"))
    fields = in_front([first, second], {"model": Raw(b'"m"'), **given})
    messages = [{"type": "message", "role": "user", "content": word} for word in ("one", "two")]
    assert json.loads(bytes(fields["input"])) == [*messages, *behind]
    assert bytes(fields["model"]) == b'"m"'


def test_an_input_that_is_none_is_left_for_whoever_refuses_it() -> None:
    fields = {"input": Raw(b"7")}
    assert in_front([read(frame(input="one"))], fields) == fields

import pytest

from rejoinder.conformance.errors import Broken
from rejoinder.conformance.server import Reply
from rejoinder.conformance.stream import Stream
from tests.conformance.judging import stream_of, told_in_events

STREAM = {"content-type": "Text/Event-Stream; charset=utf-8"}


def test_a_stream_has_events_items_and_an_answer() -> None:
    stream = stream_of(told_in_events(input="Say hello."))
    assert [item.type for _, item in stream.items("output_item.done")] == ["reasoning", "message"]
    assert stream.answer.text == "Hello, I am little."
    assert stream.events[0].kind == "created"
    assert b'"response.created"' in stream.events[0].raw


def test_the_end_mark_and_frames_without_data_are_no_events() -> None:
    body = b'event: retry\n\nevent: a\ndata: {"type": "a"}\n\ndata: [DONE]\n\n'
    stream = Stream.of(Reply(200, STREAM, [body]))
    assert [event.type for event in stream.events] == ["a"]
    assert len(stream.frames) == 3


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(400, STREAM, []), "expected status 200"),
        (Reply(200, {"content-type": "application/json"}, []), "expected a stream with the content type"),
        (Reply(200, STREAM, [b"data: [DONE]\n\n"]), "expected events in the stream"),
        (Reply(200, STREAM, [b"event: a\ndata: {\n\n"]), r"expected an event \('a'\) of the right shape"),
        (Reply(200, STREAM, [b'data: {"delta": "a"}\n\n']), "missing required field `type`"),
    ],
)
def test_what_is_no_stream_breaks_the_rule(reply: Reply, told: str) -> None:
    with pytest.raises(Broken, match=told):
        Stream.of(reply)


def test_a_stream_that_just_stops_has_no_answer() -> None:
    with pytest.raises(Broken, match=r"expected a terminal event at the end, got 'response\.output_item\.done'"):
        _ = stream_of(told_in_events(input="Say hello.")[:-1]).answer

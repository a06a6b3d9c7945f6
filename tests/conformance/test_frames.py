import pytest

from rejoinder.conformance.frames import Frame, frames, whole_frames


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_ends_of_line_are_read(end: str) -> None:
    body = 'event: a\ndata: {"x": 1}\n\n: a comment\n\n: another\ndata: [DONE]\n\n'.replace("\n", end)
    assert frames(body.encode()) == [
        Frame(["event: a", 'data: {"x": 1}'], "a", '{"x": 1}'),
        Frame(["data: [DONE]"], None, "[DONE]"),
    ]


def test_lines_of_data_are_one_text_and_may_stand_without_a_space() -> None:
    assert frames(b"data:a\ndata:  b\nid: 1\n\n") == [Frame(["data:a", "data:  b", "id: 1"], None, "a\n b")]


def test_a_tail_without_its_empty_line_is_a_frame() -> None:
    assert frames(b"event: a\ndata: b") == [Frame(["event: a", "data: b"], "a", "b")]


def test_a_frame_may_have_no_data() -> None:
    assert frames(b"event: a\n\n\n\n") == [Frame(["event: a"], "a", None)]


def test_nothing_has_no_frames() -> None:
    assert frames(b"") == []
    assert frames(b"\n\n: ping\n\n") == []


def test_bytes_that_are_no_text_are_marked() -> None:
    assert frames(b"data: \xff\n\n")[0].data == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_what_was_left_in_the_middle_ends_with_its_last_whole_frame(end: bytes) -> None:
    whole = b"data: 1\n\ndata: 2\n\n".replace(b"\n", end)
    assert whole_frames(whole + b"data: 3" + end) == (whole, 2)
    assert whole_frames(b"data: 1" + end) == (b"", 0)

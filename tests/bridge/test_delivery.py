from collections.abc import Iterable

import pytest

from rejoinder.bridge.delivery import MAX_BODY, Delivery
from rejoinder.bridge.errors import BrokenStream
from rejoinder.wire.sse import Frame

STREAM = b": hello\n\nevent: a\ndata: 1\n\ndata: {}\n\ndata: 3"
FRAMES = [Frame("a", b"1"), Frame("", b"{}"), Frame("", b"3")]


def delivered(pieces: Iterable[bytes]) -> tuple[list[Frame], bytes]:
    delivery = Delivery()
    frames = [frame for piece in pieces for frame in delivery.feed(piece)]
    return [*frames, *delivery.close()], delivery.body


@pytest.mark.parametrize("before", [b"", b" ", b"\r\n\n"])
def test_a_stream_is_its_frames_however_it_is_cut(before: bytes) -> None:
    data = before + STREAM

    assert delivered([data]) == (FRAMES, b"")
    assert delivered(data[at : at + 1] for at in range(len(data))) == (FRAMES, b"")
    for at in range(len(data)):
        assert delivered([data[:at], data[at:]]) == (FRAMES, b"")


@pytest.mark.parametrize("body", [b'{"data: ":1}', b'[{"a":1}]', b"<html>\n\ndata: 1\n\n</html>", b" \n {}\n"])
def test_an_object_a_list_or_a_page_is_one_body_however_it_is_cut(body: bytes) -> None:
    assert delivered([body]) == ([], body)
    for at in range(len(body)):
        assert delivered([body[:at], body[at:]]) == ([], body)


def test_nothing_is_neither() -> None:
    assert delivered([]) == ([], b"")
    assert delivered([b"", b""]) == ([], b"")


def test_a_body_without_end_is_broken_even_one_of_nothing_but_space() -> None:
    for start in (b"{", b" "):
        delivery = Delivery()
        delivery.feed(start + b" " * (MAX_BODY - 1))
        with pytest.raises(BrokenStream, match=f"the answer is larger than {MAX_BODY} bytes"):
            delivery.feed(b" ")


def test_a_stream_may_be_larger_than_a_body() -> None:
    delivery = Delivery()
    line = b":" + b" " * (MAX_BODY // 8) + b"\n"
    for _ in range(9):
        assert delivery.feed(line) == []
    assert delivery.feed(b"data: 1\n\n") == [Frame("", b"1")]

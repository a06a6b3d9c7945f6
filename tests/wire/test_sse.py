import sys
import time
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.wire import events, sse
from rejoinder.wire.errors import BadFrame
from rejoinder.wire.sse import Decoder, Frame

BOM = b"\xef\xbb\xbf"


def decoded(pieces: Iterable[bytes]) -> list[Frame]:
    decoder = Decoder()
    frames = [frame for piece in pieces for frame in decoder.feed(piece)]
    return [*frames, *decoder.close()]


def reference(data: bytes) -> list[Frame]:
    """The parsing rules of the server-sent event format, written down as they are told: no cuts, no speed."""
    frames: list[Frame] = []
    event, lines = b"", list[bytes]()
    text = data.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # The blank line at the end is what `close` adds to the format.
    for line in [*text.split(b"\n"), b""]:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if line == b"":
            if lines:
                frames.append(Frame(event.decode("utf-8", "replace"), b"\n".join(lines)))
            event, lines = b"", []
        elif name == b"data":
            lines.append(value)
        elif name == b"event":
            event = value
    return frames


FULL = (
    BOM
    + b": hello\r\n\r\n"
    + b'event: response.created\r\ndata: {"a":1}\r\n\r\n'
    + b"data:first\rdata: second\rdata\r\r"
    + b"id: 7\nretry: 10\ndata:  two spaces\nevent:late\n\n"
    + b"event: nothing\n\n"
    + b"dataset: not data\ndata: \xc3\xa9\n\n"
    + b"data: x:y\nevent\nevents: no\n\n\n\n"
    + b"data: [DONE]"
)


def test_every_form_of_line_is_read() -> None:
    assert decoded([FULL]) == [
        Frame("response.created", b'{"a":1}'),
        Frame("", b"first\nsecond\n"),
        Frame("late", b" two spaces"),
        Frame("", "é".encode()),
        Frame("", b"x:y"),
        Frame("", b"[DONE]"),
    ]


def test_a_stream_cut_in_two_anywhere_says_the_same() -> None:
    whole = decoded([FULL])
    for cut in range(len(FULL) + 1):
        assert decoded([FULL[:cut], FULL[cut:]]) == whole
        assert decoded([FULL[:cut], b"", FULL[cut:]]) == whole


def test_a_stream_in_single_bytes_says_the_same() -> None:
    assert decoded(FULL[at : at + 1] for at in range(len(FULL))) == decoded([FULL])


def test_frames_come_as_soon_as_their_blank_line_does() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n\r") == [Frame("", b"a")]
    assert decoder.feed(b"\ndata: b\n") == []
    assert decoder.feed(b"\n") == [Frame("", b"b")]
    assert decoder.close() == []


def test_a_byte_order_mark_is_ignored_at_the_start_and_nowhere_else() -> None:
    assert decoded([BOM + b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n"]) == [Frame("", b"a"), Frame("", b"c")]


def test_an_event_name_that_is_not_utf_8_is_still_a_name() -> None:
    assert decoded([b"event: \xff\ndata: a\n\n"]) == [Frame("\ufffd", b"a")]


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    words = st.sampled_from([b"data", b"event", b"id", b":", b" ", b"x", b"\n", b"\r", b"\r\n", b"\n\n", "é".encode()])
    data = draw(st.sampled_from([b"", BOM])) + b"".join(draw(st.lists(words, max_size=30)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(cut_streams())
def test_any_stream_cut_anyhow_is_read_as_the_format_says(pieces: list[bytes]) -> None:
    assert decoded(pieces) == reference(b"".join(pieces))


def over_the_limit() -> Iterator[list[bytes]]:
    much = b"x" * (sse.MAX_LINE // 2)
    yield [b"data: " + much + much]
    yield [b"data: " + much + much + b"\n"]
    yield [b"data: ", much, much]
    yield [b"\ndata: " + much, much + b"\n"]
    yield [b"\ndata: " + much + much]
    yield [b"data: " + much + b"\n", b"data: " + much + b"\n"]


@pytest.mark.parametrize(
    "pieces", list(over_the_limit()), ids=["one piece", "a line", "pieces", "late", "begun", "two lines"]
)
def test_a_line_over_the_limit_is_refused_however_it_comes(pieces: list[bytes]) -> None:
    with pytest.raises(BadFrame, match="a line of the event stream is longer than 16777216 bytes"):
        decoded(pieces)


def test_the_limit_is_one_event_and_not_the_whole_stream() -> None:
    long = b"data: " + b"x" * (sse.MAX_LINE - 6)
    assert [len(frame.data) for frame in decoded([long + b"\n\n", long + b"\n\n"])] == [sse.MAX_LINE - 6] * 2


def test_ten_megabytes_in_single_bytes_take_less_than_two_seconds() -> None:
    event = b"data: " + b"x" * 1016 + b"\n\n"
    pieces = [event[at : at + 1] for at in range(len(event))] * (10 * 2**20 // len(event))
    tracer = sys.gettrace()
    sys.settrace(None)  # else it is the measuring of coverage that is measured
    try:
        # Reliability.md S13. A second chance, because it is a rule for this code and not for a busy machine; and a
        # slow one is asked first how long it takes to do next to nothing with as many pieces.
        allowed = max(2, 4 * seconds(pieces, Least()))
        assert seconds(pieces, Decoder()) < allowed or seconds(pieces, Decoder()) < allowed
    finally:
        sys.settrace(tracer)


class Least:
    """What any reader has to do with a piece: to keep it, and to see whether an event is whole."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> bool:
        kept = self._kept
        kept += data
        if data == b"\n" and kept.endswith(b"\n\n"):
            kept.clear()
            return True
        return False


def seconds(pieces: list[bytes], reader: Decoder | Least) -> float:
    feed = reader.feed
    frames = 0
    started = time.process_time()
    for piece in pieces:
        if feed(piece):
            frames += 1
    assert frames == len(pieces) // 1024
    return time.process_time() - started


def test_an_event_goes_out_whole_with_its_type_twice_and_line_feeds_only() -> None:
    event = events.Created(0, Raw(b'{"id":"resp_1"}'))
    assert sse.frame(event) == (
        b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1"}}\n\n'
    )


def test_an_event_that_is_passed_on_goes_out_under_its_own_type() -> None:
    event = events.Relayed(4, "response.audio.delta", b'{"type":"response.audio.delta", "sequence_number":4}')
    assert sse.frame(event) == (
        b'event: response.audio.delta\ndata: {"type":"response.audio.delta", "sequence_number":4}\n\n'
    )
    other = events.Relayed(5, "response.new", b'{"type":"response.new","sequence_number":5}')
    assert sse.frame(other).startswith(b"event: response.new\n")


def test_what_goes_out_comes_in_as_the_same() -> None:
    event = events.TextDelta(4, "msg_1", 0, 0, "one\r\ntwo: \u2028 é", [])
    assert decoded([sse.COMMENT, sse.frame(event), sse.DONE]) == [
        Frame("response.output_text.delta", events.encode(event)),
        Frame("", b"[DONE]"),
    ]

import msgspec
import pytest

from rejoinder.bridge.gemini_state import ENTRY, SIGNED, Continuation, Entry, Picture, Signed, raw


@pytest.mark.parametrize(
    "entry",
    [
        Entry(said=[(3, "s"), (2, None), (0, "t")]),
        Entry(picture=Picture("s")),
        Entry(picture=Picture(None)),
        Entry(continuation=Continuation("t", 4)),
    ],
)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    assert ENTRY.decode(raw(entry)) == entry


@pytest.mark.parametrize("signed", [Signed(), Signed("s", "g1"), Signed(None, "g1", 2)])
def test_what_belongs_to_a_call_is_read_as_it_was_written(signed: Signed) -> None:
    assert SIGNED.decode(raw(signed)) == signed


def test_what_is_not_there_takes_no_room() -> None:
    assert bytes(raw(Signed("s"))) == b'{"signature":"s"}'
    assert bytes(raw({})) == b"{}"


@pytest.mark.parametrize("part", [b'{"text":"","thoughtSignature":"s"}', b'{"toolCall":{"id":"1"}}', b'{"future":[1]}'])
def test_a_part_of_an_answer_is_none_of_them(part: bytes) -> None:
    assert ENTRY.decode(part) == Entry()


def test_the_item_of_a_search_holds_no_signature() -> None:
    assert SIGNED.decode(raw({})) == Signed()
    assert msgspec.json.decode(raw({}), type=dict) == {}

import msgspec
import pytest

from rejoinder.store.errors import DamagedRecord
from rejoinder.store.record import ITEMS, Record, decoded, encoded, item_id, without_hidden
from rejoinder.store.values import seal


def record_of(*names: str, output: tuple[str, ...] = (), without: tuple[str, ...] = (), **more: object) -> Record:
    items = [b'{"id":"%s"}' % name.encode() for name in names]
    answer = [b'{"id":"%s"}' % name.encode() for name in output]
    response = b'{"output":[%s]}' % b",".join(answer)
    record = Record("resp_1", None, 7, "completed", response, items, answer, without=without)
    return msgspec.structs.replace(record, **more)


def fields(record: Record) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in Record.__struct_fields__)


def ids(record: Record) -> list[str]:
    return [item_id(item) for item in (*record.input, *record.output)]


@pytest.mark.parametrize(
    "record",
    [
        record_of("a", output=("b", "c")),
        record_of("a", response=b'{"output":[ {"id":"other"} ]}', output=("b",)),
        record_of("a", response=b"", status=ITEMS),
        record_of(response=b'{"error":1}', output=("b",), without=("x", "y")),
        record_of(status="queued", background=True, journaled=True, expires_at=2**40, upstream_id="theirs"),
    ],
)
def test_what_was_encoded_is_decoded(record: Record) -> None:
    assert fields(decoded("key", seal("key", encoded(record)))) == fields(record)


def test_an_output_that_the_response_holds_is_written_once() -> None:
    record = record_of(output=("said_once",))
    assert encoded(record).count(b"said_once") == 1
    assert encoded(msgspec.structs.replace(record, response=b"{}")).count(b"said_once") == 1


def test_bytes_that_are_no_record_are_damage() -> None:
    value = seal("key", encoded(record_of("a")))
    for key, damaged in (
        ("key", value[:-1] + b"\x00"),
        ("another key", value),
        ("key", seal("key", b"\x92")),
        ("key", seal("key", b"\x80")),
    ):
        with pytest.raises(DamagedRecord):
            decoded(key, damaged)


@pytest.mark.parametrize(
    ("status", "unfinished", "continues"),
    [
        ("queued", True, False),
        ("in_progress", True, False),
        ("completed", False, True),
        ("incomplete", False, True),
        ("failed", False, False),
        ("cancelled", False, False),
        (ITEMS, False, False),
    ],
)
def test_a_status_says_whether_the_end_has_come_and_whether_a_turn_may_follow(
    status: str, unfinished: bool, continues: bool
) -> None:
    record = record_of(status=status)
    assert (record.is_unfinished, record.continues) == (unfinished, continues)


def test_an_item_without_an_id_is_an_error() -> None:
    assert item_id(b'{"type":"message","id":"msg_1"}') == "msg_1"
    with pytest.raises(msgspec.DecodeError):
        item_id(b"{}")


def test_a_history_nothing_was_taken_out_of_stays_as_it_is() -> None:
    records = [record_of("a"), record_of("b")]
    assert [*map(id, without_hidden(records))] == [*map(id, records)]


def test_an_item_that_was_taken_out_is_missing_from_what_came_before_and_from_nothing_else() -> None:
    first = record_of("a", "b", output=("c",), added=b"\x01\x02", upstream_id="theirs")
    second = record_of("d", upstream_id="theirs too")
    removal = record_of(without=("b", "c"), status=ITEMS)
    later = record_of("b", upstream_id="later")
    shown = without_hidden([first, second, removal, later])
    assert [*map(ids, shown)] == [["a"], ["d"], [], ["b"]]
    assert shown[1:] == [second, removal, later]
    assert (shown[0].added, shown[0].upstream_id) == (b"\x01", "")
    assert ids(first) == ["a", "b", "c"]


def test_a_record_of_before_flags_were_kept_can_lose_an_item() -> None:
    shown = without_hidden([record_of("a", "b"), record_of(without=("a",))])
    assert ids(shown[0]) == ["b"]
    assert shown[0].added == b"\x00"


def test_each_removal_counts_for_all_that_came_before_it() -> None:
    first = record_of("a", "b", "c")
    shown = without_hidden([first, record_of(without=("a",)), record_of(without=("c",))])
    assert ids(shown[0]) == ["b"]

from rejoinder.conformance.upstreams.recut import Recut
from rejoinder.conformance.upstreams.script import Action, Head, Pause, Wire
from rejoinder.conformance.upstreams.sent import SentChat

ASKED = SentChat("m", [])


def played(*pieces: bytes, size: int) -> list[Action]:
    return list(Recut(Wire((Head(), *pieces)), size).actions(ASKED))


def test_bytes_come_a_few_at_a_time() -> None:
    _, *actions = played(b"abcdefg", b"", b"hi", size=3)
    assert [action for action in actions if isinstance(action, bytes)] == [b"abc", b"def", b"g", b"hi"]


def test_every_character_of_two_bytes_or_more_is_cut_in_two() -> None:
    head, *actions = played("a–b🎈".encode(), size=99)
    assert head == Head()
    assert actions == [
        "a–".encode()[:2],
        Pause(0.002),
        "–".encode()[1:] + "b🎈".encode()[:2],
        Pause(0.002),
        "🎈".encode()[1:],
        Pause(0),
    ]

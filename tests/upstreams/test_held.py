from itertools import islice

from rejoinder.conformance.upstreams.held import Held
from rejoinder.conformance.upstreams.script import Action, Answer, Head, Pause, answer, text
from rejoinder.conformance.upstreams.sent import SentChat

ASKED = SentChat("m", [], stream=True)
HELLO = answer(text("Hel", "lo"))


def whole(said: Answer) -> list[Action]:
    return list(said.actions(ASKED))


def test_it_waits_after_some_pieces_until_it_is_released() -> None:
    held = Held(HELLO, after=2)
    actions = held.actions(ASKED)
    begun = list(islice(actions, 5))
    assert begun == [*whole(HELLO)[:3], Pause(0.005), Pause(0.005)]
    assert not held.is_released
    held.release()
    assert held.is_released
    assert list(actions) == whole(HELLO)[3:]


def test_it_waits_before_what_it_is_not_to_say() -> None:
    held = Held(HELLO, before=b'"lo"')
    actions = held.actions(ASKED)
    *begun, pause = islice(actions, 4)
    assert (begun[0], pause) == (Head(), Pause(0.005))
    assert b"Hel" in b"".join(action for action in begun if isinstance(action, bytes))
    held.release()
    assert b'"lo"' in b"".join(action for action in actions if isinstance(action, bytes))


def test_who_is_released_before_does_not_wait() -> None:
    held = Held(HELLO, after=0)
    held.release()
    assert list(held.actions(ASKED)) == whole(HELLO)

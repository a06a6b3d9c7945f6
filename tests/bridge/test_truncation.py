from collections.abc import Sequence

import pytest

from rejoinder.bridge.truncation import shortened
from tests.bridge.prompts import Fields, assistant, call, output, prompt, user

SYSTEM = {"role": "developer", "content": "rules"}


def left(said: Sequence[Fields]) -> tuple[list[bytes], list[str]] | None:
    before = prompt(said)
    after = shortened(before)
    if after is None:
        assert before.notes == []
        return None
    assert after.notes is before.notes
    assert (after.model, after.request, after.toolbox) == (before.model, before.request, before.toolbox)
    return [item.raw for item in after.items], after.notes


def raws(said: Sequence[Fields]) -> list[bytes]:
    return [item.raw for item in prompt(said).items]


@pytest.mark.parametrize("said", [[], [SYSTEM], [user("1")], [SYSTEM, user("1"), call("a"), output("a")]])
def test_the_last_turn_is_never_left_out(said: list[Fields]) -> None:
    assert left(said) is None


@pytest.mark.parametrize(("turns", "stay"), [(2, 1), (3, 1), (4, 2), (5, 2), (9, 4)])
def test_the_older_half_of_the_turns_is_left_out(turns: int, stay: int) -> None:
    said = [part for number in range(turns) for part in (user(f"q{number}"), assistant(f"a{number}"))]
    gone = 2 * (turns - stay)
    note = f"truncation: the {gone} oldest items did not fit and were left out"
    assert left([SYSTEM, *said]) == (raws([SYSTEM, *said[gone:]]), [note])


def test_what_was_added_to_tools_and_settings_stays() -> None:
    tools = {"type": "additional_tools", "role": "developer", "tools": []}
    update = {"type": "configuration_update", "reasoning": {"effort": "low"}}
    said = [user("1"), tools, assistant("2"), update, user("3")]
    note = "truncation: the 2 oldest items did not fit and were left out"
    assert left(said) == (raws([tools, update, user("3")]), [note])


def test_calls_keep_their_outputs_even_with_a_message_between_them() -> None:
    said = [user("1"), user("2"), call("a"), call("b"), output("b"), user("meanwhile"), output("a"), user("3")]
    after = left(said)
    assert after is not None
    assert after[0] == raws([user("3")])
    searched: Fields = {"type": "tool_search_call", "call_id": None, "arguments": {}, "execution": "server"}
    after = left([searched, user("1"), user("2")])
    assert after is not None
    assert after[0] == raws([searched, user("2")])


def test_leaving_out_again_and_again_ends_with_the_last_turn() -> None:
    again = prompt([SYSTEM, *(user(str(number)) for number in range(20))])
    sizes = []
    while (shorter := shortened(again)) is not None:
        again = shorter
        sizes.append(len(again.items))
    assert sizes == [11, 6, 3, 2]
    assert len(again.notes) == 4

import json

import pytest

from rejoinder.bridge.losses import Loss
from rejoinder.server.notes import LOSSES, NAME, headers


def shown(*notes: str) -> list[str]:
    value = headers(notes, [])[NAME]
    assert len(value) <= 4000
    assert all(" " <= char <= "~" for char in value), "a header holds printable ASCII"
    found = json.loads(value)
    assert isinstance(found, list)
    return found


def test_nothing_to_say_is_no_header() -> None:
    assert headers([], []) == {}


def test_notes_are_a_json_list_in_their_order() -> None:
    assert headers(["user: left out", "seed: left out"], []) == {NAME: '["user: left out","seed: left out"]'}


def test_a_note_that_comes_twice_is_said_once() -> None:
    assert shown("a", "b", "a") == ["a", "b"]


@pytest.mark.parametrize("note", ["naïve — “quoted”", "line\r\nSet-Cookie: a=b", "nul \x00 and del \x7f", 'tab\t\\ "'])
def test_whatever_a_note_holds_arrives_and_the_header_stays_one_line(note: str) -> None:
    assert shown(note) == [note]


def test_a_character_beyond_16_bits_is_replaced() -> None:
    assert shown("smile \U0001f600") == ["smile ?"]


def test_many_notes_are_cut_and_say_so() -> None:
    notes = [f"parameter_{number}: unknown or without effect here" for number in range(500)]
    found = shown(*notes)
    assert found[-1] == "further notes are in the server's log"
    assert found[:-1] == notes[: len(found) - 1]
    assert len(found) > 10


@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("text", ["x", "é", '"', "\x01"])
def test_notes_that_quote_long_text_of_a_client_are_cut_too(count: int, text: str) -> None:
    found = shown(*(f"{number}{text * 100_000}" for number in range(count)))
    assert found[0].startswith(f"0{text}")
    assert len(found[0]) == 200


def lost(*losses: Loss) -> list[dict[str, object]]:
    value = headers([], losses)[LOSSES]
    assert len(value) <= 4000
    assert all(" " <= char <= "~" for char in value), "a header holds printable ASCII"
    found = json.loads(value)
    assert isinstance(found, list)
    return found


def test_losses_are_a_json_list_of_their_own() -> None:
    losses = [
        Loss("reasoning", "rs_1", "removed", "model_mismatch", "anthropic"),
        Loss("web_search_call", None, "removed", "no_words"),
        Loss("input_image", None, "rewritten", "no_words"),
    ]
    assert headers(["seed: left out"], losses) == {
        NAME: '["seed: left out"]',
        LOSSES: '[{"type":"reasoning","id":"rs_1","action":"removed","reason":"model_mismatch","issuer":"anthropic"},'
        '{"type":"web_search_call","id":null,"action":"removed","reason":"no_words"},'
        '{"type":"input_image","id":null,"action":"rewritten","reason":"no_words"}]',
    }


def test_a_loss_that_comes_twice_is_told_once() -> None:
    loss = Loss("reasoning", "rs_1", "removed", "not_sealed")
    assert len(lost(loss, loss, Loss("reasoning", "rs_2", "removed", "not_sealed"), loss)) == 2


def test_many_losses_are_cut_and_say_so() -> None:
    losses = [Loss("reasoning", f"rs_{number}", "removed", "not_sealed") for number in range(500)]
    found = lost(*losses)
    assert found[-1]["type"] == "further losses are in the server's log"
    assert [loss["id"] for loss in found[:-1]] == [f"rs_{number}" for number in range(len(found) - 1)]
    assert len(found) > 10


@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("text", ["x", "é", '"', "\r\n", "\U0001f600"])
def test_ids_a_client_made_up_are_cut_too(count: int, text: str) -> None:
    found = lost(*(Loss("reasoning", f"{number}{text * 100_000}", "removed", "not_sealed") for number in range(count)))
    shown = text.replace("\U0001f600", "?")
    assert str(found[0]["id"]).startswith(f"0{shown}")
    assert len(str(found[0]["id"])) == 200

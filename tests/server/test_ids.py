import os
import re

from rejoinder.server.ids import PREFIXES, Ids
from rejoinder.server.lineage import RESPONSE_ID


def test_the_ids_of_items_hold_the_bits_of_their_response_and_a_number() -> None:
    ids = Ids(lambda size: bytes(range(size)))
    assert ids.response == "resp_000102030405060708090a0b0c0d0e0f"
    assert ids.mint("msg") == "msg_000102030405060708090a0b0c0d0e0f0001"
    assert ids.mint("fc") == "fc_000102030405060708090a0b0c0d0e0f0002"


def test_a_response_id_holds_128_random_bits_in_the_one_form_that_is_looked_up() -> None:
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return os.urandom(size)

    responses = {Ids(random).response for _ in range(100)}
    assert asked == [16] * 100
    assert len(responses) == 100
    assert all(RESPONSE_ID.fullmatch(one) for one in responses)


def test_a_response_that_is_made_again_gives_its_items_the_same_ids() -> None:
    first = Ids(os.urandom)
    minted = [first.mint("rs"), first.mint("msg")]
    again = Ids.of(first.response)
    assert (again.response, again.stem) == (first.response, first.stem)
    assert [again.mint("rs"), again.mint("msg")] == minted


def test_ids_stay_unique_when_four_digits_do_not_suffice() -> None:
    ids = Ids(bytes)
    minted = [ids.mint("msg") for _ in range(70_000)]
    assert len(set(minted)) == 70_000


def test_an_id_of_any_item_fits_where_64_characters_do() -> None:
    ids = Ids(bytes)
    assert all(len(ids.mint(prefix)) <= 64 for prefix in (*PREFIXES.values(), "call", "item"))


def test_every_kind_of_item_has_a_prefix_of_its_own_that_the_store_can_read() -> None:
    assert len(set(PREFIXES.values())) == len(PREFIXES)
    assert all(re.fullmatch("[a-z]+", prefix) for prefix in PREFIXES.values())

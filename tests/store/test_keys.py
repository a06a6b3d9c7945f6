import pytest

from rejoinder.store import keys

TENANT = keys.tenant_of("somebody")


@pytest.mark.parametrize("owner", ["", "o", "o/response/resp_1", "ä" * 1000])
def test_an_owner_is_64_hex_digits_whatever_names_it(owner: str) -> None:
    assert len(keys.tenant_of(owner)) == 64
    assert set(keys.tenant_of(owner)) <= set("0123456789abcdef")
    assert keys.tenant_of(owner) == keys.tenant_of(owner) != keys.tenant_of(owner + " ")


def test_every_row_of_an_owner_begins_with_it_but_those_of_unfinished_responses() -> None:
    names = [
        keys.living(TENANT, "resp_1"),
        keys.ghost(TENANT, "resp_1"),
        keys.children(TENANT, "resp_1"),
        keys.until(TENANT, "resp_1"),
        keys.entry(TENANT, "resp_1"),
        keys.event(TENANT, "resp_1", 0),
        keys.conversation(TENANT, "resp_1"),
        keys.once(TENANT, "resp_1"),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith(f"{TENANT}/") for name in names)
    run = keys.run(TENANT, "resp_1")
    assert keys.RUNS <= run < keys.behind(keys.RUNS)
    assert not any(keys.RUNS <= name < keys.behind(keys.RUNS) for name in names)


def test_names_that_clients_choose_are_hashed() -> None:
    for name in (keys.entry, keys.once):
        assert name(TENANT, "x").isascii()
        assert len(name(TENANT, "\ud800/ä" * 999)) == len(name(TENANT, "x"))
        assert name(TENANT, "x") != name(TENANT, "y")


def test_pieces_are_in_the_order_of_their_numbers_and_end_before_the_next_stream() -> None:
    names = [keys.event(TENANT, "resp_1", number) for number in (0, 1, 9, 10, 99_999_999)]
    assert names == sorted(names)
    first = keys.events(TENANT, "resp_1")
    assert all(first <= name < keys.behind(first) for name in names)
    assert not first <= keys.event(TENANT, "resp_10", 0) < keys.behind(first)


def test_people_are_told_the_row_and_not_its_owner() -> None:
    assert keys.told(keys.living(TENANT, "resp_1")) == "'response/resp_1'"
    assert keys.told(keys.event(TENANT, "resp_1", 3)) == "'event/resp_1/00000003'"
    assert keys.told(keys.run(TENANT, "resp_1")) == "'run/resp_1'"

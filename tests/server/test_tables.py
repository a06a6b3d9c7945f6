from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.server.tables import Place, SettingsError, from_text, listed, read, secretive, typed

PLACE = Place("some.toml", "inner.", Path())


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["one", "two"] = "one"


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 1
    wait: float = 1.0
    flag: bool = False
    models: tuple[str, ...] = ()
    kinds: tuple[Literal["red", "blue"], ...] = ()
    auth: Literal["bearer"] = "bearer"
    aliases: dict[str, str] = {}
    inner: Inner = Inner()
    maybe: str | None = None
    extra: dict[str, msgspec.Raw] = {}
    tools: tuple[msgspec.Raw, ...] = ()
    rooms: dict[str, Inner] = {}


def refusal(table: dict[str, object], *, secret: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        typed(PLACE, table, Sample, secret=secret)
    return str(caught.value)


def test_a_fitting_table_becomes_the_struct() -> None:
    assert typed(PLACE, {"name": "x", "models": ["a"], "wait": 2}, Sample) == Sample("x", models=("a",), wait=2.0)


def test_tables_may_hold_tables_by_any_name() -> None:
    found = typed(PLACE, {"name": "x", "rooms": {"a*": {}, "b": {"kind": "two"}}}, Sample)
    assert found.rooms == {"a*": Inner(), "b": Inner("two")}


def test_what_is_kept_as_json_may_be_anything() -> None:
    found = typed(PLACE, {"name": "x", "extra": {"a": [1, {"b": True}], "c": msgspec.Raw(b"0")}, "tools": [{}]}, Sample)
    assert found.extra == {"a": msgspec.Raw(b'[1,{"b":true}]'), "c": msgspec.Raw(b"0")}
    assert found.tools == (msgspec.Raw(b"{}"),)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            {"name": "x", "rooms": {"a": {}, "b": {"kind": "three"}}},
            "some.toml: inner.rooms.b.kind: expected one of 'one', 'two', got 'three'",
        ),
        (
            {"name": "x", "rooms": {"b": {"kin": 3}}},
            "some.toml: inner.rooms.b.kin: there is no setting of this name; did you mean 'kind'?",
        ),
        ({"name": "x", "rooms": {"b": 3}}, "some.toml: inner.rooms.b: expected a table, got 3"),
        ({"name": "x", "extra": 1}, "some.toml: inner.extra: expected a table, got 1"),
        ({"name": "x", "tools": "a"}, "some.toml: inner.tools: expected a list, got a string"),
        ({"name": "x", "port": "8"}, "some.toml: inner.port: expected an integer, got a string"),
        ({"name": "x", "port": True}, "some.toml: inner.port: expected an integer, got a boolean"),
        ({"name": "x", "port": 70000}, "some.toml: inner.port: expected an integer <= 65535, got 70000"),
        ({"name": "x", "wait": "s"}, "some.toml: inner.wait: expected a number, got a string"),
        ({"name": "x", "flag": 1}, "some.toml: inner.flag: expected a boolean, got 1"),
        ({"name": "x", "maybe": 1.5}, "some.toml: inner.maybe: expected a string, got 1.5"),
        ({"name": "x", "models": "a"}, "some.toml: inner.models: expected a list, got a string"),
        ({"name": "x", "models": ["a", 2]}, "some.toml: inner.models[1]: expected a string, got 2"),
        ({"name": "x", "models": [["a"]]}, "some.toml: inner.models[0]: expected a string, got a list"),
        ({"name": "x", "aliases": {"a": "b", "c": 3}}, "some.toml: inner.aliases.c: expected a string, got 3"),
        ({"name": "x", "aliases": {"a": {}}}, "some.toml: inner.aliases.a: expected a string, got a table"),
        ({"name": "x", "aliases": date(2026, 1, 1)}, "some.toml: inner.aliases: expected a table, got something else"),
        ({"name": "x", "kinds": ["green"]}, "some.toml: inner.kinds[0]: expected one of 'red', 'blue', got 'green'"),
        ({"name": "x", "inner": {"kind": 1}}, "some.toml: inner.inner.kind: expected a string, got 1"),
        ({}, "some.toml: inner: 'name' is missing"),
        (
            {"name": "x", "models": {}},
            "some.toml: inner.models: expected a list, got a table; a table that can be repeated is written with two "
            "brackets",
        ),
        ({"nam": "x"}, "some.toml: inner.nam: there is no setting of this name; did you mean 'name'?"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path_what_was_expected_and_what_came(
    table: dict[str, object], told: str
) -> None:
    assert refusal(table) == told


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    assert "expected one of 'name', 'port', 'wait'" in refusal({"zzzzzz": 1})


def test_a_name_that_credentials_go_by_gets_the_advice_for_it() -> None:
    assert refusal({"api_key": "sk-canary"}, secret="say it elsewhere") == "some.toml: inner.api_key: say it elsewhere"
    assert "no setting" in refusal({"api_key": "sk-canary"})


def test_what_is_no_choice_is_not_repeated_where_it_may_be_a_key() -> None:
    assert refusal({"name": "x", "auth": "sk-canary"}) == (
        "some.toml: inner.auth: expected one of 'bearer', got something else"
    )


@given(st.text(min_size=8))
def test_no_text_of_a_user_is_repeated_where_something_else_belongs(text: str) -> None:
    told = refusal({"name": "x", "port": f"canary{text}"})
    assert "canary" not in told


def test_an_error_without_a_place_in_the_file_names_the_file_alone() -> None:
    assert str(Place("f.toml", "", Path()).error("wrong")) == "f.toml: wrong"


def test_a_place_leads_on_to_places_within_the_same_file() -> None:
    assert str(PLACE.within("upstream 'a' ").error("wrong", "models")) == "some.toml: upstream 'a' models: wrong"


def test_the_text_of_a_variable_becomes_what_the_setting_is() -> None:
    assert from_text("X", "8", int) == 8
    assert from_text("X", "8", str) == "8"


def test_a_variable_that_does_not_fit_is_told_by_name() -> None:
    with pytest.raises(SettingsError, match=r"^environment variable X_PORT: expected an integer, got 'eight'$"):
        from_text("X_PORT", "eight", int)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = 1", encoding="utf-8")
    assert read(tmp_path / "a.toml") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"a = ", "not valid TOML"), (b"a = '\xff'", "expected UTF-8, got something else at byte 5"), (None, "No such")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=told) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["authorization", "X-Api-Key", "Cookie", "my_secret", "api_key", "token"])
def test_names_of_credentials_are_recognised(name: str) -> None:
    assert secretive(name)


@pytest.mark.parametrize("name", ["OpenAI-Organization", "X-Title", "max_tokens", "monkey"])
def test_other_names_are_not_taken_for_credentials(name: str) -> None:
    assert not secretive(name)


def test_names_are_listed_in_quotes() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"

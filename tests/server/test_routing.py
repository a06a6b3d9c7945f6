from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.profile import ChatProfile
from rejoinder.server.routing import Routes, UnknownModel, is_glob, printable
from rejoinder.server.settings import Credential, UpstreamSettings


def upstream(
    name: str, *models: str, aliases: Mapping[str, str] | None = None, discovered: bool = False
) -> UpstreamSettings:
    return UpstreamSettings(
        name=name,
        dialect="chat",
        base_url="http://127.0.0.1:1/v1",
        credential=Credential(None, "none"),
        auth="bearer",
        models=models,
        aliases=aliases or {},
        profile=ChatProfile(),
        headers={},
        first_byte_timeout=1,
        stall_timeout=1,
        example="",
        discovered=discovered,
        why="a test",
    )


def found(routes: Routes, model: str) -> tuple[str, str]:
    route = routes.find(model)
    return route.upstream.name, route.model


def test_a_prefix_wins_over_every_name_and_the_rest_may_hold_slashes() -> None:
    routes = Routes([upstream("one", "two/x", "*"), upstream("two")])
    assert found(routes, "two/x") == ("two", "x")
    assert found(routes, "two/a/b:c") == ("two", "a/b:c")


def test_a_prefix_without_a_rest_or_of_nobody_is_a_plain_name() -> None:
    routes = Routes([upstream("one", "*")])
    assert found(routes, "one/") == ("one", "one/")
    assert found(routes, "three/x") == ("one", "three/x")


def test_aliases_count_behind_a_prefix_as_well() -> None:
    routes = Routes([upstream("one", aliases={"fast": "big:8b"})])
    assert found(routes, "one/fast") == ("one", "big:8b")


def test_exact_names_and_aliases_come_before_globs_and_in_the_order_of_the_settings() -> None:
    routes = Routes([upstream("one", "m*"), upstream("two", "m1", aliases={"m2": "x"}), upstream("three", "m1", "m2")])
    assert found(routes, "m1") == ("two", "m1")
    assert found(routes, "m2") == ("two", "x")
    assert found(routes, "m3") == ("one", "m3")


def test_an_alias_wins_over_an_exact_name_of_its_own_upstream() -> None:
    assert found(Routes([upstream("one", "m", aliases={"m": "x"})]), "m") == ("one", "x")


def test_globs_are_asked_in_the_order_of_the_settings_and_mind_case() -> None:
    routes = Routes([upstream("one", "qwen?-*"), upstream("two", "*")])
    assert found(routes, "qwen3-max") == ("one", "qwen3-max")
    assert found(routes, "Qwen3-max") == ("two", "Qwen3-max")


def test_brackets_in_a_name_are_nothing_special() -> None:
    routes = Routes([upstream("one", "claude[1m]*")])
    assert found(routes, "claude[1m]-x") == ("one", "claude[1m]-x")
    with pytest.raises(UnknownModel):
        routes.find("claude1-x")


@pytest.mark.parametrize("model", ["http://10.0.0.1/x", "../../etc", "one:80/x", "x@one/y", ""])
def test_a_name_is_looked_up_and_not_read_as_an_address(model: str) -> None:
    with pytest.raises(UnknownModel):
        Routes([upstream("one", "m")]).find(model)


def test_an_unknown_model_is_answered_with_names_that_are_near() -> None:
    with pytest.raises(UnknownModel) as caught:
        Routes([upstream("one", "llama3.2", "other")]).find("lama3.2")
    assert str(caught.value) == "the requested model 'lama3.2' does not exist; did you mean 'llama3.2'"
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "model", "model_not_found")


def test_an_unknown_model_like_no_other_is_answered_with_what_there_is() -> None:
    with pytest.raises(UnknownModel, match=r"this server knows 'm', 'one/…', 'q\*'$"):
        Routes([upstream("one", "m", "q*")]).find("zzz")


def test_a_clients_text_is_cut_and_escaped_in_the_message() -> None:
    with pytest.raises(UnknownModel) as caught:
        Routes([upstream("one")]).find("a\r\n\x1b[31m" + "b" * 240)
    assert "\\r\\n\\x1b" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert printable("é" * 300) == "'" + "\\xe9" * 200 + "'"


def test_a_name_longer_than_any_is_refused_before_it_is_compared() -> None:
    with pytest.raises(UnknownModel, match="at most 256 characters, got 1000000"):
        Routes([upstream("one", "*a*a*a*a*b")]).find("a" * 1_000_000)


def test_serving_is_finding() -> None:
    routes = Routes([upstream("one", "m*")])
    assert routes.serves("m1")
    assert not routes.serves("n")


def test_listed_are_exact_names_and_aliases_each_once() -> None:
    routes = Routes([upstream("one", "m1", "g*", aliases={"a": "m1"}), upstream("two", "m1", "m2")])
    assert routes.listing() == [("a", "one"), ("m1", "one"), ("m2", "two")]


def test_upstreams_that_share_nothing_do_not_overlap() -> None:
    assert Routes([upstream("one", "a*", "b"), upstream("two", "c*", "d")]).overlaps() == []


@pytest.mark.parametrize(
    ("upstreams", "told"),
    [
        (
            [upstream("one", "m"), upstream("two", "m")],
            "'one' and 'two' both name 'm'; 'one' answers, being first; ask for 'two/m' to reach the other",
        ),
        (
            [upstream("one", "x"), upstream("two", aliases={"x": "y"})],
            "'one' and 'two' both name 'x'; 'one' answers, being first; ask for 'two/x' to reach the other",
        ),
        (
            [upstream("one", "*"), upstream("two", "a", "b", "c", "d", "e")],
            "'two' names 'a', 'b', 'c' and 2 more, and 'one' claims as much by '*'; 'two' answers; "
            "ask for 'one/a' to reach the other",
        ),
        (
            [upstream("one", "qwen*"), upstream("two", "*:*")],
            "'qwen*' of 'one' is asked before '*:*' of 'two' and takes what both match, such as 'qwen:'; "
            "ask for 'two/…' to reach the other",
        ),
        (
            [upstream("one", "*"), upstream("two", "a*", "b*", "c*"), upstream("three", "d*", "e?")],
            "'*' of 'one' is asked before 'a*' of 'two', 'b*' of 'two', 'c*' of 'two', 'd*' of 'three' and 1 more "
            "and takes what both match, such as 'a'; ask for 'two/…' to reach the other",
        ),
        (
            [upstream("one"), upstream("two", "*/*", discovered=True)],
            "names that begin with 'one/' go to the upstream of that name, though '*/*' of 'two' matches them; "
            "ask for 'two/one/…' to reach that one",
        ),
        (
            [upstream("one", "*"), upstream("two", "**")],
            "'*' of 'one' is asked before '**' of 'two' and takes what both match, such as 'x'; "
            "ask for 'two/…' to reach the other",
        ),
    ],
)
def test_an_overlap_is_told_once_with_who_answers(upstreams: list[UpstreamSettings], told: str) -> None:
    assert Routes(upstreams).overlaps() == [told]


def test_globs_of_two_discovered_upstreams_are_left_to_the_order_of_the_table() -> None:
    one, two = upstream("one", "a*", discovered=True), upstream("two", "*b", discovered=True)
    assert Routes([one, two]).overlaps() == []


GLOBS = st.text(alphabet="ab*?", min_size=1, max_size=6).filter(is_glob)


@given(GLOBS, GLOBS, st.lists(st.text(alphabet="abx", max_size=6), max_size=30))
def test_an_overlap_is_told_exactly_when_some_name_is_matched_by_both(one: str, two: str, names: list[str]) -> None:
    told = Routes([upstream("one", one), upstream("two", two)]).overlaps()
    first, second = Routes([upstream("one", one)]), Routes([upstream("two", two)])
    if told:
        example = told[0].split("such as '")[1].split("'")[0]
        assert first.serves(example)
        assert second.serves(example)
    else:
        assert not [name for name in names if first.serves(name) and second.serves(name)]

import json

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge.errors import BrokenStream
from rejoinder.bridge.gemini_arguments import Arguments, PartialArgument


def put_together(*pieces: tuple[str, object]) -> object:
    arguments = Arguments()
    for path, value in pieces:
        arguments.add(argument(path, value))
    return json.loads(arguments.json())


def argument(path: str, value: object) -> PartialArgument:
    match value:
        case bool():
            return PartialArgument(path, bool_value=value)
        case int() | float():
            return PartialArgument(path, number_value=value)
        case str():
            return PartialArgument(path, string_value=value)
        case _:
            return PartialArgument(path)


def test_arguments_that_come_whole_keep_their_text_but_for_the_space() -> None:
    arguments = Arguments()
    arguments.whole(Raw(b'{\n  "b": 1.50,\n  "a": "x y"\n}'))

    assert arguments.json() == '{"b":1.50,"a":"x y"}'


def test_without_any_there_is_an_empty_object() -> None:
    assert Arguments().json() == "{}"


def test_values_stand_where_their_paths_say() -> None:
    assert put_together(
        ("$.a", "x"),
        ("$.b.c", 1),
        ("$.b.d[0]", True),
        ("$.b.d[1]", 0.5),
        ("$.b.d[2].e[0][0]", None),
        ("$['f.g']", False),
        ('$["h"]', "y"),
    ) == {"a": "x", "b": {"c": 1, "d": [True, 0.5, {"e": [[None]]}]}, "f.g": False, "h": "y"}


def test_text_is_added_to_text_and_everything_else_takes_its_place() -> None:
    assert put_together(("$.a", "x"), ("$.a", "y"), ("$.a", ""), ("$.l[0]", "p"), ("$.l[0]", "q")) == {
        "a": "xy",
        "l": ["pq"],
    }
    assert put_together(("$.a", 1), ("$.a", 2), ("$.l[0]", 1), ("$.l[0]", 2)) == {"a": 2, "l": [2]}


@pytest.mark.parametrize("path", ["$[0]", "$.l[2]", "$.a.b", "$.l.x", "$.a[0]"])
def test_a_path_that_leads_nowhere_breaks_the_answer(path: str) -> None:
    with pytest.raises(BrokenStream, match="where there is no place for it"):
        put_together(("$.a", "x"), ("$.l[0][0]", 1), (path, 1))


def test_a_piece_is_read_by_its_names_on_the_wire() -> None:
    read = msgspec.json.decode(b'{"jsonPath":"$.a","numberValue":0.5,"willContinue":true}', type=PartialArgument)

    assert (read.json_path, read.value) == ("$.a", 0.5)
    assert msgspec.json.decode(b'{"jsonPath":"$.a","nullValue":"NULL_VALUE"}', type=PartialArgument).value is None

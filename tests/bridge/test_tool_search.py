import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.tool_search import MOST, Deferred, declared, deferred, search
from rejoinder.wire.tools import CustomTool, FunctionTool, NamespaceTool, Tool


def function(name: str, description: str = "", around: NamespaceTool | None = None, **properties: str) -> Deferred:
    said = {name: {"type": "string", "description": text} for name, text in properties.items()}
    declaration = {"type": "function", "name": name, "parameters": {"type": "object", "properties": said}}
    tool = Tool.parse(json.dumps(declaration).encode(), at="tools[0]")
    assert isinstance(tool.view, FunctionTool)
    return deferred(tool, name, description, around)


FLIGHTS = function("find_flights", "Searches for flights between two airports.", origin="where it begins")
HOTELS = function("bookHotel", "Books a room.", guests="how many people")
CLOCK = function("clock", "Says the time in a city.")
TOOLS = [FLIGHTS, HOTELS, CLOCK]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("flight", ["find_flights"]),
        ("FLIGHTS to Rome", ["find_flights"]),
        ("an airport", ["find_flights"]),
        ("book a hotel", ["bookHotel", "clock"]),
        ("people", ["bookHotel"]),
        ("what time is it", ["clock"]),
        ("bookHotel", ["bookHotel"]),
        ("", []),
        ("weather", []),
        ("?!", []),
    ],
)
def test_a_tool_is_found_by_its_name_its_description_and_its_parameters(query: str, found: list[str]) -> None:
    assert [tool.name for tool in search(query, TOOLS)][: len(found)] == found


def test_what_is_rare_counts_more_than_what_all_have() -> None:
    tools = [function(f"read_{thing}", "Reads a file.") for thing in ("mail", "calendar", "notes")]
    [first, *_] = search("read a file of the calendar", tools)
    assert first.name == "read_calendar"


def test_tools_that_fit_alike_come_in_their_order_and_not_all_of_them() -> None:
    tools = [function(f"tool_{number:02}", "Does things.") for number in range(20)]
    assert search("things", tools) == tools[:MOST]


def test_nothing_is_found_among_nothing() -> None:
    assert search("anything", []) == []


def test_what_is_found_is_listed_as_it_was_declared() -> None:
    around = NamespaceTool("travel", [], "About travelling.")
    inside = function("book_train", "Books a train.", around)
    custom = Tool.parse(b'{"type":"custom","name":"note"}', at="tools[0]")
    assert isinstance(custom.view, CustomTool)
    free = deferred(custom, "note", None, None)
    assert [json.loads(bytes(raw)) for raw in declared([inside, free])] == [
        {
            "type": "namespace",
            "name": "travel",
            "description": "About travelling.",
            "tools": [json.loads(inside.raw)],
        },
        {"type": "custom", "name": "note"},
    ]
    assert declared([free]) == [Raw(free.raw)]
    assert search("travelling", [inside, free]) == [inside]


@given(st.text(), st.lists(st.text(min_size=1, max_size=20), max_size=5))
def test_any_query_finds_some_of_the_tools_each_once(query: str, names: list[str]) -> None:
    tools = [function(name) for name in dict.fromkeys(names)]
    found = search(query, tools)
    assert len({id(tool) for tool in found}) == len(found) <= MOST
    assert all(tool in tools for tool in found)

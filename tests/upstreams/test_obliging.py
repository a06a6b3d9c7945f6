import json

from rejoinder.conformance.upstreams.obliging import calling, obliging, telling
from rejoinder.conformance.upstreams.responses_script import CustomCall, Item
from rejoinder.conformance.upstreams.script import Answer, Calls, Part, Text, Thought
from rejoinder.conformance.upstreams.seen import Choice, Form, Offered, Said, Seen

SCHEMA = b'{"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}'
LOOK = Offered("look", "Looks.", SCHEMA)
CLOCK = Offered("clock")


def asked(text: str = "Hello.") -> list[Said]:
    return [Said("text", "user", text)]


def said(told: Answer) -> str:
    return "".join("".join(part.pieces) for part in told.parts if isinstance(part, Text))


def called(part: Part) -> tuple[str, str, str]:
    assert isinstance(part, Calls)
    [call] = part.calls
    return call.id, call.name, call.arguments


def test_it_says_something_and_counts_words() -> None:
    told = obliging(Seen(asked("One two three."), [LOOK]))
    assert said(told) == "Hello, I am the scripted provider."
    assert told.usage.completion == 6
    assert told.usage.prompt > obliging(Seen(asked("One two three."))).usage.prompt > 2
    assert told.finish is None


def test_it_stops_where_it_has_to() -> None:
    told = obliging(Seen(asked("Count to two hundred."), limit=16))
    assert (told.finish, told.usage.completion) == ("length", 16)
    assert said(told).startswith("one 2, and then one more 3")
    assert obliging(Seen(asked(), limit=16)).finish is None


def test_it_thinks_when_it_is_asked_to() -> None:
    for seen in (Seen(asked(), effort="low"), Seen(asked("Think about it."))):
        told = obliging(seen)
        assert isinstance(told.parts[0], Thought)
        assert (told.usage.reasoning, told.usage.completion) == (5, 11)


def test_it_takes_its_time_when_it_is_asked_to() -> None:
    assert obliging(Seen(asked("Count slowly."))).gap > 0
    assert obliging(Seen(asked("Count."))).gap == 0


def test_it_calls_what_has_to_be_called_each_time_by_another_id() -> None:
    [part] = obliging(Seen(asked(), [CLOCK, LOOK], Choice("required"))).parts
    assert called(part) == ("call_clock_0", "clock", "{}")
    before = [*asked(), Said("call", "assistant", "{}", "call_look_0", "look")]
    [part] = obliging(Seen(before, [CLOCK, LOOK], Choice("required", ["look"]))).parts
    assert called(part) == ("call_look_1", "look", '{"place":"Ada"}')
    assert said(obliging(Seen(asked(), [CLOCK]))) != ""


def test_it_fills_in_what_has_to_be_filled_in() -> None:
    assert json.loads(said(obliging(Seen(asked(), form=Form("json_schema", SCHEMA))))) == {"place": "Ada"}
    assert json.loads(said(obliging(Seen(asked(), form=Form("json_object"))))) == {"hello": "world"}
    told = [Said("text", "system", "Answer in JSON."), *asked()]
    assert json.loads(said(obliging(Seen(told)))) == {"hello": "world"}


def test_it_compacts_what_has_to_be_compacted() -> None:
    [part] = obliging(Seen(asked(), compacts=True)).parts
    assert isinstance(part, Item)
    assert part.value["type"] == "compaction"
    text, beside = obliging(Seen(asked(), compacts_too=True)).parts
    assert isinstance(text, Text)
    assert beside == part


def test_other_tools_than_functions_are_called_in_their_own_way() -> None:
    custom = calling(Offered("run", kind="custom"))
    assert custom == CustomCall("run", ("Ada",), "call_run_0")
    search = calling(Offered("tool_search", schema=SCHEMA, kind="search"), number=2)
    assert isinstance(search, Item)
    assert search.value == {
        "type": "tool_search_call",
        "call_id": "call_tool_search_2",
        "execution": "client",
        "arguments": {"place": "Ada"},
    }
    inner = calling(Offered("list", namespace="docs"))
    assert isinstance(inner, Item)
    assert (inner.value["namespace"], inner.value["name"], inner.value["arguments"]) == ("docs", "list", "{}")


def test_a_custom_tool_is_told_a_text_whatever_it_is_known_as() -> None:
    words = 'print("a")'
    custom = telling(Offered("run", kind="custom"), words)
    assert isinstance(custom, CustomCall)
    assert "".join(custom.pieces) == words
    _, name, arguments = called(telling(LOOK, words))
    assert (name, json.loads(arguments)) == ("look", {"place": words})

import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.toolbox import Target, Toolbox
from rejoinder.bridge.turns import (
    CALLS,
    MAX_REORDERINGS,
    OUTPUTS,
    Audio,
    CallPart,
    File,
    Image,
    Refusal,
    Result,
    Text,
    Thought,
    Turn,
    call_id_of,
    leading,
    mark_of,
    pieces,
    turns,
)
from rejoinder.wire.items import CacheBreakpoint, Item, Part
from tests.bridge.prompts import Fields, assistant, call, function, item, output, toolbox, user

TOOLS: list[Fields] = [
    function("f"),
    {"type": "namespace", "name": "files", "tools": [function("read"), {"type": "custom", "name": "write"}]},
    {"type": "custom", "name": "free"},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client"},
]


def told(
    *said: Fields, box: Toolbox | None = None, opened: Mapping[str, Envelope] | None = None
) -> list[tuple[str, list[object]]]:
    found = turns([Item.parse(json.dumps(fields).encode()) for fields in said], box or toolbox(TOOLS), opened or {})
    return [(turn.role, list(turn.parts)) for turn in found]


FULL: list[tuple[Fields, tuple[str, list[object]]]] = [
    ({"role": "system", "content": "a"}, ("system", [Text("a")])),
    ({"role": "developer", "content": [{"type": "input_text", "text": "b"}]}, ("system", [Text("b")])),
    (user("c"), ("user", [Text("c")])),
    (user(""), ("user", [Text("")])),
    (
        {"type": "agent_message", "author": "/root", "recipient": "/root/a", "content": "go"},
        ("user", [Text("Message from /root to /root/a:"), Text("go")]),
    ),
    (
        {
            "type": "agent_message",
            "author": "a",
            "recipient": "b",
            "content": [{"type": "encrypted_content", "encrypted_content": "plain"}],
        },
        ("user", [Text("Message from a to b:"), Text("plain")]),
    ),
    (
        assistant(
            [
                {"type": "output_text", "text": "d"},
                {"type": "output_text", "text": ""},
                {"type": "refusal", "refusal": "no"},
            ]
        ),
        ("assistant", [Text("d"), Refusal("no")]),
    ),
    (
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
        ("assistant", [Thought("s", None)]),
    ),
    (call("1", arguments="{ }"), ("assistant", [CallPart("1", "f", "{ }")])),
    (call("1", "undeclared", ""), ("assistant", [CallPart("1", "undeclared", "")])),
    ({**call("1", "read"), "namespace": "files"}, ("assistant", [CallPart("1", "files__read", "{}")])),
    (
        {"type": "custom_tool_call", "call_id": "1", "name": "free", "input": 'a "b"\n'},
        ("assistant", [CallPart("1", "free", '{"input":"a \\"b\\"\\n"}')]),
    ),
    (
        {"type": "custom_tool_call", "call_id": "1", "name": "write", "namespace": "files", "input": ""},
        ("assistant", [CallPart("1", "files__write", '{"input":""}')]),
    ),
    (
        {
            "type": "local_shell_call",
            "call_id": "1",
            "action": {"type": "exec", "command": ["ls"], "env": {}, "user": None},
        },
        ("assistant", [CallPart("1", "local_shell", '{"command":["ls"]}')]),
    ),
    (
        {
            "type": "local_shell_call",
            "call_id": "1",
            "action": {
                "type": "exec",
                "command": ["ls"],
                "env": {"A": "1"},
                "timeout_ms": 5,
                "user": "me",
                "working_directory": "/",
            },
        },
        (
            "assistant",
            [
                CallPart(
                    "1",
                    "local_shell",
                    '{"command":["ls"],"env":{"A":"1"},"timeout_ms":5,"user":"me","working_directory":"/"}',
                )
            ],
        ),
    ),
    (
        {
            "type": "shell_call",
            "call_id": "1",
            "action": {"commands": ["ls", "pwd"], "timeout_ms": 5, "max_output_length": None},
        },
        ("assistant", [CallPart("1", "shell", '{"commands":["ls","pwd"],"timeout_ms":5}')]),
    ),
    (
        {"type": "apply_patch_call", "call_id": "1", "operation": {"type": "create_file", "path": "a", "diff": "+x"}},
        ("assistant", [CallPart("1", "apply_patch", '{"type":"create_file","path":"a","diff":"+x"}')]),
    ),
    (
        {"type": "tool_search_call", "call_id": "1", "arguments": {"query": "x"}},
        ("assistant", [CallPart("1", "tool_search", '{"query": "x"}')]),
    ),
    (output("1"), ("tool", [Result("1", (Text("done"),))])),
    (output("1", []), ("tool", [Result("1", ())])),
    (
        output("1", [{"type": "input_text", "text": "t"}, {"type": "input_image", "image_url": "https://a.test"}]),
        ("tool", [Result("1", (Text("t"), Image("https://a.test", None, None)))]),
    ),
    (
        {"type": "custom_tool_call_output", "call_id": "1", "output": "x"},
        ("tool", [Result("1", (Text("x"),))]),
    ),
    (
        {"type": "custom_tool_call_output", "call_id": "1", "output": "x", "status": "incomplete"},
        ("tool", [Result("1", (Text("x"),), True)]),
    ),
    ({**output("1"), "status": "incomplete"}, ("tool", [Result("1", (Text("done"),), True)])),
    ({**output("1"), "status": "completed"}, ("tool", [Result("1", (Text("done"),), False)])),
    ({"type": "local_shell_call_output", "id": "1", "output": "{}"}, ("tool", [Result("1", (Text("{}"),))])),
    (
        {
            "type": "shell_call_output",
            "call_id": "1",
            "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
        ("tool", [Result("1", (Text('[{"stdout":"a","stderr":"","outcome":{"type":"exit","exit_code":0}}]'),))]),
    ),
    (
        {"type": "apply_patch_call_output", "call_id": "1", "status": "failed", "output": "why"},
        ("tool", [Result("1", (Text("why"),), True)]),
    ),
    (
        {"type": "apply_patch_call_output", "call_id": "1", "status": "completed"},
        ("tool", [Result("1", (Text("completed"),))]),
    ),
    (
        {"type": "tool_search_output", "call_id": "1", "tools": [{"type": "function", "name": "g"}]},
        ("tool", [Result("1", (Text('[{"type": "function", "name": "g"}]'),))]),
    ),
    (
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"},
        ("user", [Text("[the picture the assistant made]"), Image("data:image/png;base64,AAAA", None, None)]),
    ),
    (
        {"type": "image_generation_call", "id": "ig_1", "result": "AAAA", "output_format": "webp"},
        ("user", [Text("[the picture the assistant made]"), Image("data:image/webp;base64,AAAA", None, None)]),
    ),
]


@pytest.mark.parametrize(("said", "turn"), FULL)
def test_every_item_is_said_in_neutral_words(said: Fields, turn: tuple[str, list[object]]) -> None:
    assert told(said) == [turn]


@pytest.mark.parametrize(
    "said",
    [
        {"type": "tool_search_call", "call_id": None, "arguments": {}},
        {"type": "tool_search_output", "call_id": None, "tools": []},
        {"type": "additional_tools", "role": "developer", "tools": []},
        {"type": "configuration_update", "reasoning": {"effort": "low"}},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "image_generation_call", "id": "ig_1", "status": "failed", "result": None},
        assistant(""),
        assistant([]),
        user([]),
    ],
)
def test_what_has_nothing_to_say_is_no_turn(said: Fields) -> None:
    assert told(said) == []
    assert told(assistant("a"), said, assistant("b")) == [("assistant", [Text("a"), Text("b")])]


@pytest.mark.parametrize(
    "said",
    [
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "compaction_trigger"},
        {"type": "acme:thing"},
        {"type": "program"},
    ],
)
def test_an_item_no_dialect_can_say_is_refused_by_its_type(said: Fields) -> None:
    with pytest.raises(Unsupported) as caught:
        told(said)
    assert str(caught.value) == f"item type '{said['type']}' cannot be sent to this upstream"
    assert (caught.value.param, caught.value.code) == ("input", "invalid_value")


@pytest.mark.parametrize("said", [{"id": "msg_1"}, {"type": "function_call_output", "name": "f", "output": "x"}])
def test_what_lineage_should_have_resolved_does_not_get_here(said: Fields) -> None:
    with pytest.raises(AssertionError, match="lineage pairs every output and resolves every reference"):
        told(said)


def test_a_run_of_one_role_is_one_turn_but_messages_of_users_stay_apart() -> None:
    thought = {"type": "reasoning", "summary": []}
    said = [
        {"role": "system", "content": "1"},
        {"role": "developer", "content": "2"},
        user("3"),
        user("4"),
        thought,
        assistant("5"),
        call("a"),
        thought,
        call("b"),
        output("a"),
        output("b"),
        assistant("6"),
        thought,
    ]
    assert told(*said) == [
        ("system", [Text("1")]),
        ("system", [Text("2")]),
        ("user", [Text("3")]),
        ("user", [Text("4")]),
        (
            "assistant",
            [Thought("", None), Text("5"), CallPart("a", "f", "{}"), Thought("", None), CallPart("b", "f", "{}")],
        ),
        ("tool", [Result("a", (Text("done"),)), Result("b", (Text("done"),))]),
        ("assistant", [Text("6"), Thought("", None)]),
    ]


def test_reasoning_goes_back_only_where_it_was_opened() -> None:
    envelope = Envelope(Issuer("chat", "e", "m"))
    ours = {"type": "reasoning", "encrypted_content": "ours", "summary": []}
    other = {"type": "reasoning", "encrypted_content": "other", "content": [{"type": "reasoning_text", "text": "t"}]}
    assert told(ours, other, opened={"ours": envelope}) == [("assistant", [Thought("", envelope), Thought("t", None)])]


MARK = CacheBreakpoint("explicit", "12h")
CONTENT = [
    (Part("input_text", text="a"), Text("a")),
    (Part("output_text", text="a"), Text("a")),
    (Part("text", text="a"), Text("a")),
    (Part("summary_text", text="a"), Text("a")),
    (Part("reasoning_text", text="a"), Text("a")),
    (Part("refusal", refusal="a"), Refusal("a")),
    (Part("encrypted_content", encrypted_content="a"), Text("a")),
    (Part("input_image", image_url="u", detail="low"), Image("u", None, "low")),
    (Part("input_image", file_id="f"), Image(None, "f", None)),
    (Part("image", image_url="u"), Image("u", None, None)),
    (Part("computer_screenshot", image_url="u"), Image("u", None, None)),
    (Part("input_file", file_data="d", filename="n"), File("d", None, None, "n")),
    (Part("input_file", file_id="f", file_url="u"), File(None, "f", "u", None)),
    (Part("input_text", text="a", prompt_cache_breakpoint=MARK), Text("a", MARK)),
    (Part("input_image", image_url="u", prompt_cache_breakpoint=MARK), Image("u", None, None, MARK)),
    (Part("input_file", file_data="d", prompt_cache_breakpoint=MARK), File("d", None, None, None, MARK)),
]


def test_every_part_is_said_in_neutral_words() -> None:
    assert pieces("text") == (Text("text"),)
    assert pieces(tuple(part for part, _ in CONTENT)) == tuple(piece for _, piece in CONTENT)
    audio = item(role="user", content=[{"type": "input_audio", "input_audio": {"data": "A", "format": "mp3"}}])
    assert [turn.parts for turn in turns([audio], toolbox(), {})] == [[Audio("A", "mp3")]]


def test_a_part_of_an_unknown_type_is_refused_by_its_type() -> None:
    with pytest.raises(Unsupported) as caught:
        pieces((Part("input_text", text="a"), Part("hologram")))
    assert str(caught.value) == "content part type 'hologram' cannot be sent to this upstream"
    assert (caught.value.param, caught.value.code) == ("input", "invalid_value")


def test_a_call_id_is_read_from_where_each_item_has_it() -> None:
    ids = {str(said.get("type")): call_id_of(Item.parse(json.dumps(said).encode())) for said, _ in FULL}
    assert {kind for kind, call_id in ids.items() if call_id == "1"} == CALLS | OUTPUTS
    assert {call_id for kind, call_id in ids.items() if kind not in CALLS | OUTPUTS} == {None}
    assert call_id_of(item(type="tool_search_call", call_id=None, arguments={})) is None


def order(*said: Fields) -> list[str]:
    """The turns, in short: `a` calls, `A` answers, everything else by its text."""
    found = []
    for turn in turns([Item.parse(json.dumps(fields).encode()) for fields in said], toolbox(TOOLS), {}):
        found.append(" ".join(short(part) for part in turn.parts))
    return found


def short(part: object) -> str:
    match part:
        case CallPart(call_id=call_id):
            return call_id
        case Result(call_id=call_id):
            return call_id.upper()
        case Text(text=text):
            return text
        case _:
            return "?"


@pytest.mark.parametrize(
    ("said", "turned"),
    [
        # Outputs directly after their calls, whatever order they come in (mapping.md §2, grouping).
        ([call("a"), output("a"), call("b"), output("b")], ["a", "A", "b", "B"]),
        ([call("a"), call("b"), output("b"), output("a")], ["a b", "B A"]),
        ([call("a"), call("b"), output("a"), call("c"), output("b"), output("c")], ["a b", "A B", "c", "C"]),
        ([call("a"), call("b"), output("a"), call("c"), output("c"), output("b")], ["a b", "A B", "c", "C"]),
        # Messages wait until the calls before them are answered.
        ([call("a"), user("hi"), output("a")], ["a", "A", "hi"]),
        ([call("a"), {"role": "system", "content": "hi"}, output("a")], ["a", "A", "hi"]),
        ([call("a"), call("b"), output("a"), assistant("so"), output("b")], ["a b", "A B", "so"]),
        # What the model said beside its calls belongs to the same turn.
        ([call("a"), assistant("so"), call("b"), output("a"), output("b")], ["a so b", "A B"]),
        # What waits may hold calls that are answered in the meantime.
        (
            [call("a"), user("1"), call("b"), user("2"), output("b"), output("a"), user("3")],
            ["a b", "B A", "1", "2", "3"],
        ),
        (
            [call("a"), call("a2"), output("a"), user("1"), call("a"), output("a"), output("a2")],
            ["a a2", "A A2", "1", "a", "A"],
        ),
    ],
)
def test_results_come_directly_after_the_calls_of_their_turn(said: list[Fields], turned: list[str]) -> None:
    assert order(*said) == turned


def test_an_agents_message_waits_like_a_users() -> None:
    message = {"type": "agent_message", "author": "x", "recipient": "y", "content": "hi"}
    assert order(call("a"), message, output("a")) == ["a", "A", "Message from x to y: hi"]


def test_a_picture_waits_like_a_message_of_the_user() -> None:
    picture = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"}
    said = "[the picture the assistant made] ?"
    assert order(call("a"), picture, call("b"), output("a"), output("b")) == ["a b", "A B", said]
    assert order(picture, call("a"), output("a")) == [said, "a", "A"]


SEARCH: Fields = {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {"query": "x"}}
FOUND: Fields = {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": [function("g")]}


def test_a_search_a_server_ran_is_a_call_of_the_search_and_its_result() -> None:
    box = toolbox([{"type": "tool_search"}, function("tool_search")])
    found = Text('[{"type": "function", "name": "g"}]')
    name = box.name_of(Target("server_search", "tool_search"))
    assert told(SEARCH, FOUND, assistant("so"), SEARCH, FOUND, box=box) == [
        ("assistant", [CallPart("search_1", name, '{"query": "x"}')]),
        ("tool", [Result("search_1", (found,))]),
        ("assistant", [Text("so"), CallPart("search_2", name, '{"query": "x"}')]),
        ("tool", [Result("search_2", (found,))]),
    ]
    assert box.offers(name)


@pytest.mark.parametrize(
    ("said", "turned"),
    [
        ([FOUND, user("hi")], ["hi"]),
        ([SEARCH, user("hi")], ["hi"]),
        ([FOUND, SEARCH, FOUND, SEARCH], ["search_1", "SEARCH_1"]),
        ([SEARCH, SEARCH, FOUND], ["search_1", "SEARCH_1"]),
        ([SEARCH, SEARCH, FOUND, FOUND], ["search_1 search_2", "SEARCH_1 SEARCH_2"]),
        ([call("a"), SEARCH, FOUND, output("a")], ["a search_1", "A SEARCH_1"]),
    ],
)
def test_half_a_search_of_a_server_is_not_said(said: list[Fields], turned: list[str]) -> None:
    assert order(*said) == turned


def test_a_call_nobody_answers_keeps_what_waits_for_it() -> None:
    assert order(call("a"), user("1"), user("2")) == ["a", "1", "2"]


def test_a_conversation_can_be_put_in_order_only_so_often() -> None:
    said = [one for number in range(MAX_REORDERINGS) for one in (call(f"{number}"), user("x"), output(f"{number}"))]
    assert len(order(*said)) == 3 * MAX_REORDERINGS
    with pytest.raises(Unsupported) as caught:
        order(*said, call("a"), user("x"), output("a"))
    assert (str(caught.value), caught.value.param) == ("calls and their outputs are too far out of order", "input")


@st.composite
def paired_stories(draw: st.DrawFn) -> list[Fields]:
    """Calls that are all answered, with anything in between."""
    said: list[Fields] = []
    waiting: list[str] = []
    for number in range(draw(st.integers(0, 12))):
        what = draw(st.sampled_from(["call", "output", "user", "assistant"]))
        if what == "call":
            waiting.append(f"c{number}")
            said.append(call(waiting[-1]))
        elif what == "output" and waiting:
            said.append(output(waiting.pop(draw(st.integers(0, len(waiting) - 1)))))
        else:
            said.append(user(f"u{number}") if what == "user" else assistant(f"t{number}"))
    return [*said, *(output(call_id) for call_id in draw(st.permutations(waiting)))]


@given(paired_stories())
def test_any_paired_story_keeps_everything_and_every_result_beside_its_call(said: Sequence[Fields]) -> None:
    found = turns([Item.parse(json.dumps(fields).encode()) for fields in said], toolbox(TOOLS), {})
    assert sum(len(turn.parts) for turn in found) == len(said)
    waiting: list[str] = []
    for turn in found:
        if turn.role == "tool":
            assert sorted(part.call_id for part in turn.parts if isinstance(part, Result)) == sorted(waiting)
            waiting = []
        else:
            assert not waiting
            waiting = [part.call_id for part in turn.parts if isinstance(part, CallPart)]
    assert not waiting
    messages = [short(part) for turn in found for part in turn.parts if isinstance(part, Text) and turn.role == "user"]
    assert messages == [fields["content"] for fields in said if fields.get("role") == "user"]


def test_a_turn_owns_its_parts() -> None:
    said = [item(**assistant("a")), item(**assistant("b"))]
    first, second = turns(said, toolbox(), {}), turns(said, toolbox(), {})
    assert first == second == [Turn("assistant", [Text("a"), Text("b")])]
    assert first[0].parts is not second[0].parts


def test_the_turns_of_the_system_before_every_other_one_are_counted() -> None:
    system, spoken = Turn("system", [Text("a")]), Turn("user", [Text("b")])

    assert [leading(said) for said in ([], [spoken, system], [system, system], [system, system, spoken, system])] == [
        0,
        0,
        2,
        2,
    ]


def test_a_turn_of_the_system_is_text_and_nothing_else() -> None:
    said = Turn("system", [Text("a"), Refusal("no"), Text("")])

    assert said.pieces == said.texts == said.parts
    assert said.text == "a\n\nno\n\n"
    with pytest.raises(Unsupported, match="may hold text only") as caught:
        _ = Turn("system", [Text("a"), Audio("", "wav")]).text
    assert caught.value.param == "input"


def test_some_pieces_may_be_marked_for_the_cache() -> None:
    mark = CacheBreakpoint("explicit")

    marked = (Text("a", mark), Image(None, None, None, mark), File(None, None, None, None, mark))
    assert [mark_of(piece) for piece in marked] == [mark] * 3
    assert [mark_of(piece) for piece in (Text("a"), Audio("", "wav"), Refusal("no"), Thought("", None))] == [None] * 4

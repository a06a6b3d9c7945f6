from collections.abc import Sequence

import pytest

from rejoinder.bridge.calls import CheckedCall, HeldCall, LeftOut, not_matching, writer_for
from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.toolbox import Target
from rejoinder.wire.responses import ItemStatus
from rejoinder.wire.tools import Grammar
from tests.bridge.composing import TOOLS, composer, told
from tests.bridge.prompts import Fields, function, toolbox

FUNCTION = Target("function", "read", "files")
ADDED, DONE = "response.output_item.added", "response.output_item.done"


def written(target: Target, pieces: Sequence[str], status: ItemStatus = "completed") -> list[Fields]:
    out = composer()
    writer = writer_for(target, "call_x", out)
    assert writer.is_open is (target.kind in ("function", "custom"))
    for piece in pieces:
        writer.arguments(piece)
    writer.close(status)
    return told(out)


def test_a_function_call_streams_its_arguments_as_they_come() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_x", "name": "read", "namespace": "files"}
    place = {"item_id": "fc_1", "output_index": 0}
    delta = "response.function_call_arguments.delta"
    assert written(FUNCTION, ['{"a', "", '":1}']) == [
        {"type": ADDED, "output_index": 0, "item": {**item, "status": "in_progress", "arguments": ""}},
        {"type": delta, **place, "delta": '{"a'},
        {"type": delta, **place, "delta": '":1}'},
        {"type": "response.function_call_arguments.done", **place, "name": "read", "arguments": '{"a":1}'},
        {"type": DONE, "output_index": 0, "item": {**item, "status": "completed", "arguments": '{"a":1}'}},
    ]


def test_a_function_without_arguments_is_called_with_none() -> None:
    plain = Target("function", "f")
    _, delta, done, item = written(plain, [])
    assert (delta["delta"], done["arguments"]) == ("{}", "{}")
    assert item["item"] == {
        "type": "function_call",
        "id": "fc_1",
        "status": "completed",
        "call_id": "call_x",
        "name": "f",
        "arguments": "{}",
    }


def test_a_function_call_that_was_cut_says_what_came() -> None:
    assert [event.get("arguments") for event in written(FUNCTION, [], "incomplete")] == [None, "", None]
    *_, done, item = written(FUNCTION, ['{"a'], "incomplete")
    assert done["arguments"] == '{"a'
    assert item["item"] == {
        "type": "function_call",
        "id": "fc_1",
        "status": "incomplete",
        "call_id": "call_x",
        "name": "read",
        "arguments": '{"a',
        "namespace": "files",
    }


def test_a_free_form_call_streams_the_text_inside_its_arguments() -> None:
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_x", "name": "write", "namespace": "files"}
    place = {"item_id": "ctc_1", "output_index": 0}
    delta = "response.custom_tool_call_input.delta"
    assert written(Target("custom", "write", "files"), ['{"inp', 'ut":"a\\', 'nb"', "}"]) == [
        {"type": ADDED, "output_index": 0, "item": {**item, "status": "in_progress", "input": ""}},
        {"type": delta, **place, "delta": "a"},
        {"type": delta, **place, "delta": "\nb"},
        {"type": "response.custom_tool_call_input.done", **place, "input": "a\nb"},
        {"type": DONE, "output_index": 0, "item": {**item, "status": "completed", "input": "a\nb"}},
    ]


def test_a_free_form_call_with_bare_text_says_it_at_the_end() -> None:
    free = Target("custom", "free")
    _, delta, done, item = written(free, ["*** Begin", " Patch"])
    assert (delta["delta"], done["input"]) == ("*** Begin Patch",) * 2
    assert item["item"] == {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "status": "completed",
        "call_id": "call_x",
        "name": "free",
        "input": "*** Begin Patch",
    }
    assert [event.get("input") for event in written(free, [])] == [None, "", None]


WHOLE: list[tuple[Target, str, str, Fields]] = [
    (
        Target("local_shell", "local_shell"),
        '{"command":["ls","-l"]}',
        "lsh_1",
        {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls", "-l"], "env": {}}},
    ),
    (
        Target("local_shell", "local_shell"),
        '{"command":[],"env":{"A":"1"},"timeout_ms":5,"user":"me","working_directory":"/","why":"because"}',
        "lsh_1",
        {
            "type": "local_shell_call",
            "action": {
                "type": "exec",
                "command": [],
                "env": {"A": "1"},
                "timeout_ms": 5,
                "user": "me",
                "working_directory": "/",
            },
        },
    ),
    (
        Target("apply_patch", "apply_patch"),
        '{"type":"update_file","path":"a","diff":"-x\\n+y"}',
        "apc_1",
        {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "a", "diff": "-x\n+y"}},
    ),
    (
        Target("apply_patch", "apply_patch"),
        '{"type":"create_file","path":"a"}',
        "apc_1",
        {"type": "apply_patch_call", "operation": {"type": "create_file", "path": "a", "diff": ""}},
    ),
    (
        Target("apply_patch", "apply_patch"),
        '{"type":"delete_file","path":"a","diff":"x"}',
        "apc_1",
        {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
    ),
    (
        Target("tool_search", "tool_search"),
        '{"query":"x","limit": 3}',
        "tsc_1",
        {"type": "tool_search_call", "arguments": {"query": "x", "limit": 3}, "execution": "client"},
    ),
    (
        Target("tool_search", "tool_search"),
        "",
        "tsc_1",
        {"type": "tool_search_call", "arguments": {}, "execution": "client"},
    ),
]


@pytest.mark.parametrize(("target", "arguments", "item_id", "item"), WHOLE)
@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_call_without_deltas_comes_whole(
    target: Target, arguments: str, item_id: str, item: Fields, status: ItemStatus
) -> None:
    whole = {"id": item_id, "call_id": "call_x", **item}
    assert written(target, list(arguments), status) == [
        {"type": ADDED, "output_index": 0, "item": {**whole, "status": "in_progress"}},
        {"type": DONE, "output_index": 0, "item": {**whole, "status": status}},
    ]


def test_a_shell_call_tells_its_commands_one_by_one() -> None:
    item = {"type": "shell_call", "id": "sh_1", "call_id": "call_x"}
    begun = {**item, "status": "in_progress", "action": {"commands": [], "timeout_ms": 5, "max_output_length": 9}}
    done = {**item, "status": "completed", "action": {**begun["action"], "commands": ["ls", ""]}}  # type: ignore[dict-item]  # a dict by construction
    assert written(Target("shell", "shell"), ['{"commands":["ls",""],"timeout_ms":5,', '"max_output_length":9}']) == [
        {"type": ADDED, "output_index": 0, "item": begun},
        {"type": "response.shell_call_command.added", "output_index": 0, "command_index": 0, "command": ""},
        {"type": "response.shell_call_command.delta", "output_index": 0, "command_index": 0, "delta": "ls"},
        {"type": "response.shell_call_command.done", "output_index": 0, "command_index": 0, "command": "ls"},
        {"type": "response.shell_call_command.added", "output_index": 0, "command_index": 1, "command": ""},
        {"type": "response.shell_call_command.delta", "output_index": 0, "command_index": 1, "delta": ""},
        {"type": "response.shell_call_command.done", "output_index": 0, "command_index": 1, "command": ""},
        {"type": DONE, "output_index": 0, "item": done},
    ]


MISFITS = [
    ("local_shell", '{"command":"ls"}'),
    ("local_shell", ""),
    ("shell", '{"commands":["ls"]'),
    ("apply_patch", '{"type":"rename_file","path":"a"}'),
    ("apply_patch", '{"path":"a"}'),
    ("tool_search", '["x"]'),
    ("tool_search", "{}{}"),
]


@pytest.mark.parametrize(("kind", "arguments"), MISFITS)
def test_arguments_that_are_not_those_of_the_tool_are_the_models_error(kind: str, arguments: str) -> None:
    out = composer()
    writer = writer_for(out_target(kind), "call_x", out)
    writer.arguments(arguments)
    with pytest.raises(UpstreamError, match=f"the model called '{kind}' with arguments that do not fit the tool: "):
        writer.close("completed")
    assert told(out) == []


@pytest.mark.parametrize(("kind", "arguments"), MISFITS)
def test_a_call_cut_off_before_it_meant_anything_was_never_there(kind: str, arguments: str) -> None:
    assert written(out_target(kind), [arguments], "incomplete") == []


def out_target(kind: str) -> Target:
    target = toolbox(TOOLS).target_of(kind)
    assert target.name == kind
    return target


@pytest.mark.parametrize(("kind", "arguments"), [("local_shell", '{"command":["ls"]}'), ("tool_search", "{} \n")])
def test_a_whole_call_takes_its_place_when_something_else_begins(kind: str, arguments: str) -> None:
    out = composer()
    writer = writer_for(out_target(kind), "call_x", out)
    writer.arguments(arguments)
    writer.settle()
    assert writer.is_open
    assert [event["type"] for event in told(out)] == [ADDED, DONE]
    writer.arguments("\n")
    writer.settle()
    writer.close("completed")
    assert told(out) == []


@pytest.mark.parametrize("arguments", ["", '{"command":', '{"command":[{}', '{"command":5}'])
def test_a_call_that_is_not_whole_waits(arguments: str) -> None:
    out = composer()
    writer = writer_for(out_target("local_shell"), "call_x", out)
    writer.arguments(arguments)
    writer.settle()
    assert not writer.is_open
    assert told(out) == []


@pytest.mark.parametrize("target", [FUNCTION, Target("custom", "free")])
def test_a_call_that_streams_has_its_place_already(target: Target) -> None:
    out = composer()
    writer = writer_for(target, "call_x", out)
    assert [event["type"] for event in told(out)] == [ADDED]
    writer.settle()
    assert told(out) == []


LETTERS = Target("custom", "letters", "n")
GRAMMAR = Grammar("grammar", "regex", "[a-c]+")
WRONG = not_matching("letters", "line 1 leaves the grammar at 'd'")


@pytest.mark.parametrize(
    ("text", "status", "notes"),
    [
        ("abc", "completed", []),
        ("abd", "completed", [WRONG]),
        ("", "completed", [not_matching("letters", "it ends before the grammar does")]),
        ("abd", "incomplete", []),
    ],
)
def test_a_text_that_does_not_match_its_grammar_reaches_the_client_with_a_note(
    text: str, status: ItemStatus, notes: list[str]
) -> None:
    out = composer()
    call = CheckedCall(LETTERS, "call_x", out, GRAMMAR)
    assert call.is_open
    call.arguments(f'{{"input":"{text}"}}')
    call.close(status)
    assert out.notes == notes
    written_plainly = written(LETTERS, [f'{{"input":"{text}"}}'], status)
    assert told(out) == written_plainly


@pytest.mark.parametrize("status", ["completed", "incomplete"])
@pytest.mark.parametrize("pieces", [['{"inp', 'ut":"ab', 'd"}'], ["ab", "d"]])
def test_a_call_that_is_held_back_comes_whole_at_its_end(status: ItemStatus, pieces: list[str]) -> None:
    out = composer()
    call = HeldCall(LETTERS, "call_x", out, GRAMMAR)
    assert not call.is_open
    for piece in pieces:
        call.arguments(piece)
    assert told(out) == []
    assert (call.text, call.wrong) == ("abd", "line 1 leaves the grammar at 'd'")
    call.close(status)
    assert call.is_open
    assert told(out) == written(LETTERS, ["".join(pieces)], status)
    assert out.notes == ([WRONG] if status == "completed" else [])
    call.settle()
    call.close(status)
    assert told(out) == []


def test_a_call_that_is_held_back_and_matches_has_no_note() -> None:
    out = composer()
    call = HeldCall(LETTERS, "call_x", out, GRAMMAR)
    call.arguments('{"input":"abc"}')
    assert call.wrong is None
    call.close("completed")
    assert out.notes == []


def test_a_call_that_is_held_back_takes_its_place_when_it_is_whole_and_something_follows() -> None:
    out = composer()
    call = HeldCall(LETTERS, "call_x", out, GRAMMAR)
    for piece in ("", '{"input":', '"ab'):
        call.arguments(piece)
        call.settle()
        assert not call.is_open
    call.arguments('c"}')
    call.settle()
    assert call.is_open
    *_, done = told(out)
    assert done["item"] == {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "status": "completed",
        "call_id": "call_x",
        "name": "letters",
        "input": "abc",
        "namespace": "n",
    }


FLIGHT = function("find_flights", description="Finds a flight.", defer_loading=True)


@pytest.mark.parametrize(
    ("arguments", "query", "found"),
    [('{"query":"a flight"}', "a flight", [FLIGHT]), ('{"query":"hotels"}', "hotels", []), ("", "", [])],
)
@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_search_that_is_ours_to_run_comes_with_what_it_found(
    arguments: str, query: str, found: list[Fields], status: ItemStatus
) -> None:
    out = composer(toolbox([{"type": "tool_search"}, FLIGHT]))
    writer = writer_for(Target("server_search", "tool_search"), "call_x", out)
    writer.arguments(arguments)
    assert not writer.is_open
    writer.close(status)
    call = {"type": "tool_search_call", "id": "tsc_1", "call_id": None, "arguments": {"query": query}}
    output = {"type": "tool_search_output", "id": "tso_2", "call_id": None, "tools": found}
    assert told(out) == [
        {"type": ADDED, "output_index": 0, "item": {**call, "status": "in_progress", "execution": "server"}},
        {"type": DONE, "output_index": 0, "item": {**call, "status": "completed", "execution": "server"}},
        {"type": ADDED, "output_index": 1, "item": {**output, "status": "in_progress", "execution": "server"}},
        {"type": DONE, "output_index": 1, "item": {**output, "status": "completed", "execution": "server"}},
    ]


def test_a_call_that_is_left_out_says_nothing() -> None:
    call = LeftOut()
    call.arguments("{}")
    call.settle()
    call.close("completed")
    assert call.is_open

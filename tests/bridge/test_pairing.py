import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.pairing import Paired, paired, unanswered
from rejoinder.bridge.turns import call_id_of
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import FunctionCallOutput, Item, kept
from tests.bridge.prompts import Fields, assistant, call, item, output, user

CALLS: dict[str, tuple[Fields, Fields, str]] = {
    "function_call": (call("c"), output("c"), "function call"),
    "custom_tool_call": (
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
        "custom tool call",
    ),
    "local_shell_call": (
        {"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": {"type": "exec", "command": []}},
        {"type": "local_shell_call_output", "id": "c", "output": "x"},
        "local shell call",
    ),
    "shell_call": (
        {"type": "shell_call", "call_id": "c", "action": {"commands": []}},
        {"type": "shell_call_output", "call_id": "c", "output": []},
        "shell call",
    ),
    "apply_patch_call": (
        {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "apply_patch_call_output", "call_id": "c", "status": "completed"},
        "apply patch call",
    ),
    "tool_search_call": (
        {"type": "tool_search_call", "call_id": "c", "arguments": {}},
        {"type": "tool_search_output", "call_id": "c", "tools": []},
        "tool search call",
    ),
}


def items(*said: Fields) -> list[Item]:
    return [Item.parse(json.dumps(fields).encode()) for fields in said]


def pair(past: Sequence[Fields], coming: Sequence[Fields]) -> Paired:
    return paired(items(*past), items(*coming))


def refused(past: Sequence[Fields], coming: Sequence[Fields]) -> str:
    with pytest.raises(BadRequest) as caught:
        pair(past, coming)
    assert caught.value.param == "input"
    return str(caught.value)


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_and_its_output_find_each_other(kind: str) -> None:
    asked, answered, _ = CALLS[kind]
    for past, coming in ([asked], [answered]), ([], [asked, user("wait"), answered]), ([asked, answered], []):
        found = pair(past, coming)
        assert [item.raw for item in found.items] == [item.raw for item in items(*past, *coming)]
        assert found.call_ids == {"c"}


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_without_an_output_is_named(kind: str) -> None:
    asked, answered, words = CALLS[kind]
    assert refused([asked], []) == f"No tool output found for {words} c."
    assert refused([], [asked, user("never mind")]) == f"No tool output found for {words} c."
    assert refused([], [answered, asked]) == f"No tool call found for {words} output with call_id c."


@pytest.mark.parametrize("kind", CALLS)
def test_an_output_without_a_call_is_named(kind: str) -> None:
    asked, answered, words = CALLS[kind]
    assert refused([user("hi")], [answered]) == f"No tool call found for {words} output with call_id c."
    again = f"The {words} with call_id c is answered already: one output for each call."
    assert refused([asked], [answered, answered]) == again
    assert refused([asked, answered], [answered]) == again


def test_every_call_of_an_answer_wants_its_own_output_in_any_order() -> None:
    past = [user("hi"), call("a"), call("b"), call("c")]
    found = pair(past, [output("c"), user("x"), output("a"), output("b")])
    assert found.call_ids == {"a", "b", "c"}
    assert refused(past, [output("c"), output("a")]) == "No tool output found for function call b."
    assert refused(past, [user("x")]) == "No tool output found for function call a."


def test_a_call_id_comes_back_only_after_its_answer() -> None:
    found = pair([call("call_0"), output("call_0")], [call("call_0"), output("call_0")])
    assert len(found.items) == 4
    assert refused([call("a")], [call("a"), output("a")]) == (
        "Duplicate call with call_id a: the first one is not answered yet."
    )


def test_a_search_the_server_ran_itself_needs_nothing() -> None:
    searched: Fields = {"type": "tool_search_call", "call_id": None, "arguments": {}, "execution": "server"}
    found: Fields = {"type": "tool_search_output", "call_id": None, "tools": [], "execution": "server"}
    assert pair([searched, found], [found, searched]).call_ids == set()


def test_an_output_without_a_call_id_answers_the_open_call_of_its_name() -> None:
    coming = [{"type": "function_call_output", "name": "g", "output": "x", "new": 1}, output("a")]
    found = pair([call("a", "f"), call("b", "g"), call("c", "g")], [*coming, output("c")])
    named = found.items[3]
    assert named.raw == b'{"type":"function_call_output","name":"g","output":"x","new":1,"call_id":"b"}'
    assert named.view == FunctionCallOutput("x", "b", "g")


def test_an_output_named_in_the_past_is_found_again_in_every_turn() -> None:
    past = [call("a"), {"type": "function_call_output", "name": "f", "output": "x"}]
    found = pair(past, [user("go on")])
    assert found.items[1].view == FunctionCallOutput("x", "a", "f")
    assert found.call_ids == {"a"}


@pytest.mark.parametrize("name", ["g", None])
def test_an_output_of_a_name_nobody_called_is_refused(name: str | None) -> None:
    unnamed = {"type": "function_call_output", "name": name, "output": "x"}
    custom = {"type": "custom_tool_call", "call_id": "b", "name": "g", "input": "x"}
    message = f"No tool call found for an output without call_id, named '{name}'."
    assert refused([call("a"), custom], [unnamed]) == message


def test_an_item_of_the_past_is_not_said_twice() -> None:
    past = [{**user("hi"), "id": "msg_1"}, {**call("a"), "id": "fc_1"}]
    message = "Duplicate item found with id {}. It is in the conversation already."
    assert refused(past, [{**user("hi"), "id": "msg_1"}]) == message.format("msg_1")
    assert refused(past, [{**call("a"), "id": "fc_1"}, output("a")]) == message.format("fc_1")
    assert len(pair(past, [{**user("hi"), "id": "msg_2"}, output("a")]).items) == 4


def test_an_output_may_carry_the_id_of_its_call() -> None:
    asked, answered, _ = CALLS["local_shell_call"]
    assert len(pair([{**asked, "id": "c"}], [answered]).items) == 2
    by_call_id = {"type": "local_shell_call_output", "call_id": "c", "output": "x"}
    assert len(pair([asked], [by_call_id]).items) == 2


def test_a_local_shell_may_answer_with_the_id_of_the_calls_item() -> None:
    asked, answered, _ = CALLS["local_shell_call"]
    other = {**asked, "id": "lsh_0", "call_id": "b"}
    found = pair([call("a"), other, asked], [{**answered, "id": "lsh_1"}, {**answered, "id": "lsh_0"}, output("a")])
    assert [call_id_of(item) for item in found.items] == ["a", "b", "c", "c", "b", "a"]
    # In a list the call has that id, so the output gets one of its own.
    assert [item.id for item in found.items[3:5]] == [None, None]
    message = "No tool call found for local shell call output with call_id lsh_2."
    assert refused([asked], [{**answered, "id": "lsh_2"}]) == message


def test_calls_and_outputs_among_other_things_leave_them_alone() -> None:
    said = [user("hi"), {"type": "reasoning", "summary": []}, assistant("x"), {"type": "acme:thing"}]
    assert [item.raw for item in pair(said, said).items] == [item.raw for item in items(*said, *said)]


@st.composite
def stories(draw: st.DrawFn) -> list[Fields]:
    """Calls with ids from a small supply, answered or not, once or twice."""
    said: list[Fields] = []
    for _ in range(draw(st.integers(0, 8))):
        call_id = draw(st.sampled_from("abc"))
        said.append(draw(st.sampled_from([call(call_id), output(call_id), user(call_id)])))
    return said


@given(stories(), st.integers(0, 8))
def test_a_story_is_accepted_exactly_when_every_call_has_one_output_after_it(said: list[Fields], cut: int) -> None:
    waiting: set[object] = set()
    fits = True
    for fields in said:
        if fields["type"] == "function_call":
            fits &= fields["call_id"] not in waiting
            waiting.add(fields["call_id"])
        elif fields["type"] == "function_call_output":
            fits &= fields["call_id"] in waiting
            waiting.discard(fields["call_id"])
    stored = [Item.parse(kept(item, f"item_{number}").raw) for number, item in enumerate(items(*said[:cut]))]
    if fits and not waiting:
        found = paired(stored, items(*said[cut:]))
        assert len(found.items) == len(said)
        assert found.coming == found.items[len(stored) :]
    else:
        with pytest.raises(BadRequest):
            paired(stored, items(*said[cut:]))


def test_the_call_ids_are_those_of_the_whole_conversation() -> None:
    found = pair([call("a"), output("a")], [call("b"), output("b")])
    assert found.call_ids == {"a", "b"}
    assert msgspec.json.decode(found.items[-1].raw) == {**output("b")}


def test_an_item_may_be_there_once_only() -> None:
    message = Item.parse(b'{"type":"message","id":"msg_1","role":"user","content":"hi"}')
    with pytest.raises(BadRequest, match="Duplicate item found with id msg_1") as caught:
        paired([], [message, message])
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    "cut",
    [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a', "status": "incomplete"},
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "half", "status": "incomplete"},
    ],
)
def test_a_call_that_was_cut_off_needs_no_output_and_is_left_out_without_one(cut: Fields) -> None:
    past = [item(**user("hi")), item(**cut)]
    go_on = item(**user("go on"))
    found = paired(past, [go_on])
    assert (found.items, found.coming) == ([past[0], go_on], [go_on])
    whole = {**cut, "status": "completed"}
    with pytest.raises(BadRequest, match="No tool output found"):
        paired([past[0], item(**whole)], [go_on])


def test_what_is_said_now_is_all_of_it_also_half_a_call_that_nobody_is_told() -> None:
    cut = item(type="function_call", call_id="c", name="f", arguments="{", status="incomplete")
    past = [item(**user("hi")), item(**call("a", "g"))]
    named = item(type="function_call_output", name="g", output="x")
    found = paired(past, [cut, named, item(**user("on"))])
    assert [call_id_of(one) for one in found.coming] == ["c", "a", None]
    assert [call_id_of(one) for one in found.items] == [None, "a", "a", None]


def test_a_call_that_was_cut_off_and_is_answered_all_the_same_stays() -> None:
    cut = item(type="function_call", call_id="c", name="f", arguments="{", status="incomplete")
    assert len(paired([cut], [item(**output("c"))]).items) == 2


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_at_the_end_wants_its_output(kind: str) -> None:
    asked, answered, _ = CALLS[kind]
    more: dict[str, Fields] = {
        "function_call": {"name": asked.get("name")},
        "tool_search_call": {"execution": "client"},
    }
    assert unanswered([item(**asked)]) == [{"type": answered["type"], **more.get(kind, {}), "call_id": "c"}]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (assistant("hi"), []),
        ({**call("c"), "async": True}, []),
        ({**call("c"), "status": "incomplete"}, []),
        ({"type": "tool_search_call", "execution": "server", "call_id": None, "arguments": {}}, []),
        ({"type": "computer_call", "id": "cu_1", "call_id": "c"}, [{"type": "computer_call_output", "call_id": "c"}]),
        (
            {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f"},
            [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}],
        ),
        ({"type": "mcp_approval_request"}, []),
    ],
)
def test_whether_something_is_wanted_of_the_client(asked: Fields, wanted: list[dict[str, str]]) -> None:
    assert unanswered([item(**asked), item(**user("x"))]) == wanted

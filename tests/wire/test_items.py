import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.wire import items
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.formats import TextFormat
from rejoinder.wire.items import CacheBreakpoint, Item, Part, View, as_sent, kept, listed, unnamed

FULL: list[tuple[bytes, View]] = [
    (
        b'{"type":"message","role":"user","content":"hi","phase":null,"id":"msg_1","new":{"b":1,"a":2}}',
        items.Message("user", "hi"),
    ),
    (
        b'{"type":"message","role":"assistant","phase":"commentary","status":"completed","content":'
        b'[{"type":"output_text","text":"a","annotations":[],"logprobs":[]},{"type":"refusal","refusal":"no"}]}',
        items.Message("assistant", (Part("output_text", text="a"), Part("refusal", refusal="no")), "commentary"),
    ),
    (
        b'{"type":"message","role":"developer","content":[{"type":"input_text","text":"","prompt_cache_breakpoint":'
        b'{"mode":"explicit","ttl":"12h"}},{"type":"input_image","image_url":"https://a.test/a.png","detail":"low",'
        b'"file_id":null,"prompt_cache_breakpoint":{"mode":"explicit"}},'
        b'{"type":"input_file","file_data":"data:,x","filename":"a.txt","file_url":"u","file_id":"f"},'
        b'{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}},'
        b'{"type":"encrypted_content","encrypted_content":"plain"},{"type":"hologram","depth":3}]}',
        items.Message(
            "developer",
            (
                Part("input_text", text="", prompt_cache_breakpoint=CacheBreakpoint("explicit", "12h")),
                Part(
                    "input_image",
                    image_url="https://a.test/a.png",
                    detail="low",
                    prompt_cache_breakpoint=CacheBreakpoint("explicit"),
                ),
                Part("input_file", file_data="data:,x", filename="a.txt", file_url="u", file_id="f"),
                Part("input_audio", input_audio=items.Audio("AAAA", "wav")),
                Part("encrypted_content", encrypted_content="plain"),
                Part("hologram"),
            ),
        ),
    ),
    (
        b'{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"s"}],"content":null,'
        b'"encrypted_content":null}',
        items.Reasoning((Part("summary_text", text="s"),), id="rs_1"),
    ),
    (b'{"type":"reasoning","encrypted_content":"brg1.x"}', items.Reasoning(encrypted_content="brg1.x")),
    (
        b'{"type":"function_call","call_id":"call_1","name":"f","arguments":"","namespace":"n","caller":null,'
        b'"status":"incomplete"}',
        items.FunctionCall("call_1", "f", "", "n", "incomplete"),
    ),
    (
        b'{"type":"function_call_output","call_id":null,"name":"f","output":[{"type":"input_text","text":"t"}],'
        b'"status":"incomplete"}',
        items.FunctionCallOutput((Part("input_text", text="t"),), None, "f", "incomplete"),
    ),
    (
        b'{"type":"custom_tool_call","call_id":"call_1","name":"c","input":"*** Begin"}',
        items.CustomToolCall("call_1", "c", "*** Begin"),
    ),
    (
        b'{"type":"custom_tool_call_output","call_id":"call_1","output":"done","status":"incomplete"}',
        items.CustomToolCallOutput("call_1", "done", "incomplete"),
    ),
    (
        b'{"type":"local_shell_call","id":"lsh_1","call_id":"call_1","status":"completed","action":'
        b'{"type":"exec","command":["ls"],"env":{"A":"1"},"timeout_ms":5,"user":"me","working_directory":"/"}}',
        items.LocalShellCall("call_1", items.LocalShellAction(["ls"], {"A": "1"}, 5, "me", "/")),
    ),
    (
        b'{"type":"local_shell_call_output","id":"call_1","output":"{}","status":null}',
        items.LocalShellCallOutput("{}", id="call_1"),
    ),
    (
        b'{"type":"local_shell_call_output","call_id":"call_1","output":"{}"}',
        items.LocalShellCallOutput("{}", call_id="call_1"),
    ),
    (
        b'{"type":"shell_call","call_id":"call_1","action":{"commands":["ls"],"timeout_ms":null,'
        b'"max_output_length":9},"environment":null}',
        items.ShellCall("call_1", items.ShellAction(["ls"], None, 9)),
    ),
    (
        b'{"type":"shell_call_output","call_id":"call_1","max_output_length":9,"output":['
        b'{"stdout":"a","stderr":"b","outcome":{"type":"exit","exit_code":1}},'
        b'{"stdout":"","stderr":"","outcome":{"type":"timeout"}}]}',
        items.ShellCallOutput(
            "call_1",
            [
                items.ShellOutput("a", "b", items.ShellOutcome("exit", 1)),
                items.ShellOutput("", "", items.ShellOutcome("timeout")),
            ],
        ),
    ),
    (
        b'{"type":"apply_patch_call","call_id":"call_1","status":"completed",'
        b'"operation":{"type":"update_file","path":"a","diff":"+x"}}',
        items.ApplyPatchCall("call_1", items.PatchOperation("update_file", "a", "+x")),
    ),
    (
        b'{"type":"apply_patch_call_output","call_id":"call_1","status":"failed","output":null}',
        items.ApplyPatchCallOutput("call_1", "failed"),
    ),
    (
        b'{"type":"agent_message","author":"a","recipient":"b","content":[{"type":"input_text","text":"t"}]}',
        items.AgentMessage("a", "b", (Part("input_text", text="t"),)),
    ),
    (b'{"type":"item_reference","id":"msg_1"}', items.ItemReference("msg_1")),
    (b'{"type":"compaction","id":"cmp_1","encrypted_content":"x"}', items.Compaction("x")),
    (b'{"type":"compaction_summary","encrypted_content":"x"}', items.Compaction("x")),
    (b'{"type":"compaction_trigger"}', items.CompactionTrigger()),
    (b'{"type":"web_search_call","id":"ws_1","status":"completed"}', items.HostedCall("web_search_call")),
    (b'{"type":"mcp_approval_response","approve":true}', items.HostedCall("mcp_approval_response")),
    (
        b'{"type":"image_generation_call","id":"ig_1","status":"completed","result":"iVBO","output_format":"webp"}',
        items.ImageCall("iVBO", "webp"),
    ),
    (b'{"type":"image_generation_call","id":"ig_1","status":"failed","result":null}', items.ImageCall()),
    (b'{"type":"program","id":"prog_1","code":"x"}', items.Opaque("program")),
    (b'{"type":"acme:thing","anything":[1,2]}', items.Opaque("acme:thing")),
]


@pytest.mark.parametrize(("raw", "view"), FULL, ids=[view.__class__.__name__ for _, view in FULL])
def test_an_item_keeps_its_bytes_and_shows_what_is_read(raw: bytes, view: View) -> None:
    item = Item.parse(raw)
    assert item.raw is raw
    assert item.view == view
    assert item.type == msgspec.json.decode(raw, type=items.Head).type


def test_what_is_any_json_is_handed_on_as_it_came() -> None:
    call = Item.parse(b'{"type":"tool_search_call","call_id":"c","execution":"client","arguments": {"b": 1} }').view
    assert isinstance(call, items.ToolSearchCall)
    assert (bytes(call.arguments), call.call_id, call.execution) == (b'{"b": 1}', "c", "client")
    found = Item.parse(b'{"type":"tool_search_output","call_id":null,"tools":[{"type" : "x"}]}').view
    assert isinstance(found, items.ToolSearchOutput)
    assert ([bytes(tool) for tool in found.tools], found.call_id) == ([b'{"type" : "x"}'], None)
    added = Item.parse(b'{"type":"additional_tools","role":"developer","tools":[1]}').view
    assert isinstance(added, items.AdditionalTools)
    assert [bytes(tool) for tool in added.tools] == [b"1"]
    update = Item.parse(
        b'{"type":"configuration_update","reasoning":{"effort":"low"},"text":{"format":{"type":"text"}}}'
    )
    assert update.view == items.ConfigurationUpdate(items.EffortUpdate("low"), items.FormatUpdate(TextFormat("text")))


@pytest.mark.parametrize("kind", ["", '"type":null,'])
def test_a_type_may_be_left_out_of_messages_and_references(kind: str) -> None:
    message = Item.parse(f'{{{kind}"role":"system","content":"x"}}'.encode())
    assert (message.type, message.view) == ("message", items.Message("system", "x"))
    reference = Item.parse(f'{{{kind}"id":"msg_1"}}'.encode())
    assert (reference.type, reference.id, reference.view) == ("item_reference", "msg_1", items.ItemReference("msg_1"))


@pytest.mark.parametrize(
    ("raw", "message", "param", "code"),
    [
        (b"{}", "Missing required parameter: 'input[3].type'.", "input[3].type", "missing_required_parameter"),
        (b'{"id":null}', "Missing required parameter: 'input[3].type'.", "input[3].type", "missing_required_parameter"),
        (b"[]", "Invalid value for 'input[3]': Expected `object`, got `array`.", "input[3]", "invalid_type"),
        (
            b'{"type":7}',
            "Invalid value for 'input[3].type': Expected `str | null`, got `int`.",
            "input[3].type",
            "invalid_type",
        ),
        (
            b'{"role":"tool","content":"x"}',
            "Invalid value for 'input[3].role': Invalid enum value 'tool'.",
            "input[3].role",
            "invalid_value",
        ),
        (
            b'{"type":"function_call","call_id":"c","name":"f","arguments":{}}',
            "Invalid value for 'input[3].arguments': Expected `str`, got `object`.",
            "input[3].arguments",
            "invalid_type",
        ),
        (
            b'{"type":"function_call","name":"f","arguments":"{}"}',
            "Missing required parameter: 'input[3].call_id'.",
            "input[3].call_id",
            "missing_required_parameter",
        ),
        (
            b'{"type":"local_shell_call_output","output":"{}"}',
            "Missing required parameter: 'input[3].id'.",
            "input[3].id",
            "missing_required_parameter",
        ),
        (
            b'{"role":"user","content":[{"type":"input_text","text":"a"},{"text":"b"}]}',
            "Missing required parameter: 'input[3].content[1].type'.",
            "input[3].content[1].type",
            "missing_required_parameter",
        ),
        (
            b'{"role":"user","content":[{"type":"input_text","text":"a","prompt_cache_breakpoint":{"mode":"explicit",'
            b'"ttl":"1h"}}]}',
            "Invalid value for 'input[3].content[0].prompt_cache_breakpoint.ttl': Invalid enum value '1h'.",
            "input[3].content[0].prompt_cache_breakpoint.ttl",
            "invalid_value",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(raw: bytes, message: str, param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Item.parse(raw, at="input[3]")
    assert (str(caught.value), caught.value.param, caught.value.code) == (message, param, code)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("input_text", "text"),
        ("output_text", "text"),
        ("text", "text"),
        ("summary_text", "text"),
        ("reasoning_text", "text"),
        ("refusal", "refusal"),
        ("input_audio", "input_audio"),
        ("encrypted_content", "encrypted_content"),
    ],
)
@pytest.mark.parametrize("value", ["", ',"{}":null'])
def test_a_part_without_what_its_type_needs_is_refused(kind: str, field: str, value: str) -> None:
    part = f'{{"type":"{kind}"{value.format(field)}}}'
    with pytest.raises(BadRequest) as caught:
        Item.parse(f'{{"role":"user","content":[{part}]}}'.encode(), at="input[0]")
    assert str(caught.value) == f"Missing required parameter: 'input[0].content[0].{field}'."
    assert caught.value.param == f"input[0].content[0].{field}"


def test_reasoning_says_its_raw_text_and_else_its_summary() -> None:
    summary = (Part("summary_text", text="a"), Part("summary_text", text="b"))
    content = (Part("reasoning_text", text="long"), Part("hologram"))
    assert items.Reasoning(summary).text == "a\n\nb"
    assert items.Reasoning(summary, ()).text == "a\n\nb"
    assert items.Reasoning(summary, content).text == "long"
    assert items.Reasoning().text == ""


ID, TYPE, STATUS, CONTENT = 1, 2, 4, 8


@pytest.mark.parametrize(
    ("raw", "stored", "added"),
    [
        (
            b'{"role":"user","content":"hi"}',
            b'{"id":"new_1","role":"user","content":[{"type":"input_text","text":"hi"}],"type":"message",'
            b'"status":"completed"}',
            ID | TYPE | STATUS | CONTENT,
        ),
        (
            b'{"type":null,"id":null,"status":null,"role":"assistant","content":"","phase":"final_answer"}',
            b'{"id":"new_1","role":"assistant","content":[{"type":"output_text","text":"","annotations":[]}],'
            b'"phase":"final_answer","type":"message","status":"completed"}',
            ID | TYPE | STATUS | CONTENT,
        ),
        (
            b'{"type":"message","id":"msg_1","status":"incomplete","role":"user","content":[],"new":{"b":1,"a":2}}',
            b'{"type":"message","id":"msg_1","status":"incomplete","role":"user","content":[],"new":{"b":1,"a":2}}',
            0,
        ),
        (
            b'{"type":"function_call_output","call_id":"c","output":"x"}',
            b'{"id":"new_1","type":"function_call_output","call_id":"c","output":"x","status":"completed"}',
            ID | STATUS,
        ),
        (
            b'{"type":"acme:thing","z":1,"a":{"y":2.50}}',
            b'{"id":"new_1","type":"acme:thing","z":1,"a":{"y":2.50},"status":"completed"}',
            ID | STATUS,
        ),
        (
            b'{"type":"compaction","encrypted_content":"x"}',
            b'{"id":"new_1","type":"compaction","encrypted_content":"x"}',
            ID,
        ),
        (
            b'{"type":"additional_tools","role":"developer","tools":[]}',
            b'{"id":"new_1","type":"additional_tools","role":"developer","tools":[]}',
            ID,
        ),
        (
            b'{"type":"configuration_update","id":"cu_1","reasoning":{"effort":"low"}}',
            b'{"type":"configuration_update","id":"cu_1","reasoning":{"effort":"low"}}',
            0,
        ),
    ],
)
def test_the_stored_form_has_an_id_a_type_and_a_status(raw: bytes, stored: bytes, added: int) -> None:
    one = kept(Item.parse(raw), "new_1")
    assert (one.raw, one.added) == (stored, added)
    assert Item.parse(one.raw).id == msgspec.json.decode(stored, type=items.Head).id


EASY = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=9)},
    optional={
        "id": st.none() | st.just("msg_1"),
        "type": st.none() | st.just("message"),
        "status": st.none() | st.sampled_from(["completed", "incomplete"]),
        "phase": st.none() | st.just("commentary"),
        "new": st.none() | st.lists(st.integers()),
    },
)


@st.composite
def golden(draw: st.DrawFn) -> dict[str, object]:
    """An item of any type, with or without the fields a list promises."""
    fields = msgspec.json.decode(draw(st.sampled_from(FULL))[0], type=dict[str, object])
    needed = {"item_reference": "id", "local_shell_call_output": "id", "apply_patch_call_output": "status"}
    for name, value in (("id", "x_1"), ("status", "completed")):
        if needed.get(str(fields["type"])) != name:
            fields.pop(name, None)
            fields |= draw(st.sampled_from([{}, {name: None}, {name: value}]))
    return fields


@given(EASY)
def test_a_stored_item_stays_what_it_is_when_it_is_stored_again(fields: dict[str, object]) -> None:
    once = kept(Item.parse(msgspec.json.encode(fields)), "new_1")
    again = kept(Item.parse(once.raw), "new_2")
    assert (again.raw, again.added) == (once.raw, 0)
    values = msgspec.json.decode(once.raw, type=dict[str, Raw])
    assert not {name for name in ("id", "type", "status") if bytes(values[name]) == b"null"}


@given(EASY | golden())
def test_what_was_added_to_a_stored_item_comes_off_again_and_nothing_else(fields: dict[str, object]) -> None:
    stored = kept(Item.parse(msgspec.json.encode(fields)), "new_1")
    sent = as_sent(stored.raw, stored.added)
    # null in one of the three fields that are added means left out (objects.md, Receiving).
    meant = {name: value for name, value in fields.items() if value is not None or name not in ("id", "type", "status")}
    assert sent == msgspec.json.encode(meant)
    # The same bytes in every turn: in the one that brings the item, and in those that find it in the store.
    again = kept(Item.parse(sent), "new_2")
    assert as_sent(again.raw, again.added) == sent


def test_what_is_stored_as_it_came_is_sent_as_it_is_stored() -> None:
    raw = b'{ "type":"message" }'
    assert as_sent(raw, 0) is raw


def test_numbers_and_unknown_fields_of_an_item_keep_their_spelling() -> None:
    raw = b'{"type":"acme:thing","a":{"y":2.50, "e":"\\u00e9"},"n":1E5}'
    stored = kept(Item.parse(raw), "new_1")
    assert as_sent(stored.raw, stored.added) == raw


@pytest.mark.parametrize("call_id", ["", "c" * 65])
def test_a_call_id_has_one_to_sixty_four_characters(call_id: str) -> None:
    raw = msgspec.json.encode({"type": "function_call_output", "call_id": call_id, "output": ""})
    with pytest.raises(BadRequest) as caught:
        Item.parse(raw, at="input[7]")
    assert caught.value.param == "input[7].call_id"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"type":"reasoning","id":"rs_1"}', b'{"type":"reasoning","id":"rs_1","status":"completed"}'),
        (b'{ "type":"reasoning","status":"incomplete"}', b'{ "type":"reasoning","status":"incomplete"}'),
        (b'{ "type":"compaction","encrypted_content":"x"}', b'{ "type":"compaction","encrypted_content":"x"}'),
    ],
)
def test_lists_show_a_status_where_there_is_one_to_have(raw: bytes, shown: bytes) -> None:
    assert listed(raw) == shown


def test_an_item_can_be_said_without_its_id() -> None:
    item = Item.parse(b'{"type":"message","id":"msg_1","role":"user","content":"hi","x":1.50}')
    bare = unnamed(item)
    assert (bare.raw, bare.id, bare.view) == (
        b'{"type":"message","role":"user","content":"hi","x":1.50}',
        None,
        item.view,
    )
    assert unnamed(bare) is bare
    named_here = dataclasses.replace(bare, id="msg_given_here")
    assert (unnamed(named_here).raw, unnamed(named_here).id) == (bare.raw, None)

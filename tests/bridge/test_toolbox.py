import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.toolbox import MAX_NAME, Target, Toolbox, flat_name
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import Item
from rejoinder.wire.tools import NamedTool
from tests.bridge.prompts import Fields, function, item, toolbox

OBJECT = {"type": "object", "properties": {"x": {"type": "integer"}}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
FULL: list[Fields] = [
    function("plain"),
    function("full", description="Does it.", parameters=OBJECT, strict=True, defer_loading=True),
    {"type": "custom", "name": "free"},
    {"type": "custom", "name": "patch", "description": "Patches.", "format": GRAMMAR},
    {
        "type": "namespace",
        "name": "files",
        "description": "About files.",
        "tools": [function("read", description="Reads."), function("list"), {"type": "custom", "name": "write"}],
    },
    {"type": "tool_search", "execution": "client"},
    {"type": "local_shell"},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "apply_patch"},
]
TEXT_RULE = "The `input` argument is free text, not JSON: write it as it is."


def offered(box: Toolbox) -> list[tuple[str, Target]]:
    return [(one.name, one.target) for one in box.functions]


def refused(tools: Sequence[Fields], choice: object = "auto") -> tuple[str, str | None, str | None]:
    with pytest.raises(Unsupported) as caught:
        toolbox(tools, choice)
    return str(caught.value), caught.value.param, caught.value.code


def test_every_tool_a_client_can_run_becomes_a_function_in_order() -> None:
    assert offered(toolbox(FULL)) == [
        ("plain", Target("function", "plain")),
        ("full", Target("function", "full")),
        ("free", Target("custom", "free")),
        ("patch", Target("custom", "patch")),
        ("files__read", Target("function", "read", "files")),
        ("files__list", Target("function", "list", "files")),
        ("files__write", Target("custom", "write", "files")),
        ("tool_search", Target("tool_search", "tool_search")),
        ("local_shell", Target("local_shell", "local_shell")),
        ("shell", Target("shell", "shell")),
        ("apply_patch", Target("apply_patch", "apply_patch")),
    ]


def test_a_function_keeps_its_description_its_schema_and_its_strictness() -> None:
    plain, full, *_ = toolbox(FULL).functions
    assert (plain.description, plain.parameters, plain.strict) == (None, b'{"type":"object","properties":{}}', False)
    assert (full.description, full.parameters, full.strict) == ("Does it.", json.dumps(OBJECT).encode(), True)
    nothings: list[object] = [None, {}]
    for nothing in nothings:
        [one] = toolbox([function("f", parameters=nothing, strict=None)]).functions
        assert (one.parameters, one.strict) == (b'{"type":"object","properties":{}}', False)


def test_a_free_form_tool_says_that_it_is_one_and_keeps_its_declaration() -> None:
    box = toolbox(FULL)
    free, patch, write = (box.function(name) for name in ("free", "patch", "files__write"))
    assert free is not None
    assert patch is not None
    assert write is not None
    assert free.description == TEXT_RULE
    assert patch.description == f"Patches.\n\n{TEXT_RULE}\n\nIt must match this lark grammar:\nstart: /a/"
    assert write.description == f"About files.\n\n{TEXT_RULE}"
    assert free.parameters == (
        b'{"type":"object","properties":{"input":{"type":"string","description":"The free text of the call."}},'
        b'"required":["input"],"additionalProperties":false}'
    )
    assert patch.custom is not None
    assert (patch.custom.name, patch.custom.description) == ("patch", "Patches.")
    [text] = toolbox([{"type": "custom", "name": "t", "format": {"type": "text"}}]).functions
    assert text.description == TEXT_RULE


def test_tools_of_a_namespace_say_what_the_namespace_is_about() -> None:
    box = toolbox(FULL)
    assert [box.functions[index].description for index in (4, 5)] == ["About files.\n\nReads.", "About files."]
    [bare] = toolbox([{"type": "namespace", "name": "n", "tools": [function("f", description="")]}]).functions
    assert bare.description is None


@pytest.mark.parametrize(
    ("kind", "required"),
    [
        ("local_shell", ["command"]),
        ("shell", ["commands"]),
        ("apply_patch", ["type", "path"]),
        ("tool_search", ["query"]),
    ],
)
def test_built_in_tools_are_offered_with_a_schema_and_a_description(kind: str, required: list[str]) -> None:
    one = toolbox(FULL).function(kind)
    assert one is not None
    schema = json.loads(one.parameters)
    assert schema["type"] == "object"
    assert schema["required"] == required
    assert set(required) <= set(schema["properties"])
    assert one.description


def test_a_search_of_the_client_may_bring_its_own_words() -> None:
    mine = {"type": "tool_search", "execution": "client", "description": "Finds.", "parameters": OBJECT}
    [one] = toolbox([mine]).functions
    assert (one.description, one.parameters) == ("Finds.", json.dumps(OBJECT).encode())


def test_what_needs_no_server_is_noted_and_not_offered() -> None:
    box = toolbox([{"type": "web_search"}, {"type": "web_search"}, {"type": "web_search_preview"}])
    assert (box.functions, box.hosted) == ((), {})
    assert box.notes == (
        "tools.web_search: this upstream has no web search, the tool is not offered",
        "tools.web_search_preview: this upstream has no web search, the tool is not offered",
    )


@pytest.mark.parametrize(
    ("tool", "message", "code"),
    [
        *(
            (
                {"type": kind},
                f"tool '{kind}' runs on the provider's side and this upstream does not have it",
                "unsupported_value",
            )
            for kind in (
                "file_search",
                "code_interpreter",
                "image_generation",
                "mcp",
                "computer",
                "computer_use_preview",
            )
        ),
        ({"type": "acme:laser"}, "tool type 'acme:laser' is not known here", "invalid_value"),
        (
            {"type": "shell", "environment": {"type": "container_auto"}},
            "a 'shell' tool with environment 'container_auto' runs at OpenAI; only 'local' can be served here",
            None,
        ),
        (
            {"type": "namespace", "name": "n", "tools": [{"type": "shell"}]},
            "namespace 'n' holds a tool of type 'shell'; only 'function' and 'custom' are allowed there",
            None,
        ),
    ],
)
def test_a_tool_nobody_here_can_run_is_refused_by_name(tool: Fields, message: str, code: str | None) -> None:
    assert refused([tool]) == (message, "tools", code)


SEARCHES = ["web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"]
AT_PROVIDER = frozenset({"web_search", "code_interpreter"})


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_tool_the_provider_runs_is_no_function_and_keeps_its_declaration(kind: str) -> None:
    declared = {"type": kind, "search_context_size": "low"}
    box = toolbox([function("f"), declared, {"type": "web_search"}], hosted=AT_PROVIDER)
    assert [one.name for one in box.functions] == ["f"]
    assert {name: json.loads(tool.raw) for name, tool in box.hosted.items()} == {"web_search": declared}
    assert box.notes == ()
    assert toolbox([function("f")], hosted=AT_PROVIDER).hosted == {}


def test_tools_the_provider_runs_may_come_later_and_stand_in_the_order_they_came_in() -> None:
    history = [item(type="additional_tools", role="developer", tools=[{"type": "web_search", "late": 1}])]
    box = toolbox([{"type": "code_interpreter"}], history=history, hosted=AT_PROVIDER)
    assert list(box.hosted) == ["code_interpreter", "web_search"]
    with pytest.raises(Unsupported, match="tool 'file_search' runs on the provider's side"):
        toolbox([{"type": "file_search"}], hosted=AT_PROVIDER)


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_choice_may_name_what_the_provider_runs(kind: str) -> None:
    box = toolbox([{"type": kind}, function("f")], {"type": kind}, hosted=AT_PROVIDER)
    assert box.choice == NamedTool(kind)


@pytest.mark.parametrize(
    ("allowed", "hosted", "functions", "choice"),
    [
        ([{"type": "web_search_preview"}], ["web_search"], [], "required"),
        ([{"type": "web_search"}, function("f")], ["web_search"], ["f"], "required"),
        ([function("f")], [], ["f"], "required"),
        ([{"type": "code_interpreter"}], ["code_interpreter"], [], "required"),
    ],
)
def test_what_the_provider_runs_is_on_offer_only_where_it_is_allowed(
    allowed: list[Fields], hosted: list[str], functions: list[str], choice: str
) -> None:
    tools = [{"type": "web_search"}, function("f"), {"type": "code_interpreter"}]
    box = toolbox(tools, {"type": "allowed_tools", "mode": "required", "tools": allowed}, hosted=AT_PROVIDER)
    assert (list(box.hosted), [one.name for one in box.functions], box.choice) == (hosted, functions, choice)


def test_a_choice_of_what_the_provider_would_run_and_nobody_declared_is_refused() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "code_interpreter"}]}
    message = "Tool choice 'code_interpreter' not found in 'tools' parameter."
    with pytest.raises(Unsupported) as caught:
        toolbox([{"type": "web_search"}], choice, hosted=AT_PROVIDER)
    assert (str(caught.value), caught.value.param) == (message, "tool_choice")


DEFERRED: list[Fields] = [
    {"type": "tool_search"},
    function("clock"),
    function("find_flights", description="Finds a flight.", defer_loading=True),
    {"type": "custom", "name": "note", "description": "Takes a note.", "defer_loading": True},
    {
        "type": "namespace",
        "name": "hotels",
        "description": "About hotels.",
        "tools": [function("book", defer_loading=True), function("rate")],
    },
]


def found(*tools: Fields) -> list[Item]:
    return [item(type="tool_search_output", call_id=None, execution="server", tools=list(tools))]


def test_tools_that_are_only_to_be_found_are_not_on_offer_until_they_are() -> None:
    box = toolbox(DEFERRED)
    assert offered(box) == [
        ("tool_search", Target("server_search", "tool_search")),
        ("clock", Target("function", "clock")),
        ("hotels__rate", Target("function", "rate", "hotels")),
    ]
    flight, note, hotel = (json.loads(bytes(box.found(query)[0])) for query in ("flights", "a note", "book hotels"))
    assert (flight, note) == (DEFERRED[2], DEFERRED[3])
    assert hotel == {**DEFERRED[4], "tools": [function("book", defer_loading=True)]}
    assert box.found("nothing of the kind") == []
    # In the order of their declaration, so that what stays on offer stays the beginning of a prompt's bytes.
    later = toolbox(DEFERRED, history=found(flight, hotel))
    assert [one.name for one in later.functions] == [
        *["tool_search", "clock", "find_flights", "hotels__book", "hotels__rate"]
    ]
    assert later.found("flights book") == []


def test_without_a_search_of_ours_everything_is_on_offer() -> None:
    client = {"type": "tool_search", "execution": "client"}
    assert len(toolbox([client, *DEFERRED[1:]]).functions) == 6
    assert len(toolbox(DEFERRED[1:]).functions) == 5
    assert toolbox(DEFERRED[1:]).found("flights") == []


def test_a_search_of_ours_says_what_it_does_in_the_clients_words_or_its_own() -> None:
    [own] = toolbox([{"type": "tool_search"}]).functions
    [mine] = toolbox([{"type": "tool_search", "description": "Finds."}]).functions
    assert (bool(own.description), mine.description) == (True, "Finds.")
    assert json.loads(own.parameters)["required"] == ["query"]


def test_a_free_form_tool_may_have_a_grammar() -> None:
    box = toolbox(FULL)
    grammar = box.grammar_of("patch")
    assert grammar is not None
    assert (grammar.syntax, grammar.definition) == ("lark", "start: /a/")
    assert [box.grammar_of(name) for name in ("free", "plain", "gone")] == [None] * 3
    assert toolbox([{"type": "custom", "name": "t", "format": {"type": "text"}}]).grammar_of("t") is None


def test_a_wrong_tool_inside_a_namespace_is_named_with_its_place() -> None:
    with pytest.raises(BadRequest) as caught:
        toolbox([{"type": "namespace", "name": "n", "tools": [function("f"), {"type": "function"}]}])
    assert caught.value.param == "tools['n'].tools[1].name"


def test_a_tool_declared_twice_is_a_mistake() -> None:
    assert refused([function("f"), function("f")]) == ("tool 'f' is declared twice", "tools", "invalid_value")
    twice = [{"type": "shell"}, {"type": "shell"}]
    assert refused(twice) == ("tool 'shell' is declared twice", "tools", "invalid_value")


def test_tools_of_one_name_get_names_of_their_own_and_find_back() -> None:
    tools = [
        function("shell"),
        {"type": "shell"},
        {"type": "custom", "name": "shell"},
        function("a__b"),
        {"type": "namespace", "name": "a", "tools": [function("b")]},
        function("read"),
        {"type": "namespace", "name": "functions", "tools": [function("read")]},
    ]
    box = toolbox(tools)
    names = [one.name for one in box.functions]
    assert len(set(names)) == 7
    assert (names[0], names[3], names[5]) == ("shell", "a__b", "read")
    assert names == [
        "shell",
        "shell_aef59ae6",
        "shell_ba810a0f",
        "a__b",
        "a__b_efaf89dd",
        "read",
        "read_88669e31",
    ]
    for one in box.functions:
        assert box.target_of(one.name) == one.target
        assert box.name_of(one.target) == one.name


@pytest.mark.parametrize(
    ("name", "namespace", "flat"),
    [
        ("read", None, "read"),
        ("read", "files", "files__read"),
        ("read", "functions", "read"),
        ("a.b", None, "a_b_2e7336dc"),
        ("a b", None, "a_b_c8687a08"),
        ("é", "ü", "_____de54dd85"),
        ("x" * 64, None, "x" * 64),
        ("x" * 65, None, "x" * 55 + "_9537c5fd"),
        ("y" * 60, "mcp__x", "mcp__x__" + "y" * 47 + "_73f59686"),
    ],
)
def test_a_name_no_server_takes_is_made_one_it_takes(name: str, namespace: str | None, flat: str) -> None:
    assert flat_name(name, namespace) == flat


@given(st.sets(st.tuples(st.text(min_size=1, max_size=80), st.none() | st.text(min_size=1, max_size=9)), max_size=6))
def test_any_names_at_all_become_legal_different_and_find_back(names: set[tuple[str, str | None]]) -> None:
    tools = [
        function(name) if space is None else {"type": "namespace", "name": space, "tools": [function(name)]}
        for name, space in names
    ]
    box = toolbox(tools)
    flat = [one.name for one in box.functions]
    assert len(set(flat)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) and len(name) <= MAX_NAME for name in flat)
    assert {(box.target_of(name).name, box.target_of(name).namespace) for name in flat} == names
    assert [box.name_of(one.target) for one in box.functions] == flat


def test_a_tool_of_an_old_history_keeps_the_name_it_had() -> None:
    box = toolbox([function("f")])
    assert box.name_of(Target("function", "gone")) == "gone"
    assert box.name_of(Target("function", "read", "files")) == "files__read"
    assert box.name_of(Target("function", "f", "functions")) == "f"


def test_a_function_in_a_namespace_of_its_own_name_is_the_plain_function() -> None:
    found = Target("function", "f", "f")
    assert toolbox([function("f")]).name_of(found) == "f"
    assert toolbox().name_of(found) == "f"
    assert toolbox([{"type": "namespace", "name": "f", "tools": [function("f")]}]).name_of(found) == "f__f"


def test_a_name_nobody_declared_is_a_plain_function() -> None:
    box = toolbox([function("f")])
    assert box.function("g") is None
    assert box.target_of("g") == Target("function", "g")


def test_history_adds_tools_in_its_order_and_may_repeat_itself() -> None:
    history = [
        item(type="message", role="user", content="hi"),
        item(type="additional_tools", role="developer", tools=[function("f"), function("g")]),
        item(
            type="tool_search_output", call_id="c", tools=[{"type": "namespace", "name": "n", "tools": [function("h")]}]
        ),
        item(type="additional_tools", role="developer", tools=[function("g"), {"type": "shell"}]),
    ]
    box = toolbox([function("f")], history=history)
    assert [one.name for one in box.functions] == ["f", "g", "n__h", "shell"]


def test_a_tool_in_the_history_nobody_here_can_run_is_refused_too() -> None:
    history = [item(type="additional_tools", role="developer", tools=[{"type": "computer"}])]
    with pytest.raises(Unsupported, match="tool 'computer' runs on the provider's side"):
        toolbox(history=history)


def test_only_the_allowed_tools_are_offered() -> None:
    allowed = [function("full"), {"type": "shell"}, {"type": "custom", "name": "write", "namespace": "files"}]
    box = toolbox(FULL, {"type": "allowed_tools", "mode": "required", "tools": allowed})
    assert [one.name for one in box.functions] == ["full", "files__write", "shell"]
    assert box.choice == "required"
    assert box.notes == ("tool_choice.allowed_tools: only the allowed tools are offered",)
    assert [name for name in ("full", "plain", "patch", "gone") if box.offers(name)] == ["full", "gone"]
    assert box.name_of(Target("function", "read", "files")) == "files__read"


def test_a_withheld_tool_keeps_the_name_it_has_when_it_is_offered() -> None:
    tools = [function("shell"), {"type": "shell"}]
    open_box = toolbox(tools)
    box = toolbox(tools, {"type": "allowed_tools", "mode": "auto", "tools": [function("shell")]})
    assert box.name_of(Target("shell", "shell")) == open_box.name_of(Target("shell", "shell")) == "shell_aef59ae6"
    assert not box.offers("shell_aef59ae6")


def test_where_only_what_is_not_served_is_allowed_no_tool_may_be_called() -> None:
    tools = [{"type": "web_search"}, function("f")]
    box = toolbox(tools, {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]})
    assert (box.functions, box.choice) == ((), "none")
    assert not box.offers("anything")


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"type": "function", "name": "f"}])
def test_any_other_choice_stays_what_it_is(choice: object) -> None:
    box = toolbox([function("f")], choice)
    assert box.choice == (NamedTool("function", "f") if isinstance(choice, dict) else choice)
    assert box.offers("f")
    assert box.offers("unknown") is (choice != "none")


def test_nothing_is_offered_where_there_are_no_tools() -> None:
    assert not toolbox().offers("f")


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "name": "full"}, "full"),
        ({"type": "function", "name": "read"}, "files__read"),
        ({"type": "function", "name": "read", "namespace": "files"}, "files__read"),
        ({"type": "custom", "name": "patch"}, "patch"),
        ({"type": "custom", "name": "write"}, "files__write"),
        ({"type": "shell"}, "shell"),
        ({"type": "apply_patch"}, "apply_patch"),
        ({"type": "local_shell"}, "local_shell"),
        ({"type": "tool_search"}, "tool_search"),
    ],
)
def test_a_choice_finds_the_tool_it_names(choice: Fields, name: str) -> None:
    box = toolbox(FULL, choice)
    assert isinstance(box.choice, NamedTool)
    assert box.named(box.choice).name == name


def test_a_bare_name_means_the_tool_outside_any_namespace() -> None:
    tools = [{"type": "namespace", "name": "n", "tools": [function("f")]}, function("f")]
    box = toolbox(tools)
    assert box.named(NamedTool("function", "f")).name == "f"
    assert box.named(NamedTool("function", "f", "n")).name == "n__f"


@pytest.mark.parametrize(
    "choice",
    [
        NamedTool("function", "gone"),
        NamedTool("function", "patch"),
        NamedTool("custom", "full"),
        NamedTool("function"),
        NamedTool("custom"),
        NamedTool("file_search"),
        NamedTool("web_search_preview"),
        NamedTool("mcp", "full"),
        NamedTool("function", "read", "elsewhere"),
        NamedTool("function", "full", "files"),
    ],
)
def test_a_choice_that_names_no_tool_is_refused(choice: NamedTool) -> None:
    with pytest.raises(Unsupported) as caught:
        toolbox(FULL).named(choice)
    assert str(caught.value) == f"Tool choice '{choice.name or choice.type}' not found in 'tools' parameter."
    assert (caught.value.param, caught.value.code) == ("tool_choice", "invalid_value")


def test_a_choice_of_a_search_that_is_not_served_is_refused() -> None:
    message = "tool choice 'web_search' names a tool this upstream does not have"
    assert refused([{"type": "web_search"}], {"type": "web_search"}) == (message, "tool_choice", "unsupported_value")


def test_an_allowed_tool_that_was_not_declared_is_refused() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [function("gone")]}
    message = "Tool choice 'gone' not found in 'tools' parameter."
    assert refused([function("f")], choice) == (message, "tool_choice", "invalid_value")


LATER = [{"type": "tool_search"}, function("f"), {**function("g"), "defer_loading": True}]


def test_an_allowed_tool_is_offered_though_it_was_to_be_found_first() -> None:
    box = toolbox(LATER, {"type": "allowed_tools", "mode": "required", "tools": [function("g")]})
    assert [one.name for one in box.functions] == ["g"]
    assert box.found("g") == []


def test_with_its_search_allowed_too_it_is_to_be_found() -> None:
    allowed = [{"type": "tool_search"}, function("g")]
    box = toolbox(LATER, {"type": "allowed_tools", "mode": "auto", "tools": allowed})
    assert [one.name for one in box.functions] == ["tool_search"]
    assert [json.loads(bytes(raw))["name"] for raw in box.found("g")] == ["g"]
    box = toolbox(LATER, {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "tool_search"}]})
    assert box.found("g") == []


def test_a_name_nobody_has_is_found_for_a_tool_of_our_own() -> None:
    assert toolbox([]).free_name("json") == "json"
    assert toolbox([function("json"), function("json_")]).free_name("json") == "json__"


def test_a_tool_that_is_not_found_yet_is_known_by_its_name() -> None:
    tools: list[Fields] = [
        {"type": "tool_search"},
        {"type": "namespace", "name": "n", "tools": [{**function("g"), "defer_loading": True}]},
    ]
    box = toolbox(tools)
    assert box.offers("n__g")
    assert box.target_of("n__g") == Target("function", "g", "n")
    assert box.name_of(Target("function", "g", "n")) == "n__g"

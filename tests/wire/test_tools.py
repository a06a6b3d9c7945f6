import pytest
from msgspec import Raw

from rejoinder.wire import tools
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.tools import AllowedTools, Choice, NamedTool, Tool, ToolView, parse_tools, shown, tool_choice

VIEWS: list[tuple[bytes, ToolView]] = [
    (b'{"type":"function","name":"f"}', tools.FunctionTool("f")),
    (
        b'{"type":"function","name":"f","description":null,"strict":true,"defer_loading":true,"output_schema":{}}',
        tools.FunctionTool("f", strict=True, defer_loading=True),
    ),
    (b'{"type":"custom","name":"c","description":"d"}', tools.CustomTool("c", "d")),
    (
        b'{"type":"custom","name":"c","format":{"type":"grammar","syntax":"lark","definition":"start: A"}}',
        tools.CustomTool("c", format=tools.Grammar("grammar", "lark", "start: A")),
    ),
    (b'{"type":"tool_search"}', tools.ToolSearchTool()),
    (b'{"type":"tool_search","execution":"client","description":"d"}', tools.ToolSearchTool("client", "d")),
    (b'{"type":"local_shell"}', tools.LocalShellTool()),
    (b'{"type":"shell"}', tools.ShellTool()),
    (b'{"type":"shell","environment":{"type":"local","skills":[]}}', tools.ShellTool(tools.ShellEnvironment("local"))),
    (b'{"type":"apply_patch"}', tools.ApplyPatchTool()),
    (b'{"type":"web_search","filters":null}', tools.HostedTool("web_search")),
    (b'{"type":"web_search_2025_08_26"}', tools.HostedTool("web_search_2025_08_26")),
    (b'{"type":"web_search_preview"}', tools.HostedTool("web_search_preview")),
    (b'{"type":"web_search_preview_2025_03_11"}', tools.HostedTool("web_search_preview_2025_03_11")),
    (b'{"type":"file_search","vector_store_ids":[]}', tools.HostedTool("file_search")),
    (b'{"type":"code_interpreter"}', tools.HostedTool("code_interpreter")),
    (b'{"type":"image_generation"}', tools.HostedTool("image_generation")),
    (b'{"type":"mcp","server_label":"s"}', tools.HostedTool("mcp")),
    (b'{"type":"computer"}', tools.HostedTool("computer")),
    (b'{"type":"computer_use_preview"}', tools.HostedTool("computer_use_preview")),
    (b'{"type":"programmatic_tool_calling"}', tools.HostedTool("programmatic_tool_calling")),
    (b'{"type":"acme:tool"}', tools.OpaqueTool("acme:tool")),
]


@pytest.mark.parametrize(("raw", "view"), VIEWS)
def test_a_declaration_keeps_its_bytes_and_shows_what_is_read(raw: bytes, view: ToolView) -> None:
    tool = Tool.parse(raw, at="tools[0]")
    assert (tool.raw, tool.view) == (raw, view)
    assert f'"type":"{tool.type}"'.encode() in raw


def test_schemas_and_inner_tools_are_handed_on_as_they_came() -> None:
    function = Tool.parse(b'{"type":"function","name":"f","parameters":{"b": 1, "a": 2}}', at="tools[0]").view
    assert isinstance(function, tools.FunctionTool)
    assert bytes(function.parameters) == b'{"b": 1, "a": 2}'
    search = Tool.parse(b'{"type":"tool_search","parameters":{"b": 1}}', at="tools[0]").view
    assert isinstance(search, tools.ToolSearchTool)
    assert bytes(search.parameters) == b'{"b": 1}'
    namespace = Tool.parse(b'{"type":"namespace","name":"n","description":"d","tools":[{"x":1}, 2]}', at="t").view
    assert isinstance(namespace, tools.NamespaceTool)
    assert (namespace.name, namespace.description) == ("n", "d")
    assert [bytes(raw) for raw in namespace.tools] == [b'{"x":1}', b"2"]


@pytest.mark.parametrize(
    ("raw", "message", "param"),
    [
        (b"5", "Invalid value for 'tools[1]': Expected `object`, got `int`.", "tools[1]"),
        (b"{}", "Missing required parameter: 'tools[1].type'.", "tools[1].type"),
        (b'{"type":"function"}', "Missing required parameter: 'tools[1].name'.", "tools[1].name"),
        (
            b'{"type":"function","name":"f","strict":"yes"}',
            "Invalid value for 'tools[1].strict': Expected `bool | null`, got `str`.",
            "tools[1].strict",
        ),
        (
            b'{"type":"custom","name":"c","format":{"type":"xml"}}',
            "Invalid value for 'tools[1].format.type': Invalid enum value 'xml'.",
            "tools[1].format.type",
        ),
        (b'{"type":"namespace","name":"n"}', "Missing required parameter: 'tools[1].tools'.", "tools[1].tools"),
    ],
)
def test_a_wrong_declaration_is_named_with_its_place(raw: bytes, message: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_tools([Raw(b'{"type":"apply_patch"}'), Raw(raw)], at="tools")
    assert (str(caught.value), caught.value.param) == (message, param)


def test_declarations_keep_their_order() -> None:
    raws = [Raw(b'{"type":"shell"}'), Raw(b'{"type":"apply_patch"}')]
    assert [tool.type for tool in parse_tools(raws, at="tools")] == ["shell", "apply_patch"]


@pytest.mark.parametrize(
    ("raw", "echoed"),
    [
        (
            b'{"type":"function","name":"f"}',
            b'{"type":"function","name":"f","description":null,"parameters":null,"strict":false}',
        ),
        (
            b'{"strict":null,"parameters":{"b": 1},"name":"f","type":"function","new":1}',
            b'{"strict":false,"parameters":{"b": 1},"name":"f","type":"function","new":1,"description":null}',
        ),
        (
            b'{"type":"function","name":"f","description":"d","parameters":null,"strict":true}',
            b'{"type":"function","name":"f","description":"d","parameters":null,"strict":true}',
        ),
        (b'{"type":"custom","name":"c"}', b'{"type":"custom","name":"c"}'),
    ],
)
def test_a_function_is_echoed_with_all_its_keys_and_the_rest_as_it_came(raw: bytes, echoed: bytes) -> None:
    assert bytes(shown(Tool.parse(raw, at="tools[0]"))) == echoed


@pytest.mark.parametrize(
    ("raw", "choice"),
    [
        (b'"none"', "none"),
        (b'"auto"', "auto"),
        (b'"required"', "required"),
        (b'{"type":"function","name":"f"}', NamedTool("function", "f")),
        (b'{"type":"function","name":"f","namespace":"n"}', NamedTool("function", "f", "n")),
        (b'{"type":"custom","name":"c"}', NamedTool("custom", "c")),
        (b'{"type":"shell"}', NamedTool("shell")),
        (b'{"type":"mcp","server_label":"s"}', NamedTool("mcp")),
        (
            b'{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"},{"type":"shell"}]}',
            AllowedTools("required", (NamedTool("function", "f"), NamedTool("shell"))),
        ),
    ],
)
def test_every_form_of_tool_choice_is_read(raw: bytes, choice: Choice) -> None:
    assert tool_choice(raw) == choice


@pytest.mark.parametrize(
    ("raw", "message", "param"),
    [
        (b'"any"', "Invalid value for 'tool_choice': Invalid enum value 'any'.", "tool_choice"),
        (b"5", "Invalid value for 'tool_choice': Expected `object`, got `int`.", "tool_choice"),
        (b"{}", "Missing required parameter: 'tool_choice.type'.", "tool_choice.type"),
        (b'{"type":"allowed_tools"}', "Missing required parameter: 'tool_choice.mode'.", "tool_choice.mode"),
        (
            b'{"type":"allowed_tools","mode":"none","tools":[]}',
            "Invalid value for 'tool_choice.mode': Invalid enum value 'none'.",
            "tool_choice.mode",
        ),
        (
            b'{"type":"allowed_tools","mode":"auto","tools":["f"]}',
            "Invalid value for 'tool_choice.tools[0]': Expected `object`, got `str`.",
            "tool_choice.tools[0]",
        ),
    ],
)
def test_anything_else_is_no_tool_choice(raw: bytes, message: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        tool_choice(raw)
    assert (str(caught.value), caught.value.param) == (message, param)

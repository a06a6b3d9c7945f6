"""What Codex sends, in small: its headers, items and tools, and the three shapes of its requests (codex.md §2-§4)."""

from collections.abc import Sequence

from rejoinder.conformance.server import Json

THREAD = "01a1fb44-0000-7000-8000-000000000001"

HEADERS = {
    "accept": "text/event-stream",
    "originator": "codex_exec",
    "user-agent": "codex_exec/0.169.0 (Linux; x86_64) dumb (codex_exec; 0.169.0)",
    "session-id": THREAD,
    "thread-id": THREAD,
    "x-client-request-id": THREAD,
    "x-codex-window-id": f"{THREAD}:0",
    "x-codex-turn-metadata": f'{{"thread_id":"{THREAD}","request_kind":"turn"}}',
    "x-codex-beta-features": "remote_compaction_v2",
}
"""Of every request, beside those of HTTP itself."""

UPGRADE = {
    **{name: value for name, value in HEADERS.items() if name != "accept"},
    "openai-beta": "responses_websockets=2026-02-06",
}
"""Of its handshake."""

METADATA: Json = {
    "session_id": THREAD,
    "thread_id": THREAD,
    "turn_id": "01a1fb44-0000-7000-8000-000000000002",
    "x-codex-window-id": f"{THREAD}:0",
    "x-codex-turn-metadata": f'{{"thread_id":"{THREAD}","request_kind":"turn"}}',
}

SEALED: Json = ["reasoning.encrypted_content"]
"""What it includes, always."""


def message(role: str, *texts: str, number: int = 1) -> Json:
    """A message as Codex makes one: with an id of its own, and a part for each text."""
    return {
        "type": "message",
        "id": f"msg_01a1fb44-0000-7000-8000-{number:012}",
        "role": role,
        "content": [{"type": "input_text", "text": text} for text in texts],
    }


INSTRUCTIONS = message("developer", "You are a coding agent. Answer in one sentence.")
CONTEXT = message("user", "<environment_context>\n  <cwd>/work</cwd>\n</environment_context>", number=2)
PROMPT = message("user", "Say hello.", number=3)


def _function(name: str, parameters: dict[str, Json], *required: str) -> Json:
    return {
        "type": "function",
        "name": name,
        "description": f"It does what {name} says.",
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": parameters,
            "required": list(required),
            "additionalProperties": False,
        },
    }


def _namespace(name: str, *tools: Json) -> Json:
    return {"type": "namespace", "name": name, "description": f"The tools of {name}.", "tools": list(tools)}


SHELL = _function("exec_command", {"cmd": {"type": "string"}, "yield_time_ms": {"type": "number"}}, "cmd")
STDIN = _function("write_stdin", {"session_id": {"type": "number"}, "chars": {"type": "string"}}, "session_id")
DOCS = _namespace("mcp__docs", _function("list_pages", {}))
AGENTS = _namespace("multi_agent_v1", _function("spawn_agent", {"message": {"type": "string"}}, "message"))
FREE: Json = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Say hello with it.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "hello" | "hello, world"'},
}
TOOL_SEARCH: Json = {
    "type": "tool_search",
    "execution": "client",
    "description": "Finds tools.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "number"}},
        "required": ["query"],
        "additionalProperties": False,
    },
}
WEB_SEARCH: Json = {"type": "web_search", "external_web_access": False}


def plain(items: Sequence[Json]) -> dict[str, Json]:
    """A request for a model whose name Codex does not know."""
    return {
        "input": list(items),
        "tools": [SHELL, STDIN, AGENTS, WEB_SEARCH],
        "reasoning": {"summary": "auto"},
        "parallel_tool_calls": True,
        **_ALWAYS,
    }


def classic(items: Sequence[Json]) -> dict[str, Json]:
    """A request for a model whose tools may be of other kinds than functions."""
    return {
        "input": list(items),
        "tools": [SHELL, STDIN, FREE, TOOL_SEARCH, WEB_SEARCH],
        "reasoning": {"effort": "medium"},
        "parallel_tool_calls": True,
        "text": {"verbosity": "low"},
        **_ALWAYS,
    }


def lite(items: Sequence[Json]) -> dict[str, Json]:
    """A request for a model that has its tools in its input, and uses them in code."""
    execute: Json = {
        "type": "custom",
        "name": "exec",
        "description": "Runs JavaScript.",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: /(.|\\n)+/"},
    }
    wait = _function("wait", {"cell_id": {"type": "string"}}, "cell_id")
    return {
        "input": [additional_tools(_namespace("functions", execute, wait)), *items],
        "reasoning": {"effort": "low", "context": "all_turns"},
        "parallel_tool_calls": False,
        "text": {"verbosity": "low"},
        **_ALWAYS,
    }


def additional_tools(*tools: Json) -> Json:
    return {
        "type": "additional_tools",
        "id": "at_01a1fb44-0000-7000-8000-000000000004",
        "role": "developer",
        "tools": list(tools),
    }


_ALWAYS: dict[str, Json] = {
    "tool_choice": "auto",
    "store": False,
    "stream": True,
    "include": SEALED,
    "prompt_cache_key": THREAD,
    "client_metadata": METADATA,
}

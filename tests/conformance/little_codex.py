"""What the little server does for Codex alone (codex.md): other kinds of calls, compaction, its catalogue, zstd."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import zstandard

Json = Any


def call(tool: Json, new: Callable[[str], str]) -> Json:
    """A call of a tool, as the kind that it is."""
    match tool["type"]:
        case "namespace":
            return {**call(tool["tools"][0], new), "namespace": tool["name"]}
        case "custom":
            called = {"type": "custom_tool_call", "id": new("ctc"), "name": tool["name"], "input": "hello"}
        case "tool_search":
            called = {"type": "tool_search_call", "id": new("tsc"), "execution": "client", "arguments": {"query": "x"}}
        case _:
            arguments = json.dumps(dict.fromkeys(tool["parameters"].get("required", []), "Oslo"))
            called = {"type": "function_call", "id": new("fc"), "name": tool["name"], "arguments": arguments}
    return {**called, "call_id": new("call"), "status": "completed"}


def compaction(given: Json, new: Callable[[str], str]) -> list[Json]:
    """A compaction, where the last item asks for one."""
    if not isinstance(given, list) or given[-1:] != [{"type": "compaction_trigger"}]:
        return []
    return [{"type": "compaction", "id": new("cmp"), "encrypted_content": "sealed", "status": "completed"}]


def events_of_a_call(place: Json, item: Json) -> Iterator[Json]:
    """What is told between the beginning and the end of a call; of some kinds that is nothing."""
    for kind, field in (("function_call", "arguments"), ("custom_tool_call", "input")):
        if item["type"] == kind:
            stem = f"response.{kind}_{field}"
            yield {"type": f"{stem}.delta", **place, "delta": item[field]}
            yield {"type": f"{stem}.done", **place, field: item[field]}


def catalogue(model: str) -> list[Json]:
    return [
        {
            "slug": model,
            "display_name": model,
            "supported_reasoning_levels": [],
            "shell_type": "unified_exec",
            "visibility": "list",
            "supported_in_api": True,
            "priority": 1,
            "support_verbosity": False,
            "truncation_policy": {"mode": "tokens", "limit": 10000},
            "experimental_supported_tools": [],
            "base_instructions": "You are little.",
        }
    ]


def inflated(body: bytes, coding: str | None) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(BytesIO(body)).read() if coding == "zstd" else body

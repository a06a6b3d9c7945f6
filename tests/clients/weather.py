"""A stdio MCP server with one tool, `get_weather(city)`, for clients that start such servers themselves.

It is run as a script by path, so it needs nothing but Python.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO  # JSON-RPC as it comes: nothing of it leaves this file

_TOOL = {
    "name": "get_weather",
    "description": "The weather of a city, always the same.",
    "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def answers(lines: TextIO) -> Iterator[str]:
    """One line for every request; notifications have no id and get none."""
    for line in lines:
        request = json.loads(line)
        if "id" in request:
            yield json.dumps({"jsonrpc": "2.0", "id": request["id"], **_outcome(request)})


def _outcome(request: dict[str, Any]) -> dict[str, Any]:
    match request["method"]:
        case "initialize":
            version = request["params"]["protocolVersion"]
            server = {"name": "weather", "version": "1"}
            return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}}
        case "tools/list":
            return {"result": {"tools": [_TOOL]}}
        case "tools/call":
            city = request["params"]["arguments"]["city"]
            return {"result": {"content": [{"type": "text", "text": f"It is sunny in {city}."}]}}
        case method:
            return {"error": {"code": -32601, "message": f"unknown method {method!r}"}}


if __name__ == "__main__":
    for answer in answers(sys.stdin):
        print(answer, flush=True)

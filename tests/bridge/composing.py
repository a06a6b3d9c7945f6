"""A composer of one response, and what it has to say."""

import json
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Raw

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.grammar import Mode
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.events import encode
from rejoinder.wire.responses import Response, Usage
from tests.bridge.prompts import Counter, Fields, function, toolbox

TOOLS: Sequence[Fields] = (
    function("f"),
    {"type": "custom", "name": "free"},
    {"type": "namespace", "name": "files", "tools": [function("read"), {"type": "custom", "name": "write"}]},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client"},
)
GRAMMAR: Fields = {"type": "grammar", "syntax": "regex", "definition": "[a-c]+"}
LETTERS: Fields = {"type": "custom", "name": "letters", "format": GRAMMAR}
"""A free-form tool whose text is `a`s, `b`s and `c`s."""
USAGE = Usage(3, output_tokens=4, total_tokens=7)
END = 1_795_000_001
"""Unix seconds at which a response ends, one after it was created."""


def composer(
    box: Toolbox | None = None,
    *,
    parallel: bool = True,
    taken: frozenset[str] = frozenset(),
    reasoning: Literal["summary", "raw"] = "summary",
    grammar: Mode = "pass",
) -> Composer:
    """Ids count from 1; what is sealed can be read."""
    return Composer(
        Response(id="resp_1", created_at=END - 1, model="m", parallel_tool_calls=parallel),
        toolbox(TOOLS) if box is None else box,
        mint=Counter(),
        seal=sealed,
        taken=taken,
        reasoning=reasoning,
        grammar=grammar,
    )


def sealed(parts: list[Raw], calls: dict[str, Raw]) -> str:
    return msgspec.json.encode([parts, calls]).decode()


def told(out: Composer) -> list[Fields]:
    """The events so far without their numbers, which count from where they should; responses by status and output."""
    found = []
    for event in out.drain():
        fields = json.loads(encode(event))
        del fields["sequence_number"]
        if "response" in fields:
            whole = fields["response"]
            fields["response"] = {"status": whole["status"], "output": whole["output"]}
        found.append(fields)
    return found


def encoded(out: Composer) -> list[bytes]:
    return [encode(event) for event in out.drain()]

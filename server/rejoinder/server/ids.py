"""Ids of responses and of everything in them (objects.md §10).

A response id holds 128 random bits; the ids of its items hold the same bits and a number, so an item's id says which
response it belongs to and no index is needed to find it again.
"""

from collections.abc import Callable


class Ids:
    """The ids of one response. `random` gives that many random bytes."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._begin(random(16).hex())

    @classmethod
    def of(cls, response_id: str) -> "Ids":
        """The ids of a response that has its own already, from the first one on."""
        ids = cls.__new__(cls)
        ids._begin(response_id.removeprefix("resp_"))
        return ids

    def _begin(self, stem: str) -> None:
        self.stem = stem
        self._count = 0
        self.response = f"resp_{stem}"

    def mint(self, prefix: str) -> str:
        """The next id: `msg_` and 36 hexadecimal digits."""
        self._count += 1
        return f"{prefix}_{self.stem}{self._count:04x}"


PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "additional_tools": "at",
    "agent_message": "amsg",
    "compaction": "cmp",
    "web_search_call": "ws",
}
"""The prefix for an item a client sent without an id; `item` for every other type."""

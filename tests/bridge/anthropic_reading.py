"""What a recorded answer says, read as plainly as can be: whole, with `json`, and nothing of the bridge."""

import json
from dataclasses import dataclass, field

from tests.bridge.recordings import Json, Object, Recording, objects


@dataclass(slots=True)
class Said:
    """An answer: its blocks as a whole message would have them, how it stopped, its last counts, and whether the
    provider started over in its middle."""

    blocks: list[Object] = field(default_factory=list)
    stop: Json = None
    details: Json = None
    usage: Object = field(default_factory=dict)
    restarted: bool = False

    @property
    def messages(self) -> list[list[Object]]:
        """The runs of text blocks that no other block stands between."""
        runs: list[list[Object]] = [[]]
        for block in self.blocks:
            if block["type"] != "text":
                runs.append([])
            elif block["text"]:
                runs[-1].append(block)
        return [run for run in runs if run]

    @property
    def texts(self) -> list[str]:
        return ["".join(str(block["text"]) for block in run) for run in self.messages]

    @property
    def thoughts(self) -> list[str]:
        return [str(block["thinking"]) for block in self.blocks if block["type"] == "thinking" and block["thinking"]]

    @property
    def calls(self) -> list[Object]:
        return [block for block in self.blocks if block["type"] == "tool_use"]

    @property
    def searches(self) -> list[Json]:
        """What was searched for. A result without a search belongs to one of an earlier request."""
        found: dict[Json, Json] = {}
        for block in self.blocks:
            match block:
                case {"type": "server_tool_use", "name": "web_search", "id": key, "input": {"query": query}}:
                    found[key] = query
                case {"type": "web_search_tool_result", "tool_use_id": key}:
                    found.setdefault(key, "")
        return list(found.values())

    @property
    def order(self) -> list[str]:
        """The items that show something, in their order."""
        kinds: list[str] = []
        previous = ""
        for block in self.blocks:
            match block:
                case {"type": "text", "text": text}:
                    if text and (previous != "text" or kinds[-1:] != ["message"]):
                        kinds.append("message")
                case {"type": "thinking", "thinking": str(text)} if text:
                    kinds.append("reasoning")
                case {"type": "tool_use"}:
                    kinds.append("function_call")
                case {"type": "server_tool_use", "name": "web_search"}:
                    kinds.append("web_search_call")
                case {"type": "web_search_tool_result"} if self._is_late(block):
                    kinds.append("web_search_call")
            previous = str(block["type"])
        return kinds

    def _is_late(self, result: Object) -> bool:
        return all(block.get("id") != result["tool_use_id"] for block in self.blocks)

    @property
    def cited(self) -> list[tuple[Json, ...]]:
        """Every citation: kind, what is cited, its title, and where in the message (mapping.md §6)."""
        found: list[tuple[Json, ...]] = []
        for run in self.messages:
            end = 0
            for block in run:
                start, end = end, end + len(str(block["text"]))
                for cited in objects(block.get("citations") or []):
                    match cited:
                        case {"url": url, "title": title}:
                            found.append(("url_citation", url, title or url, start, end))
                        case {"type": "search_result_location", "source": source, "title": title}:
                            found.append(("url_citation", source, title, start, end))
                        case {"document_index": number, "document_title": title}:
                            name = f"document_{number}"
                            found.append(("file_citation", name, title or name, end))
        return found


def said(exchange: Recording) -> Said:
    """Read an answer."""
    if not exchange.is_stream:
        [message] = objects([json.loads(exchange.body)])
        [usage] = objects([message["usage"]])
        return Said(objects(message["content"]), message["stop_reason"], message.get("stop_details"), usage)
    found = Said()
    blocks: dict[Json, Object] = {}
    for line in exchange.body.decode().splitlines():
        if line.startswith("data:"):
            for event in objects([json.loads(line.removeprefix("data:"))]):
                _event(event, found, blocks)
    found.blocks = list(blocks.values())
    for block in found.blocks:
        if isinstance(written := block.pop("written", None), str):
            block["input"] = json.loads(written or "{}")
    return found


def _event(event: Object, found: Said, blocks: dict[Json, Object]) -> None:
    match event:
        case {"type": "message_start", "message": {"usage": dict(usage)}}:
            found.restarted = found.restarted or bool(blocks)
            found.usage.update(usage)
        case {"type": "content_block_start", "index": index, "content_block": dict(block)}:
            blocks[index] = block
        case {"type": "content_block_delta", "index": index, "delta": dict(delta)}:
            _delta(delta, blocks[index])
        case {"type": "message_delta", "delta": dict(delta), **rest}:
            found.stop, found.details = delta["stop_reason"], delta.get("stop_details")
            found.usage.update(*objects([rest["usage"]]))


def _delta(delta: Object, block: Object) -> None:
    match delta:
        case {"type": "text_delta", "text": str(text)}:
            block["text"] = str(block["text"]) + text
        case {"type": "thinking_delta", "thinking": str(text)}:
            block["thinking"] = str(block["thinking"]) + text
        case {"type": "signature_delta", "signature": signature}:
            block["signature"] = signature
        case {"type": "input_json_delta", "partial_json": str(text)}:
            block["written"] = str(block.get("written", "")) + text
        case {"type": "citations_delta", "citation": citation}:
            block["citations"] = [*objects(block.get("citations") or []), *objects([citation])]
        case {"type": "compaction_delta", "content": content}:
            block["content"] = content
        case _:
            raise AssertionError(f"a delta of a kind no recording had: {delta}")

"""How the little bridge tells in events what a provider of Chat Completions says."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tests.conformance.little_prompt import seal

Json = Any  # JSON as dicts and lists: faults reach for it at every depth


class Telling:
    """One answer: chunks go in, events come out, and at the end there is a response."""

    def __init__(self, response: Json, custom: set[str], new: Callable[[str], str], *, keeps_ids: bool) -> None:
        self.response = response
        self.finish: str | None = None
        self._custom = custom
        self._new = new
        self._keeps_ids = keeps_ids
        self._numbers = iter(range(10**9))
        self._open: Json = None
        self._calls: dict[int, Json] = {}
        self._arguments: dict[int, str] = {}
        self._thoughts: Json = {}

    @property
    def output(self) -> list[Json]:
        output: list[Json] = self.response["output"]
        return output

    def event(self, kind: str, **fields: Json) -> Json:
        return {"type": f"response.{kind}", "sequence_number": next(self._numbers), **fields}

    def begin(self) -> Iterator[Json]:
        for kind in ("created", "in_progress"):
            yield self.event(kind, response={**self.response, "output": []})

    def take(self, chunk: Json) -> Iterator[Json]:
        for choice in chunk.get("choices", []):
            delta = choice["delta"]
            for name in ("reasoning_content", "reasoning", "reasoning_details"):
                if delta.get(name):
                    yield from self._think(name, delta[name])
            if delta.get("content"):
                yield from self._say("output_text", "text", delta["content"])
            if delta.get("refusal"):
                yield from self._say("refusal", "refusal", delta["refusal"])
            for call in delta.get("tool_calls", []):
                yield from self._call(call)
            self.finish = choice.get("finish_reason") or self.finish
        if usage := chunk.get("usage"):
            self.response["usage"] = _usage(usage)

    def end(self, status: str, reason: str | None = None) -> Iterator[Json]:
        """Close what is open, and tell the end."""
        yield from self._close()
        for index, call in self._calls.items():
            yield from self._end_call(index, call, status)
        self.response |= {"status": status, "incomplete_details": {"reason": reason} if reason else None}
        if status == "failed":
            self.response["error"] = {"code": "server_error", "message": "the provider broke off"}
        yield self.event(status, response=self.response)

    def drop_calls(self) -> None:
        self._calls = {}
        self.response["output"] = [item for item in self.output if not item["type"].endswith("_call")]

    def _item(self, item: Json) -> Iterator[Json]:
        self.output.append(item)
        empty: Json = {"content": [], "summary": []}
        added = {name: empty.get(name, value) for name, value in item.items()}
        yield self.event("output_item.added", output_index=len(self.output) - 1, item=added)

    def _place(self, item: Json) -> Json:
        return {"output_index": self.output.index(item), "item_id": item["id"]}

    def _close(self) -> Iterator[Json]:
        item, self._open = self._open, None
        if item is None:
            return
        item["status"] = "completed"
        if item["type"] == "reasoning":
            item["encrypted_content"] = seal(self._thoughts)
            item["summary"][0]["text"] = _shown(self._thoughts)
        yield self.event("output_item.done", output_index=self.output.index(item), item=item)

    def _think(self, name: str, said: Json) -> Iterator[Json]:
        if self._open is None or self._open["type"] != "reasoning":
            yield from self._close()
            summary = [{"type": "summary_text", "text": ""}]
            self._open = {"type": "reasoning", "id": self._new("rs"), "status": "in_progress", "summary": summary}
            self._thoughts = {}
            yield from self._item(self._open)
        if name == "reasoning_details":
            self._thoughts[name] = [_joined(self._thoughts.get(name), said[0])]
        else:
            self._thoughts[name] = self._thoughts.get(name, "") + said
            place = self._place(self._open)
            yield self.event("reasoning_summary_text.delta", **place, summary_index=0, delta=said)

    def _say(self, kind: str, field: str, said: str) -> Iterator[Json]:
        if self._open is None or self._open["type"] != "message":
            yield from self._close()
            part = {"type": kind, field: "", **({"annotations": []} if kind == "output_text" else {})}
            message = {"type": "message", "id": self._new("msg"), "role": "assistant", "status": "in_progress"}
            self._open = {**message, "content": [part]}
            yield from self._item(self._open)
        self._open["content"][0][field] += said
        yield self.event(f"{kind}.delta", **self._place(self._open), content_index=0, delta=said)

    def _call(self, told: Json) -> Iterator[Json]:
        index = told["index"]
        function = told["function"]
        if index not in self._calls:
            yield from self._close()
            call_id = told["id"] if self._keeps_ids else self._new("call")
            call = {"id": self._new("fc"), "status": "in_progress", "call_id": call_id, "name": function["name"]}
            is_custom = function["name"] in self._custom
            kind = (
                {"type": "custom_tool_call", "input": ""} if is_custom else {"type": "function_call", "arguments": ""}
            )
            self._calls[index] = call | kind
            self._arguments[index] = ""
            yield from self._item(self._calls[index])
        if said := function.get("arguments"):
            call = self._calls[index]
            self._arguments[index] += said
            if call["type"] == "function_call":
                call["arguments"] += said
                yield self.event("function_call_arguments.delta", **self._place(call), delta=said)

    def _end_call(self, index: int, call: Json, status: str) -> Iterator[Json]:
        call["status"] = "incomplete" if status == "failed" else "completed"
        if call["type"] == "function_call":
            call["arguments"] = call["arguments"] or "{}"
        elif status != "failed":
            call["input"] = msgspec.json.decode(self._arguments[index])["input"]
        yield self.event("output_item.done", output_index=self.output.index(call), item=call)


def _joined(before: Json, detail: Json) -> Json:
    """The pieces of one entry of the details."""
    entry = before[0] if before else {}
    text = entry.get("text", "") + (detail.get("text") or "")
    return {**entry, **detail, "text": text}


def _shown(thoughts: Json) -> str:
    if details := thoughts.get("reasoning_details"):
        return str(details[0]["text"])
    return "".join(thoughts.values())


def _usage(told: Json) -> Json:
    cached = told["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": told["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": told["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": told["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": told["total_tokens"],
    }

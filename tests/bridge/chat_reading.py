"""What a recorded answer says, read as plainly as can be: whole, with `json`, and nothing of the bridge."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bridge.chat_recordings import profile_of
from tests.bridge.recordings import Json, Object, Recording, objects


@dataclass(slots=True)
class Call:
    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Said:
    """The first choice of an answer. `order` names what came after what, runs of one kind counted once; `cited` are
    the citations with a place in the text; `thoughts` are the fields that hold reasoning, as a whole message would have
    them; `usage` is the last one given; `ended` says whether `[DONE]` was seen."""

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    cited: list[Object] = field(default_factory=list)
    thoughts: Object = field(default_factory=dict)
    finish: str | None = None
    usage: Object | None = None
    error: Object | None = None
    ended: bool = False


def said(recording: Recording) -> Said:
    """Read an answer."""
    reading = _Reading(recording.is_stream)
    for chunk in _chunks(recording, reading.said):
        reading.chunk(chunk)
    if profile_of(recording).think_tags:
        _split_tags(reading.said)
    return reading.said


def _split_tags(said: Said) -> None:
    """Reasoning inside the text: from `<think>` at its beginning to `</think>` or the end (provider-chat.md §6)."""
    if tagged := re.match(r"\s*<think>(?P<thought>.*?)(</think>\n*|$)", said.text, re.DOTALL):
        said.reasoning += tagged["thought"]
        said.text = said.text[tagged.end() :]
        at = said.order.index("message")
        said.order[at : at + 1] = ["reasoning", "message"] if said.text else ["reasoning"]


def _chunks(recording: Recording, into: Said) -> Iterator[Object]:
    if not recording.is_stream:
        yield from objects([json.loads(recording.body)])
        return
    for line in recording.body.decode().splitlines():
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                into.ended = True
                return
            yield from objects([json.loads(data)])


class _Reading:
    def __init__(self, is_stream: bool) -> None:
        self.said = Said()
        self._is_stream = is_stream
        self._calls: dict[Json, Call] = {}
        self._details: dict[tuple[Json, Json], Object] = {}

    def chunk(self, chunk: Object) -> None:
        if isinstance(error := chunk.get("error"), dict):
            self.said.error = self.said.error or error
        self._usage(chunk)
        for choice in objects(chunk.get("choices") or []):
            if choice.get("index", 0) == 0:
                self._choice(choice)

    def _usage(self, holder: Object) -> None:
        if isinstance(usage := holder.get("usage"), dict):
            self.said.usage = usage

    def _choice(self, choice: Object) -> None:
        self._usage(choice)
        if isinstance(finish := choice.get("finish_reason"), str):
            self.said.finish = finish or self.said.finish
        # Perplexity has both: in a stream the message is everything so far, in a body the delta is empty.
        for name in ("delta", "message") if self._is_stream else ("message",):
            if isinstance(delta := choice.get(name), dict):
                self._delta(delta)
                return

    def _delta(self, delta: Object) -> None:
        self._reasoning(delta)
        self._keep(delta)
        match delta.get("content"):
            case str() as text:
                self._text(text)
            case list() as parts:
                for part in objects(parts):
                    if part["type"] == "thinking":
                        self._thought("".join(str(piece["text"]) for piece in objects(part["thinking"])))
                    else:
                        self._text(str(part["text"]))
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            self.said.refusal += refusal
            self._came("message")
        for annotation in objects(delta.get("annotations") or []):
            self.said.cited.extend(objects([annotation["url_citation"]]))
        for place, call in enumerate(objects(delta.get("tool_calls") or [])):
            self._call(call.get("index", place), call)

    def _keep(self, delta: Object) -> None:
        """The fields that hold reasoning, fragments joined."""
        kept = self.said.thoughts
        for name in ("reasoning_content", "reasoning"):
            if isinstance(text := delta.get(name), str) and text:
                kept[name] = str(kept.get(name, "")) + text
        if "extra_content" in delta:
            kept["extra_content"] = delta["extra_content"]
        for fragment in objects(delta.get("reasoning_details") or []):
            key = fragment["type"], fragment.get("index", len(self._details))
            entry = self._details.setdefault(key, {})
            text = str(entry.get("text", "")) + str(fragment.get("text", ""))
            entry.update(fragment)
            if "text" in entry:
                entry["text"] = text
        if self._details:
            kept["reasoning_details"] = list(self._details.values())
        for part in objects(delta["content"] if isinstance(delta.get("content"), list) else []):
            if part["type"] == "thinking":
                # In a stream every fragment of the one chunk has a list of its own.
                before = objects(kept.get("thinking") or [{**part, "thinking": []}])[0]
                text = "".join(str(piece["text"]) for piece in objects(before["thinking"]) + objects(part["thinking"]))
                kept["thinking"] = [{**before, **part, "thinking": [{"type": "text", "text": text}]}]

    def _reasoning(self, delta: Object) -> None:
        # Where the same text comes under two names it counts once.
        plain = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(plain, str):
            self._thought(plain)
            return
        for detail in objects(delta.get("reasoning_details") or []):
            self._thought(str(detail.get("text") or detail.get("summary") or ""))

    def _thought(self, text: str) -> None:
        if text:
            self.said.reasoning += text
            self._came("reasoning")

    def _text(self, text: str) -> None:
        if text:
            self.said.text += text
            self._came("message")

    def _call(self, index: Json, fragment: Object) -> None:
        [function] = objects([fragment["function"]])
        given = fragment.get("id")
        call = self._calls.get(index)
        if call is None or (given and given != call.id):
            call = self._calls[index] = Call(str(given or ""), "", "")
            self.said.calls.append(call)
            self.said.order.append("function_call")
        call.name = call.name or str(function.get("name") or "")
        call.arguments += str(function.get("arguments") or "")

    def _came(self, kind: str) -> None:
        if self.said.order[-1:] != [kind]:
            self.said.order.append(kind)

"""What a recorded answer of Gemini says, read as plainly as can be: whole, with `json`, and nothing of the bridge."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bridge.recordings import Json, Object, Recording, objects


@dataclass(slots=True)
class Call:
    id: Json
    name: str
    arguments: Json


@dataclass(slots=True)
class Said:
    """The first candidate of an answer. `order` names what came after what, with the items that hold nothing but state
    in their places; `parts` are those that go back, increments joined; `cited` are URLs with the words they stand for;
    `usage` holds the last number given under each name."""

    text: str = ""
    thoughts: str = ""
    calls: list[Call] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    parts: list[Object] = field(default_factory=list)
    queries: list[Json] = field(default_factory=list)
    cited: list[tuple[str, str]] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    finish: str | None = None
    blocked: bool = False


def chunks(exchange: Recording) -> list[Object]:
    """The response objects of an answer: lines of a stream, elements of an array, or one body."""
    body = exchange.body.decode()
    if body.startswith("data:"):
        lines = (line for line in body.splitlines() if line.startswith("data:"))
        return objects([json.loads(line.removeprefix("data:")) for line in lines])
    whole = json.loads(body)
    return objects(whole if isinstance(whole, list) else [whole])


def said(exchange: Recording) -> Said:
    """Read an answer."""
    reading = _Reading()
    for chunk in chunks(exchange):
        reading.chunk(chunk)
    reading.close()
    return reading.said


class _Reading:
    def __init__(self) -> None:
        self.said = Said()
        self._searched = False
        self._signed_text = False
        self._ids_came = False
        self._streamed: Object | None = None

    def chunk(self, chunk: Object) -> None:
        said = self.said
        for name, number in _object(chunk.get("usageMetadata", {})).items():
            if isinstance(number, int):
                said.usage[name] = number
        said.blocked = said.blocked or "blockReason" in _object(chunk.get("promptFeedback", {}))
        for candidate in objects(chunk.get("candidates", [])):
            self._candidate(candidate)

    def close(self) -> None:
        self._leave_text()
        if self.said.queries and not self._searched:
            self.said.order.append("web_search_call")

    def _candidate(self, candidate: Object) -> None:
        said = self.said
        finish = candidate.get("finishReason")
        grounding = _object(candidate.get("groundingMetadata", {}))
        if isinstance(queries := grounding.get("webSearchQueries"), list):
            said.queries = queries
        for part in objects(_object(candidate.get("content", {})).get("parts", [])):
            if "functionCall" not in part or finish != "UNEXPECTED_TOOL_CALL":
                self._part(part)
        self._cite(grounding)
        said.finish = str(finish) if finish else said.finish

    def _part(self, part: Object) -> None:
        said = self.said
        match part:
            case {"text": str(text), "thought": True}:
                said.thoughts += text
                self._came("reasoning")
                self._back(part)
            case {"text": ""} if "thoughtSignature" not in part:
                pass
            case {"text": str(text)}:
                if said.queries and not self._searched and said.order[-1:] != ["message"]:
                    self._came("web_search_call")
                    self._searched = True
                said.text += text
                if text:
                    self._came("message")
                elif said.order[-1:] != ["message"]:
                    self._came("reasoning")
                self._signed_text = self._signed_text or (said.order[-1] == "message" and "thoughtSignature" in part)
                self._back(part)
            case {"functionCall": dict() as call}:
                self._call(call, part)
            case _:
                tool = _object(part.get("toolCall", {})).get("toolType")
                if str(tool).startswith("GOOGLE_SEARCH"):
                    self._came("web_search_call")
                    self._searched = True
                else:
                    self._came("reasoning")
                self._back(part)

    def _call(self, call: Object, part: Object) -> None:
        """A call, or a piece of one that says where in the arguments it belongs."""
        if name := call.get("name"):
            if "thoughtSignature" in part or (("id" in call) != self._ids_came):
                self._came("reasoning")
                self._ids_came = "id" in call
            self._came("function_call")
            whole = {**call, "args": call.get("args", {})}
            whole.pop("willContinue", None)
            self.said.calls.append(Call(call.get("id"), str(name), whole["args"]))
            self._streamed = _object(whole["args"])
            self.said.parts.append({**part, "functionCall": whole})
        for piece in objects(call.get("partialArgs", [])):
            assert self._streamed is not None
            _put(self._streamed, str(piece["jsonPath"]), piece.get("stringValue", piece.get("numberValue")))

    def _back(self, part: Object) -> None:
        before = self.said.parts[-1] if self.said.parts else {}
        if "text" in part and before.keys() == part.keys() and "thoughtSignature" not in part:
            before["text"] = f"{before['text']}{part['text']}"
        else:
            self.said.parts.append(dict(part))

    def _came(self, kind: str) -> None:
        order = self.said.order
        if order[-1:] == ["message"] and kind != "message":
            self._leave_text()
        if order[-1:] != [kind] or kind == "function_call":
            order.append(kind)

    def _leave_text(self) -> None:
        if self._signed_text:
            self.said.order.append("reasoning")
        self._signed_text = False

    def _cite(self, grounding: Object) -> None:
        sources = objects(grounding.get("groundingChunks", []))
        for support in objects(grounding.get("groundingSupports", [])):
            for number in _numbers(support["groundingChunkIndices"]):
                if isinstance(web := sources[number].get("web"), dict):
                    self.said.cited.append((str(web["uri"]), str(_object(support["segment"])["text"])))


def _put(arguments: Object, path: str, value: Json) -> None:
    """Into arguments that grow from left to right: names and numbers between dots and brackets."""
    steps = path.removeprefix("$.").replace("[", ".#").replace("]", "").split(".")
    holder: Json = arguments
    for place, step in enumerate(steps):
        last = place == len(steps) - 1
        inner: Json = value if last else [] if steps[place + 1].startswith("#") else {}
        if isinstance(holder, list):
            if len(holder) == int(step[1:]):
                holder.append(inner)
            elif last:
                holder[-1] = f"{holder[-1]}{value}"
            holder = holder[-1]
        else:
            assert isinstance(holder, dict)
            if step in holder and last:
                holder[step] = f"{holder[step]}{value}"
            holder = holder.setdefault(step, inner)


def _numbers(value: Json) -> Iterator[int]:
    assert isinstance(value, list)
    for number in value:
        assert isinstance(number, int)
        yield number


def _object(value: Json) -> Object:
    assert isinstance(value, dict), value
    return value

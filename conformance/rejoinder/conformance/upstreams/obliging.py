"""A model that does what it is told, so that rules which need no script are looked at in front of a scripted provider.

It calls what it has to call, fills in what has to be filled in, stops where it has to stop, thinks when it is asked to,
and counts every word it reads and says as a token.
"""

from collections.abc import Sequence

import msgspec

from rejoinder.conformance.upstreams.example import example
from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.responses_script import compaction, custom_call, item
from rejoinder.conformance.upstreams.script import Answer, Part, Usage, answer, call, calls, text, thought
from rejoinder.conformance.upstreams.seen import WORD, Offered, Seen

_GREETING = "Hello, I am the scripted provider."
_COUNTED = " ".join(["one", *(f"{number}, and then one more" for number in range(2, 60))])
_OBJECT = '{"hello": "world"}'
_SEALED = "gAAAAAscriptedcompaction"
_REASON = "Let me think about it."
_SLOWLY = 0.01
"""Seconds between two words, for whom it is to be slow."""


def obliging(seen: Seen) -> Answer:
    """What it answers."""
    if seen.compacts:
        return answer(compaction(_SEALED), usage=_usage(seen, [], 5))
    gap = _SLOWLY if "slowly" in seen.asked.lower() else 0
    thoughts = [thought(*_words(_REASON))] if seen.effort or "think" in seen.asked.lower() else []
    if wanted := _wanted(seen):
        parts = [calling(tool, number=len(seen.calls)) for tool in wanted]
        return answer(*thoughts, *parts, usage=_usage(seen, thoughts, 5), gap=gap)
    said = _words(_text(seen))
    if seen.limit is not None and len(said) > seen.limit:
        shown = text(*said[: seen.limit])
        return answer(*thoughts, shown, finish="length", usage=_usage(seen, thoughts, seen.limit), gap=gap)
    compacted = [compaction(_SEALED)] if seen.compacts_too else []
    return answer(*thoughts, text(*said), *compacted, usage=_usage(seen, thoughts, len(said)), gap=gap)


def _words(said: str) -> list[str]:
    return WORD.findall(said)


def calling(tool: Offered, *fragments: str, number: int = 0) -> Part:
    """A call of that tool, with these arguments or with some that fit; `number` makes its id another one."""
    id = f"call_{tool.name}_{number}"
    arguments = "".join(fragments) or (example(tool.schema) if tool.schema else "{}")
    if tool.kind == "custom":
        return custom_call(tool.name, *(fragments or ("Ada",)), id=id)
    if tool.kind == "search":
        found: Json = msgspec.json.decode(arguments)
        return item({"type": "tool_search_call", "call_id": id, "execution": "client", "arguments": found})
    if tool.namespace:
        named: dict[str, Json] = {"call_id": id, "name": tool.name, "namespace": tool.namespace}
        return item({"type": "function_call", **named, "arguments": arguments, "status": "completed"})
    return calls(call(tool.name, *(fragments or (arguments,)), id=id))


def telling(tool: Offered, said: str) -> Part:
    """A call that tells a custom tool this text, whether the tool is known as one or as a function with one string."""
    if tool.kind != "custom":
        [name, *_] = msgspec.json.decode(tool.schema, type=_Object).properties
        said = msgspec.json.encode({name: said}).decode()
    return calling(tool, *_pieces(said))


class _Object(msgspec.Struct):
    properties: dict[str, object]


def _pieces(said: str) -> list[str]:
    return [said[at : at + 5] for at in range(0, len(said), 5)]


def _wanted(seen: Seen) -> list[Offered]:
    """The tools that have to be called: the first of those that may be."""
    if seen.choice.mode != "required":
        return []
    return [tool for tool in seen.tools if not seen.choice.names or tool.name in seen.choice.names][:1]


def _text(seen: Seen) -> str:
    match seen.form.kind:
        case "json_schema":
            return example(seen.form.schema)
        case "json_object":
            return _OBJECT
        case _ if "JSON" in seen.system:  # a protocol without such a form is told in words
            return _OBJECT
        case _:
            return _COUNTED if "count" in seen.asked.lower() else _GREETING


def _usage(seen: Seen, thoughts: Sequence[Part], said: int) -> Usage:
    thinking = 5 * len(thoughts)
    return Usage(prompt=seen.tokens, completion=thinking + said, reasoning=thinking)

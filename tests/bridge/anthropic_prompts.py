"""Prompts for Anthropic's dialect, and what it makes of them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from msgspec import Raw

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.toolbox import Toolbox
from tests.bridge.prompts import Fields, prompt
from tests.bridge.recordings import Object, objects

PLAIN = AnthropicProfile(caching="explicit")
"""Without the cache, which would be in every request."""

OLD = "claude-sonnet-4-5"
NEW = "claude-opus-5"
BOUND = "claude-sonnet-5-5"
_ISSUER = Issuer("anthropic", "here", "model")


def prompt_for(
    said: Sequence[Fields] | str = "hi",
    opened: Mapping[str, Envelope] | None = None,
    *,
    model: str = OLD,
    profile: AnthropicProfile = PLAIN,
    **fields: object,
) -> Prompt:
    hosted = AnthropicDialect(profile).hosted
    # What a choice names must be among the tools, and which tools there are depends on the dialect.
    request = prompt(
        said, opened, **{name: value for name, value in fields.items() if name != "tool_choice"} | {"tools": []}
    )
    made = dataclasses.replace(request, model=model)
    declared = prompt("x", None, tools=fields.get("tools", []), tool_choice=fields.get("tool_choice", "auto")).request
    toolbox = Toolbox.of(declared.tools, made.items, declared.tool_choice, hosted)
    return dataclasses.replace(made, toolbox=toolbox)


def body_of(made: Prompt, profile: AnthropicProfile = PLAIN) -> Object:
    [body] = objects([json.loads(AnthropicDialect(profile).call(made).body)])
    return body


def body(
    said: Sequence[Fields] | str = "hi",
    opened: Mapping[str, Envelope] | None = None,
    *,
    model: str = OLD,
    profile: AnthropicProfile = PLAIN,
    **fields: object,
) -> Object:
    """The body of a request."""
    return body_of(prompt_for(said, opened, model=model, profile=profile, **fields), profile)


def messages(
    said: Sequence[Fields] | str, opened: Mapping[str, Envelope] | None = None, **fields: object
) -> list[Object]:
    """The messages of a request, those of one text in short: the role and the text."""
    return [_short(message) for message in objects(body(said, opened, **fields)["messages"])]  # type: ignore[arg-type]  # they are settings of `body` too


def _short(message: Object) -> Object:
    match message:
        case {"role": str(role), "content": [{"type": "text", "text": text, **rest}]} if not rest:
            return {role: text}
        case _:
            return message


def envelope(*parts: object, calls: Mapping[str, object] | None = None) -> Envelope:
    raws = {name: Raw(json.dumps(value).encode()) for name, value in (calls or {}).items()}
    return Envelope(_ISSUER, [Raw(json.dumps(part).encode()) for part in parts], raws)


def thought(sealed: str, text: str = "") -> Fields:
    """A reasoning item; its id is `rs_1` for `e1`."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {
        "type": "reasoning",
        "id": f"rs_{sealed.removeprefix('e')}",
        "summary": summary,
        "encrypted_content": sealed,
    }

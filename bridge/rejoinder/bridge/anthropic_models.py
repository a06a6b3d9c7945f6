"""What differs between the models behind Anthropic's protocol (provider-anthropic.md §1, §2, §3, §5, §6).

The provider tells it per model in its list of models; a request cannot wait for that, so the families are a table of
name patterns here, and a profile may add its own in front of them.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

from rejoinder.wire.request import Effort

Level = Literal["low", "medium", "high", "xhigh", "max"]
Kind = Literal["enabled", "adaptive", "disabled"]


class Traits(Struct, frozen=True, forbid_unknown_fields=True):
    """What one family of models takes. The defaults suit a compatible server with a model of its own (§11)."""

    max_tokens: int = 8192
    """The most it can write, and what is asked for where the client sets no limit (§2)."""

    thinking: tuple[Kind, ...] = ("enabled",)
    """The kinds of `thinking` it knows; with `enabled` goes a budget (§5)."""

    efforts: tuple[Level, ...] = ()
    """The levels of `output_config.effort` (§5); none: the parameter is refused."""

    sampling: Literal["any", "one", "none"] = "any"
    """`one`: `temperature` or `top_p`, not both. `none`: a 400 for either (§1)."""

    system_messages: bool = False
    """Messages of the role `system` may stand inside the conversation (§3)."""

    structured: bool = False
    """It has `output_config.format`, and strict tools (§6)."""

    forced_tools: bool = True
    """A tool may be demanded; with a budget of thinking never (§4)."""

    bound: bool = False
    """Its thinking is bound to the very conversation it came from (§5.5)."""


_MANUAL: tuple[Kind, ...] = ("enabled", "disabled")
_BOTH: tuple[Kind, ...] = ("enabled", "adaptive", "disabled")
_ADAPTIVE: tuple[Kind, ...] = ("adaptive", "disabled")
_ALWAYS: tuple[Kind, ...] = ("adaptive",)
_TO_MAX: tuple[Level, ...] = ("low", "medium", "high", "max")
_ALL: tuple[Level, ...] = ("low", "medium", "high", "xhigh", "max")

_NEWEST = Traits(
    max_tokens=128_000,
    thinking=_ADAPTIVE,
    efforts=_ALL,
    sampling="none",
    system_messages=True,
    structured=True,
    forced_tools=False,
    bound=True,
)

FAMILIES: Mapping[str, Traits] = {
    r"claude-(instant|2|3-(opus|sonnet|haiku))": Traits(max_tokens=4096, thinking=()),
    r"claude-3-5": Traits(thinking=()),
    r"claude-3-7": Traits(max_tokens=64_000, thinking=_MANUAL),
    r"claude-opus-4-1(?!\d)": Traits(max_tokens=32_000, thinking=_MANUAL, sampling="one", structured=True),
    r"claude-(sonnet|haiku)-4-5": Traits(max_tokens=64_000, thinking=_MANUAL, sampling="one", structured=True),
    r"claude-opus-4-5": Traits(
        max_tokens=64_000, thinking=_MANUAL, efforts=("low", "medium", "high"), sampling="one", structured=True
    ),
    r"claude-(opus|sonnet)-4-6": Traits(
        max_tokens=64_000, thinking=_BOTH, efforts=_TO_MAX, sampling="one", structured=True
    ),
    r"claude-opus-4-7": Traits(max_tokens=128_000, thinking=_ADAPTIVE, efforts=_ALL, sampling="none", structured=True),
    r"claude-sonnet-4(?!-[1-9](?!\d))": Traits(max_tokens=64_000, thinking=_MANUAL),
    r"claude-opus-4(?!-[1-9](?!\d))|claude-4-opus": Traits(max_tokens=32_000, thinking=_MANUAL),
    r"claude-(opus-4-8|(opus|sonnet|haiku)-5(?!-[1-9](?!\d)))": Traits(
        max_tokens=128_000,
        thinking=_ADAPTIVE,
        efforts=_ALL,
        sampling="none",
        system_messages=True,
        structured=True,
    ),
    r"claude-(fable|mythos)-5(?!-[1-9](?!\d))": Traits(
        max_tokens=128_000,
        thinking=_ALWAYS,
        efforts=_ALL,
        sampling="none",
        system_messages=True,
        structured=True,
        forced_tools=False,
    ),
    r"claude-(fable|mythos)": Traits(
        max_tokens=128_000,
        thinking=_ALWAYS,
        efforts=_ALL,
        sampling="none",
        system_messages=True,
        structured=True,
        forced_tools=False,
        bound=True,
    ),
    # A family that came after this table is most likely like the newest one in it.
    r"claude": _NEWEST,
}
"""The first pattern found in a name says what the model takes. A date after the name is no version of it."""

_FAMILIES = [(re.compile(pattern), traits) for pattern, traits in FAMILIES.items()]


def traits_of(model: str, overrides: Mapping[str, Traits]) -> Traits:
    """What the model takes. `overrides` maps globs of names to what is true of them, and is asked first."""
    for pattern, traits in overrides.items():
        if fnmatchcase(model, pattern):
            return traits
    # Resellers write `anthropic/claude-sonnet-4.5`, `anthropic.claude-…-v1:0` and `claude-…@20250929`.
    name = model.lower().replace(".", "-")
    return next((traits for pattern, traits in _FAMILIES if pattern.search(name)), Traits())


_LEVELS: Mapping[Effort, Level] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
    "ultra": "max",
}

BUDGETS: Mapping[Effort, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 64_000,
    "ultra": 64_000,
}
"""Tokens of thinking where there is no effort to ask for (§5)."""

MIN_BUDGET = 1024
RESERVE = 1024
"""Tokens that stay for what is not thought (lessons.md S-043)."""


def level(effort: Effort, traits: Traits) -> Level | None:
    """The level closest to what is asked for: of two the higher one. None where the model has none at all."""
    wanted = _ALL.index(_LEVELS[effort])
    at_least = [one for one in traits.efforts if _ALL.index(one) >= wanted]
    return at_least[0] if at_least else traits.efforts[-1] if traits.efforts else None


def budget(effort: Effort, max_tokens: int, visible: int | None = None) -> int | None:
    """Tokens of thinking inside `max_tokens`, of which `visible` are asked for what is not thought; None where too few
    are left to think at all (lessons.md S-043)."""
    reserve = RESERVE if visible is None else min(RESERVE, visible)
    most = max_tokens // 2 if effort == "low" else max_tokens - reserve
    tokens = min(BUDGETS[effort], most)
    return tokens if tokens >= MIN_BUDGET else None

"""What differs between generations of Gemini models (provider-gemini.md §4 to §6).

The name says which generation a model is of; the first row whose pattern fits decides. A name nobody knows is taken
for one of the newest models. What a profile says stands above the table.
"""

import re
from typing import Literal

from msgspec import Struct

from rejoinder.bridge.gemini_profile import GeminiProfile, Level


class Generation(Struct, frozen=True):
    """What models of one generation understand; fields of GeminiProfile mean here what they mean there.

    `budgets` are the fewest and the most tokens a model can be told to think, `rests` says that it can be told not to
    think at all, and `levels` begin with the least.
    """

    thinking: Literal["budget", "level", "never"]
    levels: tuple[Level, ...] = ("LOW", "MEDIUM", "HIGH")
    budgets: tuple[int, int] = (0, 24_576)
    rests: bool = False
    json_schema: bool = True
    mixed_tools: bool = True
    validated: bool = True
    signatures: bool = True

    def budget(self, effort: str) -> int:
        """Tokens for an effort (§5): no fewer than the model's least, no more than its most."""
        if effort == "none" and self.rests:
            return 0
        least, most = self.budgets
        return min(max(_BUDGETS.get(effort, 24_576), least), most)

    def level(self, effort: str) -> Level:
        """The level for an effort, or the nearest one above it, or the highest there is (§5)."""
        wanted = _ORDER.index(_LEVELS.get(effort, "XHIGH"))
        return next((level for level in self.levels if _ORDER.index(level) >= wanted), self.levels[-1])


_BUDGETS: dict[str, int] = {"none": 0, "minimal": 512, "low": 2_048, "medium": 8_192}
_LEVELS: dict[str, Level] = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_ORDER: tuple[Level, ...] = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")


def generation(model: str, profile: GeminiProfile) -> Generation:
    """What the model of this name understands."""
    row = next((row for pattern, row in _TABLE if pattern.search(model)), _NEWEST)
    return Generation(
        thinking=profile.thinking or row.thinking,
        levels=profile.levels or row.levels,
        budgets=row.budgets,
        rests=row.rests,
        json_schema=_either(profile.json_schema, row.json_schema),
        mixed_tools=_either(profile.mixed_tools, row.mixed_tools),
        validated=_either(profile.validated, row.validated),
        signatures=_either(profile.signatures, row.signatures),
    )


def _either(said: bool | None, known: bool) -> bool:
    return known if said is None else said


def _second(budgets: tuple[int, int], *, rests: bool) -> Generation:
    return Generation("budget", budgets=budgets, rests=rests, mixed_tools=False, signatures=False)


_NEWEST = Generation("level")
_MINIMAL = Generation("level", ("MINIMAL", "LOW", "MEDIUM", "HIGH"))

_TABLE = tuple(
    (re.compile(pattern), row)
    for pattern, row in (
        (
            r"gemini-(1|2\.0)|gemma|learnlm",
            Generation("never", json_schema=False, mixed_tools=False, validated=False, signatures=False),
        ),
        (r"gemini-2\.5-flash-image", Generation("never", mixed_tools=False, signatures=False)),
        (r"gemini-2\.5-flash-lite", _second((512, 24_576), rests=True)),
        (r"gemini-2\.5-pro", _second((128, 32_768), rests=False)),
        (r"gemini-2\.", _second((0, 24_576), rests=True)),
        (r"gemini-3-pro", Generation("level", ("LOW", "HIGH"))),
        (r"flash-lite", _MINIMAL),
        # Full Flash models know the least level up to 3.6.
        (r"gemini-3(\.[1-6])?-flash", _MINIMAL),
    )
)

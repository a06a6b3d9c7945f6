"""What an Anthropic model can do, told by its name (provider-anthropic.md §1, §2, §5, §6)."""

import re
from dataclasses import dataclass

_NAME = re.compile(
    r"claude-(?:(?P<old>\d)(?:-(?P<older>\d))?-)?(?P<line>opus|sonnet|haiku|fable|mythos)"
    r"(?:-(?P<major>\d{1,2})(?!\d))?(?:-(?P<minor>\d{1,2})(?!\d))?"
)

_EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class AnthropicModel:
    """The line and the version of a model. Of a name that is none of Anthropic's nothing is asked."""

    line: str
    version: tuple[int, int]

    @classmethod
    def of(cls, name: str) -> "AnthropicModel | None":
        match = _NAME.match(name)
        if match is None:
            return None
        major, minor = match["major"] or match["old"] or "0", match["minor"] or match["older"] or "0"
        return cls(match["line"], (int(major), int(minor)))

    @property
    def is_storied(self) -> bool:
        return self.line in ("fable", "mythos")

    @property
    def samples(self) -> bool:
        return self.version < ((4, 7) if self.line == "opus" else (5, 0))

    @property
    def samples_in_one_way(self) -> bool:
        return self.version >= ((4, 1) if self.line == "opus" else (4, 5))

    @property
    def thinks_by_budget(self) -> bool:
        return self.samples

    @property
    def thinks_adaptively(self) -> bool:
        return self.version >= ((5, 0) if self.line == "haiku" else (4, 6))

    @property
    def can_rest(self) -> bool:
        """Its thinking can be disabled."""
        return not self.is_storied

    @property
    def efforts(self) -> tuple[str, ...]:
        if not self.samples:
            return _EFFORTS
        if self.thinks_adaptively:
            return tuple(effort for effort in _EFFORTS if effort != "xhigh")
        return _EFFORTS[:3] if (self.line, self.version) == ("opus", (4, 5)) else ()

    @property
    def hears_systems_later(self) -> bool:
        """A `system` message may stand among the messages."""
        return self.version >= ((4, 8) if self.line == "opus" else (5, 0))

    @property
    def takes_prefill(self) -> bool:
        return self.version < (4, 6)

    @property
    def can_be_forced(self) -> bool:
        """`tool_choice` may be `any` or a tool, as long as it does not think by budget."""
        return not self.is_storied and self.version < (5, 5)

    @property
    def structures(self) -> bool:
        """`output_config.format` and strict tools."""
        return self.version >= ((4, 1) if self.line == "opus" else (4, 5))

    @property
    def max_tokens(self) -> int | None:
        """The most it writes (§2); None where that is not established."""
        if not self.samples:
            return 128_000
        if self.version >= (4, 5):
            return 64_000
        return 32_000 if self.line == "opus" and self.version >= (4, 0) else None

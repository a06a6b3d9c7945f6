"""What a Gemini model can do, told by its name (provider-gemini.md §4 to §6)."""

import re
from dataclasses import dataclass

_NAME = re.compile(r"gemini-(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class GeminiModel:
    """A name without a number (`gemini-flash-latest`, `test-model`) is of no generation: nothing is asked of it."""

    name: str
    version: tuple[int, int] | None

    @classmethod
    def of(cls, name: str) -> "GeminiModel":
        match = _NAME.match(name)
        return cls(name, (int(match[1]), int(match[2] or 0)) if match else None)

    @property
    def thinks_in_levels(self) -> bool:
        """3.x: it signs its calls, gives them ids, and has levels in place of a budget."""
        return self.version is not None and self.version >= (3, 0)

    @property
    def thinks_in_budgets(self) -> bool:
        return self.version is not None and (2, 5) <= self.version < (3, 0)

    @property
    def is_old(self) -> bool:
        return self.version is not None and self.version < (3, 0)

    @property
    def is_pro(self) -> bool:
        return "-pro" in self.name

    @property
    def is_lite(self) -> bool:
        return "-lite" in self.name

    @property
    def levels(self) -> tuple[str, ...]:
        """The thinking levels it has (§5). XHIGH is taken from every model: the contract names none that lacks it."""
        if self.version == (3, 0) and self.is_pro:
            return ("LOW", "HIGH")
        if self.version is not None and self.is_pro and self.version < (3, 2):
            return ("LOW", "MEDIUM", "HIGH", "XHIGH")
        if self.version is not None and self.version >= (3, 7) and not self.is_lite:
            return ("LOW", "MEDIUM", "HIGH", "XHIGH")
        return ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")

"""Arguments of a call of Gemini's: whole, or in pieces that say where they belong (provider-gemini.md §8)."""

import re
from typing import TypeAlias

import msgspec
from msgspec import Raw, Struct

from rejoinder.bridge.errors import BrokenStream

Value: TypeAlias = str | int | float | bool | None
_Json: TypeAlias = "dict[str, _Json] | list[_Json] | Value"


class PartialArgument(Struct, gc=False, rename="camel"):
    """One value, or the next piece of a text, at a path like `$.steps[1].name`. Where none is given it is null."""

    json_path: str
    string_value: str | None = None
    number_value: int | float | None = None
    bool_value: bool | None = None

    @property
    def value(self) -> Value:
        for value in (self.string_value, self.number_value, self.bool_value):
            if value is not None:
                return value
        return None


class Arguments:
    """What is known of the arguments of one call."""

    def __init__(self) -> None:
        self._whole: str | None = None
        self._root: dict[str, _Json] = {}

    def whole(self, data: Raw) -> None:
        self._whole = msgspec.json.format(bytes(data), indent=-1).decode()

    def add(self, argument: PartialArgument) -> None:
        """Text is added to text that is there. Raises BrokenStream for a path that leads nowhere."""
        path, value = argument.json_path, argument.value
        steps = [name or quoted or int(number) for name, quoted, number in _STEP.findall(path)]
        holder: _Json = self._root
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            empty: _Json = value if following is None else [] if isinstance(following, int) else {}
            if isinstance(holder, dict) and isinstance(step, str):
                before = holder.setdefault(step, None)
                holder[step] = _joined(before, value) if following is None else before or empty
                holder = holder[step]
            elif isinstance(holder, list) and isinstance(step, int) and step <= len(holder):
                if step == len(holder):
                    holder.append(None)
                holder[step] = _joined(holder[step], value) if following is None else holder[step] or empty
                holder = holder[step]
            else:
                raise BrokenStream(f"the provider sent an argument at '{path}', where there is no place for it")

    def json(self) -> str:
        return self._whole if self._whole is not None else _ENCODER.encode(self._root).decode()


def _joined(before: _Json, value: Value) -> _Json:
    return before + value if isinstance(before, str) and isinstance(value, str) else value


_STEP = re.compile(r"""\.([^.\[\]]+)|\[(?:['"]([^'"]*)['"]|(\d+))\]""")
_ENCODER = msgspec.json.Encoder()

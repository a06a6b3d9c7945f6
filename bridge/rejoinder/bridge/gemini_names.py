"""What functions are called on Gemini's side (provider-gemini.md §4): names there begin with a letter or `_`."""

from collections.abc import Iterable


class Names:
    """The way to a wire name and back, for the functions on offer and for those of the history alike."""

    def __init__(self, offered: Iterable[str]) -> None:
        self._offered = frozenset(offered)
        self._from_wire = {self.on_wire(name): name for name in self._offered}

    def on_wire(self, name: str) -> str:
        wire = name
        while (wire != name and wire in self._offered) or not _begins_well(wire):
            wire = f"_{wire}"
        return wire

    def from_wire(self, wire: str) -> str:
        """The name behind a wire name; one that nobody offered stays as it is."""
        return self._from_wire.get(wire, wire)


def _begins_well(name: str) -> bool:
    return name[:1] == "_" or (name[:1].isascii() and name[:1].isalpha())

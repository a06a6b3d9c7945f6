"""The arguments of a call, where they have to be more than text (mapping.md §3)."""

import msgspec
from msgspec import Raw

from rejoinder.bridge.toolbox import CustomArguments


def as_object(arguments: str) -> tuple[str, bool]:
    """The arguments as a JSON object, and whether they had to be put inside one, because they are none.

    Protocols have no other arguments, and local servers parse them to fill their templates: there one broken call would
    end every turn after it.
    """
    if not arguments.strip():
        return "{}", False
    try:
        _OBJECT.decode(arguments)
    except msgspec.MsgspecError:
        return _ENCODER.encode({"_raw": arguments}).decode(), True
    return arguments, False


def free_text(arguments: str) -> str:
    """The text inside the arguments of a free-form call, or all of it where they are not such arguments: the history of
    a tool may be a function's."""
    try:
        return _CUSTOM.decode(arguments).input
    except msgspec.MsgspecError:
        return arguments


_ENCODER = msgspec.json.Encoder()
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_CUSTOM = msgspec.json.Decoder(CustomArguments)

"""A judge of requests by the types of the vendor's own client: every key it does not know is an error, every key it
requires must be there, and every value must be of a type it names.

The client itself checks nothing when it runs, and pydantic drops keys it does not know, so the types are read here.
"""

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, TypeVar, Union, get_args, get_origin

from typing_extensions import get_type_hints, is_typeddict

from tests.bridge.recordings import Json


def faults(value: Json, wanted: object, at: str = "") -> list[str]:
    """What is wrong with a value: paths and reasons, of several alternatives those of the closest one."""
    return list(_faults(value, wanted, at))


def _faults(value: Json, wanted: Any, at: str) -> Iterator[str]:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Annotated, Required, NotRequired):
        yield from _faults(value, arguments[0], at)
    elif origin in (Union, types.UnionType):
        tried = [faults(value, one, at) for one in arguments]
        yield from min(tried, key=lambda found: _distance(found, at))
    elif origin is Literal:
        if value not in arguments:
            yield f"{at}: {value!r} is none of {arguments}"
    elif is_typeddict(wanted):
        yield from _dictionary(value, wanted, at)
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{at}: no object"
    elif isinstance(origin, type) and issubclass(origin, Iterable):
        if not isinstance(value, list):
            yield f"{at}: no list"
            return
        [inner, *_] = arguments
        for place, one in enumerate(value):
            yield from _faults(one, inner, f"{at}[{place}]")
    elif wanted in (object, Any) or isinstance(wanted, TypeVar):
        return
    elif wanted is float:
        if not isinstance(value, int | float):
            yield f"{at}: {value!r} is no number"
    elif not (isinstance(wanted, type) and type(value) is wanted):
        yield f"{at}: {str(value)[:50]!r} is no {wanted}"


def _distance(found: Sequence[str], at: str) -> tuple[bool, bool, int]:
    # Another kind of value, or of block, is further away than one with something wrong inside.
    return any(one.startswith(f"{at}: ") for one in found), any(".type: " in one for one in found), len(found)


def _dictionary(value: Json, wanted: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: no object"
        return
    fields = get_type_hints(wanted, include_extras=True)
    # The class itself does not know what it requires: its annotations are strings.
    for name, hint in fields.items():
        origin: object = get_origin(hint)
        if origin is Required and name not in value:
            yield f"{at}.{name}: missing"
    open_ended = wanted.__name__ == "InputSchemaTyped"  # a JSON schema, which may say anything
    for name, inner in value.items():
        if name in fields:
            yield from _faults(inner, fields[name], f"{at}.{name}")
        elif not open_ended:
            yield f"{at}.{name}: not known to {wanted.__name__}"

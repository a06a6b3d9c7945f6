"""Query parameters, each read once and refused by name (http.md §1)."""

from collections.abc import Mapping
from typing import get_args

from starlette.datastructures import QueryParams

from rejoinder.server.errors import InvalidRequest
from rejoinder.wire.request import Include

_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}
_INCLUDES = frozenset(get_args(Include))
MOST_DIGITS = 15


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean; false when it is not there."""
    text = query.get(name, "")
    if (value := _FLAGS.get(text.lower())) is None:
        raise InvalidRequest(
            f"Invalid '{name}': expected 'true' or 'false', but got '{text[:20]}' instead.",
            param=name,
            code="invalid_value",
        )
    return value


def whole_number(query: Mapping[str, str], name: str) -> int | None:
    """An integer from 0 on, None when it is not there."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise InvalidRequest(
            f"Invalid '{name}': expected an integer from 0 on, but got '{text[:20]}' instead.",
            param=name,
            code="invalid_value",
        )
    return int(text)


def included(query: QueryParams) -> frozenset[str]:
    """What `include[]`, or a repeated `include`, asks for (http.md §1, Notes)."""
    wanted = frozenset((*query.getlist("include[]"), *query.getlist("include")))
    for name in sorted(wanted - _INCLUDES):
        known = ", ".join(f"'{one}'" for one in sorted(_INCLUDES))
        raise InvalidRequest(
            f"Invalid value: '{name[:50]}'. Supported values are: {known}.", param="include", code="invalid_value"
        )
    return wanted

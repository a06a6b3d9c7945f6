"""Lists and their pages (http.md §3)."""

from collections.abc import Mapping, Sequence, Set
from typing import Literal

import msgspec
from msgspec import Raw

from rejoinder.server.errors import InvalidRequest
from rejoinder.server.including import shown

MAX_LIMIT = 100
_DEFAULT_LIMIT = 20


class Page(msgspec.Struct, frozen=True):
    """Which part of a list is wanted. Without `order` the newest item comes first (http.md §1)."""

    limit: int = _DEFAULT_LIMIT
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Page":
        """Read the query. Raises InvalidRequest naming the parameter."""
        limit = query.get("limit", str(_DEFAULT_LIMIT))
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= MAX_LIMIT):
            raise InvalidRequest(
                f"Invalid 'limit': expected an integer from 1 to {MAX_LIMIT}, but got '{limit[:20]}' instead.",
                param="limit",
                code="invalid_value",
            )
        match query.get("order", "desc"):
            case "asc" | "desc" as order:
                return cls(int(limit), order, query.get("after"))
            case order:
                raise InvalidRequest(
                    f"Invalid value: '{order[:20]}'. Supported values are: 'asc' and 'desc'.",
                    param="order",
                    code="invalid_value",
                )


class ItemList(msgspec.Struct):
    """`first_id` and `last_id` are null on an empty page: nothing else is honest, and SDK pages accept it."""

    data: list[Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


class _Id(msgspec.Struct):
    id: str


_ID = msgspec.json.Decoder(_Id)


def page(items: Sequence[bytes], wanted: Page, include: Set[str]) -> ItemList:
    """A page of items, given oldest first, with what `include` asks for. Raises InvalidRequest when `after` names none
    of them."""
    ordered = list(items) if wanted.order == "asc" else list(reversed(items))
    if wanted.after is not None:
        start = next((n for n, raw in enumerate(ordered, 1) if _ID.decode(raw).id == wanted.after), None)
        if start is None:
            raise InvalidRequest("Invalid 'after': no item with this id is in the list.", param="after")
        ordered = ordered[start:]
    return item_list([shown(raw, include) for raw in ordered[: wanted.limit]], has_more=len(ordered) > wanted.limit)


def item_list(items: Sequence[bytes], *, has_more: bool = False) -> ItemList:
    """These items as a list."""
    return ItemList(
        data=[Raw(raw) for raw in items],
        first_id=_ID.decode(items[0]).id if items else None,
        last_id=_ID.decode(items[-1]).id if items else None,
        has_more=has_more,
    )

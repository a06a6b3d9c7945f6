"""Which store a line of configuration means."""

from collections.abc import Callable
from pathlib import Path

from rejoinder.store.backend import Backend
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import StoreError
from rejoinder.store.records import Store


def _disk(path: str) -> Backend:
    return DiskBackend(Path(path).expanduser())


SCHEMES: dict[str, Callable[[str], Backend]] = {"disk": _disk}


def open_store(url: str) -> Store:
    """The store at `url`, like `disk:./conversations`. Raises `StoreError` when it is unknown or cannot be opened."""
    scheme, _, rest = url.partition(":")
    if scheme not in SCHEMES or not rest:
        known = ", ".join(f"'{name}:…'" for name in SCHEMES)
        raise StoreError(f"expected a store like {known}, got {url!r}")
    return Store(SCHEMES[scheme](rest))

"""Which store a line of configuration means."""

from collections.abc import Callable
from pathlib import Path

from rejoinder.store.backend import Backend
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import StoreError
from rejoinder.store.reading import ReadingBackend
from rejoinder.store.records import Store


def _disk(path: str, read_only: bool) -> Backend:
    directory = Path(path).expanduser()
    return ReadingBackend(directory) if read_only else DiskBackend(directory)


SCHEMES: dict[str, Callable[[str, bool], Backend]] = {"disk": _disk}


def open_store(url: str, *, ttl: float | None = None, read_only: bool = False) -> Store:
    """The store at `url`, like `disk:./conversations`. Raises `StoreError` when it is unknown or cannot be opened.

    `read_only` changes nothing, and works beside a server that has the store open.
    """
    scheme, _, rest = url.partition(":")
    if scheme not in SCHEMES or not rest:
        known = ", ".join(f"'{name}:…'" for name in SCHEMES)
        raise StoreError(f"expected a store like {known}, got {url!r}")
    return Store(SCHEMES[scheme](rest, read_only), ttl=ttl)

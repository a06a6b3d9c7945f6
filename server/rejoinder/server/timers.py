"""Something to do when a wait takes longer than expected."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def after(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """Do this once if the block takes longer. It runs on the loop, outside of any task."""
    timer = asyncio.get_running_loop().call_later(seconds, action)
    try:
        yield
    finally:
        timer.cancel()

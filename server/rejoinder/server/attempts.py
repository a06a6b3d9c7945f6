"""Asking again: before anything was said, within a budget, and never where a paid turn may be under way (reliability.md
S17, lessons.md S-141 and S-190)."""

import random

from rejoinder.bridge.errors import UpstreamError
from rejoinder.store import Attempt

FIRST_WAIT = 0.5
"""Seconds before the second request where the provider gives no hint; doubled each time, with jitter."""


class Attempts:
    """The requests of one turn that failed. `retries` bounds how many follow the first, `budget` (seconds) how long the
    turn may wait for them."""

    def __init__(self, retries: int, budget: float) -> None:
        self._left = retries
        self._budget = budget
        self._wait = FIRST_WAIT
        self.failed: list[Attempt] = []

    def wait_after(self, error: UpstreamError) -> float | None:
        """Seconds to wait before the request is sent again, or None when it is not to be."""
        if not error.transient or self._left == 0:
            return None
        # Jitter is there so that clients that were refused together do not come back together; nobody can guess by it.
        wait = error.retry_after if error.retry_after is not None else self._wait * random.uniform(0.75, 1.25)  # noqa: S311
        if wait > self._budget:
            # A wait that outlasts the budget is the client's to decide on: it gets the hint (lessons.md S-190).
            return None
        self._left -= 1
        self._budget -= wait
        self._wait *= 2
        self.failed.append(Attempt(error.status, error.code, round(wait, 3)))
        return wait

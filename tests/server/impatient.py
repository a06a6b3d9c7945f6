"""The real server with its fixed waits shortened, so that a test can see them pass."""

import sys

from rejoinder.server import health, serving, sse, turn
from rejoinder.server.cli import main

IMPATIENT = (sys.executable, __file__)
"""The command to give to `tests.live.running`."""

if __name__ == "__main__":
    turn.STATUS_WAIT = 0.3
    sse.BEAT = 0.2
    sse.KEEP_ALIVE = 0.5
    sse.SLOW_CLIENT = 1.0
    health.PROBE_EVERY = 0.2
    serving.LAST_WORDS = 0.5
    main()

"""The real server with its fixed waits shortened, so that a test can see them pass. Started in place of the command."""

from rejoinder.server import health, sse, turn
from rejoinder.server.cli import main

turn.STATUS_WAIT = 0.3
sse.KEEP_ALIVE = 0.5
sse.SLOW_CLIENT = 1.0
health.PROBE_EVERY = 0.2

if __name__ == "__main__":
    main()

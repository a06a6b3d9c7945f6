"""The process: uvicorn around the application, from the first bind to the last turn (FINDINGS: the stack)."""

import asyncio
import gc
import resource
import sys
from types import FrameType

import uvicorn

from rejoinder.server import log
from rejoinder.server.app import build_app
from rejoinder.server.assembly import assemble
from rejoinder.server.protocol import Limits, bounded_protocol
from rejoinder.server.services import Services
from rejoinder.server.settings import Settings
from rejoinder.server.websocket_protocol import WebSocketProtocol

LAST_WORDS = 5.0
"""Seconds ended turns have to tell their clients so."""


class DrainingServer(uvicorn.Server):
    """A signal stops new work at once, gives running turns their time, and then ends them (reliability.md F10)."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        running = self._services.running
        if not running.draining:
            running.draining = True
            # A signal arrives between two steps of the loop's thread, so the timer is set from within the loop.
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, self._services.settings.server.drain_timeout, running.stop)
        super().handle_exit(sig, frame)
        # uvicorn raises the signal again once it is done, so that its own exit shows it; here a drain is a success.
        self._captured_signals.clear()


FILES_BESIDE = 256
"""Open files beside the clients' connections: one to an upstream for each turn comes on top."""


def allow_files(connections: int) -> None:
    """Let the process have as many files open as its connections need, as far as it may decide that itself.

    Each client may have a turn, and that a connection to an upstream; the usual 1024 would end in refused connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + FILES_BESIDE
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def serve(settings: Settings) -> None:
    """Serve until a signal says otherwise. Raises SettingsError or StoreError when it cannot begin."""
    log.configure("info", sys.stderr)
    services = assemble(settings)
    server = settings.server
    allow_files(server.max_connections)
    config = uvicorn.Config(
        build_app(services),
        host=server.host,
        port=server.port,
        http=bounded_protocol(Limits(header_timeout=server.header_timeout, connections=server.max_connections)),
        ws=WebSocketProtocol,
        ws_max_size=server.max_body_bytes,
        ws_per_message_deflate=server.websocket_compression,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        backlog=2048,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here decides anything by a client's address
        timeout_graceful_shutdown=int(server.drain_timeout + LAST_WORDS) + 1,
    )
    # What exists now stays: it need not be looked at again, and the young are many and short-lived (FINDINGS §3).
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    DrainingServer(config, services).run()

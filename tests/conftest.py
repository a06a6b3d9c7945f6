import sys
from collections.abc import Iterator

import pytest
import structlog

# Left to itself, structlog draws every traceback with `rich` where another tool has brought that along: a second each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(autouse=True)
def _loggers_are_heard() -> Iterator[None]:
    """A logger that was used while a test had configured logging keeps to that for good; the next test wants to hear
    it, whichever was run before."""
    yield
    for name, module in [*sys.modules.items()]:
        if name.startswith("rejoinder.") and (used := getattr(module, "_logger", None)) is not None:
            vars(used).pop("bind", None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on uvicorn and aiohttp, so asyncio is the one loop there is to test."""
    return "asyncio"

import os
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Left to itself, structlog draws every traceback with `rich` where another tool has brought that along: a second each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


# CI says the same of the same commit, however busy its machine is. Who looks for new cases says how many, and has them
# at random.
settings.register_profile(
    "ours",
    derandomize="REJOINDER_CASES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ours")


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

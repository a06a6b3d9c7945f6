import pytest
import structlog

# Left to itself, structlog draws every traceback with `rich` where another tool has brought that along: a second each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on uvicorn and aiohttp, so asyncio is the one loop there is to test."""
    return "asyncio"

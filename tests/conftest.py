import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on uvicorn and aiohttp, so asyncio is the one loop there is to test."""
    return "asyncio"

"""A provider for the tests of one file, and what has to hold at the end of each of them."""

from collections.abc import Iterator

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from tests.clients.witness import Witness, witnessing


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(provider: ChatUpstream) -> Iterator[ChatUpstream]:
    """The provider, with nothing to answer yet; at the end it has objected to nothing."""
    provider.requests.clear()
    provider.follow(())
    yield provider
    assert provider.objections == []


@pytest.fixture
def witness(upstream: ChatUpstream) -> Iterator[Witness]:
    """Makes the clients; at the end everything they were answered is valid."""
    with witnessing() as witness:
        yield witness

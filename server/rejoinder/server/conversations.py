"""Conversations, one thing at a time in each (semantics.md §4)."""

from collections.abc import Iterator
from contextlib import contextmanager

from rejoinder.server.errors import InvalidRequest
from rejoinder.store import Conversations, Store
from rejoinder.wire.request import CreateRequest


class Talks:
    """The conversations of a store, and which of them something is going on in at the moment."""

    def __init__(self, store: Store) -> None:
        self.kept = Conversations(store)
        self._busy: set[tuple[str, str]] = set()

    @contextmanager
    def turn(self, request: CreateRequest, owner: str) -> Iterator[None]:
        """A turn of the conversation the request names, if it names one. Raises InvalidRequest as `alone`."""
        if request.conversation is None:
            yield
        else:
            with self.alone(request.conversation, owner):
                yield

    @contextmanager
    def alone(self, conversation_id: str, owner: str) -> Iterator[None]:
        """Nothing else goes on in the conversation meanwhile. Raises InvalidRequest when something does."""
        place = (owner, conversation_id)
        if place in self._busy:
            # http.md §6.2: 400, and these words; clients try again.
            raise InvalidRequest(
                "Another process is currently operating on this conversation. Please retry in a few seconds.",
                param="conversation",
                code="conversation_locked",
            )
        self._busy.add(place)
        try:
            yield
        finally:
            self._busy.discard(place)

"""Whether the store can be written to, as far as anybody knows."""

from rejoinder.server.errors import Unavailable
from rejoinder.store import Conflict, DamagedRecord, Missing, Refused


class Condition:
    """What the last look, or the last failed write, found."""

    def __init__(self) -> None:
        self.store_works = True

    def saw(self, error: Exception) -> None:
        """A write failed: the next ones will too, until a look finds otherwise, unless it was about the record."""
        if not isinstance(error, Missing | Refused | DamagedRecord | Conflict):
            self.store_works = False

    def admit(self, *, store: bool) -> None:
        """Raises Unavailable for a turn that is to be stored while the store does not work (reliability.md F13)."""
        if store and not self.store_works:
            raise Unavailable(
                "the store does not work at the moment; nothing can be kept", code="server_error", retry_after=5
            )

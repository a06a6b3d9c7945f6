"""What can go wrong between a record and the place it is kept.

StoreError            the store cannot do this now: disk full, locked, moved away, closed        503, or F12
├── Missing           nothing of that name for this owner                                        404, or 400 as a parent
├── Refused           the record may not be kept: its id is taken, or it could not be found again
├── InUse             another server has the store open
├── DamagedRecord     something is there, and it cannot be read; never told as missing           500
└── Conflict          a compare-and-set met another value; only backends and `Store` see it
"""


class StoreError(Exception):
    """The root of this package's errors. Raised itself when the store, not the record, is the reason."""


class Missing(StoreError):
    """Raised when nothing of that name exists for this owner; a foreign id looks like one that never was (P6)."""


class Refused(StoreError):
    """Raised when a record may not be kept: its id is taken (P3), or its names would not lead back to it."""


class InUse(StoreError):
    """Raised when a store cannot be opened because another process has it open (reliability.md F30)."""


class DamagedRecord(StoreError):
    """Raised when bytes are there and are not what was written (reliability.md F33). The message names the record."""


class Conflict(StoreError):
    """Raised when a change asked for a state that does not hold; nothing of the change was applied."""

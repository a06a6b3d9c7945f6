"""What is kept, so that a conversation can go on."""

from rejoinder.store.backend import Backend, Change
from rejoinder.store.conversations import Conversation, Conversations, items_of, removal_of
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import Conflict, DamagedRecord, Missing, Refused, StoreError
from rejoinder.store.record import Attempt, Record
from rejoinder.store.records import Store
from rejoinder.store.urls import open_store
from rejoinder.store.volatile import VolatileBackend

__all__ = [
    "Attempt",
    "Backend",
    "Change",
    "Conflict",
    "Conversation",
    "Conversations",
    "DamagedRecord",
    "DiskBackend",
    "Missing",
    "Record",
    "Refused",
    "Store",
    "StoreError",
    "VolatileBackend",
    "items_of",
    "open_store",
    "removal_of",
]

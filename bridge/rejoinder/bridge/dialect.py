"""The seam between the turn and a provider's protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.envelope import Envelope
from rejoinder.bridge.errors import UpstreamError
from rejoinder.bridge.toolbox import Toolbox
from rejoinder.wire.items import Item
from rejoinder.wire.request import CreateRequest


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider, without its address or credentials.

    `path` is joined to the upstream's base URL. `stream` says that the answer was asked for as server-sent events;
    what really comes back is for the reader to find out.
    """

    path: str
    body: bytes
    stream: bool
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything one upstream request is made of.

    `items` is the whole conversation, oldest first, every reference resolved and every call paired. `opened` maps the
    `encrypted_content` values this upstream issued to what they hold. `notes` collects what had to be left out.
    """

    model: str
    request: CreateRequest
    items: Sequence[Item]
    toolbox: Toolbox
    opened: Mapping[str, Envelope]
    notes: list[str]


class Reader(Protocol):
    """Reads one answer, cut anywhere, and reports it to its composer."""

    def feed(self, data: bytes) -> None:
        """More bytes of the answer. Raises UpstreamError when they say that it failed."""

    def close(self, at: int) -> None:
        """The bytes are over; `at` is the time in unix seconds.

        Raises BrokenStream when the answer was not: the end of bytes is not the end of an answer.
        """


class Dialect(Protocol):
    """One upstream protocol."""

    def call(self, prompt: Prompt) -> Call:
        """The request to send. Raises Unsupported, naming the parameter, for what it cannot say."""

    def reader(self, prompt: Prompt, out: Composer) -> Reader: ...

    def rejection(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """What an answer other than 2xx means; header names are in lower case."""

"""The seam between the turn and a provider's protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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

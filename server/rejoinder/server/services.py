"""What a turn needs from the process it runs in."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rejoinder.bridge.dialect import Dialect
from rejoinder.bridge.envelope import Issuer, Seal
from rejoinder.bridge.grammar import Mode
from rejoinder.server.condition import Condition
from rejoinder.server.conversations import Talks
from rejoinder.server.routing import Routes
from rejoinder.server.running import Running
from rejoinder.server.settings import Settings
from rejoinder.server.upstream import Upstream
from rejoinder.store import Store, VolatileBackend


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured upstream, ready to be asked."""

    name: str
    dialect: Dialect
    upstream: Upstream
    kind: str
    endpoint: str
    """Tells this endpoint and account from every other one, without naming either (mapping.md §5)."""

    first_byte_timeout: float
    stall_timeout: float

    shows_raw_reasoning: bool = False
    """Whether clients see reasoning as raw parts instead of summaries (open-responses.md §5)."""

    grammar: Mode = "pass"
    """What is done with free-form calls whose tool declares a grammar."""

    def issuer(self, model: str) -> Issuer:
        return Issuer(self.kind, self.endpoint, model)


KEPT_IN_MEMORY = 600.0
"""Seconds a finished response that is not to be stored can still be asked for (semantics.md §5)."""


def _volatile() -> Store:
    return Store(VolatileBackend(), ttl=KEPT_IN_MEMORY)


@dataclass(frozen=True, slots=True)
class Services:
    """`volatile` is for responses that must not be stored and are still looked at for a while."""

    settings: Settings
    routes: Routes
    providers: Mapping[str, Provider]
    store: Store
    seal: Seal
    volatile: Store = field(default_factory=_volatile)
    running: Running = field(default_factory=Running)
    condition: Condition = field(default_factory=Condition)
    clock: Callable[[], float] = time.time
    random: Callable[[int], bytes] = os.urandom
    conversations: Talks = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conversations", Talks(self.store))

    def shelf(self, *, store: bool) -> Store:
        """Where a response is kept that is to be stored, or is not."""
        return self.store if store else self.volatile

    async def close(self) -> None:
        for provider in self.providers.values():
            await provider.upstream.close()
        await self.volatile.close()
        await self.store.close()

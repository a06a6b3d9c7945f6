"""What a turn needs from the process it runs in."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rejoinder.bridge.dialect import Dialect
from rejoinder.bridge.envelope import Issuer, Seal
from rejoinder.bridge.grammar import Mode
from rejoinder.server.condition import Condition
from rejoinder.server.routing import Routes
from rejoinder.server.running import Running
from rejoinder.server.settings import Settings
from rejoinder.server.upstream import Upstream
from rejoinder.store import Store


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


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    routes: Routes
    providers: Mapping[str, Provider]
    store: Store
    seal: Seal
    running: Running = field(default_factory=Running)
    condition: Condition = field(default_factory=Condition)
    clock: Callable[[], float] = time.time
    random: Callable[[int], bytes] = os.urandom

    async def close(self) -> None:
        for provider in self.providers.values():
            await provider.upstream.close()
        await self.store.close()

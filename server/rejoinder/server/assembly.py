"""From settings to services: which dialect speaks to which upstream, with which store and which sealing key."""

import hashlib
import os
from pathlib import Path

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.dialect import Dialect
from rejoinder.bridge.envelope import Seal
from rejoinder.bridge.gemini import GeminiDialect
from rejoinder.bridge.gemini_profile import GeminiProfile
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.server.demo import DemoUpstream
from rejoinder.server.log import conceal
from rejoinder.server.routing import Routes
from rejoinder.server.services import Provider, Services
from rejoinder.server.settings import Settings, SettingsError, UpstreamSettings
from rejoinder.server.upstream import HttpUpstream, Upstream
from rejoinder.server.vendors import Profile
from rejoinder.store import open_store

SEAL_VARIABLE = "REJOINDER_SEAL_KEYS"
"""Sealing keys from the environment: 64 hex digits each, separated by commas, the newest first."""

_SEAL_FILE = "seal.key"


def assemble(settings: Settings) -> Services:
    """Everything a server needs, opened. Raises SettingsError or StoreError with what to mend."""
    store = open_store(settings.server.store, ttl=settings.server.ttl or None)
    return Services(
        settings=settings,
        routes=Routes(settings.upstreams),
        providers={upstream.name: _provider(upstream) for upstream in settings.upstreams},
        store=store,
        seal=Seal(seal_keys(store.location, os.environ.get(SEAL_VARIABLE, ""))),
    )


def dialect_of(profile: Profile) -> Dialect:
    """The dialect that speaks as the profile says."""
    match profile:
        case ChatProfile():
            return ChatDialect(profile)
        case AnthropicProfile():
            return AnthropicDialect(profile)
        case GeminiProfile():
            return GeminiDialect(profile)
        case _:
            return ResponsesDialect(profile)


def _provider(upstream: UpstreamSettings) -> Provider:
    return Provider(
        name=upstream.name,
        dialect=dialect_of(upstream.profile),
        upstream=_upstream(upstream),
        # The demo speaks Chat Completions too, only not over a network.
        kind="chat" if upstream.dialect == "demo" else upstream.dialect,
        endpoint=hashlib.sha256(f"{upstream.name}\x1f{upstream.base_url}".encode()).hexdigest()[:16],
        first_byte_timeout=upstream.first_byte_timeout,
        stall_timeout=upstream.stall_timeout,
        shows_raw_reasoning=upstream.reasoning == "raw",
        grammar=upstream.grammar,
    )


def _upstream(upstream: UpstreamSettings) -> Upstream:
    if upstream.dialect == "demo":
        return DemoUpstream()
    if (key := upstream.credential.reveal()) is not None:
        conceal(key)
    return HttpUpstream(upstream.base_url, upstream.sent_headers())


def seal_keys(directory: Path, given: str) -> list[bytes]:
    """The sealing keys: those given, else the ones in the store's directory, where the first start makes one.

    Raises SettingsError when a key is not 32 bytes in hex.
    """
    if given:
        return _keys(given.split(","), SEAL_VARIABLE)
    path = directory / _SEAL_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _keys(path.read_text().split(), str(path))
    with os.fdopen(descriptor, "w") as file:
        file.write(os.urandom(32).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return _keys(path.read_text().split(), str(path))


def _keys(texts: list[str], source: str) -> list[bytes]:
    keys = []
    for text in texts:
        try:
            key = bytes.fromhex(text.strip())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise SettingsError(f"{source}: a sealing key is 64 hex digits; found one that is not")
        keys.append(key)
    if not keys:
        raise SettingsError(f"{source}: expected at least one sealing key, found none")
    return keys

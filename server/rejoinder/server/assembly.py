"""From settings to services: which dialect speaks to which upstream, with which store and which sealing key."""

import hashlib
import os
from pathlib import Path

from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.envelope import Seal
from rejoinder.server.demo import DemoUpstream
from rejoinder.server.log import conceal
from rejoinder.server.routing import Routes
from rejoinder.server.services import Provider, Services
from rejoinder.server.settings import Settings, SettingsError, UpstreamSettings
from rejoinder.server.upstream import HttpUpstream, Upstream
from rejoinder.store import open_store

SEAL_VARIABLE = "REJOINDER_SEAL_KEYS"
"""Sealing keys from the environment: 64 hex digits each, separated by commas, the newest first."""

_SEAL_FILE = "seal.key"


def assemble(settings: Settings) -> Services:
    """Everything a server needs, opened. Raises SettingsError or StoreError with what to mend."""
    store = open_store(settings.server.store)
    return Services(
        settings=settings,
        routes=Routes(settings.upstreams),
        providers={upstream.name: _provider(upstream) for upstream in settings.upstreams},
        store=store,
        seal=Seal(seal_keys(store.location, os.environ.get(SEAL_VARIABLE, ""))),
    )


def _provider(upstream: UpstreamSettings) -> Provider:
    return Provider(
        name=upstream.name,
        # The demo speaks Chat Completions too, only not over a network.
        dialect=ChatDialect(upstream.profile),
        upstream=_upstream(upstream),
        kind="chat",
        endpoint=hashlib.sha256(f"{upstream.name}\x1f{upstream.base_url}".encode()).hexdigest()[:16],
        first_byte_timeout=upstream.first_byte_timeout,
        stall_timeout=upstream.stall_timeout,
    )


def _upstream(upstream: UpstreamSettings) -> Upstream:
    if upstream.dialect == "demo":
        return DemoUpstream()
    headers = dict(upstream.headers)
    if (key := upstream.credential.reveal()) is not None:
        conceal(key)
        name, value = ("api-key", key) if upstream.auth == "api-key" else ("authorization", f"Bearer {key}")
        headers[name] = value
    return HttpUpstream(upstream.base_url, headers)


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

"""The real server inside of a test, in front of the scripted provider, as its users set it up for the real ones."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import tomlkit

from rejoinder.conformance.arrival import arrive
from rejoinder.conformance.dialects import Dialect
from rejoinder.conformance.paired import MODELS, Provider
from rejoinder.conformance.server import Server
from rejoinder.conformance.suite import RULES
from rejoinder.conformance.verdict import judge
from rejoinder.server.assembly import assemble
from rejoinder.server.settings import load
from rejoinder.store import Store, VolatileBackend
from tests.server.site import site

THEIR_KEY = "harbour-of-the-moon-77"
KEY = "rj-judge"
OTHER_KEY = "rj-somebody-else"

VENDORS: Mapping[Dialect, str] = {"anthropic": "anthropic", "gemini": "gemini", "responses": "openai"}
"""Whom the provider stands for. With Chat Completions it is a server nobody knows."""


StoreName = Literal["disk", "memory"]


EVERYWHERE = {
    "codex.codex-comes-to-an-end",  # tests/clients drives the program itself
}

LACKING: Mapping[Dialect, Set[str]] = {
    "chat": {
        "objects.log-probabilities-are-told",  # a compatible server nobody knows: it is not asked for them
        "images.a-file-is-accepted-or-refused-by-name",  # nor given files
        "prompts.a-file-reaches-the-provider",
    },
    "anthropic": {
        "objects.log-probabilities-are-told",  # there are none
        "fidelity.what-was-filtered-is-incomplete",  # it refuses instead
        "fidelity.a-repeated-call-id-is-made-unique",
        "fidelity.a-call-counts-whatever-the-end-says",
        "prompts.reasoning-details-go-back-unchanged",
        "faults.the-last-word-may-be-missing",  # an answer without `message_stop` is half a one
    },
    "gemini": {
        "objects.log-probabilities-are-told",  # not on Gemini 3
        "fidelity.a-refusal-is-no-text",
        "fidelity.what-is-written-to-a-cache-is-input",
        "prompts.reasoning-details-go-back-unchanged",
        "faults.half-a-call-is-not-to-be-made",
        "faults.the-last-word-may-be-missing",
    },
    "responses": {
        "fidelity.a-call-without-arguments-has-an-empty-object",
        "fidelity.a-repeated-call-id-is-made-unique",
        "fidelity.a-call-counts-whatever-the-end-says",
        "prompts.reasoning-details-go-back-unchanged",
        "faults.the-last-word-may-be-missing",
    },
}
"""What a provider of that dialect does not have, or does not do."""

SOMETIMES = {
    # Whether there is a call to wait for hangs on how fast the words come: thinking is interrupted, a call is not.
    "steering.words-wait-for-the-results-of-tools",
    "steering.results-go-on-with-the-words-that-wait",
    "steering.words-that-wait-come-before-the-results",
    # A short answer may be over before anybody can cancel it.
    "background.a-cancel-ends-it",
    "background.a-cancelled-response-stays-cancelled",
    "background.cancelling-twice-changes-nothing",
    # Or before anybody can ask for another one in its conversation.
    "conversations.one-response-at-a-time",
}


@asynccontextmanager
async def rejoined(directory: Path, dialect: Dialect, store: StoreName = "disk") -> AsyncIterator[Server]:
    """The server, with its store in `directory` or in memory, as the judge sees it."""
    with Provider.listening(dialect, 0) as provider:
        file = directory / "rejoinder.toml"
        file.write_text(tomlkit.dumps(_settings(directory, dialect, provider.upstream.base_url)))
        services = assemble(load(file, {"THEIR_KEY": THEIR_KEY}))
        if store == "memory":
            await services.store.close()
            services = replace(services, store=Store(VolatileBackend(), ttl=services.settings.server.ttl))
        async with (
            site(services) as here,
            Server.at(
                f"http://127.0.0.1:{here.port}/v1",
                MODELS[dialect],
                key=KEY,
                other_key=OTHER_KEY,
                timeout=20,
                provider=provider,
            ) as server,
        ):
            yield server


def _settings(directory: Path, dialect: Dialect, base_url: str) -> Mapping[str, object]:
    keys = {"judge": KEY, "other": OTHER_KEY}
    upstream = {
        "name": "provider",
        "dialect": dialect,
        "base_url": base_url,
        "models": [MODELS[dialect]],
        "api_key_env": "THEIR_KEY",
    }
    return {
        # Nothing is asked twice: a rule that counts the questions counts those of the server, not of its retries.
        "server": {"store": f"disk:{directory / 'store'}", "retries": 0},
        "key": [{"owner": owner, "sha256": hashlib.sha256(key.encode()).hexdigest()} for owner, key in keys.items()],
        "upstream": [upstream | ({"vendor": VENDORS[dialect]} if dialect in VENDORS else {})],
    }


async def check_every_rule(directory: Path, dialect: Dialect, store: StoreName) -> None:
    """Every rule there is has to be kept, or is known not to apply."""
    async with rejoined(directory, dialect, store) as server:
        await arrive(server)
        found = [await judge(rule, server) for rule in RULES]
    wrong = {one.id: one.reason for one in found if one.outcome in ("broken", "not_judged")}
    assert wrong == {}
    lacking = {one.id for one in found if one.outcome == "not_applicable"}
    assert lacking - SOMETIMES == EVERYWHERE | LACKING[dialect]

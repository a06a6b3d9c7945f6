"""What `rejoinder serve` says before it serves, and `rejoinder check` says instead of it. No secret is in it."""

import re
import textwrap
from collections.abc import Iterable
from importlib.metadata import version

from rejoinder.server import codex
from rejoinder.server.routing import Routes
from rejoinder.server.settings import ServerSettings, Settings, UpstreamSettings

NO_MODEL = "MODEL"
"""Stands where a model's name belongs when only its owner can know one."""


def banner(settings: Settings) -> str:
    """The start-up output: where, what and why, and what to paste into clients."""
    server, model = settings.server, example(settings)
    url, keyed = address(server), bool(settings.keys)
    provider = codex.provider_entry(url, keyed=keyed, websocket=server.websocket)
    return "\n".join(
        [
            f"rejoinder {version('rejoinder')} at {url}",
            f"  access  {_access(settings)}",
            f"  store   {_without_password(server.store)}",
            "",
            report(settings),
            f"Codex: run `rejoinder codex --write --base-url {url}` once, then `codex -p rejoinder`; or paste",
            _indented(f"# ~/.codex/config.toml\n{provider}"),
            _indented(f"# ~/.codex/{codex.NAME}.config.toml\n{codex.profile_entry(model)}"),
            "OpenAI Python SDK:",
            _indented(_python(url, model, keyed=keyed)),
        ]
    )


def report(settings: Settings) -> str:
    """The upstreams in the order they are asked, what was found, and which models two of them claim."""
    parts = ["upstreams, in the order they are asked (any model of one is also there as NAME/MODEL)"]
    parts += [_indented(_upstream(upstream)) for upstream in settings.upstreams]
    parts += _section("findings", settings.findings)
    parts += _section("claimed twice", Routes(settings.upstreams).overlaps())
    return "\n".join(parts)


def address(server: ServerSettings) -> str:
    """The base_url for clients on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104 - told, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}/v1"


def example(settings: Settings) -> str:
    """A name to ask for in examples, by which this server finds a model: one that is listed, else one an upstream is
    known to have, else NO_MODEL."""
    routes = Routes(settings.upstreams)
    listed = [name for name, _ in routes.listing()]
    known = [_called(routes, upstream) for upstream in settings.upstreams if upstream.example]
    first = settings.upstreams[0]
    return next(iter((*listed, *known)), f"{first.name}/{NO_MODEL}")


def _called(routes: Routes, upstream: UpstreamSettings) -> str:
    own = routes.serves(upstream.example) and routes.find(upstream.example).upstream is upstream
    return upstream.example if own else f"{upstream.name}/{upstream.example}"


def _access(settings: Settings) -> str:
    if not settings.keys:
        return "open to this machine only, no API key"
    owners = ", ".join(dict.fromkeys(key.owner for key in settings.keys))
    return f"{len(settings.keys)} API key{'s' if len(settings.keys) > 1 else ''} ({owners})"


def _upstream(upstream: UpstreamSettings) -> str:
    names = [*upstream.models, *(f"{alias} -> {model}" for alias, model in upstream.aliases.items())]
    keyed = upstream.credential.reveal() is not None and not upstream.discovered
    key = f", key from {upstream.credential.source}" if keyed else ""
    where = f"{upstream.base_url}  {upstream.dialect}" if upstream.base_url else "answers by itself"
    return "\n".join(
        [
            f"{upstream.name}  {where}  ({upstream.why}{key})",
            *textwrap.wrap(", ".join(names), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False),
        ]
    )


def _section(title: str, lines: Iterable[str]) -> list[str]:
    told = [
        textwrap.fill(line, 110, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
        for line in lines
    ]
    return [title, *told] if told else []


def _python(url: str, model: str, *, keyed: bool) -> str:
    key = f'os.environ["{codex.API_KEY_ENV}"]' if keyed else f'"{codex.PLACEHOLDER}"'
    return (
        ("import os\n" if keyed else "")
        + "from openai import OpenAI\n"
        + f'client = OpenAI(base_url="{url}", api_key={key})\n'
        + f'print(client.responses.create(model="{model}", input="Say hello.").output_text)\n'
    )


def _without_password(url: str) -> str:
    return re.sub(r"(://)[^/@]*@", r"\1…@", url)


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ")

"""The `rejoinder` command. What takes long to import is imported by the commands that need it."""

import os
import secrets
from importlib.metadata import version
from pathlib import Path
from typing import Never

import click

from rejoinder.server.banner import NO_MODEL, address, banner, example, report
from rejoinder.server.codex import CodexError, profile_entry, provider_entry, write
from rejoinder.server.routing import Routes, UnknownModel
from rejoinder.server.settings import Settings, SettingsError, digest, is_name, load

_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The settings; ./rejoinder.toml is used if it exists.",
)


class _Refused(click.ClickException):
    """Raised to end a command with status 2 and one message: something the user wrote cannot be used."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("rejoinder"), prog_name="rejoinder")
def cli() -> None:
    """Serve OpenAI's Responses API in front of any model, and keep the conversations.

    \b
    Start at once, with the providers whose keys are in the environment:
        ANTHROPIC_API_KEY=… rejoinder serve
        GEMINI_API_KEY=… OPENAI_API_KEY=… rejoinder serve
        OLLAMA_HOST=127.0.0.1:11434 rejoinder serve
    Without any, a demo model answers, so that everything can be tried.

    \b
    Or describe upstreams in ./rejoinder.toml:
        [[upstream]]
        name = "local"
        dialect = "chat"        # or responses, anthropic, gemini
        base_url = "http://127.0.0.1:8000/v1"
        models = ["*"]
    `rejoinder check` says what such a file means; every `[server]` setting is also a variable REJOINDER_<NAME>.
    """


@cli.command()
@click.option("--host", metavar="ADDRESS", help="Where to listen; an address others can reach needs an API key.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; 8080 unless the settings say otherwise.")
@_CONFIG
@click.option("--store", metavar="URL", help="Where conversations are kept, for example disk:./rejoinder-data.")
def serve(host: str | None, port: int | None, config: Path | None, store: str | None) -> None:
    """Serve until interrupted.

    Prints what is served, why, and what to paste into clients.
    """
    settings = _settings(config, host=host, port=port, store=store)
    click.echo(banner(settings))
    from rejoinder.server import serving
    from rejoinder.store.errors import StoreError

    try:
        serving.serve(settings)
    except (SettingsError, StoreError) as exc:
        _refuse(str(exc))


@cli.command()
@click.argument("model", required=False)
@_CONFIG
@click.option("--live", is_flag=True, help="Also ask each upstream for its models. Nothing is generated.")
def check(model: str | None, config: Path | None, live: bool) -> None:
    """Say what the settings mean, and who would serve MODEL.

    Contacts nobody without --live. The exit status is 0 when all is well, 1 when MODEL has no upstream or an upstream
    does not answer as it should, 2 when the settings cannot be used.
    """
    settings = _settings(config)
    click.echo(report(settings))
    well = True
    if model is not None:
        well = _told_route(settings, model)
    if live:
        well = _told_probes(settings) and well
    if not well:
        raise click.exceptions.Exit(1)


@cli.command()
@click.option("--write", "writing", is_flag=True, help="Edit the files instead of printing what belongs into them.")
@_CONFIG
@click.option(
    "--codex-config",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Codex's config.toml; by default in $CODEX_HOME or ~/.codex.",
)
@click.option("--base-url", metavar="URL", help="Where Codex reaches this server, if not at the settings' address.")
@click.option("--model", metavar="NAME", help="The model to select; by default the first this server lists.")
def codex(
    writing: bool, config: Path | None, codex_config: Path | None, base_url: str | None, model: str | None
) -> None:
    """Make this server a provider of Codex, used by `codex -p rejoinder`.

    Adds [model_providers.rejoinder] to config.toml and a profile file beside it. Codex without `-p rejoinder` behaves
    as before. Running it again changes nothing.
    """
    settings = _settings(config)
    url = (base_url or address(settings.server)).rstrip("/")
    routes = Routes(settings.upstreams)
    chosen = model or example(settings)
    if chosen.endswith(f"/{NO_MODEL}"):
        _refuse(f"no model can be listed, so name one: rejoinder codex --model {chosen}")
    if not routes.serves(chosen):
        _refuse(f"no upstream serves '{chosen}'; `rejoinder check` lists what is there")
    home = Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex")
    path = codex_config or home / "config.toml"
    keyed = bool(settings.keys)
    if not writing:
        click.echo(f"# {path}\n{provider_entry(url, keyed=keyed)}")
        click.echo(f"# {path.with_name('rejoinder.config.toml')}\n{profile_entry(chosen)}")
    else:
        try:
            written = write(path, url, model=chosen, keyed=keyed, serves=routes.serves)
        except CodexError as exc:
            _refuse(str(exc))
        said = "wrote" if written.changed else "nothing to change in"
        click.echo(f"{said} {written.config} and {written.profile}")
    click.echo("use it with: codex -p rejoinder", err=not writing)
    if keyed:
        click.echo("Codex takes its key from REJOINDER_API_KEY; export it where Codex runs", err=not writing)


@cli.group()
def key() -> None:
    """Make the API keys that clients use."""


@key.command()
@click.argument("owner")
def new(owner: str) -> None:
    """Make an API key for OWNER and print it, this once.

    The settings keep only its SHA-256, in the [[key]] block that is printed as well. Responses and conversations belong
    to the owner: two keys of one owner see the same ones.
    """
    if not is_name(owner):
        _refuse(f"expected a name of letters, digits, '.', '_' and '-', got {owner!r}")
    secret = f"rj-{secrets.token_urlsafe(32)}"
    block = f'[[key]]\nowner = "{owner}"\nsha256 = "{digest(secret)}"\n'
    click.echo(f"key (not shown again): {secret}\n\nfor the settings:\n\n{block}", nl=False)


def main() -> None:
    """The entry point."""
    cli()


def _settings(
    config: Path | None, *, host: str | None = None, port: int | None = None, store: str | None = None
) -> Settings:
    try:
        return load(config, os.environ, host=host, port=port, store=store)
    except SettingsError as exc:
        _refuse(str(exc))


def _refuse(message: str) -> Never:
    raise _Refused(message)


def _told_route(settings: Settings, model: str) -> bool:
    try:
        route = Routes(settings.upstreams).find(model)
    except UnknownModel as exc:
        click.echo(f"'{model}': {exc}")
        return False
    click.echo(f"'{model}' is served by '{route.upstream.name}', which is asked for '{route.model}'")
    return True


def _told_probes(settings: Settings) -> bool:
    import asyncio

    from rejoinder.server.probe import probe

    async def ask() -> list[bool]:
        findings = await asyncio.gather(*(probe(upstream) for upstream in settings.upstreams))
        for upstream, finding in zip(settings.upstreams, findings, strict=True):
            click.echo(f"{upstream.name}: {finding.told}")
        return [finding.ok for finding in findings]

    return all(asyncio.run(ask()))

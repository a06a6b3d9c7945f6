"""The `rejoinder` command. What takes long to import is imported by the commands that need it."""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points, version
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


_STORE = click.option("--store", metavar="URL", help="Where conversations are kept, for example disk:./rejoinder-data.")


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
@_STORE
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
    keyed, websocket = bool(settings.keys), settings.server.websocket
    if not writing:
        click.echo(f"# {path}\n{provider_entry(url, keyed=keyed, websocket=websocket)}")
        click.echo(f"# {path.with_name('rejoinder.config.toml')}\n{profile_entry(chosen)}")
    else:
        try:
            written = write(path, url, model=chosen, keyed=keyed, websocket=websocket, serves=routes.serves)
        except CodexError as exc:
            _refuse(str(exc))
        said = "wrote" if written.changed else "nothing to change in"
        click.echo(f"{said} {written.config} and {written.profile}")
    click.echo("use it with: codex -p rejoinder", err=not writing)
    if keyed:
        click.echo("Codex takes its key from REJOINDER_API_KEY; export it where Codex runs", err=not writing)


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def conformance(arguments: tuple[str, ...]) -> None:
    """Judge any server that speaks the Responses API.

    `rejoinder conformance --help` says how.
    """
    # By its name, since the judge and the judged import nothing of each other.
    [command] = entry_points(group="rejoinder.commands", name="conformance")
    judge: Callable[[Sequence[str], str], int] = command.load()
    raise click.exceptions.Exit(judge(arguments, "rejoinder conformance"))


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


@cli.group()
def store() -> None:
    """Look into the place where conversations are kept.

    The place comes from the settings, as for `serve`: --store, REJOINDER_STORE or `store` in [server]. All but `prune`
    only read, and work while a server runs, after it has stopped and after it was killed.
    """


@store.command()
@_CONFIG
@_STORE
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with sizes in bytes and times in Unix seconds.")
def stats(config: Path | None, store: str | None, as_json: bool) -> None:
    """Say how much of what is kept, how old it is, and how large the files are.

    A deleted response stays for as long as others build on it; an expired one can no longer be seen and is removed a
    day later. Sizes of rows are those of their compressed values.
    """
    settings = _settings(config, store=store)
    from rejoinder.server import store_command

    with _store_errors():
        click.echo(store_command.stats(settings, as_json=as_json))


@store.command()
@_CONFIG
@_STORE
def verify(config: Path | None, store: str | None) -> None:
    """Read everything that is kept, and say what is damaged.

    Every row is read and decoded; every parent, stream, conversation and count is compared with what it belongs to; and
    SQLite checks its file. Each damage is a line that names the row and what it breaks. The exit status is 0 when
    nothing is wrong, 1 when something is, 2 when the store cannot be opened.
    """
    settings = _settings(config, store=store)
    from rejoinder.server import store_command

    with _store_errors():
        whole = store_command.verified(settings, click.echo)
    if not whole:
        raise click.exceptions.Exit(1)


@store.command()
@_CONFIG
@_STORE
@click.option("--dry-run", is_flag=True, help="Only say how much would be removed; works while a server runs.")
@click.option("--now", "at_once", is_flag=True, help="Also what has expired within the last day.")
def prune(config: Path | None, store: str | None, dry_run: bool, at_once: bool) -> None:
    """Remove what has expired.

    That is every response that can no longer be seen since a day, unless others build on it, and idempotency keys that
    are older than a day. A running server does this itself, so this command wants the store for itself.
    """
    settings = _settings(config, store=store)
    from rejoinder.server import store_command

    with _store_errors():
        click.echo(store_command.prune(settings, dry_run=dry_run, at_once=at_once))


@store.command()
@click.argument("response_id", required=False)
@_CONFIG
@_STORE
@click.option("--conversation", "conversation_id", metavar="ID", help="All that was said in a conversation.")
@click.option("--owner", metavar="NAME", help="Only what belongs to this owner.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="A new file, for this user alone.")
def export(
    response_id: str | None,
    config: Path | None,
    store: str | None,
    conversation_id: str | None,
    owner: str | None,
    output: Path | None,
) -> None:
    """Write records as JSON Lines, to the standard output or to FILE.

    With RESPONSE_ID that response and all it builds on, with --conversation all that was said in it, both oldest first.
    Without either everything, in no order that means anything; `parent` says what follows what.

    \b
    Each line is an object:
        id, parent, created_at, status, model, upstream
        owner      its name where the settings or --owner say it, else a hash of it
        input      the items of this turn, as they were sent
        output     the items of the answer, as the client got them
        response   the Response object; null for items put into a conversation
        deleted    true: it can no longer be found, and is here since others build on it
        without    ids of earlier items that were taken out of the conversation here

    What cannot be read is named on the standard error, and makes the exit status 1. It is 2 when the store cannot be
    opened, or has no such response or conversation.
    """
    if response_id is not None and conversation_id is not None:
        _refuse("name a response or a conversation, not both")
    settings = _settings(config, store=store)
    from rejoinder.server import store_command

    wanted = store_command.Wanted(response_id, conversation_id, owner)
    with _store_errors():
        whole = store_command.export(settings, wanted, output, lambda text: click.echo(text, err=True))
    if not whole:
        raise click.exceptions.Exit(1)


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


@contextmanager
def _store_errors() -> Iterator[None]:
    from rejoinder.store.errors import StoreError

    try:
        yield
    except StoreError as exc:
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

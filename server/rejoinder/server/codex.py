"""Making Codex a client of this server (codex.md §1, §6).

`write` makes two entries, and selecting the second one is up to the user:

- `[model_providers.rejoinder]` in `config.toml`: inert until something names it, so the user's own default model and
  provider stay what they are. It is there and not in the profile because `codex doctor` and `codex debug models` take
  no profile, and programs around Codex choose a provider by this name.
- `rejoinder.config.toml` beside it: the profile that `codex -p rejoinder` lays over the configuration. It selects the
  provider and a model. A `[profiles.rejoinder]` table, the older form, makes Codex refuse `-p` altogether, so it is
  reported instead of kept.

The models are described by `model_catalog_url` and not by `model_catalog_json`: the file would be a third thing to
keep in step with the settings, and names a machine path; the URL is asked at each start and follows the server. It
replaces Codex's own catalogue only while this provider is selected. Two things were seen with codex-cli 0.169.0: the
URL is asked **only if the provider has a credential** (a header in `http_headers` does not count), so a server without
keys gets a placeholder as `experimental_bearer_token`; and an unset `env_key` is fatal, so it is written only when the
server wants a key. Without `default_reasoning_level` in an entry no effort is sent unless the user chose one, which
models without reasoning need.
"""

import contextlib
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    # tomlkit takes longer to import than `rejoinder --help` takes to run.
    from tomlkit import TOMLDocument

NAME = "rejoinder"
API_KEY_ENV = "REJOINDER_API_KEY"
PLACEHOLDER = "none"
"""What Codex sends to a server that has no keys: it asks for the catalogue only when it has something to send."""

CONTEXT_WINDOW = 128_000
"""Tokens. The smallest window of the models in common use; too large a number would let a turn run into the wall
before Codex compacts, and what a model really has is not known to any of the protocols in front of it."""

_INSTRUCTIONS = """\
You are a coding agent in a terminal. You and the user share one workspace: read it, change it and run commands in it \
until the task is done, then say briefly what you did.

- Look before you act: read the files and instructions (such as AGENTS.md) that bear on the task.
- Use `exec_command` to run commands; prefer `rg` for searching. Use `apply_patch` to edit files.
- Make the smallest change that solves the whole task, in the style of the code around it. Leave unrelated changes of \
the user alone, and never discard them.
- Check your work: run the tests or the program where you can, and say so when you could not.
- Ask only when you cannot find out yourself and guessing would be costly.
- Answer in plain, short text. Name files by path and line."""


class CodexError(Exception):
    """Raised when a configuration of Codex cannot be edited safely; nothing was written."""


class _Effort(msgspec.Struct, frozen=True):
    effort: str
    description: str


class _Truncation(msgspec.Struct, frozen=True):
    mode: Literal["bytes", "tokens"]
    limit: int


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What Codex wants to know about a model (codex.md §6): the required fields and the optional ones with effect."""

    slug: str
    display_name: str
    priority: int
    """The place in the list of models; the first one is the default."""

    supported_reasoning_levels: tuple[_Effort, ...] = (
        _Effort("low", "Answers soonest"),
        _Effort("medium", "Thinks where it helps"),
        _Effort("high", "Thinks longest"),
    )
    shell_type: str = "unified_exec"
    visibility: str = "list"
    supported_in_api: bool = True
    support_verbosity: bool = False
    truncation_policy: _Truncation = _Truncation("tokens", 10_000)
    experimental_supported_tools: tuple[str, ...] = ()
    base_instructions: str = _INSTRUCTIONS
    apply_patch_tool_type: str = "freeform"
    context_window: int = CONTEXT_WINDOW
    input_modalities: tuple[str, ...] = ("text", "image")


class Written(msgspec.Struct, frozen=True):
    """The two files, and whether anything in them changed."""

    config: Path
    profile: Path
    changed: bool


def catalogue(models: Iterable[str]) -> tuple[CatalogueEntry, ...]:
    """The `models` of a `GET /models` answer that Codex reads beside OpenAI's `data`."""
    return tuple(
        CatalogueEntry(slug=model, display_name=model, priority=place) for place, model in enumerate(models, start=1)
    )


def provider_entry(base_url: str, *, keyed: bool, websocket: bool) -> str:
    """The table for `config.toml`. `keyed`: the server wants a key, which Codex reads from REJOINDER_API_KEY;
    `websocket`: it takes the transport Codex prefers."""
    entry = _provider(base_url, keyed=keyed, websocket=websocket)
    *lines, credential = (f"{key} = {_value(value)}" for key, value in entry.items())
    why = (
        [] if keyed else ["# The server wants no key, but Codex asks for the models only if it has something to send."]
    )
    return "\n".join([f"[model_providers.{NAME}]", *lines, *why, credential]) + "\n"


def profile_entry(model: str) -> str:
    """The content of `rejoinder.config.toml`."""
    return f"model_provider = {_value(NAME)}\nmodel = {_value(model)}\n"


def write(
    path: Path, base_url: str, *, model: str, keyed: bool, websocket: bool, serves: Callable[[str], bool]
) -> Written:
    """Put the provider into the `config.toml` at `path` and the profile beside it; nothing else is touched.

    Doing it again changes nothing. Settings the user added to either entry stay, and so does another model in the
    profile as long as the server `serves` it. Raises CodexError when a file is not TOML, holds the older form of the
    profile, or would not come out as intended; then neither file has changed.
    """
    profile_path = path.with_name(f"{NAME}.config.toml")
    before, profile_before = _text(path), _text(profile_path)
    after = _with_provider(path, before, base_url, keyed=keyed, websocket=websocket)
    profile_after = _with_selection(profile_path, profile_before, model, serves)
    for file, old, new in ((path, before, after), (profile_path, profile_before, profile_after)):
        if new != old:
            _replace(file, new)
    return Written(path, profile_path, (before, profile_before) != (after, profile_after))


def _with_provider(path: Path, text: str, base_url: str, *, keyed: bool, websocket: bool) -> str:
    document = _document(path, text)
    _refuse_older_form(path, document.unwrap())
    providers = document.get("model_providers", {})
    if isinstance(providers, MutableMapping) and NAME in providers:
        entry = providers[NAME]
        if not isinstance(entry, MutableMapping):
            raise CodexError(f"{path}: expected [model_providers.{NAME}] to be a table, so nothing was changed")
        wanted = _provider(base_url, keyed=keyed, websocket=websocket)
        if "supports_websockets" in entry:
            del wanted["supports_websockets"]  # a way to the server that its user chose, as a proxy may want it
        _fill(entry, wanted)
        after = document.as_string()
    else:
        # A header at the end is right wherever the other providers are, and leaves every byte before it alone.
        after = _joined(text, provider_entry(base_url, keyed=keyed, websocket=websocket))
    _refuse_collateral(path, text, after, _without_provider)
    return after


def _with_selection(path: Path, text: str, model: str, serves: Callable[[str], bool]) -> str:
    document = _document(path, text)
    chosen = document.get("model")
    _fill(document, {"model_provider": NAME, "model": chosen if isinstance(chosen, str) and serves(chosen) else model})
    after = document.as_string()
    _refuse_collateral(path, text, after, _without_selection)
    return after


def _provider(base_url: str, *, keyed: bool, websocket: bool) -> dict[str, str | bool]:
    # Not called "OpenAI": that name switches on remote compaction and more (codex.md §8).
    return {
        "name": "Rejoinder",
        "base_url": base_url,
        "model_catalog_url": f"{base_url}/models",
        "wire_api": "responses",
        "supports_websockets": websocket,
        **({"env_key": API_KEY_ENV} if keyed else {"experimental_bearer_token": PLACEHOLDER}),
    }


def _value(value: str | bool) -> str:
    """A TOML value: JSON's escapes are TOML's, and so are its booleans."""
    return msgspec.json.encode(value).decode()


def _text(path: Path) -> str:
    try:
        # Bytes, so that the ends of lines stay what they are.
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as exc:
        raise CodexError(f"{path}: expected UTF-8, so nothing was changed") from exc
    except OSError as exc:
        raise CodexError(f"{path}: cannot be read: {exc.strerror}") from exc


def _document(path: Path, text: str) -> "TOMLDocument":
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as exc:
        raise CodexError(f"{path}: expected TOML, so nothing was changed: {exc}") from exc


def _refuse_older_form(path: Path, config: Mapping[str, object]) -> None:
    profiles = config.get("profiles")
    if config.get("profile") == NAME or (isinstance(profiles, Mapping) and NAME in profiles):
        raise CodexError(
            f"{path}: holds a profile '{NAME}' in the older form (`profile = …` or [profiles.{NAME}]), with which "
            f"Codex refuses `-p {NAME}`; remove it and run this again, its place is {NAME}.config.toml"
        )


def _fill(table: MutableMapping[str, object], wanted: Mapping[str, str | bool]) -> None:
    """Set what differs and drop the credential that is not wanted; what else is there belongs to the user."""
    for key in ("env_key", "experimental_bearer_token"):
        if key in table and key not in wanted:
            del table[key]
    for key, value in wanted.items():
        if table.get(key) != value:
            table[key] = value


def _joined(text: str, entry: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    gap = "" if not text else end if text.endswith("\n") else end * 2
    return text + gap + entry.replace("\n", end)


def _refuse_collateral(path: Path, before: str, after: str, others: Callable[[str], object]) -> None:
    """The last look before writing: apart from what is ours, both texts must mean the same."""
    if not _means_the_same(before, after, others):
        raise CodexError(f"{path}: is written in a way that cannot be edited safely; paste the entry by hand")


def _means_the_same(before: str, after: str, others: Callable[[str], object]) -> bool:
    try:
        return others(after) == others(before)
    except tomllib.TOMLDecodeError:
        return False


def _without_provider(text: str) -> object:
    meaning = tomllib.loads(text)
    providers = dict(meaning.pop("model_providers", {}))
    providers.pop(NAME, None)
    return meaning, providers


def _without_selection(text: str) -> object:
    meaning = tomllib.loads(text)
    return {key: value for key, value in meaning.items() if key not in ("model_provider", "model")}


def _replace(path: Path, text: str) -> None:
    """Write the whole file or nothing of it, with the mode it had; a link stays a link to the file behind it."""
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        if target.exists():
            os.chmod(name, target.stat().st_mode & 0o7777)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise

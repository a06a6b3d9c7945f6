"""The settings: a TOML file, the environment and the flags of the command, merged first and validated after.

A file says `[server]`, any number of `[[key]]` and any number of `[[upstream]]`. Every name of `[server]` can also be
given as `REJOINDER_<NAME>`, which wins over the file, and a flag wins over both. Upstreams whose variables are set
(`rejoinder.server.vendors`) are added behind those of the file, unless the file has one of the same name.

Credentials are named by environment variable or by file and never written here (lessons.md S-030); of the keys that
clients use only the SHA-256 is kept (reliability.md S1). Nothing in this module prints either, in full or in part.
"""

import difflib
import hashlib
import ipaddress
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_type_hints
from urllib.parse import urlsplit

import msgspec

from rejoinder.bridge.grammar import Mode
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.server import vendors
from rejoinder.server.tables import Place, from_text, listed, read, secretive, typed
from rejoinder.server.tables import SettingsError as SettingsError
from rejoinder.server.vendors import PROFILES, STRANGER, Auth, DialectName, Endpoint, Profile, Vendor

DEFAULT_FILE = Path("rejoinder.toml")

_PREFIX = "REJOINDER_"
_API_KEY = "REJOINDER_API_KEY"
_OTHER_VARIABLES = ("API_KEY", "SEAL_KEYS")
"""Variables with the prefix that are no setting of `[server]`: a client's key, and the keys records are sealed with."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OWN_HEADERS = frozenset(
    ("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host")
) | frozenset(("keep-alive", "te", "trailer", "transfer-encoding", "upgrade"))
_KEYS_OF_CLIENTS = (
    "keys are not written into this file, only their SHA-256; run `rejoinder key new OWNER` for the [[key]] block, or "
    "set REJOINDER_API_KEY"
)
_KEYS_OF_UPSTREAMS = (
    'keys are not written into this file; write api_key_env = "NAME_OF_A_VARIABLE" or api_key_file = "path/of/a/file" '
    "instead"
)

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Reasoning = Literal["summary", "raw"]


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[server]` table. Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    store: str = "disk:./rejoinder-data"
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * 1024 * 1024
    """After inflation (reliability.md S7)."""

    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 2000
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 30.0
    first_byte_timeout: Seconds = 300.0
    """Towards an upstream: from connecting to the first byte of the answer."""

    stall_timeout: Seconds = 120.0
    """Towards an upstream: between two events."""

    drain_timeout: Seconds = 25.0
    retries: Annotated[int, msgspec.Meta(ge=0)] = 1
    """How often a request that was refused before anything was generated is sent again."""

    retry_budget: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """How long one turn may wait for that in all."""

    ttl: Annotated[float, msgspec.Meta(ge=0)] = 30 * 86400.0
    """How long a response is kept after it, or what builds on it, was made; 0 keeps it until it is deleted."""

    on_disconnect: Literal["cancel", "finish"] = "cancel"
    """What becomes of a response whose client leaves before its end."""

    background_recovery: Literal["fail", "continue"] = "fail"
    """What becomes of a background response that a crash interrupted before anything of its answer was told."""

    websocket: bool = True
    websocket_compression: bool = False
    """permessage-deflate, for clients that offer it: a third more processor time a message, and 40 KB a connection."""

    websocket_lifetime: Seconds = 3600.0
    """How long a connection takes new requests (websocket.md §9)."""


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key that clients may use. `sha256` is the lower-case hex digest of it; not even that is ever shown (S1)."""

    owner: str
    sha256: str

    def __repr__(self) -> str:
        return f"ApiKey(owner={self.owner!r})"


class Credential:
    """What an upstream wants to see. `source` says where it came from and may be shown; the value is never shown."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str | None, source: str) -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str | None:
        """The key itself, or None when the upstream is called without one."""
        return self._value

    def __repr__(self) -> str:
        return f"Credential({self.source!r})"


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream, ready to be called. `base_url` has no slash at its end and is empty for the demo dialect."""

    name: str
    dialect: DialectName | Literal["demo"]
    base_url: str
    credential: Credential
    auth: Auth
    """`bearer`: `Authorization: Bearer KEY`. The others are the names of headers that hold the key as it is."""

    models: tuple[str, ...]
    aliases: Mapping[str, str]
    profile: Profile
    headers: Mapping[str, str]
    first_byte_timeout: float
    stall_timeout: float
    example: str
    """A model to write into examples, or empty where only its owner can know one."""

    discovered: bool
    """Whether a variable of the environment asked for it, and not the settings."""

    why: str
    """Why this upstream is there, for the start-up output."""

    reasoning: Reasoning = "summary"
    """How clients see reasoning: as parts of a summary, or as raw `reasoning_text` parts (open-responses.md §5)."""

    grammar: Mode = "pass"
    """What is done about the text of a tool that declares a grammar."""

    def sent_headers(self) -> dict[str, str]:
        """The headers of every request: the configured ones, and the key in the one where it belongs."""
        key = self.credential.reveal()
        if key is None:
            return {**self.headers}
        name, value = ("authorization", f"Bearer {key}") if self.auth == "bearer" else (self.auth, key)
        return {**self.headers, name: value}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the server is told. `upstreams` has at least one member; `findings` tell what was decided and why."""

    server: ServerSettings
    keys: tuple[ApiKey, ...]
    upstreams: tuple[UpstreamSettings, ...]
    findings: tuple[str, ...]


class _UpstreamTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An `[[upstream]]` as it is written."""

    name: str
    dialect: DialectName | Literal["demo"] | None = None
    base_url: str = ""
    api_key_env: str = ""
    api_key_file: str = ""
    models: tuple[str, ...] | None = None
    aliases: dict[str, str] = {}
    vendor: str = ""
    auth: Auth | None = None
    chat: dict[str, object] = {}
    anthropic: dict[str, object] = {}
    gemini: dict[str, object] = {}
    responses: dict[str, object] = {}
    reasoning: Reasoning | None = None
    grammar: Mode = "pass"
    headers: dict[str, str] = {}
    allow_http: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The three tables a file may have."""

    server: dict[str, object] = {}
    key: tuple[dict[str, object], ...] = ()
    upstream: tuple[dict[str, object], ...] = ()


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    host: str | None = None,
    port: int | None = None,
    store: str | None = None,
) -> Settings:
    """The settings of `path`, else of `./rejoinder.toml` if there is one, with the environment and flags over them.

    Raises SettingsError. Reads files (the settings and key files), contacts nothing.
    """
    file = path or DEFAULT_FILE
    there = path is not None or file.exists()
    top = Place(str(file) if there else "settings", "", file.parent)
    tables = typed(top, read(file) if there else {}, _File, secret=_KEYS_OF_CLIENTS)
    server = _server(top, tables.server, environ, {"host": host, "port": port, "store": store})
    keys = _keys(top, tables.key, environ)
    _refuse_open_door(server, keys)
    findings = _unknown_variables(environ)
    upstreams = [
        _upstream(top.within(f"upstream[{index}]."), table, environ, server, findings)
        for index, table in enumerate(tables.upstream)
    ]
    _refuse_twins(top, [upstream.name for upstream in upstreams])
    upstreams += _discovered(environ, server, {upstream.name for upstream in upstreams}, findings)
    if not upstreams:
        nothing = Place("nothing else is configured", "", file.parent)
        upstreams = [_upstream(nothing, {"name": "demo", "dialect": "demo"}, environ, server, findings)]
        findings.append(
            "no upstream is configured and no provider's key was found, so 'demo' answers; write an [[upstream]], or "
            "set a variable such as OPENAI_API_KEY or OLLAMA_HOST"
        )
    return Settings(server=server, keys=keys, upstreams=tuple(upstreams), findings=tuple(findings))


def digest(key: str) -> str:
    """The form in which a client's key is kept: lower-case hex of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_name(text: str) -> bool:
    """Whether an owner or an upstream may be called so: nothing in it needs quoting, in TOML or before a slash."""
    return _NAME.fullmatch(text) is not None


def loopback(host: str) -> bool:
    """Whether an address is of this machine only. A name other than `localhost` could be anybody's."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# [server] and [[key]]


def _server(
    top: Place, table: Mapping[str, object], environ: Mapping[str, str], flags: Mapping[str, str | int | None]
) -> ServerSettings:
    merged = dict(table)
    for name, hint in get_type_hints(ServerSettings, include_extras=True).items():
        variable = _PREFIX + name.upper()
        if text := environ.get(variable, "").strip():
            merged[name] = from_text(variable, text, hint)
    merged |= {name: value for name, value in flags.items() if value is not None}
    place = top.within("server.")
    server = typed(place, merged, ServerSettings, secret=_KEYS_OF_CLIENTS)
    for name, value in merged.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise place.error(f"expected a finite number of seconds, got {value}", name)
        if value == "":
            raise place.error("expected a text, got an empty one", name)
    return server


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A misspelt variable is only told, not refused: the environment is not ours alone."""
    known = [*(name.upper() for name in ServerSettings.__struct_fields__), *_OTHER_VARIABLES]
    return [
        f"{variable} is not a setting; did you mean {_PREFIX}{near[0]}?"
        for variable in sorted(environ)
        if variable.startswith(_PREFIX) and (name := variable.removeprefix(_PREFIX)) not in known
        if (near := difflib.get_close_matches(name, known, n=1, cutoff=0.7))
    ]


def _keys(top: Place, tables: Iterable[Mapping[str, object]], environ: Mapping[str, str]) -> tuple[ApiKey, ...]:
    owners: dict[str, str] = {}
    keys: list[ApiKey] = []
    for index, table in enumerate(tables):
        place = top.within(f"key[{index}].")
        key = typed(place, table, ApiKey, secret=_KEYS_OF_CLIENTS)
        key = ApiKey(owner=key.owner, sha256=key.sha256.lower())
        if not is_name(key.owner):
            raise place.error("expected letters, digits, '.', '_' and '-'", "owner")
        if not _DIGEST.fullmatch(key.sha256):
            raise place.error("expected the 64 hex digits that `rejoinder key new OWNER` prints", "sha256")
        if key.sha256 in owners:
            raise place.error(f"this is the key of '{owners[key.sha256]}' again; make another", "sha256")
        owners[key.sha256] = key.owner
        keys.append(key)
    if text := environ.get(_API_KEY, "").strip():
        if not _sendable(text):
            raise SettingsError(f"{_API_KEY}: expected printable ASCII without spaces, which a header can carry")
        if digest(text) in owners:
            raise SettingsError(f"{_API_KEY} is the key of '{owners[digest(text)]}' again; drop one of the two")
        keys.append(ApiKey(owner="default", sha256=digest(text)))
    return tuple(keys)


def _sendable(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key


def _refuse_open_door(server: ServerSettings, keys: tuple[ApiKey, ...]) -> None:
    """reliability.md S4: an address others can reach needs keys."""
    if keys or loopback(server.host):
        return
    raise SettingsError(
        f"host '{server.host}' can be reached from other machines and there is no API key, so anybody could spend "
        "yours; run `rejoinder key new OWNER` and paste the [[key]] block into the settings, or set "
        f"{_API_KEY}, or listen on 127.0.0.1"
    )


def _refuse_twins(top: Place, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise top.error(f"two [[upstream]] are called '{name}'; give each its own name")


# [[upstream]]


def _upstream(
    place: Place,
    written: Mapping[str, object],
    environ: Mapping[str, str],
    server: ServerSettings,
    findings: list[str],
    *,
    discovered: bool = False,
) -> UpstreamSettings:
    table = typed(place, written, _UpstreamTable, secret=_KEYS_OF_UPSTREAMS)
    if not is_name(table.name):
        raise place.error("expected letters, digits, '.', '_' and '-', as the name is used in 'name/model'", "name")
    place = place.within(f"upstream '{table.name}' ")
    if table.dialect == "demo":
        return _demo(place, table, written, server)
    vendor = _vendor(place, table)
    endpoint = vendor.endpoint(table.dialect, table.base_url)
    base_url = _base_url(place, table, endpoint)
    credential = _credential(place, table, environ, findings)
    unused = [name for name in vendor.env if name != "OLLAMA_HOST" and environ.get(name)]
    if credential.reveal() is None and unused:
        findings.append(
            f"upstream '{table.name}' is called without a key though {unused[0]} is set; write api_key_env = \""
            f'{unused[0]}" to use it'
        )
    models = vendor.models if table.models is None else table.models
    if table.models is None and not models:
        raise place.error('is missing: list the models it serves, or ["*"] for all of them', "models")
    _check_names(place, models, table.aliases)
    profile = _profile(place, table, written, endpoint)
    if isinstance(profile, ResponsesProfile):
        _refuse_what_passes(place, table)
    return UpstreamSettings(
        name=table.name,
        dialect=endpoint.dialect,
        base_url=base_url,
        credential=credential,
        auth=table.auth or endpoint.key_travels,
        models=models,
        aliases=table.aliases,
        profile=profile,
        headers=_headers(place, table.headers),
        first_byte_timeout=server.first_byte_timeout,
        stall_timeout=server.stall_timeout,
        example=_example(models, table.aliases, vendor.example),
        discovered=discovered,
        why=place.source,
        reasoning=table.reasoning or "summary",
        grammar=table.grammar,
    )


def _refuse_what_passes(place: Place, table: _UpstreamTable) -> None:
    """Settings without effect on what is relayed as it comes."""
    if table.grammar != "pass":
        raise place.error("a provider that speaks Responses keeps to a tool's grammar itself; remove this", "grammar")
    if table.reasoning is not None:
        raise place.error("what a provider of this dialect says of its reasoning is relayed; remove this", "reasoning")


def _demo(
    place: Place, table: _UpstreamTable, written: Mapping[str, object], server: ServerSettings
) -> UpstreamSettings:
    """An upstream that answers by itself."""
    for key in written:
        if key not in ("name", "dialect", "models", "aliases", "reasoning", "grammar"):
            raise place.error("the dialect 'demo' calls nobody; leave this out", key)
    models = ("demo",) if table.models is None else table.models
    _check_names(place, models, table.aliases)
    return UpstreamSettings(
        name=table.name,
        dialect="demo",
        base_url="",
        credential=Credential(None, "none"),
        auth="bearer",
        models=models,
        aliases=table.aliases,
        profile=ChatProfile(),
        headers={},
        first_byte_timeout=server.first_byte_timeout,
        stall_timeout=server.stall_timeout,
        example=_example(models, table.aliases, ""),
        discovered=False,
        why=place.source,
        reasoning=table.reasoning or "summary",
        grammar=table.grammar,
    )


def _discovered(
    environ: Mapping[str, str], server: ServerSettings, taken: set[str], findings: list[str]
) -> list[UpstreamSettings]:
    """The upstreams the environment asks for. What is wrong with them is told, never fatal: the variables are meant
    for other programs too."""
    upstreams: list[UpstreamSettings] = []
    for found in vendors.discover(environ):
        name = found.vendor.name
        if name in taken:
            findings.append(f"your [[upstream]] '{name}' replaces the one found by {found.variable}")
            continue
        written: dict[str, object] = {"name": name, "vendor": name, "base_url": found.base_url}
        if found.variable != "OLLAMA_HOST":
            written["api_key_env"] = found.variable
        try:
            upstream = _upstream(
                Place(f"found {found.variable}", "", Path()), written, environ, server, findings, discovered=True
            )
        except SettingsError as exc:
            findings.append(f"{exc}; left out")
            continue
        upstreams.append(upstream)
        findings.append(f"found {found.variable}: upstream '{name}' at {upstream.base_url}")
    return upstreams


def _vendor(place: Place, table: _UpstreamTable) -> Vendor:
    if table.vendor:
        known = vendors.known()
        if table.vendor in known:
            return known[table.vendor]
        near = difflib.get_close_matches(table.vendor, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {listed(known)}"
        raise place.error(f"no vendor of this name is known; {hint}", "vendor")
    host, port = _authority(table.base_url)
    return vendors.guess(host, port, loopback=loopback(host)) or STRANGER


def _authority(url: str) -> tuple[str, int | None]:
    try:
        split = urlsplit(url)
        return split.hostname or "", split.port
    except ValueError:
        return "", None


def _base_url(place: Place, table: _UpstreamTable, endpoint: Endpoint) -> str:
    """The address calls go to (lessons.md S-025). The address itself is never repeated: it may hold a password."""
    url = table.base_url or endpoint.base_url
    if not url:
        raise place.error('is missing: write where it listens, for example "http://127.0.0.1:8000/v1"', "base_url")
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise place.error("expected a URL of printable ASCII without spaces", "base_url")
    host, _ = _authority(url)
    if not url.lower().startswith(("http://", "https://")) or not host:
        raise place.error("expected http://host[:port]/path or https://host[:port]/path", "base_url")
    if "@" in urlsplit(url).netloc:
        raise place.error("a user or password does not belong into the address; use api_key_env", "base_url")
    if "?" in url or "#" in url:
        raise place.error("expected no query and no fragment, since paths are added to its end", "base_url")
    if url.lower().startswith("http://") and not loopback(host) and not table.allow_http:
        raise place.error(
            f"plain http to '{host}' shows prompts and keys to the network; use https, or write allow_http = true in "
            "its [[upstream]] if that network is yours",
            "base_url",
        )
    return url.rstrip("/")


def _credential(place: Place, table: _UpstreamTable, environ: Mapping[str, str], findings: list[str]) -> Credential:
    """The key, read here so that a missing one is told at start and not by the first request."""
    if table.api_key_env and table.api_key_file:
        raise place.error("expected this or api_key_env, got both", "api_key_file")
    if table.api_key_env:
        # A key pasted here by mistake must not be repeated; what looks like a variable's name may be.
        named = f"'{table.api_key_env}'" if _VARIABLE.fullmatch(table.api_key_env) else "it names"
        source, text = f"environment variable {named}", environ.get(table.api_key_env, "").strip()
        if not text:
            raise place.error(f"the environment variable {named} is not set; export it, or remove this", "api_key_env")
    elif table.api_key_file:
        file = place.directory / Path(table.api_key_file).expanduser()
        try:
            source, text = "key file", file.read_text(encoding="utf-8").strip()
            if file.stat().st_mode & 0o077:
                findings.append(f"the key file of upstream '{table.name}' can be read by others; chmod 600 it")
        except OSError as exc:
            raise place.error(f"the file cannot be read: {exc.strerror}", "api_key_file") from exc
        except UnicodeDecodeError as exc:
            raise place.error("expected a text file that holds the key and nothing else", "api_key_file") from exc
    else:
        return Credential(None, "none")
    if not text or not _sendable(text):
        raise place.error(f"expected a key of printable ASCII without spaces in the {source}, got something else")
    return Credential(text, source)


def _profile(place: Place, table: _UpstreamTable, upstream: Mapping[str, object], endpoint: Endpoint) -> Profile:
    """The endpoint's profile with the fields of the dialect's own table in place of its own, each as a whole."""
    dialect = endpoint.dialect
    for other in PROFILES:
        if other != dialect and other in upstream:
            raise place.error(
                f"this upstream speaks '{dialect}', so the table has no effect; write dialect = \"{other}\", or call "
                f"the table [upstream.{dialect}]",
                other,
            )
    written: dict[str, object] = dict(getattr(table, dialect))
    merged = msgspec.structs.asdict(endpoint.profile) | written
    return typed(place.within(f"{place.at}{dialect}."), merged, PROFILES[dialect])


def _headers(place: Place, headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise place.error("expected the name of a header", "headers")
        if secretive(name):
            raise place.error(
                "this looks like a credential; it belongs into api_key_env or api_key_file", f"headers.{name}"
            )
        if name.lower() in _OWN_HEADERS:
            raise place.error("the server sets this header itself; remove it", f"headers.{name}")
        if not (value.isascii() and value.isprintable()):
            raise place.error("expected printable ASCII", f"headers.{name}")
    return {name.lower(): value for name, value in headers.items()}


def _check_names(place: Place, models: Iterable[str], aliases: Mapping[str, str]) -> None:
    for model in (*models, *aliases.values()):
        if not _modelish(model):
            raise place.error("expected names of printable characters without spaces", "models")
    for alias, model in aliases.items():
        if not _modelish(alias) or "*" in alias + model or "?" in alias + model:
            raise place.error("expected one name for one model, without '*' and '?'", "aliases")


def _modelish(name: str) -> bool:
    return bool(name) and name.isprintable() and " " not in name


def _example(models: Iterable[str], aliases: Mapping[str, str], fallback: str) -> str:
    exact = [model for model in models if "*" not in model and "?" not in model]
    return next(iter((*exact, *aliases)), fallback)

"""Reading TOML into structs, with errors that say where, what was expected and what came.

A value is repeated in an error only when it is a number or one of a few choices: a text in the wrong place may be a
key.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, get_args, get_origin, get_type_hints

import msgspec

T = TypeVar("T")

_SECRET_WORDS = frozenset(
    ("apikey", "auth", "authorization", "bearer", "cookie", "credential", "key", "password", "secret", "token")
)
_TYPES = {
    "array": "a list",
    "bool": "a boolean",
    "dict": "a table",
    "float": "a number",
    "int": "an integer",
    "list": "a list",
    "object": "a table",
    "str": "a string",
}


class SettingsError(Exception):
    """Raised when the settings cannot be used. The message names the file, the place and what to write instead."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written: the file as the user names it, the path of keys so far, ready to be continued, and
    the directory that relative paths start from."""

    source: str
    at: str
    directory: Path

    def within(self, at: str) -> "Place":
        return replace(self, at=at)

    def error(self, message: str, key: str = "") -> SettingsError:
        where = f"{self.at}{key}".rstrip(". ")
        return SettingsError(f"{self.source}: {where}: {message}" if where else f"{self.source}: {message}")


def read(path: Path) -> Mapping[str, object]:
    """The tables of a TOML file. Raises SettingsError when there is none, or what is there is not TOML."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as exc:
        raise SettingsError(f"{path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{path}: expected UTF-8, got something else at byte {exc.start}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"{path}: not valid TOML: {exc}") from exc


def typed(place: Place, table: Mapping[str, object], kind: type[T], *, secret: str = "") -> T:
    """`table` as `kind`; where that has a `msgspec.Raw`, whatever is written becomes JSON.

    Raises SettingsError; `secret` is what to say where an unknown name looks like a key's.
    """
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise place.error(secret if secret and secretive(key) else _unknown(key, hints), key)
    inner = {key: _inner(place.within(f"{place.at}{key}."), value, hints[key]) for key, value in table.items()}
    try:
        return msgspec.convert(inner, kind)
    except msgspec.ValidationError as exc:
        message, _, path = str(exc).partition(" - at `$")
        key, value = _found(table, path.rstrip("`"))
        raise place.error(_told(message, key, value, hints.get(re.split(r"[.\[]", key)[0])), key) from exc


def from_text(variable: str, text: str, hint: type) -> object:
    """The value of an environment variable as `hint`. Raises SettingsError."""
    try:
        value: object = msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"environment variable {variable}: {_expected(str(exc))}, got {text!r}") from exc
    return value


def secretive(name: str) -> bool:
    """Whether a name is one that credentials go by."""
    return not _SECRET_WORDS.isdisjoint(re.split(r"[-_]", name.lower()))


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _inner(place: Place, value: object, hint: object) -> object:
    """A value with its structs made, each in its own place, and with JSON where it is kept as JSON."""
    arguments = get_args(hint)
    match value:
        case msgspec.Raw():
            return value
        case _ if hint is msgspec.Raw:
            return msgspec.Raw(msgspec.json.encode(value))
        case dict() if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return typed(place, value, hint)
        case dict() if get_origin(hint) is dict:
            return {key: _inner(place.within(f"{place.at}{key}."), entry, arguments[1]) for key, entry in value.items()}
        case list() if get_origin(hint) is tuple:
            return [_inner(place, entry, arguments[0]) for entry in value]
        case _:
            return value


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of {listed(known)}"
    return f"there is no setting of this name; {hint}"


def _found(table: object, path: str) -> tuple[str, object]:
    """The key and the value a path of msgspec leads to. Its `[...]` is a value of a table of strings."""
    steps = ""
    value = table
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path):
        if isinstance(value, list):
            steps += f"[{index}]"
            value = value[int(index)]
        else:
            assert isinstance(value, dict)
            key = name or next(key for key, entry in value.items() if not isinstance(entry, str))
            steps += f".{key}"
            value = value[key]
    return steps.lstrip("."), value


def _told(message: str, key: str, value: object, hint: object) -> str:
    if missing := re.search(r"missing required field `(\w+)`", message):
        return f"'{missing[1]}' is missing"
    if message.startswith("Invalid enum value"):
        # Where the name sounds like a credential's, even one of a few choices may be a key.
        return f"expected one of {listed(_choices(hint))}, got {'something else' if secretive(key) else repr(value)}"
    if message.startswith("Expected `array`") and isinstance(value, dict):
        return "expected a list, got a table; a table that can be repeated is written with two brackets"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{_expected(message)}, got {value if number else _TYPES.get(type(value).__name__, 'something else')}"


def _expected(message: str) -> str:
    """The first half of msgspec's sentence in words, for example "expected an integer <= 65535"."""
    told = message.partition(" - at ")[0].partition(", got")[0]
    return re.sub(r"`(\w+)[^`]*`", lambda kind: _TYPES[kind[1]], told).replace("Expected", "expected")


def _choices(hint: object) -> list[str]:
    if isinstance(hint, str):
        return [hint]
    return [choice for argument in get_args(hint) for choice in _choices(argument)]

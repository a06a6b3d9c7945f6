"""Real exchanges with providers, read where they lie.

A recording is one request and its answer (see the README of the recordings). Requests are in the provider's words; the
files beside this one turn them into the body of a create call, each for its provider (`chat_recordings`, …), so that
the bridge can be asked to say them again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "recordings"
"""`../shared/recordings`, seen from the project."""

Provider = Literal["anthropic", "chat", "gemini", "responses"]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Object: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange. `conversation` is the source it was cut from and `turn` its place in there, from 1; `url` is empty
    and `request` None where the source kept none. `sent` are the headers of the request, `headers` those of the answer;
    both are but a few that matter."""

    name: str
    conversation: str
    turn: int
    method: str
    url: str
    sent: Mapping[str, str]
    request: bytes | None
    status: int
    headers: Mapping[str, str]
    is_stream: bool
    body: bytes

    @property
    def said(self) -> Object:
        """The request as JSON."""
        assert self.request is not None
        return objects([json.loads(self.request)])[0]

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class _Answer(Struct):
    status: int
    content_type: str
    body: str
    headers: dict[str, str] = {}


class _File(Struct):
    source: str
    request: Raw
    response: _Answer
    method: str = "POST"
    url: str | None = None
    request_headers: dict[str, str] = {}


@cache
def recordings(provider: Provider) -> tuple[Recording, ...]:
    """All of a provider's, in the order of their names; none where the folder is missing."""
    return tuple(_recording(path) for path in sorted((FOLDER / provider).glob("*.json")))


def recording(provider: Provider, name: str) -> Recording:
    """The one whose file name begins so."""
    [found] = [recording for recording in recordings(provider) if recording.name.startswith(name)]
    return found


def conversations(provider: Provider) -> list[tuple[Recording, ...]]:
    """Those that follow one another in their source, each list in the order of their turns."""
    grouped: dict[str, list[Recording]] = {}
    for one in recordings(provider):
        grouped.setdefault(one.conversation, []).append(one)
    ordered = [tuple(sorted(group, key=lambda one: one.turn)) for group in grouped.values()]
    return [group for group in ordered if len(group) > 1]


def _recording(path: Path) -> Recording:
    file = _FILE.decode(path.read_bytes())
    source = _SOURCE.fullmatch(file.source)
    request = bytes(file.request)
    return Recording(
        name=path.stem,
        conversation=source["path"] if source is not None else file.source,
        turn=int((source and source["turn"]) or 1),
        method=file.method,
        url=file.url or "",
        sent=file.request_headers,
        request=request if request != b"null" else None,
        status=file.response.status,
        headers=file.response.headers,
        is_stream=file.response.content_type == "text/event-stream",
        body=file.response.body.encode(),
    )


_FILE = msgspec.json.Decoder(_File)
_SOURCE = re.compile(r"(?P<path>.*)@[0-9a-f]+(?: \(interaction (?P<turn>\d+) of \d+\))?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A recorded request as a create call: its parameters without `input`, the input, and the parameters the API has
    no word for. Those are settings of an upstream (mapping.md §1, last row)."""

    parameters: Object
    items: list[Object]
    extra: Object

    def body(self, items: Sequence[Object] | None = None) -> bytes:
        """The body of the call, with other items if there are some."""
        return json.dumps({**self.parameters, "input": list(items if items is not None else self.items)}).encode()


def objects(value: Json) -> list[Object]:
    """The elements of a list of objects."""
    assert isinstance(value, list), value
    return [_object(element) for element in value]


def _object(value: Json) -> Object:
    assert isinstance(value, dict), value
    return value

"""Real exchanges with providers, read where they lie.

A recording is one request and its answer (see the README of the recordings). Requests are in the provider's words; the
files beside this one turn them into the body of a create call, each for its provider (`chat_recordings`, …), so that
the bridge can be asked to say them again.
"""

import json
import random
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
import pytest
from msgspec import Raw, Struct

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "recordings"
"""`../shared/recordings`, seen from the project."""

needs_recordings = pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not beside the project")

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
        return loaded(self.request)

    @property
    def refusal(self) -> Json:
        """The words of an answer that is a refusal."""
        refused = loaded(self.body)["error"]
        return refused["message"] if isinstance(refused, dict) else refused

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


def steps(provider: Provider, broken_off: Container[str] = ()) -> list[tuple[Recording, Recording]]:
    """Each with the one that goes on from its answer; `broken_off` are the names of those that nothing goes on from."""
    pairs = [pair for group in conversations(provider) for pair in pairwise(group)]
    return [(before, after) for before, after in pairs if before.name not in broken_off]


def named(chosen: Sequence[Recording]) -> pytest.MarkDecorator:
    """One test for each, as `exchange`."""
    return pytest.mark.parametrize("exchange", chosen, ids=[one.name for one in chosen])


def cuts(exchange: Recording, *, short: int | None = None) -> Sequence[int]:
    """Places to cut an answer in two: every one of a short answer, which is one of fewer bytes than `short`. A whole
    body is read at its end, so there only its beginning can matter."""
    size = len(exchange.body)
    if size < (short if short is not None else 6_000 if exchange.is_stream else 0):
        return range(1, size)
    # Of the longest answers fewer, for the time it takes.
    return [*range(1, min(100, size)), *_some(exchange, size, max(5, min(100, 2_000_000 // size)))]


def tails(exchange: Recording, end: int) -> list[int]:
    """Places to end an answer at that is whole only some time after `end`: after frames, and anywhere."""
    boundaries = [match.end() for match in _BOUNDARY.finditer(exchange.body, 0, end)]
    chosen = random.Random(exchange.name).sample(boundaries, min(8, len(boundaries)))
    return [0, end, *chosen, *_some(exchange, end + 1, 8)]


_BOUNDARY = re.compile(rb"\r?\n\r?\n")


def _some(exchange: Recording, below: int, count: int) -> list[int]:
    """Places chosen at random, the same ones in every run."""
    chance = random.Random(exchange.name)
    return [chance.randrange(1, below) for _ in range(count)]


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


def loaded(text: str | bytes) -> Object:
    """The object this JSON is."""
    return _object(json.loads(text))


def objects(value: Json) -> list[Object]:
    """The elements of a list of objects."""
    assert isinstance(value, list), value
    return [_object(element) for element in value]


def _object(value: Json) -> Object:
    assert isinstance(value, dict), value
    return value

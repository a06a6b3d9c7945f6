"""The judge before the API it judges by: what OpenAI itself answered has to pass.

The recordings lie beside the project, in `../shared/recordings/responses`, and are described there.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import pytest

from rejoinder.conformance import grammar
from rejoinder.conformance.answer import Answer, read
from rejoinder.conformance.server import Reply
from rejoinder.conformance.shape import EnvelopeShape, ResponseShape, nulls, output_items, read_item
from rejoinder.conformance.stream import Stream

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "recordings" / "responses"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not beside the project")

RESUMED = "background-mode-streaming-starting-after"
"""It begins in the middle, as was asked."""

BACKFILLED = "model-mcp-list-tools-stream"
"""Its hosted tool is named anew in the middle: the items that were added are not the ones that are done."""

SINCE = 1_783_000_000
"""July 2026: from then on `cache_write_tokens` is there."""


class _Answer(msgspec.Struct):
    status: int
    content_type: str | None
    body: str


class _Recording(msgspec.Struct):
    response: _Answer
    url: str | None = None


class _Made(msgspec.Struct):
    object: str = ""
    created_at: float = 0


@cache
def replies() -> dict[str, Reply]:
    """What api.openai.com answered, by the names of the files."""
    found = {path.stem: msgspec.json.decode(path.read_bytes(), type=_Recording) for path in FOLDER.glob("*.json")}
    return {
        name: Reply(
            one.response.status, {"content-type": one.response.content_type or ""}, [one.response.body.encode()]
        )
        for name, one in found.items()
        if "//api.openai.com/" in (one.url or "")
    }


@cache
def streams() -> dict[str, Stream]:
    return {
        name: Stream.of(reply)
        for name, reply in replies().items()
        if reply.status == 200 and reply.media_type == "text/event-stream" and not name.startswith(RESUMED)
    }


def responses() -> dict[str, bytes]:
    """The response objects, those at the end of a stream included."""
    plain = {
        name: reply.body
        for name, reply in replies().items()
        if reply.status == 200
        and reply.media_type == "application/json"
        and read(_Made, reply.body, "an answer").object == "response"
    }
    return plain | {name: bytes(stream.response) for name, stream in streams().items()}


@pytest.mark.parametrize("rule", grammar.ALL)
def test_streams_of_openai_keep_the_grammar(rule: Callable[[Stream], None]) -> None:
    assert len(streams()) > 10
    for name, stream in streams().items():
        if not (name.startswith(BACKFILLED) and rule in (grammar.pairing, grammar.output)):
            rule(stream)


def test_responses_of_openai_have_the_shape() -> None:
    recent = [body for body in responses().values() if read(_Made, body, "a response").created_at >= SINCE]
    assert len(recent) >= 10
    for body in recent:
        read(ResponseShape, body, "a response")


def test_items_of_openai_have_their_fields_and_no_nulls() -> None:
    assert len(responses()) >= 50
    for body in responses().values():
        read(Answer, body, "a response")
        for item in output_items(body):
            read_item(item)
            assert list(nulls(item)) == []


def test_errors_of_openai_fit_the_envelope() -> None:
    refused = [reply for reply in replies().values() if reply.status >= 400]
    assert refused
    for reply in refused:
        read(EnvelopeShape, reply.body, "an error")

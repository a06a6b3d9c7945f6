"""How the bytes of an answer go out, and what goes wrong while they do."""

import json
from collections.abc import Iterable, Iterator

from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.script import Action, Answer, Cut, Head, HttpError, Pause, Reset, Stall, Trouble


def at_once(body: bytes, trouble: Trouble | None, error: bytes) -> Iterator[Action]:
    """A JSON body. Half of it, when the trouble is one of the connection."""
    head = Head(200, {"content-type": "application/json", "content-length": str(len(body))})
    half = body[: len(body) // 2]
    match trouble:
        case None:
            yield from (head, body)
        case Trouble(kind="cut" | "end"):
            yield from (head, half, Cut())
        case Trouble(kind="reset"):
            yield from (head, half, Reset())
        case Trouble(kind="stall"):
            yield from (head, half, Stall())
        case Trouble(kind="bad_json"):
            yield from (head, b"x" * len(body))
        case Trouble(kind="error"):
            yield from (Head(200, {"content-type": "application/json"}), error)


def in_pieces(
    pieces: Iterable[bytes], answer: Answer, *, end: bytes = b"", error: bytes, broken: bytes, head: Head | None = None
) -> Iterator[Action]:
    """A stream. `end` follows the last piece; `error` and `broken` are what a trouble of that kind says instead.

    An empty piece counts, but nothing is sent for it.
    """
    yield head or Head()
    for number, piece in enumerate(pieces):
        if answer.trouble and number == answer.trouble.after:
            match answer.trouble.kind:
                case "cut":
                    yield Cut()
                case "reset":
                    yield Reset()
                case "stall":
                    yield Stall()
                case "error":
                    yield error
                case "bad_json":
                    yield broken
            return
        if number and answer.gap:
            yield Pause(answer.gap)
        if piece:
            yield piece
    if end:
        yield end


def refusal_of(error: HttpError, envelope: Json) -> Iterator[Action]:
    yield Head(error.status, {"content-type": "application/json", **error.headers})
    yield json.dumps(envelope).encode() if error.raw is None else error.raw

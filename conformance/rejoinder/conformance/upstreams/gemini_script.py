"""The words of a script that Gemini alone has (provider-gemini.md §5, §7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.script import Native


@dataclass(frozen=True, slots=True)
class SignedText(Native):
    """Text whose last part carries a signature."""

    pieces: tuple[str, ...]
    signature: str


@dataclass(frozen=True, slots=True)
class Blocked(Native):
    """No candidate, only the reason why the prompt was not let through."""

    reason: str
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Grounding(Native):
    """What the text goes back to; `early` sends it in a chunk of its own where it stands, else it comes last."""

    metadata: Mapping[str, Json]
    early: bool = False


@dataclass(frozen=True, slots=True)
class Whole(Native):
    """Any part, whole in one chunk: code, its result, an image, a call of a server tool."""

    part: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Support:
    """Which pages a stretch of the text goes back to. Offsets are bytes of UTF-8, a start of 0 is left out (§7)."""

    start: int
    end: int
    text: str
    pages: tuple[int, ...] = (0,)


def signed_text(*pieces: str, signature: str) -> SignedText:
    """Text with its signature; without pieces it is the empty part that ends many streams (§5)."""
    return SignedText(pieces or ("",), signature)


def blocked(reason: str = "SAFETY", message: str | None = None) -> Blocked:
    return Blocked(reason, message)


def grounding(
    *queries: str,
    pages: Sequence[tuple[str, str]] = (("https://example.com/a", "a"),),
    supports: Sequence[Support] = (),
    early: bool = False,
) -> Grounding:
    """`pages` are pairs of an address and a title."""
    segments: list[Json] = []
    for one in supports:
        start: dict[str, Json] = {"startIndex": one.start} if one.start else {}
        segment: Json = {**start, "endIndex": one.end, "text": one.text}
        segments.append({"segment": segment, "groundingChunkIndices": list(one.pages)})
    chunks: list[Json] = [{"web": {"uri": uri, "title": title}} for uri, title in pages]
    return Grounding(
        {
            "searchEntryPoint": {"renderedContent": "<div></div>"},
            "groundingChunks": chunks,
            "groundingSupports": segments,
            "webSearchQueries": list(queries),
        },
        early,
    )


def part(value: Mapping[str, Json]) -> Whole:
    return Whole(value)

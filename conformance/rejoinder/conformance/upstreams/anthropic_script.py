"""The words of a script that Anthropic alone has (provider-anthropic.md §5, §7, §8, §10)."""

from collections.abc import Mapping
from dataclasses import dataclass

from rejoinder.conformance.upstreams.objection import Json
from rejoinder.conformance.upstreams.script import Native


@dataclass(frozen=True, slots=True)
class Redacted(Native):
    """Thinking that only the provider can read."""

    data: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A place on the web that a text goes back to."""

    url: str
    title: str
    encrypted_index: str
    cited_text: str

    def json(self) -> dict[str, Json]:
        return {
            "type": "web_search_result_location",
            "cited_text": self.cited_text,
            "url": self.url,
            "title": self.title,
            "encrypted_index": self.encrypted_index,
        }


@dataclass(frozen=True, slots=True)
class Cited(Native):
    """A text block with citations, which come before its text."""

    pieces: tuple[str, ...]
    citations: tuple[Citation | Mapping[str, Json], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One result of a search. `page` is what nobody but the provider can read."""

    url: str
    title: str
    page: str

    def json(self) -> Json:
        return {
            "type": "web_search_result",
            "title": self.title,
            "url": self.url,
            "encrypted_content": self.page,
            "page_age": None,
        }


@dataclass(frozen=True, slots=True)
class ServerCall(Native):
    """A call of a tool that the provider runs itself."""

    name: str
    fragments: tuple[str, ...]
    id: str


@dataclass(frozen=True, slots=True)
class Block(Native):
    """Any block, whole in its `content_block_start`: a result of a server tool, or a type nobody knows."""

    value: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Event(Native):
    """Any event of the stream, in its place among the blocks. A JSON body has none."""

    name: str
    value: Mapping[str, Json]


def redacted(data: str) -> Redacted:
    return Redacted(data)


def cited(*pieces: str, by: Citation | Mapping[str, Json] | tuple[Citation | Mapping[str, Json], ...]) -> Cited:
    return Cited(pieces, by if isinstance(by, tuple) else (by,))


def citation(
    url: str, title: str = "A page", encrypted_index: str = "index-1", cited_text: str = "So it is."
) -> Citation:
    return Citation(url, title, encrypted_index, cited_text)


def found(url: str, title: str = "A page", page: str = "page-1") -> Found:
    return Found(url, title, page)


def server_call(name: str, *fragments: str, id: str | None = None) -> ServerCall:
    return ServerCall(name, fragments or ("{}",), id or f"srvtoolu_{name}")


def search_results(*results: Found, id: str = "srvtoolu_web_search") -> Block:
    """What the search of that id found; put it behind a `server_call("web_search", …)`."""
    return Block({"type": "web_search_tool_result", "tool_use_id": id, "content": [one.json() for one in results]})


def block(value: Mapping[str, Json]) -> Block:
    return Block(value)

"""Pictures, sounds, films and documents as parts of a Gemini content (provider-gemini.md §3, mapping.md §7)."""

import base64
import binascii
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes, urlsplit

from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.turns import Audio, File, Image


@dataclass(frozen=True, slots=True)
class Media:
    """`data` is base64, or else `uri` says where it is. `mime_type` is empty where only the provider can know it."""

    mime_type: str
    data: str | None = None
    uri: str | None = None

    @property
    def part(self) -> dict[str, dict[str, str]]:
        kind: dict[str, str] = {"mimeType": self.mime_type} if self.mime_type else {}
        if self.data is not None:
            return {"inlineData": {**kind, "data": self.data}}
        assert self.uri is not None
        return {"fileData": {**kind, "fileUri": self.uri}}


def media(piece: Image | File | Audio, urls: Literal["pass", "refuse"]) -> Media | str:
    """What the piece is; the text of a text file. Raises Unsupported naming a kind Gemini does not take."""
    match piece:
        case Audio(data=data, format=format_):
            return Media(f"audio/{format_}", data)
        case Image(url=str(url)) if url.startswith("data:"):
            return _given(_parsed(url))
        case Image(url=str(url)):
            return _linked(url, None, urls, "image/jpeg")
        case Image():
            raise _cannot("an image by 'file_id'", "there is no file store here; send it as a data URL")
        case File(data=str(data), name=name):
            text = _given(_parsed(data) if data.startswith("data:") else ("", data))
            return f"{name}:\n{text}" if isinstance(text, str) and name else text
        case File(url=str(url), name=name):
            return _linked(url, name, urls, "")
        case File():  # pragma: no branch  # nothing else is left
            raise _cannot("a file by 'file_id'", "there is no file store here; send it as 'file_data'")


def _linked(url: str, name: str | None, urls: Literal["pass", "refuse"], otherwise: str) -> Media:
    address = urlsplit(url)
    if address.scheme in ("http", "https") and urls == "refuse":
        raise _cannot("an http(s) URL", "it is not fetched here; send the content itself")
    suffixes = [where.rpartition(".")[2].lower() for where in (address.path, name or "")]
    known = (_SUFFIXES[suffix] for suffix in suffixes if suffix in _SUFFIXES)
    return Media(next(known, otherwise), uri=url)


def _parsed(url: str) -> tuple[str, str]:
    """The type of a data URL, and its content in base64."""
    head, _, body = url.removeprefix("data:").partition(",")
    kind, _, parameters = head.partition(";")
    if not f";{parameters}".endswith(";base64"):
        body = base64.b64encode(unquote_to_bytes(body)).decode()
    return kind.lower(), body


def _given(content: tuple[str, str]) -> Media | str:
    kind, data = content
    if kind in ("", "application/octet-stream"):
        kind = _sniffed(data)
    if _is_text(kind):
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise _cannot(f"this file of type '{kind}'", "it is no UTF-8 text in base64") from error
    if kind in _KINDS or kind.startswith(("audio/", "video/")):
        return Media(kind, data)
    raise _cannot(f"files of type '{kind}'", "it takes pictures (but no GIF), sound, film, PDF and text")


def _is_text(kind: str) -> bool:
    return kind.startswith("text/") or kind in _TEXTS or kind.endswith(("+json", "+xml"))


def _sniffed(data: str) -> str:
    """The type by the first bytes."""
    try:
        head = base64.b64decode(data[:64])
    except binascii.Error:
        return "unknown"
    if head[:4] == b"RIFF":
        return "image/webp" if head[8:12] == b"WEBP" else "audio/wav"
    if head[4:8] == b"ftyp":
        return "image/heic" if head[8:12] in (b"heic", b"heix", b"mif1") else "video/mp4"
    for start, kind in _MAGIC.items():
        if head.startswith(start):
            return kind
    return "unknown" if b"\0" in head else "text/plain"


_KINDS = frozenset(("application/pdf", "image/heic", "image/heif", "image/jpeg", "image/png", "image/webp"))
_TEXTS = frozenset(("application/json", "application/xml", "application/javascript", "application/x-yaml"))

_MAGIC = {
    b"%PDF": "application/pdf",
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"ID3": "audio/mp3",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
    b"PK": "application/zip",
}

_SUFFIXES = {
    "aac": "audio/aac",
    "csv": "text/csv",
    "flac": "audio/flac",
    "heic": "image/heic",
    "heif": "image/heif",
    "htm": "text/html",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "md": "text/md",
    "mov": "video/mov",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
}


def _cannot(what: str, why: str) -> Unsupported:
    return Unsupported(f"this upstream cannot take {what}: {why}", param="input", code="unsupported_value")

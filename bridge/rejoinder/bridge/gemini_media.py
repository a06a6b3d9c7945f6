"""Pictures, sounds, films and documents as parts of a Gemini content (provider-gemini.md §3, mapping.md §7)."""

from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from rejoinder.bridge.data_url import DataUrl, sniffed
from rejoinder.bridge.errors import cannot_take
from rejoinder.bridge.phrases import named
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
            return _given(DataUrl.parse(url))
        case Image(url=str(url)):
            return _linked(url, None, urls, "image/jpeg")
        case Image():
            raise cannot_take("an image by 'file_id'", "there is no file store here; send it as a data URL")
        case File(data=str(data), name=name):
            found = _given(DataUrl.parse(data))
            return named(found, name) if isinstance(found, str) else found
        case File(url=str(url), name=name):
            return _linked(url, name, urls, "")
        case File():  # pragma: no branch  # nothing else is left
            raise cannot_take("a file by 'file_id'", "there is no file store here; send it as 'file_data'")


def _linked(url: str, name: str | None, urls: Literal["pass", "refuse"], otherwise: str) -> Media:
    address = urlsplit(url)
    if address.scheme in ("http", "https") and urls == "refuse":
        raise cannot_take("an http(s) URL", "it is not fetched here; send the content itself")
    suffixes = [where.rpartition(".")[2].lower() for where in (address.path, name or "")]
    known = (_SUFFIXES[suffix] for suffix in suffixes if suffix in _SUFFIXES)
    return Media(next(known, otherwise), uri=url)


def _given(url: DataUrl) -> Media | str:
    if url.media_type in ("", "application/octet-stream"):
        data = url.data
        url = replace(url, media_type=sniffed(data) or ("unknown" if b"\0" in data[:64] else "text/plain"))
    kind = url.media_type
    if url.is_text:
        try:
            return url.data.decode()
        except UnicodeDecodeError as error:
            raise cannot_take(f"this file of type '{kind}'", "it is no UTF-8 text in base64") from error
    if kind in _KINDS or kind.startswith(("audio/", "video/")):
        return Media(kind, url.base64)
    raise cannot_take(f"files of type '{kind}'", "it takes pictures (but no GIF), sound, film, PDF and text")


_KINDS = frozenset(("application/pdf", "image/heic", "image/heif", "image/jpeg", "image/png", "image/webp"))
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

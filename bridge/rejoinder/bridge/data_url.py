"""What is inside a file or picture that a client sends along (mapping.md §7)."""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from rejoinder.bridge.errors import cannot_take


@dataclass(frozen=True, slots=True)
class DataUrl:
    """`media_type` is what the client says it is, in lower case; `body` is base64 or percent-encoded."""

    media_type: str
    is_base64: bool
    body: str

    @classmethod
    def parse(cls, url: str) -> "DataUrl":
        """Bare base64 is a data URL that says nothing of its type. Raises Unsupported for one without data."""
        if not url.startswith("data:"):
            return cls("", True, url)
        head, comma, body = url.removeprefix("data:").partition(",")
        if not comma:
            raise cannot_take("a data URL without data", "there is no comma in it")
        media_type, *parameters = head.split(";")
        return cls(media_type.lower(), "base64" in parameters, body)

    @property
    def data(self) -> bytes:
        """Raises Unsupported for what is no base64."""
        if not self.is_base64:
            return unquote_to_bytes(self.body)
        try:
            return base64.b64decode("".join(self.body.split()).encode(), validate=True)
        except binascii.Error:
            raise cannot_take("data that is no base64", "its data URL cannot be read") from None

    @property
    def base64(self) -> str:
        """The data in base64, as it came where it came so."""
        return self.body if self.is_base64 else base64.b64encode(unquote_to_bytes(self.body)).decode()

    @property
    def is_text(self) -> bool:
        """Whether its type says so."""
        kind = self.media_type
        return kind.startswith("text/") or kind in _TEXTS or kind.endswith(("+json", "+xml"))


def sniffed(data: bytes) -> str | None:
    """The media type that the first bytes show, whatever name a client gives them; None where they do not."""
    if data[:4] == b"RIFF":
        return "image/webp" if data[8:12] == b"WEBP" else "audio/wav"
    if data[4:8] == b"ftyp":
        return "image/heic" if data[8:12] in (b"heic", b"heix", b"mif1") else "video/mp4"
    return next((kind for start, kind in _MAGIC.items() if data.startswith(start)), None)


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

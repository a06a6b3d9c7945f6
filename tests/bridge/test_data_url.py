import base64

import pytest

from rejoinder.bridge.data_url import DataUrl, sniffed
from rejoinder.bridge.errors import Unsupported


@pytest.mark.parametrize(
    ("url", "media_type", "data"),
    [
        ("data:image/PNG;base64,aGk=", "image/png", b"hi"),
        ("data:text/plain;charset=utf-8;base64,aG\nk=", "text/plain", b"hi"),
        ("data:text/plain;base64;charset=utf-8,aGk=", "text/plain", b"hi"),
        ("data:text/plain,a%20b,%FF", "text/plain", b"a b,\xff"),
        ("data:,é", "", "é".encode()),
        ("data:;base64,", "", b""),
        ("aGk=", "", b"hi"),
    ],
)
def test_a_url_says_its_type_and_holds_its_data(url: str, media_type: str, data: bytes) -> None:
    parsed = DataUrl.parse(url)

    assert (parsed.media_type, parsed.data) == (media_type, data)
    assert base64.b64decode(parsed.base64) == data


def test_base64_goes_on_as_it_came() -> None:
    assert DataUrl.parse("data:image/png;base64,a\nGk=").base64 == "a\nGk="


def test_a_url_without_data_is_refused() -> None:
    with pytest.raises(Unsupported, match="a data URL without data"):
        DataUrl.parse("data:image/png;base64")


@pytest.mark.parametrize("url", ["data:image/png;base64,a", "data:;base64,%%%", "https://a.example", "é"])
def test_what_is_no_base64_is_refused(url: str) -> None:
    with pytest.raises(Unsupported, match="no base64"):
        _ = DataUrl.parse(url).data


@pytest.mark.parametrize(
    ("kind", "is_text"),
    [
        ("text/plain", True),
        ("text/x-python", True),
        ("application/json", True),
        ("application/ld+json", True),
        ("image/svg+xml", True),
        ("application/pdf", False),
        ("image/png", False),
        ("", False),
    ],
)
def test_some_types_are_text(kind: str, is_text: bool) -> None:
    assert DataUrl.parse(f"data:{kind},x").is_text is is_text


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"%PDF-1.7", "application/pdf"),
        (b"\x89PNG\r\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt", "audio/wav"),
        (b"\0\0\0\x18ftypheic", "image/heic"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"ID3\x03", "audio/mp3"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"PK\x03\x04", "application/zip"),
        (b"hello", None),
        (b"", None),
    ],
)
def test_the_first_bytes_show_what_data_is(start: bytes, kind: str | None) -> None:
    assert sniffed(start + b"\0" * 60) == kind

import base64

import pytest

from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.gemini_media import Media, media
from rejoinder.bridge.turns import Audio, File, Image


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file(data: str | None = None, *, url: str | None = None, name: str | None = None) -> File:
    return File(data, None, url, name)


def image(url: str | None) -> Image:
    return Image(url, None, None)


def refusal(piece: Image | File | Audio) -> str:
    with pytest.raises(Unsupported) as raised:
        media(piece, "refuse")
    assert raised.value.param == "input"
    return str(raised.value)


@pytest.mark.parametrize(
    "kind", ["image/png", "image/jpeg", "image/webp", "image/heic", "application/pdf", "video/mp4"]
)
def test_content_goes_along_inline(kind: str) -> None:
    found = media(file(f"data:{kind};base64,aGk="), "refuse")

    assert found == Media(kind, "aGk=")
    assert isinstance(found, Media)
    assert found.part == {"inlineData": {"mimeType": kind, "data": "aGk="}}


def test_a_picture_goes_along_inline() -> None:
    assert media(image("data:image/PNG;base64,aGk="), "refuse") == Media("image/png", "aGk=")


def test_sound_goes_along_inline() -> None:
    assert media(Audio("aGk=", "wav"), "refuse") == Media("audio/wav", "aGk=")


@pytest.mark.parametrize("kind", ["image/gif", "application/zip", "application/msword"])
def test_a_kind_gemini_does_not_take_is_refused_by_its_name(kind: str) -> None:
    assert kind in refusal(file(f"data:{kind};base64,aGk="))


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/x-python", "application/json", "application/xml", "application/ld+json", "image/svg+xml"],
)
def test_a_text_is_text(kind: str) -> None:
    assert media(file(f"data:{kind};base64,{encoded(b'hi')}"), "refuse") == "hi"
    assert media(file(f"data:{kind};charset=utf-8;base64,{encoded(b'hi')}", name="a.txt"), "refuse") == "a.txt:\nhi"


def test_a_data_url_need_not_be_in_base64() -> None:
    assert media(file("data:text/plain,a%20b"), "refuse") == "a b"
    assert media(file("data:image/png,%89PNG"), "refuse") == Media("image/png", encoded(b"\x89PNG"))


@pytest.mark.parametrize(
    ("data", "why"), [("data:text/plain;base64,/w==", "UTF-8"), ("data:text/plain;base64,%%%", "no base64")]
)
def test_a_text_that_is_none_is_refused(data: str, why: str) -> None:
    assert why in refusal(file(data))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"%PDF-1.7", "application/pdf"),
        (b"RIFF\0\0\0\0WAVEfmt", "audio/wav"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
    ],
)
def test_content_without_a_type_is_known_by_its_first_bytes(head: bytes, kind: str) -> None:
    data = encoded(head + b"\0" * 60)

    assert media(file(data), "refuse") == Media(kind, data)
    assert media(file(f"data:application/octet-stream;base64,{data}"), "refuse") == Media(kind, data)
    assert media(file(f"data:;base64,{data}"), "refuse") == Media(kind, data)


def test_content_that_nobody_knows_is_text_or_refused() -> None:
    assert media(file(encoded(b"hello")), "refuse") == "hello"
    assert "application/zip" in refusal(file(encoded(b"PK\x03\x04")))
    assert "image/gif" in refusal(file(encoded(b"GIF89a")))
    assert "'unknown'" in refusal(file(encoded(b"\x01\0\x02")))
    assert "no base64" in refusal(file("a"))


@pytest.mark.parametrize(
    ("piece", "found"),
    [
        (image("https://a.example/x.PNG?y=1.z"), Media("image/png", uri="https://a.example/x.PNG?y=1.z")),
        (image("https://a.example/x"), Media("image/jpeg", uri="https://a.example/x")),
        (file(url="https://a.example/x.pdf"), Media("application/pdf", uri="https://a.example/x.pdf")),
        (file(url="https://a.example/x", name="b.pdf"), Media("application/pdf", uri="https://a.example/x")),
        (file(url="https://youtu.example/watch"), Media("", uri="https://youtu.example/watch")),
    ],
)
def test_a_link_is_handed_on_and_never_followed_here(piece: Image | File, found: Media) -> None:
    assert media(piece, "pass") == found


def test_a_link_says_what_it_leads_to_where_that_is_known() -> None:
    assert Media("image/png", uri="gs://b/x").part == {"fileData": {"mimeType": "image/png", "fileUri": "gs://b/x"}}
    assert Media("", uri="gs://b/x").part == {"fileData": {"fileUri": "gs://b/x"}}


def test_a_server_that_fetches_nothing_gets_no_links() -> None:
    assert "http(s) URL" in refusal(image("https://a.example/x.png"))
    assert "http(s) URL" in refusal(file(url="http://a.example/x.pdf"))
    assert media(file(url="gs://b/x.pdf"), "refuse") == Media("application/pdf", uri="gs://b/x.pdf")


def test_an_id_of_a_file_is_nothing_anybody_has() -> None:
    assert "image by 'file_id'" in refusal(image(None))
    assert "file by 'file_id'" in refusal(File(None, "file_1", None, None))

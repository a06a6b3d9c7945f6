import msgspec
import pytest

from rejoinder.bridge.offer import LIST_MODELS, listed


def test_the_list_is_asked_for_without_a_body() -> None:
    assert (LIST_MODELS.method, LIST_MODELS.path, LIST_MODELS.body) == ("GET", "/models", b"")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"object":"list","data":[{"id":"b","object":"model","created":1,"owned_by":"x"},{"id":"a"}]}', ["b", "a"]),
        (b'{"data":[],"has_more":false,"first_id":null}', []),
        (b'{"object":"list","data":null}', []),
    ],
)
def test_the_names_come_in_the_order_of_the_list(body: bytes, names: list[str]) -> None:
    assert listed(body) == names


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"error":"no"}', b'{"data":[{"name":"a"}]}', b"<html>"])
def test_what_is_no_list_is_none(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        listed(body)

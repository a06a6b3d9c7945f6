import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.store.values import seal, unseal


@given(st.text(alphabet=st.characters(codec="utf-8")), st.binary(max_size=3000))
def test_what_was_sealed_is_unsealed(key: str, payload: bytes) -> None:
    assert unseal(key, seal(key, payload)) == payload


def test_small_payloads_stand_as_they_are_and_larger_ones_are_compressed() -> None:
    assert seal("k", b"x" * 1023)[:1] == b"\x00"
    assert seal("k", b"x" * 1023).endswith(b"x" * 1023)
    assert seal("k", b"x" * 1024)[:1] == b"\x01"
    assert len(seal("k", b"x" * 100_000)) < 1000


@pytest.mark.parametrize("payload", [b"a small payload", b"a large payload" * 200, os.urandom(1500)])
def test_any_flipped_byte_is_noticed(payload: bytes) -> None:
    value = seal("key", payload)
    for position in range(len(value)):
        flipped = bytearray(value)
        flipped[position] ^= 0x10
        with pytest.raises(ValueError, match="checksum"):
            unseal("key", bytes(flipped))


def test_a_value_under_another_key_is_noticed() -> None:
    with pytest.raises(ValueError, match="checksum"):
        unseal("another", seal("key", b"payload"))


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x00abc", seal("key", b"payload")[:-1]])
def test_a_value_that_stops_short_is_noticed(value: bytes) -> None:
    with pytest.raises(ValueError, match="checksum"):
        unseal("key", value)


def sealed_by_another_hand(codec: bytes, payload: bytes) -> bytes:
    return codec + zlib.crc32(payload, zlib.crc32(b"key" + codec)).to_bytes(4, "big") + payload


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(ValueError, match="expected a codec of 0 or 1, got '07'"):
        unseal("key", sealed_by_another_hand(b"\x07", b"payload"))


def test_a_payload_that_is_not_zstd_is_an_error_of_the_value() -> None:
    with pytest.raises(ValueError, match="compressed payload"):
        unseal("key", sealed_by_another_hand(b"\x01", b"payload"))

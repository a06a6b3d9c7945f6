"""How a value is written down: a codec byte, a checksum, the payload.

The checksum covers the key too, so a row that was damaged, or that stands under another row's key, is noticed when it
is read. It is there for accidents; against a hostile hand the directory's mode is what helps.
"""

import threading
import zlib

import zstandard

_PLAIN = b"\x00"
_ZSTD = b"\x01"
_HEADER = 5
# Below this size the frame's own cost eats what compression would save.
_COMPRESS_FROM = 1024


class _Codecs(threading.local):
    """zstandard's contexts may not be shared by threads, and are too dear to make for each value."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()


def seal(key: str, payload: bytes) -> bytes:
    """The value to keep under `key`."""
    if len(payload) < _COMPRESS_FROM:
        return _PLAIN + _checksum(key, _PLAIN, payload) + payload
    packed = _codecs.compressor.compress(payload)
    return _ZSTD + _checksum(key, _ZSTD, packed) + packed


def unseal(key: str, value: bytes) -> bytes:
    """The payload that was sealed for `key`. Raises `ValueError` when these are not the bytes `seal` made."""
    codec, checksum, payload = value[:1], value[1:_HEADER], value[_HEADER:]
    if checksum != _checksum(key, codec, payload):
        raise ValueError("the checksum does not match")
    if codec == _PLAIN:
        return payload
    if codec == _ZSTD:
        return _inflated(payload)
    raise ValueError(f"expected a codec of 0 or 1, got {codec.hex()!r}")


def _checksum(key: str, codec: bytes, payload: bytes) -> bytes:
    return zlib.crc32(payload, zlib.crc32(key.encode() + codec)).to_bytes(4, "big")


def _inflated(payload: bytes) -> bytes:
    try:
        return _codecs.decompressor.decompress(payload)
    except zstandard.ZstdError as exc:
        raise ValueError("the compressed payload cannot be read") from exc

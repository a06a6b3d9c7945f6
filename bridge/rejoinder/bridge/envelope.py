"""What a provider gave us for its own later use, sealed into `encrypted_content` (mapping.md §5).

`brg1.` + base64url(key id ‖ nonce ‖ AES-256-GCM(zlib(JSON))). The owner is bound in as associated data: a blob another
key holder copied does not open. Only the issuer named inside gets the parts back.
"""

import base64
import binascii
import hashlib
import os
import zlib
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Raw, Struct

PREFIX = "brg1."
_KEY_ID = 4
_NONCE = 12

MAX_INFLATED = 32 * 2**20
"""Bytes one envelope may hold once inflated."""


class Issuer(Struct, frozen=True):
    """Who gave the parts: the dialect, the endpoint with its account (hashed), and the model on the wire."""

    dialect: str
    endpoint: str
    model: str


class Envelope(Struct, frozen=True, omit_defaults=True):
    """`parts` are the provider's own JSON values in order, `calls` what belongs to a call, by its call id."""

    issuer: Issuer
    parts: list[Raw] = []
    calls: dict[str, Raw] = {}


class Seal:
    """Seals with the first key and opens with any of them, so that a key can be replaced while old blobs live on.

    `keys` are 32 bytes each; `random` gives the nonces.
    """

    def __init__(self, keys: Sequence[bytes], random: Callable[[int], bytes] = os.urandom) -> None:
        if not keys:
            raise ValueError("a seal needs at least one key")
        self._ciphers = {hashlib.sha256(key).digest()[:_KEY_ID]: AESGCM(key) for key in keys}
        self._newest = next(iter(self._ciphers))
        self._random = random

    def close(self, envelope: Envelope, *, owner: str) -> str:
        """The envelope as text that only this server can read, and only for this owner."""
        nonce = self._random(_NONCE)
        plain = zlib.compress(_ENCODER.encode(envelope), 1)
        sealed = self._ciphers[self._newest].encrypt(nonce, plain, _bound(owner))
        return PREFIX + base64.urlsafe_b64encode(self._newest + nonce + sealed).decode()

    def open(self, text: str, *, owner: str) -> Envelope | None:
        """What the text holds, or None when it is not ours, not this owner's, or damaged."""
        if not text.startswith(PREFIX):
            return None
        try:
            blob = base64.urlsafe_b64decode(text[len(PREFIX) :])
            cipher = self._ciphers.get(blob[:_KEY_ID])
            if cipher is None:
                return None
            plain = cipher.decrypt(blob[_KEY_ID : _KEY_ID + _NONCE], blob[_KEY_ID + _NONCE :], _bound(owner))
            return _DECODER.decode(_inflated(plain))
        except (binascii.Error, ValueError, InvalidTag, zlib.error, msgspec.MsgspecError):
            return None


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    plain = inflater.decompress(data, MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise ValueError("an envelope is larger than the limit")
    return plain


def _bound(owner: str) -> bytes:
    return b"rejoinder\x1f" + owner.encode()


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Envelope)

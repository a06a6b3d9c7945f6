"""What a provider gave us for its own later use, sealed into `encrypted_content` (mapping.md §5).

`brg1.` + base64url(key id ‖ nonce ‖ AES-256-GCM(zlib(JSON))). The owner is bound in as associated data: a blob another
key holder copied does not open. Only the issuer named inside gets the parts back.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import zlib
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Raw, Struct

from rejoinder.bridge.losses import Reason

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

    def mismatch(self, reader: "Issuer") -> Reason | None:
        """Why another one may not have the parts; None when it may. Versions of one model are of one family."""
        if self.dialect != reader.dialect:
            return "model_mismatch"
        if self.endpoint != reader.endpoint:
            return "organization_mismatch"
        return None if _family(self.model) == _family(reader.model) else "model_mismatch"


def _family(model: str) -> str:
    return _VERSION.sub("", model)


_VERSION = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


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
        self._keys = tuple(keys)
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

    def sign(self, text: str, issuer: Issuer, *, owner: str) -> str:
        """State in its provider's own form, with whose it is written behind it: it stays readable to that provider, and
        is told from the state of another account."""
        return f"{text}{_MARK}{_tag(self._keys[0], issuer, owner).decode()}"

    def unsign(self, text: str, reader: Issuer, *, owner: str) -> str | None:
        """The text as its provider gave it, or None when that is not `reader`, or the owner another. One that never
        came by here is nobody's, and stays as it is."""
        original, mark, tag = text.rpartition(_MARK)
        if not mark:
            return text
        said = tag.encode()
        return original if any(hmac.compare_digest(said, _tag(key, reader, owner)) for key in self._keys) else None


_MARK = ".rjn1."


def _tag(key: bytes, issuer: Issuer, owner: str) -> bytes:
    # Which of its models may read it only the provider knows, and it says what it took out (provider-responses.md §4).
    whose = _ENCODER.encode((issuer.dialect, issuer.endpoint, owner))
    return base64.urlsafe_b64encode(hashlib.blake2b(whose, key=key, digest_size=15, person=b"rejoinder sign").digest())


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

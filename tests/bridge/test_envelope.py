import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.envelope import MAX_INFLATED, PREFIX, Envelope, Issuer, Seal

OLD, NEW = b"o" * 32, b"n" * 32
ISSUER = Issuer("chat", "https://a.test#1", "m")
ENVELOPE = Envelope(ISSUER, [Raw(b'{"b": 1,"a":[2.50]}'), Raw(b'"\xc3\xa9"')], {"call_1": Raw(b'{"sig":"x"}')})


def readable(envelope: Envelope | None) -> tuple[Issuer, list[bytes], dict[str, bytes]] | None:
    if envelope is None:
        return None
    parts, calls = map(bytes, envelope.parts), envelope.calls.items()
    return envelope.issuer, list(parts), {call_id: bytes(raw) for call_id, raw in calls}


def test_what_is_sealed_opens_byte_for_byte() -> None:
    seal = Seal([NEW])
    sealed = seal.close(ENVELOPE, owner="alice")
    assert sealed.startswith(PREFIX)
    assert readable(seal.open(sealed, owner="alice")) == readable(ENVELOPE)
    assert readable(ENVELOPE) == (ISSUER, [b'{"b": 1,"a":[2.50]}', b'"\xc3\xa9"'], {"call_1": b'{"sig":"x"}'})


def test_an_empty_envelope_still_names_its_issuer() -> None:
    seal = Seal([NEW])
    assert readable(seal.open(seal.close(Envelope(ISSUER), owner=""), owner="")) == (ISSUER, [], {})


def test_the_same_nonce_makes_the_same_text_and_another_one_another() -> None:
    text = Seal([NEW], random=bytes).close(ENVELOPE, owner="alice")
    assert text == Seal([NEW], random=bytes).close(ENVELOPE, owner="alice")
    assert text != Seal([NEW]).close(ENVELOPE, owner="alice")
    assert text.removeprefix(PREFIX).replace("-", "").replace("_", "").rstrip("=").isalnum()
    assert "sig" not in base64.urlsafe_b64decode(text.removeprefix(PREFIX)).decode("latin-1")


def test_nobody_but_the_owner_opens_it() -> None:
    seal = Seal([NEW])
    sealed = seal.close(ENVELOPE, owner="alice")
    for stranger in ("bob", "", "alice ", "Alice", "alice\x1f"):
        assert seal.open(sealed, owner=stranger) is None


def test_a_key_is_replaced_while_old_envelopes_live_on() -> None:
    old = Seal([OLD]).close(ENVELOPE, owner="alice")
    both = Seal([NEW, OLD])
    new = both.close(ENVELOPE, owner="alice")
    assert readable(both.open(old, owner="alice")) == readable(ENVELOPE)
    assert readable(Seal([NEW]).open(new, owner="alice")) == readable(ENVELOPE)
    assert Seal([NEW]).open(old, owner="alice") is None
    assert Seal([OLD]).open(new, owner="alice") is None


def test_no_byte_of_it_can_be_changed() -> None:
    seal = Seal([NEW], random=bytes)
    blob = base64.urlsafe_b64decode(seal.close(ENVELOPE, owner="alice").removeprefix(PREFIX))
    for at in range(len(blob)):
        tampered = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        assert seal.open(PREFIX + base64.urlsafe_b64encode(tampered).decode(), owner="alice") is None
    for size in range(len(blob)):
        assert seal.open(PREFIX + base64.urlsafe_b64encode(blob[:size]).decode(), owner="alice") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "brg1",
        PREFIX,
        PREFIX + "a",
        PREFIX + "é",
        PREFIX + "\x00" * 9,
        "brg2." + "A" * 80,
        "gAAAAABm" * 20,
        "\ud800",
    ],
)
def test_a_string_that_is_no_envelope_holds_nothing(text: str) -> None:
    assert Seal([NEW]).open(text, owner="alice") is None


@given(st.text() | st.binary().map(lambda blob: PREFIX + base64.urlsafe_b64encode(blob).decode()))
def test_no_string_at_all_is_an_error(text: str) -> None:
    assert Seal([NEW]).open(text, owner="alice") is None


@given(st.binary())
def test_nothing_made_without_the_key_opens(made: bytes) -> None:
    seal = Seal([NEW])
    real = base64.urlsafe_b64decode(seal.close(ENVELOPE, owner="alice").removeprefix(PREFIX))
    key_id = real[:4]
    assert seal.open(PREFIX + base64.urlsafe_b64encode(key_id + made).decode(), owner="alice") is None


def test_what_inflates_beyond_the_limit_stays_closed() -> None:
    seal = Seal([NEW])
    small = seal.close(Envelope(ISSUER, [Raw(b'"%b"' % (b"a" * (MAX_INFLATED - 200)))]), owner="alice")
    large = seal.close(Envelope(ISSUER, [Raw(b'"%b"' % (b"a" * MAX_INFLATED))]), owner="alice")
    assert seal.open(small, owner="alice") is not None
    assert len(large) < MAX_INFLATED // 100
    assert seal.open(large, owner="alice") is None


def test_a_seal_without_a_key_is_none() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Seal([])

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


READER = Issuer("anthropic", "https://a.test#1", "sonnet-4-5")


@pytest.mark.parametrize(
    ("giver", "reason"),
    [
        (READER, None),
        (Issuer("gemini", "https://a.test#1", "sonnet-4-5"), "model_mismatch"),
        (Issuer("gemini", "https://b.test#1", "sonnet-4-5"), "model_mismatch"),
        (Issuer("anthropic", "https://a.test#2", "sonnet-4-5"), "organization_mismatch"),
        (Issuer("anthropic", "https://b.test#1", "opus-4-5"), "organization_mismatch"),
        (Issuer("anthropic", "https://a.test#1", "opus-4-5"), "model_mismatch"),
        (Issuer("anthropic", "https://a.test#1", "sonnet-4-6"), "model_mismatch"),
        (Issuer("anthropic", "https://a.test#1", "sonnet-4-5-20250929"), None),
        (Issuer("anthropic", "https://a.test#1", "sonnet-4-5@20250929"), None),
        (Issuer("anthropic", "https://a.test#1", "sonnet-4-5-2025-09-29"), None),
        (Issuer("anthropic", "https://a.test#1", "sonnet-4-5-latest"), None),
        (Issuer("anthropic", "https://a.test#1", "sonnet-4-5-123"), "model_mismatch"),
        (Issuer("anthropic", "https://a.test#1", "sonnet-4-5-20250929-fast"), "model_mismatch"),
        (Issuer("anthropic", "https://a.test#1", ""), "model_mismatch"),
    ],
)
def test_only_its_issuer_and_versions_of_one_model_may_have_what_was_sealed(giver: Issuer, reason: str | None) -> None:
    assert giver.mismatch(READER) == reason
    assert READER.mismatch(giver) == reason


@pytest.mark.parametrize("text", ["gAAAA", "", "a.rjn1.b", "é"])
def test_state_in_its_providers_own_form_is_told_from_that_of_others(text: str) -> None:
    seal = Seal([NEW])
    signed = seal.sign(text, READER, owner="alice")
    assert signed.startswith(text)
    assert seal.unsign(signed, READER, owner="alice") == text
    # Which of its models may read it only the provider knows.
    assert seal.unsign(signed, Issuer(READER.dialect, READER.endpoint, "opus"), owner="alice") == text
    for stranger in (Issuer("responses", READER.endpoint, ""), Issuer(READER.dialect, "https://b.test#1", "")):
        assert seal.unsign(signed, stranger, owner="alice") is None
    assert seal.unsign(signed, READER, owner="bob") is None
    assert seal.unsign(signed + "x", READER, owner="alice") is None
    assert seal.unsign(signed[:-1], READER, owner="alice") is None


def test_state_that_never_came_by_here_stays_as_it_is() -> None:
    assert Seal([NEW]).unsign("gAAAA", READER, owner="alice") == "gAAAA"


def test_a_mark_outlives_the_key_it_was_made_with() -> None:
    signed = Seal([OLD]).sign("gAAAA", READER, owner="alice")
    assert Seal([NEW, OLD]).unsign(signed, READER, owner="alice") == "gAAAA"
    assert Seal([NEW]).unsign(signed, READER, owner="alice") is None


@given(st.text(), st.text())
def test_no_mark_at_all_is_an_error(text: str, tag: str) -> None:
    assert Seal([NEW]).unsign(f"{text}.rjn1.{tag}", READER, owner="alice") is None


def test_a_seal_without_a_key_is_none() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Seal([])

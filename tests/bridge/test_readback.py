import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.compaction import sealed_summary
from rejoinder.bridge.envelope import PREFIX, Envelope, Issuer, Seal
from rejoinder.bridge.losses import Loss, Reason
from rejoinder.bridge.readback import ReadBack, read_back
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import Item, Reasoning
from tests.bridge.prompts import Fields, assistant, call, item, output, user

SEAL = Seal([b"k" * 32], random=bytes)
OWNER = "ann"
HERE = Issuer("anthropic", "https://a.test#1", "sonnet")
NATIVE = Issuer("responses", "https://o.test#1", "gpt")
OTHERS: Sequence[Issuer] = (
    Issuer("gemini", HERE.endpoint, HERE.model),
    Issuer("anthropic", "https://a.test#2", "sonnet"),
    Issuer("anthropic", HERE.endpoint, "opus"),
    Issuer("responses", "https://o.test#2", "gpt"),
    Issuer("responses", NATIVE.endpoint, "gpt-mini"),
)


def sealed(issuer: Issuer = HERE, *, owner: str = OWNER, calls: Sequence[str] = (), seal: Seal = SEAL) -> str:
    return seal.close(Envelope(issuer, [Raw(b'{"signature":"s"}')], dict.fromkeys(calls, Raw(b"{}"))), owner=owner)


def thought(encrypted: str | None = None, id: str | None = "rs_1", text: str = "") -> Fields:
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "id": id, "summary": summary, "encrypted_content": encrypted}


@dataclass(frozen=True, slots=True)
class Keys:
    reader: Issuer

    def unseal(self, text: str) -> Envelope | None:
        return SEAL.open(text, owner=OWNER)

    def unsign(self, text: str) -> str | None:
        return SEAL.unsign(text, self.reader, owner=OWNER)


def back(*said: Fields, reader: Issuer = HERE, native: bool = False) -> ReadBack:
    return read_back([item(**fields) for fields in said], reader, Keys(reader), native=native)


def signed(issuer: Issuer = NATIVE, *, owner: str = OWNER, seal: Seal = SEAL) -> str:
    return seal.sign("gAAAA", issuer, owner=owner)


def kinds(found: ReadBack) -> list[str]:
    return [item.type for item in found.items]


def test_its_issuer_gets_back_all_it_gave() -> None:
    first, second = sealed(), sealed(Issuer(HERE.dialect, HERE.endpoint, "sonnet-20250929"), calls=["call_1"])
    found = back(user("hi"), thought(first), thought(second), call("call_1"), output("call_1"))
    assert kinds(found) == ["message", "reasoning", "reasoning", "function_call", "function_call_output"]
    assert {text: bytes(envelope.parts[0]) for text, envelope in found.opened.items()} == {
        first: b'{"signature":"s"}',
        second: b'{"signature":"s"}',
    }
    assert found.losses == []


REASONS: Sequence[Reason] = (
    "model_mismatch",
    "organization_mismatch",
    "model_mismatch",
    "model_mismatch",
    "model_mismatch",
)


@pytest.mark.parametrize(("issuer", "reason"), [*zip(OTHERS, REASONS, strict=True)])
def test_nobody_else_gets_it_and_the_loss_says_why(issuer: Issuer, reason: Reason) -> None:
    found = back(thought(sealed(issuer), text="so"))
    assert found.losses == [Loss("reasoning", "rs_1", "removed", reason, issuer.dialect)]
    assert (found.opened, kinds(found)) == ({}, ["reasoning"])


@pytest.mark.parametrize(
    "text",
    [
        PREFIX,
        PREFIX + "AAAA",
        sealed(owner="bob"),
        sealed(seal=Seal([b"x" * 32])),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_a_seal_that_does_not_open_is_of_another_key_holder(text: str, native: bool) -> None:
    found = back(thought(text), user("hi"), native=native)
    assert found.losses == [Loss("reasoning", "rs_1", "removed", "end_user_mismatch")]
    assert kinds(found) == (["message"] if native else ["reasoning", "message"])


def test_a_summary_in_the_place_of_reasoning_is_not_opened() -> None:
    found = back(thought(SEAL.close(sealed_summary("secret"), owner=OWNER)))
    assert found.losses == [Loss("reasoning", "rs_1", "removed", "model_mismatch", "rejoinder")]
    assert found.opened == {}


def test_state_of_a_provider_that_speaks_this_api_stays_with_it() -> None:
    found = back(thought("gAAAA"), reader=NATIVE, native=True)
    assert (kinds(found), found.losses) == (["reasoning"], [])
    found = back(thought("gAAAA"))
    assert (kinds(found), found.losses) == (
        ["reasoning"],
        [Loss("reasoning", "rs_1", "removed", "model_mismatch")],
    )


FAMILY = Issuer(NATIVE.dialect, NATIVE.endpoint, "gpt-mini")


@pytest.mark.parametrize("issuer", [NATIVE, FAMILY], ids=["same", "another model of the same account"])
def test_state_in_a_providers_own_form_goes_back_to_its_account_as_it_was_given(issuer: Issuer) -> None:
    found = back({**thought(signed(issuer)), "x": 1}, user("hi"), reader=NATIVE, native=True)
    assert (kinds(found), found.losses) == (["reasoning", "message"], [])
    assert json.loads(found.items[0].raw) == {**thought("gAAAA"), "x": 1}


@pytest.mark.parametrize(
    "text",
    [signed(OTHERS[3]), signed(HERE), signed(owner="bob"), signed(seal=Seal([b"x" * 32])), signed() + "x", ".rjn1."],
    ids=["account", "dialect", "owner", "key", "tag", "nothing"],
)
def test_it_goes_to_no_other(text: str) -> None:
    found = back(thought(text), user("hi"), reader=NATIVE, native=True)
    assert kinds(found) == ["message"]
    assert found.losses == [Loss("reasoning", "rs_1", "removed", "organization_mismatch")]


def test_a_replaced_key_still_tells_whose_it_is() -> None:
    old, new = Seal([b"k" * 32]), Seal([b"n" * 32, b"k" * 32])
    assert new.unsign(old.sign("gAAAA", NATIVE, owner=OWNER), NATIVE, owner=OWNER) == "gAAAA"


def compaction(text: str) -> Fields:
    return {"type": "compaction", "id": "cmp_1", "encrypted_content": text}


def test_a_summary_in_a_providers_own_form_is_its_own_alone() -> None:
    found = back(compaction(signed()), reader=NATIVE, native=True)
    assert [json.loads(one.raw)["encrypted_content"] for one in found.items] == ["gAAAA"]
    with pytest.raises(BadRequest) as raised:
        back(compaction(signed(OTHERS[3])), reader=NATIVE, native=True)
    assert raised.value.code == "invalid_encrypted_content"


@pytest.mark.parametrize("nothing", [None, ""])
def test_reasoning_without_state_is_a_loss_where_it_says_something(nothing: str | None) -> None:
    assert back(thought(nothing)).losses == []
    assert back(thought(nothing, text="so")).losses == [Loss("reasoning", "rs_1", "removed", "not_sealed")]
    native = back(thought(nothing, text="so"), reader=NATIVE, native=True)
    assert (kinds(native), native.losses) == (["reasoning"], [])


RECORDS: list[Fields] = [
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "code_interpreter_call", "id": "ci_1"},
    {"type": "image_generation_call", "id": "ig_1", "status": "failed", "result": None},
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_of_what_another_provider_did_is_a_loss_unless_it_is_sealed_beside_it(record: Fields) -> None:
    item_id = str(record["id"])
    assert back(record).losses == [Loss(str(record["type"]), item_id, "removed", "no_words")]
    assert kinds(back(record)) == [record["type"]]
    assert back(thought(sealed(calls=[item_id])), record).losses == []
    assert back(record, thought(sealed(calls=[item_id]))).losses == []
    assert len(back(thought(sealed(OTHERS[0], calls=[item_id])), record).losses) == 2
    assert back(record, reader=NATIVE, native=True).losses == []


def test_a_picture_and_what_is_known_here_are_no_loss() -> None:
    picture = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "iVBO"}
    assert back(picture, assistant("look"), call("a"), output("a"), {"type": "acme:thing"}).losses == []


ISSUERS = (HERE, NATIVE, *OTHERS)


@st.composite
def histories(draw: st.DrawFn) -> list[Item]:
    strings = st.sampled_from(
        [None, "", "gAAAA", PREFIX, PREFIX + "junk", sealed(owner="bob"), *map(sealed, ISSUERS), *map(signed, ISSUERS)]
    )
    said: list[Fields] = []
    for number in range(draw(st.integers(0, 6))):
        encrypted, text = draw(strings), draw(st.sampled_from(["", "so"]))
        said.append(draw(st.sampled_from([thought(encrypted, f"rs_{number}", text), user("hi"), *RECORDS])))
    return [item(**fields) for fields in said]


@given(histories(), st.sampled_from(ISSUERS), st.booleans())
def test_no_state_goes_to_whom_it_is_not_from(said: list[Item], reader: Issuer, native: bool) -> None:
    found = read_back(said, reader, Keys(reader), native=native)
    assert all(envelope.issuer.mismatch(reader) is None for envelope in found.opened.values())
    if native:
        sent = b"".join(one.raw for one in found.items)
        assert PREFIX.encode() not in sent
        assert b".rjn1." not in sent
    else:
        assert found.items == said
    # What is not opened, and was there, is told.
    told = {loss.id for loss in found.losses}
    for one in said:
        stayed = {kept.id for kept in found.items} if native else set()
        if isinstance(one.view, Reasoning) and one.view.encrypted_content and one.id not in stayed:
            assert one.view.encrypted_content in found.opened or one.id in told

import uuid
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.dialect import Identity
from rejoinder.server.identity import carried, identity, named
from rejoinder.wire.items import Item, as_sent, kept
from tests.server.site import request_of, user

OWNER = "ann"
NOBODY = Identity()


def of(
    items: Sequence[Item] | None = None,
    *,
    caller: Identity = NOBODY,
    kept: Mapping[str, str] | None = None,
    owner: str = OWNER,
    **fields: object,
) -> Identity:
    request = request_of(**{"input": "hi", **fields})
    return identity(request, caller, kept or {}, request.input if items is None else items, owner=owner)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], Identity()),
        ([(b"session-id", b"s"), (b"thread-id", b"t")], Identity("s", "t")),
        ([(b"session_id", b"s"), (b"thread_id", b"t")], Identity("s", "t")),
        ([(b"session_id", b"first"), (b"session-id", b"second")], Identity("first")),
        ([(b"session-id", b""), (b"session_id", b"s")], Identity("s")),
        ([(b"user-agent", b"codex"), (b"originator", b"codex_cli_rs"), (b"cache-key", b"c")], Identity()),
        ([(b"session-id", b"x" * 256), (b"thread-id", b"x" * 257)], Identity("x" * 256)),
        ([(b"session-id", b"\xe9"), (b"thread-id", b"a\tb")], Identity()),
        ([(b"session-id", b"a\x00"), (b"thread-id", b"a\x7f")], Identity()),
    ],
)
def test_the_headers_of_a_request_say_who_speaks(headers: list[tuple[bytes, bytes]], found: Identity) -> None:
    assert named(headers) == found


STORED = {"session": "kept-s", "thread": "kept-t", "cache_key": "kept-c"}
SAID = {"session_id": "said-s", "thread_id": "said-t"}


@pytest.mark.parametrize(
    ("caller", "metadata", "cache_key", "stored", "found"),
    [
        (Identity("s", "t"), SAID, "c", STORED, Identity("s", "t", "c")),
        (Identity("s"), SAID, None, STORED, Identity("s", "said-t", "kept-c")),
        (NOBODY, SAID, None, STORED, Identity("said-s", "said-t", "kept-c")),
        (NOBODY, {}, "c", STORED, Identity("kept-s", "kept-t", "c")),
        (NOBODY, {}, None, STORED, Identity("kept-s", "kept-t", "kept-c")),
        (Identity("s"), {}, None, {}, Identity("s", "s", "s")),
        (Identity("s", "t"), {}, None, {}, Identity("s", "t", "t")),
        (Identity("", "t"), {}, None, {}, Identity("t", "t", "t")),
        (Identity("s", "t"), {}, "c", {}, Identity("s", "t", "c")),
    ],
)
def test_the_callers_own_names_come_first_then_those_its_conversation_went_by(
    caller: Identity, metadata: Mapping[str, str], cache_key: str | None, stored: Mapping[str, str], found: Identity
) -> None:
    assert of(caller=caller, kept=stored, client_metadata=metadata, prompt_cache_key=cache_key) == found


@pytest.mark.parametrize("value", [None, 7, "", ["s"], {"a": "s"}, "é", "a\nb", "a\x00b", "x" * 257])
def test_metadata_that_is_no_name_is_none(value: object) -> None:
    assert of(client_metadata={"session_id": value, "thread_id": "t"}) == Identity("t", "t", "t")
    assert of(client_metadata={"session_id": "s", "thread_id": value}) == Identity("s", "s", "s")


def test_a_name_may_be_spelled_with_escapes() -> None:
    assert of(client_metadata={"session_id": 'a\\b"c', "thread_id": "t"}).session == 'a\\b"c'


def test_who_says_nothing_of_itself_gets_one_derived_name_for_everything() -> None:
    found = of()
    assert found == Identity(found.session, found.session, found.session)
    assert str(uuid.UUID(found.session)) == found.session
    assert of(prompt_cache_key="c") == Identity(found.session, found.session, "c")


def test_different_conversations_and_different_owners_share_nothing() -> None:
    names = [
        of(),
        of(owner="bob"),
        of(input="hello"),
        of(instructions="be brief"),
        of(instructions="be brief", owner="bob"),
        # Nothing of one part can be taken for the other.
        of([], instructions='{"a":1}'),
        of([Item.parse(b'{"type":"x","a":1}')], instructions=""),
        of([Item.parse(b'{"type":"x","a":1}')], instructions="\x1f"),
        of([]),
        of([], owner="ann\x1f"),
    ]
    assert len({one.session for one in names}) == len(names)
    assert of(instructions="") == of()


def said(*contents: str) -> list[Item]:
    """Messages as a turn hands them on, that it was just given and that it finds in the store."""
    stored = [kept(item, "msg_1") for item in request_of(input=[user(content) for content in contents]).input]
    return [Item.parse(as_sent(one.item.raw, one.added)) for one in stored]


@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=4),
    st.lists(st.text(max_size=5), max_size=4),
    st.none() | st.text(max_size=9),
)
def test_the_derived_name_is_the_same_whenever_the_whole_history_is_sent_again(
    history: list[str], later: list[str], instructions: str | None
) -> None:
    first = of(said(*history), instructions=instructions)
    assert of(said(*history, *later), instructions=instructions) == first
    # A record brings the names its conversation went by.
    names = {"session": first.session, "thread": first.thread, "cache_key": first.cache_key}
    assert of(said(*later), kept=names) == first


def remembered(caller: Identity, kept: Mapping[str, str], **fields: object) -> Identity:
    return carried(request_of(input="hi", **fields), caller, kept)


def test_names_are_remembered_where_the_upstream_has_no_use_for_them() -> None:
    assert remembered(NOBODY, {}) == NOBODY
    assert remembered(NOBODY, STORED) == Identity("kept-s", "kept-t", "kept-c")
    assert remembered(Identity("s"), STORED) == Identity("s", "kept-t", "kept-c")
    assert remembered(Identity("s", "t"), {}) == Identity("s", "t")
    said = {"client_metadata": {"session_id": "m-s"}, "prompt_cache_key": "said-c"}
    assert remembered(NOBODY, STORED, **said) == Identity("m-s", "kept-t", "said-c")

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.dialect import Identity
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.script import answer, text
from rejoinder.server.assembly import assemble
from rejoinder.server.identity import carried, identity, named
from rejoinder.server.settings import load
from rejoinder.wire.items import Item, as_sent, kept
from tests.server.site import Site, request_of, site, user

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
    return [Item.parse(as_sent(one.raw, one.added)) for one in stored]


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


# Through the real entry point: what a caller says, and what a provider reads (lessons.md S-115).


@asynccontextmanager
async def relayed(directory: Path) -> AsyncIterator[tuple[Site, ResponsesUpstream]]:
    with ResponsesUpstream(lambda request: answer(text("hi")), models=["gpt-5.4"]) as provider:
        upstream = {"name": "test", "vendor": "openai", "base_url": provider.base_url, "models": ["*"]}
        tables = {"server": {"store": f"disk:{directory / 'store'}"}, "upstream": [upstream]}
        file = directory / "rejoinder.toml"
        file.write_text(tomlkit.dumps(tables))
        async with site(assemble(load(file, {}))) as here:
            yield here, provider


def told(provider: ResponsesUpstream) -> list[tuple[str | None, str | None, str]]:
    """Session, thread and cache key of each request."""
    return [
        (
            request.headers.get("session-id"),
            request.headers.get("thread-id"),
            json.loads(bytes(request.fields.get("prompt_cache_key", Raw(b'""')))),
        )
        for request in provider.requests
    ]


async def test_a_callers_names_reach_the_provider_and_stay_with_the_conversation(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (here, provider):
        codex = {"session-id": "s-1", "thread-id": "t-1", "originator": "codex_exec", "user-agent": "codex_exec/0.169"}
        first = await here.create(
            model="gpt-5.4", input="hello", prompt_cache_key="c-1", headers=codex | {"x-codex-window-id": "t-1:0"}
        )
        second = await here.create(model="gpt-5.4", input="and?", previous_response_id=first.json["id"])
        await here.create(
            model="gpt-5.4", input="so?", previous_response_id=second.json["id"], headers={"session-id": "s-2"}
        )
    assert told(provider) == [("s-1", "t-1", "c-1"), ("s-1", "t-1", "c-1"), ("s-2", "t-1", "c-1")]
    for request in provider.requests:
        assert "codex" not in json.dumps({**request.headers}), "nobody is passed off as somebody else"


async def test_without_names_a_conversation_has_its_own_however_it_is_continued(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (here, provider):
        first = await here.create(model="gpt-5.4", input=[user("hello")])
        await here.create(model="gpt-5.4", input="and?", previous_response_id=first.json["id"])
        history = [user("hello"), *first.json["output"], user("and?")]
        await here.create(model="gpt-5.4", input=history, store=False)
        await here.create(model="gpt-5.4", input=[user("something else")])
    [one, continued, replayed, other] = told(provider)
    assert one == continued == replayed
    assert all(one)
    assert other != one

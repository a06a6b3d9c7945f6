import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Trouble, answer, call, calls, silence, text, thought
from tests.server.site import WEATHER, Json, Reply, Site, body_of, events_of, folded, output_of, services_in, site, user

ANN, BOB = "key-of-ann", "key-of-bob"
NOBODYS = "resp_" + "0" * 32


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def here(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    keys = {"ann": ANN, "bob": BOB}
    async with site(services_in(tmp_path_factory.mktemp("stored"), provider.base_url, keys=keys)) as running:
        yield running


@pytest.fixture(autouse=True)
def _echo(provider: ChatUpstream) -> Iterator[None]:
    """What the provider says unless a test wants something else; it has nothing against what it is asked."""
    provider.requests.clear()
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    yield
    assert provider.objections == []


async def created(here: Site, *, key: str | None = ANN, **fields: Json) -> Json:
    reply = await here.create(key=key, **fields)
    assert reply.status == 200, reply.body
    return reply.json


async def over(here: Site, response: Json, owner: str = "ann") -> None:
    """Wait until a response in the background is made."""
    if (run := here.runs.get(response["id"], owner)) is not None:
        await run.over.wait()


async def cancelled(here: Site, response_id: str, *, key: str | None = ANN) -> Reply:
    return await here.ask("POST", f"/v1/responses/{response_id}/cancel", key=key)


async def listed(here: Site, response_id: str, query: str = "?order=asc", *, key: str | None = ANN) -> list[Json]:
    reply = await here.get(f"{response_id}/input_items{query}", key=key)
    assert reply.status == 200, reply.body
    assert set(reply.json) == {"object", "data", "first_id", "last_id", "has_more"}
    items: list[Json] = reply.json["data"]
    return items


def error(reply: Reply, status: int) -> Json:
    """The error of a reply; its envelope has all four members, and nothing beside them (http.md §6.1)."""
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json"), reply.body
    assert reply.headers["x-request-id"].startswith("req_")
    assert set(reply.json) == {"error"}
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    return reply.json["error"]


def not_found(response_id: str) -> Json:
    return {
        "message": f"Response with id '{response_id}' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


# Retrieving


async def test_a_response_is_retrieved_as_the_bytes_it_was_told_in(here: Site, provider: ChatUpstream) -> None:
    provider.follow(lambda request: answer(thought("hm"), text("é😀"), calls(call("weather"))))
    plain = await here.create(key=ANN, input="hi", tools=[WEATHER])
    streamed = folded((await here.create(key=ANN, input="hi", tools=[WEATHER], stream=True)).events)
    for query in ("", "?stream=false", "?include[]=reasoning.encrypted_content", "?include_obfuscation=true"):
        again = await here.get(f"{plain.json['id']}{query}", key=ANN)
        assert (again.status, again.headers["content-type"], again.body) == (200, "application/json", plain.body)
    assert (await here.get(streamed["id"], key=ANN)).json == streamed


async def test_a_response_in_the_background_is_retrieved_as_it_is_so_far(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("slow"), delay=0.3)])
    queued = await here.create(key=ANN, input="hi", background=True)
    assert (queued.json["status"], queued.json["output"], queued.json["background"]) == ("queued", [], True)
    meanwhile = (await here.get(queued.json["id"], key=ANN)).json
    assert meanwhile["status"] in ("queued", "in_progress")
    assert (meanwhile["output"], meanwhile["usage"], meanwhile["completed_at"]) == ([], None, None)
    await over(here, queued.json)
    ended = (await here.get(queued.json["id"], key=ANN)).json
    assert ended["status"] == "completed"
    assert ended["output"][0]["content"][0]["text"] == "slow"
    told = ("id", "created_at", "model", "background", "store")
    assert [ended[name] for name in told] == [queued.json[name] for name in told]


async def test_a_failed_response_is_retrieved_as_what_it_is(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("cut", after=2))])
    failed = folded((await here.create(key=ANN, input="hi", stream=True)).events)
    assert failed["status"] == "failed"
    assert (await here.get(failed["id"], key=ANN)).json == failed


async def test_a_response_that_is_not_stored_is_there_for_a_while_only_in_the_background(here: Site) -> None:
    """semantics.md §5."""
    plain = await created(here, input="hi", store=False)
    assert error(await here.get(plain["id"], key=ANN), 404) == not_found(plain["id"])
    kept = await created(here, input="hi", store=False, background=True)
    await over(here, kept)
    found = await here.get(kept["id"], key=ANN)
    assert (found.json["status"], found.json["store"]) == ("completed", False)
    assert [item["content"][0]["text"] for item in await listed(here, kept["id"])] == ["hi"]
    assert error(await here.get(kept["id"], key=BOB), 404) == not_found(kept["id"])
    refused = error(await here.create(key=ANN, input="on", previous_response_id=kept["id"]), 400)
    assert refused["code"] == "previous_response_not_found"
    assert (await here.delete(kept["id"], key=ANN)).status == 200
    assert error(await here.get(kept["id"], key=ANN), 404) == not_found(kept["id"])


# Its stream, once more


async def test_a_stream_is_told_again_from_its_beginning_or_behind_an_event(here: Site) -> None:
    told = await here.create(key=ANN, input="hi", background=True, stream=True)
    events = told.events
    response_id = events[0]["response"]["id"]
    again = await here.get(f"{response_id}?stream=true", key=ANN)
    assert (again.status, again.events) == (200, events)
    for after in (0, 2, len(events) - 2, len(events) - 1, 10**9):
        rest = await here.get(f"{response_id}?stream=true&starting_after={after}", key=ANN)
        assert rest.events == events[after + 1 :]
    plain = await here.get(response_id, key=ANN)
    assert plain.json == events[-1]["response"]


async def test_a_stream_is_followed_while_it_is_made(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("a", "b", "c"), gap=0.1)])
    url = f"http://127.0.0.1:{here.port}/v1/responses"
    asked = body_of(input="hi", background=True, stream=True)
    async with here.client.post(url, data=asked, headers={"authorization": f"Bearer {ANN}"}) as told:
        first = [await told.content.readline() for _ in range(3)]
        response_id = json.loads(first[1].removeprefix(b"data: "))["response"]["id"]
        followed = await here.get(f"{response_id}?stream=1&starting_after=1", key=ANN)
        assert followed.events == events_of(b"".join(first) + await told.read())[2:]


@pytest.mark.parametrize("fields", [{}, {"background": True}, {"stream": True}])
async def test_what_was_not_streamed_in_the_background_is_not_streamed_again(here: Site, fields: Json) -> None:
    """events.md §7."""
    reply = await here.create(key=ANN, input="hi", **fields)
    response = reply.events[-1]["response"] if "stream" in fields else reply.json
    await over(here, response)
    found = error(await here.get(f"{response['id']}?stream=true", key=ANN), 400)
    assert (found["param"], found["code"]) == ("stream", None)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=maybe", "stream"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=x", "starting_after"),
        ("starting_after=1", "starting_after"),
        ("stream=false&starting_after=1", "starting_after"),
        ("include_obfuscation=2", "include_obfuscation"),
        ("include=everything", "include"),
        ("include[]=everything", "include"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_whoever_asks(here: Site, query: str, param: str) -> None:
    response = await created(here, input="hi")
    for key in (ANN, BOB):
        assert error(await here.get(f"{response['id']}?{query}", key=key), 400)["param"] == param


# Cancelling


async def test_a_response_in_the_background_is_cancelled_and_stays_so(here: Site, provider: ChatUpstream) -> None:
    """http.md §6.3."""
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("stall", after=3))])
    queued = await created(here, input="hi", background=True)
    sent = await asyncio.to_thread(provider.wait, 1)
    reply = await cancelled(here, queued["id"])
    assert (reply.status, reply.json["id"], reply.json["status"]) == (200, queued["id"], "cancelled")
    assert (reply.json["completed_at"], reply.json["error"]) == (None, None)
    assert await asyncio.to_thread(sent.left.wait, 2)
    assert (await cancelled(here, queued["id"])).body == reply.body
    assert (await here.get(queued["id"], key=ANN)).body == reply.body


async def test_a_response_that_is_over_is_not_cancelled_any_more(here: Site) -> None:
    queued = await created(here, input="hi", background=True)
    await over(here, queued)
    ended = await here.get(queued["id"], key=ANN)
    assert ended.json["status"] == "completed"
    reply = await cancelled(here, queued["id"])
    assert (reply.status, reply.body) == (200, ended.body)


async def test_a_response_its_client_waited_for_cannot_be_cancelled(here: Site) -> None:
    response = await created(here, input="hi")
    found = error(await cancelled(here, response["id"]), 400)
    assert found["message"] == "Cannot cancel a synchronous response."
    assert (await here.get(response["id"], key=ANN)).json == response


# Deleting


async def test_a_deleted_response_is_gone_and_its_descendants_are_not(here: Site, provider: ChatUpstream) -> None:
    """reliability.md F17."""
    parent = await created(here, input="one")
    child = await created(here, input="two", previous_response_id=parent["id"])
    reply = await here.delete(parent["id"], key=ANN)
    assert (reply.status, reply.json) == (200, {"id": parent["id"], "object": "response", "deleted": True})
    for gone in (
        await here.get(parent["id"], key=ANN),
        await here.get(f"{parent['id']}?stream=true", key=ANN),
        await here.get(f"{parent['id']}/input_items", key=ANN),
        await here.delete(parent["id"], key=ANN),
        await cancelled(here, parent["id"]),
    ):
        assert error(gone, 404) == not_found(parent["id"])
    refused = error(await here.create(key=ANN, input="on", previous_response_id=parent["id"]), 400)
    assert refused["code"] == "previous_response_not_found"
    assert [item["content"][0]["text"] for item in await listed(here, child["id"])] == ["one", "re: one", "two"]
    await created(here, input="three", previous_response_id=child["id"])
    texts = [message.text for message in provider.requests[-1].chat.messages]
    assert texts == ["one", "re: one", "two", "re: two", "three"]


async def test_a_response_that_is_deleted_while_it_is_made_is_ended_first(here: Site, provider: ChatUpstream) -> None:
    """reliability.md F21."""
    provider.follow([silence()])
    queued = await created(here, input="hi", background=True)
    sent = await asyncio.to_thread(provider.wait, 1)
    assert (await here.delete(queued["id"], key=ANN)).json["deleted"]
    assert await asyncio.to_thread(sent.left.wait, 2)
    assert error(await here.get(queued["id"], key=ANN), 404) == not_found(queued["id"])


# Its input


async def test_input_items_are_everything_the_response_was_made_from(here: Site, provider: ChatUpstream) -> None:
    provider.follow(
        [answer(thought("hm"), calls(call("weather", id="c1"))), answer(text("Cold.")), answer(text("Bye."))]
    )
    first = await created(here, input=[user("Oslo?"), user("Well?") | {"id": "msg_mine"}], tools=[WEATHER])
    second = await created(here, input=[output_of("c1", "cold")], previous_response_id=first["id"])
    third = await created(here, input="Thanks.", previous_response_id=second["id"])
    everything = await listed(here, third["id"])
    assert [item["type"] for item in everything] == [
        *["message", "message", "reasoning", "function_call"],
        *["function_call_output", "message"],
        "message",
    ]
    assert everything[2:4] == first["output"]
    assert everything[5] == second["output"][0]
    assert everything[1]["id"] == "msg_mine"
    assert all(item["id"] and item["status"] == "completed" for item in everything)
    assert await listed(here, third["id"], "") == everything[::-1], "the newest comes first (http.md §1)"
    assert await listed(here, third["id"], "?limit=2") == everything[:4:-1]
    assert await listed(here, third["id"], f"?limit=2&after={everything[5]['id']}") == everything[4:2:-1]
    assert await listed(here, first["id"]) == everything[:2], "its own output is not input"


async def test_the_input_of_a_response_is_there_while_it_is_made(here: Site, provider: ChatUpstream) -> None:
    parent = await created(here, input="one")
    provider.follow([silence()])
    queued = await created(here, input="two", previous_response_id=parent["id"], background=True)
    await asyncio.to_thread(provider.wait, 2)
    assert [item["content"][0]["text"] for item in await listed(here, queued["id"])] == ["one", "re: one", "two"]
    await cancelled(here, queued["id"])
    assert [item["content"][0]["text"] for item in await listed(here, queued["id"])] == ["one", "re: one", "two"]


async def test_what_is_included_is_shown_to_who_asks_for_it(here: Site) -> None:
    image = {"type": "input_image", "image_url": "https://a.test/b.png", "detail": "low"}
    response = await created(here, input=[{"role": "user", "content": [image]}, user("see")])
    query = "include[]=message.input_image.image_url"
    assert (await listed(here, response["id"]))[0]["content"] == [image | {"image_url": None}]
    assert (await listed(here, response["id"], f"?order=asc&{query}"))[0]["content"] == [image]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("order=up", "order"),
        ("after=msg_x", "after"),
        ("include=all", "include"),
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(here: Site, query: str, param: str) -> None:
    response = await created(here, input="hi")
    assert error(await here.get(f"{response['id']}/input_items?{query}", key=ANN), 400)["param"] == param


# Isolation


@pytest.mark.parametrize("fields", [{}, {"background": True}, {"background": True, "store": False}])
async def test_a_foreign_response_looks_like_one_that_never_was(here: Site, fields: Json) -> None:
    """reliability.md P6, S3: same status, body and headers."""
    mine = await created(here, input=[user("secret") | {"id": "msg_secret"}], **fields)
    await over(here, mine)

    async def asked(response_id: str) -> list[Reply]:
        requests: list[Callable[[], Awaitable[Reply]]] = [
            lambda: here.get(response_id, key=BOB),
            lambda: here.get(f"{response_id}?stream=true", key=BOB),
            lambda: here.get(f"{response_id}?stream=true&starting_after=1", key=BOB),
            lambda: here.get(f"{response_id}?stream=maybe", key=BOB),
            lambda: here.get(f"{response_id}/input_items", key=BOB),
            lambda: here.get(f"{response_id}/input_items?after=msg_secret", key=BOB),
            lambda: here.get(f"{response_id}/input_items?limit=0", key=BOB),
            lambda: cancelled(here, response_id, key=BOB),
            lambda: here.delete(response_id, key=BOB),
            lambda: here.create(key=BOB, input="on", previous_response_id=response_id),
            lambda: here.create(key=BOB, input="on", previous_response_id=response_id, stream=True),
            lambda: here.create(key=BOB, input="on", previous_response_id=response_id, background=True),
        ]
        return [await request() for request in requests]

    before = (await here.get(mine["id"], key=ANN)).body
    for one, other in zip(await asked(mine["id"]), await asked(NOBODYS), strict=True):
        assert one.status in (400, 404)
        assert (one.status, one.body.replace(mine["id"].encode(), NOBODYS.encode())) == (other.status, other.body)
        assert set(one.headers) == set(other.headers)
        assert b"secret" not in one.body
    assert (await here.get(mine["id"], key=ANN)).body == before


async def test_a_foreign_response_that_is_made_goes_on_whoever_wants_it_cancelled(
    here: Site, provider: ChatUpstream
) -> None:
    provider.follow([answer(text("slow"), delay=0.4)])
    mine = await created(here, input="hi", background=True)
    await asyncio.to_thread(provider.wait, 1)
    for reply in (
        await cancelled(here, mine["id"], key=BOB),
        await here.delete(mine["id"], key=BOB),
        await here.get(mine["id"], key=BOB),
    ):
        assert error(reply, 404) == not_found(mine["id"])
    await over(here, mine)
    assert (await here.get(mine["id"], key=ANN)).json["status"] == "completed"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("resp_unknown", "resp_unknown"),
        ("resp_a-b", "resp_a-b"),
        ("resp_", "resp_"),
        ("resp_" + "a" * 65, "resp_" + "a" * 65),
        ("conv_a", "conv_a"),
        ("%00x%0D%0A%C3%A9", "xé"),
        ("x" * 500, "x" * 100),
    ],
)
async def test_an_id_nobody_has_is_not_found_whatever_it_looks_like(here: Site, path: str, shown: str) -> None:
    for reply in (
        await here.get(path, key=ANN),
        await here.get(f"{path}?stream=true", key=ANN),
        await here.get(f"{path}/input_items", key=ANN),
        await here.delete(path, key=ANN),
        await cancelled(here, path),
    ):
        assert error(reply, 404) == not_found(shown)


async def test_everything_survives_a_restart(tmp_path: Path, provider: ChatUpstream) -> None:
    async with site(services_in(tmp_path, provider.base_url)) as here:
        parent = await here.create(input="one")
        child = await here.create(input="two", previous_response_id=parent.json["id"])
        stream = await here.create(input="three", background=True, stream=True)
        gone = await here.create(input="four")
        await here.delete(gone.json["id"])
        items = await here.get(f"{child.json['id']}/input_items")
    async with site(services_in(tmp_path, provider.base_url)) as here:
        assert (await here.get(parent.json["id"])).body == parent.body
        assert (await here.get(child.json["id"])).body == child.body
        assert (await here.get(f"{child.json['id']}/input_items")).body == items.body
        response_id = stream.events[0]["response"]["id"]
        assert (await here.get(f"{response_id}?stream=true&starting_after=2")).events == stream.events[3:]
        assert error(await here.get(gone.json["id"]), 404) == not_found(gone.json["id"])

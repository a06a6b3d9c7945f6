from collections.abc import Callable

from rejoinder.conformance.about_conversations import chapter
from rejoinder.conformance.samples import GREETING
from rejoinder.conformance.samples import UNKNOWN_CONVERSATION as UNKNOWN
from tests.conformance.judging import (
    KEY,
    Mutants,
    broken,
    every,
    ids,
    in_responses,
    is_nobodys,
    refusing,
    telling,
    verdicts,
)
from tests.conformance.little_server import Exchange, Fault, Json, LittleServer, Refused

FIRST = f"Bearer {KEY}"


def made(change: Callable[[Json], object], *, with_metadata: Json) -> Fault:
    """Changes the conversation in the answer to the request that makes it."""

    def told(it: Exchange) -> None:
        if (it.method, it.path) == ("POST", "/conversations") and it.body.get("metadata") == with_metadata:
            change(it.told)

    return Fault(told=told)


def found(change: Callable[[Json], object]) -> Fault:
    """Changes the conversation when it is asked for."""

    def told(it: Exchange) -> None:
        for conversation in it.conversation if it.method == "GET" else ():
            change(conversation)

    return Fault(told=told)


def updated(change: Callable[[Json], object]) -> Fault:
    """Changes the conversation in the answer to an update."""

    def told(it: Exchange) -> None:
        for conversation in it.conversation if it.method == "POST" and len(it.place) == 2 else ():
            change(conversation)

    return Fault(told=told)


def in_pages(is_meant: Callable[[Exchange], object], change: Callable[[Json], object]) -> Fault:
    """Changes the pages of items."""

    def told(it: Exchange) -> None:
        for page in it.spoken if it.method == "GET" and is_meant(it) else ():
            change(page)

    return Fault(told=told)


def asked(method: str, *place: str, change: Callable[[Exchange], object]) -> Fault:
    """Changes questions of this kind; the place is what stands behind the id of a conversation."""
    return Fault(asked=lambda it: change(it) if it.method == method and is_at(it, *place) else None)


def is_at(it: Exchange, *place: str) -> bool:
    return it.place[0] == "conversations" and tuple(it.place[2:]) == place


def without_status(page: Json) -> None:
    for item in page["data"]:
        item.pop("status")


def ignoring_wrong_metadata(it: Exchange) -> None:
    if it.path == "/conversations" and it.body.get("metadata") == {"key": 7}:
        it.body["metadata"] = {}


def half_deleted(it: Exchange) -> None:
    if it.method == "DELETE" and is_at(it) and it.status == 200:
        it.told.pop("deleted")


def items_outlive(it: Exchange) -> None:
    if it.method == "GET" and is_at(it, "items") and it.status == 404 and it.key == FIRST and not is_nobodys(it.path):
        it.status, it.told = 200, {"object": "list", "data": []}


def unknown_is_wrong(it: Exchange) -> None:
    if it.method == "DELETE" and it.place[0] == "conversations" and is_nobodys(it.path):
        it.status = 400


def bounded(it: Exchange) -> None:
    if it.query.get("limit") == "101":
        it.query["limit"] = "100"


def cutting(it: Exchange) -> None:
    if "items" in it.body:
        del it.body["items"][20:]


def telling_nothing(it: Exchange) -> None:
    if it.method == "POST" and is_at(it, "items") and it.status == 200:
        it.told["data"] = []


def emptied(it: Exchange) -> None:
    if it.method == "GET" and it.place[2:3] == ["items"] and len(it.place) == 4 and it.status == 200:
        it.told["content"] = []


def remembering_items(*, those_deleted: bool) -> Fault:
    """Items are found by their id in any conversation, those that were deleted or those that were not."""
    known: dict[str, Json] = {}
    deleted: set[str] = set()

    def told(it: Exchange) -> None:
        for page in it.spoken:
            known.update((item["id"], item) for item in page["data"])
        if it.method == "DELETE" and it.status == 200:
            deleted.add(it.place[-1])
        item = known.get(it.place[-1])
        if item and it.method == "GET" and it.status == 404 and (item["id"] in deleted) is those_deleted:
            it.status, it.told = 200, item

    return Fault(told=told)


def marked_deleted(it: Exchange) -> None:
    if it.method == "DELETE" and len(it.place) == 4 and it.status == 200:
        it.told = {"id": it.place[-1], "deleted": True}


def losing_the_last_item(is_meant: Callable[[Exchange], object]) -> Fault:
    """The last item is not in a conversation in which a response like that was made."""
    used: set[str] = set()

    def told(it: Exchange) -> None:
        if it.path == "/responses" and isinstance(it.body.get("conversation"), str) and is_meant(it):
            used.add(it.body["conversation"])
        for page in it.spoken if used & {*it.place} else ():
            page["data"].pop()

    return Fault(told=told)


def appending_what_was_refused() -> Fault:
    refused: set[str] = set()

    def told(it: Exchange) -> None:
        if it.said == "Not this.":
            refused.add(it.body["conversation"])
        for page in it.spoken if refused & {*it.place} else ():
            page["data"].insert(0, {"type": "message", "id": "msg_refused", "content": "Not this."})

    return Fault(told=told)


def deleting_responses() -> Fault:
    """The responses of a conversation go with it."""
    inside: dict[str, str] = {}
    deleted: set[str] = set()

    def asked(it: Exchange) -> None:
        if it.method == "GET" and inside.get(it.place[-1]) in deleted:
            raise Refused("gone", status=404)

    def told(it: Exchange) -> None:
        for response in it.plain:
            if response["conversation"]:
                inside[response["id"]] = response["conversation"]["id"]
        if it.method == "DELETE":
            deleted.add(it.place[-1])

    return Fault(asked=asked, told=told)


def deleting_conversations() -> Fault:
    """A conversation goes with its responses."""
    around: dict[str, str] = {}
    gone: set[str] = set()

    def asked(it: Exchange) -> None:
        if it.method == "GET" and it.place[-1] in gone:
            raise Refused("gone", status=404)

    def told(it: Exchange) -> None:
        for response in it.plain:
            if response["conversation"]:
                around[response["id"]] = response["conversation"]["id"]
        if it.method == "DELETE" and it.place[-1] in around:
            gone.add(around[it.place[-1]])

    return Fault(asked=asked, told=told)


def alone(response: Json) -> None:
    if response["conversation"] and response["usage"]:
        response["usage"].update(input_tokens=8, total_tokens=8 + response["usage"]["output_tokens"])


def preferring_conversations(it: Exchange) -> None:
    if it.body.get("conversation") and it.body.get("previous_response_id"):
        it.body.pop("previous_response_id")


def making_up_conversations(it: Exchange) -> None:
    if it.path == "/responses" and it.body.get("conversation") == UNKNOWN:
        it.body.pop("conversation")


def uncoded(it: Exchange) -> None:
    for error in it.error:
        if error["code"] == "conversation_locked":
            error["code"] = None


def is_whole(it: Exchange) -> bool:
    """Whether a list is asked for without a word of how."""
    return not it.query


MUTANTS: Mutants = {
    "a conversation has no time": (
        made(lambda told: told.pop("created_at"), with_metadata={"topic": "weather"}),
        {"conversations.a-conversation-has-four-fields"},
    ),
    "a conversation changes": (
        found(lambda told: told.update(created_at=0)),
        {"conversations.a-conversation-can-be-asked-for"},
    ),
    "an update is lost": (updated(lambda told: told.update(metadata={})), {"conversations.metadata-is-kept"}),
    "an update does not say of what": (
        updated(lambda told: told.pop("object")),
        {"conversations.an-update-is-answered-with-the-conversation"},
    ),
    "an update may be empty": (
        asked("POST", change=lambda it: it.body.setdefault("metadata", {})),
        {"conversations.an-update-needs-metadata"},
    ),
    "metadata may be anything": (Fault(asked=ignoring_wrong_metadata), {"conversations.metadata-has-limits"}),
    "a deletion does not say so": (Fault(told=half_deleted), {"conversations.a-deletion-says-what-was-deleted"}),
    "items outlive their conversation": (Fault(told=items_outlive), {"conversations.what-was-deleted-is-not-found"}),
    "what is unknown is a wrong request": (
        Fault(told=unknown_is_wrong),
        {"conversations.an-unknown-conversation-is-not-found"},
    ),
    "a list does not say that it is one": (
        in_pages(is_whole, lambda page: page.pop("object")),
        {"conversations.items-are-a-list"},
    ),
    "items have no status": (in_pages(is_whole, without_status), {"conversations.items-have-an-id-and-a-status"}),
    "the oldest comes first": (
        asked("GET", "items", change=lambda it: it.query.setdefault("order", "asc") if is_whole(it) else None),
        {"conversations.a-conversation-may-begin-with-items"},
    ),
    "every page is the first": (
        asked("GET", "items", change=lambda it: it.query.pop("after", "")),
        {"conversations.pages-join-to-the-list"},
    ),
    "a limit is bent": (asked("GET", "items", change=bounded), {"conversations.a-wrong-page-is-refused"}),
    "added items are not told": (Fault(told=telling_nothing), {"conversations.added-items-are-told"}),
    "what is too much is left out": (
        asked("POST", "items", change=cutting),
        {"conversations.twenty-items-fit-into-a-request"},
    ),
    "nothing can be added": (
        asked("POST", "items", change=lambda it: it.body.setdefault("items", [])),
        {"conversations.adding-needs-items"},
    ),
    "an item is empty": (Fault(told=emptied), {"conversations.an-item-can-be-asked-for"}),
    "items are found anywhere": (
        remembering_items(those_deleted=False),
        {"conversations.an-item-of-another-conversation-is-not-found"},
    ),
    "deleting an item says what was deleted": (
        Fault(told=marked_deleted),
        {"conversations.deleting-an-item-is-answered-with-the-conversation"},
    ),
    "deleted items are found": (remembering_items(those_deleted=True), {"conversations.a-deleted-item-is-gone"}),
    "a conversation is not named where it was an object": (
        telling(
            lambda it: isinstance(it.body.get("conversation"), dict),
            lambda response: response.update(conversation=None),
        ),
        {"conversations.a-response-names-its-conversation"},
    ),
    "an answer is not appended": (
        losing_the_last_item(lambda it: it.said == GREETING and not it.body.get("stream")),
        {"conversations.a-turn-is-appended"},
    ),
    "turns come before what was there": (
        in_pages(lambda it: it.query.get("limit") == "100", lambda page: page["data"].reverse()),
        {"conversations.turns-follow-each-other"},
    ),
    "a streamed answer is not appended": (
        losing_the_last_item(lambda it: it.body.get("stream")),
        {"conversations.a-streamed-turn-is-appended"},
    ),
    "a conversation is not read": (in_responses(alone), {"conversations.the-model-sees-the-conversation"}),
    "outputs are refused in a conversation": (
        refusing(lambda it: it.body.get("conversation") and "function_call_output" in str(it.body.get("input"))),
        {"conversations.a-call-is-answered-in-its-conversation"},
    ),
    "what was refused is appended": (
        appending_what_was_refused(),
        {"conversations.a-refused-request-leaves-nothing"},
    ),
    "of two the conversation counts": (
        Fault(asked=preferring_conversations),
        {"conversations.either-a-conversation-or-a-previous-response"},
    ),
    "an unknown conversation is ignored": (
        Fault(asked=making_up_conversations),
        {"conversations.nothing-is-made-in-an-unknown-conversation"},
    ),
    "responses go with their conversation": (
        deleting_responses(),
        {"conversations.a-deletion-leaves-the-responses"},
    ),
    "a conversation goes with its responses": (
        deleting_conversations(),
        {"conversations.deleting-a-response-leaves-the-conversation"},
    ),
    "the code is another one": (Fault(told=uncoded), {"conversations.one-response-at-a-time"}),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


def uncounted(response: Json) -> None:
    if response["usage"]:
        response["usage"].update(input_tokens=0, total_tokens=response["usage"]["output_tokens"])


def at_once(it: Exchange) -> None:
    if it.body.get("conversation"):
        it.body.pop("background", None)


def silent(response: Json) -> None:
    response["output"] = []


async def test_where_nothing_is_to_be_seen_no_rule_is_broken() -> None:
    for fault, lacking in (
        (in_responses(uncounted), "conversations.the-model-sees-the-conversation"),
        (telling(lambda it: "tools" in it.body, silent), "conversations.a-call-is-answered-in-its-conversation"),
        (Fault(asked=at_once), "conversations.one-response-at-a-time"),
    ):
        found = await verdicts(LittleServer(fault), rules=list(chapter))
        assert ids("broken", found) == set()
        assert ids("not_applicable", found) == {lacking}

from rejoinder.conformance.about_connections import chapter
from tests.conformance.judging import Mutants, broken, every, judged
from tests.conformance.little_server import Exchange, Fault, Json, Refused
from tests.conformance.spoken import connections, deaf, errors, hearing, responses, saying, tokens, unnamed

NOT_FOUND = "previous_response_not_found"


def previous(it: Exchange) -> Json:
    return it.body.get("previous_response_id")


def lost() -> Refused:
    return Refused("no such response", "previous_response_id", NOT_FOUND)


def unstored(it: Exchange) -> bool:
    return it.body.get("store") is False


def in_no_lane(it: Exchange) -> bool:
    return it.method == "POST" and "stream_id" not in it.body


def is_long(it: Exchange) -> bool:
    return "word word" in str(it.body.get("input"))


class Made:
    """What is known of the responses that were made over sockets: their depths, and whose they are."""

    def __init__(self) -> None:
        self.depths: dict[Json, int] = {None: 0}
        self.places: dict[Json, dict[str, Json]] = {}
        self.kept: dict[Json, Json] = {}
        self.latest: dict[int, Json] = {}

    def note(self, it: Exchange) -> None:
        if it.made is not None:
            name = it.made.response["id"]
            self.depths[name] = self.depths.get(previous(it), 0) + 1
            self.places[name] = it.local
            self.kept[name] = it.made
            self.latest[id(it.local)] = name

    def is_older(self, it: Exchange, *, stored: bool) -> bool:
        """Whether it continues a response of its connection that is not the latest."""
        name = previous(it)
        is_older = self.places.get(name) is it.local and self.latest[id(it.local)] != name
        return is_older and self.is_stored(name) == stored

    def is_stored(self, name: Json) -> bool:
        return name in self.kept and bool(self.kept[name].response["store"])


def forgetting_who_is_third() -> Fault:
    made = Made()

    def said(it: Exchange) -> None:
        made.note(it)
        if it.made and unnamed(it) and made.depths.get(previous(it), 0) == 3:
            responses(lambda response: response.update(previous_response_id=None))(it)

    return Fault(said=said)


def seeing_two() -> Fault:
    """The context is the response before and nothing else."""
    made = Made()

    def said(it: Exchange) -> None:
        made.note(it)
        if it.made and unnamed(it) and made.depths.get(previous(it), 0) > 1:
            tokens(10)(it)

    return Fault(said=said)


def remembering_everything() -> Fault:
    """What was said over a connection is the context of all that follows."""
    notes = connections()

    def said(it: Exchange) -> None:
        if in_no_lane(it) and it.made and not previous(it):
            if "long" in notes(it):
                tokens(1000)(it)
            if is_long(it) and it.body.get("generate") is not False:
                notes(it).add("long")

    return Fault(said=said)


def inheriting() -> Fault:
    made = Made()

    def said(it: Exchange) -> None:
        made.note(it)
        if it.made and previous(it) in made.kept:
            inherited = made.kept[previous(it)].response["instructions"]
            if inherited is not None:
                responses(lambda response: response.update(instructions=inherited))(it)

    return Fault(said=said)


def ignoring_older() -> Fault:
    made = Made()

    def heard(it: Exchange) -> None:
        if in_no_lane(it) and made.is_older(it, stored=False):
            it.body.pop("previous_response_id")

    return Fault(heard=heard, said=made.note)


def telling_older_otherwise() -> Fault:
    made = Made()

    def said(it: Exchange) -> None:
        made.note(it)
        if in_no_lane(it) and made.is_older(it, stored=False):
            errors(lambda event: event["error"].update(code="gone"))(it)

    return Fault(said=said)


def no_outputs(it: Exchange) -> bool:
    return in_no_lane(it) and unstored(it) and "'call_id'" in str(it.body.get("input")) and bool(it.body.get("tools"))


def dropping_what_was_cut(it: Exchange) -> None:
    if it.made and it.made.response["incomplete_details"] == {"reason": "max_output_tokens"}:
        it.local.pop(it.made.response["id"])


def losing_older_ones() -> Fault:
    """A store that is not asked for what came before the latest response."""
    made = Made()

    def heard(it: Exchange) -> None:
        if made.is_older(it, stored=True):
            raise lost()

    return Fault(heard=heard, said=made.note)


def losing_those_of_others() -> Fault:
    """A store for each connection."""
    made = Made()

    def heard(it: Exchange) -> None:
        if previous(it) in made.places and made.places[previous(it)] is not it.local:
            raise lost()

    return Fault(heard=heard, said=made.note)


def losing_those_of_http() -> Fault:
    over_http: set[str] = set()

    def told(it: Exchange) -> None:
        over_http.update(response["id"] for response in it.plain)

    def heard(it: Exchange) -> None:
        if previous(it) in over_http:
            raise lost()

    return Fault(told=told, heard=heard)


def losing_those_of_sockets() -> Fault:
    made = Made()

    def asked(it: Exchange) -> None:
        if previous(it) in made.kept:
            raise lost()

    return Fault(asked=asked, said=made.note)


def losing_failed_ones() -> Fault:
    """What could not be continued once is not loaded again."""
    made = Made()
    failed: set[Json] = set()

    def heard(it: Exchange) -> None:
        if previous(it) in failed and made.is_stored(previous(it)):
            raise lost()

    def said(it: Exchange) -> None:
        made.note(it)
        if it.method == "POST" and it.made is None:
            failed.add(previous(it))

    return Fault(heard=heard, said=said)


def sharing(*, what_is_open: bool) -> Fault:
    """What a connection remembers is known to others: while it is open, or once it is closed."""
    made = Made()

    def heard(it: Exchange) -> None:
        name = previous(it)
        place = made.places.get(name)
        if place is not None and place is not it.local and (name in place) == what_is_open:
            it.local[name] = made.kept[name]

    return Fault(heard=heard, said=made.note)


def storing_all_the_same() -> Fault:
    made = Made()

    def asked(it: Exchange) -> None:
        if previous(it) in made.kept:
            it.local[previous(it)] = made.kept[previous(it)]

    return Fault(asked=asked, said=made.note)


def forgiving() -> Fault:
    """A failed continuation leaves everything as it was."""
    made = Made()

    def said(it: Exchange) -> None:
        made.note(it)
        if in_no_lane(it) and it.made is None and made.places.get(previous(it)) is it.local:
            it.local[previous(it)] = made.kept[previous(it)]

    return Fault(said=said)


def spoiled_by_what_is_lost() -> Fault:
    made, notes = Made(), connections()

    def heard(it: Exchange) -> None:
        if in_no_lane(it) and "spoiled" in notes(it) and not previous(it):
            raise Refused("spoiled")

    def said(it: Exchange) -> None:
        made.note(it)
        if it.method == "POST" and it.made is None and previous(it) in made.kept:
            notes(it).add("spoiled")

    return Fault(heard=heard, said=said)


def is_warm_up(it: Exchange) -> bool:
    return it.body.get("generate") is False and is_long(it)


def with_an_item(it: Exchange) -> None:
    item = {"type": "message", "id": "msg_warm", "role": "assistant", "status": "in_progress", "content": []}
    added = {"type": "response.output_item.added", "sequence_number": 2, "output_index": 0, "item": item}
    it.events.insert(2, added)


def forgetting_first_warm_ups() -> Fault:
    notes = connections()

    def said(it: Exchange) -> None:
        if is_warm_up(it) and "begun" not in notes(it):
            it.local.clear()
        notes(it).add("begun")

    return Fault(said=said)


def overlooking_warm_ups() -> Fault:
    warm: set[str] = set()

    def said(it: Exchange) -> None:
        if previous(it) in warm:
            tokens(10)(it)
        if is_warm_up(it) and it.made:
            warm.add(it.made.response["id"])

    return Fault(said=said)


MUTANTS: Mutants = {
    "the third of a chain is the last": (
        forgetting_who_is_third(),
        {"connections.a-response-can-be-continued-without-a-store"},
    ),
    "the context is one response long": (seeing_two(), {"connections.the-whole-lineage-is-remembered"}),
    "a connection is one conversation": (
        remembering_everything(),
        {"connections.nothing-is-remembered-unless-it-is-named"},
    ),
    "instructions are inherited": (inheriting(), {"connections.settings-hold-for-one-request-of-a-connection"}),
    "an older response is ignored": (ignoring_older(), {"connections.an-older-response-is-continued-or-refused"}),
    "an older response is refused otherwise": (
        telling_older_otherwise(),
        {"connections.an-older-response-is-continued-or-refused"},
    ),
    "outputs alone are refused": (deaf(no_outputs), {"connections.outputs-continue-a-call-over-a-socket"}),
    "what was cut is forgotten": (
        saying(in_no_lane, dropping_what_was_cut),
        {"connections.an-incomplete-response-can-be-continued"},
    ),
    "the store is not asked": (losing_older_ones(), {"connections.an-older-stored-response-can-be-continued"}),
    "connections have a store each": (
        losing_those_of_others(),
        {"connections.a-stored-response-is-known-to-every-connection"},
    ),
    "what came over HTTP is not known": (
        losing_those_of_http(),
        {"connections.a-connection-continues-what-came-over-http"},
    ),
    "what came over a socket is not known": (
        losing_those_of_sockets(),
        {"connections.http-continues-what-came-over-a-connection"},
    ),
    "what failed is not loaded again": (losing_failed_ones(), {"connections.a-stored-parent-outlives-a-failure"}),
    "memory outlives its connection": (
        sharing(what_is_open=False),
        {"connections.a-new-connection-remembers-nothing"},
    ),
    "open connections share their memory": (sharing(what_is_open=True), {"connections.connections-keep-to-themselves"}),
    "what is not stored is stored": (
        storing_all_the_same(),
        {"connections.what-a-connection-remembers-is-not-stored"},
    ),
    "what is lost spoils the connection": (
        spoiled_by_what_is_lost(),
        {"connections.a-fresh-start-recovers-a-connection"},
    ),
    "a failed continuation is forgiven": (forgiving(), {"connections.a-failed-continuation-forgets-its-parent"}),
    "a compacted history is refused": (
        deaf(lambda it: "'compaction'" in str(it.body.get("input"))),
        {"connections.a-compacted-history-begins-a-chain"},
    ),
    "a warm-up has an item": (saying(is_warm_up, with_an_item), {"connections.a-warm-up-is-a-response-without-items"}),
    "a warm-up is forgotten": (forgetting_first_warm_ups(), {"connections.a-warm-up-can-be-continued"}),
    "a warm-up is not read": (overlooking_warm_ups(), {"connections.the-model-sees-what-was-warmed-up"}),
    "a warm-up begins anew": (
        hearing(is_warm_up, lambda it: it.body.pop("previous_response_id", None)),
        {"connections.a-warm-up-continues-what-came-before"},
    ),
}


@every(MUTANTS)
async def test_a_mutant_breaks_its_rules_alone(fault: Fault, breaks: set[str]) -> None:
    assert await broken(fault) == breaks


async def test_who_counts_no_tokens_is_not_asked_what_the_model_saw() -> None:
    assert await judged(chapter, saying(lambda it: True, tokens(0))) == (
        set(),
        {
            "connections.the-whole-lineage-is-remembered",
            "connections.nothing-is-remembered-unless-it-is-named",
            "connections.an-older-response-is-continued-or-refused",
            "connections.the-model-sees-what-was-warmed-up",
        },
    )


async def test_who_has_no_tools_or_makes_no_calls_is_not_asked_to_go_on() -> None:
    rule = "connections.outputs-continue-a-call-over-a-socket"
    settings = "connections.settings-hold-for-one-request-of-a-connection"
    compaction = "connections.a-compacted-history-begins-a-chain"
    assert await judged(chapter, Fault(), refuses="tools") == (set(), {rule, settings, compaction})
    calmly = hearing(lambda it: "tool_choice" in it.body, lambda it: it.body.update(tool_choice="none"))
    assert await judged(chapter, calmly) == (set(), {rule})


async def test_an_answer_that_was_not_cut_says_nothing() -> None:
    shorter = hearing(lambda it: "max_output_tokens" in it.body, lambda it: it.body.update(input="Say hello."))
    assert await judged(chapter, shorter) == (set(), {"connections.an-incomplete-response-can-be-continued"})


async def test_an_older_response_may_be_remembered() -> None:
    made = Made()

    def heard(it: Exchange) -> None:
        if made.is_older(it, stored=False):
            it.local[previous(it)] = made.kept[previous(it)]

    assert await judged(chapter, Fault(heard=heard, said=made.note)) == (set(), set())

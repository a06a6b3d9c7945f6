"""Whether a store is whole: every row says what it should, and the rows fit together.

The rows are read page by page, which may take a while, and then once more where they changed meanwhile, all at one
moment; so what is compared is the store as it was then, and a server that goes on writing raises no false alarm.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rejoinder.store import conversations, keys, runs
from rejoinder.store.errors import DamagedRecord
from rejoinder.store.reading import ReadingBackend, Row
from rejoinder.store.record import ITEMS, decoded
from rejoinder.store.records import opened

Place = tuple[str, str]
"""An owner, as keys have it, and the id of a record or a conversation."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a row, and what that breaks. `tenant` is its owner as keys have it, '' for the files."""

    tenant: str
    what: str
    breaks: str


@dataclass(frozen=True, slots=True)
class _Record:
    parent: str | None
    is_item: bool
    is_unfinished: bool
    is_journaled: bool


@dataclass(frozen=True, slots=True)
class _Frames:
    """The sequence numbers of a piece: its first, and the one after its last."""

    first: int
    following: int


@dataclass(frozen=True, slots=True)
class _Leads:
    """A row that names a record, or leads to none yet."""

    to: str | None


@dataclass(frozen=True, slots=True)
class _Is:
    """A row with nothing to compare but a number."""

    number: int = 0


_Fact = _Record | _Frames | _Leads | _Is | DamagedRecord

_BREAKS = {
    "response": "it and whatever continues it are answered with an error",
    "ghost": "whatever builds on it is answered with an error",
    "children": "the response cannot be continued, and what continues it cannot be deleted",
    "until": "the response is answered with an error once it comes near its first end",
    "item": "an item of this id cannot be referred to",
    "event": "the stream of the response cannot be followed",
    "conversation": "the conversation is answered with an error",
    "once": "a request with this idempotency key is answered with an error",
    "run": "if the server stops, nobody ends the response",
}


_NAME = re.compile(
    r"[0-9a-f]{64}/(?:(response|ghost|children|until|item|conversation|once)/[^/]+|(event)/[^/]+/[0-9]{8})"
    r"|(run)/[0-9a-f]{64}/[^/]+|(probe)"
)


async def verify(backend: ReadingBackend) -> tuple[list[Damage], int]:
    """All that is wrong, and how many rows were looked at. Raises `StoreError` when the store cannot be read at all."""
    found: list[Damage] = []
    facts: dict[str, _Fact] = {}
    try:
        await _gather(backend, facts)
    except DamagedRecord as error:
        found.append(Damage("", str(error), "this report may lack rows, or have old ones"))
    try:
        complaints = await backend.complaints()
    except DamagedRecord as error:
        complaints = [str(error)]
    found += [Damage("", f"SQLite says: {text}", "rows may be lost or not found") for text in complaints]
    found += _Whole.of(facts).damages()
    return found, len(facts)


_PAGE = 200


async def _gather(backend: ReadingBackend, facts: dict[str, _Fact]) -> None:
    known: dict[str, float] = {}

    def learn(rows: list[Row]) -> None:
        for row in rows:
            known[row.key] = row.stored_at
            facts[row.key] = _fact(row)

    first = ""
    while rows := await backend.page(first, _PAGE):
        learn(rows)
        first = f"{rows[-1].key}\x00"
    others, gone = await backend.changed(known)
    learn(others)
    for key in gone:
        del facts[key]


def _fact(row: Row) -> _Fact:
    if isinstance(row.value, DamagedRecord):
        return row.value
    try:
        return _read(row.key, row.value)
    except (DamagedRecord, ValueError) as error:
        return DamagedRecord(str(error))


def _read(key: str, value: bytes) -> _Fact:
    match kind_of(key):
        case "response" | "ghost":
            record = decoded(key, value)
            return _Record(record.parent, record.status == ITEMS, record.is_unfinished, record.journaled)
        case "children" | "until":
            return _Is(int(opened(key, value)))
        case "item":
            return _Leads(opened(key, value).decode())
        case "event":
            piece = runs.read_piece(key, value)
            return _Frames(piece.first, piece.following)
        case "conversation":
            return _Leads(conversations.read("", key, value).head)
        case "once":
            runs.read_once(key, value)
            return _Is()
        case "run":
            run = runs.read_run(key, value)
            if keys.run(keys.tenant_of(run.owner), run.id) != key:
                raise DamagedRecord("it names another response")
            return _Is()
        case "probe":
            return _Is()
        case _:
            raise DamagedRecord("no server writes rows of this name")


def kind_of(key: str) -> str:
    """What a row is; '' for one that is none of ours."""
    match = _NAME.fullmatch(key)
    return "" if match is None else str(match[match.lastindex or 0])


@dataclass(slots=True)
class _Whole:
    """All rows of a moment, by what they are."""

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    records: dict[Place, _Record | None] = field(default_factory=dict)
    living: set[Place] = field(default_factory=set)
    twice: list[Place] = field(default_factory=list)
    counts: dict[Place, int | None] = field(default_factory=dict)
    untils: list[Place] = field(default_factory=list)
    entries: list[tuple[str, str, str | None]] = field(default_factory=list)
    pieces: dict[Place, list[tuple[int, _Frames | None]]] = field(default_factory=lambda: defaultdict(list))
    heads: dict[Place, str | None] = field(default_factory=dict)
    runs: set[Place] = field(default_factory=set)
    blurred: Counter[str] = field(default_factory=Counter)
    """How many rows of an owner cannot be read that may build on others."""

    @classmethod
    def of(cls, facts: dict[str, _Fact]) -> "_Whole":
        whole = cls()
        for key in sorted(facts):
            whole._add(key, facts[key])
        return whole

    def _add(self, key: str, fact: _Fact) -> None:
        kind = kind_of(key)
        tenant, _, id = key.removeprefix(keys.RUNS).partition("/")
        place = tenant, id if kind == "run" else id.partition("/")[2]
        if isinstance(fact, DamagedRecord):
            self.unreadable.append((key, str(fact)))
            if kind in ("response", "ghost", "conversation"):
                self.blurred[tenant] += 1
        if kind in ("response", "ghost"):
            if place in self.records:
                self.twice.append(place)
            self.records[place] = fact if isinstance(fact, _Record) else None
            if kind == "response":
                self.living.add(place)
        elif kind == "children":
            self.counts[place] = fact.number if isinstance(fact, _Is) else None
        elif kind == "until":
            self.untils.append(place)
        elif kind == "run":
            self.runs.add(place)
        elif kind == "event":
            id, _, number = place[1].partition("/")
            self.pieces[tenant, id].append((int(number), fact if isinstance(fact, _Frames) else None))
        elif isinstance(fact, _Leads):
            if kind == "item":
                self.entries.append((key, tenant, fact.to))
            else:
                self.heads[place] = fact.to

    def damages(self) -> Iterator[Damage]:
        for key, why in self.unreadable:
            tenant = key.removeprefix(keys.RUNS).partition("/")[0]
            breaks = _BREAKS.get(kind_of(key), "nothing, but somebody else writes into this store")
            told = why if why.startswith(keys.told(key)) else f"{keys.told(key)} cannot be read: {why}"
            yield Damage(tenant, told, breaks)
        yield from self._histories()
        yield from self._counts()
        yield from self._streams()
        yield from self._names()

    def _histories(self) -> Iterator[Damage]:
        for tenant, id in self.twice:
            yield Damage(tenant, f"'{id}' is there twice, deleted and not", "its bytes stay when it is deleted")
        for (tenant, id), record in self.records.items():
            if record is not None and record.parent is not None and (tenant, record.parent) not in self.records:
                what = f"{self._told(tenant, id)} builds on '{record.parent}', which is not there"
                yield Damage(tenant, what, "whatever continues it is answered with an error")
        for tenant, id in self._loops():
            what = f"the history of {self._told(tenant, id)} leads back to itself"
            yield Damage(tenant, what, "whatever continues it is answered with an error")

    def _loops(self) -> Iterator[Place]:
        """One record of each lineage that has no beginning."""
        done: set[Place] = set()
        for start in self.records:
            way: dict[Place, None] = {}
            place: Place | None = start
            while place is not None and place not in done and place not in way:
                way[place] = None
                record = self.records.get(place)
                place = None if record is None or record.parent is None else (place[0], record.parent)
            if place is not None and place in way:
                yield place
            done.update(way)

    def _counts(self) -> Iterator[Damage]:
        found: Counter[Place] = Counter()
        for (tenant, _), record in self.records.items():
            if record is not None and record.parent is not None:
                found[tenant, record.parent] += 1
        for (tenant, _), head in self.heads.items():
            if head is not None:
                found[tenant, head] += 1
        for place in sorted({*found, *self.counts, *self.records}):
            tenant, id = place
            said, real = self.counts.get(place, 0), found[place]
            # Who else builds on it may be among what cannot be read.
            if said is None or 0 < said - real <= self.blurred[tenant]:
                continue
            if said > real:
                what = f"'children/{id}' says {said}, and {real} build on it"
                yield Damage(tenant, what, "its bytes stay after the last of them is deleted")
            elif said < real and place in self.records:
                what = f"'children/{id}' says {said}, and {real} build on it"
                yield Damage(tenant, what, "deleting one of them can take the history of the others")
            elif real == 0 and place in self.records and place not in self.living:
                yield Damage(tenant, f"'ghost/{id}' is there, and nothing builds on it", "its bytes stay for ever")

    def _streams(self) -> Iterator[Damage]:
        for (tenant, id), pieces in self.pieces.items():
            record = self.records.get((tenant, id))
            if (tenant, id) not in self.living or (record is not None and not record.is_journaled):
                what = f"'event/{id}/…' is the stream of no response that is told in one"
                yield Damage(tenant, what, "its bytes stay for ever")
            following: int | None = 0
            for expected, (number, frames) in enumerate(pieces):
                if number != expected:
                    what = f"{keys.told(keys.event(tenant, id, expected))} is not there, and later ones are"
                    yield Damage(tenant, what, _BREAKS["event"])
                    break
                if frames is not None and following not in (None, frames.first):
                    name = keys.told(keys.event(tenant, id, number))
                    what = f"{name} begins with the sequence number {frames.first} instead of {following}"
                    yield Damage(tenant, what, "a client that resumes the stream misses events or gets them twice")
                following = None if frames is None else frames.following
        for (tenant, id), record in self.records.items():
            is_over = record is not None and record.is_journaled and not record.is_unfinished
            if is_over and (tenant, id) in self.living and (tenant, id) not in self.pieces:
                yield Damage(tenant, f"the stream of {self._told(tenant, id)} is not there", _BREAKS["event"])

    def _names(self) -> Iterator[Damage]:
        for (tenant, id), head in self.heads.items():
            if head is not None and (tenant, head) not in self.records:
                what = f"'conversation/{id}' leads to '{head}', which is not there"
                yield Damage(tenant, what, _BREAKS["conversation"])
        for key, tenant, home in self.entries:
            if (tenant, home) not in self.records:
                yield Damage(tenant, f"{keys.told(key)} leads to '{home}', which is not there", "nothing else")
        for tenant, id in self.untils:
            if (tenant, id) not in self.living:
                yield Damage(tenant, f"'until/{id}' belongs to no response", "nothing else")
        for tenant, id in sorted(self.runs):
            record = self.records.get((tenant, id))
            if (tenant, id) not in self.living or (record is not None and not record.is_unfinished):
                what = f"'run/{id}' belongs to no unfinished response"
                yield Damage(tenant, what, "each start of the server tries in vain to end it")
        for (tenant, id), record in self.records.items():
            if record is not None and record.is_unfinished and (tenant, id) not in self.runs:
                what = f"{self._told(tenant, id)} is unfinished, and 'run/{id}' is not there"
                yield Damage(tenant, what, "it never ends, and can only be deleted")

    def _told(self, tenant: str, id: str) -> str:
        return f"'{'response' if (tenant, id) in self.living else 'ghost'}/{id}'"

"""What every row of a store is called.

    <owner>/response/<id>         a record that can be found
    <owner>/ghost/<id>            a record that cannot, and is part of a history: deleted, or items of a conversation
    <owner>/children/<id>         how many records and conversations build on it; absent for none
    <owner>/until/<id>            when it expires, where that was put off; Unix seconds
    <owner>/item/<hash>           the response that holds an item whose id does not say so itself
    <owner>/event/<id>/<number>   a piece of the stream a response was told in
    <owner>/conversation/<id>     a conversation: which record it has come to
    <owner>/once/<hash>           the response a request with an idempotency key led to
    run/<owner>/<id>              a response that is still made; one look finds those of all owners

`<owner>` is the SHA-256 of whatever names the owner, so it has one width and nothing a client sends can end it early.
"""

import hashlib
from functools import lru_cache

RUNS = "run/"
"""What the keys of all unfinished responses begin with; those of owners begin with a digit or a letter before `g`."""


@lru_cache(maxsize=4096)
def tenant_of(owner: str) -> str:
    """The part of a key that stands for its owner."""
    return hashlib.sha256(owner.encode()).hexdigest()


def living(tenant: str, response_id: str) -> str:
    return f"{tenant}/response/{response_id}"


def ghost(tenant: str, response_id: str) -> str:
    return f"{tenant}/ghost/{response_id}"


def children(tenant: str, response_id: str) -> str:
    return f"{tenant}/children/{response_id}"


def until(tenant: str, response_id: str) -> str:
    return f"{tenant}/until/{response_id}"


def entry(tenant: str, item_id: str) -> str:
    # Hashed, since a client chose it: any length, any characters.
    return f"{tenant}/item/{hashlib.sha256(item_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def events(tenant: str, response_id: str) -> str:
    """What the keys of all pieces of a stream begin with."""
    return f"{tenant}/event/{response_id}/"


def event(tenant: str, response_id: str, number: int) -> str:
    return f"{events(tenant, response_id)}{number:08d}"


def conversation(tenant: str, conversation_id: str) -> str:
    return f"{tenant}/conversation/{conversation_id}"


def once(tenant: str, key: str) -> str:
    return f"{tenant}/once/{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def run(tenant: str, response_id: str) -> str:
    return f"{RUNS}{tenant}/{response_id}"


def behind(prefix: str) -> str:
    """The first key after all that begin with `prefix`; what may follow there is ASCII."""
    return f"{prefix}\x7f"


def told(key: str) -> str:
    """A key for people: without the owner, which may be derived from a secret."""
    if key.startswith(RUNS):
        return f"'{RUNS}{key.removeprefix(RUNS).partition('/')[2]}'"
    _, slash, row = key.partition("/")
    return f"'{row if slash else key}'"

"""A server's storing half: says what it begins to save and what is acknowledged, until somebody kills it.

argv: the store's directory, and a number that makes this round's ids its own. Each line of stdout is whole:
`begun <id>` before a save, `kept <id>` after it returned.
"""

import asyncio
import hashlib
import os
import sys

from rejoinder.store import Record, Store, open_store


def record_of(response_id: str, parent: str | None) -> Record:
    """A record whose every byte follows from its id, so that a reader knows what must be there."""
    words = [hashlib.sha256(f"{response_id} {n}".encode()).hexdigest() for n in range(int(response_id[-2:], 16))]
    item = b'{"type":"message","id":"msg_%s","text":"%s"}' % (response_id[5:].encode(), " ".join(words).encode())
    response = b'{"id":"%s","output":[%s]}' % (response_id.encode(), item)
    question = b'{"type":"message","id":"from_a_client_%s"}' % response_id.encode()
    return Record(response_id, parent, 1, "completed", response, [question], [item])


def say(verb: str, response_id: str) -> None:
    os.write(1, f"{verb} {response_id}\n".encode())


async def converse(store: Store, name: str) -> None:
    parent: str | None = None
    turn = 0
    while True:
        response_id = "resp_" + hashlib.md5(f"{name} {turn}".encode()).hexdigest()
        say("begun", f"{response_id} {parent}")
        await store.save(record_of(response_id, parent), owner="somebody")
        say("kept", f"{response_id} {parent}")
        parent, turn = response_id, turn + 1


async def main(directory: str, round_number: str) -> None:
    store = open_store(f"disk:{directory}")
    await asyncio.gather(*(converse(store, f"{round_number} {n}") for n in range(8)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

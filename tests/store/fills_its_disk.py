"""Saves records until files may not grow further, then gets room again. argv: the store's directory."""

import asyncio
import os
import resource
import sys

from rejoinder.store import Record, Store, StoreError, open_store


def record_of(n: int) -> Record:
    response_id = f"resp_{n}"
    noise = os.urandom(20_000).hex().encode()
    item = b'{"id":"msg_%d","text":"%s"}' % (n, noise)
    return Record(response_id, None, 1, "completed", b'{"output":[%s]}' % item, [], [item])


async def save_until_full(store: Store) -> int:
    for n in range(1000):
        try:
            await store.save(record_of(n), owner="somebody")
        except StoreError as exc:
            print("refused:", exc)
            return n
    raise SystemExit("the limit was never met")


async def main(directory: str) -> None:
    store = open_store(f"disk:{directory}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    full_at = await save_until_full(store)
    for n in range(full_at):
        assert (await store.get(f"resp_{n}", owner="somebody")).status == "completed"
    try:
        await store.probe()
    except StoreError as exc:
        print("probe:", exc)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.probe()
    await store.save(record_of(full_at), owner="somebody")
    await store.close()
    again = open_store(f"disk:{directory}")
    for n in range(full_at + 1):
        assert len((await again.get(f"resp_{n}", owner="somebody")).output) == 1
    await again.close()
    print("kept:", full_at + 1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

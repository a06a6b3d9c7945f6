"""Fills the file system it is given, and deletes there. argv: the store's directory, the only thing on its disk."""

import asyncio
import sys
from pathlib import Path

from rejoinder.store import StoreError, open_store
from tests.mounts import fill
from tests.store.fills_its_disk import record_of

OWNER = "somebody"


async def main(directory: Path) -> None:
    filler, ballast = directory.parent / "filler", directory / "ballast"
    store = open_store(f"disk:{directory}")
    await store.probe()  # a server does when it starts
    for n in range(6):
        await store.save(record_of(n), owner=OWNER)
    fill(filler)

    for n in (0, 1):  # the second has what is left of the room
        await store.delete(f"resp_{n}", owner=OWNER)
        assert not ballast.exists()
    fill(filler)
    try:
        await store.delete("resp_2", owner=OWNER)
    except StoreError as exc:
        print("no room left:", exc)
    await store.close()

    filler.unlink()
    store = open_store(f"disk:{directory}")
    await store.probe()
    # So much that the log begins again at its start: then it has room, and the database behind it has none.
    for n in range(6, 200):
        await store.save(record_of(n), owner=OWNER)
    fill(filler)
    await store.delete("resp_3", owner=OWNER)
    assert not ballast.exists()
    for n in range(6, 200):
        await store.delete(f"resp_{n}", owner=OWNER)
    await store.close()

    filler.unlink()
    store = open_store(f"disk:{directory}")
    await store.probe()
    await store.close()
    assert ballast.stat().st_size == 4 * 2**20
    fill(filler)
    store = open_store(f"disk:{directory}")  # opening writes, too
    await store.delete("resp_4", owner=OWNER)
    await store.close()

    filler.unlink()
    store = open_store(f"disk:{directory}")
    await store.probe()
    print("kept:", [record.id async for _, _, record in store.records() if record])
    print("ballast:", ballast.stat().st_size)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

"""reliability.md F11: whoever is told "kept" finds it after a kill, and finds it whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rejoinder.store import Missing, Store, open_store
from tests.store.writes_until_killed import record_of

PROGRAM = Path(__file__).parent / "writes_until_killed.py"
KILLS = int(os.environ.get("REJOINDER_KILLS", "5"))

Said = dict[str, str | None]


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_and_nothing_is_torn_by_kills(tmp_path: Path) -> None:
    kept: Said = {}
    begun: Said = {}
    for round_number in range(KILLS):
        kept_now, begun_now = killed(tmp_path / "store", round_number, after=0.1 + round_number % 7 * 0.03)
        kept |= kept_now
        begun |= begun_now
    store = open_store(f"disk:{tmp_path / 'store'}")
    for response_id, parent in begun.items():
        try:
            await expect_whole(store, response_id, parent)
        except Missing:
            assert response_id not in kept
    await store.close()


async def expect_whole(store: Store, response_id: str, parent: str | None) -> None:
    expected = record_of(response_id, parent)
    record = await store.get(response_id, owner="somebody")
    assert (record.response, record.input, record.output) == (expected.response, expected.input, expected.output)
    lineage = await store.lineage(response_id, owner="somebody")
    assert [record.id for record in lineage[-2:]] == [parent, response_id][parent is None :]
    assert await store.find_item(f"from_a_client_{response_id}", owner="somebody") == expected.input[0]


def killed(directory: Path, round_number: int, *, after: float) -> tuple[Said, Said]:
    """What one writer said before it was killed, `after` seconds after it first kept something: kept, begun."""
    command = [sys.executable, str(PROGRAM), str(directory), str(round_number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        while not lines[-1].startswith("kept"):
            assert lines[-1], "it ended before it kept anything"
            lines.append(writer.stdout.readline())
        time.sleep(after)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    said: dict[str, Said] = {"kept": {}, "begun": {}}
    for line in lines:
        verb, response_id, parent = line.split()
        said[verb][response_id] = None if parent == "None" else parent
    return said["kept"], said["begun"]

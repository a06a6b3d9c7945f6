import asyncio
import json
import os
import re
import sqlite3
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rejoinder.server.cli import cli
from rejoinder.store import Change, Conversations, Record, Store, items_of, keys, open_store, runs
from tests.live import LiveServer, LiveUpstream, running

DAY = 86400
NOW = time.time()
OURS = keys.tenant_of("local")


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith(("REJOINDER_", "OLLAMA_")):
            monkeypatch.delenv(name)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["store", *arguments], catch_exceptions=False)


def keep(work: Callable[[Store], Awaitable[object]], *, at: float = NOW, ttl: float | None = None) -> None:
    """Do something to the store that the commands look into, as a server would at that time."""

    async def kept() -> None:
        store = open_store("disk:./rejoinder-data", ttl=ttl)
        store._clock = lambda: at
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(kept())


def turn(name: str, parent: str | None = None, status: str = "completed") -> Record:
    home = None if parent is None else f"resp_{parent}"
    item, answer = (b'{"id": "%s_%s"}' % (kind, name.encode()) for kind in (b"in", b"out"))
    response = b'{"id": "resp_%s", "output": [%s]}' % (name.encode(), answer)
    return Record(f"resp_{name}", home, 1_700_000_000, status, response, [item], [answer], "m", "u")


async def one_of_everything(store: Store) -> None:
    await store.save(turn("1"), owner="local")
    await store.save(turn("2", "1"), owner="local")
    await store.delete("resp_1", owner="local")
    await store.save(turn("3"), owner="alice")
    items = items_of("resp_4", parent=None, created_at=5, input=[b'{"id": "client"}'], added=b"")
    await Conversations(store).create("conv_1", owner="alice", created_at=5, metadata={}, items=items)
    await Conversations(store).append("conv_1", turn("5", "4"), owner="alice")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def ids(text: str) -> list[str]:
    return [one["id"].removeprefix("resp_") for one in objects(text)]


COMMANDS = ("stats", "verify", "prune", "export")


def test_help_says_what_a_stranger_has_to_know() -> None:
    told = run("--help").output
    assert "--store, REJOINDER_STORE or `store` in [server]" in re.sub(r"\s+", " ", told)
    for command in COMMANDS:
        assert command in told
        told_more = run(command, "--help").output
        for option in ("--config FILE", "--store URL"):
            assert option in told_more
    assert "exit status is 0" in re.sub(r"\s+", " ", run("verify", "--help").output)
    assert "response the Response object" in re.sub(r"\s+", " ", run("export", "--help").output)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_that_is_not_there_is_not_made(command: str, tmp_path: Path) -> None:
    told = run(command)
    assert told.exit_code == 2
    assert told.stderr == (
        f"Error: there is no store in '{tmp_path / 'rejoinder-data'}'; a server makes it when it starts\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert run(command, "--store", "floppy:a").stderr.startswith("Error: expected a store like 'disk:…', got")


def test_the_place_comes_from_the_settings(tmp_path: Path) -> None:
    keep(one_of_everything)
    (tmp_path / "rejoinder-data").rename(tmp_path / "elsewhere")
    Path("other.toml").write_text('[server]\nstore = "disk:./elsewhere"\n', encoding="utf-8")
    for place in (("--config", "other.toml"), ("--store", "disk:./elsewhere")):
        assert f"'{tmp_path / 'elsewhere'}'" in run("stats", *place).output
    Path("other.toml").write_text("[server]\nstroe = 1\n", encoding="utf-8")
    assert run("stats", "--config", "other.toml").exit_code == 2


def test_stats_are_a_table_for_people(tmp_path: Path) -> None:
    keep(one_of_everything)
    told = run("stats")
    assert told.exit_code == 0
    first, _, head, *lines = told.output.splitlines()
    assert first == f"the store in '{tmp_path / 'rejoinder-data'}'"
    assert head.split() == ["rows", "size"]
    assert {line[:40].strip(): line[40:50].strip() for line in lines[: lines.index("")]} == {
        "responses": "3",
        "deleted responses that others build on": "1",
        "items put into conversations": "1",
        "conversations": "1",
        "bookkeeping": "10",
    }
    assert lines[-5:-1] == [
        "owners             2",
        "oldest response    2023-11-14 22:13:20 UTC",
        "newest response    2023-11-14 22:13:20 UTC",
        "expired            0",
    ]
    assert re.fullmatch(r"files              cache\.db [0-9.]+ KiB, lock [0-9] B", lines[-1])


def test_stats_are_an_object_for_programs(tmp_path: Path) -> None:
    keep(one_of_everything, ttl=DAY, at=NOW - 2 * DAY)
    [told] = objects(run("stats", "--json").output)
    assert told["location"] == str(tmp_path / "rejoinder-data")
    assert told["kinds"]["deleted_responses_that_others_build_on"]["rows"] == 1
    assert told["kinds"]["stream_pieces"] == {"rows": 0, "bytes": 0}
    assert told["kinds"]["responses"]["bytes"] > 100
    assert (told["owners"], told["oldest"], told["newest"], told["expired"]) == (2, 1_700_000_000, 1_700_000_000, 3)
    assert told["files"]["cache.db"] == (tmp_path / "rejoinder-data" / "cache.db").stat().st_size


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    keep(lambda store: store.save(turn("1"), owner="o"))
    assert "oldest response    2023" in run("stats").output
    with open("rejoinder-data/large", "wb") as file:
        for size, told in ((3 * 2**20, "3.0 MiB"), (5 * 2**30, "5.0 GiB")):
            file.truncate(size)
            assert f"large {told}" in run("stats").output


def test_an_empty_store_has_no_oldest_response() -> None:
    keep(lambda store: store.probe())
    assert "oldest response    -\n" in run("stats").output


def test_a_whole_store_is_verified() -> None:
    keep(one_of_everything)
    told = run("verify")
    assert (told.exit_code, told.stdout) == (0, f"16 rows in '{Path.cwd()}/rejoinder-data': nothing is wrong\n")


def test_damage_is_named_with_what_it_breaks_and_whose_it_is() -> None:
    keep(one_of_everything)
    theirs = keys.tenant_of("alice")

    async def damage(store: Store) -> None:
        gone = [keys.children(OURS, "resp_1")]
        await store.backend.commit(Change({keys.living(theirs, "resp_3"): b"\x00damaged"}, gone))

    keep(damage)
    told = run("verify")
    assert told.exit_code == 1
    assert sorted(told.stdout.splitlines()) == [
        f"15 rows in '{Path.cwd()}/rejoinder-data': 2 damages",
        f"owner {theirs[:8]}: 'response/resp_3' cannot be read: the checksum does not match; it and whatever continues "
        "it are answered with an error",
        "owner local: 'children/resp_1' says 0, and 1 build on it; deleting one of them can take the history of the "
        "others",
    ]
    assert theirs[:9] not in told.output


def test_a_damaged_file_is_damage_of_nobody() -> None:
    keep(one_of_everything)
    with closing(sqlite3.connect("rejoinder-data/cache.db", isolation_level=None)) as connection:
        connection.execute("UPDATE Cache SET expire_time = 1 WHERE key LIKE '%/children/resp_1'")
    told = run("verify")
    assert told.exit_code == 1
    assert "\nowner" not in told.output
    assert told.output.startswith("SQLite says: 1 rows are not written as ours are; rows may be lost or not found\n")


def test_a_store_that_cannot_be_read_at_all_cannot_be_verified() -> None:
    Path("rejoinder-data").mkdir()
    Path("rejoinder-data/cache.db").write_bytes(b"not a database" * 1000)
    told = run("verify")
    assert told.exit_code == 2
    assert "file is not a database" in told.stderr


async def four_expired(store: Store) -> None:
    for name in ("1", "3", "4"):
        await store.save(turn(name), owner="local")
    await store.save(turn("2", "1"), owner="local")
    for number, at in enumerate((NOW - 2 * DAY, NOW - 5)):
        await store.backend.commit(runs.once(f"{number}", runs.Once(b"d", "resp_1", int(at)), was=None, owner="local"))


def test_prune_removes_what_expired_more_than_a_day_ago() -> None:
    keep(four_expired, ttl=10 * DAY, at=NOW - 12 * DAY)
    keep(lambda store: store.save(turn("5"), owner="local"), ttl=DAY / 2, at=NOW - DAY)
    keep(lambda store: store.save(turn("6"), owner="local"))
    assert run("prune", "--dry-run").output == "would remove 4 of 6 responses and 1 idempotency keys\n"
    assert run("prune", "--dry-run", "--now").output == "would remove 5 of 6 responses and 1 idempotency keys\n"
    assert run("prune").output == "removed 4 responses and 1 idempotency keys\n"
    assert run("prune").output == "removed 0 responses and 0 idempotency keys\n"
    assert run("prune", "--now").output == "removed 1 responses and 0 idempotency keys\n"
    assert ids(run("export").stdout) == ["6"]
    assert run("verify").exit_code == 0


def test_a_response_is_exported_with_all_it_builds_on() -> None:
    keep(one_of_everything)
    told = run("export", "resp_2")
    assert told.exit_code == 0
    assert told.stderr == "2 records\n"
    assert ids(told.stdout) == ["1", "2"]
    assert [(one["owner"], one.get("deleted", False)) for one in objects(told.stdout)] == [
        ("local", True),
        ("local", False),
    ]
    assert b'"input":[{"id": "in_2"}],"output":[{"id": "out_2"}],"response":{"id": "resp_2",' in told.stdout_bytes


def test_a_conversation_is_exported() -> None:
    keep(one_of_everything)
    told = run("export", "--conversation", "conv_1")
    assert ids(told.stdout) == ["4", "5"]
    assert {one["owner"] for one in objects(told.stdout)} == {keys.tenant_of("alice")}
    assert {one["owner"] for one in objects(run("export", "resp_5", "--owner", "alice").stdout)} == {"alice"}


def test_everything_is_exported_of_everybody_or_of_one() -> None:
    keep(one_of_everything)
    Path("rejoinder.toml").write_text(f'[[key]]\nowner = "alice"\nsha256 = "{"a" * 64}"\n', encoding="utf-8")
    told = run("export").stdout
    assert sorted(ids(told)) == ["1", "2", "3", "4", "5"]
    assert {one["owner"] for one in objects(told)} == {"local", "alice"}
    assert sorted(ids(run("export", "--owner", "alice").stdout)) == ["3", "4", "5"]
    nobody = run("export", "--owner", "bob")
    assert (nobody.exit_code, nobody.stdout, nobody.stderr) == (0, "", "0 records\n")


def test_what_is_not_there_is_not_exported() -> None:
    keep(one_of_everything)
    for arguments, error in (
        (("resp_9",), "there is no response 'resp_9' in "),
        (("--conversation", "conv_9"), "there is no conversation 'conv_9' in "),
        (("resp_3", "--owner", "bob"), "no response 'resp_3'"),
        (("--conversation", "conv_1", "--owner", "bob"), "no conversation 'conv_1'"),
        (("resp_1", "--conversation", "conv_1"), "name a response or a conversation, not both"),
    ):
        told = run("export", *arguments)
        assert (told.exit_code, told.stdout) == (2, "")
        assert told.stderr.startswith(f"Error: {error}")


def test_an_id_of_several_owners_needs_one_of_them() -> None:
    keep(one_of_everything)
    keep(lambda store: store.save(turn("2"), owner="alice"))
    told = run("export", "resp_2")
    assert (told.exit_code, told.stderr) == (
        2,
        "Error: 2 owners have a response 'resp_2'; say whose with --owner NAME\n",
    )
    assert ids(run("export", "resp_2", "--owner", "alice").stdout) == ["2"]


def test_an_export_goes_into_a_new_file_for_this_user_alone() -> None:
    keep(one_of_everything)
    before = os.umask(0)
    try:
        told = run("export", "--output", "all.jsonl")
    finally:
        os.umask(before)
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "5 records\n")
    assert Path("all.jsonl").stat().st_mode & 0o777 == 0o600
    assert sorted(ids(Path("all.jsonl").read_text(encoding="utf-8"))) == ["1", "2", "3", "4", "5"]
    again = run("export", "--output", "all.jsonl")
    assert (again.exit_code, again.stderr) == (2, "Error: cannot make 'all.jsonl': File exists\n")
    assert run("export", "--store", "disk:./nowhere", "--output", "never.jsonl").exit_code == 2
    assert not Path("never.jsonl").exists()


def test_what_cannot_be_read_is_named_and_the_rest_exported() -> None:
    keep(one_of_everything)
    keep(lambda store: store.backend.commit(Change({keys.living(OURS, "resp_2"): b"\x00damaged"})))
    told = run("export")
    assert told.exit_code == 1
    assert sorted(ids(told.stdout)) == ["1", "3", "4", "5"]
    assert told.stderr == (
        "'response/resp_2' cannot be read: the checksum does not match\n4 records, and 1 that cannot be read\n"
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with running(
        tmp_path, upstreams=[LiveUpstream(dialect="demo", models=["demo"])], store="disk:./rejoinder-data"
    ) as live:
        yield live


def ask(server: LiveServer, **fields: str) -> str:
    body = json.dumps({"model": "demo", "input": "hello", **fields}).encode()
    request = urllib.request.Request(f"{server.base_url}/responses", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: str = json.load(answer)["id"]
        return found


@pytest.mark.slow
def test_all_but_prune_work_beside_a_server_after_it_and_after_its_death(server: LiveServer) -> None:
    first = ask(server)
    second = ask(server, previous_response_id=first)

    def look(rows: int = 2) -> None:
        [told] = objects(run("stats", "--json").output)
        assert told["kinds"]["responses"]["rows"] == rows
        assert run("verify").exit_code == 0
        assert [one["id"] for one in objects(run("export", second).stdout)] == [first, second]
        assert run("prune", "--dry-run").output.startswith(f"would remove 0 of {rows} responses")

    look()
    refused = run("prune")
    assert refused.exit_code == 2
    assert f"is open in another server, process {server.pid}; it removes expired responses itself" in refused.stderr
    server.kill9()
    look()
    server.start()
    ask(server)
    look(3)
    server.terminate()
    look(3)
    assert run("prune").exit_code == 0
    server.start()

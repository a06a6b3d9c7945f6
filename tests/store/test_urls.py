from pathlib import Path

import pytest

from rejoinder.store import StoreError, open_store
from rejoinder.store.reading import ReadingBackend


async def test_a_disk_url_names_a_directory(tmp_path: Path) -> None:
    store = open_store(f"disk:{tmp_path / 'here'}")
    assert store.location == tmp_path / "here"
    await store.probe()
    await store.close()


async def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("disk:./deep/er")
    assert store.location == tmp_path / "deep" / "er"
    await store.close()


async def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store("disk:~/kept")
    assert store.location == tmp_path / "kept"
    await store.close()


async def test_a_store_can_be_opened_for_reading_where_there_is_one(tmp_path: Path) -> None:
    url = f"disk:{tmp_path / 'here'}"
    with pytest.raises(StoreError, match="there is no store in"):
        open_store(url, read_only=True)
    store = open_store(url)
    reading = open_store(url, read_only=True)
    assert isinstance(reading.backend, ReadingBackend)
    await reading.close()
    await store.close()


@pytest.mark.parametrize("url", ["", "disk", "disk:", "floppy:./a", "./a", "DISK:./a"])
def test_any_other_url_is_refused_with_what_is_known(url: str) -> None:
    with pytest.raises(StoreError, match="expected a store like 'disk:…', got"):
        open_store(url)

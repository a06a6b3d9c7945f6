import os
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.server import codex
from rejoinder.server.codex import CodexError, Written, catalogue, profile_entry, provider_entry, write

URL = "http://127.0.0.1:8080/v1"
OPEN = {
    "name": "Rejoinder",
    "base_url": URL,
    "model_catalog_url": f"{URL}/models",
    "wire_api": "responses",
    "supports_websockets": True,
    "experimental_bearer_token": "none",
}


def edit(
    folder: Path, *, model: str = "demo", keyed: bool = False, websocket: bool = True, serves: bool = True
) -> Written:
    path = folder / "config.toml"
    return write(path, URL, model=model, keyed=keyed, websocket=websocket, serves=lambda _: serves)


def put(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_bytes(text.encode())
    return path


def entry(folder: Path) -> object:
    return tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))["model_providers"]["rejoinder"]


def test_an_entry_of_the_catalogue_has_every_field_codex_requires() -> None:
    [entry] = msgspec.json.decode(msgspec.json.encode(catalogue(["m"])))
    for required in (
        *("slug", "display_name", "supported_reasoning_levels", "shell_type", "visibility", "supported_in_api"),
        *("priority", "support_verbosity", "truncation_policy", "experimental_supported_tools", "base_instructions"),
    ):
        assert required in entry
    assert (entry["slug"], entry["shell_type"], entry["apply_patch_tool_type"]) == ("m", "unified_exec", "freeform")
    assert entry["supported_reasoning_levels"][0] == {"effort": "low", "description": "Answers soonest"}
    assert entry["truncation_policy"] == {"mode": "tokens", "limit": 10_000}
    assert "default_reasoning_level" not in entry


def test_the_catalogue_keeps_the_order_of_the_models_as_their_priority() -> None:
    assert [(entry.slug, entry.priority) for entry in catalogue(["b", "a"])] == [("b", 1), ("a", 2)]
    assert catalogue([]) == ()


def test_the_entries_to_paste_are_those_that_are_written(tmp_path: Path) -> None:
    written = edit(tmp_path)
    assert written.config.read_text(encoding="utf-8") == provider_entry(URL, keyed=False, websocket=True)
    assert written.profile.read_text(encoding="utf-8") == profile_entry("demo")


def test_a_server_without_keys_gets_a_placeholder_and_one_with_keys_a_variable() -> None:
    assert tomllib.loads(provider_entry(URL, keyed=False, websocket=True)) == {"model_providers": {"rejoinder": OPEN}}
    keyed = tomllib.loads(provider_entry(URL, keyed=True, websocket=True))["model_providers"]["rejoinder"]
    assert keyed["env_key"] == "REJOINDER_API_KEY"
    assert "experimental_bearer_token" not in keyed


def test_the_transport_is_the_one_the_server_takes_and_later_the_one_its_user_chose(tmp_path: Path) -> None:
    assert "supports_websockets = false" in provider_entry(URL, keyed=False, websocket=False)
    edit(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("supports_websockets = true", "supports_websockets = false")
    )
    assert not edit(tmp_path).changed
    assert entry(tmp_path) == {**OPEN, "supports_websockets": False}


@given(st.text())
def test_a_model_of_any_name_survives_the_profile(model: str) -> None:
    if "\x7f" not in model:
        assert tomllib.loads(profile_entry(model))["model"] == model


def test_missing_files_and_folders_are_made_for_their_owner_only(tmp_path: Path) -> None:
    written = edit(tmp_path / "home" / ".codex")
    assert written.changed
    assert entry(tmp_path / "home" / ".codex") == OPEN
    assert tomllib.loads(written.profile.read_text(encoding="utf-8")) == {
        "model_provider": "rejoinder",
        "model": "demo",
    }
    assert (tmp_path / "home" / ".codex").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (written.config, written.profile)} == {0o600}


CONFIGS = [
    "",
    "# mine\nmodel = 'gpt-6.1-sol' # keep\n",
    "[tui]\nx = 1\n# no end of line",
    "a = 1\r\n[b]\r\nc = 2\r\n",
    "[model_providers.a]\nname = 'A'\n\n[other]\nx = 1\n",
    "[model_providers]\n[model_providers.a]\nname = 'A' # c\n[mcp_servers.x]\nx = 1\n[model_providers.b]\nx = 1",
    "model_providers.a.name = 'A'\n\n[z]\nq = 1\n",
    "[[array]]\nx = 1\n[[array]]\nx = 2\n",
]


@pytest.mark.parametrize("text", CONFIGS)
def test_every_byte_that_was_there_stays_and_the_entry_follows(tmp_path: Path, text: str) -> None:
    path = put(tmp_path, text)
    assert edit(tmp_path).changed
    assert path.read_bytes().startswith(text.encode())
    assert entry(tmp_path) == OPEN
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n") or "\r" not in text


@pytest.mark.parametrize("text", CONFIGS)
@pytest.mark.parametrize("keyed", [False, True])
def test_doing_it_twice_is_doing_it_once(tmp_path: Path, text: str, keyed: bool) -> None:
    path = put(tmp_path, text)
    edit(tmp_path, keyed=keyed)
    once = [(file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in sorted(tmp_path.iterdir())]
    assert edit(tmp_path, keyed=keyed) == Written(path, tmp_path / "rejoinder.config.toml", changed=False)
    twice = [(file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in sorted(tmp_path.iterdir())]
    assert once == twice


def test_an_entry_that_is_there_is_brought_up_to_date_and_keeps_what_the_user_added(tmp_path: Path) -> None:
    before = "model = 'x'\n[model_providers.rejoinder]\nname = 'Old'  # mine\nstream_max_retries = 3\nenv_key = 'K'\n\n"
    after = "[model_providers.rejoinder.http_headers]\nX-A = '1'\n[tools]\na = true\n"
    path = put(tmp_path, before + after)
    edit(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert entry(tmp_path) == OPEN | {"stream_max_retries": 3, "http_headers": {"X-A": "1"}}
    assert text.startswith("model = 'x'\n[model_providers.rejoinder]\nname = \"Rejoinder\"  # mine\nstream_max_ret")
    assert text.endswith(after)


def test_a_server_that_got_keys_changes_how_codex_is_let_in(tmp_path: Path) -> None:
    edit(tmp_path)
    assert edit(tmp_path, keyed=True).changed
    keyed = entry(tmp_path)
    assert isinstance(keyed, dict)
    assert keyed["env_key"] == "REJOINDER_API_KEY"
    assert "experimental_bearer_token" not in keyed


def test_the_profile_keeps_the_users_settings_and_a_model_the_server_serves(tmp_path: Path) -> None:
    profile = tmp_path / "rejoinder.config.toml"
    profile.write_text("model = 'mine'\nmodel_reasoning_effort = 'low'\n[tui]\nx = 1\n", encoding="utf-8")
    edit(tmp_path)
    assert tomllib.loads(profile.read_text(encoding="utf-8")) == {
        "model": "mine",
        "model_reasoning_effort": "low",
        "model_provider": "rejoinder",
        "tui": {"x": 1},
    }
    edit(tmp_path, serves=False)
    assert tomllib.loads(profile.read_text(encoding="utf-8"))["model"] == "demo"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_mode_of_a_file_is_kept(tmp_path: Path, mode: int) -> None:
    path = put(tmp_path, "a = 1\n")
    path.chmod(mode)
    edit(tmp_path)
    assert path.stat().st_mode & 0o777 == mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("a = 1\n", encoding="utf-8")
    (tmp_path / "config.toml").symlink_to(real)
    edit(tmp_path)
    assert (tmp_path / "config.toml").is_symlink()
    assert "model_providers" in real.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = ", "expected TOML"),
        ("profile = 'rejoinder'", "older form"),
        ("[profiles.rejoinder]\nmodel = 'x'", "older form"),
        ("model_providers = 3", "cannot be edited safely; paste the entry by hand"),
        ("model_providers = { a = { name = 'A' } }", "cannot be edited safely; paste the entry by hand"),
        ("[model_providers]\nrejoinder = 3", "expected [model_providers.rejoinder] to be a table"),
    ],
)
def test_what_cannot_be_edited_safely_is_refused_and_nothing_is_written(tmp_path: Path, text: str, told: str) -> None:
    path = put(tmp_path, text)
    with pytest.raises(CodexError) as caught:
        edit(tmp_path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_profile_that_cannot_be_edited_leaves_the_config_alone(tmp_path: Path) -> None:
    (tmp_path / "rejoinder.config.toml").write_text("a = ", encoding="utf-8")
    with pytest.raises(CodexError, match=r"rejoinder\.config\.toml: expected TOML"):
        edit(tmp_path)
    assert not (tmp_path / "config.toml").exists()


def test_profiles_and_settings_of_others_are_no_obstacle(tmp_path: Path) -> None:
    put(tmp_path, "profile = 'work'\n[profiles.work]\nmodel = 'x'\n")
    assert edit(tmp_path).changed


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(CodexError, match="cannot be read: Is a directory"):
        edit(tmp_path)
    (tmp_path / "config.toml").rmdir()
    (tmp_path / "config.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(CodexError, match="expected UTF-8"):
        edit(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "a = 1\n")

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        edit(tmp_path)
    assert path.read_text(encoding="utf-8") == "a = 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_placeholder_is_no_secret() -> None:
    assert codex.PLACEHOLDER == "none"

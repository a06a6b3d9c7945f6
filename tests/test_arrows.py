"""The arrows between the packages, executed: `wire ← bridge ← server → store` (style.md, The tree)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "bridge/rejoinder/wire": {"wire"},
    "bridge/rejoinder/bridge": {"wire", "bridge"},
    "store/rejoinder/store": {"store"},
    "server/rejoinder/server": {"wire", "bridge", "store", "server"},
    "conformance/rejoinder/conformance": {"conformance"},
}

IO = {"aiohttp", "anyio", "asyncio", "diskcache", "httpx", "os", "select", "socket", "ssl", "starlette", "threading"}
"""What a sans-IO package has no business with. `time` is missing on purpose, see `test_time_and_ids_are_handed_in`."""


def modules(folder: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path, ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_package_imports_only_what_its_arrows_allow(folder: str) -> None:
    found = [
        (path.name, name)
        for path, tree in modules(folder)
        for name in imports(tree)
        if name.startswith("rejoinder.") and name.split(".")[1] not in MAY_IMPORT[folder]
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["bridge/rejoinder/wire", "bridge/rejoinder/bridge"])
def test_wire_and_bridge_do_no_io(folder: str) -> None:
    found = [(path.name, name) for path, tree in modules(folder) for name in imports(tree) if name.split(".")[0] in IO]
    # The seal's nonces come from os.urandom unless a test hands in its own.
    assert found == ([("envelope.py", "os")] if folder.endswith("/bridge") else [])


def test_time_and_ids_are_handed_in() -> None:
    found = [
        (path.name, name)
        for folder in ("bridge/rejoinder/wire", "bridge/rejoinder/bridge")
        for path, tree in modules(folder)
        for name in imports(tree)
        if name.split(".")[0] in {"time", "datetime", "uuid", "secrets", "random"}
    ]
    # A retry-after given as a date means nothing without today's.
    assert found == [("rejection.py", "time")]


def test_the_namespace_has_no_init_of_its_own() -> None:
    assert [str(path) for path in ROOT.glob("*/rejoinder/__init__.py")] == []


def test_no_provider_is_named_outside_the_vendor_table_and_the_dialects() -> None:
    """Only adapters know providers (lessons.md S-001); comments and docstrings may explain, code may not decide."""
    names = ("deepseek", "mistral", "openrouter", "groq", "anthropic", "gemini", "moonshot", "ollama")
    free = {"vendors.py", "settings.py", "banner.py", "cli.py"}
    found = [
        (path.name, node.value)
        for folder in ("server/rejoinder/server", "bridge/rejoinder/wire", "store/rejoinder/store")
        for path, tree in modules(folder)
        if path.name not in free
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in names
    ]
    assert found == []


@pytest.mark.alone
def test_importing_the_whole_server_is_quick() -> None:
    # On a slow machine, what the server is built on may take most of the time.
    libraries = (
        "aiohttp, anyio, cryptography.hazmat.primitives.ciphers.aead, diskcache, httptools, msgspec, sse_starlette, "
        "starlette.routing, structlog, tomlkit, uvicorn, zstandard"
    )
    # structlog imports `rich` where it is there, which only a tool of these tests brings along.
    code = (
        "import sys, time; sys.modules['rich'] = None; begun = time.perf_counter(); "
        f"import {libraries}; built_on = time.perf_counter() - begun; "
        "import rejoinder.server.serving; print(built_on, time.perf_counter() - begun)"
    )
    measured = [
        [
            float(word)
            for word in subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout.split()
        ]
        for _ in range(3)
    ]
    assert any(whole < max(0.4, 2 * built_on) for built_on, whole in measured), measured


def test_nothing_unpickles_or_evaluates() -> None:
    """reliability.md S12."""
    banned = {"pickle", "marshal", "shelve", "yaml", "jinja2"}
    found = [
        (path.name, name)
        for folder in MAY_IMPORT
        for path, tree in modules(folder)
        for name in imports(tree)
        if name.split(".")[0] in banned
    ]
    calls = [
        (path.name, node.func.id)
        for folder in MAY_IMPORT
        for path, tree in modules(folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}
    ]
    assert (found, calls) == ([], [])

"""A small disk of its own for a program, where this user may have one: a full disk is nothing to pretend."""

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'


def with_disk(place: Path, size: int, program: Sequence[str]) -> list[str]:
    """The command that runs `program` where `place` is an empty disk of `size` bytes; nobody else sees that."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, str(size), str(place), *program]


def fill(path: Path) -> None:
    """Leaves nobody else on that disk a byte."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(path).free == 0


def _is_possible() -> bool:
    command = with_disk(Path("/tmp"), 4096, ["true"])
    return (
        shutil.which("unshare") is not None and not subprocess.run(command, capture_output=True, check=False).returncode
    )


needs_mounts = pytest.mark.skipif(not _is_possible(), reason="this user may not mount a file system here")

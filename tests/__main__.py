"""Everything CI checks, in the order in which it fails fastest: format, lint, types, tests with branch coverage.

`python -m tests --fix` formats and mends first; other arguments go to pytest, and then only pytest runs.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODEX = ROOT / "tests" / "clients" / "node_modules" / ".bin" / "codex"
SOURCES = ("bridge", "store", "server", "conformance", "tests")
COVERED = ("coverage", "run", "-m", "pytest", "-q")
TWO = ("-n", "2", "--dist", "loadfile", "--durations=10")
MINIMUM = 99
"""Per cent of branches and lines over everything; each module's own test file is expected to cover it wholly."""


def main(arguments: list[str]) -> int:
    os.chdir(ROOT)
    os.environ.setdefault("REJOINDER_CODEX", str(CODEX))
    if arguments == ["--fix"]:
        return run("ruff", "format", *SOURCES) or run("ruff", "check", "--fix", *SOURCES)
    if arguments:
        return run("pytest", *arguments)
    return (
        run("ruff", "format", "--check", *SOURCES)
        or run("ruff", "check", *SOURCES)
        or run("mypy")
        or run("pytest", "-q", *TWO, "-m", "recorded", "tests/bridge")
        or run("coverage", "erase")
        or run(*COVERED, *TWO, "-m", "not alone and not recorded")
        or run(*COVERED, "-m", "alone")
        or run("coverage", "combine", "--quiet")
        or run("coverage", "report", f"--fail-under={MINIMUM}")
    )


def run(module: str, *arguments: str) -> int:
    print(f"== {module} {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    status = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    print(
        f"== {module}: {'ok' if status == 0 else f'failed ({status})'} in {time.monotonic() - started:.1f} s",
        flush=True,
    )
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

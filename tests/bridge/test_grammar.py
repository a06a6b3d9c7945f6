"""Texts and the grammars they are to match; the judge of event streams is another file of the same name."""

import subprocess
import sys

import pytest

from rejoinder.bridge import grammar
from rejoinder.bridge.grammar import flaw, mismatch
from rejoinder.wire.tools import Grammar

PATCH = r"""
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"""
"""The shape of what Codex declares for its free-form patches (codex.md §4)."""

LARK = Grammar("grammar", "lark", PATCH)
REGEX = Grammar("grammar", "regex", r"\d{4}-\d{2}")

GOOD = "*** Begin Patch\n*** Add File: a.py\n+print('é')\n*** Update File: b.py\n@@ def f\n-x\n+y\n*** End Patch\n"


def test_a_text_that_matches_has_nothing_wrong() -> None:
    assert mismatch(LARK, GOOD) is None
    assert mismatch(LARK, GOOD.rstrip("\n")) is None
    assert mismatch(REGEX, "2026-11") is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "it ends before the grammar does"),
        ("*** Begin Patch\n", "it ends before the grammar does"),
        ("hello", "line 1 leaves the grammar at 'hello'"),
        ("*** Begin Patch\n*** Add File: é.py\noops\n", "line 3 leaves the grammar at 'oops'"),
        (GOOD + "more", "line 9 leaves the grammar at 'more'"),
        ("*** Begin Patch\n" + "x" * 300, f"line 2 leaves the grammar at {'x' * 80!r}"),
    ],
)
def test_a_text_that_leaves_its_grammar_is_told_where(text: str, wrong: str) -> None:
    assert mismatch(LARK, text) == wrong


@pytest.mark.parametrize("text", ["2026", "2026-1x", "2026-111", "é"])
def test_a_pattern_is_matched_whole(text: str) -> None:
    assert mismatch(REGEX, text) is not None


def test_a_text_that_is_too_long_to_match_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "MAX_TEXT", 4)
    assert mismatch(REGEX, "2026-11") == "it is longer than 4 bytes, which is more than can be matched"


def test_a_grammar_that_makes_no_sense_is_told_with_the_reason() -> None:
    assert flaw(LARK) is None
    assert flaw(REGEX) is None
    assert "missing" in (flaw(Grammar("grammar", "lark", "start: missing")) or "")
    assert flaw(Grammar("grammar", "regex", "(")) is not None
    assert flaw(Grammar("grammar", "lark", None)) is not None


def test_a_pattern_made_to_take_for_ever_does_not() -> None:
    """Linear, whatever a client writes (reliability.md S13): with backtracking this would outlive the universe."""
    assert mismatch(Grammar("grammar", "regex", r"(a|a)*b"), "a" * 50_000) == "it ends before the grammar does"


def test_the_library_is_loaded_only_where_it_is_used() -> None:
    code = "import sys, rejoinder.server.app; sys.exit('llguidance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

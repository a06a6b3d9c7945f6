"""All rules, chapter by chapter."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from rejoinder.conformance import (
    about_background,
    about_codex,
    about_compaction,
    about_connections,
    about_conversations,
    about_counting,
    about_create,
    about_errors,
    about_faults,
    about_fidelity,
    about_formats,
    about_images,
    about_isolation,
    about_lanes,
    about_lineage,
    about_lists,
    about_objects,
    about_prompts,
    about_reasoning,
    about_steering,
    about_storage,
    about_streams,
    about_tools,
    about_websocket,
)
from rejoinder.conformance.errors import UnknownRule
from rejoinder.conformance.rule import Chapter, Rule

CHAPTERS: Sequence[Chapter] = [
    about_create.chapter,
    about_objects.chapter,
    about_streams.chapter,
    about_lineage.chapter,
    about_tools.chapter,
    about_formats.chapter,
    about_reasoning.chapter,
    about_images.chapter,
    about_errors.chapter,
    about_lists.chapter,
    about_storage.chapter,
    about_background.chapter,
    about_conversations.chapter,
    about_compaction.chapter,
    about_counting.chapter,
    about_isolation.chapter,
    about_fidelity.chapter,
    about_prompts.chapter,
    about_faults.chapter,
    about_websocket.chapter,
    about_connections.chapter,
    about_lanes.chapter,
    about_steering.chapter,
    about_codex.chapter,
]

RULES: Sequence[Rule] = [rule for chapter in CHAPTERS for rule in chapter]


def chosen(patterns: Iterable[str]) -> list[Rule]:
    """The rules with these ids, of these chapters, or whose ids match these globs; all of them if there are none.

    A pattern may be several with commas between them. Raises UnknownRule.
    """
    wanted = [pattern.strip() for several in patterns for pattern in several.split(",") if pattern.strip()]
    for pattern in wanted:
        if not any(_matches(rule, pattern) for rule in RULES):
            raise UnknownRule(f"expected the id of a rule, a chapter or a glob like 'streams.*', got {_told(pattern)}")
    return [rule for rule in RULES if not wanted or any(_matches(rule, pattern) for pattern in wanted)]


def _matches(rule: Rule, pattern: str) -> bool:
    return pattern == rule.chapter.name or fnmatchcase(rule.id, pattern)


def _told(pattern: str) -> str:
    """The pattern, and what it may have been meant for."""
    names = {rule.id.partition(".")[2]: rule.id for rule in RULES}
    known = [*(chapter.name for chapter in CHAPTERS), *names.values(), *names]
    close = get_close_matches(pattern, known, n=1)
    return f"{pattern!r}; did you mean {names.get(close[0], close[0])!r}?" if close else repr(pattern)

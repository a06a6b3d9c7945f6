import pytest

from rejoinder.bridge.anthropic_models import BUDGETS, FAMILIES, RESERVE, Traits, budget, level, traits_of
from rejoinder.wire.request import Effort

MODELS = {
    "claude-3-haiku-20240307": (4096, (), (), "any", False, False, True, False),
    "claude-3-opus-latest": (4096, (), (), "any", False, False, True, False),
    "claude-3-5-sonnet-20240620": (8192, (), (), "any", False, False, True, False),
    "claude-3-7-sonnet-20250219": (64_000, ("enabled", "disabled"), (), "any", False, False, True, False),
    "claude-sonnet-4-20250514": (64_000, ("enabled", "disabled"), (), "any", False, False, True, False),
    "claude-sonnet-4-0": (64_000, ("enabled", "disabled"), (), "any", False, False, True, False),
    "claude-opus-4-20250514": (32_000, ("enabled", "disabled"), (), "any", False, False, True, False),
    "claude-opus-4-1-20250805": (32_000, ("enabled", "disabled"), (), "one", False, True, True, False),
    "claude-haiku-4-5-20251001": (64_000, ("enabled", "disabled"), (), "one", False, True, True, False),
    "claude-sonnet-4-5": (64_000, ("enabled", "disabled"), (), "one", False, True, True, False),
    "claude-opus-4-5-20251101": (64_000, ("enabled", "disabled"), "lmh", "one", False, True, True, False),
    "claude-opus-4-6": (64_000, ("enabled", "adaptive", "disabled"), "lmhM", "one", False, True, True, False),
    "claude-sonnet-4-6": (64_000, ("enabled", "adaptive", "disabled"), "lmhM", "one", False, True, True, False),
    "claude-opus-4-7": (128_000, ("adaptive", "disabled"), "lmhxM", "none", False, True, True, False),
    "claude-opus-4-8": (128_000, ("adaptive", "disabled"), "lmhxM", "none", True, True, True, False),
    "claude-opus-5": (128_000, ("adaptive", "disabled"), "lmhxM", "none", True, True, True, False),
    "claude-sonnet-5-20260610": (128_000, ("adaptive", "disabled"), "lmhxM", "none", True, True, True, False),
    "claude-sonnet-5-5": (128_000, ("adaptive", "disabled"), "lmhxM", "none", True, True, False, True),
    "claude-fable-5": (128_000, ("adaptive",), "lmhxM", "none", True, True, False, False),
    "claude-fable-5-1": (128_000, ("adaptive",), "lmhxM", "none", True, True, False, True),
    "claude-mythos-5": (128_000, ("adaptive",), "lmhxM", "none", True, True, False, False),
    "claude-saga-7": (128_000, ("adaptive", "disabled"), "lmhxM", "none", True, True, False, True),
    "anthropic/claude-sonnet-4.5": (64_000, ("enabled", "disabled"), (), "one", False, True, True, False),
    "us.anthropic.claude-opus-4-1-20250805-v1:0": (
        32_000, ("enabled", "disabled"), (), "one", False, True, True, False,
    ),
    "claude-haiku-4-5@20251001": (64_000, ("enabled", "disabled"), (), "one", False, True, True, False),
    "gpt-oss:20b": (8192, ("enabled",), (), "any", False, False, True, False),
}  # fmt: skip
_LETTERS = {"low": "l", "medium": "m", "high": "h", "xhigh": "x", "max": "M"}


@pytest.mark.parametrize(("model", "expected"), MODELS.items())
def test_a_name_says_what_a_model_takes(model: str, expected: tuple[object, ...]) -> None:
    traits = traits_of(model, {})

    efforts = "".join(_LETTERS[one] for one in traits.efforts) or ()
    assert (
        traits.max_tokens, traits.thinking, efforts, traits.sampling, traits.system_messages, traits.structured,
        traits.forced_tools, traits.bound,
    ) == expected  # fmt: skip


def test_every_family_has_a_model_here() -> None:
    found = {id(traits_of(model, {})) for model in MODELS}

    assert {id(traits) for traits in FAMILIES.values()} <= found


def test_what_the_settings_say_of_a_model_comes_first() -> None:
    mine = Traits(max_tokens=7)

    assert traits_of("claude-opus-5", {"other*": Traits(), "claude-opus*": mine}) is mine


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("claude-opus-5", "xhigh", "xhigh"),
        ("claude-opus-5", "ultra", "max"),
        ("claude-opus-5", "none", "low"),
        ("claude-opus-4-6", "minimal", "low"),
        ("claude-opus-4-6", "xhigh", "max"),
        ("claude-opus-4-5", "max", "high"),
        ("claude-sonnet-4-5", "high", None),
    ],
)
def test_the_level_is_the_next_one_a_model_has(model: str, effort: Effort, expected: str | None) -> None:
    assert level(effort, traits_of(model, {})) == expected


@pytest.mark.parametrize(
    ("effort", "max_tokens", "visible", "expected"),
    [
        ("minimal", 64_000, None, 1024),
        ("low", 64_000, None, 2048),
        ("low", 3000, None, 1500),
        ("medium", 64_000, None, 8192),
        ("high", 64_000, None, 16_384),
        ("high", 8192, None, 8192 - RESERVE),
        ("xhigh", 64_000, None, 32_768),
        ("max", 64_000, None, 64_000 - RESERVE),
        ("max", 128_000, None, 64_000),
        ("minimal", 2047, None, None),
        ("minimal", 1124, 100, 1024),
        ("minimal", 1123, 100, None),
        ("minimal", 5000, 4000, 1024),
    ],
)
def test_thinking_stays_below_the_limit_and_leaves_room_or_does_not_happen(
    effort: Effort, max_tokens: int, visible: int | None, expected: int | None
) -> None:
    assert budget(effort, max_tokens, visible) == expected


def test_every_effort_but_none_has_a_budget() -> None:
    assert BUDGETS.keys() == {"minimal", "low", "medium", "high", "xhigh", "max", "ultra"}

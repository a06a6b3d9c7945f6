import pytest

from rejoinder.bridge.gemini_models import generation
from rejoinder.bridge.gemini_profile import GeminiProfile, Level

DEFAULT = GeminiProfile()
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")


@pytest.mark.parametrize(
    ("model", "budgets"),
    [
        ("gemini-2.5-flash", (0, 512, 2048, 8192, 24576, 24576, 24576, 24576)),
        ("gemini-2.5-flash-preview-09-2025", (0, 512, 2048, 8192, 24576, 24576, 24576, 24576)),
        ("gemini-2.5-flash-lite", (0, 512, 2048, 8192, 24576, 24576, 24576, 24576)),
        ("gemini-2.5-pro", (128, 512, 2048, 8192, 24576, 24576, 24576, 24576)),
    ],
)
def test_the_second_generation_thinks_in_tokens(model: str, budgets: tuple[int, ...]) -> None:
    known = generation(model, DEFAULT)

    assert known.thinking == "budget"
    assert tuple(known.budget(effort) for effort in EFFORTS) == budgets


@pytest.mark.parametrize(
    ("model", "levels"),
    [
        ("gemini-3-pro-preview", ("LOW", "LOW", "LOW", "HIGH", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("gemini-3.1-pro-preview", ("LOW", "LOW", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("gemini-3-flash-preview", ("MINIMAL", "MINIMAL", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("gemini-3.5-flash", ("MINIMAL", "MINIMAL", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("gemini-3.5-flash-lite", ("MINIMAL", "MINIMAL", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("gemini-3.7-flash", ("LOW", "LOW", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("gemini-3.9-flash-lite", ("MINIMAL", "MINIMAL", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("gemini-flash-latest", ("LOW", "LOW", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
        ("tuned-by-somebody", ("LOW", "LOW", "LOW", "MEDIUM", "HIGH", "HIGH", "HIGH", "HIGH")),
    ],
)
def test_the_third_generation_thinks_in_levels(model: str, levels: tuple[Level, ...]) -> None:
    known = generation(model, DEFAULT)

    assert known.thinking == "level"
    assert tuple(known.level(effort) for effort in EFFORTS) == levels


@pytest.mark.parametrize("model", ["gemini-2.0-flash", "gemini-1.5-pro", "gemma-3-27b-it", "gemini-2.5-flash-image"])
def test_some_models_never_think(model: str) -> None:
    assert generation(model, DEFAULT).thinking == "never"


@pytest.mark.parametrize(
    ("model", "known"),
    [
        # JSON schemas, tools of both kinds together, VALIDATED, signatures demanded
        ("gemini-2.0-flash", (False, False, False, False)),
        ("gemini-2.5-pro", (True, False, True, False)),
        ("gemini-3-flash-preview", (True, True, True, True)),
    ],
)
def test_generations_differ_in_what_they_understand(model: str, known: tuple[bool, ...]) -> None:
    found = generation(model, DEFAULT)

    assert (found.json_schema, found.mixed_tools, found.validated, found.signatures) == known


def test_what_the_profile_says_stands_above_the_table() -> None:
    profile = GeminiProfile(
        thinking="level",
        levels=("LOW", "MEDIUM", "HIGH", "XHIGH"),
        json_schema=False,
        mixed_tools=True,
        validated=False,
        signatures=True,
    )

    found = generation("gemini-2.5-pro", profile)

    assert (found.thinking, found.level("max"), found.level("none")) == ("level", "XHIGH", "LOW")
    assert (found.json_schema, found.mixed_tools, found.validated, found.signatures) == (False, True, False, True)

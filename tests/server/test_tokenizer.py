import subprocess
import sys
import time
from pathlib import Path

import pytest

from rejoinder.server.tokenizer import MAX_PIECE, Encoding, encoding_of, tokens

PANGRAM = "The quick brown fox jumps over the lazy dog."


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-5.4", "o200k_base"),
        ("o3", "o200k_base"),
        ("openai/gpt-oss-120b", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama3"),
        ("llama3.2", "llama3"),
        ("qwen3:8b", "qwen3"),
        ("deepseek-chat", "deepseek_v3"),
        ("mistral-large-latest", "mistral_v3"),
        ("a model nobody knows", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_the_vocabulary_follows_from_the_name(model: str, encoding: Encoding) -> None:
    assert encoding_of(model) == encoding


@pytest.mark.parametrize(
    ("encoding", "text", "number"),
    [
        ("o200k_base", "hello world", 2),
        ("o200k_base", PANGRAM, 10),
        ("cl100k_base", PANGRAM, 10),
        ("o200k_base", "tiktoken is great!", 6),
        ("cl100k_base", "tiktoken is great!", 6),
        ("o200k_base", "お誕生日おめでとう", 8),
        ("cl100k_base", "お誕生日おめでとう", 9),
        ("llama3", "hello world", 2),
        ("qwen3", "hello world", 2),
        ("deepseek_v3", "hello world", 2),
        ("mistral_v3", "hello world", 2),
        ("o200k_base", "", 0),
    ],
)
def test_known_texts_have_their_known_number(encoding: Encoding, text: str, number: int) -> None:
    """The praise and the birthday are those of OpenAI's cookbook, "How to count tokens with tiktoken"."""
    assert tokens([text], encoding) == number


def test_texts_are_counted_one_by_one() -> None:
    assert tokens(["hello", " world", PANGRAM], "o200k_base") == 12


def test_a_mark_of_the_model_in_a_text_is_text() -> None:
    assert tokens(["<|endoftext|>"], "o200k_base") > 1


def test_a_text_that_is_cut_costs_a_token_or_two_at_each_cut() -> None:
    greetings = MAX_PIECE // 2
    assert tokens([" hello"], "o200k_base") == 1
    assert greetings <= tokens([" hello" * greetings], "o200k_base") <= greetings + 2 * 3


@pytest.mark.parametrize("text", ["a", " ", "\n", "!", "漢", "\N{GRINNING FACE}", "ab"])
def test_a_text_without_an_end_takes_no_longer_than_its_length(text: str) -> None:
    tokens(["warm"], "o200k_base")
    started = time.perf_counter()
    assert tokens([text * 1_000_000], "o200k_base") > 0
    assert time.perf_counter() - started < 5


def test_the_library_is_not_loaded_before_somebody_counts() -> None:
    code = "import sys, rejoinder.server.serving; assert 'splintr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)

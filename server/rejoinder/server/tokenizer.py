"""Counting tokens where no provider does it: a vocabulary for each family of models, out of the library's own package.

What comes out is an estimate. Which tokenizer a model has is guessed by its name, and providers add what they do not
show.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from splintr import AnyTokenizer

Encoding = Literal["cl100k_base", "deepseek_v3", "llama3", "mistral_v3", "o200k_base", "qwen3"]

DEFAULT: Encoding = "o200k_base"
"""That of gpt-4o and everything OpenAI made after it, gpt-oss too. For a model nobody knows it is as good as any: for
English text and code the vocabularies differ by a few per cent."""

_ENCODINGS: Sequence[tuple[str, Encoding]] = (
    ("gpt-4o", "o200k_base"),
    ("gpt-4.", "o200k_base"),
    ("gpt-4", "cl100k_base"),
    ("gpt-3.5", "cl100k_base"),
    ("gpt-35", "cl100k_base"),  # as Azure spells it
    ("deepseek-", "deepseek_v3"),
    ("llama3", "llama3"),
    ("llama-3", "llama3"),
    ("llama-v3", "llama3"),
    ("meta-llama-3", "llama3"),
    ("codestral", "mistral_v3"),
    ("devstral", "mistral_v3"),
    ("magistral", "mistral_v3"),
    ("ministral", "mistral_v3"),
    ("mistral-", "mistral_v3"),
    ("pixtral", "mistral_v3"),
    ("qwen2", "qwen3"),
    ("qwen3", "qwen3"),
    ("qwq", "qwen3"),
)
"""How the names of models begin, and what their text is cut with; the first that fits."""

MAX_PIECE = 2**14
"""Characters that are tokenized at once.

The library looks for the best cut of a whole word, and remembers it. A text of a megabyte without a space is such a
word: in pieces its time is proportional to its length, and its memory is that of a piece. A cut in the middle of a word
costs a token or two."""


def encoding_of(model: str) -> Encoding:
    """`model` as the provider calls it; what is before the last slash is whose it is."""
    name = model.rpartition("/")[2].lower()
    return next((encoding for start, encoding in _ENCODINGS if name.startswith(start)), DEFAULT)


def tokens(texts: Iterable[str], encoding: Encoding) -> int:
    """How many tokens the texts are. Blocks for some 50 µs a kilobyte, and the first time for half a second."""
    tokenizer = _tokenizer(encoding)
    try:
        return sum(
            # Text of a user that spells a mark of the model's (`<|endoftext|>`) is text, not the mark.
            len(tokenizer.encode_ordinary(text[start : start + MAX_PIECE]))
            for text in texts
            for start in range(0, len(text), MAX_PIECE)
        )
    finally:
        # The library remembers some 65,000 words of any length, and these would be a client's.
        tokenizer.clear_cache()


@cache
def _tokenizer(encoding: Encoding) -> "AnyTokenizer":
    # Most servers never count, so only those that do load it.
    from splintr import Tokenizer

    return Tokenizer.from_pretrained(encoding)

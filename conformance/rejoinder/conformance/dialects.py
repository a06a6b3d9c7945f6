"""Which protocols our own provider speaks, and where, for those who only ask. It imports next to nothing."""

from collections.abc import Sequence
from typing import Literal, get_args

Dialect = Literal["chat", "anthropic", "gemini", "responses"]
DIALECTS: Sequence[Dialect] = get_args(Dialect)

PORT = 9099

"""What the bridge says otherwise than the clients that were recorded, rule by rule; `<dialect>_wording` has them."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.bridge.recordings import Object, Recording


@dataclass(frozen=True, slots=True)
class Rule:
    """Something we say otherwise than the recorded client, and why. `change` edits the recorded request into what we
    say; it sees the recording, and does nothing where the rule does not apply."""

    why: str
    change: Callable[[Object, Recording], None]


def reworded(exchange: Recording, rules: Iterable[Rule]) -> Object:
    """The recorded request, changed by every rule, in their order."""
    request = exchange.said
    for rule in rules:
        rule.change(request, exchange)
    return request


def explains(rule: Rule, rules: Sequence[Rule], exchange: Recording) -> bool:
    """Whether it changes something that the rules before it left."""
    earlier = rules[: rules.index(rule)]
    return json.dumps(reworded(exchange, earlier)) != json.dumps(reworded(exchange, [*earlier, rule]))

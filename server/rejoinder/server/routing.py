"""Which upstream answers for a model name.

The order is total, and the same for every request:

1. `name/model`, where `name` is a configured upstream: that upstream, and the rest of the name (which may itself
   hold slashes), whether or not the upstream lists it;
2. exact names and aliases, upstream by upstream in the order of the settings; an alias wins over an exact name of
   its own upstream;
3. globs, upstream by upstream in the same order. `*` stands for any run of characters and `?` for one; nothing else
   is special.

A name is looked up and never read as anything else: not as a URL, not as a path (reliability.md S6).
"""

import difflib
import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rejoinder.server.errors import InvalidRequest
from rejoinder.server.settings import UpstreamSettings

_LONGEST = 256
_SHOWN = 200  # reliability.md S10: how much of a client's text goes into a message


class UnknownModel(InvalidRequest):
    """Raised when no upstream serves the model asked for (http.md §6: 400 `model_not_found`)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model", code="model_not_found")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the upstream, and the name of the model there."""

    upstream: UpstreamSettings
    model: str


@dataclass(frozen=True, slots=True)
class _Glob:
    pattern: str
    regex: re.Pattern[str]
    upstream: UpstreamSettings


class Routes:
    """The upstreams of this server, in the order they are asked."""

    def __init__(self, upstreams: Sequence[UpstreamSettings]) -> None:
        self._upstreams = tuple(upstreams)
        self._named = {upstream.name: upstream for upstream in upstreams}
        self._exact: dict[str, Route] = {}
        self._globs: list[_Glob] = []
        for upstream in upstreams:
            for alias, model in upstream.aliases.items():
                self._exact.setdefault(alias, Route(upstream, model))
            for model in upstream.models:
                if is_glob(model):
                    self._globs.append(_Glob(model, _compile(model), upstream))
                else:
                    self._exact.setdefault(model, Route(upstream, model))

    def find(self, model: str) -> Route:
        """The upstream for `model` and the model's name there. Raises UnknownModel."""
        if len(model) > _LONGEST:
            raise UnknownModel(f"expected a model name of at most {_LONGEST} characters, got {len(model)}")
        name, slash, rest = model.partition("/")
        if slash and rest and name in self._named:
            upstream = self._named[name]
            return Route(upstream, upstream.aliases.get(rest, rest))
        if model in self._exact:
            return self._exact[model]
        for glob in self._globs:
            if glob.regex.match(model):
                return Route(glob.upstream, model)
        raise UnknownModel(self._unknown(model))

    def serves(self, model: str) -> bool:
        """Whether `find` would succeed."""
        try:
            self.find(model)
        except UnknownModel:
            return False
        return True

    def listing(self) -> list[tuple[str, str]]:
        """(model id, upstream name) of every name that can be listed: exact names and aliases, not globs."""
        return [(model, route.upstream.name) for model, route in self._exact.items()]

    def overlaps(self) -> list[str]:
        """What two upstreams both claim, one sentence each, saying who answers (lessons.md S-022).

        Globs of two upstreams that were both found by their variables are not compared: their order is that of the
        table of vendors, which is made for it.
        """
        found: list[str] = []
        for place, first in enumerate(self._upstreams):
            others = self._upstreams[place + 1 :]
            found += [line for other in others for line in _named_twice(first, other)]
            found += _crossed(first, [other for other in others if not (first.discovered and other.discovered)])
            found += self._behind_prefixes(first)
        return found

    def _behind_prefixes(self, upstream: UpstreamSettings) -> Iterator[str]:
        """Names of this upstream that begin with the name of another one, which rule 1 sends there."""
        for claim in (*upstream.models, *upstream.aliases):
            # A catch-all claims such names as well, but nobody writes it to mean them.
            hidden = [
                f"{name}/"
                for name in self._named
                if name != upstream.name and "/" in claim and _common(claim, f"{name}/?*") is not None
            ]
            if hidden:
                yield (
                    f"names that begin with {_quoted(hidden)} go to the upstream of that name, though '{claim}' of "
                    f"'{upstream.name}' matches them; ask for '{upstream.name}/{hidden[0]}…' to reach that one"
                )

    def _unknown(self, model: str) -> str:
        names = [*self._exact, *(f"{name}/…" for name in self._named)]
        near = difflib.get_close_matches(model, self._exact, n=3)
        globs = [glob.pattern for glob in self._globs]
        shown = ", ".join(f"'{name}'" for name in (near or [*names, *globs])[:10])
        lead = "did you mean" if near else "this server knows"
        return f"the requested model {printable(model)} does not exist; {lead} {shown}"


def is_glob(model: str) -> bool:
    """Whether a name of the settings stands for many."""
    return "*" in model or "?" in model


def printable(text: str) -> str:
    """A client's text as it may stand in a message: cut, quoted, control characters escaped (reliability.md S10)."""
    return ascii(text[:_SHOWN])


def _compile(pattern: str) -> re.Pattern[str]:
    # The standard translation is linear in the name (atomic groups). It also knows [sets], which names may hold.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))


def _named_twice(first: UpstreamSettings, second: UpstreamSettings) -> Iterator[str]:
    """Exact names of one that the other claims too, by name or by glob."""
    here, there = _exact(first), _exact(second)
    if both := [name for name in here if name in there]:
        yield (
            f"'{first.name}' and '{second.name}' both name {_quoted(both)}; '{first.name}' answers, being first; "
            f"ask for '{second.name}/{both[0]}' to reach the other"
        )
    for owner, other in ((first, second), (second, first)):
        for glob in filter(is_glob, other.models):
            if names := [name for name in _exact(owner) if name not in _exact(other) and _compile(glob).match(name)]:
                yield (
                    f"'{owner.name}' names {_quoted(names)}, and '{other.name}' claims as much by '{glob}'; "
                    f"'{owner.name}' answers; ask for '{other.name}/{names[0]}' to reach the other"
                )
                break


def _crossed(first: UpstreamSettings, others: Sequence[UpstreamSettings]) -> Iterator[str]:
    """Globs of upstreams asked later that match names a glob of the first one takes."""
    for glob in filter(is_glob, first.models):
        crossings = [
            (f"'{pattern}' of '{other.name}'", common, other.name)
            for other in others
            for pattern in filter(is_glob, other.models)
            if (common := _common(glob, pattern)) is not None
        ]
        if crossings:
            claims = ", ".join(claim for claim, _, _ in crossings[:4])
            rest = f" and {len(crossings) - 4} more" if len(crossings) > 4 else ""
            _, example, name = crossings[0]
            yield (
                f"'{glob}' of '{first.name}' is asked before {claims}{rest} and takes what both match, such as "
                f"'{example}'; ask for '{name}/…' to reach the other"
            )


def _exact(upstream: UpstreamSettings) -> dict[str, None]:
    return dict.fromkeys([*upstream.aliases, *(model for model in upstream.models if not is_glob(model))])


def _quoted(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + rest


def _common(one: str, two: str) -> str | None:
    """A shortest name that both patterns match, or None: a walk through both at once, as two automata."""
    layer = {(0, 0): ""}
    seen: set[tuple[int, int]] = set()
    while layer:
        pending = list(layer.items())
        layer = {}
        for (i, j), text in pending:
            if (i, j) in seen:
                continue
            seen.add((i, j))
            if i == len(one) and j == len(two):
                return text or "x"  # only stars match the empty name, and stars match anything
            a, b = one[i : i + 1], two[j : j + 1]
            if a == "*":
                pending.append(((i + 1, j), text))
            if b == "*":
                pending.append(((i, j + 1), text))
            if a and b and (a == b or a in "*?" or b in "*?"):
                letter = next((c for c in (a, b) if c not in "*?"), "x")
                layer.setdefault((i + (a != "*"), j + (b != "*")), text + letter)
    return None

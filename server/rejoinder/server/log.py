"""What the server says about itself: one line an event, JSON for machines, plain words for a terminal.

Everything that is logged, by us or by a library, passes `_clean` on its way out: secrets are removed, client text is
cut and nothing can move a terminal's cursor (reliability.md S10, S11, lessons.md S-201). Loggers come from
`structlog.stdlib.get_logger(__name__)` and take facts as keyword arguments.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

import msgspec
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from rejoinder.server import request_id

_CUT = 200
_CUT_TRACEBACK = 20_000
_CUT_BEFORE_READING = 65_536
_DEPTH = 4
_TRACEBACK = "exception"

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure(level: str, stream: TextIO) -> None:
    """Sends every log record of this process, uvicorn's included, to `stream` from `level` (`info`) on.

    uvicorn must be started with `log_config=None`. Its access log stays off: it costs 80 us a request and tells less
    than our own line at the end of a turn.
    """
    threshold = _LEVELS[level]
    render = _words if stream.isatty() else _json
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=_ORIGIN,
            processors=[
                structlog.processors.format_exc_info,
                ProcessorFormatter.remove_processors_meta,
                _clean,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # uvicorn tells whether anybody wants an access log by looking for handlers up the tree.
    logging.getLogger("uvicorn.access").handlers.clear()
    logging.getLogger("uvicorn.access").propagate = False
    # Its start and stop messages repeat what the command prints.
    logging.getLogger("uvicorn.error").setLevel(max(threshold, logging.WARNING))
    structlog.configure(
        processors=[*_ORIGIN, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def conceal(secret: str) -> None:
    """Makes `redact` remove this very text too: many a key of a local server looks like any other word (S11)."""
    # Shorter ones are placeholders such as 'none', and half of what is said would go with them.
    if len(secret) >= _SHORTEST_SECRET and secret not in _concealed:
        _concealed.append(secret)


def redact(text: str) -> str:
    """The text without keys, tokens, cookies, passwords and private keys, in time linear to its length."""
    for secret in _concealed:
        text = text.replace(secret, _GONE)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


# What a secret looks like. Every pattern has a bounded head and one greedy class behind it: linear (S13).

_GONE = "[redacted]"
_SHORTEST_SECRET = 8

_concealed: list[str] = []

_NAMED = (
    r"api[-_]?key|authorization|client[-_]?secret|"
    r"(?:access|refresh|id|auth|session)[-_]?token|private[-_]?key|pass(?:word|wd)|chatgpt[-_]?account[-_]?id"
)

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{1,40}-----(?:[^-]|-(?!----END ))*+(?:-----END [A-Z ]{1,40}-----)?"), _GONE),
    # A cookie runs to the end of its line or quotation.
    (re.compile(r"(?i)(cookie[\"']?\s{0,4}[:=,]\s{0,4}(?:b?[\"'])?)[^\r\n\"']+"), rf"\1{_GONE}"),
    (
        re.compile(
            rf"(?i)((?:{_NAMED})[\"']?\s{{0,4}}[:=,]\s{{0,4}}(?:b?[\"'])?+)"
            r"(?!\[redacted\])(?:(?:bearer|basic|digest|token)\s{1,4})?[^\s\"',;}\])&]+"
        ),
        rf"\1{_GONE}",
    ),
    (re.compile(r"(?i)\b(bearer\s{1,4})(?!(?:tokens?|auth[a-z]{0,12}|header|key)\b)[\w.~+/=*-]{6,}"), rf"\1{_GONE}"),
    (
        re.compile(r"(?i)([?&](?:key|token|sig|signature|x-amz-(?:credential|signature|security-token))=)[^&\s\"'#]+"),
        rf"\1{_GONE}",
    ),
    (re.compile(r"(://)[^/\s:@]{0,256}:[^/\s@]{1,256}@"), rf"\1{_GONE}@"),
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:"
            r"sk-[\w*.-]{6,}|AIza[\w-]{10,}|(?:gsk|hf|ghp|gho|r8)_[\w-]{10,}|github_pat_\w{10,}|(?:xai|pplx|nvapi)-[\w-]{10,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}|ya29\.[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]+(?:\.[\w-]*)?"
            r")"
        ),
        _GONE,
    ),
)

_SECRET_NAME = re.compile(
    r"(?:x?(?:goog)?api_?keys?|(?:proxy)?authorization|(?:set)?cookies?|(?:access|refresh|id|auth|session)?token"
    r"|(?:client)?secrets?|credentials?|privatekey|password|passwd|chatgptaccountid|openaiorganization|openaiproject)"
)

# Control characters, line and paragraph separators, direction marks and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _tidy(text: str, length: int) -> str:
    clean = redact(text[:_CUT_BEFORE_READING])
    if len(clean) > length or len(text) > _CUT_BEFORE_READING:
        clean = f"{clean[:length]}… ({len(text)} characters)"
    return _UNPRINTABLE.sub(_escaped, clean)


def _is_secret(name: object) -> bool:
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    return isinstance(name, str) and bool(_SECRET_NAME.fullmatch(name.lower().replace("-", "").replace("_", "")))


def _value(value: object, depth: int = 0) -> object:
    match value:
        case int() if value.bit_length() > 63:  # more than a reader of JSON can be expected to take
            return f"an integer of {value.bit_length()} bits"
        case None | bool() | int() | float():
            return value
        case str():
            return _tidy(value, _CUT)
        case bytes():
            return _tidy(value[:_CUT_BEFORE_READING].decode("utf-8", "backslashreplace"), _CUT)
        case Mapping() if depth < _DEPTH:
            return {
                _tidy(str(name), _CUT): _GONE if _is_secret(name) else _value(inner, depth + 1)
                for name, inner in value.items()
            }
        case (name, (str() | bytes())) if _is_secret(name):  # a header as a pair
            return [_value(name), _GONE]
        case Sequence() | set() | frozenset() if depth < _DEPTH:
            return [_value(inner, depth + 1) for inner in value]
        case _:
            return _tidy(str(value), _CUT)


def _clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    clean: EventDict = {}
    for name, value in event.items():
        if _is_secret(name):
            clean[name] = _GONE
        elif name == _TRACEBACK:
            clean[name] = _tidy(str(value), _CUT_TRACEBACK)
        else:
            clean[name] = _value(value)
    return clean


# Where a record comes from, and how it is written.


def _origin(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    origin: EventDict = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": method,
        "logger": record.name if record else logger.name,
        "event": event.pop("event"),
    }
    if (current := request_id.current.get()) is not None:
        origin["request_id"] = current
    return {**origin, **event}


_ORIGIN: list[Processor] = [_origin]

_encode = msgspec.json.Encoder().encode


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _encode(event).decode()


def _words(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    traceback = event.pop(_TRACEBACK, None)
    head = f"{event.pop('time')} {event.pop('level'):<8} {event.pop('event')}"
    facts = "".join(
        f"  {name}={value if isinstance(value, str) else _encode(value).decode()}" for name, value in event.items()
    )
    line = (head + facts).replace("\n", "\\n").replace("\t", " ")
    return f"{line}\n{traceback}" if traceback else line

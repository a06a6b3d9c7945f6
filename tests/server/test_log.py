"""reliability.md S10, S11; lessons.md S-201, S-208."""

import io
import json
import logging
import time
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.server import log, request_id
from rejoinder.server.log import configure, redact

CANARY = "c4n4ryc4n4ryc4n4ry"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    names = ("uvicorn", "uvicorn.error", "uvicorn.access")
    before = root.handlers[:], root.level, [(logging.getLogger(name).level) for name in names]
    configuration = structlog.get_config()
    yield
    root.handlers[:], root.level = before[0], before[1]
    for name, level in zip(names, before[2], strict=True):
        logging.getLogger(name).level = level
        logging.getLogger(name).propagate = True
    structlog.configure(**configuration)


def logger() -> structlog.stdlib.BoundLogger:
    made: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("rejoinder.test")
    return made


def logged(**facts: object) -> dict[str, object]:
    """The one line that comes out for these facts."""
    stream = io.StringIO()
    configure("info", stream)
    logger().info("it happened", **facts)
    [line] = stream.getvalue().splitlines()
    read: dict[str, object] = json.loads(line)
    return read


def test_a_line_is_json_with_its_origin_first() -> None:
    line = logged(status=200, seconds=0.5, stored=True, parent=None)
    assert list(line)[:4] == ["time", "level", "logger", "event"]
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info",
        "logger": "rejoinder.test",
        "event": "it happened",
        "status": 200,
        "seconds": 0.5,
        "stored": True,
        "parent": None,
    }


def test_what_is_below_the_level_is_not_said() -> None:
    stream = io.StringIO()
    configure("warning", stream)
    logger().info("quiet")
    logging.getLogger("any.library").info("quiet")
    logger().warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_lines_of_a_request_carry_its_id() -> None:
    token = request_id.current.set("req_1")
    try:
        assert logged()["request_id"] == "req_1"
    finally:
        request_id.current.reset(token)
    assert "request_id" not in logged()


def test_libraries_come_out_the_same_way() -> None:
    stream = io.StringIO()
    configure("info", stream)
    logging.getLogger("uvicorn.error").warning("bad %s of %s", "thing", f"sk-{CANARY}")
    logging.getLogger("asyncio").error("never retrieved")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["event"]) == ("warning", "uvicorn.error", "bad thing of [redacted]")
    assert second["logger"] == "asyncio"


def test_uvicorn_keeps_its_news_and_its_access_log_to_itself() -> None:
    stream = io.StringIO()
    for name in ("uvicorn", "uvicorn.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler(stream))
    configure("info", stream)
    logging.getLogger("uvicorn.error").info("Uvicorn running on …")
    logging.getLogger("uvicorn.access").info("GET /")
    assert stream.getvalue() == ""
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_a_traceback_is_one_line_of_json_and_tells_no_secret() -> None:
    stream = io.StringIO()
    configure("info", stream)
    try:
        raise ValueError(f"Authorization: Bearer {CANARY}\x1b[2J")
    except ValueError as exc:
        logger().error("failed", exc_info=exc)
    [line] = stream.getvalue().splitlines()
    traceback = json.loads(line)["exception"]
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("ValueError: Authorization: [redacted]")
    assert CANARY not in line


def test_a_terminal_gets_words_and_no_commands() -> None:
    stream = Terminal()
    configure("info", stream)
    logger().info("turn ended", model="a\x1b[31m\nb\u202ec", count=[1, 2], flag=None)
    try:
        raise ValueError("why")
    except ValueError as exc:
        logger().error("turn failed", exc_info=exc)
    first, second, *traceback = stream.getvalue().splitlines()
    assert first[:4].isdecimal()
    assert first.endswith(
        "Z info     turn ended  logger=rejoinder.test  model=a\\u001b[31m\\nb\\u202ec  count=[1,2]  flag=null"
    )
    assert second.endswith("error    turn failed  logger=rejoinder.test")
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "ValueError: why"


# What a client may make us write


def test_client_text_is_cut() -> None:
    line = logged(short="x" * 200, long="x" * 201, huge="x" * 100_000, data=b"x" * 300)
    assert line["short"] == "x" * 200
    assert line["long"] == "x" * 200 + "… (201 characters)"
    assert line["huge"] == "x" * 200 + "… (100000 characters)"
    assert str(line["data"]).startswith("x" * 200 + "…")


def test_a_secret_is_gone_before_the_text_is_cut() -> None:
    assert CANARY[:6] not in str(logged(text="x" * 190 + f" sk-{CANARY}"))


def test_odd_values_are_written_somehow() -> None:
    class Odd:
        def __str__(self) -> str:
            return f"odd sk-{CANARY}"

    line = logged(
        huge=2**64, bytes=b"\xff\x00", half="\ud800", odd=Odd(), many={1}, deep=[[[[[["x"]]]]]], table={1: (2, 3)}
    )
    assert line["huge"] == "an integer of 65 bits"
    assert line["bytes"] == "\\xff\\u0000"
    assert line["half"] == "\\ud800"
    assert line["odd"] == "odd [redacted]"
    assert line["many"] == [1]
    assert line["deep"] == [[[["[['x']]"]]]]
    assert line["table"] == {"1": [2, 3]}


@given(st.text(), st.text())
def test_no_text_breaks_a_line_or_moves_a_cursor(text: str, name: str) -> None:
    facts = {f"_{name}": text}
    for stream in (io.StringIO(), Terminal()):
        configure("info", stream)
        logger().info("it happened", facts=facts)
        written = stream.getvalue()
        assert written.endswith("\n")
        assert len(written.splitlines()) == 1
        assert all(char.isprintable() or char in "\n" or ord(char) >= 0xA0 for char in written)


# Secrets


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "x-api-key",
        "xApiKey",
        "x-goog-api-key",
        "api_key",
        "apiKey",
        "apiKeys",
        "accessToken",
        "refresh_token",
        "clientSecret",
        "client_secret",
        "password",
        "credentials",
        "chatgpt-account-id",
        "OpenAI-Organization",
    ],
)
def test_facts_with_telling_names_are_not_told(name: str) -> None:
    line = logged(**{name: CANARY}, inner={"deeper": [{name: CANARY}]}, pairs=[(name, CANARY), (name.encode(), b"x")])
    assert CANARY not in json.dumps(line)
    assert line[name] == "[redacted]"
    assert line["pairs"] == [[name, "[redacted]"], [name, "[redacted]"]]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"authorization: Bearer {CANARY}", "authorization: [redacted]"),
        (f"Authorization: Basic {CANARY}==", "Authorization: [redacted]"),
        (f"{{'authorization': 'Bearer {CANARY}', 'a': 1}}", "{'authorization': '[redacted]', 'a': 1}"),
        (f"[(b'x-api-key', b'{CANARY}'), (b'a', b'b')]", "[(b'x-api-key', b'[redacted]'), (b'a', b'b')]"),
        (f'"apiKey":"{CANARY}","a":1', '"apiKey":"[redacted]","a":1'),
        (f"OPENAI_API_KEY={CANARY} x", "OPENAI_API_KEY=[redacted] x"),
        (f"accessToken = {CANARY}", "accessToken = [redacted]"),
        (f"refresh_token={CANARY}&a=b", "refresh_token=[redacted]&a=b"),
        (f"client-secret: {CANARY}", "client-secret: [redacted]"),
        (f"Cookie: a={CANARY}; b={CANARY}\nnext", "Cookie: [redacted]\nnext"),
        (f"set-cookie: id={CANARY}; Path=/", "set-cookie: [redacted]"),
        (f"chatgpt-account-id: {CANARY}", "chatgpt-account-id: [redacted]"),
        (f"sent bearer {CANARY}.", "sent bearer [redacted]"),
        (f"https://a/b?key={CANARY}&x=1#y", "https://a/b?key=[redacted]&x=1#y"),
        (f"https://a/b?x=1&token={CANARY}", "https://a/b?x=1&token=[redacted]"),
        (f"http://user:{CANARY}@a/b", "http://[redacted]@a/b"),
        (f"redis://:{CANARY}@a:6379/0", "redis://[redacted]@a:6379/0"),
        (f"Incorrect API key provided: sk-proj-{CANARY}.", "Incorrect API key provided: [redacted]"),
        ("Incorrect API key provided: sk-1234****abcd", "Incorrect API key provided: [redacted]"),
        (f"(sk-ant-api03-{CANARY})", "([redacted])"),
        ("AIzaSyA1234567890abcdefgh is bad", "[redacted] is bad"),
        (f"gsk_{CANARY} xai-{CANARY} hf_{CANARY}", "[redacted] [redacted] [redacted]"),
        ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "[redacted]"),
        (
            f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-{CANARY}-\n-----END RSA PRIVATE KEY----- x",
            "[redacted] x",
        ),
        (f"-----BEGIN PRIVATE KEY-----\n{CANARY}", "[redacted]"),
    ],
)
def test_text_loses_its_secrets_and_keeps_the_rest(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert redact(clean) == clean


def test_a_key_that_looks_like_a_word_can_be_concealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_concealed", [])
    for secret in ("correct horse", "correct horse", "none"):
        log.conceal(secret)
    assert redact("is it 'correct horse' or none?") == "is it '[redacted]' or none?"
    assert log._concealed == ["correct horse"]


@pytest.mark.parametrize(
    "text",
    [
        "Missing bearer token.",
        "Expected an authorization header.",
        "max_output_tokens: 5, input_tokens: 100",
        "Unexpected token: '}' at 3",
        "You didn't provide an API key.",
        "a risk-free task about sk-learn and http://host:80/a@b",
        "what a cookie",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "-----BEGIN A-----",
        "-----END A",
        "-",
        "cookie",
        "api_key ",
        "api_key=",
        "authorization: bearer ",
        "bearer ",
        "://a",
        "a:",
        "&key=",
        "eyJaaaaaaaaaa.",
        "sk-",
        "://::",
        "a",
        " ",
        '"',
    ],
)
def test_every_pattern_is_linear(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    started = time.monotonic()
    redact(text)
    assert time.monotonic() - started < 2


def test_levels_have_the_names_uvicorn_uses() -> None:
    for level in ("debug", "info", "warning", "error", "critical"):
        configure(level, io.StringIO())
        assert logging.getLogger().level == getattr(logging, level.upper())
    assert log.configure.__doc__

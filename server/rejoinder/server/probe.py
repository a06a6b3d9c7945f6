"""Asking an upstream whether it is there: for the list of its models, and what to do about the answer."""

import aiohttp
import msgspec

from rejoinder.bridge.dialect import Dialect
from rejoinder.server.assembly import dialect_of
from rejoinder.server.routing import is_glob
from rejoinder.server.settings import UpstreamSettings


class Finding(msgspec.Struct, frozen=True):
    """What came of it, in one line."""

    ok: bool
    told: str


async def probe(upstream: UpstreamSettings, *, timeout: float = 5.0) -> Finding:
    """Whether `upstream` can be reached with its key, within `timeout` seconds. No answer of it is repeated."""
    if upstream.dialect == "demo":
        return Finding(True, "ok, answers by itself")
    dialect = dialect_of(upstream.profile)
    call = dialect.models()
    headers = {**call.headers, **upstream.sent_headers()}
    try:
        # Redirects would carry the key elsewhere, and proxies of the environment are not ours (reliability.md S14).
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout), trust_env=False) as session,
            session.request(
                call.method, upstream.base_url + call.path, headers=headers, allow_redirects=False
            ) as answer,
        ):
            return _judged(upstream, dialect, call.path, answer.status, await answer.read())
    except TimeoutError:
        return Finding(False, f"no answer within {timeout:g} s; is the address right, and is a firewall in between?")
    except aiohttp.ClientSSLError as exc:
        return Finding(False, f"TLS failed ({_reason(exc)}); is the certificate valid for this host?")
    except aiohttp.ClientConnectorError as exc:
        return Finding(False, f"nothing answers there ({_reason(exc)}); is it running, and is base_url right?")
    except aiohttp.ClientError as exc:
        return Finding(False, f"its answer is not HTTP as expected ({type(exc).__name__}); is base_url right?")


def _judged(upstream: UpstreamSettings, dialect: Dialect, path: str, status: int, body: bytes) -> Finding:
    if status in (401, 403):
        source = upstream.credential.source
        return Finding(
            False,
            f"{status}: it wants a key; name one with api_key_env"
            if upstream.credential.reveal() is None
            else f"{status}: it refuses the key of {source}; is it the right one, and does it still work?",
        )
    if 300 <= status < 400:
        return Finding(False, f"{status}: it redirects, which is not followed; write the final address as base_url")
    if status == 404:
        added = path.startswith("/v1/")
        hint = "/v1 is added, so it does not belong there" if added else "many addresses end in /v1, does this one?"
        return Finding(False, f"404: it has no {path.partition('?')[0]} below base_url; {hint}")
    if status != 200:
        return Finding(False, f"{status}: it answers, but not with its models; try again or see its own log")
    try:
        served = {*dialect.offered(body)}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Finding(
            False, f"200, but not with a list of models; does the server at base_url speak '{upstream.dialect}'?"
        )
    wanted = [model for model in (*upstream.models, *upstream.aliases.values()) if not is_glob(model)]
    if missing := [model for model in wanted if model not in served]:
        return Finding(True, f"ok, {len(served)} models; not among them: {', '.join(missing)}")
    return Finding(True, f"ok, {len(served)} models")


def _reason(exc: aiohttp.ClientConnectorError | aiohttp.ClientSSLError) -> str:
    inner = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    return getattr(inner, "strerror", None) or type(inner).__name__

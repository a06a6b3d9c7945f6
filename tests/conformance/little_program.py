"""A stand-in for the Codex program that takes no process: one request, and what Codex prints of the answer."""

import aiohttp
import msgspec
from multidict import CIMultiDict

from rejoinder.conformance.program import Program, Ran

CACHE_KEY = "little-program"


def little_program(session: aiohttp.ClientSession) -> Program:
    async def program(prompt: str, *, url: str, model: str, key: str | None, timeout: float) -> Ran:
        body = {"model": model, "input": prompt, "store": False, "stream": True, "prompt_cache_key": CACHE_KEY}
        headers = CIMultiDict({"authorization": f"Bearer {key}"})
        received = b""
        async with session.request(
            "POST",
            f"{url}/responses",
            data=msgspec.json.encode(body),
            params=None,
            headers=headers,
            allow_redirects=False,
        ) as reply:
            async for chunk, _ in reply.content.iter_chunks():
                received += chunk
        if b"response.completed" in received:
            return Ran(0, b'a warning\n{"type":"turn.started"}\n{"type":"turn.completed"}\n')
        return Ran(1, b'{"type":"error"}\n{"type":"turn.failed"}\n')

    return program

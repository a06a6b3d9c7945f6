"""Answers that are one JSON document."""

from collections.abc import Mapping

from starlette.responses import Response


def json(body: bytes, *, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, 200, headers, media_type="application/json")

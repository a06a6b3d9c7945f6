"""What else than text may be said to a model."""

import base64
import struct
import zlib

from rejoinder.conformance.answer import create
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.server import Json, Server

chapter = Chapter("images", "Images and files")


def _png() -> str:
    """A red square of 16 by 16 pixels, as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\0\0" * 16) * 16
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


@chapter.rule
async def an_image_is_accepted_or_refused_by_name(server: Server) -> None:
    """An image is answered; a server whose model cannot see says that, with status 400 and the place of the image.

    Source: Open Responses compliance suite, image input; API reference, input image (objects.md §5).
    """
    parts: list[Json] = [
        {"type": "input_text", "text": "What is in this picture?"},
        {"type": "input_image", "image_url": _png()},
    ]
    answer = await create(server, optional=("input",), input=[{"role": "user", "content": parts}])
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")

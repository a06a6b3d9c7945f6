"""What else than text may be said to a model."""

import base64

from rejoinder.conformance.answer import create
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, PICTURE, TOOLS
from rejoinder.conformance.server import Json, Server

chapter = Chapter("images", "Images and files")


@chapter.rule
async def an_image_is_accepted_or_refused_by_name(server: Server) -> None:
    """An image is answered; a server whose model cannot see says that, with status 400 and the place of the image.

    Source: Open Responses compliance suite, image input; API reference, input image (objects.md §5).
    """
    parts: list[Json] = [
        {"type": "input_text", "text": "What is in this picture?"},
        {"type": "input_image", "image_url": PICTURE},
    ]
    answer = await create(server, optional=("input",), input=[{"role": "user", "content": parts}])
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")


async def _seen(server: Server, *parts: Json) -> None:
    """These parts are answered, or refused by their place."""
    answer = await create(server, optional=("input",), input=[{"role": "user", "content": parts}])
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def an_image_may_have_a_detail(server: Server) -> None:
    """An image may be looked at in low, high or automatic detail, or without a word of it.

    Source: API reference, input image (objects.md §5).
    """
    for detail in ("low", "high", "auto"):
        await _seen(
            server,
            {"type": "input_text", "text": "What is in this picture?"},
            {"type": "input_image", "image_url": PICTURE, "detail": detail},
        )


@chapter.rule
async def an_image_may_come_alone(server: Server) -> None:
    """A message may be an image and nothing else.

    Source: API reference, input image (objects.md §5).
    """
    await _seen(server, {"type": "input_image", "image_url": PICTURE})


@chapter.rule
async def a_file_is_accepted_or_refused_by_name(server: Server) -> None:
    """A file is answered; a server whose model cannot read it says that, with status 400 and the place of the file.

    Source: API reference, input file (objects.md §5).
    """
    await _seen(
        server,
        {"type": "input_text", "text": "What does this say?"},
        {"type": "input_file", "filename": "hello.pdf", "file_data": _pdf()},
    )


def _pdf() -> str:
    """A page that says hello, as a data URL."""
    text = b"BT /F1 24 Tf 72 720 Td (Hello) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text),
    ]
    document, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(document))
        document += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    document += b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\n" % table
    document += b"startxref\n%d\n%%%%EOF\n" % document.index(b"xref")
    return f"data:application/pdf;base64,{base64.b64encode(document).decode()}"


@chapter.rule
async def an_image_may_be_the_output_of_a_tool(server: Server) -> None:
    """The output of a call may have an image in it; a server whose model cannot see it says so.

    Source: API reference, function call output (objects.md §6.1).
    """
    output: Json = [{"type": "input_text", "text": "The picture."}, {"type": "input_image", "image_url": PICTURE}]
    answer = await create(
        server,
        optional=("input", *TOOLS),
        input=[
            {"role": "user", "content": "What do you see?"},
            {"type": "function_call", "call_id": "call_0", "name": "current_time", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_0", "output": output},
        ],
        tools=[CLOCK],
        store=False,
    )
    expect_equal("the status", "completed", answer.status)

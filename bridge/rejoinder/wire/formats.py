"""What form an answer's text is to have (objects.md §1.2)."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct


class TextFormat(Struct, frozen=True):
    """`schema` is a JSON schema; it, `name` and `strict` belong to `json_schema` alone."""

    type: Literal["text", "json_schema", "json_object"]
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    schema: Raw = Raw()
    description: str | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        if self.type == "json_schema":
            missing = "name" if self.name is None else "schema" if bytes(self.schema) in (b"", b"null") else None
            if missing is not None:
                # msgspec turns this into a validation error with the format's path.
                raise ValueError(f"Object missing required field `{missing}`")

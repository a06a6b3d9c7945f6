"""The list of models in OpenAI's form, which most providers share (provider-chat.md §1, provider-anthropic.md §1)."""

import msgspec

from rejoinder.bridge.dialect import Call

LIST_MODELS = Call("/models", b"", stream=False, method="GET")


class _Model(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Model] | None


_LIST = msgspec.json.Decoder(_List)


def listed(body: bytes) -> list[str]:
    """The names in such a list; Ollama says null where it has none. Raises msgspec.MsgspecError for anything else."""
    return [model.id for model in _LIST.decode(body).data or ()]

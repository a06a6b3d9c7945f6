"""The response object at its birth: what the request said, with every default filled in (objects.md §2)."""

import msgspec
from msgspec import Raw

from rejoinder.wire.formats import TextFormat
from rejoinder.wire.request import CreateRequest, given
from rejoinder.wire.responses import ConversationRef, ReasoningEcho, Response, TextEcho
from rejoinder.wire.tools import shown

_ENCODER = msgspec.json.Encoder()
_PLAIN = Raw(b'{"type":"text"}')


def echo(request: CreateRequest, *, response_id: str, created_at: int) -> Response:
    """A response in progress, with an empty output. `created_at` is in unix seconds."""
    fields = request.fields
    text, reasoning = fields.text, fields.reasoning
    return Response(
        id=response_id,
        created_at=created_at,
        background=request.background,
        conversation=ConversationRef(request.conversation) if request.conversation is not None else None,
        model=request.model,
        instructions=fields.instructions,
        max_output_tokens=fields.max_output_tokens,
        max_tool_calls=fields.max_tool_calls,
        metadata=fields.metadata or {},
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        previous_response_id=fields.previous_response_id,
        prompt_cache_key=fields.prompt_cache_key,
        reasoning=ReasoningEcho(reasoning.effort, reasoning.summary) if reasoning is not None else ReasoningEcho(),
        safety_identifier=fields.safety_identifier,
        store=request.store,
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_p=1.0 if fields.top_p is None else fields.top_p,
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        text=TextEcho(_format(text.format), text.verbosity or "medium") if text is not None else TextEcho(_PLAIN),
        tool_choice=fields.tool_choice if given(fields.tool_choice) else Raw(b'"auto"'),
        tools=[shown(tool) for tool in request.tools],
        top_logprobs=fields.top_logprobs or 0,
        truncation=fields.truncation or "disabled",
        user=fields.user,
    )


def _format(wanted: TextFormat | None) -> Raw:
    if wanted is None or wanted.type != "json_schema":
        return _PLAIN if wanted is None else Raw(_ENCODER.encode({"type": wanted.type}))
    return Raw(
        _ENCODER.encode(
            {
                "type": wanted.type,
                "name": wanted.name,
                "description": wanted.description,
                "schema": wanted.schema,
                "strict": wanted.strict is True,
            }
        )
    )

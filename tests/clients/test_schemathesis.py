"""The description against the server: what it says may be sent is answered as it says, and nothing makes it stumble.

Schemathesis makes the requests, valid and broken ones, from `/openapi.json` alone. Ids it makes up lead nowhere, so
every other request names things that exist.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
import requests

from rejoinder.server.openapi import OPERATIONS, Operation
from tests.live import running

if TYPE_CHECKING:
    from schemathesis import Case, Response
    from schemathesis.schemas import APIOperation, BaseSchema

pytestmark = [pytest.mark.clients, pytest.mark.slow]

EXAMPLES = 15
"""Requests an operation gets; with these all operations together take about twenty seconds on two cores."""

WAIT = 10.0
"""Seconds for an answer. The built-in model answers at once, so whatever takes longer hangs."""

ROWS = {row.name: row for row in OPERATIONS}

Json = Any  # JSON as the standard library reads it


class Described:
    """A running server and what it says of itself."""

    def __init__(self, url: str, session: requests.Session) -> None:
        # Loading it takes a second, which a run that leaves these tests out does not pay.
        from schemathesis import openapi

        self._url = url
        self._session = session
        self._schema: BaseSchema = openapi.from_url(f"{url}/openapi.json")

    def operation(self, row: Operation) -> "APIOperation[Any, Any, Any, Any]":
        return self._schema[row.path][row.method]

    def existing(self, places: Sequence[str]) -> Mapping[str, str]:
        """Something that exists for each name in a path."""
        found = {"model": "demo"}
        if "response_id" in places:
            found["response_id"] = self._post("/v1/responses", model="demo", input="hello", background=True)["id"]
        if "conversation_id" in places:
            found["conversation_id"] = self._post("/v1/conversations")["id"]
        if "item_id" in places:
            said = {"role": "user", "content": "hello"}
            [item] = self._post(f"/v1/conversations/{found['conversation_id']}/items", items=[said])["data"]
            found["item_id"] = item["id"]
        return {place: found[place] for place in places}

    def ask(self, case: "Case[Any]") -> "Response":
        """Send it, and hold what comes back against the description."""
        from schemathesis.checks import not_a_server_error
        from schemathesis.specs.openapi.checks import (
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
            status_code_conformance,
        )

        return case.call_and_validate(
            session=self._session,
            timeout=WAIT,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_headers_conformance,
                response_schema_conformance,
            ],
        )

    def _post(self, path: str, **body: Json) -> Json:
        answer = self._session.post(self._url + path, json=body, timeout=WAIT)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    with running(tmp_path_factory.mktemp("described")) as live, requests.Session() as session:
        yield Described(f"http://127.0.0.1:{live.port}", session)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in OPERATIONS])
def test_whatever_is_sent_the_answer_is_described(row: Operation, described: Described) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from schemathesis import Case, GenerationMode

    operation = described.operation(row)
    existing = described.existing(row.places)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of([operation.as_strategy(mode) for mode in GenerationMode]), real=st.booleans())
    def ask(case: Case[Any], real: bool) -> None:
        if real:
            case.path_parameters.update(existing)
            if isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "demo"
        described.ask(case)

    ask()


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"background": True}, {"background": True, "stream": True}])
@pytest.mark.parametrize("said", ["hello", [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]])
def test_each_way_to_be_answered_is_described(fields: Mapping[str, bool], said: Json, described: Described) -> None:
    create = described.operation(ROWS["createResponse"])
    answer = described.ask(create.Case(body={"model": "demo", "input": said, **fields}))
    assert answer.status_code == 200
    kind = "text/event-stream" if fields.get("stream") else "application/json"
    assert answer.headers["content-type"][0].startswith(kind)


def test_a_stream_that_is_told_again_is_described(described: Described) -> None:
    body: Json = {"model": "demo", "input": "hello", "background": True, "stream": True}
    told = described.ask(described.operation(ROWS["createResponse"]).Case(body=body))
    found = re.search(r"resp_\w+", told.text)
    assert found is not None
    again = described.operation(ROWS["getResponse"]).Case(
        path_parameters={"response_id": found[0]}, query={"stream": "true", "starting_after": 1}
    )
    assert described.ask(again).status_code == 200
